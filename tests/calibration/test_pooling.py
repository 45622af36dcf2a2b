# SPDX-License-Identifier: AGPL-3.0-or-later
"""Partial pooling: better than one map for all and than each class alone, whatever the sizes of the classes."""

from __future__ import annotations

import numpy as np
import pytest
from check_calibration import SIZES, pooling
from simulated_maps import simulate

from det_ls.calibration.fit import affine_features, fit_logistic
from det_ls.calibration.pooling import fit_pooled


@pytest.fixture(scope="module", params=["score", "all"])
def studied(request):
    """Errors by size and map (shared, own, pooled), coverage and own shares by size, of 30 classes in few sets."""
    return pooling(40, request.param, seed=3)


def test_pooling_has_a_lower_error_than_the_shared_and_the_own_map(studied):
    error, _, _ = studied
    for size, (shared, alone, pooled) in zip(SIZES, error, strict=True):
        assert pooled < shared, (size, shared, alone, pooled)
        assert pooled < alone, (size, shared, alone, pooled)


def test_a_class_of_few_boxes_gets_the_map_of_all_and_one_of_many_its_own(studied):
    few, some, many = studied[2]
    assert few < 0.25, few
    assert few < some < many
    assert many > 0.5, many


def test_a_class_map_lies_in_its_interval_at_the_nominal_rate(studied):
    """400 classes of each size, those of a set being wrong together: three standard deviations are some 0.045."""
    _, coverage, _ = studied
    assert (coverage > 0.95 - 0.045).all(), coverage
    assert (coverage < 0.95 + 0.045).all(), coverage
    assert (abs(coverage.mean(0) - 0.95) < 0.03).all(), coverage


def test_classes_that_do_not_differ_get_nearly_the_same_map():
    data = simulate(np.random.default_rng(1), 500, 0.8, -0.2, n_classes=10)
    pooled = fit_pooled(affine_features(data.z), data.iou, None, data.cls, 10, data.image)
    assert np.abs(pooled.theta - pooled.shared.theta).max() < 0.1


def test_a_class_without_boxes_gets_the_mean_and_five_thousand_boxes_their_own():
    rng = np.random.default_rng(2)
    cls = rng.permutation(np.repeat([0, 1, 2, 3], [5000, 5000, 5000, 5]))
    cls = cls[: len(cls) // 20 * 20]
    data = simulate(rng, len(cls) // 20, [0.5, 1.0, 1.5, 1.0], [0.5, 0.0, -0.5, 0.0], cls=cls, n_classes=4)
    pooled = fit_pooled(affine_features(data.z), data.iou, None, data.cls, 5, data.image)
    assert np.allclose(pooled.theta[4], pooled.mean, atol=1e-9)
    assert pooled.own[4] == pytest.approx(0, abs=1e-9)
    own = fit_logistic(affine_features(data.z), data.iou, cls=data.cls, n_classes=5, start=pooled.theta)
    assert np.allclose(pooled.theta[:3], own.theta[:3], atol=0.05)
    assert pooled.own[:3].min() > 0.9


@pytest.mark.parametrize("kind", ["platt", "temperature"])
def test_two_classes_of_one_map_are_enough_to_pool(kind):
    data = simulate(np.random.default_rng(4), 100, 0.7, 0.0, n_classes=2)
    pooled = fit_pooled(affine_features(data.z, kind), data.iou, None, data.cls, 2, data.image)
    ends = pooled.interval()
    assert np.isfinite(ends).all()
    assert (ends[:, 0, 0] < 0.7).all()
    assert (ends[:, 0, 1] > 0.7).all()


def test_boxes_that_repeat_each_other_within_an_image_count_once():
    data = simulate(np.random.default_rng(5), 400, [0.6, 0.8, 1.0], 0.0, n_classes=3)
    features = affine_features(data.z)
    once = fit_pooled(features, data.iou, None, data.cls, 3, data.image)
    rows = np.tile(np.arange(len(data.z)), 4)
    again = fit_pooled([f[rows] for f in features], data.iou[rows], None, data.cls[rows], 3, data.image[rows])
    widths = [np.sqrt(np.diagonal(p.covariance, axis1=1, axis2=2)) for p in (once, again)]
    assert np.allclose(widths[1], widths[0], rtol=0.15)
