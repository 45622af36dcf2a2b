# SPDX-License-Identifier: AGPL-3.0-or-later
"""Fit logistic maps by maximum likelihood of a soft target, for all classes at once.

The loss of a detection with features x, target t in [0, 1] and weight w is w times the cross-entropy of t and
sigmoid(theta . x): for t in {0, 1} the likelihood, for an IoU the quasi-likelihood of Papke and Wooldridge (1996),
whose minimum is where the mean target is right. Newton's method on two or three parameters a class needs a handful of
passes over the detections.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.special import stdtrit

from det_ls.base.errors import ArgumentError, MissingPackageError
from det_ls.calibration.maps import AffineMap, BetaMap, Floats, Ints, IsotonicMap, beta_features, sigmoid

MAX_STEPS = 100
_STEP_TOLERANCE = 1e-9  # of a Newton step that is known to be small: convergence is quadratic


@dataclass(frozen=True)
class LogisticFit:
    """Logistic fits of K classes (or of one for all) with D parameters each.

    Attributes:
        theta: (K, D) parameters; for Platt scaling a and b.
        gradient: (K, D) gradient of the data's loss there: 0 without a prior.
        information: (K, D, D) second derivative of the data's loss there.
        covariance: (K, D, D) covariance of theta, robust to a target that is not binary, to weights, and to detections
            of one group that depend on each other; NaN where it cannot be told.
        dispersion: (K,) how many times the variance is what the information alone would say; 1 for independent
            binary targets of weight 1, NaN where it cannot be told.
        freedom: (K, D) degrees of freedom of each parameter's variance: the number of groups that would say as much if
            all weighed alike; NaN where it cannot be told.
        n: (K,) detections of a weight above 0.
        converged: (K,) whether a minimum was found; there is none where the targets are separable.
    """

    theta: Floats
    gradient: Floats
    information: Floats
    covariance: Floats
    dispersion: Floats
    freedom: Floats
    n: Ints
    converged: np.ndarray[Any, np.dtype[np.bool_]]

    def interval(self, level: float = 0.95) -> Floats:
        """Give an interval of each parameter, by a t distribution of :attr:`freedom`.

        Args:
            level: Nominal coverage, in (0, 1).

        Returns:
            (K, D, 2) lower and upper ends.
        """
        width = stdtrit(self.freedom, 0.5 + level / 2) * np.sqrt(np.diagonal(self.covariance, axis1=1, axis2=2))
        return np.stack([self.theta - width, self.theta + width], axis=-1)


def fit_logistic(
    features: Sequence[Floats],
    target: Floats,
    weight: Floats | None = None,
    *,
    cls: Ints | None = None,
    n_classes: int = 1,
    groups: Ints | None = None,
    start: Floats | None = None,
    prior_mean: Floats | None = None,
    prior_precision: Floats | None = None,
    robust: bool = True,
    max_steps: int = MAX_STEPS,
) -> LogisticFit:
    """Minimise the weighted cross-entropy of each class by Newton's method.

    Args:
        features: D arrays of N values; a constant is one of them.
        target: (N,) targets in [0, 1].
        weight: (N,) weights of at least 0; 1 if None.
        cls: (N,) classes from 0; all of one class if None.
        n_classes: Number of classes K.
        groups: (N,) groups from 0 within which detections may depend on each other, for example images; each
            detection on its own if None.
        start: (D,) or (K, D) where to start; ``prior_mean`` or zeros if None.
        prior_mean: (D,) mean of a normal prior, None for none.
        prior_precision: (D, D) its inverse covariance.
        robust: Whether to compute covariance and dispersion.
        max_steps: Newton steps at most.

    Returns:
        The fits.

    Example:
        >>> import numpy as np
        >>> z = np.array([-1.0, -1.0, 1.0, 1.0])
        >>> fit = fit_logistic([z, np.ones(4)], np.array([0.0, 0.4, 0.6, 1.0]))
        >>> fit.theta.round(4).tolist()  # sigmoid(a) is the mean target of the upper two, 0.8
        [[1.3863, 0.0]]
    """
    problem = _Problem(features, target, weight, cls, n_classes)
    d = len(features)
    mean = np.zeros(d) if prior_mean is None else prior_mean
    precision = np.zeros((d, d)) if prior_precision is None else prior_precision
    theta = np.tile(mean, (n_classes, 1)) if start is None else np.broadcast_to(start, (n_classes, d)).copy()

    def penalised(at: Floats) -> tuple[Floats, Floats, Floats]:
        loss, gradient, information = problem.evaluate(at)
        away = at - mean
        pull = away @ precision
        return loss + 0.5 * (pull * away).sum(1), gradient + pull, information + precision

    loss, gradient, information = penalised(theta)
    converged = np.zeros(n_classes, bool)
    for _ in range(max_steps):
        step = _solve(information, gradient)
        converged = np.abs(step).max(1) <= _STEP_TOLERANCE * (1 + np.abs(theta).max(1))
        if converged.all():
            break
        size = np.where(converged, 0.0, 1.0)
        for _ in range(30):
            at = theta - size[:, None] * step
            found = penalised(at)
            worse = found[0] > loss + 1e-12 * np.abs(loss)
            if not worse.any():
                break
            size = np.where(worse, size / 2, size)
        theta, (loss, gradient, information) = at, found
        if not np.isfinite(theta).all() or np.abs(theta).max() > 1e6:
            break
    pull = (theta - mean) @ precision
    information = information - precision
    covariance, dispersion, freedom = (np.full((n_classes, *tail), np.nan) for tail in ((d, d), (), (d,)))
    if robust:
        covariance, dispersion, freedom = problem.sandwich(theta, information, groups)
    converged &= problem.n > 0
    return LogisticFit(theta, gradient - pull, information, covariance, dispersion, freedom, problem.n, converged)


class _Problem:
    """The sums over detections that Newton's method needs, by class."""

    def __init__(
        self, features: Sequence[Floats], target: Floats, weight: Floats | None, cls: Ints | None, n_classes: int
    ) -> None:
        self.features = [np.ascontiguousarray(f, np.float64) for f in features]
        self.target = np.asarray(target, np.float64)
        self.weight = None if weight is None else np.asarray(weight, np.float64)
        self.cls = None if n_classes == 1 else np.asarray(cls)
        self.n_classes = n_classes
        counted = np.ones_like(self.target) if self.weight is None else (self.weight > 0).astype(np.float64)
        self.n = self.total(counted).astype(np.int64)

    def total(self, values: Floats) -> Floats:
        """Sum by class: (K,)."""
        if self.cls is None:
            return np.array([values.sum()])
        return np.asarray(np.bincount(self.cls, weights=values, minlength=self.n_classes), np.float64)

    def terms(self, theta: Floats) -> tuple[Floats, Floats, Floats, Floats, Floats]:
        """Give (N,) linear predictor, score, loss, residual and curvature at a point, the last three times weight."""
        eta = sum(f * (theta[0, i] if self.cls is None else theta[self.cls, i]) for i, f in enumerate(self.features))
        eta = np.asarray(eta)
        e = np.exp(-np.abs(eta))
        p = np.where(eta >= 0, 1.0, e) / (1.0 + e)
        loss = np.maximum(eta, 0.0) + np.log1p(e) - self.target * eta
        residual, curvature = p - self.target, p * (1.0 - p)
        if self.weight is not None:
            loss, residual, curvature = loss * self.weight, residual * self.weight, curvature * self.weight
        return eta, p, loss, residual, curvature

    def evaluate(self, theta: Floats) -> tuple[Floats, Floats, Floats]:
        """Give loss (K,), gradient (K, D) and information (K, D, D) at a point."""
        d = len(self.features)
        _, _, loss, residual, curvature = self.terms(theta)
        gradient, information = np.zeros((self.n_classes, d)), np.zeros((self.n_classes, d, d))
        for i, f in enumerate(self.features):
            gradient[:, i] = self.total(residual * f)
            cf = curvature * f
            for j in range(i + 1):
                information[:, i, j] = information[:, j, i] = self.total(cf * self.features[j])
        return self.total(loss), gradient, information

    def sandwich(self, theta: Floats, information: Floats, groups: Ints | None) -> tuple[Floats, Floats, Floats]:
        """Give the robust covariance (K, D, D), the dispersion (K,) and the degrees of freedom (K, D).

        Each group is left out in turn, by one Newton step: the jackknife CR3 of Bell and McCaffrey (2002), whose
        intervals hold their rate with few groups, where the plain sandwich's are too short. The degrees of freedom
        are theirs too (Satterthwaite's), with the variance that the model expects of each group's share and without
        the terms between groups: (sum v_g)^2 / sum v_g^2.
        """
        d, k = len(self.features), self.n_classes
        _, _, _, residual, curvature = self.terms(theta)
        noise = curvature if self.weight is None else curvature * self.weight
        used = np.arange(len(residual)) if self.weight is None else np.flatnonzero(self.weight)
        rows = np.arange(len(residual)) if groups is None else np.asarray(groups, np.int64)
        cells = (rows if self.cls is None else rows * k + self.cls)[used]
        found, at = np.unique(cells, return_inverse=True)
        owner = np.zeros(len(found), np.int64) if self.cls is None else found % k
        n = len(found)

        def by_group(values: Floats) -> Floats:
            return np.asarray(np.bincount(at, weights=values[used], minlength=n), np.float64)

        scores = np.stack([by_group(residual * f) for f in self.features], -1)
        own, expected = np.empty((n, d, d)), np.empty((n, d, d))
        for i in range(d):
            for j in range(i + 1):
                product = self.features[i] * self.features[j]
                own[:, i, j] = own[:, j, i] = by_group(curvature * product)
                expected[:, i, j] = expected[:, j, i] = by_group(noise * product)
        n_groups = np.bincount(owner, minlength=k)
        # As many groups as parameters make the gradients' variance singular: it says nothing.
        known = (n_groups > d) & (np.linalg.cond(information) < 1e12)
        left = np.where(known[owner][:, None, None], information[owner] - own, np.eye(d))
        moved = _solve(left, scores)
        inverse = np.stack([_solve(left, np.broadcast_to(unit, (n, d))) for unit in np.eye(d)], -1)
        share = np.einsum("gij,gjk,gik->gi", inverse, expected, inverse)
        covariance, dispersion, freedom = (np.full((k, *tail), np.nan) for tail in ((d, d), (), (d,)))
        for c in np.flatnonzero(known):
            mine = owner == c
            covariance[c] = moved[mine].T @ moved[mine] * (n_groups[c] - 1) / n_groups[c]
            dispersion[c] = np.trace(covariance[c] @ information[c]) / d
            freedom[c] = share[mine].sum(0) ** 2 / (share[mine] ** 2).sum(0)
        return covariance, dispersion, freedom


def _solve(information: Floats, gradient: Floats) -> Floats:
    """Solve (K, D, D) for (K, D), with a ridge too small to matter where a matrix is near singular."""
    d = information.shape[-1]
    ridge = 1e-13 * np.trace(information, axis1=1, axis2=2) + 1e-300
    step = np.linalg.solve(information + ridge[:, None, None] * np.eye(d), gradient[..., None])[..., 0]
    return np.where(np.isfinite(step), step, 0.0)


def converged(fit: LogisticFit, n: int) -> Floats:
    """Return a single fit's parameters.

    Args:
        fit: The fit.
        n: Detections that it was fitted on.

    Returns:
        (D,) parameters.

    Raises:
        ValueError: If it found no minimum: there is none where a threshold parts right from wrong without error.
    """
    if not fit.converged[0]:
        raise ArgumentError(
            "predictions: expected right and wrong detections whose scores overlap to fit a map on, got "
            f"{n} that no single map fits best."
        )
    return np.asarray(fit.theta[0], np.float64)


def affine_features(z: Floats, kind: str = "platt") -> list[Floats]:
    """Give the features of Platt scaling, logit and constant, or of temperature scaling, the logit alone.

    Args:
        z: (N,) logits.
        kind: ``platt`` or ``temperature``.

    Returns:
        One or two arrays of N values.
    """
    return [z] if kind == "temperature" else [z, np.ones_like(z)]


def affine_map(theta: Floats, kind: str = "platt", classes: tuple[str, ...] = ()) -> AffineMap:
    """Make a map of fitted parameters.

    Args:
        theta: (K, D) parameters.
        kind: ``platt`` or ``temperature``.
        classes: K class names, or none for one shared map.

    Returns:
        The map.

    Raises:
        ValueError: If a slope is not above 0: the scores do not rise with the target.
    """
    b = theta[:, 1] if theta.shape[1] > 1 else np.zeros(len(theta))
    return AffineMap(tuple(theta[:, 0].tolist()), tuple(b.tolist()), classes, kind)


def fit_beta(z: Floats, target: Floats, weight: Floats | None = None) -> BetaMap:
    """Fit beta calibration; a weight that would be negative is set to 0, as its authors do.

    Args:
        z: (N,) logits.
        target: (N,) targets in [0, 1].
        weight: (N,) weights; 1 if None.

    Returns:
        The map.

    Raises:
        ValueError: If both weights would be negative, or no map is best.
    """

    def best(*features: Floats) -> list[float]:
        fit = fit_logistic([*features, np.ones_like(z)], target, weight, robust=False)
        found: list[float] = converged(fit, len(z)).tolist()
        return found

    log_s, minus_log_rest = beta_features(z)
    a, b, c = best(log_s, minus_log_rest)
    if a < 0:
        a, (b, c) = 0.0, best(minus_log_rest)
    elif b < 0:
        b, (a, c) = 0.0, best(log_s)
    return BetaMap(a, b, c)


def fit_isotonic(z: Floats, target: Floats, weight: Floats | None = None) -> IsotonicMap:
    """Fit isotonic regression of the target on the score, by scikit-learn.

    Args:
        z: (N,) logits.
        target: (N,) targets in [0, 1].
        weight: (N,) weights; 1 if None.

    Returns:
        The map.

    Raises:
        ImportError: If scikit-learn is not installed.
    """
    try:
        from sklearn.isotonic import IsotonicRegression
    except ImportError as error:
        raise MissingPackageError(
            "method: expected scikit-learn for isotonic (pip install det-ls[calibration]), got none."
        ) from error
    model = IsotonicRegression(y_min=0.0, y_max=1.0, out_of_bounds="clip")
    model.fit(sigmoid(z), target, sample_weight=weight)
    # A knot beside one of the same score would be no function.
    x, first = np.unique(model.X_thresholds_, return_index=True)
    return IsotonicMap(tuple(x.tolist()), tuple(np.asarray(model.y_thresholds_)[first].tolist()))


def fit_softmax_temperature(logits: Floats, labels: Ints) -> float:
    """Fit the temperature of a classifier: softmax(a z) of most likelihood (Guo et al. 2017).

    Args:
        logits: (N, K) logits.
        labels: (N,) classes.

    Returns:
        The slope a = 1 / T.

    Raises:
        ValueError: If no slope above 0 is best.
    """
    z = logits - logits[np.arange(len(labels)), labels][:, None]  # the loss is logsumexp(a z)
    a = 1.0
    for _ in range(MAX_STEPS):
        scaled = a * z
        p = np.exp(scaled - scaled.max(1, keepdims=True))
        p /= p.sum(1, keepdims=True)
        mean = (p * z).sum(1)
        slope, curvature = mean.sum(), ((p * z**2).sum(1) - mean**2).sum()
        step = slope / curvature if curvature > 0 else 0.0
        step = float(np.clip(step, -a, a * 0.5))  # at most to 0 or double
        a -= step
        if abs(step) <= _STEP_TOLERANCE * (1 + abs(a)) or not 1e-6 < a < 1e6:
            break
    if not 1e-6 < a < 1e6:
        raise ArgumentError(f"a: expected a slope between 1e-6 and 1e6 to be best, got {a:.3g}.")
    return a
