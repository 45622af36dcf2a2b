# SPDX-License-Identifier: AGPL-3.0-or-later
"""Tests of the mean of paired differences, and how many of them a test needs."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from scipy.special import stdtr

from det_ls.metrics.table import Floats

MOST_EXACT, FLIPS = 16, 20_000
POWER, MOST_SEEDS = 0.8, 200


def two_sided(mean: float, sd: float, n: int, df: int) -> float:
    """Compute the two-sided p-value of a t-test.

    Args:
        mean: Mean of n values.
        sd: Their standard deviation.
        n: How many they are.
        df: Degrees of freedom of ``sd``, at least 1.

    Returns:
        The p-value; where the values do not vary, 1 of a mean of 0, else 0.
    """
    return min(1.0, 2 * above(abs(mean), sd, n, df)) if mean else 1.0


def above(distance: float, sd: float, n: int, df: int) -> float:
    """Compute the one-sided p-value of a t-test: that a true mean of 0 gives at least this one.

    Args:
        distance: Mean of n values, less what they are tested against.
        sd: Their standard deviation.
        n: How many they are.
        df: Degrees of freedom of ``sd``.

    Returns:
        The p-value; 1 without degrees of freedom; where the values do not vary, 0 of a positive distance, else 1.
    """
    if df < 1 or not np.isfinite(sd):
        return 1.0
    if sd <= 1e-12 * abs(distance) or sd == 0:
        return 0.0 if distance > 0 else 1.0
    return float(stdtr(df, -distance / (sd / np.sqrt(n))))


def p_sign_flip(differences: Floats, *, seed: int = 0) -> float:
    """Compute the two-sided p-value of the sign-flip permutation test of a mean of 0.

    Differences that are distributed around 0 without preference are as likely with either sign.

    Args:
        differences: (n,) paired differences.
        seed: Seed of the 20,000 flips that are drawn for more than 16 differences; of fewer all are enumerated.

    Returns:
        The share of sign flips whose mean is at least as far from 0.

    Example:
        >>> p_sign_flip(np.array([0.1, 0.2, 0.3, 0.1, 0.2]))
        0.0625
    """
    n = len(differences)
    if n <= MOST_EXACT:
        sums = _signs(n) @ differences
        return float(np.mean(np.abs(sums) >= abs(differences.sum()) * (1 - 1e-9)))
    sums = np.random.default_rng(seed).choice([-1.0, 1.0], (FLIPS, n)) @ differences
    beyond = int(np.sum(np.abs(sums) >= abs(differences.sum()) * (1 - 1e-9)))
    return (beyond + 1) / (FLIPS + 1)


def seeds_needed(distance: float, sd: float, alpha: float, arms: int = 1, start: int = 2) -> int | None:
    """Count the seeds with which a one-sided paired t-test finds a true difference 4 times in 5.

    Args:
        distance: The true difference from what is tested, above 0.
        sd: Standard deviation of the paired differences.
        alpha: Level of the test, in (0, 1).
        arms: Arms that share ``sd``: with n seeds it has ``arms * (n - 1)`` degrees of freedom.
        start: The fewest seeds to consider, at least 2.

    Returns:
        The seeds; None of more than 200.

    Example:
        >>> seeds_needed(0.02, 0.01, 0.025), seeds_needed(0.01, 0.01, 0.025), seeds_needed(0.001, 0.01, 0.025)
        (5, 10, None)
    """
    from scipy.stats import nct, t

    if sd == 0:
        return start
    if _power(start, distance, sd, alpha, arms, nct, t) >= POWER:
        return start
    low, high = start, MOST_SEEDS
    if _power(high, distance, sd, alpha, arms, nct, t) < POWER:
        return None
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if _power(middle, distance, sd, alpha, arms, nct, t) >= POWER else (middle, high)
    return high


def _power(n: int, distance: float, sd: float, alpha: float, arms: int, nct, t) -> float:  # type: ignore[no-untyped-def]
    df, shift = arms * (n - 1), distance * np.sqrt(n) / sd
    if shift > 30:  # where the noncentral t has no numbers any more, and the power is 1
        return 1.0
    return float(nct.sf(t.isf(alpha, df), df, shift))


@lru_cache(maxsize=MOST_EXACT + 1)
def _signs(n: int) -> Floats:
    """List all (2^n, n) sign flips."""
    signs: Floats = np.where((np.arange(2**n)[:, None] >> np.arange(n)) & 1, -1.0, 1.0)
    return signs
