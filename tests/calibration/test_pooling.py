# SPDX-License-Identifier: AGPL-3.0-or-later
"""Partial pooling: better than one map for all and than each class alone, whatever the sizes of the classes."""

from __future__ import annotations

import numpy as np
import pytest
from simulation import simulate

from det_ls.calibration.fit import affine_features, fit_logistic
from det_ls.calibration.maps import sigmoid
from det_ls.calibration.pooling import fit_pooled

SIZES = (5, 50, 500)
CLASSES = 30


def errors(theta, a, b) -> np.ndarray:
    """Mean squared error of the calibrated score of each class, over logits that matter."""
    z = np.linspace(-4, 3, 50)
    fitted = sigmoid(theta[:, :1] * z + theta[:, 1:])
    return ((fitted - sigmoid(a[:, None] * z + b[:, None])) ** 2).mean(1)


@pytest.fixture(scope="module")
def studied():
    """Errors (repeats, maps, classes) of the shared, own and pooled fits; the pooled fits' own shares and coverage."""
    rng = np.random.default_rng(3)
    sizes = np.repeat(SIZES, CLASSES // len(SIZES))
    cls = np.repeat(np.arange(CLASSES), sizes)
    cls = np.concatenate([cls, np.zeros(-len(cls) % 20, np.int64)])
    found, own, covered = [], [], []
    for _ in range(60):
        a, b = rng.lognormal(-0.2, 0.25, CLASSES), rng.normal(-0.3, 0.4, CLASSES)
        data = simulate(rng, len(cls) // 20, a, b, cls=rng.permutation(cls), n_classes=CLASSES)
        features = affine_features(data.z)
        shared = fit_logistic(features, data.iou, groups=data.image)
        # A class of 5 boxes may have no best map of its own: a prior that is next to none gives it one.
        alone = fit_logistic(
            features,
            data.iou,
            cls=data.cls,
            n_classes=CLASSES,
            prior_mean=shared.theta[0],
            prior_precision=1e-3 * np.eye(2),
        )
        pooled = fit_pooled(features, data.iou, None, data.cls, CLASSES, data.image)
        maps = (np.tile(shared.theta, (CLASSES, 1)), alone.theta, pooled.theta)
        found.append([errors(theta, a, b) for theta in maps])
        own.append(pooled.own)
        away = pooled.theta - np.stack([a, b], 1)
        covered.append(np.abs(away) <= 1.96 * np.sqrt(np.diagonal(pooled.covariance, axis1=1, axis2=2)))
    return np.array(found), np.array(own), sizes, np.array(covered)


@pytest.mark.parametrize("size", SIZES)
def test_pooling_has_a_lower_error_than_the_shared_and_the_own_map(studied, size):
    found, _, sizes, _ = studied
    shared, alone, pooled = found[:, :, sizes == size].mean((0, 2))
    assert pooled < shared, (shared, alone, pooled)
    assert pooled < alone, (shared, alone, pooled)


def test_a_class_of_few_boxes_gets_the_shared_map_and_one_of_many_its_own(studied):
    _, own, sizes, _ = studied
    few, some, many = (own[:, sizes == size].mean() for size in SIZES)
    assert few < 0.25, few
    assert few < some < many
    assert many > 0.6, many


@pytest.mark.parametrize("size", SIZES)
def test_a_class_map_lies_in_its_interval_at_least_at_the_documented_rate(studied, size):
    _, _, sizes, covered = studied
    rates = covered[:, sizes == size].mean((0, 1))
    assert (rates > 0.82).all(), rates
    assert (rates < 0.99).all(), rates


def test_classes_that_do_not_differ_get_nearly_the_same_map():
    data = simulate(np.random.default_rng(1), 500, 0.8, -0.2, n_classes=10)
    pooled = fit_pooled(affine_features(data.z), data.iou, None, data.cls, 10, data.image)
    assert np.abs(pooled.theta - pooled.shared.theta).max() < 0.1


def test_a_class_without_boxes_gets_the_shared_map_and_five_thousand_boxes_their_own():
    rng = np.random.default_rng(2)
    cls = rng.permutation(np.repeat([0, 1, 2, 3], [5000, 5000, 5000, 5]))
    cls = cls[: len(cls) // 20 * 20]
    data = simulate(rng, len(cls) // 20, [0.5, 1.0, 1.5, 1.0], [0.5, 0.0, -0.5, 0.0], cls=cls, n_classes=4)
    pooled = fit_pooled(affine_features(data.z), data.iou, None, data.cls, 5, data.image)
    assert np.allclose(pooled.theta[4], pooled.shared.theta[0], atol=1e-9)
    assert pooled.own[4] == 0
    own = fit_logistic(affine_features(data.z), data.iou, cls=data.cls, n_classes=5, start=pooled.theta)
    assert np.allclose(pooled.theta[:3], own.theta[:3], atol=0.05)
    assert pooled.own[:3].min() > 0.9
