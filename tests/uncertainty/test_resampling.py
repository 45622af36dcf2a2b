# SPDX-License-Identifier: AGPL-3.0-or-later
"""Intervals, floors and comparisons say what they claim, at the rate they claim.

Rates are checked over simulated data sets; the tolerance is three standard deviations of a binomial count, so a correct
implementation would fail a check in about 1 of 700 choices of the seed, and the seeds are fixed.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hard_set import hard_set, ordinary_set, plan_of, repeat_images, simulated_table, table_of
from plain_formulas import laace, laece, per_class_calibration_error

from det_ls.evaluation.measure import detection_metrics
from det_ls.metrics.calibration import auroc, brier_score, negative_log_likelihood, reliability, signed_gap
from det_ls.metrics.catalogue import BESIDES_AP, NUMBERS, estimate, table_numbers
from det_ls.metrics.curves import reliability_data, reliability_intervals
from det_ls.metrics.matching import build_table
from det_ls.metrics.protocols import get_protocol
from det_ls.metrics.table import DetectionTable
from det_ls.uncertainty.bootstrap import bootstrap_intervals
from det_ls.uncertainty.floor import IoUSimulator, calibration_floors, grouped_floors
from det_ls.uncertainty.intervals import bootstrap_interval
from det_ls.uncertainty.paired import Verdict, compare_plans
from det_ls.uncertainty.samples import image_weights

DET_LS = get_protocol("det_ls")
BIASED_UPWARDS = {key for key, number in NUMBERS.items() if number.biased}
LEVEL, DATA_SETS, REPLICATES, IMAGES = 0.95, 100, 250, 150
TOLERANCE = 3 * math.sqrt(LEVEL * (1 - LEVEL) / DATA_SETS)


@pytest.mark.parametrize("protocol", ["det_ls", "reference"])
@pytest.mark.parametrize("make", [hard_set, ordinary_set])
def test_every_image_once_gives_the_plain_formulas(make: Any, protocol: str) -> None:
    table, rules = build_table(*make(4)), get_protocol(protocol)
    found = table_numbers(table, rules)
    matches = rules.matches(table, 0.5)
    rows = rules.counted(table, matches)
    score, tp = table.score[rows], matches.tp[rows]
    expected = {
        "DECE": reliability(score, tp).error,
        "signed_gap": signed_gap(score, tp),
        "brier": brier_score(score, tp),
        "nll": negative_log_likelihood(score, tp),
        "auroc": auroc(score, tp),
        "LaECE10": np.nanmean(laece(table, 0.1, protocol=protocol)),
        "LaACE10": np.nanmean(laace(table, 0.1, protocol=protocol)),
    }
    for key, value in expected.items():
        assert found[key] == pytest.approx(value, abs=1e-12), key


@pytest.mark.parametrize("protocol", ["det_ls", "reference"])
@pytest.mark.parametrize("seed", range(3))
def test_a_replicate_equals_a_new_evaluation_of_the_repeated_images(seed: int, protocol: str) -> None:
    gt, detections = ordinary_set(seed)
    table = build_table(gt, detections)
    weights = image_weights(table.n_images, 1, seed)
    repeated = repeat_images(gt, detections, dict(zip(table.image_ids, weights[:, 0].tolist(), strict=True)))
    expected = detection_metrics(*repeated, protocol=protocol, simulations=0).values
    found = estimate(table, weights, get_protocol(protocol))
    # Equal scores of different images are told apart by their order in `reference`, which repeating them changes.
    changed = {"DECE_equal_mass", "oLRP"} if protocol == "reference" else set()
    for key in found.keys() - changed:
        if not key.endswith("lrpopt"):  # whose thresholds stay those of the original set
            assert found[key] == pytest.approx([expected[key]], abs=1e-12), key


def test_draws_are_reproducible_and_keep_the_number_of_images() -> None:
    weights = image_weights(40, 30, seed=7)
    assert (weights.sum(0) == 40).all()
    assert (weights == image_weights(40, 30, seed=7)).all()
    assert (weights != image_weights(40, 30, seed=8)).any()


def test_intervals_hold_the_value_and_name_what_they_describe() -> None:
    result = detection_metrics(*ordinary_set(0, n_images=30), bootstrap=200)
    for key in ("AP", "signed_gap", "brier", "nll", "auroc", "LRP", "oLRP", "LaACE0"):
        interval = result.intervals[key]
        assert interval.low < result.values[key] < interval.high, key
        assert interval.of == "value"
    for key in BIASED_UPWARDS:
        assert result.intervals[key].of == "estimator"
    assert result.intervals["AP"].replicates == result.intervals["LRP"].replicates == 200


def test_undefined_replicates_are_counted_and_left_out() -> None:
    interval = bootstrap_interval(2.0, np.array([np.nan, 1.0, 2.0, 3.0]), 0.5)
    assert interval is not None
    assert (interval.low, interval.high, interval.replicates, interval.undefined) == (1.5, 2.5, 3, 1)
    assert bootstrap_interval(2.0, np.array([np.nan]), 0.5) is None
    assert bootstrap_interval(float("nan"), np.array([1.0]), 0.5) is None


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"replicates": 99}, "replicates: expected an integer of at least 100, got 99"),
        ({"level": 1.0}, "level: expected a number between 0 and 1, got 1.0"),
    ],
)
def test_arguments_out_of_range(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        bootstrap_intervals(plan_of(build_table(*ordinary_set())), **arguments)


def test_intervals_cover_the_populations_values_at_the_nominal_rate() -> None:
    keys = ("signed_gap", "signed_gap_iou", "brier", "nll", "auroc", "precision", "LRP")

    def numbers_at_threshold(table: DetectionTable, weights: np.ndarray[Any, Any]) -> dict[str, Any]:
        found = estimate(table, weights, DET_LS, families=BESIDES_AP)
        kept = estimate(table.filter(table.score >= 0.3), weights, DET_LS, families=BESIDES_AP)
        return {**found, "precision": kept["precision"], "LRP": kept["LRP"]}

    population = simulated_table(np.random.default_rng(1), 100_000)
    truth = numbers_at_threshold(population, np.ones((100_000, 1), int))
    covered = dict.fromkeys(keys, 0)
    for seed in range(DATA_SETS):
        table = simulated_table(np.random.default_rng([2, seed]), IMAGES)
        found = numbers_at_threshold(table, image_weights(IMAGES, REPLICATES, seed))
        value = numbers_at_threshold(table, np.ones((IMAGES, 1), int))
        for key in keys:
            interval = bootstrap_interval(value[key][0], found[key], LEVEL)
            assert interval is not None
            covered[key] += interval.low <= truth[key][0] <= interval.high
    for key, count in covered.items():
        assert abs(count / DATA_SETS - LEVEL) <= TOLERANCE, f"{key}: {count} of {DATA_SETS}"


def test_two_detectors_of_equal_quality_differ_at_no_more_than_the_nominal_rate() -> None:
    keys = ("signed_gap", "brier", "nll", "auroc", "precision", "LRP", "DECE", "LaECE0")
    differs = dict.fromkeys(keys, 0)
    for seed in range(DATA_SETS):
        a, b = two_detectors(np.random.default_rng([3, seed]), 0.0)
        weights = image_weights(IMAGES, REPLICATES, seed)
        draws = np.concatenate([np.ones((IMAGES, 1), int), weights], axis=1)
        of_a, of_b = (estimate(t, draws, DET_LS, families=BESIDES_AP) for t in (a, b))
        for key in keys:
            difference = of_b[key] - of_a[key]
            interval = bootstrap_interval(difference[0], difference[1:], LEVEL)
            assert interval is not None
            differs[key] += not interval.low <= 0 <= interval.high
    for key, count in differs.items():
        assert count / DATA_SETS <= 1 - LEVEL + TOLERANCE, f"{key}: {count} of {DATA_SETS}"


def two_detectors(rng: np.random.Generator, inflate: float) -> tuple[DetectionTable, DetectionTable]:
    """Draw two detectors on the same images; the second one's scores are moved towards 1."""
    ease = rng.beta(4, 2, IMAGES)
    n_gt = 1 + rng.poisson(1.0, IMAGES)
    gt_image = np.repeat(np.arange(IMAGES), n_gt)
    gt_cls = np.zeros(len(gt_image), int)
    tables = []
    for push in (0.0, inflate):
        found = rng.random(len(gt_image)) < ease[gt_image]
        false = np.repeat(np.arange(IMAGES), rng.poisson(1.5, IMAGES))
        iou = np.concatenate([rng.uniform(0.5, 1, found.sum()), np.zeros(len(false))])
        score = np.concatenate([rng.beta(4, 2, found.sum()), rng.beta(1.5, 3, len(false))])
        score = score + push * (1 - score)
        image = np.concatenate([gt_image[found], false])
        cls = np.zeros(len(image), int)
        tables.append(table_of(score, iou, image, cls, gt_image, gt_cls, n_images=IMAGES, n_classes=1))
    return tables[0], tables[1]


def test_a_comparison_finds_a_real_difference_and_says_so() -> None:
    gt, detections = ordinary_set(0, n_images=40)
    over = [{**d, "score": d["score"] ** 0.3} for d in detections]
    a, b = build_table(gt, detections), build_table(gt, over)
    found = compare_plans(plan_of(a), plan_of(b), replicates=200)
    gap = found.kept["signed_gap"]
    assert gap.differs
    assert gap.verdict is Verdict.DIFFERS
    assert 0 < gap.interval.low < gap.difference == gap.b - gap.a < gap.interval.high
    assert found.kept["absolute_gap"].verdict is Verdict.WORSE
    assert found.kept["absolute_gap"].declared
    assert found.kept["brier"].verdict is Verdict.WORSE
    assert found.all["brier"].verdict is Verdict.UNJUDGED  # boxes that no user sees decide it
    same = compare_plans(plan_of(a), plan_of(a), replicates=100)
    everything = [*same.all.values(), *same.kept.values()]
    assert not any(c.differs for c in everything)
    assert all(c.difference == 0 for c in everything)
    assert {"AP", "LaECE0", "LRP", "oLRP", "DECE", "auroc"} <= same.all.keys()


def test_floors_rise_where_groups_are_alike() -> None:
    rng = np.random.default_rng(0)
    score, image = rng.beta(2, 2, 300), np.repeat(np.arange(30), 10)
    right = (rng.random(300) < score).astype(float)
    rows = np.tile(np.arange(300), 4)  # every image four times, as frames of a video
    frames = np.concatenate([image + 30 * k for k in range(4)])
    cls = np.zeros(1200, int)
    table = table_of(score[rows], right[rows], frames, cls, frames, cls, n_images=120, n_classes=1)
    alone = calibration_floors(table, simulations=200)
    grouped = grouped_floors(table, np.tile(np.arange(30), 4), simulations=200)
    for key in ("DECE", "LaECE50"):
        assert grouped[key].p95 > 1.4 * alone[key].p95
    each = grouped_floors(table, np.arange(120), simulations=400)
    assert each["DECE"].median == pytest.approx(calibration_floors(table, simulations=400)["DECE"].median, rel=0.25)


@pytest.mark.parametrize("key", ["images", "categories", "annotations"])
def test_a_comparison_needs_the_same_ground_truth(key: str) -> None:
    gt, detections = ordinary_set()
    less = {**gt, key: gt[key][:-1]}
    known = {k: {x["id"] for x in less[k]} for k in ("images", "categories")}

    def of_known(items: list[dict[str, Any]]) -> list[dict[str, Any]]:
        return [x for x in items if x["image_id"] in known["images"] and x["category_id"] in known["categories"]]

    other = build_table({**less, "annotations": of_known(less["annotations"])}, of_known(detections))
    with pytest.raises(ValueError, match="a, b: expected the same ground truth, got different"):
        compare_plans(plan_of(build_table(gt, detections)), plan_of(other))


def test_a_calibrated_detector_is_at_or_below_the_floor_in_95_percent_of_seeds() -> None:
    keys = ("DECE", "DECE_equal_mass", "LaECE0")
    below = dict.fromkeys(keys, 0)
    n = 400
    for seed in range(DATA_SETS):
        rng = np.random.default_rng([5, seed])
        # True positives are 1 with the probability of the score, all of IoU 1: calibrated to both targets.
        score, image = rng.beta(1, 2, n), rng.integers(0, 50, n)
        iou = (rng.random(n) < score).astype(float)
        cls = rng.integers(0, 3, n)
        table = table_of(score, iou, image, cls, image, cls, n_images=50, n_classes=3)
        floors, values = calibration_floors(table, seed=seed), table_numbers(table, DET_LS)
        for key in keys:
            below[key] += not floors[key].exceeded_by(values[key])
    for key, count in below.items():
        assert abs(count / DATA_SETS - LEVEL) <= TOLERANCE, f"{key}: {count} of {DATA_SETS}"


def test_a_detector_calibrated_to_the_iou_is_at_or_below_the_floor_in_95_percent_of_seeds() -> None:
    below, n = 0, 400
    for seed in range(DATA_SETS):
        rng = np.random.default_rng([6, seed])
        score, image, cls = rng.beta(1.5, 3, n), rng.integers(0, 50, n), rng.integers(0, 3, n)
        score = np.minimum(score, 0.7)
        iou = np.where(rng.random(n) < score / 0.75, rng.uniform(0.5, 1.0, n), 0.0)  # mean IoU of a hit 0.75
        table = table_of(score, iou, image, cls, image, cls, n_images=50, n_classes=3)
        below += table_numbers(table, DET_LS)["LaECE0"] <= calibration_floors(table, seed=seed)["LaECE0"].p95
    assert abs(below / DATA_SETS - LEVEL) <= TOLERANCE, f"{below} of {DATA_SETS}"


def test_an_overconfident_detector_is_above_the_floor() -> None:
    rng = np.random.default_rng(0)
    n = 600
    right, cls, image = rng.random(n), rng.integers(0, 3, n), rng.integers(0, 50, n)
    iou = (rng.random(n) < right).astype(float)
    table = table_of(right**0.3, iou, image, cls, image, cls, n_images=50, n_classes=3)
    floors, values = calibration_floors(table), table_numbers(table, DET_LS)
    for key in ("DECE", "LaECE0"):
        assert floors[key].exceeded_by(values[key])


def test_simulated_ious_have_the_score_as_their_mean_and_stay_in_range() -> None:
    rng = np.random.default_rng(0)
    observed = rng.uniform(0.5, 0.9, 300)
    for score in (0.0, 0.2, 0.69, 0.8, 0.97, 1.0):
        n = 40_000
        hit, iou = IoUSimulator(np.full(n, score), observed)(rng.random(n, dtype=np.float32), rng)
        assert ((iou >= 0) & (iou <= 1)).all()
        assert iou.sum() / n == pytest.approx(score, abs=4 * 0.5 / math.sqrt(n))
        assert len(hit) == len(iou)


def test_the_floor_of_each_error_is_what_brute_force_gives() -> None:
    rng = np.random.default_rng(3)
    gt, detections = ordinary_set(5, n_images=25)
    table = build_table(gt, detections)
    floors = calibration_floors(table, simulations=400)
    half, overlap = table.matches(0.5), table.matches(0.0)
    score, cls = table.score[half.kept], table.cls[overlap.kept]
    dece = [reliability(score, rng.random(len(score)) < score).error for _ in range(400)]
    score, u = table.score[overlap.kept], overlap.iou[overlap.tp]
    m, laece = u.mean(), []
    for _ in range(400):
        drawn = rng.choice(u, len(score))
        drawn = np.where(score > m, 1 - (1 - drawn) * (1 - score) / (1 - m), drawn)
        target = np.where(rng.random(len(score)) < np.minimum(1, score / m), drawn, 0.0)
        laece.append(np.mean(per_class_calibration_error(score, target, cls, table.n_classes)))
    for key, simulated in (("DECE", dece), ("LaECE0", laece)):
        spread = np.std(simulated)
        assert floors[key].median == pytest.approx(np.median(simulated), abs=spread * 0.3), key
        assert floors[key].p95 == pytest.approx(np.quantile(simulated, 0.95), abs=spread * 0.5), key


@pytest.mark.parametrize("make", [hard_set, ordinary_set])
def test_the_floor_of_laace_counts_the_detections_that_the_value_counts(make: Any) -> None:
    """Under `reference` also the ignored ones, and IoUs are drawn from true positives that touch their object."""
    rng = np.random.default_rng(3)
    table, simulations = build_table(*make(5, n_images=25)), 300
    floors = calibration_floors(table, protocol="reference", simulations=simulations)
    overlap = table.matches(0.0, zero_overlap=True)
    assert overlap.ignored.any()
    assert (overlap.iou[overlap.tp] == 0).any()
    rows = table.has_gt[table.cls]
    score, cls = table.score[rows], table.cls[rows]
    u = overlap.iou[overlap.tp & (overlap.iou > 0) & rows]
    m, laace = u.mean(), []
    for _ in range(simulations):
        drawn = rng.choice(u, len(score))
        drawn = np.where(score > m, 1 - (1 - drawn) * (1 - score) / (1 - m), drawn)
        gap = np.abs(score - np.where(rng.random(len(score)) < np.minimum(1, score / m), drawn, 0.0))
        errors = np.array([gap[cls == c].mean() for c in np.unique(cls)])
        laace.append(errors[errors > 0].mean())
    spread = np.std(laace)
    assert floors["LaACE0"].median == pytest.approx(np.median(laace), abs=spread * 0.3)
    assert floors["LaACE0"].p95 == pytest.approx(np.quantile(laace, 0.95), abs=spread * 0.5)


def test_true_positives_that_touch_nothing_do_not_pull_the_floor_to_zero() -> None:
    """A lone object is found from IoU 0 upwards: with targets near 0 any score would read as above the floor."""
    gt: dict[str, Any] = {
        "images": [{"id": i} for i in range(40)],
        "categories": [{"id": 1, "name": "a"}],
        "annotations": [{"id": i + 1, "image_id": i, "category_id": 1, "bbox": [0, 0, 9, 9]} for i in range(40)],
    }
    found = [{"image_id": i, "category_id": 1, "bbox": [0 if i < 2 else 50, 0, 9, 9], "score": 0.5} for i in range(40)]
    ours, theirs = (calibration_floors(build_table(gt, found), protocol=p)["LaECE0"] for p in ("det_ls", "reference"))
    assert ours.p95 == theirs.p95 > 0.08
    apart = [{**d, "bbox": [50, 0, 9, 9]} for d in found]
    assert "LaECE0" not in calibration_floors(build_table(gt, apart), protocol="reference")


def test_bin_intervals_hold_the_mean_target() -> None:
    table = build_table(*ordinary_set(0, n_images=40))
    data = reliability_data(table, "tp", bins=5)
    low, high = reliability_intervals(table, image_weights(40, 300, 0), "tp", bins=5)
    assert ((low <= data.mean_target) & (data.mean_target <= high)).all()
    assert (high > low).any()
