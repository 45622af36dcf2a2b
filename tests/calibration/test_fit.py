# SPDX-License-Identifier: AGPL-3.0-or-later
"""Fits against scikit-learn, scipy and torch, and intervals that hold their rate."""

from __future__ import annotations

import sys

import numpy as np
import pytest
import torch
from check_calibration import shared_coverage
from simulated_maps import simulate
from sklearn.isotonic import IsotonicRegression
from sklearn.linear_model import LogisticRegression

from det_ls.calibration.fit import (
    affine_features,
    affine_map,
    fit_beta,
    fit_isotonic,
    fit_logistic,
    fit_softmax_temperature,
)
from det_ls.calibration.maps import beta_features, logit, sigmoid


def sklearn_fit(features, target, weight, intercept=True) -> np.ndarray:
    """A soft target is two rows: a positive of weight t and a negative of weight 1 - t."""
    x = np.column_stack(features)
    model = LogisticRegression(C=np.inf, tol=1e-12, max_iter=10_000, solver="newton-cholesky", fit_intercept=intercept)
    labels = np.repeat([1, 0], len(target))
    model.fit(np.vstack([x, x]), labels, sample_weight=np.concatenate([weight * target, weight * (1 - target)]))
    return np.concatenate([model.coef_[0], model.intercept_ if intercept else []])


@pytest.mark.parametrize("binary", [False, True])
def test_platt_and_temperature_equal_scikit_learn(binary):
    rng = np.random.default_rng(0)
    data = simulate(rng, 200, 0.7, -0.4)
    target = (data.iou >= 0.5).astype(float) if binary else data.iou
    weight = sigmoid(data.z)
    fit = fit_logistic([data.z, np.ones_like(data.z)], target, weight, start=np.array([1.0, 0.0]))
    assert fit.converged.all()
    assert np.allclose(fit.theta[0], sklearn_fit([data.z], target, weight), rtol=0, atol=1e-6)
    hot = fit_logistic(affine_features(data.z, "temperature"), target, weight, start=np.array([1.0]))
    assert np.allclose(hot.theta[0], sklearn_fit([data.z], target, weight, intercept=False), rtol=0, atol=1e-6)


def test_fitting_all_classes_at_once_equals_each_alone():
    rng = np.random.default_rng(1)
    data = simulate(rng, 300, [0.5, 1.0, 1.5], [0.3, 0.0, -0.3], n_classes=3)
    features = affine_features(data.z)
    fit = fit_logistic(features, data.iou, cls=data.cls, n_classes=3, groups=data.image)
    for c in range(3):
        rows = data.cls == c
        alone = fit_logistic([f[rows] for f in features], data.iou[rows], groups=data.image[rows])
        assert np.allclose(fit.theta[c], alone.theta[0], rtol=0, atol=1e-9)
        assert np.allclose(fit.covariance[c], alone.covariance[0], rtol=1e-6)
        assert np.allclose(
            fit.theta[c], sklearn_fit([data.z[rows]], data.iou[rows], np.ones(rows.sum())), rtol=0, atol=1e-6
        )


def test_beta_equals_scikit_learn_on_its_features_and_keeps_its_weights_positive():
    rng = np.random.default_rng(2)
    data = simulate(rng, 200, 0.7, -0.4)
    weight = np.ones_like(data.z)
    expected = sklearn_fit(beta_features(data.z), data.iou, weight)
    one = fit_beta(data.z, data.iou, weight)
    assert expected[:2].min() > 0
    assert np.allclose([one.a, one.b, one.c], expected, rtol=0, atol=1e-6)
    # Targets that fall again for large scores: the weight of -log(1 - s) would be negative.
    target = sigmoid(data.z) * (1 - sigmoid(data.z)) ** 2
    one = fit_beta(data.z, target, weight)
    assert one.b == 0
    assert np.allclose([one.a, one.c], sklearn_fit([beta_features(data.z)[0]], target, weight), rtol=0, atol=1e-6)


def test_isotonic_equals_scikit_learn():
    rng = np.random.default_rng(3)
    data = simulate(rng, 60)
    weight = rng.random(len(data.z))
    score = sigmoid(data.z)
    expected = IsotonicRegression(y_min=0, y_max=1, out_of_bounds="clip").fit(score, data.iou, sample_weight=weight)
    one = fit_isotonic(data.z, data.iou, weight)
    fresh = np.linspace(-14, 14, 500)
    assert np.allclose(one(fresh), expected.predict(sigmoid(fresh)), rtol=0, atol=1e-9)


def test_isotonic_without_scikit_learn_is_one_sentence(monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn.isotonic", None)
    with pytest.raises(ImportError, match=r"^method: expected scikit-learn .*\.$"):
        fit_isotonic(np.zeros(2), np.zeros(2))


def test_the_temperature_of_a_classifier_equals_torch():
    rng = np.random.default_rng(4)
    logits = rng.normal(0, 3, (400, 5))
    p = np.exp(0.5 * logits)
    labels = np.array([rng.choice(5, p=row / row.sum()) for row in p])
    a = torch.ones((), dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS([a], max_iter=200, tolerance_grad=1e-12, tolerance_change=1e-14)

    def closure():
        optimizer.zero_grad()
        loss = torch.nn.functional.cross_entropy(a * torch.from_numpy(logits), torch.from_numpy(labels))
        loss.backward()
        return loss

    optimizer.step(closure)
    assert abs(fit_softmax_temperature(logits, labels) - a.item()) < 1e-6


def test_scores_that_fall_with_the_target_are_refused():
    z = np.linspace(-3, 3, 100)
    fit = fit_logistic(affine_features(z), sigmoid(-z))
    with pytest.raises(ValueError, match="slopes above 0, got -1"):
        affine_map(fit.theta)


def test_separable_targets_are_said_not_to_have_converged():
    z = np.linspace(-3, 3, 20)
    assert not fit_logistic(affine_features(z), (z > 0).astype(float)).converged.any()


@pytest.mark.parametrize("truth", [(1.0, 0.0), (0.6, -0.8)])
def test_a_known_map_is_recovered_within_its_interval_at_the_nominal_rate(truth):
    rates = shared_coverage(400, 100, truth, 0.8, seed=5)
    assert (rates >= 0.915).all(), rates
    assert (rates <= 0.985).all(), rates


def test_the_degrees_of_freedom_are_the_groups_where_all_weigh_alike():
    """One box an image at one of two logits: twice fifty groups that say as much, half of them of each parameter."""
    z = np.tile([0.0, 1.0], 50)
    target = np.random.default_rng(7).random(100)
    fit = fit_logistic([z, np.ones(100)], target, groups=np.arange(100))
    assert 45 < fit.freedom[0, 1] <= 51  # the offset is what the fifty boxes at 0 say
    few = fit_logistic([z, np.ones(100)], target, groups=np.arange(100) // 10)
    assert few.freedom[0, 1] < 11
    assert np.isfinite(few.interval()).all()


def test_beta_of_separable_targets_is_refused_in_one_sentence():
    z = np.linspace(-3, 3, 20)
    with pytest.raises(ValueError, match=r"^predictions: expected right and wrong .* no single map fits best\.$"):
        fit_beta(z, (z > 0).astype(float))


def test_logits_of_known_scores_fit_the_same_map():
    data = simulate(np.random.default_rng(6), 100, 0.8, 0.2)
    direct = fit_logistic(affine_features(data.z), data.iou)
    through = fit_logistic(affine_features(logit(sigmoid(data.z))), data.iou)
    assert np.allclose(direct.theta, through.theta, rtol=0, atol=1e-6)
