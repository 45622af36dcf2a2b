# SPDX-License-Identifier: AGPL-3.0-or-later
"""Calibrate a model on a data set: predict, fit, judge by cross-fitting, fold, and measure the folded model."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path, PurePath
from typing import Any

import numpy as np
import torch
from torch import nn

from det_ls.base.arguments import check_flag, check_integer
from det_ls.base.errors import ArgumentError, ArgumentTypeError, ExistingFileError
from det_ls.base.folders import check_writable
from det_ls.base.types import Json
from det_ls.calibration.crossfit import FOLDS
from det_ls.calibration.files import groups_of, versions
from det_ls.calibration.fold import (
    class_layers,
    detection_view,
    fold_checkpoint,
    fold_map,
    held_checkpoint,
    load_checkpoint,
    read_record,
)
from det_ls.calibration.judge import Change
from det_ls.calibration.maps import AffineMap, Floats, logit, map_from_dict
from det_ls.calibration.methods import FOLDING, METHODS, Recipe
from det_ls.calibration.results import MAP_FILE, NUMBERS_FILE, Calibration
from det_ls.calibration.smoothing import kept_shares
from det_ls.calibration.table import calibrate_table, desmooth_table
from det_ls.data.coco import coco_evaluate
from det_ls.data.ground_truth import GroundTruth, ground_truth_for
from det_ls.data.groups import GroupSpec
from det_ls.data.locate import check_dataset
from det_ls.evaluation.classes import category_ids
from det_ls.evaluation.detector import Detector, load_detector
from det_ls.evaluation.predictions import predict
from det_ls.evaluation.results import check_save_dir
from det_ls.evaluation.settings import PredictionSettings
from det_ls.evaluation.split import coco_detections
from det_ls.metrics.matching import table_from_coco
from det_ls.metrics.table import DetectionTable

DESMOOTH = "desmooth"


def calibrate(
    model: object,
    data: str | Path,
    method: str = "platt",
    *,
    split: str = "val",
    target: str = "iou",
    weighting: str = "score",
    per_class: bool = False,
    shrink: bool = True,
    groups: GroupSpec | None = None,
    smoothing: object = None,
    allow_train: bool = False,
    recalibrate: bool = False,
    save: str | Path | bool = True,
    save_dir: str | Path | None = None,
    exist_ok: bool = False,
    annotations: str | Path | Mapping[str, Any] | None = None,
    imgsz: int = 640,
    batch: int = 16,
    conf: float = 0.001,
    iou: float = 0.7,
    max_det: int = 300,
    device: object = None,
    workers: int = 8,
    end2end: bool | None = None,
    folds: int = FOLDS,
    bootstrap: int = 200,
    seed: int = 0,
) -> Calibration:
    """Calibrate a model's scores on a data set's split.

    The map is fitted on the boxes that come out of the pipeline, after NMS, at the logits that the model computed.
    Platt and temperature scaling are folded into a copy of the checkpoint, which stays an ordinary one of Ultralytics.

    Args:
        model: Path of a checkpoint (detection; segmentation and pose by their boxes), an ``ultralytics.YOLO`` or a
            detection module.
        data: A data YAML, as for :func:`det_ls.evaluate`.
        method: ``platt``, ``temperature``; or ``beta``, ``isotonic`` or ``desmooth``, which do not fold.
        split: ``val`` or ``test``; ``train`` only with ``allow_train``.
        target: ``iou`` or ``tp`` (:class:`det_ls.calibration.methods.Recipe`), like the next two.
        weighting: ``score``, ``above`` or ``all``.
        per_class: Whether each class has its own map, partially pooled.
        shrink: Whether the map is pulled towards the identity as far as the data cannot tell it from that, so that a
            model that is calibrated already stays so (:mod:`det_ls.calibration.identity`).
        groups: Which images are not independent, such as slices of one patient, and are held out together: a CSV file
            with the columns image and group, or a regular expression on the file names.
        smoothing: For ``desmooth``: label-smoothing keys, or the matrix; None for those of the run's args.yaml.
        allow_train: Whether ``split="train"`` may be used all the same.
        recalibrate: Whether to start again from the original scores of a checkpoint that is calibrated already.
        save: Where to write the calibrated checkpoint: True for ``<weights>_calibrated.pt`` beside the weights when the
            model is a path, False for nowhere.
        save_dir: Folder for ``map.json`` and ``calibration.json``; None for neither.
        exist_ok: Whether to replace files.
        annotations: As in :func:`det_ls.evaluate`, like the next eight.
        imgsz: Length of the longer side of the input, in pixels.
        batch: Images a batch.
        conf: Smallest score that is kept.
        iou: IoU threshold of NMS.
        max_det: Detections an image at most.
        device: ``cpu``, ``0``, ...; None chooses.
        workers: Processes that load images.
        end2end: Which head of an end-to-end model is fitted; both are calibrated by its map.
        folds: Folds of the cross-fit.
        bootstrap: Replicates over groups for the intervals of the numbers; 0 for none.
        seed: Seed of folds and bootstrap.

    Returns:
        The map, and the numbers before and after.

    Raises:
        FileExistsError: If a file is there and ``exist_ok`` is False.
        FileNotFoundError: If the model or the data does not exist.
        TypeError: If an argument has the wrong type.
        ValueError: If an argument is out of range; the split is the one that the model was trained on; the model cannot
            be calibrated, or is already; nothing matches; or a slope is not above 0.
    """
    recipe = None if method == DESMOOTH else _recipe(method, target, weighting, per_class, shrink)
    if recipe is None and (target, weighting, per_class, shrink) != ("iou", "score", False, True):
        raise ArgumentError(
            "method: expected one that is fitted, for target, weighting, per_class and shrink, got 'desmooth'."
        )
    if recipe is not None and smoothing is not None:
        raise ArgumentError(f"smoothing: expected method=desmooth with it, got method={method}.")
    _check(split, allow_train, recalibrate, exist_ok, folds, bootstrap, seed)
    settings = asdict(PredictionSettings(imgsz, batch, conf, iou, max_det, device, workers, end2end))
    source = _source(model, recalibrate)
    destination = _destination(model, save, method, exist_ok)
    if save_dir is not None:
        check_save_dir(save_dir, exist_ok, (MAP_FILE, NUMBERS_FILE))
    for name, place in (("save_dir", save_dir), ("save", destination and destination.parent)):
        if place is not None:
            check_writable(name, Path(place))
    resolved = check_dataset(data, split)
    truth = ground_truth_for(resolved, split, annotations)
    names = source.detector.names or {}
    category_ids(names, truth.coco)
    kept = kept_shares(smoothing, model, names) if method == DESMOOTH else None
    group = groups_of(groups, truth.coco)

    before = _predicted(source.detector, resolved, split, truth, settings)
    judging: dict[str, Any] = {"group": group, "bootstrap": bootstrap, "seed": seed}
    if recipe is None:
        by_class = np.array([(kept or {}).get(name, 1.0) for name in before.table.class_names])
        found = desmooth_table(before.table, before.z, by_class, **judging)
    else:
        found = calibrate_table(before.table, before.z, recipe, folds=folds, **judging)
    record = {
        "data": str(data),
        "split": split,
        "settings": before.settings,
        "exact_logits": before.exact,
        "source": Path(source.detector.weights).name,
        "source_sha256": source.sha256,
        "versions": versions("ultralytics", "torch", "pycocotools"),
    }
    pipeline: dict[str, Change] = {}
    if isinstance(found.map, AffineMap):
        folded = copy.deepcopy(source.detector.model)
        fold_map(_module(folded), found.map)
        after = _predicted(replace(source.detector, model=folded), resolved, split, truth, settings)
        pipeline = {key: Change(value, after.stats[key]) for key, value in before.stats.items()}
    found = replace(found, record=record, pipeline=pipeline, weights=destination)
    if save_dir is not None:  # first: a map can be folded again, a fit costs a prediction of the split
        found.save(save_dir, exist_ok)
    if destination is not None and isinstance(found.map, AffineMap):
        destination.parent.mkdir(parents=True, exist_ok=True)
        fold_checkpoint(source.checkpoint, found.map, found.summary(), destination)
    return found


@dataclass(frozen=True)
class _Source:
    """A model to calibrate: its checkpoint, a detector for its boxes, and the hash of the weights it started from."""

    checkpoint: dict[str, Any]
    detector: Detector
    sha256: str | None


@dataclass(frozen=True)
class _Predicted:
    """Predictions of a split, matched; the logits are in the table's order."""

    table: DetectionTable
    z: Floats
    exact: bool
    stats: dict[str, float]
    settings: dict[str, Any]


def _predicted(
    detector: Detector, resolved: Mapping[str, Any], split: str, truth: GroundTruth, settings: Mapping[str, Any]
) -> _Predicted:
    """Predict a split, and match."""
    predictions = predict(detector, resolved, split, logits=True, **settings)
    results: list[Json] = coco_detections(predictions, truth)
    evaluator = coco_evaluate(truth.coco, results)
    table = table_from_coco(evaluator)
    exact = all(image.logits is not None for image in predictions.images)
    given = [image.logits for image in predictions.images if image.logits is not None]
    z = np.concatenate(given)[table.detection] if exact and given else logit(table.score)
    stats = {"AP": float(evaluator.stats[0]), "AP50": float(evaluator.stats[1]), "detections": float(len(results))}
    return _Predicted(table, z.astype(np.float64), exact, stats, predictions.settings)


def _source(model: object, recalibrate: bool) -> _Source:
    """Load what is to be calibrated, with an earlier calibration undone if that was asked for."""
    checkpoint = load_checkpoint(str(model)) if isinstance(model, (str, PurePath)) else held_checkpoint(model)
    record = read_record(checkpoint)
    chosen = "ema" if isinstance(checkpoint.get("ema"), nn.Module) else "model"
    class_layers(checkpoint[chosen])
    if record is not None:
        if not recalibrate:
            raise ArgumentError(
                "model: expected a checkpoint that is not calibrated yet, got one that is; recalibrate=True starts "
                "again from its original scores."
            )
        earlier = map_from_dict(record["map"])
        if not isinstance(earlier, AffineMap):
            raise ArgumentError(f"model: expected a record of a folded map, got one of {earlier.kind}.")
        checkpoint = dict(checkpoint)
        for key in ("model", "ema"):
            if isinstance(checkpoint.get(key), nn.Module):
                checkpoint[key] = copy.deepcopy(checkpoint[key])
                fold_map(checkpoint[key], earlier.inverse)
    weights = str(model) if isinstance(model, (str, PurePath)) else type(model).__name__
    detector = replace(load_detector(detection_view(checkpoint[chosen])), weights=weights)
    sha256 = None
    if record is not None:
        sha256 = record.get("source_sha256")
    elif isinstance(model, (str, PurePath)):
        sha256 = load_hash(Path(str(model)))
    return _Source(checkpoint, detector, sha256 or detector.sha256)


def load_hash(path: Path) -> str:
    """Return the SHA-256 of a file."""
    import hashlib

    return hashlib.sha256(path.read_bytes()).hexdigest()


def _destination(model: object, save: object, method: str, exist_ok: bool) -> Path | None:
    """Say where the calibrated checkpoint goes, before any work."""
    if isinstance(save, bool):
        if not save or not isinstance(model, (str, PurePath)) or method not in FOLDING:
            return None
        path = Path(str(model))
        destination = path.with_name(f"{path.stem}_calibrated.pt")
    elif isinstance(save, (str, PurePath)):
        destination = Path(str(save))
        if method not in FOLDING:
            raise ArgumentError(
                f"save: expected a method that folds into a checkpoint ({', '.join(FOLDING)}), got {method!r}, which "
                "needs code at inference; save_dir keeps its map.json."
            )
    else:
        raise ArgumentTypeError(f"save: expected a path, True or False, got {save!r}.")
    if destination.suffix != ".pt":
        raise ArgumentError(f"save: expected a path that ends in .pt, got '{destination}'.")
    if isinstance(model, (str, PurePath)) and destination.resolve() == Path(str(model)).resolve():
        raise ArgumentError("save: expected another file than the model's own, got the same.")
    if destination.exists() and not exist_ok:
        raise ExistingFileError(f"save: expected no file at '{destination}' without exist_ok, got one.")
    return destination


def _recipe(method: str, target: str, weighting: str, per_class: bool, shrink: bool) -> Recipe:
    if method not in METHODS:
        raise ArgumentError(f"method: expected one of {', '.join([*METHODS, DESMOOTH])}, got {method!r}.")
    return Recipe(method, target, weighting, per_class, shrink)


def _check(
    split: str, allow_train: bool, recalibrate: bool, exist_ok: bool, folds: int, bootstrap: int, seed: int
) -> None:
    for name, value in (("allow_train", allow_train), ("recalibrate", recalibrate), ("exist_ok", exist_ok)):
        check_flag(name, value)
    for name, number, least in (("folds", folds, 2), ("bootstrap", bootstrap, 0), ("seed", seed, 0)):
        check_integer(name, number, least)
    if split == "train" and not allow_train:
        raise ArgumentError(
            "split: expected images that the model was not trained on, got 'train', where its scores look better "
            "than they are; allow_train=True fits on them all the same."
        )


def _module(model: Any) -> nn.Module:
    assert isinstance(model, torch.nn.Module)
    return model
