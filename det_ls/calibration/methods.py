# SPDX-License-Identifier: AGPL-3.0-or-later
"""Fit any of the maps to matched detections: which rows, which target, which weights."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from det_ls.base.errors import ArgumentError, ArgumentTypeError
from det_ls.calibration.fit import (
    LogisticFit,
    affine_features,
    affine_map,
    converged,
    fit_beta,
    fit_isotonic,
    fit_logistic,
)
from det_ls.calibration.identity import class_shares, identity, pulled, shared_share
from det_ls.calibration.maps import CalibrationMap, Floats, Ints, sigmoid
from det_ls.calibration.pooling import PooledFit, fit_pooled
from det_ls.metrics.table import DetectionTable

METHODS = ("platt", "temperature", "beta", "isotonic")
FOLDING = ("platt", "temperature")
TARGETS = ("iou", "tp")
WEIGHTINGS = ("score", "above", "all")
LOW_SCORE = 0.05
_TAU = {"iou": 0.0, "tp": 0.5}


@dataclass(frozen=True)
class Recipe:
    """What is fitted, and to what.

    Attributes:
        method: ``platt``, ``temperature``, ``beta`` or ``isotonic``.
        target: ``iou`` (that of a true positive at any overlap, else 0) or ``tp`` (1 from IoU 0.5).
        weighting: ``score``: a detection weighs its score, which is the share of the score thresholds from 0 to 1 that
            keep it; ``above``: detections from a score of 0.05 alone; ``all``: all alike.
        per_class: Whether each class has its own map, partially pooled (Platt and temperature only).
        shrink: Whether a map of Platt or temperature scaling is pulled towards the identity as far as the data cannot
            tell it from that (:mod:`det_ls.calibration.identity`); if not it is the plain maximum of the likelihood.
    """

    method: str = "platt"
    target: str = "iou"
    weighting: str = "score"
    per_class: bool = False
    shrink: bool = True

    def __post_init__(self) -> None:
        for name, known in (("method", METHODS), ("target", TARGETS), ("weighting", WEIGHTINGS)):
            if getattr(self, name) not in known:
                raise ArgumentError(f"{name}: expected one of {', '.join(known)}, got {getattr(self, name)!r}.")
        for name in ("per_class", "shrink"):
            if not isinstance(getattr(self, name), bool):
                raise ArgumentTypeError(f"{name}: expected True or False, got {getattr(self, name)!r}.")
        if self.per_class and self.method not in FOLDING:
            raise ArgumentError(f"per_class: expected platt or temperature for maps by class, got {self.method!r}.")


@dataclass(frozen=True)
class Sample:
    """The detections that a map is fitted on, n of them.

    Attributes:
        z: (n,) logits.
        target: (n,) targets in [0, 1].
        weight: (n,) weights above 0.
        cls: (n,) classes from 0.
        group: (n,) groups of images from 0.
        classes: Class names.
    """

    z: Floats
    target: Floats
    weight: Floats
    cls: Ints
    group: Ints
    classes: tuple[str, ...]

    def take(self, rows: Ints) -> Sample:
        """Take some of the rows."""
        return Sample(
            self.z[rows], self.target[rows], self.weight[rows], self.cls[rows], self.group[rows], self.classes
        )

    @property
    def n_matched(self) -> int:
        """Detections with a target above 0."""
        return int((self.target > 0).sum())


@dataclass(frozen=True)
class Fitted:
    """A map and how it was found.

    Attributes:
        map: The map.
        shared: The fit of all classes together; None for beta and isotonic.
        pooled: The fits by class; None for a shared map.
        shares: How much of its distance from the identity the shared map keeps, and after it each class's; 1 where the
            map is as it was fitted.
    """

    map: CalibrationMap
    shared: LogisticFit | None = None
    pooled: PooledFit | None = None
    shares: tuple[float, ...] = ()


def weights(score: Floats, weighting: str) -> Floats:
    """Weigh detections by their score.

    Args:
        score: (N,) scores before calibrating.
        weighting: As in :class:`Recipe`.

    Returns:
        (N,) weights of at least 0.

    Example:
        >>> import numpy as np
        >>> weights(np.array([0.01, 0.5]), "above").tolist()
        [0.0, 1.0]
    """
    if weighting == "score":
        return score
    return (score >= (LOW_SCORE if weighting == "above" else 0.0)).astype(np.float64)


def sample_of(table: DetectionTable, z: Floats, group: Ints, recipe: Recipe) -> tuple[Sample, Ints]:
    """Take the detections that a map is fitted on from a table.

    Args:
        table: Matched detections.
        z: (N,) their logits.
        group: (I,) group of each image, from 0.
        recipe: What is fitted.

    Returns:
        The sample, and (n,) its rows in the table: not ignored, of a class with objects, of a weight above 0.

    Raises:
        ValueError: If no detection of them matches an object.
    """
    matches = table.matches(_TAU[recipe.target])
    weight = weights(sigmoid(z), recipe.weighting)
    rows = np.flatnonzero(matches.kept & table.has_gt[table.cls] & (weight > 0))
    target = matches.tp_iou[rows] if recipe.target == "iou" else matches.tp[rows].astype(np.float64)
    sample = Sample(
        z[rows], target, weight[rows], table.cls[rows].astype(np.int64), group[table.image[rows]], table.class_names
    )
    check_sample(sample)
    return sample, rows


def check_sample(sample: Sample) -> None:
    """Raise unless a sample holds something to fit.

    Raises:
        ValueError: If no detection of it matches an object, or all do so perfectly.
    """
    if not sample.n_matched:
        raise ArgumentError(
            f"predictions: expected detections that match objects to fit a map on, got none among {len(sample.z)}."
        )
    if (sample.target == 1).all():
        raise ArgumentError("predictions: expected some detections that are wrong to fit a map on, got none.")


def fit(sample: Sample, recipe: Recipe) -> Fitted:
    """Fit a map.

    Args:
        sample: The detections.
        recipe: What to fit.

    Returns:
        The map with its fit.

    Raises:
        ValueError: If nothing matches, no map is best (the targets are separable), or a slope is not above 0.
        ImportError: If isotonic regression is asked for without scikit-learn.
    """
    check_sample(sample)
    if recipe.method == "beta":
        return Fitted(fit_beta(sample.z, sample.target, sample.weight))
    if recipe.method == "isotonic":
        return Fitted(fit_isotonic(sample.z, sample.target, sample.weight))
    features = affine_features(sample.z, recipe.method)
    start = identity(len(features))
    shared = fit_logistic(features, sample.target, sample.weight, groups=sample.group, start=start)
    converged(shared, len(sample.z))
    affine_map(shared.theta, recipe.method)  # a slope that turns the ranking is refused, however far it would be pulled
    share = shared_share(shared) if recipe.shrink else 1.0
    if not recipe.per_class:
        return Fitted(affine_map(pulled(shared.theta, share), recipe.method), shared, None, (share,))
    pooled = fit_pooled(features, sample.target, sample.weight, sample.cls, len(sample.classes), sample.group, shared)
    shares = class_shares(pooled) if recipe.shrink else np.ones(len(sample.classes))
    by_class = affine_map(pulled(pooled.theta, shares), recipe.method, sample.classes)
    return Fitted(by_class, shared, pooled, (share, *shares.tolist()))
