# SPDX-License-Identifier: AGPL-3.0-or-later
"""Cross-fitting: no map sees the images that it calibrates, and calibrating a calibrated detector does no harm."""

from __future__ import annotations

import numpy as np
import pytest
from plain_formulas import per_class_calibration_error
from simulation import simulate

from det_ls.calibration.crossfit import cross_fitted, folds_by_group
from det_ls.calibration.maps import sigmoid
from det_ls.calibration.methods import Recipe, Sample, fit, weights


def test_a_group_lies_in_one_fold_and_every_fold_has_groups():
    groups = np.random.default_rng(0).integers(40, size=1000)
    fold = folds_by_group(groups, 5, seed=3)
    assert all(len(np.unique(fold[groups == g])) == 1 for g in range(40))
    assert np.bincount([fold[groups == g][0] for g in range(40)]).tolist() == [8] * 5
    assert not np.array_equal(fold, folds_by_group(groups, 5, seed=4))


def test_no_map_sees_the_groups_that_it_calibrates():
    groups = np.array([0, 1, 0, 2, 1, 3])
    fold = folds_by_group(groups, 3)
    seen = []

    def remember(rows):
        seen.append(set(groups[rows].tolist()))
        known = seen[-1]
        return lambda z, cls: np.array([float(int(v) in known) for v in z])

    scores = cross_fitted(groups.astype(float), np.zeros(6, int), fold, remember)
    assert (scores == 0).all()
    assert set.union(*seen) == {0, 1, 2, 3}


@pytest.mark.parametrize(("groups", "folds"), [(np.zeros(5, int), 5), (np.arange(5), 1)])
def test_too_few_groups_or_folds_are_refused(groups, folds):
    with pytest.raises(ValueError, match="expected at least 2"):
        folds_by_group(groups, folds)


@pytest.mark.parametrize(("weighting", "per_class"), [("score", False), ("score", True), ("all", False)])
def test_calibrating_a_calibrated_detector_does_no_harm(weighting, per_class):
    """200 images of 4 objects (COCO has 7); the error of three classes, of as many boxes as there are objects."""
    rng = np.random.default_rng(1)
    recipe = Recipe(weighting=weighting, per_class=per_class)
    classes = ("a", "b", "c")
    harm = []
    for _ in range(20):
        data = simulate(rng, 200, n_classes=3, per_image=40)
        sample = Sample(data.z, data.iou, weights(sigmoid(data.z), weighting), data.cls, data.image, classes)
        one = fit(sample, recipe).map
        fresh = simulate(rng, 5000, n_classes=3, per_image=40)
        kept = fresh.z >= np.sort(fresh.z)[-int(fresh.iou.sum())]
        target, cls = fresh.iou[kept], fresh.cls[kept]
        before, after = (
            per_class_calibration_error(s[kept], target, cls, 3).mean()
            for s in (sigmoid(fresh.z), one(fresh.z, fresh.cls))
        )
        harm.append(after - before)
    assert np.mean(harm) <= 0.005, np.mean(harm)
