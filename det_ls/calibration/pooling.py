# SPDX-License-Identifier: AGPL-3.0-or-later
"""Partial pooling: each class's map, shrunk towards that of all classes the more the less its own detections say.

The logarithm of a class's slope and its offset are a draw from a normal distribution (empirical Bayes: Efron and Morris
1975). How much classes differ, its covariance, is not known; taking an estimate of it as known makes intervals too
short (Morris 1983), and where the likelihood is largest at 0 it makes all classes one. So it is integrated over, on a
grid of standard deviations and correlations: the restricted likelihood of the classes' estimates (the distribution's
mean is integrated out too) times a prior that is flat in the variances, whose intervals hold their rate (Morris and
Tang 2011). A class of 5 boxes then gets about the map of all classes, and one of 5,000 its own.

Of the detections the grid needs K gradients and matrices of D x D only: a class's likelihood is expanded to second
order, and its gradient's variance follows from a variance function that all classes share, which the squared residuals
give (an IoU varies less than a coin of the same mean, the more so near 0, and weights are no counts). A box that moves
its class's fit much counts for more in it (HC3: MacKinnon and White 1985), as groups do in the shared fit.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
from scipy.special import ndtri

from det_ls.base.errors import ArgumentError
from det_ls.calibration.fit import LogisticFit, fit_logistic
from det_ls.calibration.maps import Floats, Ints, sigmoid

ROUNDS = 3  # classes given the prior, then the prior given the classes: settles at once
DEVIATIONS = np.geomspace(0.02, 2.0, 11)  # of log slopes and of offsets: from hardly any to beyond all that is met
CORRELATIONS = np.array([-0.9, -0.6, -0.3, 0.0, 0.3, 0.6, 0.9])
_START = np.array([0.1, 0.2])  # standard deviations of the first round
_BINS = 20  # of the variance function
_FLATTEST = 0.25  # of the mean slope: where a class that ranks its boxes the wrong way is expanded


@dataclass(frozen=True)
class PooledFit:
    """Fits of K classes that lend each other strength.

    Attributes:
        theta: (K, D) parameters by class: the slope, above 0, and the offset where there is one.
        covariance: (K, D, D) posterior covariance of each class's log slope and offset, in which it is counted that
            their mean and covariance over classes were estimated.
        own: (K,) share of a class's own fit in its log slope, from 0 (the mean's) to 1 (its own).
        mean: (D,) parameters at the mean over classes: of classes, where the shared fit is one of detections.
        prior: (D, D) expected covariance of log slope and offset over classes.
        known: (K, D, D) what a class's own boxes know of its log slope and offset: the inverse covariance of its fit.
        shared: The fit of all classes together.
        n: (K,) detections by class.
    """

    theta: Floats
    covariance: Floats
    own: Floats
    mean: Floats
    prior: Floats
    known: Floats
    shared: LogisticFit
    n: Ints

    def interval(self, level: float = 0.95) -> Floats:
        """Give an interval of each parameter.

        Args:
            level: Nominal coverage over classes, in (0, 1).

        Returns:
            (K, D, 2) lower and upper ends.
        """
        width = ndtri(0.5 + level / 2) * np.sqrt(np.diagonal(self.covariance, axis1=1, axis2=2))
        ends = _log_slope(self.theta)[..., None] + width[..., None] * np.array([-1.0, 1.0])
        ends[:, 0] = np.exp(ends[:, 0])
        return np.asarray(ends, np.float64)


def fit_pooled(
    features: Sequence[Floats],
    target: Floats,
    weight: Floats | None,
    cls: Ints,
    n_classes: int,
    groups: Ints | None = None,
    shared: LogisticFit | None = None,
) -> PooledFit:
    """Fit each class with an empirical-Bayes prior around the mean of the classes.

    Args:
        features: D arrays of N values, D being 1 (the logits) or 2 (and ones).
        target: (N,) targets in [0, 1].
        weight: (N,) weights; 1 if None.
        cls: (N,) classes from 0.
        n_classes: Number of classes K.
        groups: (N,) groups from 0 within which detections may depend on each other.
        shared: The shared fit, if it is known.

    Returns:
        The fits; a class without detections has the mean's parameters.

    Raises:
        ValueError: If the shared slope is not above 0.
    """
    shared = shared or fit_logistic(features, target, weight, groups=groups)
    d, centre = len(features), shared.theta[0]
    if centre[0] <= 0:
        raise ArgumentError(f"a: expected a shared slope above 0 to pool around, got {centre[0]:.6g}.")
    dispersion = float(shared.dispersion[0])
    dispersion = dispersion if np.isfinite(dispersion) and dispersion > 0 else 1.0
    grid, log_prior = _grid(d)
    theta, mean, prior = np.tile(centre, (n_classes, 1)), centre, np.diag(_START[:d] ** 2)
    fit_classes = partial(fit_logistic, features, target, weight, cls=cls, n_classes=n_classes, robust=False)
    for _ in range(ROUNDS):
        # The loss is not divided by the dispersion, so the prior is multiplied by it; it is one of slopes here.
        unlogged = np.diag(_unlog_rate(mean[None])[0])
        precision = np.asarray(dispersion * np.linalg.inv(unlogged @ prior @ unlogged), np.float64)
        fit = fit_classes(start=theta, prior_mean=mean, prior_precision=precision)
        flat = fit.theta[:, 0] < _FLATTEST * mean[0]
        if flat.any():
            expanded = np.where(flat[:, None], mean * np.array([_FLATTEST, 1.0])[:d], fit.theta)
            fit = fit_classes(start=expanded, max_steps=0)
        theta = fit.theta
        noise = _noise(features, target, weight, cls, fit, groups)
        known, pull = _known(fit, noise, centre)
        away, covariance, own, to_mean, prior = _integrate(known, pull, grid, log_prior)
        mean = _unlog(_log_slope(centre[None]) + to_mean)[0]
    return PooledFit(_unlog(_log_slope(centre[None]) + away), covariance, own, mean, prior, known, shared, fit.n)


def _log_slope(theta: Floats) -> Floats:
    """Turn slopes and offsets (K, D) into log slopes and offsets."""
    return np.concatenate([np.log(theta[:, :1]), theta[:, 1:]], 1)


def _unlog(x: Floats) -> Floats:
    """Turn log slopes and offsets (K, D) into slopes and offsets."""
    return np.concatenate([np.exp(x[:, :1]), x[:, 1:]], 1)


def _unlog_rate(theta: Floats) -> Floats:
    """Give the derivatives (K, D) of slopes by log slopes, and of offsets by themselves."""
    return np.concatenate([theta[:, :1], np.ones_like(theta[:, 1:])], 1)


def _grid(d: int) -> tuple[Floats, Floats]:
    """List covariances (G, D, D) of the classes' parameters, and the logarithm of their prior weight (G,).

    Steps are even in the logarithm of a deviation, so a prior that is flat in the variance weighs by the variance.
    """
    axes = np.meshgrid(*[DEVIATIONS] * d, *([CORRELATIONS] if d > 1 else []), indexing="ij")
    flat = [axis.ravel() for axis in axes]
    grid = np.zeros((len(flat[0]), d, d))
    for i in range(d):
        grid[:, i, i] = flat[i] ** 2
    if d > 1:
        grid[:, 0, 1] = grid[:, 1, 0] = flat[2] * flat[0] * flat[1]
    return grid, np.asarray(2 * sum(np.log(flat[i]) for i in range(d)), np.float64)


def _noise(
    features: Sequence[Floats], target: Floats, weight: Floats | None, cls: Ints, fit: LogisticFit, groups: Ints | None
) -> Floats:
    """Estimate the variance (K, D, D) of each class's gradient.

    The variance of a target is a multiple of p (1 - p) that depends on p alone, found in bins of p of equal weight;
    that detections of a group depend on each other multiplies it once more, alike for all classes.
    """
    k, d = fit.theta.shape
    eta = np.asarray(sum(f * fit.theta[cls, i] for i, f in enumerate(features)))
    p = sigmoid(eta)
    w = np.ones_like(p) if weight is None else weight
    score, curvature = w * (p - target), w * p * (1 - p)
    order = np.argsort(eta)
    mass = np.cumsum((w * curvature)[order])
    bins = np.empty(len(p), np.int64)
    bins[order] = np.minimum(mass / mass[-1] * _BINS, _BINS - 1).astype(np.int64)
    binary = np.bincount(bins, w * curvature, _BINS)
    variance = (np.bincount(bins, score**2, _BINS) / np.maximum(binary, 1e-300))[bins] * w * curvature
    inverse = np.linalg.pinv(fit.information, rcond=1e-8, hermitian=True)
    leverage = np.zeros_like(p)
    for i in range(d):
        for j in range(d):
            leverage += inverse[cls, i, j] * features[i] * features[j]
    counted = variance / np.maximum(1 - curvature * leverage, 1e-3) ** 2
    found = np.empty((k, d, d))
    plain = np.empty((d, d))
    for i in range(d):
        for j in range(i + 1):
            product = features[i] * features[j]
            found[:, i, j] = found[:, j, i] = np.bincount(cls, counted * product, k)
            plain[i, j] = plain[j, i] = variance @ product
    if groups is None:
        return found
    _, cell = np.unique(np.asarray(groups, np.int64) * k + cls, return_inverse=True)
    scores = np.stack([np.bincount(cell, score * f) for f in features], -1)
    clustered = np.linalg.lstsq(plain, scores.T @ scores, rcond=None)[0]
    return found * max(1.0, float(np.trace(clustered)) / d)


def _known(fit: LogisticFit, noise: Floats, centre: Floats) -> tuple[Floats, Floats]:
    """Expand each class's log-likelihood around the centre: matrix (K, D, D) J and vector (K, D) h of h.x - x.J.x / 2.

    Here x is the distance of log slope and offset. The estimate's covariance is the sandwich I^-1 M I^-1 of information
    I and the gradient's variance M, so J is I M^-1 I; no inverse of I is needed: a class may know nothing of one way.
    """
    d = noise.shape[-1]
    ridge = (1e-9 * np.trace(noise, axis1=1, axis2=2) + 1e-12)[:, None, None] * np.eye(d)
    rate = _unlog_rate(fit.theta)[..., None]
    filtered = rate * (fit.information @ np.linalg.inv(noise + ridge))
    known = filtered @ fit.information * rate.transpose(0, 2, 1)
    known = (known + known.transpose(0, 2, 1)) / 2
    away = _log_slope(fit.theta) - _log_slope(centre[None])
    return known, (known @ away[..., None] - filtered @ fit.gradient[..., None])[..., 0]


def _integrate(
    known: Floats, pull: Floats, grid: Floats, log_prior: Floats
) -> tuple[Floats, Floats, Floats, Floats, Floats]:
    """Average over the grid of covariances, each with the posterior probability that the classes give it.

    Given the covariance T and the mean m, class k is normal with covariance (J + T^-1)^-1; given T, m is too, with
    precision sum of (J^-1 + T)^-1, whose determinant makes the likelihood of T the restricted one.

    Returns:
        Posterior mean (K, D) and covariance (K, D, D) of the classes, share of their own fit in the slope (K,),
        posterior mean (D,) of m, and (D, D) of T.
    """
    d = known.shape[-1]
    lent = np.linalg.inv(np.eye(d) + grid[:, None] @ known)  # (G, K, D, D): what a class takes from the mean
    given = lent @ grid[:, None]
    alone = (given @ pull[..., None])[..., 0]
    precision = (known @ lent).sum(1)
    total = (lent.swapaxes(-1, -2) @ pull[..., None])[..., 0].sum(1)
    spread = np.linalg.inv(precision)
    mean = (spread @ total[..., None])[..., 0]
    evidence = 0.5 * (np.linalg.slogdet(lent)[1] + (alone * pull).sum(-1)).sum(1)
    evidence = evidence + 0.5 * (total * mean).sum(-1) + 0.5 * np.linalg.slogdet(spread)[1] + log_prior
    chance = np.exp(evidence - evidence.max())
    chance /= chance.sum()
    each = alone + (lent @ mean[:, None, :, None])[..., 0]
    theta = np.einsum("g,gkd->kd", chance, each)
    away = each - theta
    covariance = np.einsum("g,gkij->kij", chance, given + lent @ spread[:, None] @ lent.swapaxes(-1, -2))
    covariance = covariance + np.einsum("g,gki,gkj->kij", chance, away, away)
    own = np.clip(1.0 - np.einsum("g,gk->k", chance, lent[..., 0, 0]), 0.0, 1.0)
    return theta, covariance, own, chance @ mean, np.einsum("g,gij->ij", chance, grid)
