# SPDX-License-Identifier: AGPL-3.0-or-later
"""Localisation recall precision (LRP) error and its optimum over the score threshold.

Oksuz et al., "One metric to measure them all: localisation recall precision (LRP) for evaluating visual detection
tasks", TPAMI 2021. At IoU threshold tau, one class:

    LRP = [sum over TP of (1 - IoU) / (1 - tau) + FP + FN] / (TP + FP + FN)

0 is perfect and 1 is worst. oLRP is the smallest LRP over all score thresholds, and its threshold is the operating
point that balances localisation, precision and recall.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from det_ls.metrics.table import DetectionTable, Matches

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


@dataclass(frozen=True)
class LRP:
    """LRP errors of C classes; NaN for a class without ground truth.

    Attributes:
        tau: IoU threshold of a true positive.
        n_gt: (C,) objects.
        n_tp: (C,) true positives.
        n_fp: (C,) false positives.
        lrp: (C,) LRP error.
        loc: (C,) mean of 1 - IoU over the true positives, not divided by 1 - tau; NaN without one.
        fp: (C,) false positives among the detections (1 - precision); NaN without a true positive.
        fn: (C,) objects missed (1 - recall).
        threshold: (C,) score at and above which detections are kept: the LRP-optimal one in an optimum (NaN for a class
            in which no threshold beats having no detections at all), 0 otherwise.
    """

    tau: float
    n_gt: Ints
    n_tp: Floats
    n_fp: Floats
    lrp: Floats
    loc: Floats
    fp: Floats
    fn: Floats
    threshold: Floats

    def mean(self) -> dict[str, float]:
        """Average over the classes.

        Returns:
            ``LRP`` and ``FN`` averaged over the classes with ground truth, ``Loc`` and ``FP`` over those with a true
            positive; NaN over no class.
        """
        parts = {"LRP": self.lrp, "Loc": self.loc, "FP": self.fp, "FN": self.fn}
        return {k: float(np.mean(v[~np.isnan(v)])) if (~np.isnan(v)).any() else float("nan") for k, v in parts.items()}


def lrp(table: DetectionTable, matches: Matches) -> LRP:
    """Compute the LRP error of every class over all detections of the table.

    Args:
        table: Matched detections.
        matches: One matching of the table; its IoU threshold is tau.

    Returns:
        The errors by class.

    Example:
        >>> from det_ls.metrics.matching import build_table
        >>> gt = {"images": [{"id": 1}], "categories": [{"id": 1, "name": "a"}],
        ...       "annotations": [{"id": 1, "image_id": 1, "category_id": 1, "bbox": [0, 0, 10, 10]}]}
        >>> detections = [{"image_id": 1, "category_id": 1, "bbox": [0, 0, 10, 8], "score": 0.9}]
        >>> table = build_table(gt, detections)
        >>> lrp(table, table.matches(0.5)).lrp.round(12).tolist()
        [0.4]
    """
    n, tp = table.n_classes, matches.tp
    n_tp = np.bincount(table.cls[tp], minlength=n).astype(np.float64)
    n_fp = np.bincount(table.cls[~tp & ~matches.ignored], minlength=n).astype(np.float64)
    loc_sum = np.bincount(table.cls[tp], weights=1 - matches.iou[tp], minlength=n).astype(np.float64)
    return lrp_from_counts(n_tp, n_fp, loc_sum, table.gt_count(matches.area), matches.iou_threshold, np.zeros(n))


def lrp_from_counts(
    n_tp: Floats, n_fp: Floats, loc_sum: Floats, n_gt: NDArray[np.integer], tau: float, threshold: Floats
) -> LRP:
    """Compute LRP errors from counts, in any common shape.

    Args:
        n_tp: True positives.
        n_fp: False positives.
        loc_sum: Sum of 1 - IoU over the true positives.
        n_gt: Objects.
        tau: IoU threshold of a true positive.
        threshold: Score thresholds that gave these counts.

    Returns:
        The errors.
    """
    with np.errstate(divide="ignore", invalid="ignore"):
        error = np.where(n_gt > 0, lrp_error(n_tp, n_fp, loc_sum, n_gt, tau), np.nan)
        some = (n_gt > 0) & (n_tp > 0)
        loc = np.where(some, loc_sum / n_tp, np.nan)
        fp = np.where(some, n_fp / (n_tp + n_fp), np.nan)
        fn = np.where(n_gt > 0, 1 - n_tp / n_gt, np.nan)
    return LRP(tau, np.asarray(n_gt), n_tp, n_fp, error, loc, fp, fn, threshold)


def lrp_error(n_tp: Floats, n_fp: Floats, loc_sum: Floats, n_gt: NDArray[np.integer] | Floats, tau: float) -> Floats:
    """Evaluate the LRP formula; FN is ``n_gt - n_tp``.

    Args:
        n_tp: True positives.
        n_fp: False positives.
        loc_sum: Sum of 1 - IoU over the true positives.
        n_gt: Objects; with ``n_fp``, not 0.
        tau: IoU threshold of a true positive.

    Returns:
        LRP errors in [0, 1].
    """
    return np.asarray((loc_sum / (1 - tau) + n_fp + n_gt - n_tp) / (n_fp + n_gt))


def optimal_lrp(table: DetectionTable, matches: Matches, *, split_ties: bool = False) -> LRP:
    """Find the score threshold of every class at which its LRP error is smallest.

    Only scores at which the table holds a detection are tried, each together with all detections of that score. Among
    equally good thresholds the highest is taken.

    Args:
        table: Matched detections.
        matches: One matching of the table; its IoU threshold is tau.
        split_ties: Also try to keep some of the detections of one score and leave out others, in COCO's order, as the
            authors' code does; no threshold does that. That code also takes the first detection's score where nothing
            beats the error 1 and that detection is a true positive.

    Returns:
        oLRP by class in ``lrp``, the parts at the optimum, and the thresholds. A class without a true positive has
        error 1 and no threshold (NaN).
    """
    n, n_gt, tau = table.n_classes, table.gt_count(matches.area), matches.iou_threshold
    order = table.coco_order
    order = order[~matches.ignored[order]]
    cls, score, tp = table.cls[order], table.score[order], matches.tp[order]
    place = np.flatnonzero(tp) if split_ties else threshold_places(cls, score, tp)
    before = np.searchsorted(cls, cls[place])  # where the class of each place starts
    c_tp = np.concatenate([[0.0], np.cumsum(tp)])
    c_loc = np.concatenate([[0.0], np.cumsum(np.where(tp, 1 - matches.iou[order], 0.0))])
    n_tp = c_tp[place + 1] - c_tp[before]
    n_fp = place + 1 - before - n_tp
    loc = c_loc[place + 1] - c_loc[before]
    owner = cls[place]
    reachable = n_gt[owner] > 0
    error = np.where(reachable, lrp_error(n_tp, n_fp, loc, np.maximum(n_gt[owner], 1), tau), np.inf)
    best_tp, best_fp, best_loc, threshold = np.zeros(n), np.zeros(n), np.zeros(n), np.full(n, np.nan)
    if len(place):
        first = np.flatnonzero(np.diff(owner, prepend=-1))
        smallest = np.minimum.reduceat(error, first)
        is_best = np.flatnonzero(error == np.repeat(smallest, np.diff(np.append(first, len(owner)))))
        winners = is_best[np.unique(owner[is_best], return_index=True)[1]]
        found = error[winners] < 1
        if split_ties:
            found |= (place == before)[winners] & (error[winners] == 1)
        winners = winners[found]
        best = owner[winners]
        best_tp[best], best_fp[best], best_loc[best] = n_tp[winners], n_fp[winners], loc[winners]
        threshold[best] = score[place[winners]]
    return lrp_from_counts(best_tp, best_fp, best_loc, n_gt, tau, threshold)


def threshold_places(cls: NDArray[np.integer], score: Floats, tp: NDArray[np.bool_]) -> Ints:
    """Find the places among sorted detections where a class's LRP error can be smallest.

    Adding false positives only raises the error, so the optimum lies at a score that some true positive has.

    Args:
        cls: (N,) classes, sorted.
        score: (N,) scores, falling within each class.
        tp: (N,) true positives.

    Returns:
        Last places of the runs of equal class and score that hold a true positive.
    """
    if not len(cls):
        return np.zeros(0, np.int64)
    new = np.concatenate([[True], (np.diff(cls) != 0) | (np.diff(score) != 0)])
    starts = np.flatnonzero(new)
    ends = np.append(starts[1:], len(cls)) - 1
    return ends[np.add.reduceat(tp.astype(np.int64), starts) > 0]
