# SPDX-License-Identifier: AGPL-3.0-or-later
"""Calibration errors and proper scores of detections, as pure functions of flat arrays.

A detection has a score in [0, 1] and a target in [0, 1] that the score is meant to predict: 1 for a true positive and 0
for a false one, or the IoU of a true positive and 0 for a false one. Every function returns NaN where its number is
undefined, for example without detections.

D-ECE: Kueppers et al., "Multivariate confidence calibration for object detection", CVPR workshops 2020. LaECE and
LaACE: Kuzucu et al., "On calibration of object detectors: pitfalls, evaluation and baselines", ECCV 2024.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

DECE_BINS = 20
LAECE_BINS = 25
_EPS = float(np.finfo(np.float64).eps)
Closed = Literal["right", "left"]


@dataclass(frozen=True)
class Reliability:
    """A reliability diagram's data, B bins of the score.

    Attributes:
        edges: (B + 1,) edges of the bins.
        count: (B,) detections in each bin.
        mean_score: (B,) their mean score, NaN in an empty bin.
        mean_target: (B,) their mean target, NaN in an empty bin.
    """

    edges: Floats
    count: Ints
    mean_score: Floats
    mean_target: Floats

    @property
    def error(self) -> float:
        """Expected calibration error: the bins' absolute gaps, weighted by their counts."""
        return _weighted_mean(np.abs(np.nan_to_num(self.mean_score - self.mean_target)), self.count)


def bin_index(score: ArrayLike, bins: int, *, closed: Closed = "right") -> Ints:
    """Sort scores into equal-width bins of [0, 1].

    Args:
        score: (N,) scores in [0, 1].
        bins: Number of bins.
        closed: ``right`` for bins (a, b] with the first one closed at 0 too, ``left`` for [a, b) with the last one
            closed at 1.

    Returns:
        (N,) bin of each score, from 0.

    Example:
        >>> bin_index([0.0, 0.05, 0.5, 1.0], 20).tolist()
        [0, 0, 9, 19]
        >>> bin_index([0.0, 0.05, 0.5, 1.0], 20, closed="left").tolist()
        [0, 1, 10, 19]
    """
    edges = np.linspace(0.0, 1.0, bins + 1)
    side: Literal["left", "right"] = "left" if closed == "right" else "right"
    return np.clip(np.searchsorted(edges, np.asarray(score), side=side) - 1, 0, bins - 1)


def reliability(score: ArrayLike, target: ArrayLike, *, bins: int = DECE_BINS, closed: Closed = "right") -> Reliability:
    """Bin scores and average score and target in each bin.

    Args:
        score: (N,) scores in [0, 1].
        target: (N,) targets in [0, 1].
        bins: Number of equal-width bins.
        closed: Which end of a bin belongs to it, see `bin_index`.

    Returns:
        The diagram's data; its ``error`` is D-ECE with the score as the only feature
        (Kueppers et al. 2020).

    Example:
        >>> reliability([0.25, 0.25, 0.75, 0.75], [0.0, 1.0, 1.0, 1.0], bins=2).error
        0.25
    """
    s, y = np.asarray(score, np.float64), np.asarray(target, np.float64)
    where = bin_index(s, bins, closed=closed)
    count = np.bincount(where, minlength=bins)
    mean_score, mean_target = (_divide(np.bincount(where, weights=v, minlength=bins), count) for v in (s, y))
    return Reliability(np.linspace(0.0, 1.0, bins + 1), count, mean_score, mean_target)


def equal_mass_reliability(
    score: ArrayLike, target: ArrayLike, *, bins: int = DECE_BINS, ties: Literal["mean", "order"] = "mean"
) -> Reliability:
    """Bin scores into bins that hold equally many detections.

    The sorted scores are split as `numpy.array_split` does: bins differ by one detection at most.

    Args:
        score: (N,) scores in [0, 1].
        target: (N,) targets in [0, 1].
        bins: Number of bins; bins stay empty when there are fewer detections.
        ties: Where a bin ends amid equal scores, ``mean`` shares their targets out evenly, so that the order of the
            detections changes nothing; ``order`` keeps the order in which they come.

    Returns:
        The diagram's data; the edges are the smallest score of each bin and then the largest of all.

    Example:
        >>> equal_mass_reliability([0.1, 0.2, 0.8, 0.9], [0.0, 0.0, 1.0, 1.0], bins=2).count.tolist()
        [2, 2]
    """
    s, y = np.asarray(score, np.float64), np.asarray(target, np.float64)
    order = np.argsort(s, kind="stable")
    s, y = s[order], y[order]
    if ties == "mean" and len(s):
        _, group, sizes = np.unique(s, return_inverse=True, return_counts=True)
        y = (np.bincount(group, weights=y) / sizes)[group]
    ends = equal_mass_ends(len(s), bins)
    starts = np.concatenate([[0], ends[:-1]]).astype(np.int64)
    count = (ends - starts).astype(np.int64)
    if not len(s):
        empty = np.full(bins, np.nan)
        return Reliability(np.linspace(0.0, 1.0, bins + 1), count, empty, empty)
    mean_score, mean_target = (
        _divide(np.diff(running_sums(v)[np.concatenate([[0], ends]).astype(np.int64)]), count) for v in (s, y)
    )
    edges = np.append(s[np.minimum(starts, len(s) - 1)], s[-1])
    return Reliability(edges, count, mean_score, mean_target)


def equal_mass_ends(n: float, bins: int) -> Floats:
    """Place the ends of equal-mass bins as `numpy.array_split` does.

    Args:
        n: Number of detections.
        bins: Number of bins.

    Returns:
        (bins,) number of detections at or before the end of each bin.

    Example:
        >>> equal_mass_ends(7, 3).tolist()
        [3.0, 5.0, 7.0]
    """
    size, longer = divmod(int(n), bins)
    place = np.arange(1, bins + 1)
    return (place * size + np.minimum(place, longer)).astype(np.float64)


def running_sums(values: Floats) -> Floats:
    """Sum up to before each place, and to the end.

    Args:
        values: (N,) values.

    Returns:
        (N + 1,) sums; the difference of two of them is the sum between their places.

    Example:
        >>> import numpy as np
        >>> running_sums(np.array([1.0, 2.0, 4.0])).tolist()
        [0.0, 1.0, 3.0, 7.0]
    """
    return np.concatenate([[0.0], np.cumsum(values)])


def signed_gap(score: ArrayLike, target: ArrayLike) -> float:
    """Compute mean score minus mean target: above 0 for over-confident scores, below 0 for under-confident ones.

    Args:
        score: (N,) scores in [0, 1].
        target: (N,) targets in [0, 1].

    Returns:
        The gap in [-1, 1].

    Example:
        >>> signed_gap([0.75, 0.75], [1.0, 0.0])
        0.25
    """
    return _mean(np.asarray(score, np.float64) - np.asarray(target, np.float64))


def brier_score(score: ArrayLike, target: ArrayLike) -> float:
    """Compute the mean squared difference of score and target.

    Args:
        score: (N,) scores in [0, 1].
        target: (N,) targets in [0, 1].

    Returns:
        The Brier score in [0, 1].

    Example:
        >>> brier_score([0.5, 1.0], [1, 1])
        0.125
    """
    return _mean((np.asarray(score, np.float64) - np.asarray(target, np.float64)) ** 2)


def log_losses(score: ArrayLike, target: ArrayLike) -> Floats:
    """Compute the negative log-likelihood of each target.

    Args:
        score: (N,) scores, clipped to [eps, 1 - eps] with float64's machine epsilon.
        target: (N,) targets in [0, 1].

    Returns:
        (N,) losses in nats.
    """
    p = np.clip(np.asarray(score, np.float64), _EPS, 1 - _EPS)
    y = np.asarray(target, np.float64)
    return -(y * np.log(p) + (1 - y) * np.log1p(-p))


def negative_log_likelihood(score: ArrayLike, target: ArrayLike) -> float:
    """Compute the mean negative log-likelihood of the targets.

    Args:
        score: (N,) scores, clipped to [eps, 1 - eps] with float64's machine epsilon, 2.2e-16.
        target: (N,) targets, 0 or 1.

    Returns:
        The mean loss in nats.

    Example:
        >>> round(negative_log_likelihood([0.5, 0.5], [1, 0]), 6)
        0.693147
    """
    return _mean(log_losses(score, target))


def auroc(score: ArrayLike, positive: ArrayLike) -> float:
    """Compute the probability that a true positive outscores a false one; an equal score counts half.

    Args:
        score: (N,) scores.
        positive: (N,) whether a detection is a true positive.

    Returns:
        The area under the ROC curve; NaN unless both kinds are present.

    Example:
        >>> auroc([0.9, 0.8, 0.8, 0.1], [True, True, False, False])
        0.875
    """
    s, y = np.asarray(score, np.float64), np.asarray(positive, bool)
    n_pos, n_neg = int(y.sum()), int((~y).sum())
    if not n_pos or not n_neg:
        return float("nan")
    _, group = np.unique(s, return_inverse=True)
    pos, neg = np.bincount(group, weights=y), np.bincount(group, weights=~y)
    return float(np.dot(pos, np.cumsum(neg) - neg / 2) / n_pos / n_neg)


def _mean(values: Floats) -> float:
    return float(values.mean()) if len(values) else float("nan")


def _divide(total: NDArray[Any], count: NDArray[np.integer]) -> Floats:
    """Divide where the count is not 0; NaN elsewhere."""
    return np.divide(total, count, out=np.full(np.shape(total), np.nan), where=count > 0)


def _weighted_mean(values: Floats, weights: NDArray[np.integer]) -> float:
    total = weights.sum()
    return float(np.dot(values, weights) / total) if total else float("nan")
