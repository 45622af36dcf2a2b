# SPDX-License-Identifier: AGPL-3.0-or-later
"""The calibration numbers of many weighted versions of one table, from sums per image, class and bin.

A replicate weights every image by a whole number: an image with weight 2 counts as if it were in the set twice. Binned
errors, LRP and means are linear in the weights up to their last step, so that all replicates come from a few matrix
products. AUROC, oLRP and equal-mass bins need running sums over the sorted detections, one pass a replicate. Nothing is
matched again.

The classes that count are those with ground truth in the table; a mean over classes leaves out, in each replicate, the
classes that have no object in it. LRP-optimal thresholds (for the keys that end in ``lrpopt``) stay those of the table.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from det_ls.metrics.average_precision import WeightedAP
from det_ls.metrics.calibration import DECE_BINS, LAECE_BINS, bin_index, equal_mass_ends, log_losses, running_sums
from det_ls.metrics.lrp import lrp_error, optimal_lrp, threshold_places
from det_ls.metrics.protocols import Protocol, lrp_optimal_mask
from det_ls.metrics.table import DetectionTable, Floats, Ints

Progress = Callable[[Iterable[int]], Iterable[int]]
TP_IOU = 0.5
LAECE_TAUS = (0.0, 0.1, 0.5)
_IMAGES_AT_ONCE = 4096


def laece_key(tau: float) -> str:
    """Name LaECE at an IoU threshold, in percent as in AP50.

    Args:
        tau: IoU threshold.

    Returns:
        The key.

    Example:
        >>> laece_key(0.1)
        'LaECE10'
    """
    return f"LaECE{round(100 * tau)}"


def replicate_numbers(
    table: DetectionTable, weights: NDArray[np.integer], protocol: Protocol, *, progress: Progress = iter
) -> dict[str, Floats]:
    """Compute the calibration numbers of every replicate.

    Args:
        table: Matched detections.
        weights: (I, R) whole numbers, how often each image counts in each replicate.
        protocol: What is counted.
        progress: Wraps the replicates' numbers, for example in a progress bar.

    Returns:
        By key, (R,) values, NaN where a number is undefined.
    """
    present = _dot(table.gt_per_image(), weights)
    return {
        **_pooled(table, weights, protocol),
        **_by_class(table, weights, present, protocol),
        **_sorted(table, weights, present, protocol, progress),
    }


def replicate_ap(
    table: DetectionTable, weights: NDArray[np.integer], *, progress: Progress = iter
) -> dict[str, Floats]:
    """Compute COCO's average precision of every replicate.

    Args:
        table: Matched detections.
        weights: (I, R) whole numbers, how often each image counts in each replicate.
        progress: Wraps the replicates' numbers, for example in a progress bar.

    Returns:
        (R,) ``AP``, ``AP50`` and ``AP75``, NaN for a replicate without objects.
    """
    ap = WeightedAP(table)
    found = np.full((weights.shape[1], 3), np.nan)
    for r in progress(range(weights.shape[1])):
        values = ap(weights[:, r])
        known = ~np.isnan(values[0])
        if known.any():
            found[r] = values[:, known].mean(), values[0, known].mean(), values[5, known].mean()
    return {key: found[:, i] for i, key in enumerate(("AP", "AP50", "AP75"))}


def replicate_sums(
    image: NDArray[np.integer], bins: Ints, n_bins: int, columns: list[Floats], weights: NDArray[np.integer]
) -> list[Floats]:
    """Sum columns over the bins of every replicate.

    Args:
        image: (N,) image of each detection.
        bins: (N,) bin of each detection.
        n_bins: Number of bins B.
        columns: Arrays of shape (N,).
        weights: (I, R) whole numbers, how often each image counts in each replicate.

    Returns:
        For each column, (B, R) sums.
    """
    place, n = image.astype(np.int64), len(weights)
    return [_dot(_binned(place, n, bins, n_bins, column), weights) for column in columns]


def _dot(sums: NDArray[np.generic], weights: NDArray[np.integer]) -> Floats:
    """Multiply (I, K) sums per image with (I, R) weights to (K, R), converting few images at a time."""
    total = np.zeros((sums.shape[1], weights.shape[1]))
    for start in range(0, len(sums), _IMAGES_AT_ONCE):
        part = slice(start, start + _IMAGES_AT_ONCE)
        total += sums[part].T.astype(np.float64) @ weights[part].astype(np.float64)
    return total


def _sums(place: NDArray[np.integer], n: int, *columns: NDArray[Any]) -> Floats:
    """Sum columns over the rows of each place: (n, len(columns))."""
    return np.stack([np.bincount(place, weights=c, minlength=n) for c in columns], axis=1)


def _binned(place: NDArray[np.integer], n: int, bins: Ints, n_bins: int, values: Floats) -> Floats:
    """Sum values over the rows of each place and bin: (n, n_bins)."""
    sums = np.bincount(place * n_bins + bins, weights=values, minlength=n * n_bins)
    return sums.astype(np.float64).reshape(n, n_bins)


def _ratio(total: Floats, count: Floats) -> Floats:
    return np.divide(total, count, out=np.full(np.broadcast_shapes(total.shape, count.shape), np.nan), where=count > 0)


def _pooled(table: DetectionTable, weights: NDArray[np.integer], protocol: Protocol) -> dict[str, Floats]:
    """Compute the numbers over all classes together that are sums over the detections."""
    numbers: dict[str, Floats] = {}
    half, overlap = protocol.matches(table, TP_IOU), protocol.matches(table, 0.0)
    rows = np.flatnonzero(protocol.counted(table, half))
    image, s, y = table.image[rows].astype(np.int64), table.score[rows], half.tp[rows].astype(np.float64)
    columns = _sums(image, table.n_images, np.ones(len(s)), s, y, (s - y) ** 2, log_losses(s, y))
    bins = _binned(image, table.n_images, bin_index(s, DECE_BINS), DECE_BINS, s - y)
    total = _dot(np.concatenate([columns, bins], axis=1), weights)
    n = total[0]
    for row, key in enumerate(("mean_score", "precision", "brier", "nll"), start=1):
        numbers[key] = _ratio(total[row], n)
    numbers["signed_gap"] = numbers["mean_score"] - numbers["precision"]
    numbers["DECE"] = _ratio(np.abs(total[5:]).sum(0), n)
    rows = np.flatnonzero(protocol.counted(table, overlap))
    gap = table.score[rows] - overlap.tp_iou[rows]
    n, gap = _dot(_sums(table.image[rows].astype(np.int64), table.n_images, np.ones(len(rows)), gap), weights)
    numbers["signed_gap_iou"] = _ratio(gap, n)
    return numbers


@dataclass(frozen=True)
class _Block:
    """What LaECE and LaACE count, for one pair of IoU threshold and score thresholds."""

    key: str  # LaECE's
    gap: Floats  # (N,) score minus the IoU of a true positive
    binned: Floats  # (N,) 1 where LaECE counts the detection, else 0
    absolute: Floats  # (N,) 1 where LaACE counts it, else 0


_BLOCK_WIDTH = LAECE_BINS + 3


def _blocks(table: DetectionTable, protocol: Protocol) -> list[_Block]:
    """List the class-wise errors: LaECE at each IoU threshold, and at the LRP-optimal score thresholds."""
    thresholds = optimal_lrp(table, protocol.matches(table, 0.0), split_ties=protocol.split_ties).threshold
    everything = np.ones(table.n_detections, bool)
    wanted = [(laece_key(tau), tau, everything) for tau in LAECE_TAUS]
    wanted.append(("LaECE0_lrpopt", 0.0, lrp_optimal_mask(table, thresholds, protocol)))
    blocks: list[_Block] = []
    for key, tau, chosen in wanted:
        matches = protocol.matches(table, tau)
        kept = matches.kept & chosen
        absolute = chosen if protocol.laace_ignored else kept
        blocks.append(_Block(key, table.score - matches.tp_iou, kept.astype(np.float64), absolute.astype(np.float64)))
    return blocks


def _by_class(
    table: DetectionTable, weights: NDArray[np.integer], present: Floats, protocol: Protocol
) -> dict[str, Floats]:
    """Compute LaECE, LaACE and LRP, means over classes of ratios of sums."""
    half, blocks = protocol.matches(table, TP_IOU), _blocks(table, protocol)
    loss = np.where(half.tp, 1 - half.iou, 0.0)
    shape = (table.n_classes, weights.shape[1])
    errors, absolute = ({b.key: np.full(shape, np.nan) for b in blocks} for _ in range(2))
    lrp = np.full(shape, np.nan)
    order = np.argsort(table.cls, kind="stable")
    starts = np.searchsorted(table.cls[order], np.arange(table.n_classes + 1))
    bins = bin_index(table.score, LAECE_BINS)
    for c in np.flatnonzero(table.has_gt):
        rows = order[starts[c] : starts[c + 1]]
        images, place = np.unique(table.image[rows], return_inverse=True)
        n, sums = len(images), []
        for b in blocks:
            gap, binned, counted = b.gap[rows], b.binned[rows], b.absolute[rows]
            sums.append(_binned(place, n, bins[rows], LAECE_BINS, gap * binned))
            sums.append(_sums(place, n, binned, np.abs(gap) * counted, counted))
        sums.append(_sums(place, n, half.tp[rows], half.kept[rows] & ~half.tp[rows], loss[rows]))
        total = _dot(np.concatenate(sums, axis=1), weights[images])
        for i, b in enumerate(blocks):
            block = total[i * _BLOCK_WIDTH : (i + 1) * _BLOCK_WIDTH]
            n_binned, total_absolute, n_absolute = block[LAECE_BINS:]
            errors[b.key][c] = _ratio(np.abs(block[:LAECE_BINS]).sum(0), n_binned)
            absolute[b.key][c] = _ratio(total_absolute, n_absolute)
        some = present[c] > 0
        n_tp, n_fp, total_loss = total[-3:, some]
        lrp[c, some] = lrp_error(n_tp, n_fp, total_loss, present[c, some], TP_IOU)
    numbers = {"LRP": _class_mean(lrp)}
    for key in errors:
        for name, found in ((key, errors[key]), (key.replace("LaECE", "LaACE"), absolute[key])):
            numbers[name] = _class_mean(protocol.class_errors(found.T, (present > 0).T).T)
    return numbers


def _class_mean(values: Floats) -> Floats:
    """Average (C, R) over the classes where it is defined."""
    known = ~np.isnan(values)
    return _ratio(np.where(known, values, 0.0).sum(0), known.sum(0).astype(np.float64))


def _sorted(
    table: DetectionTable, weights: NDArray[np.integer], present: Floats, protocol: Protocol, progress: Progress
) -> dict[str, Floats]:
    """Compute the numbers that need the detections in the order of their scores."""
    ranking = _Ranking(table, protocol)
    optimum = _Optimum(table, protocol)
    found = np.full((3, weights.shape[1]), np.nan)
    for r in progress(range(weights.shape[1])):
        w = weights[:, r].astype(np.float64)
        found[0, r], found[1, r] = ranking(w)
        found[2, r] = optimum(w, present[:, r])
    return {"auroc": found[0], "DECE_equal_mass": found[1], "oLRP": found[2]}


class _Ranking:
    """AUROC and equal-mass D-ECE of weighted images, over all classes together."""

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
            low, high = np.searchsorted(self._tp, self._tp_start), np.searchsorted(self._tp, self._tp_end)
            below = seen[self._tp_start] - tps[low]
            upto = seen[self._tp_end] - tps[high]
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
        return float(np.abs(gaps).sum() / n)


class _Optimum:
    """oLRP of weighted images, averaged over the classes."""

    def __init__(self, table: DetectionTable, protocol: Protocol) -> None:
        matches = protocol.matches(table, TP_IOU)
        order = table.coco_order
        order = order[matches.kept[order] & table.has_gt[table.cls[order]]]
        cls, tp = table.cls[order], matches.tp[order]
        self._image = table.image[order]
        self._tp = np.flatnonzero(tp)
        self._tp_image, self._loss = self._image[self._tp], 1 - matches.iou[order][self._tp]
        place = self._tp if protocol.split_ties else threshold_places(cls, table.score[order], tp)
        self._cls = cls[place]
        self._end, self._start = place + 1, np.searchsorted(cls, self._cls)
        self._tp_end = np.searchsorted(self._tp, self._end)
        self._tp_start = np.searchsorted(self._tp, self._start)
        self._first = np.flatnonzero(np.diff(self._cls, prepend=-1))

    def __call__(self, w: Floats, n_gt: Floats) -> float:
        if not (n_gt > 0).any():
            return float("nan")
        best = np.ones(len(n_gt))  # without a threshold that helps
        if len(self._cls):
            seen, tps = running_sums(w[self._image]), running_sums(w[self._tp_image])
            losses = running_sums(w[self._tp_image] * self._loss)
            n_tp = tps[self._tp_end] - tps[self._tp_start]
            n_fp = seen[self._end] - seen[self._start] - n_tp
            loc = losses[self._tp_end] - losses[self._tp_start]
            error = lrp_error(n_tp, n_fp, loc, np.maximum(n_gt[self._cls], 1.0), TP_IOU)
            owner = self._cls[self._first]
            best[owner] = np.minimum(np.minimum.reduceat(error, self._first), 1.0)
        return float(best[n_gt > 0].mean())
