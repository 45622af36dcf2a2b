# SPDX-License-Identifier: AGPL-3.0-or-later
"""Numbers with their bootstrap replicates, all from one pass over weighted images.

Images are drawn with replacement, since detections of one image are not independent of each other; where images come in
groups (slices of a patient, frames of a video), the groups are drawn.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from det_ls.metrics.catalogue import FAMILIES
from det_ls.metrics.kept import KeptPlan, kept_numbers
from det_ls.metrics.number import Population
from det_ls.metrics.table import Floats
from det_ls.metrics.weighted import Progress, Weights


@dataclass(frozen=True)
class Draws:
    """Image weights: every image once, then the replicates.

    Attributes:
        weights: (I, 1 + R) how often each image counts.
        groups: Number of groups that were drawn.
    """

    weights: Weights
    groups: int

    def split(self, values: Floats) -> Sample:
        """Split the estimates of one number.

        Args:
            values: (1 + R,) estimates.

        Returns:
            The number and its replicates.
        """
        return Sample(float(values[0]), values[1:])


@dataclass(frozen=True)
class Sample:
    """One number with what its uncertainty is computed from.

    Attributes:
        value: The number itself, NaN where undefined.
        replicates: (R,) bootstrap replicates.
    """

    value: float
    replicates: Floats

    def __sub__(self, other: Sample) -> Sample:
        """Subtract another detector's number on the same draws."""
        return Sample(self.value - other.value, self.replicates - other.replicates)


def image_weights(
    n_images: int, replicates: int, seed: int, group: NDArray[np.integer] | None = None
) -> NDArray[np.uint16]:
    """Draw bootstrap samples of images.

    Args:
        n_images: Number of images I.
        replicates: Number of samples R.
        seed: Seed of the draws.
        group: (I,) group of each image, from 0; by default each image is its own.

    Returns:
        (I, R) how often each image is in each sample. As many groups are drawn as there are.

    Example:
        >>> image_weights(5, 3, seed=0).sum(0).tolist()
        [5, 5, 5]
    """
    rng = np.random.default_rng(seed)
    n = n_images if group is None or not n_images else int(group.max()) + 1
    weights = np.zeros((n, replicates), np.uint16)
    for r in range(replicates if n_images else 0):
        weights[:, r] = np.bincount(rng.integers(n, size=n), minlength=n)
    return weights if group is None or not n_images else weights[group]


def draw(n_images: int, replicates: int, seed: int, group: NDArray[np.integer] | None = None) -> Draws:
    """Draw replicates.

    Args:
        n_images: Number of images I.
        replicates: Number of bootstrap samples R.
        seed: Seed of the draws.
        group: (I,) group of each image, from 0; by default each image is its own.

    Returns:
        The draws.
    """
    groups = n_images if group is None or not n_images else int(group.max()) + 1
    ones = np.ones((n_images, 1), np.uint16)
    return Draws(np.concatenate([ones, image_weights(n_images, replicates, seed, group)], axis=1), groups)


def sample_numbers(plan: KeptPlan, draws: Draws, *, progress: Progress = iter) -> dict[tuple[Population, str], Sample]:
    """Estimate every number of the catalogue on draws.

    Args:
        plan: The matched detections, and how the kept ones are chosen.
        draws: Image weights.
        progress: Wraps the replicates' numbers, for example in a progress bar.

    Returns:
        Sample by population and key.
    """
    table, rules = plan.grid.table, plan.grid.protocol
    found: dict[tuple[Population, str], Sample] = {}
    for family in FAMILIES:
        overall = family(table, draws.weights, rules, progress=progress).overall
        found |= {("all", key): draws.split(values) for key, values in overall.items()}
    overall = kept_numbers(plan, draws.weights, progress=progress).overall
    return found | {("kept", key): draws.split(values) for key, values in overall.items()}
