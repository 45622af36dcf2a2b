# SPDX-License-Identifier: AGPL-3.0-or-later
"""Calibrate a model on a data set: predict, fit, judge by cross-fitting, fold, and measure the folded model."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from det_ls.base.arguments import check_flag, check_integer
from det_ls.base.errors import ArgumentError
from det_ls.base.folders import check_writable, claim_folder
from det_ls.base.types import Json
from det_ls.calibration.crossfit import FOLDS
from det_ls.calibration.files import groups_of, versions
from det_ls.calibration.fold import detection_view, fold_checkpoint, fold_map
from det_ls.calibration.judge import Change
from det_ls.calibration.maps import AffineMap, Floats, logit
from det_ls.calibration.methods import METHODS, Recipe
from det_ls.calibration.results import MAP_FILE, NUMBERS_FILE, Calibration
from det_ls.calibration.smoothing import kept_shares
from det_ls.calibration.source import check_absent, destination_of, load_source
from det_ls.calibration.table import calibrate_table, desmooth_table
from det_ls.data.coco import coco_evaluate
from det_ls.data.ground_truth import GroundTruth, ground_truth_for
from det_ls.data.groups import GroupSpec
from det_ls.data.locate import check_dataset
from det_ls.evaluation.classes import category_ids
from det_ls.evaluation.detector import Detector, load_detector
from det_ls.evaluation.predictions import predict
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
    source = load_source(model, recalibrate)
    # As YOLO loads a file: single precision first, then fused. Fused in half it would give other scores than users get.
    module = copy.deepcopy(source.module).float()
    detector = replace(load_detector(detection_view(module)), weights=source.weights)
    destination = destination_of(model, save, method, exist_ok)
    with _claimed(save_dir, exist_ok) as place:
        if destination is not None:
            check_writable("save", destination.parent)
        resolved = check_dataset(data, split)
        truth = ground_truth_for(resolved, split, annotations)
        names = detector.names or {}
        category_ids(names, truth.coco)
        kept = kept_shares(smoothing, model, names) if method == DESMOOTH else None
        group = groups_of(groups, truth.coco)

        before = _predicted(detector, resolved, split, truth, settings)
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
            "source": source.name,
            "source_sha256": source.sha256 or detector.sha256,
            "versions": versions("ultralytics", "torch", "pycocotools"),
        }
        pipeline: dict[str, Change] = {}
        if isinstance(found.map, AffineMap):
            folded = copy.deepcopy(detector.model)
            fold_map(_module(folded), found.map)
            after = _predicted(replace(detector, model=folded), resolved, split, truth, settings)
            pipeline = {key: Change(value, after.stats[key]) for key, value in before.stats.items()}
        found = replace(found, record=record, pipeline=pipeline, weights=destination)
        if place is not None:
            found.save(place)
    # Last: a map can be folded again, a fit costs a prediction of the split.
    if destination is not None and isinstance(found.map, AffineMap):
        check_absent(destination, exist_ok)  # another calibration may have written it in the meantime
        fold_checkpoint(source.checkpoint, found.map, found.summary(), destination)
    return found


def _claimed(save_dir: str | Path | None, exist_ok: bool) -> AbstractContextManager[Path | None]:
    """Claim the folder of the results for this calibration alone; without one there is nothing to claim."""
    if save_dir is None:
        return nullcontext()
    return claim_folder(save_dir, results=(MAP_FILE, NUMBERS_FILE), exist_ok=exist_ok)


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
