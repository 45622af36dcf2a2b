# SPDX-License-Identifier: AGPL-3.0-or-later
"""The mode ``det-ls calibrate``: a model on a data set, or COCO files of any detector."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from det_ls.base.errors import DetLsError
from det_ls.smoothing.request import refuse_keys

if TYPE_CHECKING:
    from det_ls.calibration.classify import ClassifierCalibration
    from det_ls.calibration.judge import Change
    from det_ls.calibration.results import Calibration

_SHOWN = ("LaECE0", "DECE", "brier", "nll", "signed_gap")
_HEADER = f"{'':>22}  {'before':>8}  {'after':>8}  {'difference':>10}  interval of the difference"
_LISTED = 12  # classes that the terminal shows


def calibrate(words: Sequence[str]) -> None:
    """Run ``det-ls calibrate``.

    Args:
        words: ``key=value`` words: the arguments of :func:`det_ls.calibrate`, or with ``annotations=`` and
            ``predictions=`` those of :func:`det_ls.calibrate_detections`, or besides these ``map=`` to apply a map.

    Raises:
        TypeError: If a word is no ``key=value``, or a key is unknown or missing.
    """
    from det_ls.cli.grammar import key_values

    arguments = key_values(words)
    words_of_training = {key: value for key, value in arguments.items() if key != "smoothing"}  # desmooth's own key
    refuse_keys(words_of_training, "expected in train mode only, got mode 'calibrate', where it would have no effect.")
    if "map" in arguments:
        _apply(arguments)
    elif "predictions" in arguments:
        _calibrate_files(arguments)
    else:
        _calibrate_model(arguments)


def table(result: Calibration) -> str:
    """Format what a calibration changed.

    Args:
        result: The calibration.

    Returns:
        The map, the cross-fitted numbers before and after, and the pipeline's before and after.
    """
    from det_ls.report.calibration_words import calibration_findings
    from det_ls.report.words import ascii_text

    counts = result.counts
    how = f"cross-fitted over {counts['groups']:,} groups of images in {counts['folds']} folds"
    lines = [
        f"{result.method}, fitted on {counts['fitted']:,} boxes, {counts['matched']:,} of them matched",
        *_parameters(result),
        f"numbers {how if counts['folds'] else 'of all images: nothing was fitted'}",
        _HEADER,
    ]
    for population, n in (("all", counts["detections"]), ("kept", counts["kept"])):
        lines.append(f"{population} boxes ({n:,})")
        lines += [_row(key, result.numbers[population][key]) for key in _SHOWN]
    if result.pipeline:
        lines.append("the pipeline again, with the folded model on the images that it was fitted on")
        for key, change in result.pipeline.items():
            digits = 0 if key == "detections" else 4
            lines.append(f"{key:>22}  {change.before:>8.{digits}f}  {change.after:>8.{digits}f}")
    lines += _operating_points(result)
    lines += [ascii_text(f"{found.topic}: {found.lead}. {found.text}") for found in calibration_findings(result)]
    return "\n".join(lines)


def classifier_table(result: ClassifierCalibration) -> str:
    """Format what calibrating a classifier changed.

    Args:
        result: The calibration.

    Returns:
        The temperature, and the cross-fitted numbers before and after.
    """
    counts, (low, high) = result.counts, result.a_interval
    span = f" ({1 / high:.4f} to {1 / low:.4f})" if low > 0 else ""
    lines = [
        f"temperature {result.temperature:.4f}{span}, fitted on {counts['images']:,} images of {counts['classes']:,} "
        f"classes, {counts['right']:,} of them classified right",
        f"numbers cross-fitted over {counts['groups']:,} groups of images in {counts['folds']} folds",
        _HEADER,
    ]
    return "\n".join([*lines, *(_row(key, change) for key, change in result.numbers.items())])


def calibration_line(model: object) -> str:
    """Say what a calibrated checkpoint records.

    Args:
        model: What ``model=`` names.

    Returns:
        Method, data and source in one line; empty for anything but a calibrated checkpoint.
    """
    from det_ls.base.folders import is_file
    from det_ls.calibration.fold import load_checkpoint, read_record
    from det_ls.calibration.maps import AffineMap, map_from_dict

    path = Path(str(model))
    try:  # a line more is not worth an evaluation that is done, whatever the checkpoint holds
        record = read_record(load_checkpoint(path)) if path.suffix == ".pt" and is_file(path) else None
        if record is None:
            return ""
        known = map_from_dict(record.get("map"))
    except (DetLsError, OSError):
        return ""
    counts = record["counts"] if isinstance(record.get("counts"), dict) else {}
    shared = isinstance(known, AffineMap) and not known.classes
    parameters = f" (a {known.a[0]:.4f}, b {known.b[0]:+.4f})" if isinstance(known, AffineMap) and shared else ""
    return (
        f"calibrated: {record.get('method')}{parameters} to {record.get('target')}, fitted on {counts.get('images')} "
        f"images of {record.get('data')} ({record.get('split')}), from {record.get('source')} with SHA-256 "
        f"{str(record.get('source_sha256'))[:12]}"
    )


def _row(key: str, change: Change) -> str:
    span = change.difference_interval
    interval = "" if span is None else f"{span[0]:+.4f} to {span[1]:+.4f}"
    line = f"{key:>22}  {change.before:>8.4f}  {change.after:>8.4f}  {change.difference:>+10.4f}  {interval}"
    return line.rstrip()


def _parameters(result: Calibration) -> list[str]:
    lines = []
    for estimate in result.estimates[:_LISTED]:
        own = "" if estimate.name is None else f"  own {estimate.own:.0%} of {estimate.n:,} boxes"
        lines.append(
            f"{estimate.name or 'shared':>22}  a {estimate.a:.4f}{_span(estimate.a_interval)}  "
            f"b {estimate.b:+.4f}{_span(estimate.b_interval)}{own}"
        )
    return lines + _more(len(result.estimates))


def _span(interval: tuple[float, float] | None) -> str:
    return "" if interval is None else f" ({interval[0]:.4f} to {interval[1]:.4f})"


def _operating_points(result: Calibration) -> list[str]:
    known = result.thresholds
    lines = ["score threshold to use for each class, before and after"]
    for threshold in known[:_LISTED]:
        after = math.floor(threshold.after * 1e4) / 1e4  # rounded down, so that no box is lost
        lines.append(f"{threshold.name:>22}  {threshold.before:>8.4f}  {after:>8.4f}")
    return lines + _more(len(known))


def _more(n: int) -> list[str]:
    return [f"{'':>22}  and {n - _LISTED} more in calibration.json"] if n > _LISTED else []


def _calibrate_model(arguments: dict[str, Any]) -> None:
    from det_ls.calibration.calibrate import calibrate as calibrate_model
    from det_ls.calibration.classify import is_classifier
    from det_ls.cli.results_folder import claimed

    if "model" in arguments and is_classifier(str(arguments["model"])):
        _calibrate_classifier(arguments)
        return
    _check(arguments, calibrate_model, ("model", "data"))
    exist_ok = arguments.get("exist_ok", False)
    with claimed(arguments, "calibrate") as (folder, place):
        result = calibrate_model(**arguments, exist_ok=exist_ok, save_dir=place)
        _write_page(place, result, arguments["model"], arguments["data"])
    print(table(result))
    if result.weights is not None:
        print(f"Calibrated checkpoint saved to {result.weights}")
    print(f"Results saved to {folder}")


def _calibrate_classifier(arguments: dict[str, Any]) -> None:
    from det_ls.calibration.classify import calibrate_classifier
    from det_ls.cli.results_folder import claimed

    known = inspect.signature(calibrate_classifier).parameters
    _check_keys(arguments, known, ("model", "data"), "det-ls calibrate with a classifier")
    exist_ok = arguments.get("exist_ok", False)
    with claimed(arguments, "calibrate") as (folder, place):
        result = calibrate_classifier(**arguments, exist_ok=exist_ok, save_dir=place)
    print(classifier_table(result))
    if result.weights is not None:
        print(f"Calibrated checkpoint saved to {result.weights}")
    print(f"Results saved to {folder}")


def _calibrate_files(arguments: dict[str, Any]) -> None:
    from det_ls.calibration.files import calibrate_detections, check_out
    from det_ls.calibration.results import MAP_FILE, NUMBERS_FILE
    from det_ls.cli.results_folder import claimed
    from det_ls.report.calibration_page import CALIBRATION_FILES

    _check(arguments, calibrate_detections, ("annotations", "predictions", "out"))
    out, exist_ok = arguments["out"], arguments.get("exist_ok", False)
    arguments["save_dir"] = Path(str(arguments.get("save_dir") or Path(str(out)).parent))
    results = [arguments["save_dir"] / name for name in (MAP_FILE, NUMBERS_FILE, *CALIBRATION_FILES)]
    check_out(out, bool(exist_ok), arguments["annotations"], arguments["predictions"], *results)
    with claimed(arguments, "calibrate") as (folder, place):
        result = calibrate_detections(**arguments, exist_ok=exist_ok, save_dir=place)
        _write_page(place, result, arguments["predictions"], arguments["annotations"])
    print(table(result))
    print(f"Calibrated results saved to {arguments['out']}, the map and report.html to {folder}")


def _apply(arguments: dict[str, Any]) -> None:
    from det_ls.calibration.files import apply_map_to_files

    keys = ("map", "annotations", "predictions", "out")
    _check_keys(arguments, (*keys, "exist_ok"), keys)
    chosen = arguments.pop("map")
    n = apply_map_to_files(chosen, **arguments)
    print(f"{n:,} calibrated results saved to {arguments['out']}")


def _write_page(folder: Path, result: Calibration, what: object, on: object) -> None:
    """Write the page of a calibration."""
    from det_ls.cli.titles import name_of
    from det_ls.report.calibration_page import CALIBRATION_FILES, write_calibration

    write_calibration(folder / CALIBRATION_FILES[0], result, title=f"{name_of(what)} calibrated on {name_of(on)}")


def _check(arguments: dict[str, Any], function: Callable[..., Any], required: Iterable[str]) -> None:
    _check_keys(arguments, inspect.signature(function).parameters, required)


def _check_keys(
    arguments: dict[str, Any], known: Iterable[str], required: Iterable[str], what: str = "det-ls calibrate"
) -> None:
    from det_ls.cli.grammar import check_known

    check_known(arguments, known, required, what)
