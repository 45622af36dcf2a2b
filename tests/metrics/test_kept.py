# SPDX-License-Identifier: AGPL-3.0-or-later
"""The boxes a user keeps: chosen without the images they are judged on, and measured as all boxes are."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hard_set import hard_set, ordinary_set, plan_of, repeat_images

from det_ls.evaluation.measure import detection_metrics
from det_ls.metrics.catalogue import KEPT, table_numbers
from det_ls.metrics.grid import THRESHOLDS, Grid, bin_starts, cell_index
from det_ls.metrics.kept import KeptPlan, kept_numbers, kept_table
from det_ls.metrics.lrp import lrp
from det_ls.metrics.matching import build_table
from det_ls.metrics.protocols import get_protocol
from det_ls.metrics.recoverable import cross_fitted_platt
from det_ls.metrics.thresholds import ThresholdRule, fixed_rule, image_folds, recommend
from det_ls.metrics.unbiased import UnbiasedError
from det_ls.metrics.weighted import once
from det_ls.uncertainty.samples import image_weights

DET_LS = get_protocol("det_ls")


@pytest.mark.parametrize("protocol", ["det_ls", "reference"])
@pytest.mark.parametrize("make", [hard_set, ordinary_set])
def test_numbers_of_the_kept_boxes_are_those_of_all_boxes_on_the_kept_ones(make: Any, protocol: str) -> None:
    table, rules = build_table(*make(4, n_images=30)), get_protocol(protocol)
    plan = plan_of(table, protocol)
    found = {key: values[0] for key, values in kept_numbers(plan, once(table)).overall.items()}
    expected = table_numbers(kept_table(plan), rules)
    for key in ("DECE", "signed_gap", "signed_gap_iou", "LaECE0", "LRP", "brier", "nll", "precision", "mean_score"):
        assert found[key] == pytest.approx(expected[key], abs=1e-9, nan_ok=True), key
    kept = kept_table(plan)
    matches = rules.matches(kept, 0.5)
    assert found["recall"] == pytest.approx((matches.tp & rules.counted(kept, matches)).sum() / table.n_gt.sum())


def test_a_threshold_never_sees_the_images_that_it_is_judged_on() -> None:
    gt, detections = ordinary_set(1, n_images=30)
    plan = plan_of(build_table(gt, detections))
    fold = plan.grid.fold
    ids = [i for i, f in zip(plan.grid.table.image_ids, fold, strict=True) if f == 0]
    # Whatever happens to the scores of fold 0, its own thresholds stay; those of the other folds may move.
    changed = [{**d, "score": 0.99 - d["score"]} if d["image_id"] in ids else d for d in detections]
    other = build_table(gt, changed)
    places = []
    for table in (plan.grid.table, other):
        grid = Grid(table, DET_LS, fold)
        (_, sums), *_ = grid.sums(once(table))
        places.append(ThresholdRule(fold, kind="by_class").cells(sums))
    assert (places[0][:, 0] == places[1][:, 0]).all()
    assert (places[0][:, 1:] != places[1][:, 1:]).any()


def test_the_common_threshold_has_the_smallest_lrp_of_all_thresholds() -> None:
    table = build_table(*ordinary_set(2, n_images=30))
    _, chosen = recommend(Grid(table, DET_LS, image_folds(np.arange(30))), kind="common")
    errors = []
    for threshold in THRESHOLDS:
        kept = table.filter(table.score > threshold) if threshold else table
        errors.append(lrp(kept, kept.matches(0.5)).mean()["LRP"])
    best = int(np.flatnonzero(np.isclose(errors, min(errors), atol=1e-12))[-1])
    assert chosen.common == THRESHOLDS[best]


def test_a_dear_miss_lowers_the_threshold_and_a_cheap_one_raises_it() -> None:
    grid = Grid(build_table(*ordinary_set(2, n_images=40)), DET_LS, image_folds(np.arange(40)))
    cheap, usual, dear = (recommend(grid, miss_cost=cost, kind="common")[1].common for cost in (0.2, 1.0, 8.0))
    assert dear < usual < cheap


def test_the_kind_is_recommended_by_the_error_that_the_miss_cost_weighs() -> None:
    kinds = set()
    for seed in range(12):
        grid = Grid(build_table(*ordinary_set(seed, n_images=40)), DET_LS, image_folds(np.arange(40)))
        for cost in (0.2, 6.0):
            (_, sums), *_ = grid.sums(once(grid.table))
            weighted = {}
            for kind in ("common", "by_class"):
                place = ThresholdRule(grid.fold, cost, kind).cells(sums)[:, :, 0]
                kept = grid.table.filter(grid.cell >= place[grid.table.cls, grid.fold[grid.table.image]])
                found = lrp(kept, kept.matches(0.5))
                missed = found.n_gt - found.n_tp
                loose = np.nan_to_num(found.loc) * found.n_tp / 0.5
                weighted[kind] = np.mean(
                    (loose + found.n_fp + cost * missed) / (found.n_tp + found.n_fp + cost * missed)
                )
            _, chosen = recommend(grid, miss_cost=cost)
            assert chosen.lrp_common == pytest.approx(weighted["common"], abs=1e-12)
            assert chosen.lrp_by_class == pytest.approx(weighted["by_class"], abs=1e-12)
            assert chosen.kind == ("by_class" if weighted["by_class"] < weighted["common"] else "common")
            kinds.add(chosen.kind)
    assert kinds == {"common", "by_class"}


def test_a_class_with_few_objects_takes_the_common_threshold() -> None:
    gt, detections = ordinary_set(3, n_images=40)
    keep = [a for a in gt["annotations"] if a["category_id"] != 3 or a["image_id"] <= 4]
    table = build_table({**gt, "annotations": keep}, detections)
    _, chosen = recommend(Grid(table, DET_LS, image_folds(np.arange(40))), kind="by_class")
    assert chosen.few.tolist() == [False, False, True]
    assert chosen.by_class[2] == chosen.common


def test_groups_stay_in_one_fold() -> None:
    group = np.repeat(np.arange(12), 5)
    fold = image_folds(group, seed=3)
    assert all(len(set(fold[group == g])) == 1 for g in range(12))
    assert set(fold) == set(range(5))
    assert len(set(image_folds(np.zeros(7, int)))) == 1


@pytest.mark.parametrize("score", [0.0, 0.0005, 0.01, 0.05, 0.3, 0.305, 0.999, 1.0])
def test_a_threshold_keeps_what_conf_keeps_in_ultralytics(score: float) -> None:
    for place, threshold in enumerate(THRESHOLDS[1:], start=1):
        assert (cell_index([score])[0] >= place) == (score > threshold)


@pytest.mark.parametrize("bins", [20, 25])
def test_bins_are_unions_of_cells(bins: int) -> None:
    starts = bin_starts(bins)
    assert THRESHOLDS[starts] == pytest.approx(np.arange(bins) / bins)


def test_a_given_threshold_is_used_as_it_is() -> None:
    gt, detections = ordinary_set(2, n_images=20)
    result = detection_metrics(gt, detections, threshold=0.3, simulations=0)
    table = result.table
    assert (result.kept.keep == (table.score > 0.3)).all()
    assert result.kept.thresholds.kind == "fixed"
    rule, chosen = fixed_rule(table, np.array([0.2, 0.3, 0.45]), image_folds(np.arange(20)))
    plan = KeptPlan(Grid(table, DET_LS, rule.fold), rule, np.arange(20))
    assert (plan.kept() == (table.score > np.array([0.2, 0.3, 0.45])[table.cls])).all()
    assert chosen.used.tolist() == [0.2, 0.3, 0.45]


def test_a_replicate_of_the_kept_numbers_equals_a_new_evaluation_of_the_repeated_images() -> None:
    gt, detections = ordinary_set(0, n_images=20)
    table = build_table(gt, detections)
    plan = plan_of(table)
    weights = image_weights(20, 1, 5)
    found = kept_numbers(plan, weights).overall
    copies = dict(zip(table.image_ids, weights[:, 0].tolist(), strict=True))
    repeated = build_table(*repeat_images(gt, detections, copies))
    fold = np.concatenate([np.repeat(plan.grid.fold[i], weights[i, 0]) for i in range(20)])
    again = kept_numbers(
        KeptPlan(Grid(repeated, DET_LS, fold), ThresholdRule(fold, kind=plan.rule.kind), np.arange(20)), once(repeated)
    ).overall
    for key in set(found) - {"squared_error"}:  # of which copies of one image are not independent
        assert found[key] == pytest.approx(again[key], abs=1e-9), key


def test_every_kept_number_is_in_the_catalogue_and_the_other_way_round() -> None:
    plan = plan_of(build_table(*ordinary_set()))
    assert kept_numbers(plan, once(plan.grid.table)).overall.keys() == KEPT.keys()
    result = detection_metrics(*ordinary_set())
    assert result.kept.values.keys() == result.kept.definitions.keys() == KEPT.keys()
    assert set(result.kept.floors) == {key for key, number in KEPT.items() if number.floor}


def test_the_platt_map_is_scikit_learns() -> None:
    linear = pytest.importorskip("sklearn.linear_model")
    rng = np.random.default_rng(0)
    score = np.repeat((np.arange(30) + 0.5) / 30, 200)
    hit = rng.random(len(score)) < score**1.7
    fold = rng.integers(0, 3, len(score))
    cell = np.unique(score, return_inverse=True)[1]
    n, tp, total = (
        np.stack([np.bincount(cell[fold == k], weights=w[fold == k], minlength=30) for k in range(3)])[:, :, None]
        for w in (np.ones(len(score)), hit.astype(float), score)
    )
    logit = np.log(score / (1 - score))[:, None]
    p = np.zeros(len(score))
    for k in range(3):
        fitted = linear.LogisticRegression(C=1e9, tol=1e-10).fit(logit[fold != k], hit[fold != k])
        p[fold == k] = fitted.predict_proba(logit[fold == k])[:, 1]
    brier, nll = cross_fitted_platt(n, tp, total)
    assert brier[0] == pytest.approx(np.mean((p - hit) ** 2), abs=1e-4)  # ours is held a little towards "no change"
    assert nll[0] == pytest.approx(-np.mean(np.log(np.where(hit, p, 1 - p))), abs=1e-4)


def test_the_squared_error_is_unbiased_however_sharp_the_scores() -> None:
    from hard_set import table_of

    def mean_error(a: float, shift: float) -> tuple[float, float]:
        found = []
        for seed in range(150):
            rng = np.random.default_rng([seed, int(10 * a)])
            score, image = rng.beta(a, a, 240), np.repeat(np.arange(60), 4)
            right = rng.random(240) < score
            score = np.clip(score + shift, 0, 1)
            cls = np.zeros(240, int)
            table = table_of(score, right.astype(float), image, cls, image, cls, n_images=60, n_classes=1)
            grid = Grid(table, DET_LS, image_folds(np.arange(60)))
            everything = np.zeros((1, 5), int)
            error = UnbiasedError(grid, np.arange(60), np.ones(240, bool))
            found.append(error(np.ones(60), everything))
        return float(np.mean(found)), float(np.std(found) / np.sqrt(len(found)))

    for a in (0.4, 4.0):
        mean, se = mean_error(a, 0.0)
        assert abs(mean) < 3 * se
    mean, se = mean_error(4.0, 0.1)
    assert mean == pytest.approx(0.01, abs=4 * se)
