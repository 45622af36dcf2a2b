# SPDX-License-Identifier: AGPL-3.0-or-later
"""Intervals and p-values from bootstrap replicates, corrected for their bias and skewness (BCa).

Efron, "Better bootstrap confidence intervals", JASA 1987. A percentile interval of AP is shifted, since a resample
holds images twice and AP rewards that: it can exclude its own estimate. BCa moves the percentiles by the share of
replicates below the estimate (z0) and by how skewed the number is over the images (the acceleration, from a jackknife).
"""

from __future__ import annotations

from dataclasses import dataclass
from statistics import NormalDist

import numpy as np

from det_ls.metrics.table import Floats

_NORMAL = NormalDist()
_FAR = 1.0  # beyond this z0, the percentiles that BCa asks for lie in the last few replicates
LEAST_REPLICATES = 100


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
        method: ``bca``, ``centred`` (percentiles around the estimate, where BCa has no replicates left to ask) or
            ``percentile``.
    """

    low: float
    high: float
    level: float
    replicates: int
    undefined: int
    of: str
    method: str = "percentile"


def percentile_interval(values: Floats, level: float, of: str = "value") -> Interval | None:
    """Take the central percentiles of replicates.

    Args:
        values: (R,) replicates; NaN where undefined.
        level: Nominal coverage in (0, 1).
        of: What the interval describes, see `Interval`.

    Returns:
        The interval, or None where no replicate is defined.
    """
    known = values[~np.isnan(values)]
    if not len(known):
        return None
    low, high = np.quantile(known, [(1 - level) / 2, (1 + level) / 2])
    return Interval(float(low), float(high), level, len(known), len(values) - len(known), of)


def bca_interval(
    estimate: float, values: Floats, jackknife: Floats, level: float, of: str = "value"
) -> Interval | None:
    """Take the percentiles that BCa corrects for bias and skewness.

    Args:
        estimate: The number itself.
        values: (R,) replicates; NaN where undefined.
        jackknife: (J,) the number without each block of images; NaN where undefined.
        level: Nominal coverage in (0, 1).
        of: What the interval describes, see `Interval`.

    Returns:
        The interval, which holds the estimate; None where no replicate is defined.

    Example:
        >>> import numpy as np
        >>> draws = np.random.default_rng(0).normal(0.5, 0.1, 2000)
        >>> interval = bca_interval(0.5, draws, np.array([0.4, 0.5, 0.6]), 0.95)
        >>> round(interval.low, 1), round(interval.high, 1), interval.method
        (0.3, 0.7, 'bca')
    """
    known = values[~np.isnan(values)]
    if not len(known) or np.isnan(estimate):
        return None
    if np.ptp(known) == 0 and known[0] == estimate:
        return Interval(estimate, estimate, level, len(known), len(values) - len(known), of, "bca")
    z0, acceleration = bias(estimate, known), skewness(jackknife)
    if abs(z0) > _FAR:
        middle = float(np.median(known))
        low, high = np.quantile(known - middle + estimate, [(1 - level) / 2, (1 + level) / 2])
        method = "centred"
    else:
        ends = [(1 - level) / 2, (1 + level) / 2]
        low, high = np.quantile(known, [_corrected(end, z0, acceleration) for end in ends])
        method = "bca"
    low, high = min(float(low), estimate), max(float(high), estimate)
    return Interval(low, high, level, len(known), len(values) - len(known), of, method)


def p_value(estimate: float, values: Floats, jackknife: Floats) -> float:
    """Compute the two-sided p-value of "the number is 0" that belongs to :func:`bca_interval`.

    Args:
        estimate: The number itself, a difference.
        values: (R,) replicates; NaN where undefined.
        jackknife: (J,) the number without each block of images; NaN where undefined.

    Returns:
        The smallest 1 - level at which the interval excludes 0, at least 2 / (R + 1); 1 where nothing is defined.
    """
    known = values[~np.isnan(values)]
    if not len(known) or np.isnan(estimate) or np.ptp(known) == 0:
        return 1.0
    z0, acceleration = bias(estimate, known), skewness(jackknife)
    if abs(z0) > _FAR:
        known, z0, acceleration = known - np.median(known) + estimate, 0.0, 0.0
    below = ((known < 0).sum() + 0.5 * (known == 0).sum() + 0.5) / (len(known) + 1)
    w = _NORMAL.inv_cdf(float(np.clip(below, 1e-9, 1 - 1e-9))) - z0
    z = w / (1 + acceleration * w) - z0 if 1 + acceleration * w > 0 else w - z0
    return float(np.clip(2 * _NORMAL.cdf(-abs(z)), 2 / (len(known) + 1), 1.0))


def bias(estimate: float, values: Floats) -> float:
    """Say how far the estimate lies from the middle of its replicates, in standard normal units (BCa's z0)."""
    below = ((values < estimate).sum() + 0.5 * (values == estimate).sum() + 0.5) / (len(values) + 1)
    return _NORMAL.inv_cdf(float(below))


def skewness(jackknife: Floats) -> float:
    """Compute BCa's acceleration from the jackknife."""
    known = jackknife[~np.isnan(jackknife)]
    if len(known) < 2:
        return 0.0
    away = known.mean() - known
    spread = (away**2).sum() ** 1.5
    return float(np.clip((away**3).sum() / (6 * spread), -0.3, 0.3)) if spread > 0 else 0.0


def _corrected(end: float, z0: float, acceleration: float) -> float:
    z = z0 + _NORMAL.inv_cdf(end)
    shifted = z0 + z / max(1 - acceleration * z, 0.1)
    return _NORMAL.cdf(shifted)
