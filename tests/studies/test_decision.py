# SPDX-License-Identifier: AGPL-3.0-or-later
"""A study's decision follows its rules, and is as seldom wrong as scripts/check_decisions.py says."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from scipy import stats
from study_scene import made_up

from det_ls.studies.decision import Decision, Outcome, Route, Status, decide
from det_ls.studies.mean_tests import seeds_needed
from det_ls.studies.records import Arm, Cell, CellResult, Condition, Measured, State
from det_ls.studies.statistics import AP, GAP, SQUARED, Against, study_numbers

SCRIPT = Path(__file__).parents[2] / "scripts" / "check_decisions.py"
NOISE = np.array([0.6, -1.1, 0.2, 1.3, -1.0])
STOCK = {"ap": 0.4, "gap": 0.15, "platt": 0.01}


@pytest.fixture(scope="module")
def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("check_decisions", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["check_decisions"] = module
    spec.loader.exec_module(module)
    return module


def decided(arms: Mapping[str, Mapping[str, float]], *, sd: float = 0.002, seeds: int = 5, **stock: float) -> Decision:
    """Decide a study whose arms have these means and noise of this size."""
    results = []
    for place, (eps, found) in enumerate({"0": {}, **arms}.items()):
        truth = STOCK | stock | dict(found)
        for seed in range(seeds):
            noise = sd * NOISE[(seed * (place + 1) + place) % 5]
            val, platt = (
                {AP: truth["ap"] + noise, GAP: g + noise, SQUARED: truth.get("squared", 0.01) + noise / 10}
                for g in (truth["gap"], truth["platt"])
            )
            results.append(CellResult(Cell(Condition(), Arm(eps), seed), State.DONE, Measured(val, val, platt)))
    return decide(study_numbers(results)[0])


def test_an_arm_that_finds_more_is_used_with_a_map() -> None:
    made = decided({"0.1": {"ap": 0.43, "gap": 0.10}, "0.3": {"ap": 0.40, "gap": 0.05}})
    assert made.outcome is Outcome.USE
    assert made.arm is not None
    assert (made.arm.arm, made.route) == (Arm("0.1"), Route.BOXES)
    assert made.platt_helps


def test_an_arm_as_calibrated_as_the_rival_is_used_for_its_scores() -> None:
    made = decided({"0.1": {"ap": 0.40, "gap": 0.012}})
    assert made.outcome is Outcome.USE
    assert made.route is Route.SCORES


def test_no_arm_beats_platt() -> None:
    made = decided({"0.1": {"ap": 0.401, "gap": 0.10}, "0.3": {"ap": 0.398, "gap": 0.08}})
    assert made.outcome is Outcome.CALIBRATE
    assert [a.calibration_better.status for a in made.arms] == [Status.SHOWN] * 2
    assert [a.rival_calibration_better.status for a in made.arms] == [Status.REFUTED] * 2


def test_errors_that_cancel_each_other_in_the_gap_stop_a_recommendation() -> None:
    made = decided({"0.1": {"ap": 0.43, "gap": 0.012, "squared": 0.05}})
    assert made.outcome is Outcome.CALIBRATE
    assert made.arms[0].claims[0].requirements[0].status is Status.SHOWN


def test_higher_ap_at_the_price_of_calibration_that_a_map_cannot_mend_is_not_used() -> None:
    assert decided({"0.1": {"ap": 0.43, "gap": 0.2, "platt": 0.08}}).outcome is Outcome.CALIBRATE


def test_worse_arms_harm_and_equal_ones_keep_stock_where_platt_changes_nothing() -> None:
    nothing = {"gap": 0.012, "platt": 0.012}
    assert decided({"0.1": {"ap": 0.37}, "0.3": {"ap": 0.36}}, **nothing).outcome is Outcome.HARM
    assert decided({"0.1": {"ap": 0.37}, "0.3": {}}, **nothing).outcome is Outcome.KEEP_STOCK


def test_noise_asks_for_more_seeds_and_says_how_many() -> None:
    made = decided({"0.1": {"ap": 0.412, "gap": 0.1}}, sd=0.01, seeds=4)
    assert made.outcome is Outcome.TOO_FEW
    assert made.more_seeds is not None
    assert made.detectable is not None
    assert made.detectable > 0.012
    again = decided({"0.1": {"ap": 0.412, "gap": 0.1}}, sd=0.01, seeds=4 + made.more_seeds)
    assert again.outcome is Outcome.USE


def test_a_loss_asks_for_more_seeds_the_nearer_it_is_to_the_margin_and_none_would_do_beyond_it() -> None:
    needed = []
    for loss in (0.0, 0.012, 0.016, 0.021):
        made = decided({"0.1": {"ap": 0.44, "gap": 0.1, "platt": 0.012 + loss}}, sd=0.02, platt=0.012, seeds=5)
        (gap,) = [r for r in made.arms[0].claims[0].requirements if r.key == GAP]
        assert gap.status is Status.OPEN
        needed.append(gap.needed)
    assert needed[0] is not None
    assert needed[0] < (needed[1] or 999) < (needed[2] or 999)
    assert needed[3] is None


def test_an_arm_that_varies_more_than_the_others_is_judged_by_its_own_degrees_of_freedom(script: ModuleType) -> None:
    wild, seldom = script.WORLDS["ruined_wild_6"][0], 0.02
    assert script.outcomes(wild, 60)[Outcome.USE] <= 60 * seldom
    rng = np.random.default_rng(0)
    noise = {
        arm: rng.normal(0, sd, 5) for arm, sd in (("0", 0.01), ("0.1", 0.3), *((f"0.{i}", 0.03) for i in (2, 3, 4)))
    }
    results = [
        CellResult(Cell(Condition(), Arm(arm), s), State.DONE, Measured({AP: 0.4 + own[s]}, {}, {}))
        for arm, own in noise.items()
        for s in range(5)
    ]
    for arm in study_numbers(results)[0].arms:
        one = arm.against[Against.STOCK][AP]
        own = np.std(noise[arm.arm.label_smoothing] - noise["0"], ddof=1)
        assert one.unlike == (arm.arm.label_smoothing == "0.1")
        (asked,) = [r for r in decide(study_numbers(results)[0]).arms if r.arm == arm.arm]
        if one.unlike:
            # the oracle: what scipy says of these pairs alone, doubled at least by Holm over four arms and two ways
            p = stats.ttest_1samp(noise["0.1"] - noise["0"], -0.01, alternative="greater").pvalue
            assert asked.ap_not_worse.p == pytest.approx(p)
        else:
            assert asked.ap_not_worse.p == pytest.approx(
                stats.t.sf((one.mean + 0.01) / (max(own, one.common_sd) / np.sqrt(5)), one.df)
            )


@pytest.mark.parametrize("seeds", [0, 1])
def test_without_a_second_pair_nothing_is_decided(seeds: int) -> None:
    made = decided({"0.1": {"ap": 0.6, "gap": 0.0}}, seeds=seeds) if seeds else decided({})
    assert made.outcome is Outcome.TOO_FEW
    assert made.more_seeds is None


def test_a_study_without_stock_decides_nothing() -> None:
    cell = Cell(Condition(), Arm("0.1"), 0)
    made = decide(study_numbers([CellResult(cell, State.DONE, Measured({AP: 1.0}, {}, {}))])[0])
    assert made.outcome is Outcome.TOO_FEW


def test_needed_seeds_have_the_power_that_scipy_and_simulation_say() -> None:
    n = seeds_needed(0.01, 0.012, 0.025)
    assert n is not None
    x = np.random.default_rng(0).normal(0.01, 0.012, (4000, n))
    power = np.mean(stats.ttest_1samp(x, 0, axis=1, alternative="greater").pvalue <= 0.025)
    assert 0.78 < power < 0.87
    short = stats.ttest_1samp(x[:, :-1], 0, axis=1, alternative="greater").pvalue <= 0.025
    assert np.mean(short) < 0.81


@pytest.mark.parametrize("world", ["nothing_1", "nothing_6", "no_map_6", "ruined_1", "ruined_6"])
def test_what_deserves_no_recommendation_seldom_gets_one(script: ModuleType, world: str) -> None:
    found = script.outcomes(script.WORLDS[world][0], 60)
    assert found[Outcome.USE] <= (0 if "ruined" in world else 6)  # 7 or more of 60 at a rate of 5%: 1 time in 40


@pytest.mark.parametrize("world", ["ap_1", "ap_6", "both_6", "gap_1"])
def test_two_standard_deviations_are_found_with_five_seeds(script: ModuleType, world: str) -> None:
    assert script.outcomes(script.WORLDS[world][0], 60)[Outcome.USE] >= 42  # fewer at a rate of 80%: 1 time in 40


def test_runs_that_find_nothing_decide_nothing() -> None:
    found = []
    for r in made_up(seeds=range(2)):
        measured = r.measured and replace(r.measured, val={"AP": 0.0}, train={"AP": 0.0}, platt={}, reliability={})
        found.append(replace(r, measured=measured))
    assert [decide(one).outcome for one in study_numbers(found)] == [Outcome.NOTHING] * 2
    one = next(i for i, r in enumerate(found) if r.measured)
    found[one] = replace(found[one], measured=replace(found[one].measured, val={"AP": 0.01}))
    assert decide(study_numbers(found)[0]).outcome is Outcome.TOO_FEW
