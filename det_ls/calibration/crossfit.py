# SPDX-License-Identifier: AGPL-3.0-or-later
"""Calibrate each detection with a map that has not seen its image: what honest before-and-after numbers need."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from det_ls.base.arguments import examples
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


def check_folds(fold: Ints, group: Ints, matched: NDArray[np.bool_], images: Sequence[object]) -> None:
    """Raise unless each fold's map has matches to be fitted on, which are those of the other folds.

    Args:
        fold: (I,) fold of each image.
        group: (I,) its group.
        matched: (I,) whether it has a detection that matches an object.
        images: (I,) what to call it.

    Raises:
        ValueError: If one fold holds all images with matches.

    Example:
        >>> fold, matched = np.array([0, 0, 1, 1]), np.array([True, False, False, False])
        >>> check_folds(fold, np.arange(4), matched, "abcd")
        Traceback (most recent call last):
            ...
        det_ls.base.errors.ArgumentError: folds: expected matched objects outside each fold to fit its map on, got them
        only in fold 1 of 2 with the images 'a', 'b', and need more images with matches.
    """
    names = np.unique(fold).tolist()
    for number, held_out in enumerate(names, 1):
        if matched[fold != held_out].any():
            continue
        own = examples(image for image, of in zip(images, fold.tolist(), strict=True) if of == held_out)
        # More folds cannot part what lies in one group.
        several = len(np.unique(group[matched])) > 1
        raise ArgumentError(
            f"folds: expected matched objects outside each fold to fit its map on, got them only in fold {number} of "
            f"{len(names)} with the images {own}, and need more {'folds or more ' if several else ''}images with "
            "matches."
        )


def cross_fitted(z: Floats, cls: Ints, fold: Ints, fit: Fit) -> Floats:
    """Calibrate every fold by the map of the other folds.

    Args:
        z: (N,) logits.
        cls: (N,) classes.
        fold: (N,) folds.
        fit: Fits a map on the rows that it is given.

    Returns:
        (N,) calibrated scores.

    Raises:
        ValueError: If a map cannot be fitted; the message names the fold that was held out.
    """
    scores = np.empty(len(z))
    names = np.unique(fold)
    for number, held_out in enumerate(names, 1):
        rows = fold == held_out
        try:
            one = fit(np.flatnonzero(~rows))
        except ArgumentError as error:
            reason = str(error).removesuffix(".")
            raise ArgumentError(f"{reason} (with fold {number} of {len(names)} held out).") from error
        scores[rows] = one(z[rows], cls[rows])
    return scores
