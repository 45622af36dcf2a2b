# SPDX-License-Identifier: AGPL-3.0-or-later
"""The floor of a calibration error: what the same scores would give if they were perfectly calibrated.

A binned error of finitely many detections is above 0 for a perfect detector too: 1,600 detections in 80 classes and 25
bins can read 0.20. The floor simulates targets whose expectation is the score and computes the error again.

- True positives: y ~ Bernoulli(s).
- IoU: y = B * U, with U drawn from the observed IoUs above 0 of true positives, of mean m, and
  B ~ Bernoulli(min(1, s / m)). Where s > m, U is stretched towards 1 to mean s, as 1 - (1 - U) * (1 - s) / (1 - m). So
  E[y] = s, and y in [0, 1].

Two choices matter under the protocol `reference` only. At IoU threshold 0 it has true positives that touch no object:
their target is 0 as that of a false positive, so B stands for them, and U leaves them out. Its LaACE counts ignored
detections, with IoU 0: the floor of LaACE counts them too, and they draw their targets as all others do, since perfect
calibration asks E[y] = s of every detection that is counted. The more are ignored, the further real scores lie above.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from det_ls.base.arguments import check_integer
from det_ls.metrics.binned import binned_error
from det_ls.metrics.calibration import DECE_BINS, LAECE_BINS, bin_index, equal_mass_ends
from det_ls.metrics.class_errors import CLASS_ERRORS, ClassErrors
from det_ls.metrics.protocols import TP_IOU, Protocol, get_protocol
from det_ls.metrics.table import DetectionTable, Floats
from det_ls.metrics.weighted import binned_sums, ratio
from det_ls.uncertainty.intervals import has_spread
from det_ls.uncertainty.samples import image_weights


@dataclass(frozen=True)
class Floor:
    """Simulated errors of a perfectly calibrated detector with the same scores.

    Attributes:
        median: Median of the simulations.
        p95: 95th percentile of the simulations.
        simulations: Their number.
        class_median: (C,) medians by class, NaN where undefined; None for an error over all classes together.
        class_p95: (C,) 95th percentiles by class, likewise.
    """

    median: float
    p95: float
    simulations: int
    class_median: Floats | None = None
    class_p95: Floats | None = None

    def exceeded_by(self, value: float) -> bool:
        """Say whether an error is above the floor; otherwise it is not distinguishable from calibrated.

        Args:
            value: The error of the real targets.

        Returns:
            Whether it is above the 95th percentile.

        Example:
            >>> Floor(median=0.18, p95=0.2, simulations=200).exceeded_by(0.19)
            False
        """
        return value > self.p95


def calibration_floors(
    table: DetectionTable, *, protocol: str = "det_ls", simulations: int = 100, seed: int = 0
) -> dict[str, Floor]:
    """Simulate the calibration errors that the table's scores would give if they were perfectly calibrated.

    Args:
        table: Matched detections.
        protocol: ``det_ls`` or ``reference``.
        simulations: Number of simulations.
        seed: Seed of the simulations.

    Returns:
        Floors of ``DECE``, ``DECE_equal_mass``, and LaECE and LaACE at each IoU threshold and at the LRP-optimal
        thresholds; an error that is undefined, or for IoU targets has no true positive to draw from, is left out.

    Raises:
        ValueError: There are no simulations, or no such protocol.
    """
    check_integer("simulations", simulations, 1)
    rules = get_protocol(protocol)
    pooled = _PooledErrors(table, rules)
    by_class = [_ClassErrors(pair, table, rules) for pair in CLASS_ERRORS]
    rng = np.random.default_rng(seed)
    drawn: list[list[tuple[Floats, Floats]]] = [[] for _ in by_class]
    pooled_drawn: list[tuple[float, float]] = []
    for _ in range(simulations):
        # The errors share their draws, which saves time; each one's floor is what it would be with its own. Single
        # precision saves more, and rounds a probability by 6e-8 at most.
        uniform = rng.random(table.n_detections, dtype=np.float32)
        pooled_drawn.append(pooled.draw(uniform))
        for errors, found in zip(by_class, drawn, strict=True):
            found.append(errors.draw(uniform, rng))
    floors: dict[str, Floor] = {}
    if pooled.defined:
        for column, key in enumerate(("DECE", "DECE_equal_mass")):
            floors[key] = _floor(np.array(pooled_drawn)[:, column])
    for errors, found in zip(by_class, drawn, strict=True):
        if errors.defined:
            for column, key in enumerate((errors.pair.laece, errors.pair.laace)):
                floor = _class_floor(rules.class_errors(np.array([f[column] for f in found]), table.has_gt))
                if floor is not None:
                    floors[key] = floor
    return floors


def grouped_floors(
    table: DetectionTable,
    group: NDArray[np.integer],
    *,
    protocol: str = "det_ls",
    simulations: int = 100,
    seed: int = 0,
) -> dict[str, Floor]:
    """Say what a calibrated detector would read where the images of a group are alike.

    Boxes of one group err together, so drawing their targets one by one gives floors that are too low. Here whole
    groups are drawn: each group's gaps count (times drawn - 1) times, which is 0 in the mean, as the gaps of a
    calibrated detector are, and varies as much as the groups do.

    Args:
        table: Matched detections.
        group: (I,) group of each image, from 0.
        protocol: ``det_ls`` or ``reference``.
        simulations: Number of draws.
        seed: Seed of the draws.

    Returns:
        Floors of ``DECE``, ``DECE_equal_mass``, and LaECE at each IoU threshold and at the LRP-optimal thresholds.
    """
    check_integer("simulations", simulations, 1)
    rules, n = get_protocol(protocol), int(np.max(group)) + 1 if len(group) else 0
    noise = image_weights(n, simulations, seed).astype(np.float64) - 1.0
    of_row = np.asarray(group)[table.image]
    floors: dict[str, Floor] = {}
    half = rules.matches(table, TP_IOU)
    rows = np.flatnonzero(rules.counted(table, half))
    rows = rows[np.argsort(table.score[rows], kind="stable")]
    if len(rows):
        gap = table.score[rows] - half.tp[rows]
        mass = np.searchsorted(equal_mass_ends(len(rows), DECE_BINS), np.arange(len(rows)), side="right")
        for key, bins in (("DECE", bin_index(table.score[rows], DECE_BINS)), ("DECE_equal_mass", mass)):
            gaps = _drawn_gaps(of_row[rows], n, bins, DECE_BINS, gap, noise)
            floors[key] = _floor(binned_error(gaps[None], np.full((1, simulations), float(len(rows))))[0])
    for pair in CLASS_ERRORS:
        matches = rules.matches(table, pair.tau)
        rows = np.flatnonzero(pair.rows(table, rules)[0] & table.has_gt[table.cls])
        if not len(rows):
            continue
        gap = table.score[rows] - matches.tp_iou[rows]
        errors = np.full((table.n_classes, simulations), np.nan)
        for c in np.unique(table.cls[rows]):
            of_class = rows[table.cls[rows] == c]
            of_gap = gap[table.cls[rows] == c]
            bins = bin_index(table.score[of_class], LAECE_BINS)
            gaps = _drawn_gaps(of_row[of_class], n, bins, LAECE_BINS, of_gap, noise)
            errors[c] = binned_error(gaps[None], np.full((1, simulations), float(len(of_class))))[0]
        floor = _class_floor(rules.class_errors(errors.T, table.has_gt))
        if floor is not None:
            floors[pair.laece] = floor
    return floors


def top_label_floors(
    confidence: Floats,
    correct: NDArray[np.bool_],
    bins: int,
    group: NDArray[np.integer] | None = None,
    *,
    simulations: int = 100,
    seed: int = 0,
) -> dict[str, Floor]:
    """Say what the calibration errors of a classifier would read if its confidence were the chance to be right.

    Args:
        confidence: (I,) probability of the first guess, for each image; at least one.
        correct: (I,) whether it is right; only used with groups.
        bins: Number of bins.
        group: (I,) group of each image, from 0, where images are not independent: whole groups are then drawn, as in
            :func:`grouped_floors`.
        simulations: Number of simulations.
        seed: Seed of the simulations.

    Returns:
        Floors of ``ECE`` and ``ECE_equal_mass``; one whose simulations are all equal, as where every confidence is 1,
        says nothing and is left out.
    """
    check_integer("simulations", simulations, 1)
    rng = np.random.default_rng(seed)
    order = np.argsort(confidence, kind="stable")
    s, n = confidence[order], len(confidence)
    of_mass = np.searchsorted(equal_mass_ends(n, bins), np.arange(n), side="right")
    kinds = {"ECE": bin_index(s, bins), "ECE_equal_mass": of_mass}
    count = np.full((1, simulations), float(n))
    if group is not None:
        places, gap = np.asarray(group)[order].astype(np.int64), s - correct[order]
        noise = image_weights(int(places.max()) + 1, simulations, seed).astype(np.float64) - 1.0
        drawn = {k: _drawn_gaps(places, len(noise), b, bins, gap, noise) for k, b in kinds.items()}
    else:
        drawn = {key: np.zeros((bins, simulations)) for key in kinds}
        for r in range(simulations):
            gap = s - (rng.random(n) < s)
            for key, of_bin in kinds.items():
                drawn[key][:, r] = np.bincount(of_bin, weights=gap, minlength=bins)
    errors = {key: binned_error(gaps[None], count)[0] for key, gaps in drawn.items()}
    return {key: _floor(values) for key, values in errors.items() if has_spread(values)}


def _drawn_gaps(
    group: NDArray[np.integer], n: int, bins: NDArray[np.integer], n_bins: int, gap: Floats, noise: Floats
) -> Floats:
    """Sum the gaps of each bin over drawn groups: (bins, simulations)."""
    sums = binned_sums(group.astype(np.int64), n, bins.astype(np.int64), n_bins, gap)
    return np.asarray(sums.T @ noise)


class IoUSimulator:
    """Draws IoU targets whose expectation is the score.

    Args:
        score: (N,) scores in [0, 1].
        tp_iou: Observed IoUs of true positives, at least one, all above 0.
        rows: (N,) detections that count; the others always get 0. By default all.
    """

    def __init__(self, score: Floats, tp_iou: Floats, rows: NDArray[np.bool_] | None = None) -> None:
        self._tp_iou = tp_iou
        mean = float(tp_iou.mean())
        counted = np.ones(len(score), bool) if rows is None else rows
        self._probability = np.where(counted, score / mean, 0.0).astype(np.float32)
        self._above = score > mean
        self._stretch = (1 - score) / (1 - mean) if mean < 1 else np.zeros_like(score)

    def __call__(self, uniform: NDArray[np.float32], rng: np.random.Generator) -> tuple[NDArray[np.int64], Floats]:
        """Draw once.

        Args:
            uniform: (N,) uniform draws from [0, 1), which decide between an IoU and 0.
            rng: Source of the IoUs.

        Returns:
            Places of the targets above 0, and their values in [0, 1].
        """
        hit = np.flatnonzero(uniform < self._probability)
        drawn = self._tp_iou[rng.integers(len(self._tp_iou), size=len(hit))]
        above = np.flatnonzero(self._above[hit])
        drawn[above] = 1 - (1 - drawn[above]) * self._stretch[hit[above]]
        return hit, drawn


class _PooledErrors:
    """D-ECE over all classes together, with equal-width and equal-mass bins."""

    def __init__(self, table: DetectionTable, protocol: Protocol) -> None:
        counted = protocol.counted(table, protocol.matches(table, TP_IOU))
        rows = np.flatnonzero(counted)
        rows = rows[np.argsort(table.score[rows], kind="stable")]
        score = table.score[rows]
        self._n = len(rows)
        self.defined = self._n > 0
        self._probability = np.where(counted, table.score, 0.0).astype(np.float32)
        self._width_bins = bin_index(table.score, DECE_BINS)
        self._mass_bins = np.zeros(table.n_detections, np.int64)
        ends = equal_mass_ends(self._n, DECE_BINS)
        self._mass_bins[rows] = np.searchsorted(ends, np.arange(self._n), side="right")
        self._width_sum, self._mass_sum = (
            np.bincount(bins[rows], weights=score, minlength=DECE_BINS) for bins in (self._width_bins, self._mass_bins)
        )

    def draw(self, uniform: NDArray[np.float32]) -> tuple[float, float]:
        """Simulate both errors once."""
        hit = np.flatnonzero(uniform < self._probability)
        count = np.array([float(self._n)])
        width, mass = (
            float(binned_error((total - np.bincount(bins[hit], minlength=DECE_BINS))[None], count)[0])
            for total, bins in ((self._width_sum, self._width_bins), (self._mass_sum, self._mass_bins))
        )
        return width, mass


class _ClassErrors:
    """LaECE and LaACE of each class at one IoU threshold."""

    def __init__(self, pair: ClassErrors, table: DetectionTable, protocol: Protocol) -> None:
        self.pair = pair
        matches = protocol.matches(table, pair.tau)
        counted, absolute = (rows & table.has_gt[table.cls] for rows in pair.rows(table, protocol))
        tp_iou = matches.iou[counted & matches.tp]
        tp_iou = tp_iou[tp_iou > 0]
        self.defined = len(tp_iou) > 0
        if not self.defined:
            return
        self._n, self._score, self._cls = table.n_classes, table.score, table.cls
        self._simulate = IoUSimulator(table.score, tp_iou, absolute)
        self._counted = counted.astype(np.float64)
        self._cells = table.cls.astype(np.int64) * LAECE_BINS + bin_index(table.score, LAECE_BINS)
        score = table.score[counted]
        self._cell_sum = np.bincount(self._cells[counted], weights=score, minlength=self._n * LAECE_BINS)
        self._class_sum = np.bincount(table.cls[absolute], weights=table.score[absolute], minlength=self._n)
        self._count, self._absolute_count = (self._count_of(table.cls[rows]) for rows in (counted, absolute))

    def _count_of(self, cls: NDArray[np.integer]) -> Floats:
        return np.bincount(cls, minlength=self._n).astype(np.float64)

    def draw(self, uniform: NDArray[np.float32], rng: np.random.Generator) -> tuple[Floats, Floats]:
        """Simulate the errors of each class once, (C,) both; NaN for a class without detections."""
        if not self.defined:
            return np.zeros(0), np.zeros(0)
        hit, target = self._simulate(uniform, rng)
        binned = target * self._counted[hit]
        gaps = self._cell_sum - np.bincount(self._cells[hit], weights=binned, minlength=len(self._cell_sum))
        # |s - y| is s where nothing was drawn, so only the hits change its sum.
        score = self._score[hit]
        change = np.bincount(self._cls[hit], weights=np.abs(score - target) - score, minlength=self._n)
        errors = binned_error(gaps.reshape(self._n, LAECE_BINS), self._count)
        return errors, ratio(self._class_sum + change, self._absolute_count)


def _class_floor(errors: Floats) -> Floor | None:
    """Summarise (simulations, C) errors, with NaN where the mean leaves a class out; None if it always does."""
    known = ~np.isnan(errors)
    classes, rows = known.any(0), known.any(1)
    if not rows.any():
        return None
    median, p95 = np.full(errors.shape[1], np.nan), np.full(errors.shape[1], np.nan)
    median[classes] = np.nanmedian(errors[:, classes], axis=0)
    p95[classes] = np.nanquantile(errors[:, classes], 0.95, axis=0)
    return replace(_floor(np.nanmean(errors[rows], axis=1)), class_median=median, class_p95=p95)


def _floor(values: Floats) -> Floor:
    return Floor(float(np.median(values)), float(np.quantile(values, 0.95)), len(values))
