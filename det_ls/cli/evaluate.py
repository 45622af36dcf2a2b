# SPDX-License-Identifier: AGPL-3.0-or-later
"""The evaluating modes of ``det-ls``: val, metrics and compare."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from det_ls.smoothing.request import refuse_keys

if TYPE_CHECKING:
    from det_ls.evaluation.measure import DetectionMetrics
    from det_ls.evaluation.results import Evaluation

BOOTSTRAP = 1000
REPORT_FILE = "report.html"
PICTURES_FOLDER = "pictures"
PICTURES = ("reliability", "reliability_by_size", "threshold_curve", "class_gaps", "froc", "miss_rate")


class NothingDefinedError(ValueError):
    """No number of an evaluation is defined."""


def val(words: Sequence[str]) -> None:
    """Run ``det-ls val``: evaluate a model, and write numbers and report.

    Args:
        words: ``key=value`` words: the arguments of :func:`det_ls.evaluate`.

    Raises:
        TypeError: If a word is no ``key=value`` or a key is unknown.
    """
    from det_ls.cli.calibrate import calibration_line
    from det_ls.evaluation.evaluate import evaluate

    arguments = _arguments(words, "val", inspect.signature(evaluate).parameters, ("model", "data"))
    folder = _folder(arguments, "val")
    _check_outputs(folder, arguments.get("exist_ok", False))
    evaluation = evaluate(**{"bootstrap": BOOTSTRAP, **arguments}, save_dir=folder)
    _report(evaluation, folder, f"{_name(arguments['model'])} on {_name(arguments['data'])}", arguments)
    calibrated = calibration_line(arguments["model"])
    _finish([evaluation], "\n".join(filter(None, (calibrated, table(evaluation)))), folder)


def metrics(words: Sequence[str]) -> None:
    """Run ``det-ls metrics``: evaluate COCO results, or a folder of YOLO text files, from any detector.

    Args:
        words: ``predictions=``, ``annotations=`` or ``data=``, and the keywords of
            :func:`det_ls.evaluate_detections`.

    Raises:
        TypeError: If a word is no ``key=value``, a key is unknown, or one that is needed is missing.
    """
    from det_ls.evaluation.evaluate import evaluate_detections

    keywords = [key for key in inspect.signature(evaluate_detections).parameters if key not in {"gt", "detections"}]
    arguments = _arguments(
        words, "metrics", ("annotations", "predictions", *keywords, "save_dir", "exist_ok"), ("predictions",)
    )
    if "annotations" not in arguments and "data" not in arguments:
        raise TypeError("annotations: expected annotations=... or data=... for det-ls metrics, got none.")
    folder = _folder(arguments, "metrics")
    exist_ok = arguments.pop("exist_ok", False)
    _check_outputs(folder, exist_ok)
    annotations, predictions = arguments.pop("annotations", None), arguments.pop("predictions")
    evaluation = evaluate_detections(annotations, predictions, **{"bootstrap": BOOTSTRAP, **arguments})
    evaluation.save(folder, exist_ok)
    _report(
        evaluation, folder, f"{_name(predictions)} on {_name(annotations or arguments['data'])}", {"exist_ok": exist_ok}
    )
    _finish([evaluation], table(evaluation), folder)


def compare(words: Sequence[str]) -> None:
    """Run ``det-ls compare``: two models, or two COCO result files, on the same images.

    Args:
        words: ``a=``, ``b=``, ``data=`` or ``annotations=``, and keywords of :func:`det_ls.compare`.

    Raises:
        TypeError: If a word is no ``key=value`` or a key is unknown.
    """
    from det_ls.evaluation.comparison import check_comparison_dir
    from det_ls.evaluation.comparison import compare as compare_detectors
    from det_ls.evaluation.evaluate import evaluate
    from det_ls.evaluation.results import check_save_dir
    from det_ls.report import write_comparison
    from det_ls.report.words import ascii_text, comparison_text

    settings = [key for key in inspect.signature(evaluate).parameters if key not in {"model", "train_images"}]
    arguments = _arguments(words, "compare", ["a", "b", *settings], ("a", "b"))
    folder = _folder(arguments, "compare")
    exist_ok = arguments.pop("exist_ok", False)
    check_comparison_dir(folder, exist_ok)
    check_save_dir(folder, exist_ok, (REPORT_FILE,))
    pair = compare_detectors(**arguments)
    pair.save(folder, exist_ok)
    title = f"{pair.names[0]} and {pair.names[1]} on {_name(arguments.get('data') or arguments.get('annotations'))}"
    write_comparison(
        folder / REPORT_FILE,
        pair.a.metrics,
        pair.b.metrics,
        pair.differences,
        names=pair.names,
        title=title,
        protocol={pair.names[0]: pair.a.protocol, pair.names[1]: pair.b.protocol},
        exist_ok=exist_ok,
    )
    shown = [pair.differences[key] for key in _headline() if key in pair.differences]
    lines = [ascii_text(f"{found.key}: {comparison_text(found, pair.names)}") for found in shown]
    lines.append(
        "The intervals cover the choice of images. Two training runs also differ by their seeds: repeat with several."
    )
    _finish([pair.a, pair.b], "\n".join(lines), folder)


def table(evaluation: Evaluation) -> str:
    """Format an evaluation's headline numbers with intervals, floors and how they were counted.

    Args:
        evaluation: The evaluation.

    Returns:
        The protocol, then one line a number: name, value, interval, IoU of its true positives, bins, and for a
        calibration error what a calibrated detector would read. An interval that does not say where the true error
        lies has an asterisk, which a last line explains.
    """
    from det_ls.report.words import floor_text

    numbers = evaluation.metrics
    lines = [
        protocol_line(numbers),
        f"{'':>12}  {'value':>9}  {'interval':>20}  {'IoU':>9}  {'bins':>14}  a calibrated detector's 95th percentile",
    ]
    marked = False
    for key in _headline():
        value = numbers.values[key]
        if value is None:
            lines.append(f"{key:>12}  undefined: {numbers.reasons.get(key, '')}")
            continue
        interval, floor = numbers.intervals.get(key), numbers.floors.get(key)
        span = "" if interval is None else f"{interval.low:.4f} to {interval.high:.4f} "
        if interval is not None and interval.of == "estimator":
            span, marked = span[:-1] + "*", True
        how = numbers.definitions[key]
        line = f"{key:>12}  {value:>9.4f}  {span:>20}  {_overlap(how):>9}  {how['bins'] or '':>14}"
        if floor is not None:
            line += f"  {floor.p95:.4f}, {floor_text(value, floor)}"
        lines.append(line.rstrip())
    if evaluation.train is not None:
        lines.append(
            "train minus val: " + ", ".join(f"{k} {evaluation.gap[k]:+.4f}" for k in _headline() if k in evaluation.gap)
        )
    if marked:
        lines.append("* uncertainty of the estimator, which is biased upwards; not where the true error lies")
    return "\n".join(lines)


def protocol_line(metrics: DetectionMetrics) -> str:
    """Say in one line how the numbers of an evaluation were counted, and on how much.

    Args:
        metrics: The numbers.

    Returns:
        Protocol, matching, IoU of a true positive, bins, images, objects and detections.
    """
    precision, binned = metrics.definitions["DECE"], metrics.definitions["LaECE0"]
    counts = metrics.counts
    return (
        f"protocol {metrics.protocol}; matching {precision['matching']}; true positives from IoU {precision['iou']:g} "
        f"unless said otherwise; DECE {precision['bins']} and LaECE {binned['bins']} bins; "
        f"{counts['images']:,} images, {counts['objects']:,} objects, {counts['detections']:,} detections"
    )


def _overlap(definition: Mapping[str, Any]) -> str:
    """Write the IoU of a number's true positives in ASCII, which every console can print."""
    from det_ls.report.words import ascii_text, overlap_text

    return ascii_text(overlap_text(definition, named=False))


def _headline() -> tuple[str, ...]:
    from det_ls.metrics.catalogue import HEADLINE

    return HEADLINE


def _arguments(words: Sequence[str], mode: str, known: Iterable[str], required: Iterable[str]) -> dict[str, Any]:
    """Parse the words of a mode and check them against what it takes."""
    from det_ls.cli.grammar import check_known, key_values

    arguments = key_values(words)
    refuse_keys(arguments, f"expected in train mode only, got mode {mode!r}, where it would have no effect.")
    check_known(arguments, known, required, f"det-ls {mode}")
    return arguments


def _folder(arguments: dict[str, Any], mode: str) -> Path:
    """Take ``save_dir`` out of the arguments, or find the next free run folder."""
    from types import SimpleNamespace

    from ultralytics.cfg import get_save_dir

    folder = arguments.pop("save_dir", None)
    if folder is not None:
        return Path(str(folder))
    return get_save_dir(SimpleNamespace(project=None, name=None, task="detect", mode=mode, exist_ok=False))


def _check_outputs(folder: Path, exist_ok: bool) -> None:
    """Raise before any work if a file that val or metrics writes is there and may not be replaced."""
    from det_ls.evaluation.results import RESULT_FILES, check_save_dir

    pictures = [f"{PICTURES_FOLDER}/{name}.{suffix}" for name in PICTURES for suffix in ("png", "svg")]
    check_save_dir(folder, exist_ok, [*RESULT_FILES, REPORT_FILE, *pictures])


def _report(evaluation: Evaluation, folder: Path, title: str, arguments: dict[str, Any]) -> None:
    """Write the page, and its pictures as files for a paper."""
    from det_ls.report import plots, write_report

    exist_ok = bool(arguments.get("exist_ok"))
    for name in PICTURES:
        plots.save(getattr(plots, name)(evaluation.metrics), folder / PICTURES_FOLDER / name, exist_ok=exist_ok)
    write_report(
        folder / REPORT_FILE,
        evaluation.metrics,
        title=title,
        protocol=evaluation.protocol,
        images=evaluation.images or None,
        detections=evaluation.detections,
        ground_truth=evaluation.ground_truth,
        train=None if evaluation.train is None else evaluation.train.metrics,
        exist_ok=exist_ok,
    )


def _finish(evaluations: Sequence[Evaluation], text: str, folder: Path) -> None:
    """Print the numbers; fail if there is none."""
    print(text)
    print(f"Results saved to {folder}")
    defined = [v for e in evaluations for v in e.metrics.values.values() if v is not None and v != -1]
    if not defined:
        raise NothingDefinedError("Expected at least one number to be defined, got none: there is no ground truth.")


def _name(path: object) -> str:
    """Name a file in a title: a checkpoint by its run."""
    parts = Path(str(path)).parts
    return parts[-3] if len(parts) >= 3 and parts[-2] == "weights" else Path(str(path)).stem
