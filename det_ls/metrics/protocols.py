# SPDX-License-Identifier: AGPL-3.0-or-later
"""The two ways of counting, never mixed silently: ours, and the one of the reference tools."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from det_ls.base.errors import ArgumentError
from det_ls.metrics.calibration import Floats
from det_ls.metrics.table import DetectionTable, Matches

TP_IOU = 0.5  # smallest IoU of a true positive, where a number does not say otherwise


@dataclass(frozen=True)
class Protocol:
    """What an evaluation counts.

    Attributes:
        name: ``det_ls`` or ``reference``.
        zero_overlap: At IoU threshold 0 a detection can match an object that it does not touch.
        zero_error_classes: Classes whose calibration error is exactly 0 take part in its mean.
        laace_ignored: LaACE counts ignored detections, with IoU 0.
        split_ties: Equal scores are told apart by COCO's order of detections (LRP-optimal thresholds, equal-mass bins).
        keep_top: At the LRP-optimal thresholds, a class without one keeps its highest-scored detection, not none.
        absent: What AP reports where it is undefined: None, or pycocotools' -1.
    """

    name: str
    zero_overlap: bool
    zero_error_classes: bool
    laace_ignored: bool
    split_ties: bool
    keep_top: bool
    absent: float | None

    def matches(self, table: DetectionTable, iou_threshold: float, *, area: str = "all") -> Matches:
        """Take a matching of a table as this protocol matches.

        Args:
            table: Matched detections.
            iou_threshold: Smallest IoU of a match.
            area: COCO's area range.

        Returns:
            The matching.
        """
        return table.matches(iou_threshold, area=area, zero_overlap=self.zero_overlap)

    def counted(self, table: DetectionTable, matches: Matches) -> NDArray[np.bool_]:
        """Say which detections the numbers over all classes together count.

        Args:
            table: Matched detections.
            matches: One matching of the table.

        Returns:
            (N,) detections that are not ignored and whose class has ground truth.
        """
        return matches.kept & table.has_gt[table.cls]

    def class_errors(self, errors: Floats, has_gt: NDArray[np.bool_]) -> Floats:
        """Blank the classes that take no part in the mean of a calibration error.

        Args:
            errors: (..., C) errors by class, NaN for a class without detections.
            has_gt: (..., C) classes with ground truth.

        Returns:
            (..., C) errors, NaN for the classes left out.
        """
        left_out = ~has_gt if self.zero_error_classes else ~has_gt | (errors == 0)
        return np.where(left_out, np.nan, errors)


PROTOCOLS = {
    "det_ls": Protocol(
        "det_ls",
        zero_overlap=False,
        zero_error_classes=True,
        laace_ignored=False,
        split_ties=False,
        keep_top=False,
        absent=None,
    ),
    "reference": Protocol(
        "reference",
        zero_overlap=True,
        zero_error_classes=False,
        laace_ignored=True,
        split_ties=True,
        keep_top=True,
        absent=-1.0,
    ),
}


def get_protocol(name: str) -> Protocol:
    """Look up a protocol.

    Args:
        name: ``det_ls`` or ``reference``.

    Returns:
        The protocol.

    Raises:
        ValueError: There is no such protocol.

    Example:
        >>> get_protocol("det_ls").zero_overlap
        False
    """
    if not isinstance(name, str) or name not in PROTOCOLS:
        raise ArgumentError(f"protocol: expected one of {', '.join(PROTOCOLS)}, got {name!r}.")
    return PROTOCOLS[name]


def lrp_optimal_mask(table: DetectionTable, thresholds: Floats, protocol: Protocol) -> NDArray[np.bool_]:
    """Say which detections are at or above the LRP-optimal threshold of their class.

    Args:
        table: Matched detections.
        thresholds: (C,) thresholds, NaN for a class that has none.
        protocol: Decides what a class with ground truth and no threshold keeps: nothing, or its best detection. Classes
            without ground truth keep everything under ``reference``; they take no part in the numbers.

    Returns:
        (N,) detections to keep.
    """
    if not protocol.keep_top:
        return np.asarray(table.score >= np.where(np.isnan(thresholds), np.inf, thresholds)[table.cls])
    lowest = np.where(table.has_gt, thresholds, -1.0)[table.cls]
    top = np.zeros(table.n_detections, bool)
    order = table.coco_order
    top[order[np.unique(table.cls[order], return_index=True)[1]]] = True
    return np.where(np.isnan(lowest), top, table.score >= np.nan_to_num(lowest))
