# SPDX-License-Identifier: AGPL-3.0-or-later
"""Calibrate each detection with a map that has not seen its image: what honest before-and-after numbers need."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from det_ls.base.errors import ArgumentError
from det_ls.calibration.maps import Floats, Ints
from det_ls.metrics.thresholds import FOLDS, image_folds

Fit = Callable[[Ints], Callable[[Floats, Ints], Floats]]


def folds_by_group(groups: Ints, folds: int = FOLDS, seed: int = 0) -> Ints:
    """Deal groups into folds at random, a whole group into one fold.

    Args:
        groups: (N,) groups from 0.
        folds: Number of folds; as many as there are groups at most.
        seed: Seed of the deal.

    Returns:
        (N,) fold of each row.

    Raises:
        ValueError: If there are fewer than two groups or folds.

    Example:
        >>> fold = folds_by_group(np.array([0, 0, 1, 1, 2]), folds=3)
        >>> bool(fold[0] == fold[1] and fold[2] == fold[3])
        True
    """
    n_groups = int(groups.max()) + 1 if len(groups) else 0
    if n_groups < 2:
        raise ArgumentError(f"groups: expected at least 2 images or groups to cross-fit over, got {n_groups}.")
    if folds < 2:
        raise ArgumentError(f"folds: expected at least 2, got {folds}.")
    return image_folds(groups, seed, folds)


def cross_fitted(z: Floats, cls: Ints, fold: Ints, fit: Fit) -> Floats:
    """Calibrate every fold by the map of the other folds.

    Args:
        z: (N,) logits.
        cls: (N,) classes.
        fold: (N,) folds.
        fit: Fits a map on the rows that it is given.

    Returns:
        (N,) calibrated scores.
    """
    scores = np.empty(len(z))
    for held_out in np.unique(fold):
        rows = fold == held_out
        scores[rows] = fit(np.flatnonzero(~rows))(z[rows], cls[rows])
    return scores
