# SPDX-License-Identifier: AGPL-3.0-or-later
"""The numbers of a study over its seeds: means, paired differences, and what holds when all are looked at.

Two numbers are declared in advance (`det_ls.metrics.catalogue.DECLARED`): AP, and ``kept.absolute_gap`` for the
calibration of the kept boxes. Why the gap and neither of its rivals: a Brier score of kept boxes also falls when an arm
keeps fewer and surer boxes, so that between arms with thresholds of their own it does not compare calibration; the
unbiased ``kept.squared_error`` does, and sees errors that cancel each other, but finds only half of the gaps that
``kept.absolute_gap`` finds (docs/statistics.md). So the gap decides, and the squared error can veto.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from enum import Enum

import numpy as np
from scipy.special import stdtrit

from det_ls.metrics.catalogue import DECLARED, KEPT, NUMBERS
from det_ls.metrics.number import Number
from det_ls.studies.mean_tests import p_sign_flip, two_sided
from det_ls.studies.records import Arm, CellResult, Condition, State, Values
from det_ls.uncertainty.multiplicity import holm
from det_ls.uncertainty.paired import Verdict, judge

AP, GAP, SQUARED = "AP", "kept.absolute_gap", "kept.squared_error"
DECLARED_KEYS = tuple(key if population == "all" else f"kept.{key}" for population, key in DECLARED)
UNLIKE = 0.03  # level of the test of whether an arm varies as the others do
LEVEL = 0.95


class Against(str, Enum):
    """What an arm is compared with, always over the same seeds."""

    STOCK = "stock"
    """The arm against stock, both as they were trained."""
    RIVAL = "stock + Platt"
    """The arm as it was trained against stock with a Platt map."""
    CALIBRATED = "both with Platt"
    """The arm with a Platt map against stock with one."""


@dataclass(frozen=True)
class SeedMean:
    """One number of one arm over its seeds.

    Attributes:
        values: Value by seed, of the runs that define it.
        mean: Their mean.
        sd: Their standard deviation (n - 1), NaN of fewer than two.
        low: Lower end of the 95% t-interval, NaN of fewer than two.
        high: Upper end.
    """

    values: Mapping[int, float]
    mean: float
    sd: float
    low: float
    high: float

    @property
    def n(self) -> int:
        """Number of seeds."""
        return len(self.values)


@dataclass(frozen=True)
class SeedDifference:
    """One number of two arms, paired by seed: only seeds that both define count.

    Attributes:
        key: Name of the number, with ``kept.`` before it where it counts kept boxes.
        values: Difference by seed.
        mean: Their mean.
        sd: Their standard deviation (n - 1), NaN of fewer than two.
        low: Lower end of the 95% t-interval, NaN of fewer than two.
        high: Upper end.
        p: Two-sided p-value of the paired t-test; 1 of fewer than two.
        p_flip: Two-sided p-value of the sign-flip permutation test, exact up to 16 seeds. Of n seeds it is at least
            2 / 2^n, so that fewer than six never reach 5%; it stands beside ``p`` and does not decide.
        common_sd: Standard deviation of such a difference that all arms of the condition share, from the residuals of
            arms and seeds; ``sd`` where there is one arm.
        df: Degrees of freedom of ``common_sd``.
        unlike: Whether ``sd`` is larger than what the other arms share by more than chance (F-test at 3%).
        adjusted: P-value adjusted for all arms and numbers that were not declared (Holm 1979); of a declared number
            ``p`` itself, None of one that is not judged.
        declared: Whether the number was declared in advance.
        verdict: Whether there is a difference, and for the better or not.
    """

    key: str
    values: Mapping[int, float]
    mean: float
    sd: float
    low: float
    high: float
    p: float
    p_flip: float
    common_sd: float
    df: int
    adjusted: float | None = None
    unlike: bool = False
    declared: bool = False
    verdict: Verdict = Verdict.UNJUDGED

    @property
    def n(self) -> int:
        """Number of pairs."""
        return len(self.values)


@dataclass(frozen=True)
class ArmNumbers:
    """The numbers of one arm under one condition.

    Attributes:
        arm: The arm.
        done: Seeds of its finished cells.
        failed: Seeds of its failed ones.
        val: Numbers on the validation split.
        train: Numbers on the training split.
        platt: Numbers on the validation split with a Platt map.
        overfit: Train minus val.
        against: Differences to stock; empty of stock itself.
    """

    arm: Arm
    done: tuple[int, ...]
    failed: tuple[int, ...]
    val: Mapping[str, SeedMean]
    train: Mapping[str, SeedMean]
    platt: Mapping[str, SeedMean]
    overfit: Mapping[str, SeedMean]
    against: Mapping[Against, Mapping[str, SeedDifference]]


@dataclass(frozen=True)
class ConditionNumbers:
    """The numbers of all arms under one condition.

    Attributes:
        condition: The condition.
        stock: The numbers of stock; None where no stock cell is planned.
        arms: Those of the smoothed arms, in the order of the study.
        platt_gain: What the Platt map changes of stock: stock with the map minus stock without.
    """

    condition: Condition
    stock: ArmNumbers | None
    arms: tuple[ArmNumbers, ...]
    platt_gain: Mapping[str, SeedDifference]


def study_numbers(results: Sequence[CellResult]) -> tuple[ConditionNumbers, ...]:
    """Compute the numbers of a study over its seeds.

    Args:
        results: Its cells, finished or not.

    Returns:
        The numbers by condition, in the order of the cells.
    """
    return tuple(_condition(c, results) for c in dict.fromkeys(r.cell.condition for r in results))


def number_of_key(key: str) -> Number | None:
    """Look a number up in the catalogue.

    Args:
        key: Its name, with ``kept.`` before it where it counts kept boxes.

    Returns:
        What is known of it; None for a name that is not in the catalogue.
    """
    return KEPT.get(key[5:]) if key.startswith("kept.") else NUMBERS.get(key)


def seed_mean(values: Mapping[int, float]) -> SeedMean:
    """Compute a mean over seeds with Student's t-interval.

    Args:
        values: Value by seed, at least one.

    Returns:
        The mean.

    Example:
        >>> found = seed_mean({0: 1.0, 1: 2.0, 2: 3.0})
        >>> round(found.mean, 3), round(found.low, 3), round(found.high, 3)
        (2.0, -0.484, 4.484)
    """
    x = np.array(list(values.values()), np.float64)
    mean, n = float(x.mean()), len(x)
    if n < 2:
        return SeedMean(values, mean, np.nan, np.nan, np.nan)
    sd = float(x.std(ddof=1))
    half = float(stdtrit(n - 1, (1 + LEVEL) / 2) * sd / np.sqrt(n))
    return SeedMean(values, mean, sd, mean - half, mean + half)


def seed_difference(
    key: str, a: Mapping[int, float], b: Mapping[int, float], common: tuple[float, int] | None = None
) -> SeedDifference:
    """Compare two arms in one number.

    Args:
        key: Name of the number.
        a: Value by seed of the first arm.
        b: Value by seed of the second arm; at least one seed is in both.
        common: Standard deviation of a difference, and its degrees of freedom, where several arms share it.

    Returns:
        The difference, ``b - a``, without adjustment and verdict.

    Example:
        >>> found = seed_difference("AP", {0: 0.1, 1: 0.2, 2: 0.3}, {0: 0.15, 1: 0.24, 2: 0.36})
        >>> round(found.mean, 3), round(found.low, 3), round(found.high, 3), round(found.p, 3), found.p_flip
        (0.05, 0.025, 0.075, 0.013, 0.25)
    """
    values = {seed: b[seed] - a[seed] for seed in a if seed in b}
    about = seed_mean(values)
    p, n = 1.0, len(values)
    if n > 1:
        p = two_sided(about.mean, about.sd, n, n - 1)
    sd, df = common or (about.sd, n - 1)
    flip = p_sign_flip(np.array(list(values.values())))
    return SeedDifference(key, values, about.mean, about.sd, about.low, about.high, p, flip, sd, df)


def common_sd(arms: Sequence[Mapping[int, float]]) -> tuple[float, int] | None:
    """Estimate the standard deviation of a paired difference that all arms share.

    Of the additive model value = arm + seed + residual (a randomised block design with the seed as the block), the
    difference of two arms of one seed varies by the square root of 2 times the residuals' variance. Of k + 1 arms and n
    seeds that are complete it has k (n - 1) degrees of freedom, where each difference alone has n - 1.

    Args:
        arms: Value by seed of each arm, the one that they are compared with among them.

    Returns:
        The standard deviation and its degrees of freedom; None where there are none.

    Example:
        >>> sd, df = common_sd([{0: 1.0, 1: 2.0, 2: 3.0}, {0: 1.5, 1: 2.4, 2: 3.6}])
        >>> round(sd, 3), df
        (0.1, 2)
    """
    seeds = list(dict.fromkeys(seed for arm in arms for seed in arm))
    place = {seed: i for i, seed in enumerate(seeds)}
    y = np.full((len(arms), len(seeds)), np.nan)
    for row, arm in zip(y, arms, strict=True):
        for seed, value in arm.items():
            row[place[seed]] = value
    known = ~np.isnan(y)
    if known.all():
        rest = y - y.mean(1, keepdims=True) - y.mean(0) + y.mean()
        df = (len(arms) - 1) * (len(seeds) - 1)
    else:
        a, s = np.nonzero(known)
        model = np.concatenate([np.eye(len(arms))[a], np.eye(len(seeds))[s]], axis=1)
        found, _, rank, _ = np.linalg.lstsq(model, y[known], rcond=None)
        rest, df = y[known] - model @ found, int(known.sum() - rank)
    return (float(np.sqrt(2 * (rest**2).sum() / df)), df) if df > 0 else None


def _condition(condition: Condition, results: Sequence[CellResult]) -> ConditionNumbers:
    here = [r for r in results if r.cell.condition == condition]
    arms = {arm: _arm(arm, here) for arm in dict.fromkeys(_as_compared(r.cell.arm) for r in here)}
    stock = next((numbers for arm, numbers in arms.items() if arm.stock), None)
    others = [numbers for arm, numbers in arms.items() if not arm.stock]
    if stock is None:
        return ConditionNumbers(condition, None, tuple(others), {})
    sides = {
        Against.STOCK: (stock.val, [a.val for a in others]),
        Against.RIVAL: (stock.platt, [a.val for a in others]),
        Against.CALIBRATED: (stock.platt, [a.platt for a in others]),
    }
    found = {against: _differences(*side) for against, side in sides.items()}
    compared = tuple(
        replace(a, against={against: rows[i] for against, rows in found.items()}) for i, a in enumerate(others)
    )
    gain = _differences(stock.val, [stock.platt])[0]
    return ConditionNumbers(condition, stock, compared, gain)


def _as_compared(arm: Arm) -> Arm:
    """Make one arm of all that train without smoothing, whatever their mode."""
    return Arm() if arm.stock else arm


def _arm(arm: Arm, here: Sequence[CellResult]) -> ArmNumbers:
    cells = [r for r in here if _as_compared(r.cell.arm) == arm]
    done = {r.cell.seed: r.measured for r in cells if r.state is State.DONE and r.measured is not None}
    failed = tuple(r.cell.seed for r in cells if r.state is State.FAILED)
    val, train, platt = (
        _means({seed: getattr(m, split) for seed, m in done.items()}) for split in ("val", "train", "platt")
    )
    overfit = {}
    for key in train:
        both = {s: v - val[key].values[s] for s, v in train[key].values.items() if key in val and s in val[key].values}
        if both:
            overfit[key] = seed_mean(both)
    return ArmNumbers(arm, tuple(done), failed, val, train, platt, overfit, {})


def _means(by_seed: Mapping[int, Values]) -> dict[str, SeedMean]:
    keys = dict.fromkeys(key for values in by_seed.values() for key in values)
    found = {}
    for key in keys:
        known = {seed: float(v[key]) for seed, v in by_seed.items() if v.get(key) is not None and np.isfinite(v[key])}
        if known:
            found[key] = seed_mean(known)
    return found


def _differences(
    control: Mapping[str, SeedMean], arms: Sequence[Mapping[str, SeedMean]]
) -> list[dict[str, SeedDifference]]:
    """Compare arms with what they are compared with, and judge the differences."""
    found: list[dict[str, SeedDifference]] = [{} for _ in arms]
    for key, stock in control.items():
        sides = [(i, arm[key].values) for i, arm in enumerate(arms) if key in arm]
        sides = [(i, values) for i, values in sides if stock.values.keys() & values.keys()]
        common = common_sd([stock.values, *(values for _, values in sides)]) if len(sides) > 1 else None
        for i, values in sides:
            one = seed_difference(key, stock.values, values, common)
            rest = [v for j, v in sides if j != i]
            found[i][key] = replace(one, unlike=_unlike(one, common_sd([stock.values, *rest]) if rest else None))
    abouts = {key: number_of_key(key) for key in control}
    others = holm(
        {
            (i, key): one.p
            for i, row in enumerate(found)
            for key, one in row.items()
            if key not in DECLARED_KEYS and one.n > 1 and (about := abouts[key]) is not None and about.verdict
        }
    )
    return [
        {key: _judged(one, abouts[key], others.get((i, key))) for key, one in row.items()}
        for i, row in enumerate(found)
    ]


def _unlike(one: SeedDifference, others: tuple[float, int] | None) -> bool:
    """Say whether an arm varies more than the others by more than chance (one-sided F-test of two variances).

    The others are compared without the arm: one wild arm of six lifts what all six share by so much that it hides.
    """
    from scipy.stats import f

    if others is None or one.n < 2 or not others[0] > 0:
        return False
    return bool(one.sd**2 > others[0] ** 2 * f.isf(UNLIKE, one.n - 1, others[1]))


def _judged(one: SeedDifference, about: Number | None, adjusted: float | None) -> SeedDifference:
    declared = one.key in DECLARED_KEYS
    adjusted = one.p if declared and one.n > 1 else adjusted
    verdict = Verdict.UNJUDGED if about is None else judge(about, one.mean, adjusted, 1 - LEVEL)
    return replace(one, adjusted=adjusted, declared=declared, verdict=verdict)
