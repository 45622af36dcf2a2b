# SPDX-License-Identifier: AGPL-3.0-or-later
"""How alike the images of one group are, and what that costs."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from det_ls.base.errors import ArgumentError
from det_ls.metrics.table import Floats


def intragroup_correlation(values: ArrayLike, codes: ArrayLike) -> float:
    """Estimate the intra-group correlation of a number that each image has (one-way analysis of variance).

    With k groups of n_i images, N in all, and the mean squares between groups (MSB) and within (MSW), it is
    (MSB - MSW) / (MSB + (n0 - 1) MSW) with n0 = (N - sum n_i^2 / N) / (k - 1): the ANOVA estimator for groups of
    unequal sizes, Donner, "A review of inference procedures for the intraclass correlation coefficient in the one-way
    random effects model", International Statistical Review 54 (1986), section 2.

    Args:
        values: (I,) a number of each image, such as its mean score minus its precision; NaN where an image has none,
            which leaves it out.
        codes: (I,) group of each image.

    Returns:
        The correlation, at most 1: 1 where images of a group are the same, about 0 where they are as different as
        others, below 0 where they are more different. NaN where there are fewer than two groups, no group of two
        images, or no two different values.

    Raises:
        ValueError: If the two differ in length.

    Examples:
        >>> round(intragroup_correlation([1, 2, 5, 6, 9], [0, 0, 1, 1, 2]), 4)
        0.9608
    """
    numbers, groups = np.asarray(values, np.float64), np.asarray(codes)
    if numbers.shape != groups.shape or numbers.ndim != 1:
        raise ArgumentError(f"codes: expected one group for each value, got {groups.shape} for {numbers.shape}.")
    defined = ~np.isnan(numbers)
    numbers = numbers[defined]
    _, groups = np.unique(groups[defined], return_inverse=True)
    sizes = np.bincount(groups).astype(np.float64)
    k, n = len(sizes), len(numbers)
    if k < 2 or n == k:
        return float("nan")
    means: Floats = np.bincount(groups, weights=numbers) / sizes
    between = float((sizes * (means - numbers.mean()) ** 2).sum() / (k - 1))
    within = float(((numbers - means[groups]) ** 2).sum() / (n - k))
    size = (n - float((sizes**2).sum()) / n) / (k - 1)
    whole = between + (size - 1) * within
    return (between - within) / whole if whole > 0 else float("nan")


def design_effect(correlation: float, codes: ArrayLike) -> float:
    """Return by how much groups inflate the variance of a mean over images: 1 + (m - 1) rho.

    m is the size of the group of an average image, sum n_i^2 / N (Kish, "Survey Sampling", 1965, section 5.4, for
    groups of unequal sizes).

    Args:
        correlation: Intra-group correlation rho; below 0 counts as 0.
        codes: (I,) group of each image, I at least 1.

    Returns:
        The factor, at least 1; I divided by it is the number of independent images that carry as much information.

    Examples:
        >>> design_effect(0.5, [0, 0, 0, 1, 1, 1])
        2.0
    """
    sizes = np.unique(np.asarray(codes), return_counts=True)[1].astype(np.float64)
    return 1.0 + (float((sizes**2).sum() / sizes.sum()) - 1.0) * max(correlation, 0.0)
