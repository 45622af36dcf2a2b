# SPDX-License-Identifier: AGPL-3.0-or-later
"""Comparisons over training seeds are scipy's, and multiplicity is Holm's."""

from __future__ import annotations

import numpy as np
import pytest
from hard_set import ordinary_set, plan_of
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from det_ls.metrics.matching import build_table
from det_ls.uncertainty.multiplicity import holm
from det_ls.uncertainty.paired import Verdict
from det_ls.uncertainty.samples import Sample, draw, sample_numbers
from det_ls.uncertainty.seeds import compare_seeds, t_interval


def sample(value: float) -> Sample:
    return Sample(value, value + np.linspace(-0.01, 0.01, 101))


def arm(values: list[float]) -> list[dict[tuple[str, str], Sample]]:
    return [{("all", "AP"): sample(v), ("kept", "recall"): sample(1 - v)} for v in values]


@pytest.mark.parametrize("paired", [True, False])
def test_the_interval_over_seeds_is_students(paired: bool) -> None:
    a, b = np.array([0.40, 0.42, 0.38, 0.41]), np.array([0.43, 0.46, 0.40, 0.45])
    difference, low, high, p = t_interval(a, b, paired=paired)
    if paired:
        d = b - a
        half = stats.t.ppf(0.975, 3) * d.std(ddof=1) / 2
        assert (low, high) == pytest.approx((d.mean() - half, d.mean() + half))
    assert difference == pytest.approx(0.0325)
    assert low < difference < high
    assert (p < 0.05) == (low > 0)


def test_a_difference_over_seeds_has_a_verdict_and_the_images_beside_it() -> None:
    found = compare_seeds(arm([0.40, 0.42, 0.38]), arm([0.45, 0.47, 0.43]), paired=True)
    ap = found["all", "AP"]
    assert ap.declared
    assert ap.verdict is Verdict.BETTER
    assert ap.images is not None
    assert found["kept", "recall"].adjusted is not None
    nothing = compare_seeds(arm([0.40, 0.42, 0.38]), arm([0.41, 0.40, 0.40]), paired=True)["all", "AP"]
    assert nothing.verdict is Verdict.NONE


def test_arms_need_two_runs_and_pairs_need_as_many() -> None:
    with pytest.raises(ValueError, match=r"b: expected at least 2 runs to compare over seeds, got 1\."):
        compare_seeds(arm([0.4, 0.5]), arm([0.4]), paired=False)
    with pytest.raises(ValueError, match=r"a, b: expected as many runs in both to pair them, got 2 and 3\."):
        compare_seeds(arm([0.4, 0.5]), arm([0.4, 0.5, 0.6]), paired=True)


def test_all_numbers_of_real_evaluations_are_compared() -> None:
    gt, detections = ordinary_set(0, n_images=20)
    noisy = [[{**d, "score": d["score"] * f} for d in detections] for f in (0.9, 0.95, 0.5, 0.55)]
    draws = draw(20, 100, 0)
    runs = [sample_numbers(plan_of(build_table(gt, d)), draws) for d in noisy]
    found = compare_seeds(runs[:2], runs[2:], paired=True)
    assert found["all", "signed_gap"].difference < -0.1
    assert {("all", "AP"), ("kept", "absolute_gap"), ("kept", "recall")} <= found.keys()


@given(st.lists(st.floats(0, 1), min_size=1, max_size=12))
@settings(max_examples=60, deadline=None)
def test_holm_is_the_step_down_of_bonferroni(p_values: list[float]) -> None:
    adjusted = holm(dict(enumerate(p_values)))
    order = np.argsort(p_values, kind="stable")
    expected = np.minimum(np.maximum.accumulate((len(p_values) - np.arange(len(p_values))) * np.sort(p_values)), 1)
    assert [adjusted[i] for i in order] == pytest.approx(expected.tolist())
