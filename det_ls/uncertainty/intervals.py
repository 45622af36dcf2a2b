# SPDX-License-Identifier: AGPL-3.0-or-later
"""Intervals and p-values from bootstrap replicates, placed around the estimate.

A plain percentile interval can exclude its own estimate: a resample holds images twice, which AP rewards, and
thresholds that are chosen anew move all replicates to one side. Here the replicates say how far a number varies, and
the estimate says where it lies: the percentiles are taken around it. Of AP and oLRP, which are optimistic on few
images, the bias that the replicates show is taken off as well. Efron's BCa, the usual remedy, was tried and found too
narrow for numbers whose thresholds are chosen anew (docs/statistics.md).
"""

from __future__ import annotations

from dataclasses import dataclass
from statistics import NormalDist

import numpy as np

from det_ls.metrics.table import Floats

LEAST_REPLICATES = 100
_ROUNDING = 1e-12
_FEW = 5  # replicates beyond zero, below which their number says too little


@dataclass(frozen=True)
class Interval:
    """A bootstrap interval.

    Attributes:
        low: Lower end.
        high: Upper end.
        level: Nominal coverage in (0, 1).
        replicates: Replicates in which the number was defined.
        undefined: Replicates in which it was not.
        of: ``value``, or ``estimator`` for a binned error, which is biased upwards: the interval then says how much the
            estimate varies, not where the detector's true error lies.
    """

    low: float
    high: float
    level: float
    replicates: int
    undefined: int
    of: str


def bootstrap_interval(
    estimate: float, values: Floats, level: float, of: str = "value", *, remove_bias: bool = False
) -> Interval | None:
    """Take the percentiles of replicates around the estimate.

    Args:
        estimate: The number itself.
        values: (R,) replicates; NaN where undefined.
        level: Nominal coverage in (0, 1).
        of: What the interval describes, see `Interval`.
        remove_bias: Whether to take the bias that the replicates show off the estimate.

    Returns:
        The interval, which always holds the estimate; None where nothing is defined.

    Example:
        >>> import numpy as np
        >>> shifted = np.random.default_rng(0).normal(0.6, 0.1, 2000)
        >>> interval = bootstrap_interval(0.5, shifted, 0.95)
        >>> round(interval.low, 1), round(interval.high, 1)
        (0.3, 0.7)
    """
    known = values[~np.isnan(values)]
    if not len(known) or np.isnan(estimate):
        return None
    around = _around(estimate, known, remove_bias)
    low, high = np.quantile(around, [(1 - level) / 2, (1 + level) / 2])
    return Interval(
        min(float(low), estimate), max(float(high), estimate), level, len(known), len(values) - len(known), of
    )


def has_spread(values: Floats) -> bool:
    """Say whether replicates differ by more than rounding; percentiles of equal ones are no interval.

    Args:
        values: (R,) replicates; NaN where undefined.

    Returns:
        Whether any two that are defined differ.
    """
    known = values[~np.isnan(values)]
    return bool(len(known)) and float(np.ptp(known)) > _ROUNDING * max(1.0, float(np.abs(known).max()))


def wilson_interval(share: float, n: int, level: float) -> tuple[float, float]:
    """Compute the score interval of a proportion (Wilson 1927), which has a width also at 0 and 1.

    Args:
        share: The proportion in [0, 1].
        n: How many independent cases it is of, at least 1.
        level: Nominal coverage in (0, 1).

    Returns:
        Lower and upper end in [0, 1].

    Example:
        >>> low, high = wilson_interval(1.0, 15, 0.95)
        >>> round(low, 4), high
        (0.7961, 1.0)
    """
    z = NormalDist().inv_cdf((1 + level) / 2)
    middle = share + z * z / (2 * n)
    half = z * np.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    low, high = ((middle + end) / (1 + z * z / n) for end in (-half, half))
    return min(max(float(low), 0.0), share), max(min(float(high), 1.0), share)


def p_value(estimate: float, values: Floats, *, remove_bias: bool = False) -> float:
    """Compute the two-sided p-value of "the number is 0" that belongs to :func:`bootstrap_interval`.

    Where almost no replicate lies beyond 0, their number says too little; a normal distribution of their spread then
    says how far 0 lies.

    Args:
        estimate: The number itself, a difference.
        values: (R,) replicates; NaN where undefined.
        remove_bias: As in :func:`bootstrap_interval`.

    Returns:
        The p-value in (0, 1]; 1 where nothing is defined or nothing varies.

    Example:
        >>> import numpy as np
        >>> round(p_value(0.1, np.random.default_rng(0).normal(0.1, 0.1, 20_000)), 1)
        0.3
    """
    known = values[~np.isnan(values)]
    if not len(known) or np.isnan(estimate) or np.ptp(known) == 0:
        return 1.0
    around = _around(estimate, known, remove_bias)
    below, above = int((around <= 0).sum()), int((around >= 0).sum())
    beyond = min(below, above)
    p = min(1.0, 2 * (beyond + 1) / (len(around) + 1))
    if beyond < _FEW:
        p = min(p, 1e-12 + 2 * NormalDist().cdf(-abs(float(around.mean())) / float(around.std())))
    return p


def _around(estimate: float, known: Floats, remove_bias: bool) -> Floats:
    """Move replicates so that their middle is the estimate, or the estimate without its bias."""
    bias = float(np.median(known)) - estimate
    return known - (2 * bias if remove_bias else bias)
