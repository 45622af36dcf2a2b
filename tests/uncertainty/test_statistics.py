# SPDX-License-Identifier: AGPL-3.0-or-later
"""The checks of scripts/check_statistics.py on few data sets: no verdict is far from the rate that it promises.

The tolerance is three standard deviations of a binomial count at the rate that is promised.
"""

from __future__ import annotations

import importlib.util
import math
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

SCRIPTS = Path(__file__).parents[2] / "scripts"


@pytest.fixture(scope="module")
def checks() -> ModuleType:
    sys.path.insert(0, str(SCRIPTS))
    spec = importlib.util.spec_from_file_location("check_statistics", SCRIPTS / "check_statistics.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["check_statistics"] = module
    spec.loader.exec_module(module)
    return module


def at_most(rate: float, data_sets: int) -> float:
    return rate + 3 * math.sqrt(rate * (1 - rate) / data_sets)


def test_junk_boxes_change_no_headline_verdict(checks: ModuleType) -> None:
    assert checks.junk(3, 100)["headline verdict changed"] == 0


def test_calibrated_detectors_of_different_sharpness_are_not_told_apart(checks: ModuleType) -> None:
    found = checks.sharpness(15, 100)
    assert found["absolute_gap"] <= at_most(0.05, 15)
    assert found["squared_error"] <= at_most(0.05, 15)


def test_calibrated_detectors_with_many_and_with_few_boxes_are_not_told_apart(checks: ModuleType) -> None:
    assert checks.kept_counts(12, 100)["absolute_gap"] <= at_most(0.05, 12)


def test_an_overconfident_detector_is_found(checks: ModuleType) -> None:
    found = checks.overconfident(8, 150)
    assert found["signed gap above 0"] >= 0.8
    assert found["absolute_gap worse"] >= 0.5


def test_exchangeable_detectors_do_not_differ(checks: ModuleType) -> None:
    found = checks.exchangeable(8, 100)
    assert max(found.values()) <= at_most(0.05, 8)


def test_intervals_cover_and_hold_their_estimate(checks: ModuleType) -> None:
    found = checks.coverage(8, 100)
    assert found.pop("intervals without their own estimate") == 0
    assert min(found.values()) >= 1 - at_most(0.08, 8)


def test_groups_have_to_be_drawn_together(checks: ModuleType) -> None:
    found = checks.groups(20, 100)
    assert found["intra-group correlation of the gap"] == pytest.approx(0.5, abs=0.15)
    right, wrong = (found[f"coverage of the signed gap, {name} drawn"] for name in ("groups", "images"))
    assert right >= 1 - at_most(0.06, 20)
    assert wrong < right


def test_cross_fitting_is_honest_where_choosing_on_the_same_images_is_not(checks: ModuleType) -> None:
    found = checks.thresholds(12, 0)
    for kind in ("common", "by_class"):
        honest = found[f"{kind}: LRP, cross-fitted minus new images"]
        assert abs(honest) <= 3 * found[f"{kind}: LRP, cross-fitted minus new images, standard error"]
        assert found[f"{kind}: LRP, in-sample minus new images"] < honest


def test_no_interval_leaves_what_its_number_can_be():
    from det_ls.metrics.catalogue import KEPT, NUMBERS
    from det_ls.uncertainty.bootstrap import interval_of
    from det_ls.uncertainty.samples import Sample

    wide = np.random.default_rng(0).normal(0.0, 1.0, 1000)
    ends = {}
    for key, value in (("precision", 0.02), ("recall", 0.98), ("nll", 0.7), ("squared_error", 0.01)):
        found = interval_of(Sample(value, value + wide), KEPT[key], 0.95)
        ends[key] = (found.low, found.high)
    assert ends["precision"][0] == 0.0
    assert ends["recall"][1] == 1.0
    assert ends["nll"][0] == 0.0
    assert ends["nll"][1] > 1.0
    assert ends["squared_error"][0] < 0.0  # its estimate is unbiased, so it can be negative
    gap = interval_of(Sample(0.1, 0.1 + wide), NUMBERS["signed_gap"], 0.95)
    assert gap.low < 0.0
