# SPDX-License-Identifier: AGPL-3.0-or-later
"""Everything that a report shows of a detector's errors at its score thresholds, from one call."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from det_ls.metrics.boxes import table_boxes
from det_ls.metrics.confusion import Confusion, confusion
from det_ls.metrics.curves_pr import PrecisionRecall, ScoreCurves, precision_recall, score_curves
from det_ls.metrics.error_rows import ErrorRow, error_rows
from det_ls.metrics.errors import ErrorBreakdown, classify_errors, error_breakdown
from det_ls.metrics.table import Bools, DetectionTable, Floats
from det_ls.report.crops import base_name


@dataclass(frozen=True)
class ErrorFacts:
    """What goes wrong, and the curves that the score thresholds are points of; all at IoU 0.5.

    Attributes:
        breakdown: Errors of the kept detections by type, and their cost.
        rows: Each of them, as errors.csv lists it.
        confusion: Confusion matrix of the kept detections.
        precision_recall: Precision against recall, of all detections.
        curves: Precision, recall and F1 against the score threshold, of all detections.
    """

    breakdown: ErrorBreakdown
    rows: tuple[ErrorRow, ...]
    confusion: Confusion
    precision_recall: PrecisionRecall
    curves: ScoreCurves


def error_facts(
    table: DetectionTable,
    detections: Sequence[Mapping[str, Any]],
    ground_truth: Mapping[str, Any],
    thresholds: Floats | Bools | float | None,
) -> ErrorFacts:
    """Collect what a report shows of a detector's errors.

    Args:
        table: Matched detections.
        detections: The COCO results that were evaluated, in the same order.
        ground_truth: The COCO instances that they were evaluated against, with an ``id`` for each annotation.
        thresholds: The operating point: one score threshold, or (C,) of them of which NaN keeps nothing of its class;
            None keeps all. Or (N,) truth values, the detections to keep.

    Returns:
        The facts. Images go by their file names, without the folders of this machine.

    Raises:
        ValueError: The detections or the objects are not those that were evaluated, or the thresholds do not fit.
    """
    boxes = table_boxes(table, detections, ground_truth)
    errors = classify_errors(table, boxes, thresholds)
    names = {image["id"]: base_name(image.get("file_name", image["id"])) for image in ground_truth["images"]}
    return ErrorFacts(
        error_breakdown(table, errors),
        tuple(error_rows(table, boxes, errors, names)),
        confusion(table, boxes, thresholds),
        precision_recall(table),
        score_curves(table),
    )
