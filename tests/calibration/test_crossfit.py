# SPDX-License-Identifier: AGPL-3.0-or-later
"""Cross-fitting: no map sees the images that it calibrates, and calibrating a calibrated detector does no harm."""

from __future__ import annotations

import numpy as np
import pytest
from check_calibration import harm, kept_laece
from plain_formulas import per_class_calibration_error
from simulated_maps import simulate

from det_ls.calibration.crossfit import cross_fitted, folds_by_group
from det_ls.calibration.maps import sigmoid
from det_ls.calibration.methods import Recipe


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


@pytest.mark.parametrize("objects", [1, 2, 4])
def test_calibrating_a_calibrated_detector_does_no_harm(objects):
    """Kept-box LaECE0 of three classes on 5,000 fresh images, fitted on 200; shared maps and maps by class."""
    recipes = [Recipe(), Recipe(per_class=True), Recipe(weighting="all")]
    mean = harm(15, objects, recipes, seed=1).mean(0)
    assert (mean <= 0.005).all(), mean


def test_the_error_of_the_harm_is_that_of_the_paper():
    data = simulate(np.random.default_rng(2), 300, n_classes=3)
    kept = np.flatnonzero(data.z > 0)
    score = sigmoid(data.z)
    expected = per_class_calibration_error(score[kept], data.iou[kept], data.cls[kept], 3).mean()
    assert abs(kept_laece(data, score, kept) - expected) < 1e-12
