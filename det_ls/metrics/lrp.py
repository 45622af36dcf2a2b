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
from typing import Any

import numpy as np
from numpy.typing import NDArray

from det_ls.metrics.calibration import running_sums
from det_ls.metrics.protocols import TP_IOU, Protocol
from det_ls.metrics.table import DetectionTable, Floats, Ints, Matches
from det_ls.metrics.weighted import Estimates, Progress, Weights, class_mean, dot, once, sums_by_place

PARTS = ("LRP", "Loc", "FP", "FN")


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
    n_gt: NDArray[Any]
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
        parts = dict(zip(PARTS, (self.lrp, self.loc, self.fp, self.fn), strict=True))
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
    found = _weighted_lrp(table, matches, once(table), table.gt_count(matches.area)[:, None])
    columns = (found.n_gt, found.n_tp, found.n_fp, found.lrp, found.loc, found.fp, found.fn, found.threshold)
    return LRP(found.tau, *(column[:, 0] for column in columns))


def _weighted_lrp(table: DetectionTable, matches: Matches, weights: Weights, n_gt: Ints | Floats) -> LRP:
    """Compute (C, R) LRP errors over all detections of weighted images, with (C, R) objects in them."""
    loss = np.where(matches.tp, 1 - matches.iou, 0.0)
    counts = np.zeros((3, table.n_classes, weights.shape[1]))
    order = np.argsort(table.cls, kind="stable")
    starts = np.searchsorted(table.cls[order], np.arange(table.n_classes + 1))
    for c in np.flatnonzero(np.diff(starts)):
        rows = order[starts[c] : starts[c + 1]]
        images, place = np.unique(table.image[rows], return_inverse=True)
        tp = matches.tp[rows]
        counts[:, c] = dot(sums_by_place(place, len(images), tp, matches.kept[rows] & ~tp, loss[rows]), weights[images])
    n_tp, n_fp, loc = counts
    return lrp_from_counts(n_tp, n_fp, loc, n_gt, matches.iou_threshold, np.zeros_like(n_tp))


def lrp_numbers(table: DetectionTable, weights: Weights, protocol: Protocol, *, progress: Progress = iter) -> Estimates:
    """Estimate LRP and its parts, over all detections.

    Args:
        table: Matched detections.
        weights: (I, R) how often each image counts.
        protocol: What is counted.
        progress: Not used: these take a few matrix products a class.

    Returns:
        ``LRP``, ``LRP_Loc``, ``LRP_FP`` and ``LRP_FN``, over the classes and by class.
    """
    n_gt = dot(table.gt_per_image(), weights)
    return _estimates("", _weighted_lrp(table, protocol.matches(table, TP_IOU), weights, n_gt))


def optimal_lrp_numbers(
    table: DetectionTable, weights: Weights, protocol: Protocol, *, progress: Progress = iter
) -> Estimates:
    """Estimate oLRP and its parts; the thresholds are found anew in each replicate.

    Args:
        table: Matched detections.
        weights: (I, R) how often each image counts.
        protocol: What is counted, and whether equal scores are told apart.
        progress: Wraps the replicates' numbers.

    Returns:
        ``oLRP``, ``oLRP_Loc``, ``oLRP_FP`` and ``oLRP_FN``, over the classes and by class, and by class only the
        ``lrp_threshold``.
    """
    optimum = OptimalLRP(table, protocol.matches(table, TP_IOU), split_ties=protocol.split_ties)
    n_gt = dot(table.gt_per_image(), weights)
    found = np.full((5, table.n_classes, weights.shape[1]), np.nan)
    for r in progress(range(weights.shape[1])):
        one = optimum(weights[:, r].astype(np.float64), n_gt[:, r])
        found[:, :, r] = one.lrp, one.loc, one.fp, one.fn, one.threshold
    none = np.zeros(0)
    estimates = _estimates("o", LRP(TP_IOU, none, none, none, *found))
    estimates.by_class["lrp_threshold"] = found[4]
    return estimates


def _estimates(prefix: str, errors: LRP) -> Estimates:
    """Average (C, R) errors over the classes where they are defined."""
    parts = dict(zip(PARTS, (errors.lrp, errors.loc, errors.fp, errors.fn), strict=True))
    by_class = {f"{prefix}LRP" if part == "LRP" else f"{prefix}LRP_{part}": found for part, found in parts.items()}
    return Estimates({key: class_mean(found) for key, found in by_class.items()}, by_class)


def lrp_from_counts(
    n_tp: Floats, n_fp: Floats, loc_sum: Floats, n_gt: NDArray[np.integer] | Floats, tau: float, threshold: Floats
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
    return OptimalLRP(table, matches, split_ties=split_ties)(np.ones(table.n_images), table.gt_count(matches.area))


class OptimalLRP:
    """:func:`optimal_lrp` of weighted images.

    Args:
        table: Matched detections.
        matches: One matching of the table.
        split_ties: As in :func:`optimal_lrp`.
    """

    def __init__(self, table: DetectionTable, matches: Matches, *, split_ties: bool = False) -> None:
        order = table.coco_order
        order = order[~matches.ignored[order]]
        cls, score, tp = table.cls[order], table.score[order], matches.tp[order]
        place = np.flatnonzero(tp) if split_ties else threshold_places(cls, score, tp)
        place = place[table.gt_count(matches.area)[cls[place]] > 0]
        self._n, self._tau, self._split_ties = table.n_classes, matches.iou_threshold, split_ties
        self._image, tps = table.image[order], np.flatnonzero(tp)
        self._tp_image, self._loss = self._image[tps], 1 - matches.iou[order][tps]
        self._score, self._cls = score[place], cls[place]
        self._start, self._end = np.searchsorted(cls, self._cls), place + 1  # of the class, and up to the threshold
        self._tp_start, self._tp_end = np.searchsorted(tps, self._start), np.searchsorted(tps, self._end)
        self._first = np.flatnonzero(np.diff(self._cls, prepend=-1))

    def __call__(self, w: Floats, n_gt: NDArray[np.integer] | Floats) -> LRP:
        """Find the optimum of each class.

        Args:
            w: (I,) how often each image counts.
            n_gt: (C,) objects in the weighted images.

        Returns:
            As :func:`optimal_lrp`.
        """
        best_tp, best_fp, best_loc = np.zeros((3, self._n))
        threshold = np.full(self._n, np.nan)
        if len(self._cls):
            seen, tps = running_sums(w[self._image]), running_sums(w[self._tp_image])
            losses = running_sums(w[self._tp_image] * self._loss)
            n_tp = tps[self._tp_end] - tps[self._tp_start]
            n_fp = seen[self._end] - seen[self._start] - n_tp
            loc = losses[self._tp_end] - losses[self._tp_start]
            error = lrp_error(n_tp, n_fp, loc, np.maximum(n_gt[self._cls], 1.0), self._tau)
            smallest = np.minimum.reduceat(error, self._first)
            lengths = np.diff(np.append(self._first, len(error)))
            is_best = np.flatnonzero(error == np.repeat(smallest, lengths))
            owner = self._cls[is_best]
            winners = is_best[np.flatnonzero(np.diff(owner, prepend=-1))]
            found = error[winners] < 1
            if self._split_ties:
                found |= (self._end - 1 == self._start)[winners] & (error[winners] == 1)
            winners = winners[found]
            best = self._cls[winners]
            best_tp[best], best_fp[best], best_loc[best] = n_tp[winners], n_fp[winners], loc[winners]
            threshold[best] = self._score[winners]
        return lrp_from_counts(best_tp, best_fp, best_loc, np.asarray(n_gt), self._tau, threshold)


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
