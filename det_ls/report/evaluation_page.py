# SPDX-License-Identifier: AGPL-3.0-or-later
"""An evaluation as one self-contained HTML page."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from matplotlib.figure import Figure

from det_ls.data.coco import read_ground_truth
from det_ls.evaluation.operating_point import operating_point
from det_ls.evaluation.results import Evaluation
from det_ls.report.cases import Cropper, crop_rows
from det_ls.report.crops import CaseFinder
from det_ls.report.figures import Picture, drawn, facts_of, inlined
from det_ls.report.findings import findings
from det_ls.report.measured import LEADING, OF_ALL, OTHER_KEPT, OTHERS, population_text
from det_ls.report.operating import chosen, class_thresholds, differ, expected_rows, no_threshold
from det_ls.report.page_parts import check_target, common, write_page
from det_ls.report.rows import class_rows, gap_rows, how_rows, number_rows, tiles
from det_ls.report.words import interval_note


def write_report(
    path: str | Path,
    evaluation: Evaluation,
    *,
    title: str,
    pictures: Sequence[tuple[Picture, Figure]] | None = None,
    exist_ok: bool = False,
) -> Path:
    """Write an evaluation as one HTML page that needs nothing else.

    Args:
        path: The file; its folder is made if need be.
        evaluation: The evaluation, with intervals and floors if those are to be shown. Crops are cut from the images
            that it knows; absolute paths are shortened.
        title: What the page is about, for example the names of model and data.
        pictures: What `det_ls.report.figures.drawn` drew of the evaluation, if that is at hand.
        exist_ok: Whether to replace a file that is there.

    Returns:
        The file.

    Raises:
        FileExistsError: The file is there and ``exist_ok`` is False.
        ValueError: The detections or the objects are not those that were evaluated.
    """
    target = check_target(path, exist_ok)
    metrics, protocol, train = evaluation.metrics, evaluation.protocol, evaluation.train
    truth = read_ground_truth(evaluation.ground_truth, "ground_truth")
    finder = CaseFinder(metrics, evaluation.detections, truth, operating_point(metrics))
    cropper = Cropper(evaluation.images or None)
    wrong, no_wrong = crop_rows(finder.false_positives(), cropper)
    missed, no_missed = crop_rows(finder.missed_objects(), cropper)
    counts = metrics.counts
    if not counts["objects"]:
        none_missed = "There is no ground truth."
        none_wrong = "Without ground truth, right and wrong detections cannot be told apart."
    else:
        none_missed = "None: every object is found at the operating point."
        none_wrong = "There are no detections." if not counts["detections"] else "There are none."
    figures: Iterable[tuple[Picture, Figure]] = ()
    if counts["objects"] and counts["detections"]:
        figures = drawn(evaluation, facts_of(evaluation)) if pictures is None else pictures
    point = chosen(metrics, protocol)
    intervals = (*metrics.intervals.values(), *metrics.kept.intervals.values())
    grouped = metrics.groups if metrics.groups != counts["images"] else None
    page = {
        **common(title, [("", evaluation)]),
        "first": "",
        "subtitle": f"{counts['images']:,} images, {counts['objects']:,} objects, {counts['detections']:,} detections, "
        f"{counts['classes_with_ground_truth']:,} of {counts['classes']:,} classes with ground truth; "
        f"protocol {metrics.protocol}",
        "tiles": tiles(metrics),
        "findings": findings(metrics, protocol),
        "interval_note": interval_note(intervals, grouped),
        "of_all": population_text(metrics, "all", protocol),
        "of_kept": population_text(metrics, "kept", protocol),
        "headline": number_rows(metrics, LEADING),
        "all_boxes": number_rows(metrics, OF_ALL),
        "others": number_rows(metrics, (*OTHER_KEPT, *OTHERS)),
        "how": how_rows(metrics, (*LEADING, *OTHER_KEPT, *OF_ALL, *OTHERS)),
        "point": point,
        "expected": [] if no_threshold(metrics) else expected_rows(metrics),
        "given": metrics.kept.thresholds.kind == "fixed",
        "own_thresholds": differ(metrics),
        "thresholds": class_thresholds(metrics),
        "gap": [] if train is None else gap_rows(metrics, train.metrics),
        "train_images": 0 if train is None else train.metrics.counts["images"],
        "val_images": counts["images"],
        "figures": [
            inlined(figure, f"f-{picture.name}", picture.title, picture.caption) for picture, figure in figures
        ],
        "no_figures": "There is no ground truth." if not counts["objects"] else "There are no detections.",
        "classes": class_rows(metrics),
        "false_positives": wrong,
        "missed": missed,
        "no_false_positives": no_wrong or none_wrong,
        "no_missed": no_missed or none_missed,
    }
    return write_page(target, "report.html", page)
