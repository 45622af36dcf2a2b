# SPDX-License-Identifier: AGPL-3.0-or-later
"""Numbers of the scores over all classes together: means, gaps, proper scores, D-ECE and ranking.

The detections that count are those that are not ignored and whose class has ground truth. D-ECE: Kueppers et al.,
"Multivariate confidence calibration for object detection", CVPR workshops 2020.
"""

from __future__ import annotations

import numpy as np

from det_ls.metrics.binned import binned_error
from det_ls.metrics.calibration import DECE_BINS, bin_index, equal_mass_ends, log_losses, running_sums
from det_ls.metrics.protocols import TP_IOU, Protocol
from det_ls.metrics.table import DetectionTable, Floats
from det_ls.metrics.weighted import Estimates, Progress, Weights, binned_sums, dot, ratio, sums_by_place


def score_numbers(
    table: DetectionTable, weights: Weights, protocol: Protocol, *, progress: Progress = iter
) -> Estimates:
    """Estimate the numbers that are sums over the detections.

    Args:
        table: Matched detections.
        weights: (I, R) how often each image counts.
        protocol: What is counted.
        progress: Not used: these take a few matrix products.

    Returns:
        ``mean_score``, ``precision``, ``signed_gap``, ``signed_gap_iou``, ``brier``, ``nll`` and ``DECE``; the means,
        gaps and ``DECE`` by class too.
    """
    half, overlap = protocol.matches(table, TP_IOU), protocol.matches(table, 0.0)
    rows = np.flatnonzero(protocol.counted(table, half))
    image, s, y = table.image[rows].astype(np.int64), table.score[rows], half.tp[rows].astype(np.float64)
    columns = sums_by_place(image, table.n_images, np.ones(len(s)), s, y, (s - y) ** 2, log_losses(s, y))
    bins = binned_sums(image, table.n_images, bin_index(s, DECE_BINS), DECE_BINS, s - y)
    total = dot(np.concatenate([columns, bins], axis=1), weights)
    n = total[0]
    numbers = {
        key: ratio(total[row], n) for row, key in enumerate(("mean_score", "precision", "brier", "nll"), start=1)
    }
    numbers["signed_gap"] = numbers["mean_score"] - numbers["precision"]
    numbers["DECE"] = binned_error(total[None, 5:], n[None])[0]
    rows = np.flatnonzero(protocol.counted(table, overlap))
    gap = table.score[rows] - overlap.tp_iou[rows]
    n, gap = dot(sums_by_place(table.image[rows].astype(np.int64), table.n_images, np.ones(len(rows)), gap), weights)
    numbers["signed_gap_iou"] = ratio(gap, n)
    return Estimates(numbers)


def score_numbers_by_class(table: DetectionTable, protocol: Protocol) -> dict[str, Floats]:
    """Compute the means, gaps and D-ECE of each class, with every image once.

    Args:
        table: Matched detections.
        protocol: What is counted; classes without ground truth are counted here too.

    Returns:
        By key, (C,) values, NaN for a class without detections.
    """
    n, half, overlap = table.n_classes, protocol.matches(table, TP_IOU), protocol.matches(table, 0.0)

    def mean(values: Floats, rows: np.ndarray) -> Floats:  # type: ignore[type-arg]
        total, count = sums_by_place(table.cls[rows], n, values[rows], np.ones(int(rows.sum()))).T
        return ratio(total, count)

    gap = table.score - half.tp
    cells = table.cls[half.kept].astype(np.int64) * DECE_BINS + bin_index(table.score[half.kept], DECE_BINS)
    gaps = np.bincount(cells, weights=gap[half.kept], minlength=n * DECE_BINS).reshape(n, DECE_BINS, 1)
    count = np.bincount(table.cls[half.kept], minlength=n).astype(np.float64)
    return {
        "DECE": binned_error(gaps, count[:, None])[:, 0],
        "signed_gap": mean(gap, half.kept),
        "signed_gap_iou": mean(table.score - overlap.tp_iou, overlap.kept),
        "precision": mean(half.tp.astype(np.float64), half.kept),
    }


def ranking_numbers(
    table: DetectionTable, weights: Weights, protocol: Protocol, *, progress: Progress = iter
) -> Estimates:
    """Estimate the numbers that need the detections in the order of their scores, one pass a replicate.

    Args:
        table: Matched detections.
        weights: (I, R) how often each image counts.
        protocol: What is counted, and whether equal scores are told apart.
        progress: Wraps the replicates' numbers.

    Returns:
        ``auroc`` and ``DECE_equal_mass``.
    """
    ranking = _Ranking(table, protocol)
    found = np.full((2, weights.shape[1]), np.nan)
    for r in progress(range(weights.shape[1])):
        found[:, r] = ranking(weights[:, r].astype(np.float64))
    return Estimates({"auroc": found[0], "DECE_equal_mass": found[1]})


class _Ranking:
    """AUROC and equal-mass D-ECE of weighted images."""

    def __init__(self, table: DetectionTable, protocol: Protocol) -> None:
        matches = protocol.matches(table, TP_IOU)
        rows = np.flatnonzero(protocol.counted(table, matches))
        rows = rows[np.argsort(table.score[rows], kind="stable")]
        self._image, self._score, tp = table.image[rows], table.score[rows], matches.tp[rows]
        first = np.concatenate([[True], np.diff(self._score) != 0]) if len(rows) else np.zeros(0, bool)
        starts = np.flatnonzero(first)
        ends = np.append(starts[1:], len(rows)).astype(np.int64)
        run = np.cumsum(first) - 1
        self._start, self._end = starts[run], ends[run]  # the run of equal scores that each detection is in
        self._tp = np.flatnonzero(tp)
        self._tp_image = self._image[self._tp]
        self._tp_start, self._tp_end = self._start[self._tp], self._end[self._tp]
        self._low, self._high = np.searchsorted(self._tp, self._tp_start), np.searchsorted(self._tp, self._tp_end)
        self._split_ties = protocol.split_ties

    def __call__(self, w: Floats) -> tuple[float, float]:
        if not len(self._image):
            return float("nan"), float("nan")
        of_row, of_tp = w[self._image], w[self._tp_image]
        seen, tps = running_sums(of_row), running_sums(of_tp)
        n, n_pos = seen[-1], tps[-1]
        if n == 0:
            return float("nan"), float("nan")
        area = float("nan")
        if 0 < n_pos < n:
            below = seen[self._tp_start] - tps[self._low]
            upto = seen[self._tp_end] - tps[self._high]
            area = float(np.dot(of_tp, below + upto) / 2 / n_pos / (n - n_pos))
        return area, self._equal_mass(of_row, seen, tps, n)

    def _equal_mass(self, of_row: Floats, seen: Floats, tps: Floats, n: float) -> float:
        ends = equal_mass_ends(n, DECE_BINS)
        place = np.minimum(np.searchsorted(seen[1:], ends), len(of_row) - 1)
        start = place if self._split_ties else self._start[place]
        end = place + 1 if self._split_ties else self._end[place]
        share = (ends - seen[start]) / np.maximum(seen[end] - seen[start], 1.0)
        low, high = np.searchsorted(self._tp, start), np.searchsorted(self._tp, end)
        target = tps[low] + share * (tps[high] - tps[low])
        weighted = running_sums(of_row * self._score)[start]
        score = weighted + share * (seen[end] - seen[start]) * self._score[place]
        gaps = np.diff(np.concatenate([[0.0], score - target]))
        return float(binned_error(gaps[None, :, None], np.array([[n]]))[0, 0])
