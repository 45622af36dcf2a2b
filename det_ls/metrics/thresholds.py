# SPDX-License-Identifier: AGPL-3.0-or-later
"""Score thresholds chosen on other images than those they are judged on.

The images fall into folds; for each fold the threshold is chosen on the others. There are two candidates: one threshold
for all classes, and one a class. LRP (Oksuz et al. 2021) at IoU 0.5 is what is made small; it weighs a missed object
like a false alarm, and ``miss_cost`` changes that.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from det_ls.metrics.grid import THRESHOLDS, Grid, GridSums
from det_ls.metrics.table import Bools, DetectionTable, Floats, Ints
from det_ls.metrics.weighted import class_mean, once

FOLDS = 5
FEW_OBJECTS = 20
"""A class with fewer objects in the fitting folds takes the common threshold."""
Kind = Literal["common", "by_class", "fixed"]


@dataclass(frozen=True)
class ThresholdRule:
    """How the boxes that a user keeps are chosen.

    Attributes:
        fold: (I,) fold of each image: images of one group are in one fold.
        miss_cost: What a missed object costs, where a false alarm costs 1.
        kind: ``common``, ``by_class`` or ``fixed``.
        fixed: (C,) thresholds of the kind ``fixed``, chosen elsewhere.
    """

    fold: NDArray[np.integer]
    miss_cost: float = 1.0
    kind: Kind = "common"
    fixed: Floats | None = None

    def cells(self, sums: GridSums) -> Ints:
        """Choose the threshold of each class and fold in R replicates.

        Args:
            sums: Their sums.

        Returns:
            (C, K, R) places in ``THRESHOLDS``; those of a fold were chosen without its images.
        """
        if self.kind == "fixed":
            assert self.fixed is not None
            place = nearest_place(self.fixed)
            return np.broadcast_to(place[:, None, None], sums.objects.shape)
        common, by_class, few = chosen_places(sums, self.miss_cost, held_out=True)
        everywhere = np.broadcast_to(common[None], by_class.shape)
        return everywhere if self.kind == "common" else np.where(few, everywhere, by_class)


@dataclass(frozen=True)
class Thresholds:
    """The thresholds to use on new images, chosen on all images.

    Attributes:
        kind: Which kind does better on images that it was not chosen on, or ``fixed``.
        common: One threshold for all classes.
        by_class: (C,) one threshold a class.
        few: (C,) classes with too few objects for one of their own, which take the common one.
        lrp_common: Cross-fitted LRP error of the common threshold, a miss weighted as in the choice.
        lrp_by_class: The same of one threshold a class.
        pays_off: Whether any threshold beats keeping no box at all.
    """

    kind: Kind
    common: float
    by_class: Floats
    few: Bools
    lrp_common: float
    lrp_by_class: float
    pays_off: bool = True

    @property
    def used(self) -> Floats:
        """(C,) threshold of each class, of the kind that is recommended."""
        return self.by_class if self.kind != "common" else np.full(len(self.by_class), self.common)


def image_folds(group: NDArray[np.integer], seed: int = 0, folds: int = FOLDS) -> Ints:
    """Deal groups of images into folds of about equal numbers of groups.

    Args:
        group: (I,) group of each image, from 0.
        seed: Seed of the deal.
        folds: Number of folds; fewer where there are fewer groups.

    Returns:
        (I,) fold of each image, from 0.

    Example:
        >>> import numpy as np
        >>> sorted(image_folds(np.arange(10), folds=5).tolist())
        [0, 0, 1, 1, 2, 2, 3, 3, 4, 4]
    """
    if not len(group):
        return np.zeros(0, np.int64)
    n = int(group.max()) + 1
    fold = np.empty(n, np.int64)
    fold[np.random.default_rng(seed).permutation(n)] = np.arange(n) % max(1, min(folds, n))
    return fold[group]


def nearest_place(threshold: Floats) -> Ints:
    """Find the thresholds of the grid that keep what some thresholds keep, or a little more.

    Args:
        threshold: Any thresholds in [0, 1].

    Returns:
        Places in ``THRESHOLDS``.
    """
    return np.maximum(np.searchsorted(THRESHOLDS, np.asarray(threshold) + 1e-9, side="right") - 1, 0)


def lrp_curves(sums: GridSums, miss_cost: float, *, held_out: bool) -> tuple[Floats, Floats]:
    """Compute the LRP error of each class at every threshold.

    With the benefit of a true positive, 1 - (1 - IoU) / (1 - tau), LRP is 1 - benefits / (TP + FP + FN).

    Args:
        sums: Sums of R replicates.
        miss_cost: What a missed object costs.
        held_out: For each fold on all other folds, else on all folds together.

    Returns:
        (C, K or 1, T, R) errors, NaN for a class without objects; and (C, K or 1, R) objects.
    """
    benefit, n, tp, objects = (
        _fitted(part, held_out) for part in (sums.above("benefit"), sums.above("n"), sums.above("tp"), sums.objects)
    )
    n -= miss_cost * tp
    n += miss_cost * objects[:, :, None]
    with np.errstate(invalid="ignore", divide="ignore"):
        error = np.divide(benefit, n, out=benefit)
    np.subtract(1, error, out=error)
    error[np.broadcast_to((objects <= 0)[:, :, None], error.shape)] = np.nan
    return error, objects


def _fitted(part: Floats, held_out: bool) -> Floats:
    """Sum over all folds, or for each fold over the others."""
    total = part.sum(1, keepdims=True)
    return np.asarray(total - part) if held_out and part.shape[1] > 1 else total


def chosen_places(sums: GridSums, miss_cost: float, *, held_out: bool) -> tuple[Ints, Ints, Bools]:
    """Choose both candidates.

    Args:
        sums: Sums of R replicates.
        miss_cost: What a missed object costs.
        held_out: For each fold on all other folds, else on all folds together.

    Returns:
        (K, R) common places, (C, K, R) places of each class, and which classes have too few objects for their own; of
        equally good thresholds the highest.
    """
    error, objects = lrp_curves(sums, miss_cost, held_out=held_out)
    known = objects > 0
    error[~np.broadcast_to(known[:, :, None], error.shape)] = 1.0
    total = error.sum(0) - (~known).sum(0)[:, None]
    mean = total / np.maximum(known.sum(0), 1)[:, None]
    return _last_smallest(mean[None])[0], _last_smallest(error), (objects < FEW_OBJECTS) | ~(error < 1).any(2)


def _last_smallest(error: Floats) -> Ints:
    """Find the last smallest error along the thresholds: (C, K, T, R) to (C, K, R)."""
    return error.shape[2] - 1 - np.argmin(np.flip(error, 2), axis=2)


def recommend(
    grid: Grid, *, miss_cost: float = 1.0, kind: Literal["common", "by_class"] | None = None
) -> tuple[ThresholdRule, Thresholds]:
    """Choose thresholds, and by the cross-fitted LRP error whether each class needs its own.

    Args:
        grid: The boxes.
        miss_cost: What a missed object costs.
        kind: The kind, if it is not to be chosen.

    Returns:
        The rule by which the boxes are judged, and the thresholds to use on new images.
    """
    (_, sums), *_ = grid.sums(once(grid.table))
    errors = {}
    for candidate in ("common", "by_class"):
        rule = ThresholdRule(grid.fold, miss_cost, candidate)  # type: ignore[arg-type]
        errors[candidate] = float(class_mean(kept_lrp(sums, rule.cells(sums), miss_cost))[0])
    best: Kind = kind or ("by_class" if errors["by_class"] < errors["common"] else "common")
    common, by_class, few = chosen_places(sums, miss_cost, held_out=False)
    shared = float(THRESHOLDS[common[0, 0]])
    few_of = few[:, 0, 0]
    thresholds = np.where(few_of, shared, THRESHOLDS[by_class[:, 0, 0]])
    pays_off = bool((class_mean(lrp_curves(sums, miss_cost, held_out=False)[0][:, 0, :, 0]) < 1).any())
    found = Thresholds(best, shared, thresholds, few_of, errors["common"], errors["by_class"], pays_off)
    return ThresholdRule(grid.fold, miss_cost, best), found


def fixed_rule(
    table: DetectionTable, threshold: float | Floats, fold: NDArray[np.integer]
) -> tuple[ThresholdRule, Thresholds]:
    """Take thresholds that were chosen elsewhere.

    Args:
        table: Matched detections.
        threshold: One for all classes, or (C,) one a class; rounded down to one of ``THRESHOLDS``.
        fold: (I,) fold of each image, for what else is cross-fitted.

    Returns:
        The rule, and the thresholds.
    """
    of_class = THRESHOLDS[nearest_place(np.broadcast_to(np.asarray(threshold, np.float64), table.n_classes))]
    none = np.zeros(table.n_classes, bool)
    nan = float("nan")
    shared = float(of_class[0]) if len(of_class) else nan
    return ThresholdRule(fold, kind="fixed", fixed=of_class), Thresholds("fixed", shared, of_class, none, nan, nan)


def kept_lrp(sums: GridSums, place: Ints, miss_cost: float = 1.0) -> Floats:
    """Compute the LRP error of the kept boxes of each class.

    Args:
        sums: Sums of R replicates.
        place: (C, K, R) thresholds of each class and fold.
        miss_cost: What a missed object costs, where a false alarm costs 1.

    Returns:
        (C, R) errors, NaN for a class without objects.
    """
    n, tp, benefit = (kept_sums(sums, column, place).sum(1) for column in ("n", "tp", "benefit"))
    objects = sums.objects.sum(1)
    return np.where(objects > 0, 1 - benefit / np.maximum(n + miss_cost * (objects - tp), 1e-9), np.nan)


def kept_sums(sums: GridSums, column: str, place: Ints) -> Floats:
    """Sum a column over the kept boxes.

    Args:
        sums: Sums of R replicates.
        column: The column.
        place: (C, K, R) thresholds of each class and fold.

    Returns:
        (C, K, R) sums.
    """
    return np.take_along_axis(sums.above(column), place[:, :, None], axis=2)[:, :, 0]
