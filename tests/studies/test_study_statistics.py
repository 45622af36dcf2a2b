# SPDX-License-Identifier: AGPL-3.0-or-later
"""The statistics over seeds equal scipy's, and count only pairs of which both runs have a number."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy import stats
from study_scene import ARMS, made_up

from det_ls.studies.mean_tests import p_sign_flip
from det_ls.studies.records import Arm, CellResult, Measured, State
from det_ls.studies.statistics import (
    AP,
    GAP,
    Against,
    common_sd,
    seed_difference,
    seed_mean,
    study_numbers,
)
from det_ls.uncertainty.multiplicity import holm
from det_ls.uncertainty.paired import Verdict


def drawn(n: int, rng: int = 0) -> dict[int, float]:
    return dict(enumerate(np.random.default_rng(rng).normal(0.4, 0.02, n).tolist()))


@pytest.mark.parametrize("n", [2, 5, 12])
def test_means_and_differences_are_scipys(n: int) -> None:
    a, b = drawn(n), drawn(n, 1)
    x, y = (np.array(list(v.values())) for v in (a, b))
    mean, whole = seed_mean(a), stats.ttest_1samp(x, 0).confidence_interval(0.95)
    assert (mean.mean, mean.low, mean.high) == pytest.approx((x.mean(), whole.low, whole.high))
    found, test = seed_difference("AP", a, b), stats.ttest_rel(y, x)
    span = test.confidence_interval(0.95)
    assert (found.p, found.low, found.high) == pytest.approx((test.pvalue, span.low, span.high))
    exact = stats.permutation_test((y, x), lambda p, q, axis: (p - q).mean(axis), permutation_type="samples", axis=0)
    assert found.p_flip == pytest.approx(exact.pvalue)


def test_many_sign_flips_are_drawn_and_near_the_t_test() -> None:
    x = np.random.default_rng(3).normal(0.2, 1, 60)
    assert p_sign_flip(x) == p_sign_flip(x)
    assert p_sign_flip(x) == pytest.approx(stats.ttest_1samp(x, 0).pvalue, abs=0.02)


def test_equal_runs_differ_by_nothing_and_a_single_pair_shows_nothing() -> None:
    same = seed_difference("AP", drawn(5), drawn(5))
    assert (same.p, same.p_flip, same.low, same.high) == (1, 1, 0, 0)
    one = seed_difference("AP", {0: 0.1}, {0: 0.2, 1: 0.3})
    assert (one.n, one.p) == (1, 1)
    assert np.isnan(one.low)


def test_the_common_spread_is_that_of_a_block_design_with_and_without_gaps() -> None:
    rng = np.random.default_rng(5)
    arms = [dict(enumerate(rng.normal(size=6))) for _ in range(4)]
    y = np.array([list(a.values()) for a in arms])
    # Two-way analysis of variance without replication: what rows and columns leave.
    left = (
        ((y - y.mean()) ** 2).sum() - 6 * ((y.mean(1) - y.mean()) ** 2).sum() - 4 * ((y.mean(0) - y.mean()) ** 2).sum()
    )
    assert common_sd(arms) == pytest.approx((np.sqrt(2 * left / 15), 15))
    assert common_sd([*arms[:3], {}]) == pytest.approx(common_sd(arms[:3]))
    for a in arms[1:]:
        del a[2]
    found = common_sd(arms)  # a seed of one arm alone says nothing of differences
    assert found == pytest.approx(common_sd([{s: v for s, v in a.items() if s != 2} for a in arms]))
    assert common_sd([{0: 1.0}, {0: 2.0}]) is None


def test_only_pairs_that_both_exist_count() -> None:
    results = made_up(failed=[("redistribute 0.1", 1), ("stock", 4)])
    noisy = study_numbers(results)[1]
    assert noisy.stock is not None
    assert noisy.stock.failed == (4,)
    by_name = {a.arm.name: a for a in noisy.arms}
    assert set(by_name["redistribute 0.1"].against[Against.STOCK][AP].values) == {0, 2, 3}
    assert by_name["redistribute 0.1"].val[AP].n == 4
    assert by_name["redistribute 0.3"].against[Against.RIVAL][GAP].n == 4
    one = by_name["redistribute 0.3"].against[Against.RIVAL][GAP]
    platt = {r.cell.seed: r for r in results if r.cell.arm.stock and r.cell.condition == noisy.condition}
    arm = {r.cell.seed: r for r in results if r.cell.arm == Arm("0.3") and r.cell.condition == noisy.condition}
    assert platt[0].measured is not None
    assert arm[0].measured is not None
    assert one.values[0] == pytest.approx(arm[0].measured.val[GAP] - platt[0].measured.platt[GAP])


def test_declared_numbers_stand_alone_and_all_others_are_adjusted_over_arms_and_numbers() -> None:
    clean = study_numbers(made_up())[0]
    rows = {(a.arm, key): d for a in clean.arms for key, d in a.against[Against.STOCK].items()}
    assert all(d.adjusted == d.p for (_, key), d in rows.items() if key in (AP, GAP))
    judged = {k: d.p for k, d in rows.items() if k[1] not in (AP, GAP) and d.adjusted is not None}
    assert {key for _, key in judged} == {
        "AP50",
        "oLRP",
        *(f"kept.{k}" for k in ("signed_gap", "squared_error", "brier", "precision", "recall")),
    }
    assert {k: rows[k].adjusted for k in judged} == pytest.approx(holm(judged))
    assert {rows[a, "kept.DECE"].verdict for a in ARMS[1:]} == {Verdict.UNJUDGED}


def test_a_number_that_some_run_lacks_is_undefined_there_alone() -> None:
    results = made_up()
    first = results[0]
    assert first.measured is not None
    bad = replace(first.measured, val={**first.measured.val, GAP: float("nan")})
    stock = study_numbers([replace(first, measured=bad), *results[1:]])[0].stock
    assert stock is not None
    assert (stock.val[GAP].n, stock.val[AP].n, stock.platt[GAP].n) == (4, 5, 5)


def test_modes_of_stock_are_one_arm() -> None:
    made = [r for r in made_up() if r.cell.arm.stock]
    renamed = [replace(r, cell=replace(r.cell, arm=Arm("0", "background"))) for r in made[:2]]
    found = study_numbers([*renamed, *made[2:]])
    assert [len(one.arms) for one in found] == [0, 0]
    assert found[0].stock is not None
    assert found[0].stock.val[AP].n == 5


def test_waiting_cells_count_nowhere() -> None:
    results = [CellResult(r.cell, State.WAITING) for r in made_up()]
    stock = study_numbers(results)[0].stock
    assert stock is not None
    assert (stock.done, stock.val) == ((), {})
    assert Measured({}, {}, {}).reliability == {}
