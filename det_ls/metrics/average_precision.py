# SPDX-License-Identifier: AGPL-3.0-or-later
"""COCO's average precision over weighted images, without matching again.

An image with weight 2 counts as if it were in the set twice, so a bootstrap replicate is a vector of image weights.
With all weights 1 the result is pycocotools' own; with others it is what pycocotools would say of the repeated images,
equal scores within an image included: copies of an image follow each other, so that its tied boxes take turns. Only
true positives need to be visited: between two of them precision falls, so COCO's interpolated precision at a recall is
attained at a true positive.
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
    tied: _Tied | None  # where right and wrong boxes of one image have equal scores


@dataclass(frozen=True)
class _Tied:
    """Blocks of boxes of one class, image and score, of which some are right and some wrong; for each true positive."""

    mixed: NDArray[np.bool_]  # (P,) whether it is in such a block
    block_tp: Ints  # (P,) true positives of its block
    block_kept: Ints  # (P,) boxes of its block that are not ignored
    rank_tp: Ints  # (P,) true positives of its block up to it
    rank_kept: Ints  # (P,) boxes of its block up to it
    first_place: Ints  # (P,) place of its block's first box among all detections
    first_ignored: Ints  # (P,) ignored detections before that box


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
                    _tied(cls, self._image, table.score[order], tp, ignored),
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
            ignored = running_sums(w[t.ignored_image])
            of_tp, kept, cls = self._points(t, w, seen, ignored)
            tps = running_sums(of_tp)
            class_tp = np.searchsorted(cls, np.arange(self._n_classes + 1))
            # Sums within the class: those at the true positive minus those where its class starts.
            tp_before = tps[class_tp[:-1]]
            precision = _envelope((tps[1:] - tp_before[cls]) / (kept + np.spacing(1)), cls)
            # The first true positive of the class at which enough of them are found; past the class, recall is short.
            place = np.searchsorted(tps[1:], tp_before[:, None] + needed)
            reached = place < class_tp[1:, None]
            found = np.append(precision, 0.0)[np.where(reached, place, len(precision))]
            result[row] = np.where(n_gt > 0, found.mean(1), np.nan)
        return result

    def _points(
        self, t: _Threshold, w: Floats, seen: Floats, ignored: Floats
    ) -> tuple[Floats, Floats, NDArray[np.int32]]:
        """List the true positives in their order: their weights, the boxes kept up to each in its class, classes."""
        of_class = seen[self._class_start[:-1]] - ignored[t.ignored_at_class]
        kept = seen[t.tp_place + 1] - ignored[t.ignored_before] - of_class[t.tp_cls]
        of_tp = w[t.tp_image]
        if t.tied is None:
            return of_tp, kept, t.tp_cls
        # Copies of an image follow each other: its tied boxes take turns, once a copy.
        tied = t.tied
        copies = np.where(tied.mixed, of_tp, 1.0).astype(np.int64)
        source = np.repeat(np.arange(len(copies)), copies)
        copy = np.arange(len(source)) - np.repeat(np.cumsum(copies) - copies, copies)
        size = np.where(tied.mixed, copies * tied.block_tp, 1)
        is_first = ~tied.mixed | (tied.rank_tp == 1)
        ends = np.cumsum(np.where(is_first, size, 0))
        start = ends - np.where(is_first, size, 0)
        start = start[np.maximum.accumulate(np.where(is_first, np.arange(len(copies)), 0))]
        of = tied.mixed[source]
        target = start[source] + np.where(of, copy * tied.block_tp[source] + tied.rank_tp[source] - 1, 0)
        before = seen[tied.first_place] - ignored[tied.first_ignored] - of_class[t.tp_cls]
        turns = before[source] + copy * tied.block_kept[source] + tied.rank_kept[source]
        order = np.empty(len(source), np.int64)
        order[target] = np.arange(len(source))
        source, of = source[order], of[order]
        return np.where(of, 1.0, of_tp[source]), np.where(of, turns[order], kept[source]), t.tp_cls[source]


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


def _tied(cls: NDArray[np.int32], image: NDArray[np.int32], score: Floats, tp: Ints, ignored: Ints) -> _Tied | None:
    """Find true positives that share class, image and score with a box that is wrong; None without any."""
    if not len(tp):
        return None
    new = (np.diff(cls) != 0) | (np.diff(image) != 0) | (np.diff(score) != 0)
    block = np.concatenate([[0], np.cumsum(new)])
    kept, right = np.ones(len(cls), np.int64), np.zeros(len(cls), np.int64)
    kept[ignored], right[tp] = 0, 1
    first = np.flatnonzero(np.concatenate([[True], new]))
    n_kept, n_right = np.add.reduceat(kept, first), np.add.reduceat(right, first)
    of = block[tp]
    mixed = n_kept[of] > n_right[of]
    if not mixed.any():
        return None
    before_kept, before_right = np.cumsum(kept) - kept, np.cumsum(right) - right
    return _Tied(
        mixed,
        n_right[of],
        n_kept[of],
        before_right[tp] + 1 - before_right[first[of]],
        before_kept[tp] + 1 - before_kept[first[of]],
        first[of],
        np.searchsorted(ignored, first[of]),
    )


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
