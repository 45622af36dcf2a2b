# SPDX-License-Identifier: AGPL-3.0-or-later
"""Sums over weighted images: the arithmetic that every number shares.

An image with weight 2 counts as if it were in the set twice. A bootstrap replicate is a vector of image weights, and a
number's value is its replicate at weight 1: there is one estimator a number, and no second formula for its value.
Sums, means and binned errors are linear in the weights up to their last step, so that all replicates come from a few
matrix products.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from det_ls.metrics.table import DetectionTable, Floats, Ints

Progress = Callable[[Iterable[int]], Iterable[int]]
Weights = NDArray[np.integer]
_IMAGES_AT_ONCE = 4096


@dataclass(frozen=True)
class Estimates:
    """What a family of numbers gives for R vectors of image weights.

    Attributes:
        overall: By key, (R,) values, NaN where undefined.
        by_class: By key, (C, R) values of each class, for the numbers that have them.
    """

    overall: dict[str, Floats]
    by_class: dict[str, Floats] = field(default_factory=dict)


def once(table: DetectionTable) -> NDArray[np.uint16]:
    """Weight every image by 1.

    Args:
        table: Matched detections.

    Returns:
        (I, 1) ones, for which every estimator gives the number itself.
    """
    return np.ones((table.n_images, 1), np.uint16)


def dot(sums: NDArray[np.generic], weights: Weights) -> Floats:
    """Weight sums per image, converting few images at a time.

    Args:
        sums: (I, K) sums of each image.
        weights: (I, R) whole numbers.

    Returns:
        (K, R) sums over the weighted images.
    """
    total = np.zeros((sums.shape[1], weights.shape[1]))
    for start in range(0, len(sums), _IMAGES_AT_ONCE):
        part = slice(start, start + _IMAGES_AT_ONCE)
        total += sums[part].T.astype(np.float64) @ weights[part].astype(np.float64)
    return total


def sums_by_place(place: NDArray[np.integer], n: int, *columns: NDArray[Any]) -> Floats:
    """Sum columns over the rows of each place.

    Args:
        place: (N,) places from 0.
        n: Number of places.
        *columns: K arrays of shape (N,).

    Returns:
        (n, K) sums.
    """
    return np.stack([np.bincount(place, weights=c, minlength=n) for c in columns], axis=1)


def binned_sums(place: NDArray[np.integer], n: int, bins: Ints, n_bins: int, values: Floats) -> Floats:
    """Sum values over the rows of each place and bin.

    Args:
        place: (N,) places from 0.
        n: Number of places.
        bins: (N,) bins from 0.
        n_bins: Number of bins B.
        values: (N,) values.

    Returns:
        (n, B) sums.
    """
    sums = np.bincount(place * n_bins + bins, weights=values, minlength=n * n_bins)
    return sums.astype(np.float64).reshape(n, n_bins)


def ratio(total: NDArray[Any], count: NDArray[Any]) -> Floats:
    """Divide; NaN where the count is 0."""
    return np.divide(total, count, out=np.full(np.broadcast_shapes(total.shape, count.shape), np.nan), where=count > 0)


def class_mean(values: Floats) -> Floats:
    """Average (C, R) values over the classes where they are defined."""
    known = ~np.isnan(values)
    return ratio(np.where(known, values, 0.0).sum(0), known.sum(0).astype(np.float64))


def weighted_bins(
    image: NDArray[np.integer], bins: Ints, n_bins: int, columns: list[Floats], weights: Weights
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
    return [dot(binned_sums(place, n, bins, n_bins, column), weights) for column in columns]
