# SPDX-License-Identifier: AGPL-3.0-or-later
"""Maps that the data cannot tell from the identity change little, and those that they can tell change nothing more."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from simulated_maps import simulate

from det_ls.calibration.fit import affine_features, fit_logistic
from det_ls.calibration.identity import class_shares, kept_share, shared_share
from det_ls.calibration.maps import sigmoid
from det_ls.calibration.methods import Recipe, Sample, fit
from det_ls.calibration.pooling import fit_pooled


def drawn(seed, n_images, a=1.0, b=0.0, **settings) -> Sample:
    data = simulate(np.random.default_rng(seed), n_images, a, b, **settings)
    names = tuple("abcdefgh"[: int(data.cls.max()) + 1])
    return Sample(data.z, data.iou, sigmoid(data.z), data.cls, data.image, names)


def test_the_shrinkage_halves_the_error_of_a_normal_mean_at_the_identity_and_loses_nothing_far_from_it():
    rng = np.random.default_rng(0)
    for distance, low, high in ((0.0, 0.2, 0.5), (30.0, 0.97, 1.03)):
        truth = np.array([distance, 0.0])
        x = truth + rng.standard_normal((20_000, 2))
        shrunk = x * kept_share((x**2).sum(1), 2.0)[:, None]
        ratio = ((shrunk - truth) ** 2).sum() / ((x - truth) ** 2).sum()
        assert low < ratio < high, (distance, ratio)


@pytest.mark.parametrize("method", ["platt", "temperature"])
def test_a_map_far_from_the_identity_stays_as_it_was_fitted(method):
    sample = drawn(1, 400, 0.4, -0.3 if method == "platt" else 0.0)
    one = fit(sample, Recipe(method))
    plain = fit(sample, Recipe(method, shrink=False))
    assert one.shares[0] > 0.98
    assert plain.shares == (1.0,)
    assert plain.map.a[0] == plain.shared.theta[0, 0]
    assert abs(one.map.a[0] - plain.map.a[0]) < 0.02


def test_the_plain_map_lies_between_and_the_shipped_one_within_the_interval():
    for seed in range(20):
        one = fit(drawn(seed, 60), Recipe())
        ends = one.shared.interval()[0]
        shipped = np.array([one.map.a[0], one.map.b[0]])
        assert (ends[:, 0] <= shipped).all()
        assert (shipped <= ends[:, 1]).all()
        kept = (shipped - [1, 0]) / (one.shared.theta[0] - [1, 0])
        assert np.allclose(kept, one.shares[0])


@pytest.mark.parametrize("distance", [1.5, 3.0, 10.0])
@pytest.mark.parametrize(("method", "p"), [("temperature", 1), ("platt", 2)])
def test_the_shared_map_keeps_one_minus_p_over_w_of_its_distance(method, p, distance):
    """At any number of standard errors from the identity, and in any direction."""
    sample = drawn(6, 60, 0.8, -0.2)
    shared = fit_logistic(affine_features(sample.z, method), sample.target, sample.weight, groups=sample.group)
    covariance = shared.covariance[0]
    one = np.array([1.0, 0.0])[:p]
    for way in (np.ones(p), np.array([1.0, -3.0])[:p]):
        away = way * distance / np.sqrt(way @ np.linalg.solve(covariance, way))
        w = away @ np.linalg.solve(covariance, away)
        assert w == pytest.approx(distance**2)
        assert shared_share(replace(shared, theta=(one + away)[None])) == pytest.approx(max(0.0, 1 - p / w), abs=1e-9)
    found = fit(sample, Recipe(method))  # and as it is shipped
    away = found.shared.theta[0] - one
    w = away @ np.linalg.solve(found.shared.covariance[0], away)
    assert 1 < w / p < 100
    assert found.shares[0] == pytest.approx(1 - p / w, abs=1e-9)
    assert np.allclose([found.map.a[0], found.map.b[0]][:p], one + (1 - p / w) * away, rtol=0, atol=1e-9)


@pytest.mark.parametrize("distance", [0.5, 1.5, 3.0, 10.0])
@pytest.mark.parametrize(("method", "p"), [("temperature", 1), ("platt", 2)])
def test_a_class_keeps_what_its_own_data_tell_or_those_of_all_together(method, p, distance):
    sample = drawn(7, 100, 0.7, n_classes=3)
    features = affine_features(sample.z, method)
    pooled = fit_pooled(features, sample.target, sample.weight, sample.cls, 3, sample.group)
    away = np.ones((3, p))
    away *= distance / np.sqrt(np.einsum("ki,kij,kj->k", away, np.linalg.inv(pooled.covariance), away))[:, None]
    alone = max(0.0, 1 - p / distance**2)
    theta = np.concatenate([np.exp(away[:, :1]), away[:, 1:]], 1)
    moved = replace(pooled, theta=theta, known=np.zeros((3, p, p)))  # all together know nothing
    assert np.allclose(class_shares(moved), alone, rtol=0, atol=1e-9)
    know = np.linalg.inv(pooled.covariance) / 2  # each class decides half of its p parameters, at W / 2
    together = max(0.0, 1 - (3 * p / 2) / (3 * distance**2 / 2))
    assert np.allclose(class_shares(replace(moved, known=know)), max(alone, together), rtol=0, atol=1e-9)
    know[0] *= 40  # one class tells all: they are (40 + 2) halves of p parameters, at as many halves of W
    far = np.array([4.0, 1.0, 1.0])[:, None] * away
    w = distance**2 * (16 * 40 + 2) / 2
    moved = replace(moved, theta=np.concatenate([np.exp(far[:, :1]), far[:, 1:]], 1), known=know)
    expected = [max(0.0, 1 - p / (16 * distance**2), 1 - 21 * p / w), *[max(alone, 1 - 21 * p / w, 0.0)] * 2]
    assert np.allclose(class_shares(moved), expected, rtol=0, atol=1e-9)


def test_many_images_tell_what_few_cannot():
    """A slope of 0.9: kept the more, the more images there are."""
    shares = [np.mean([fit(drawn(s, n, 0.9), Recipe()).shares[0] for s in range(6)]) for n in (30, 300, 3000)]
    assert shares[0] < shares[1] < shares[2]
    assert shares[2] > 0.85


def test_without_a_robust_covariance_the_information_decides():
    sample = drawn(3, 2)
    shared = fit_logistic(affine_features(sample.z), sample.target, sample.weight, groups=sample.group)
    assert np.isnan(shared.covariance).all()
    assert 0 <= shared_share(shared) < 1


def test_a_class_that_differs_is_told_and_a_class_of_five_boxes_takes_part_in_what_the_others_show():
    rng = np.random.default_rng(4)
    cls = rng.permutation(np.repeat([0, 1, 2, 3], [1000, 1000, 995, 5]))
    data = simulate(rng, 150, [1.0, 1.0, 0.4, 1.0], 0.0, cls=cls, n_classes=4)
    pooled = fit_pooled(affine_features(data.z), data.iou, None, data.cls, 4, data.image)
    assert class_shares(pooled)[2] > 0.9
    data = simulate(rng, 150, 0.4, -0.5, cls=cls, n_classes=4)
    pooled = fit_pooled(affine_features(data.z), data.iou, None, data.cls, 4, data.image)
    assert class_shares(pooled).min() > 0.9


def test_a_slope_below_zero_is_refused_however_little_the_data_say():
    z = np.random.default_rng(5).normal(0, 1, 40)
    sample = Sample(z, sigmoid(-z), np.ones(40), np.zeros(40, int), np.arange(40), ("a",))
    with pytest.raises(ValueError, match="slopes above 0"):
        fit(sample, Recipe())


def test_shrink_is_a_flag():
    with pytest.raises(TypeError, match="shrink: expected True or False"):
        Recipe(shrink="yes")
