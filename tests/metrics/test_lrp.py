# SPDX-License-Identifier: AGPL-3.0-or-later
"""LRP follows its formula, and its optimum is the best of all thresholds."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hard_set import hard_set, ordinary_set
from hypothesis import given, settings
from hypothesis import strategies as st

from det_ls.metrics.lrp import lrp, optimal_lrp
from det_ls.metrics.matching import build_table
from det_ls.metrics.protocols import get_protocol, lrp_optimal_mask

BOX = [0, 0, 10, 10]
GT = {
    "images": [{"id": 1}],
    "categories": [{"id": 1, "name": "cat"}],
    "annotations": [
        {"id": 1, "image_id": 1, "category_id": 1, "bbox": BOX},
        {"id": 2, "image_id": 1, "category_id": 1, "bbox": [50, 0, 10, 10]},
    ],
}


def detection(score: float, box: list[float] | None = None) -> dict[str, object]:
    return {"image_id": 1, "category_id": 1, "bbox": box or BOX, "score": score}


def test_lrp_by_hand() -> None:
    # One hit of IoU 0.8, one false positive, one object missed: (0.2 / 0.5 + 1 + 1) / 3.
    table = build_table(GT, [detection(0.9, [0, 0, 10, 8]), detection(0.4, [200, 0, 5, 5])])
    found = lrp(table, table.matches(0.5)).mean()
    assert found == pytest.approx({"LRP": 2.4 / 3, "Loc": 0.2, "FP": 0.5, "FN": 0.5}, abs=1e-12)


def test_the_optimum_drops_the_false_positive() -> None:
    table = build_table(GT, [detection(0.9, [0, 0, 10, 8]), detection(0.4, [200, 0, 5, 5])])
    best = optimal_lrp(table, table.matches(0.5))
    assert best.threshold.tolist() == [0.9]
    assert best.mean() == pytest.approx({"LRP": 1.4 / 2, "Loc": 0.2, "FP": 0.0, "FN": 0.5}, abs=1e-12)


def test_perfect_detections_have_error_0() -> None:
    table = build_table(GT, [detection(0.9), detection(0.7, [50, 0, 10, 10])])
    best = optimal_lrp(table, table.matches(0.5))
    assert (best.lrp.tolist(), best.threshold.tolist()) == ([0.0], [0.7])


def test_equal_scores_stand_or_fall_together() -> None:
    table = build_table(GT, [detection(0.5, [200, 0, 5, 5]), detection(0.5), detection(0.5, [300, 0, 5, 5])])
    best = optimal_lrp(table, table.matches(0.5))
    assert (best.n_tp.tolist(), best.n_fp.tolist()) == ([1.0], [2.0])
    assert optimal_lrp(table, table.matches(0.5), split_ties=True).n_fp.tolist() == [1.0]


def test_a_class_without_a_hit_has_no_threshold_and_error_1() -> None:
    table = build_table(GT, [detection(0.9, [200, 0, 5, 5])])
    best = optimal_lrp(table, table.matches(0.5))
    assert best.lrp.tolist() == [1.0]
    assert np.isnan(best.threshold).all()


@pytest.mark.parametrize("tau", [0.0, 0.1, 0.5, 0.75])
@pytest.mark.parametrize("make", [hard_set, ordinary_set])
@given(seed=st.integers(0, 200))
@settings(max_examples=5, deadline=None)
def test_no_threshold_beats_the_optimum(make: Any, tau: float, seed: int) -> None:
    table = build_table(*make(seed))
    best = optimal_lrp(table, table.matches(tau))
    at_best = table.filter(lrp_optimal_mask(table, best.threshold, get_protocol("det_ls")))
    assert lrp(at_best, at_best.matches(tau)).lrp == pytest.approx(best.lrp, abs=1e-12, nan_ok=True)
    errors = []
    for threshold in np.unique(table.score):
        kept = table.filter(table.score >= threshold)
        errors.append(lrp(kept, kept.matches(tau)).lrp)
    brute = np.fmin.reduce([*errors, np.where(table.has_gt, 1.0, np.nan)])
    assert best.lrp == pytest.approx(brute, abs=1e-12, nan_ok=True)
