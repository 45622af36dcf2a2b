# SPDX-License-Identifier: AGPL-3.0-or-later
"""Precision against recall as COCO counts it, and precision, recall and F1 against the score threshold."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from det_ls.base.errors import ArgumentError
from det_ls.metrics.table import Bools, DetectionTable, Floats, Ints

RECALLS = np.linspace(0.0, 1.0, 101)
SCORE_THRESHOLDS = np.linspace(0.0, 1.0, 1001)


@dataclass(frozen=True)
class PrecisionRecall:
    """Interpolated precision at COCO's 101 recalls; C classes.

    Attributes:
        iou_threshold: Smallest IoU of a true positive.
        class_names: C names.
        n_gt: (C,) objects.
        recall: (101,) recalls.
        precision: (C, 101) highest precision at that recall or above, 0 where it is not reached; NaN for a class
            without objects.
        score: (C, 101) score at which the recall is reached, 0 where it is not; NaN for a class without objects.
    """

    iou_threshold: float
    class_names: tuple[str, ...]
    n_gt: Ints
    recall: Floats
    precision: Floats
    score: Floats

    @property
    def ap(self) -> Floats:
        """(C,) average precision, NaN for a class without objects."""
        return np.asarray(self.precision.mean(1))

    @property
    def mean(self) -> Floats:
        """(101,) precision, the mean of the classes with objects; NaN without any."""
        known = self.n_gt > 0
        return np.asarray(self.precision[known].mean(0)) if known.any() else np.full(len(self.recall), np.nan)


@dataclass(frozen=True)
class ScoreCurves:
    """What is kept at or above each of T score thresholds is right, and is found; C classes.

    Micro numbers count the boxes of all classes with objects together, macro numbers are means of those classes.

    Attributes:
        iou_threshold: Smallest IoU of a true positive.
        class_names: C names.
        threshold: (T,) score thresholds.
        tp: (C, T) true positives.
        fp: (C, T) false positives.
        n_gt: (C,) objects; classes without any take no part in micro and macro numbers.
    """

    iou_threshold: float
    class_names: tuple[str, ...]
    threshold: Floats
    tp: Ints
    fp: Ints
    n_gt: Ints

    @property
    def precision(self) -> Floats:
        """(C, T) precision, NaN where nothing is kept."""
        return _ratio(self.tp, self.tp + self.fp)

    @property
    def recall(self) -> Floats:
        """(C, T) recall, NaN for a class without objects."""
        return _ratio(self.tp, np.broadcast_to(self.n_gt[:, None], self.tp.shape))

    @property
    def f1(self) -> Floats:
        """(C, T) F1, the harmonic mean of precision and recall; NaN for a class without objects."""
        f1 = _ratio(2 * self.tp, self.tp + self.fp + self.n_gt[:, None])
        return np.where(self.n_gt[:, None] > 0, f1, np.nan)

    @property
    def micro_precision(self) -> Floats:
        """(T,) precision of all boxes, NaN where nothing is kept."""
        return _ratio(self._sum(self.tp), self._sum(self.tp + self.fp))

    @property
    def micro_recall(self) -> Floats:
        """(T,) recall of all objects, NaN without any."""
        return _ratio(self._sum(self.tp), np.full(len(self.threshold), self.n_gt.sum()))

    @property
    def micro_f1(self) -> Floats:
        """(T,) F1 of all boxes, NaN without objects."""
        total = self._sum(self.tp + self.fp) + self.n_gt.sum()
        f1 = _ratio(2 * self._sum(self.tp), total)
        return f1 if self.n_gt.any() else np.full(len(self.threshold), np.nan)

    @property
    def macro_precision(self) -> Floats:
        """(T,) mean precision of the classes that keep a box, NaN where none does."""
        return self._mean(self.precision)

    @property
    def macro_recall(self) -> Floats:
        """(T,) mean recall of the classes, NaN without objects."""
        return self._mean(self.recall)

    @property
    def macro_f1(self) -> Floats:
        """(T,) mean F1 of the classes, NaN without objects."""
        return self._mean(self.f1)

    def best(self, values: Floats) -> tuple[float, float]:
        """Find where a curve is highest; as it was chosen on these images, expect less on others.

        Args:
            values: (T,) one of the curves.

        Returns:
            The lowest threshold with the highest value, and that value; NaN twice where all values are NaN.
        """
        if np.isnan(values).all():
            return float("nan"), float("nan")
        place = int(np.nanargmax(values))
        return float(self.threshold[place]), float(values[place])

    def _sum(self, counts: Ints) -> Ints:
        return np.asarray(counts[self.n_gt > 0].sum(0))

    def _mean(self, values: Floats) -> Floats:
        known = values[self.n_gt > 0]
        some = ~np.isnan(known)
        return _ratio(np.where(some, known, 0.0).sum(0), some.sum(0))


def precision_recall(table: DetectionTable, iou_threshold: float = 0.5) -> PrecisionRecall:
    """Compute the precision-recall curve of each class, equal to pycocotools' ``precision`` and ``scores`` arrays.

    Args:
        table: Matched detections.
        iou_threshold: Smallest IoU of a true positive, one that the table was matched at.

    Returns:
        The curves.

    Raises:
        ValueError: The table was not matched at that threshold.
    """
    matches = table.matches(iou_threshold)
    order = table.coco_order[matches.kept[table.coco_order]]
    precision, place = interpolate(matches.tp[order], table.cls[order], table.n_gt)
    scores = np.append(table.score[order], 0.0)[place]
    scores[~table.has_gt] = np.nan
    return PrecisionRecall(float(iou_threshold), table.class_names, table.n_gt, RECALLS, precision, scores)


def score_curves(
    table: DetectionTable, thresholds: Floats = SCORE_THRESHOLDS, *, iou_threshold: float = 0.5
) -> ScoreCurves:
    """Count what each score threshold keeps.

    Args:
        table: Matched detections.
        thresholds: (T,) score thresholds, rising.
        iou_threshold: Smallest IoU of a true positive, one that the table was matched at.

    Returns:
        The counts, and the curves that follow from them. Ignored detections are left out.

    Raises:
        ValueError: The table was not matched at that IoU, or the thresholds do not rise.
    """
    thresholds = np.asarray(thresholds, np.float64)
    if thresholds.ndim != 1 or (np.diff(thresholds) <= 0).any():
        raise ArgumentError(f"thresholds: expected rising numbers in one dimension, got shape {thresholds.shape}.")
    matches = table.matches(iou_threshold)
    tp, fp = (
        _at_or_above(table.score[rows], table.cls[rows], table.n_classes, thresholds)
        for rows in (matches.tp, matches.kept & ~matches.tp)
    )
    return ScoreCurves(float(iou_threshold), table.class_names, thresholds, tp, fp, table.n_gt)


def interpolate(tp: Bools, cls: NDArray[np.integer], n_gt: NDArray[np.integer]) -> tuple[Floats, Ints]:
    """Interpolate precision at COCO's 101 recalls.

    Args:
        tp: (N,) whether a detection is right, in falling order of score within each class.
        cls: (N,) classes, rising.
        n_gt: (C,) objects.

    Returns:
        (C, 101) precision, 0 where a recall is not reached and NaN for a class without objects; and (C, 101) place
        among the N detections at which the recall is reached, N where it is not.

    Example:
        >>> import numpy as np
        >>> precision, _ = interpolate(np.array([True, False, True]), np.zeros(3, int), np.array([2]))
        >>> float(precision.mean().round(4)), precision[0, [0, 50, 51]].round(4).tolist()
        (0.835, [1.0, 1.0, 0.6667])
    """
    edges = np.searchsorted(cls, np.arange(len(n_gt) + 1))
    precision = np.full((len(n_gt), len(RECALLS)), np.nan)
    place = np.full((len(n_gt), len(RECALLS)), len(tp), np.int64)
    for c in np.flatnonzero(n_gt > 0).tolist():
        right = np.cumsum(tp[edges[c] : edges[c + 1]], dtype=np.float64)
        ratio = right / (np.arange(1, len(right) + 1) + np.spacing(1))
        best = np.maximum.accumulate(ratio[::-1])[::-1]
        at = np.searchsorted(right / n_gt[c], RECALLS, side="left")
        reached = at < len(right)
        precision[c] = np.append(best, 0.0)[at]
        place[c] = np.where(reached, at + edges[c], len(tp))
    return precision, place


def _at_or_above(score: Floats, cls: NDArray[np.integer], n_classes: int, thresholds: Floats) -> Ints:
    """Count the scores of each class at or above each threshold: (C, T)."""
    passed = np.searchsorted(thresholds, score, side="right")  # thresholds that the score reaches
    cells = cls.astype(np.int64) * (len(thresholds) + 1) + passed
    counts = np.bincount(cells, minlength=n_classes * (len(thresholds) + 1)).reshape(n_classes, -1)
    return np.asarray(counts[:, ::-1].cumsum(1)[:, ::-1][:, 1:])


def _ratio(a: NDArray[np.generic], b: NDArray[np.generic]) -> Floats:
    """Divide, NaN where the divisor is 0."""
    return np.divide(a, b, out=np.full(np.shape(b), np.nan), where=np.asarray(b) > 0)  # type: ignore[arg-type,operator]
