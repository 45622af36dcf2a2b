# SPDX-License-Identifier: AGPL-3.0-or-later
"""Partial pooling: each class's map, shrunk towards the shared one the more the less its own detections say.

A class's parameters are a draw from a normal prior around the shared fit. Its covariance is found by maximum marginal
likelihood (empirical Bayes: Efron and Morris 1975), with a normal approximation of each class's likelihood: the EM
algorithm works on K matrices of D x D, not on the detections, and starts from the moments of the classes' gradients.
A class of 5 boxes then gets the shared map, and one of 5,000 its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from det_ls.calibration.fit import LogisticFit, fit_logistic
from det_ls.calibration.maps import Floats, Ints

ROUNDS = 3  # fit given the prior, then the prior given the fit: settles at once
EM_STEPS = 2000
_SMALLEST = 1e-4  # variance of the prior: classes that differ by no more are one


@dataclass(frozen=True)
class PooledFit:
    """Fits of K classes that lend each other strength.

    Attributes:
        theta: (K, D) parameters by class; the shared ones where a class's slope would not be above 0.
        covariance: (K, D, D) posterior covariance of each class's parameters given the prior's covariance. That it was
            estimated too is left out, so intervals are somewhat short: nominal 95% covers 86% to 92% in simulation.
        own: (K,) share of a class's own fit in its slope, from 0 (the shared map) to 1 (its own).
        prior: (D, D) covariance of the classes' parameters around the shared ones.
        shared: The fit of all classes together.
        n: (K,) detections by class.
    """

    theta: Floats
    covariance: Floats
    own: Floats
    prior: Floats
    shared: LogisticFit
    n: Ints


def fit_pooled(
    features: Sequence[Floats],
    target: Floats,
    weight: Floats | None,
    cls: Ints,
    n_classes: int,
    groups: Ints | None = None,
    shared: LogisticFit | None = None,
) -> PooledFit:
    """Fit each class with an empirical-Bayes prior around the shared fit.

    Args:
        features: D arrays of N values.
        target: (N,) targets in [0, 1].
        weight: (N,) weights; 1 if None.
        cls: (N,) classes from 0.
        n_classes: Number of classes K.
        groups: (N,) groups from 0 within which detections may depend on each other.
        shared: The shared fit, if it is known.

    Returns:
        The fits; a class without detections has the shared parameters.
    """
    shared = shared or fit_logistic(features, target, weight, groups=groups)
    mean = shared.theta[0]
    # One dispersion for all classes: how much wider than the likelihood says estimates really scatter.
    dispersion = float(shared.dispersion[0])
    dispersion = dispersion if np.isfinite(dispersion) and dispersion > 0 else 1.0
    theta = np.tile(mean, (n_classes, 1))
    at_shared = fit_logistic(
        features, target, weight, cls=cls, n_classes=n_classes, start=theta, robust=False, max_steps=0
    )
    prior = _moments(at_shared.gradient / dispersion, at_shared.information / dispersion)
    information = at_shared.information / dispersion
    for _ in range(ROUNDS):
        # The loss is not divided by the dispersion, so the prior is multiplied by it.
        precision = np.asarray(dispersion * np.linalg.inv(prior), np.float64)
        fit = fit_logistic(
            features,
            target,
            weight,
            cls=cls,
            n_classes=n_classes,
            start=theta,
            prior_mean=mean,
            prior_precision=precision,
            robust=False,
        )
        theta, information = fit.theta, fit.information / dispersion
        settled = _prior(theta, fit.gradient / dispersion, information, mean, prior, fit.n > 0)
        done = np.abs(settled - prior).max() <= 1e-3 * np.abs(prior).max()
        prior = settled
        if done:
            break
    covariance = np.linalg.inv(information + np.linalg.inv(prior))
    share = covariance @ information
    own = np.clip(share[:, 0, 0], 0.0, 1.0)
    if np.isfinite(shared.covariance[0]).all():  # what a class takes from the shared map is uncertain as that is
        lent = np.eye(len(mean)) - share
        covariance = covariance + lent @ shared.covariance[0] @ lent.transpose(0, 2, 1)
    # Scores of a class that rank its detections the wrong way are beyond a monotone map: it gets the shared one.
    turned = (theta[:, 0] <= 0) & (mean[0] > 0)
    theta, own = np.where(turned[:, None], mean, theta), np.where(turned, 0.0, own)
    return PooledFit(theta, covariance, own, prior, shared, fit.n)


def _moments(gradient: Floats, information: Floats) -> Floats:
    """Find the prior's covariance T from the classes' gradients at the shared parameters.

    Their second moment is expected to be I + I T I of the class's information I, which is linear in T.
    """
    d = gradient.shape[-1]
    excess = (gradient[:, :, None] * gradient[:, None, :] - information).sum(0)
    kron = np.einsum("kab,kcd->acbd", information, information).reshape(d * d, d * d)
    solved = np.linalg.lstsq(kron, excess.ravel(), rcond=None)[0].reshape(d, d)
    values, vectors = np.linalg.eigh((solved + solved.T) / 2)
    return np.asarray(vectors * np.clip(values, _SMALLEST, 1.0) @ vectors.T, np.float64)


def _prior(
    theta: Floats, gradient: Floats, information: Floats, mean: Floats, prior: Floats, known: NDArray[np.bool_]
) -> Floats:
    """Find the prior's covariance by EM, with the likelihood of each class expanded to second order at theta."""
    theta, gradient, information = theta[known], gradient[known], information[known]
    # The expansion in information form: no inverse is needed, so a class may know nothing of a direction.
    pull = (information @ (theta - mean)[..., None])[..., 0] - gradient
    for _ in range(EM_STEPS):
        posterior = np.linalg.inv(information + np.linalg.inv(prior))
        away = (posterior @ pull[..., None])[..., 0]
        settled = (posterior + away[:, :, None] * away[:, None, :]).mean(0)
        done = np.abs(settled - prior).max() <= 1e-4 * np.abs(prior).max()
        prior = settled
        if done:
            break
    return prior
