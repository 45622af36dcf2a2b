# SPDX-License-Identifier: AGPL-3.0-or-later
"""COCO's average precision over weighted images, without matching again.

An image with weight 2 counts as if it were in the set twice, so a bootstrap replicate is a vector of image weights.
With all weights 1 the result is pycocotools' own. Only true positives need to be visited: between two of them precision
falls, so COCO's interpolated precision at a recall is attained at a true positive.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from det_ls.metrics.calibration import running_sums
from det_ls.metrics.protocols import Protocol
from det_ls.metrics.table import DetectionTable, Floats, Ints
from det_ls.metrics.weighted import Estimates, Progress, Weights, class_mean

COCO_IOU_THRESHOLDS = tuple(float(t) for t in np.linspace(0.5, 0.95, 10))
_RECALLS = np.linspace(0.0, 1.0, 101)


@dataclass(frozen=True)
class _Threshold:
    """The true positives (P) and ignored detections (Q) of one IoU threshold, in COCO's order within classes."""

    tp_place: Ints  # (P,) place among all detections
    tp_image: NDArray[np.int32]  # (P,)
    tp_cls: NDArray[np.int32]  # (P,)
    ignored_image: NDArray[np.int32]  # (Q,)
    ignored_before: Ints  # (P,) ignored detections up to each true positive
    ignored_at_class: Ints  # (C,) ignored detections before each class
    class_tp: Ints  # (C + 1,) where the true positives of each class start


class WeightedAP:
    """Average precision of a table for any weights of its images.

    Args:
        table: Matched detections.
        iou_thresholds: T IoU thresholds that the table was matched at.
    """

    def __init__(self, table: DetectionTable, iou_thresholds: tuple[float, ...] = COCO_IOU_THRESHOLDS) -> None:
        order = table.coco_order
        self._image = table.image[order]
        cls = table.cls[order]
        classes = np.arange(table.n_classes + 1)
        self._class_start = np.searchsorted(cls, classes)
        self._n_classes = table.n_classes
        counted = table.gt_in_range()
        cells = table.gt_image[counted].astype(np.int64) * table.n_classes + table.gt_cls[counted]
        cell, self._gt_count = np.unique(cells, return_counts=True)
        self._gt_image, self._gt_cls = cell // max(table.n_classes, 1), cell % max(table.n_classes, 1)
        self._thresholds = []
        for threshold in iou_thresholds:
            matches = table.matches(threshold)
            tp = np.flatnonzero(matches.tp[order])
            ignored = np.flatnonzero(matches.ignored[order])
            self._thresholds.append(
                _Threshold(
                    tp,
                    self._image[tp],
                    cls[tp],
                    self._image[ignored],
                    np.searchsorted(ignored, tp),
                    np.searchsorted(ignored, self._class_start[:-1]),
                    np.searchsorted(cls[tp], classes),
                )
            )

    def __call__(self, weights: NDArray[np.integer]) -> Floats:
        """Compute the average precision of each IoU threshold and class.

        Args:
            weights: (I,) whole number of times that each image counts.

        Returns:
            (T, C) average precision, NaN for a class without objects in the weighted images.
        """
        w = np.asarray(weights, np.float64)
        objects = np.bincount(self._gt_cls, weights=w[self._gt_image] * self._gt_count, minlength=self._n_classes)
        n_gt = objects.astype(np.float64)  # integers where there are no objects
        needed = _least_true_positives(n_gt)
        seen = running_sums(w[self._image])
        result = np.full((len(self._thresholds), self._n_classes), np.nan)
        for row, t in enumerate(self._thresholds):
            tps, ignored = running_sums(w[t.tp_image]), running_sums(w[t.ignored_image])
            # Sums within the class: those at the true positive minus those where its class starts.
            tp_before = tps[t.class_tp[:-1]]
            tp = tps[1:] - tp_before[t.tp_cls]
            kept = seen[t.tp_place + 1] - seen[self._class_start[:-1]][t.tp_cls]
            kept -= ignored[t.ignored_before] - ignored[t.ignored_at_class][t.tp_cls]
            precision = _envelope(tp / (kept + np.spacing(1)), t.tp_cls)
            # The first true positive of the class at which enough of them are found; past the class, recall is short.
            place = np.searchsorted(tps[1:], tp_before[:, None] + needed)
            reached = place < t.class_tp[1:, None]
            found = np.append(precision, 0.0)[np.where(reached, place, len(precision))]
            result[row] = np.where(n_gt > 0, found.mean(1), np.nan)
        return result


def average_precision_numbers(
    table: DetectionTable, weights: Weights, protocol: Protocol, *, progress: Progress = iter
) -> Estimates:
    """Estimate COCO's average precision.

    Args:
        table: Matched detections.
        weights: (I, R) how often each image counts.
        protocol: Not used: AP is COCO's under both.
        progress: Wraps the replicates' numbers.

    Returns:
        ``AP``, ``AP50`` and ``AP75``, over the classes and by class.
    """
    ap = WeightedAP(table)
    by_class = {key: np.full((table.n_classes, weights.shape[1]), np.nan) for key in ("AP", "AP50", "AP75")}
    for r in progress(range(weights.shape[1])):
        values = ap(weights[:, r])
        for key, found in zip(by_class, (values.mean(0), values[0], values[5]), strict=True):
            by_class[key][:, r] = found
    return Estimates({key: class_mean(found) for key, found in by_class.items()}, by_class)


def _envelope(precision: Floats, cls: NDArray[np.int32]) -> Floats:
    """Raise each precision to the highest one at or after it in its class."""
    lift = 2.0 * (cls[-1] - cls) if len(cls) else np.zeros(0)
    # Classes further left are lifted above those on the right, so that the running maximum starts anew in each.
    best = np.maximum.accumulate((precision + lift)[::-1])[::-1]
    return np.asarray(best - lift)


def _least_true_positives(n_gt: Floats) -> Floats:
    """Count the true positives that reach each of COCO's 101 recalls: (C,) objects to (C, 101), at least one."""
    total = np.maximum(n_gt, 1.0)[:, None]
    least = np.ceil(_RECALLS * total)
    # COCO compares the quotient with the recall in floating point; do the same on either side of the product.
    least = np.where((least - 1) / total >= _RECALLS, least - 1, least)
    least = np.where(least / total < _RECALLS, least + 1, least)
    return np.asarray(np.maximum(least, 1.0))
