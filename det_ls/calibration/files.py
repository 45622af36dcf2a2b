# SPDX-License-Identifier: AGPL-3.0-or-later
"""Calibrate COCO files of any detector, and apply a map to other files."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path, PurePath
from typing import Any

import numpy as np

from det_ls.base.arguments import check_flag, check_integer
from det_ls.base.errors import ArgumentError, ArgumentTypeError, ExistingFileError
from det_ls.base.files import write_json
from det_ls.base.folders import claim_folder
from det_ls.base.types import Json
from det_ls.base.version import __version__
from det_ls.calibration.crossfit import FOLDS
from det_ls.calibration.maps import CalibrationMap, Ints, class_positions, logit
from det_ls.calibration.methods import Recipe
from det_ls.calibration.results import MAP_FILE, NUMBERS_FILE, Calibration
from det_ls.calibration.sidecar import read_map
from det_ls.calibration.table import calibrate_table
from det_ls.data.coco import coco_evaluate, load_coco, read_detections, read_ground_truth
from det_ls.data.groups import GroupSpec, groups_for
from det_ls.metrics.matching import check_scores, table_from_coco


def calibrate_detections(
    annotations: object,
    predictions: object,
    method: str = "platt",
    *,
    out: str | Path | None = None,
    save_dir: str | Path | None = None,
    exist_ok: bool = False,
    target: str = "iou",
    weighting: str = "score",
    per_class: bool = False,
    shrink: bool = True,
    groups: GroupSpec | None = None,
    folds: int = FOLDS,
    bootstrap: int = 200,
    seed: int = 0,
) -> Calibration:
    """Calibrate the detections of any detector.

    The files hold scores, not logits: these are found by inverting the sigmoid in double precision, which loses what
    the file's rounding lost. Scores of 0 and 1 count as logits of -16.6 and 16.6.

    Args:
        annotations: COCO instances: a path, or the loaded content.
        predictions: COCO results for them: a path, or the loaded list.
        method: ``platt``, ``temperature``, ``beta`` or ``isotonic``.
        out: Where to write the results with calibrated scores, all else as it was; None for nowhere. The map that it
            gets is fitted on all images; the reported numbers are cross-fitted.
        save_dir: Folder for ``map.json`` and ``calibration.json``; the folder of ``out`` if None.
        exist_ok: Whether to replace files.
        target: As in :func:`det_ls.calibrate`, like all further arguments.
        weighting: ``score``, ``above`` or ``all``.
        per_class: Whether each class has its own map, partially pooled.
        shrink: Whether the map is pulled towards the identity as far as the data cannot tell it from that.
        groups: Which images belong together.
        folds: Folds of the cross-fit.
        bootstrap: Replicates over groups for the intervals; 0 for none.
        seed: Seed of folds and bootstrap.

    Returns:
        The map, and the numbers before and after.

    Raises:
        FileExistsError: If a file is there and ``exist_ok`` is False.
        FileNotFoundError: If a file does not exist.
        ValueError: If a file is not valid, an argument is out of range, nothing matches, or a slope is not above 0.
    """
    recipe = Recipe(method, target, weighting, per_class, shrink)
    check_flag("exist_ok", exist_ok)
    for name, number, least in (("folds", folds, 2), ("bootstrap", bootstrap, 0), ("seed", seed, 0)):
        check_integer(name, number, least)
    folder = Path(save_dir) if save_dir is not None else Path(out).parent if out is not None else None
    own = [] if folder is None else [folder / name for name in (MAP_FILE, NUMBERS_FILE)]
    check_out(out, exist_ok, annotations, predictions, *own)
    name = "out" if save_dir is None else "save_dir"
    claim: AbstractContextManager[Path | None] = nullcontext()
    if folder is not None:
        claim = claim_folder(folder, name, results=(MAP_FILE, NUMBERS_FILE), exist_ok=exist_ok)
    with claim as place:
        gt = read_ground_truth(annotations, "annotations")
        content = load_coco(predictions, "predictions")
        results = _results(content, gt)
        table = table_from_coco(coco_evaluate(gt, results))
        found = calibrate_table(
            table,
            logit(table.score),
            recipe,
            group=groups_of(groups, gt),
            folds=folds,
            bootstrap=bootstrap,
            seed=seed,
        )
        sources = {"annotations": annotations, "predictions": predictions}
        record = {k: str(v) for k, v in sources.items() if isinstance(v, (str, PurePath))}
        found.record.update({**record, "exact_logits": False, "versions": versions("pycocotools")})
        if place is not None:
            found.save(place)
        if out is not None:
            _write(out, content, apply_map(found.map, gt, results))
    return found


def apply_map_to_files(
    calibration_map: object, annotations: object, predictions: object, out: str | Path, exist_ok: bool = False
) -> int:
    """Apply a map to other COCO results.

    Args:
        calibration_map: A ``map.json``, or its loaded content.
        annotations: COCO instances that name the classes: a path, or the loaded content.
        predictions: COCO results: a path, or the loaded list.
        out: Where to write the results with calibrated scores, all else as it was.
        exist_ok: Whether to replace ``out``.

    Returns:
        The number of detections.

    Raises:
        FileExistsError: If ``out`` is there and ``exist_ok`` is False.
        FileNotFoundError: If a file does not exist.
        ValueError: If a file is not valid, or the map does not know a class.
    """
    check_flag("exist_ok", exist_ok)
    check_out(out, exist_ok, annotations, predictions, calibration_map)
    chosen = read_map(calibration_map)
    gt = read_ground_truth(annotations, "annotations")
    content = load_coco(predictions, "predictions")
    results = _results(content, gt)
    _write(out, content, apply_map(chosen, gt, results))
    return len(results)


def apply_map(calibration_map: CalibrationMap, gt: Json, results: Sequence[Json]) -> list[float]:
    """Calibrate the scores of COCO results.

    Args:
        calibration_map: The map.
        gt: COCO instances that name the classes.
        results: COCO results.

    Returns:
        One score a result.

    Raises:
        ValueError: If the map does not know a class that has a detection.
    """
    used = {r["category_id"] for r in results}
    names = {c["id"]: str(c["name"]) for c in gt["categories"] if c["id"] in used}
    positions = class_positions(calibration_map.classes, list(names.values()))
    position = dict(zip(names, positions, strict=True))
    cls = np.array([position[r["category_id"]] for r in results], np.int64)
    scores: list[float] = calibration_map(logit([r["score"] for r in results]), cls).tolist()
    return scores


def groups_of(groups: GroupSpec | None, gt: Json) -> Ints | None:
    """Number the groups of a set's images.

    Args:
        groups: As in :func:`det_ls.data.groups.groups_for`; None for each image on its own.
        gt: COCO instances.

    Returns:
        (I,) groups from 0 in the order of the sorted image ids; None without groups.

    Raises:
        FileNotFoundError: As in :func:`groups_for`, like the next two.
        TypeError: If it is none of these.
        ValueError: If an image has no group.
    """
    if groups is None:
        return None
    named = groups_for(groups, {image["id"]: image.get("file_name") for image in gt["images"]})
    return named.codes_for(sorted(image["id"] for image in gt["images"]))


def versions(*packages: str) -> dict[str, str]:
    """Give the versions of det-ls and of packages that took part.

    Args:
        *packages: Their names.

    Returns:
        Version by name.
    """
    found = {"det_ls": __version__}
    for package in packages:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "unknown"
    return found


def _results(content: object, gt: Json) -> list[Json]:
    results = read_detections(content, gt, "predictions")
    check_scores([r["score"] for r in results], [r["image_id"] for r in results])
    return results


def check_out(out: object, exist_ok: bool, *others: object) -> None:
    """Raise unless results can be written to a file that is none of the others.

    Args:
        out: The file; None for nowhere.
        exist_ok: Whether it may be replaced.
        *others: What is read or written besides; only paths are compared.

    Raises:
        FileExistsError: If it is there and may not be replaced.
        TypeError: If it is no path.
        ValueError: If it is one of the others, or can be no file.
    """
    if out is None:
        return
    if not isinstance(out, (str, PurePath)):
        raise ArgumentTypeError(f"out: expected a path, got {out!r}.")
    path = Path(out)
    if any(isinstance(other, (str, PurePath)) and path.resolve() == Path(other).resolve() for other in others):
        raise ArgumentError(f"out: expected a file of its own, got '{path}', which is read or written as another.")
    if path.is_dir() or any(parent.exists() and not parent.is_dir() for parent in path.absolute().parents):
        raise ArgumentError(f"out: expected a file in a folder, got '{path}', which cannot be one.")
    if path.exists() and not exist_ok:
        raise ExistingFileError(f"out: expected no file at '{path}' without exist_ok, got one.")


def _write(out: str | Path, content: Any, scores: list[float]) -> None:
    Path(out).parent.mkdir(parents=True, exist_ok=True)
    write_json(Path(out), [{**row, "score": score} for row, score in zip(content, scores, strict=True)])
