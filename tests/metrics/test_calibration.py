# SPDX-License-Identifier: AGPL-3.0-or-later
"""Calibration numbers are those of the libraries that define them, and behave at their edges."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hard_set import hard_set, ordinary_set
from hypothesis import given, settings
from hypothesis import strategies as st
from plain_formulas import laace, laece

from det_ls.evaluation.measure import detection_metrics
from det_ls.metrics import calibration as cal
from det_ls.metrics.catalogue import table_numbers
from det_ls.metrics.curves import (
    free_response,
    reliability_by_class,
    reliability_by_size,
    reliability_data,
    threshold_curve,
)
from det_ls.metrics.matching import build_table
from det_ls.metrics.protocols import get_protocol

DET_LS = get_protocol("det_ls")

Array = np.ndarray[Any, Any]


def flat(seed: int, n: int = 500) -> tuple[Array, Array]:
    """Scores in single precision, as the libraries hold them, and hits."""
    rng = np.random.default_rng(seed)
    score = rng.beta(1.0, 2.0, n).astype(np.float32).astype(np.float64)
    return score, rng.random(n) < score**1.5


@pytest.mark.parametrize("bins", [10, 15, 20, 25])
@pytest.mark.parametrize("seed", range(3))
def test_expected_calibration_error_is_torchmetrics(seed: int, bins: int) -> None:
    import torch
    from torchmetrics import classification

    score, hit = flat(seed)
    theirs = classification.BinaryCalibrationError(n_bins=bins, norm="l1")(torch.tensor(score), torch.tensor(hit).int())
    assert cal.reliability(score, hit, bins=bins).error == pytest.approx(float(theirs), abs=1e-6)  # single precision


@pytest.mark.parametrize("seed", range(3))
def test_brier_nll_and_auroc_are_scikit_learns(seed: int) -> None:
    metrics = pytest.importorskip("sklearn.metrics")
    score, hit = flat(seed)
    score = np.concatenate([score, [0.0, 1.0, 0.0, 1.0, 0.5, 0.5]])  # certain and wrong, certain and right, ties
    hit = np.concatenate([hit, [True, False, False, True, True, False]])
    assert cal.brier_score(score, hit) == pytest.approx(metrics.brier_score_loss(hit, score), abs=1e-12)
    assert cal.negative_log_likelihood(score, hit) == pytest.approx(metrics.log_loss(hit, score), abs=1e-9)
    assert cal.auroc(score, hit) == pytest.approx(metrics.roc_auc_score(hit, score), abs=1e-12)


@pytest.mark.parametrize("bins", [5, 10])
def test_the_reliability_curve_is_scikit_learns(bins: int) -> None:
    calibration = pytest.importorskip("sklearn.calibration")
    score, hit = flat(0)
    data = cal.reliability(score, hit, bins=bins)
    target, mean = calibration.calibration_curve(hit, score, n_bins=bins)
    full = data.count > 0
    assert data.mean_target[full] == pytest.approx(target, abs=1e-12)
    assert data.mean_score[full] == pytest.approx(mean, abs=1e-12)


@pytest.mark.parametrize("n", [3, 20, 500, 507])
def test_equal_mass_bins_are_array_splits(n: int) -> None:
    score, hit = flat(1, n)
    order = np.argsort(score)
    parts = [p for p in np.array_split(order, 20) if len(p)]
    expected = sum(abs(score[p].mean() - hit[p].mean()) * len(p) for p in parts) / n
    data = cal.equal_mass_reliability(score, hit, bins=20)
    assert data.error == pytest.approx(expected, abs=1e-12)
    assert data.count.tolist() == [len(p) for p in np.array_split(order, 20)]


@given(seed=st.integers(0, 1000))
@settings(max_examples=25, deadline=None)
def test_equal_mass_error_does_not_depend_on_the_order_of_equal_scores(seed: int) -> None:
    rng = np.random.default_rng(seed)
    score, hit = rng.integers(0, 6, 97) / 5, rng.random(97) < 0.4
    shuffled = rng.permutation(97)
    before = cal.equal_mass_reliability(score, hit, bins=7).error
    assert cal.equal_mass_reliability(score[shuffled], hit[shuffled], bins=7).error == pytest.approx(before, abs=1e-12)


@pytest.mark.parametrize(
    ("score", "right", "left"),
    [
        (0.0, 0, 0),
        (1.0, 19, 19),
        (0.05, 0, 1),
        (0.5, 9, 10),
        (np.nextafter(0.5, 0), 9, 9),
        (np.nextafter(0.5, 1), 10, 10),
    ],
)
def test_scores_on_bin_edges(score: float, right: int, left: int) -> None:
    assert cal.bin_index([score], 20).tolist() == [right]
    assert cal.bin_index([score], 20, closed="left").tolist() == [left]


def test_laece_is_the_mean_over_classes_of_the_binned_gap_to_the_iou() -> None:
    gt, detections = ordinary_set(3)
    table = build_table(gt, detections)
    matches = table.matches(0.1)
    per_class = []
    for c in range(table.n_classes):
        rows = np.flatnonzero((table.cls == c) & ~matches.ignored)
        total = 0.0
        for k in range(25):
            low, high = k / 25, (k + 1) / 25
            inside = [i for i in rows if low < table.score[i] <= high or (k == 0 and table.score[i] == 0)]
            if inside:
                iou = sum(matches.iou[i] for i in inside if matches.tp[i])
                total += abs(sum(table.score[inside]) - iou) / len(rows)
        per_class.append(total)
    assert laece(table, 0.1) == pytest.approx(per_class, abs=1e-9)


@given(seed=st.integers(0, 300), eps=st.floats(0.01, 0.9))
@settings(max_examples=20, deadline=None)
def test_shrinking_every_score_lowers_the_signed_gaps_and_keeps_the_ranking(seed: int, eps: float) -> None:
    gt, detections = ordinary_set(seed, n_images=4)
    shrunk = [{**d, "score": d["score"] * (1 - eps)} for d in detections]
    before, after = (table_numbers(build_table(gt, d), DET_LS) for d in (detections, shrunk))
    assert after["signed_gap"] < before["signed_gap"]
    assert after["signed_gap_iou"] < before["signed_gap_iou"]
    for key in ("auroc", "LRP", "oLRP", "precision"):
        assert after[key] == pytest.approx(before[key], abs=1e-12), key


@pytest.mark.parametrize("protocol", ["det_ls", "reference"])
@given(seed=st.integers(0, 300))
@settings(max_examples=12, deadline=None)
def test_permuting_images_objects_and_detections_changes_nothing(protocol: str, seed: int) -> None:
    """Without equal scores in an image, which COCO tells apart by their order in the results, under either protocol.

    Two rules of `reference` depend on an order, so they are left out. Equal-mass bins split equal scores of different
    images by their order in the results. At IoU threshold 0 a detection that touches nothing takes the last object
    listed that is still free, which another detection may then lack, so there the objects stay in their order.
    """
    rng = np.random.default_rng(seed)
    gt, detections = ordinary_set(seed, n_images=5)
    fixed = {"annotations"} if protocol == "reference" else set()
    shuffled = {k: v if k in fixed else [v[i] for i in rng.permutation(len(v))] for k, v in gt.items()}
    mixed = [detections[i] for i in rng.permutation(len(detections))]
    before, after = (
        detection_metrics(*pair, protocol=protocol, simulations=0) for pair in ((gt, detections), (shuffled, mixed))
    )
    assert before.values.keys() == after.values.keys()
    for key, value in before.values.items():
        if protocol == "reference" and key == "DECE_equal_mass":
            continue
        assert after.values[key] == pytest.approx(value, abs=1e-12), key


def test_laace_counts_ignored_detections_in_reference_only() -> None:
    table = build_table(*hard_set(2))
    ignored = table.matches(0.5).ignored
    assert ignored.any()
    kept = table.filter(~ignored)
    assert laace(table, 0.5) == pytest.approx(laace(kept, 0.5), abs=1e-12, nan_ok=True)
    reference, without = (np.nanmean(laace(t, 0.5, protocol="reference")) for t in (table, kept))
    assert reference != pytest.approx(without, abs=1e-6)


@pytest.mark.parametrize("target", ["tp", "iou"])
def test_the_diagrams_add_up_to_the_numbers(target: str) -> None:
    table = build_table(*hard_set(1))
    numbers = table_numbers(table, DET_LS)
    data = reliability_data(table, target)  # type: ignore[arg-type]
    gap = np.nansum((data.mean_score - data.mean_target) * data.count) / data.count.sum()
    assert gap == pytest.approx(numbers["signed_gap" if target == "tp" else "signed_gap_iou"], abs=1e-12)
    classes = reliability_by_class(table, target)  # type: ignore[arg-type]
    assert sum(c.count for c in classes).tolist() == data.count.tolist()
    if target == "tp":
        assert data.error == pytest.approx(numbers["DECE"], abs=1e-12)


def test_every_true_positive_has_one_size() -> None:
    table = build_table(*hard_set(1))
    sizes = reliability_by_size(table)
    assert set(sizes) == {"small", "medium", "large"}
    hits = {name: float(np.nansum(s.mean_target * s.count)) for name, s in sizes.items()}
    for name, expected in hits.items():
        assert table.matches(0.5, area=name).tp.sum() == pytest.approx(expected, abs=1e-9)


def test_the_curves_over_thresholds_start_at_the_numbers_of_all_detections() -> None:
    gt, detections = hard_set(1)
    table = build_table(gt, detections)
    curve, numbers = threshold_curve(table, np.array([0.0, 0.5])), table_numbers(table, DET_LS)
    assert (curve.laece0[0], curve.dece[0], curve.lrp[0]) == pytest.approx(
        (numbers["LaECE0"], numbers["DECE"], numbers["LRP"]), abs=1e-12
    )
    fewer = table_numbers(build_table(gt, [d for d in detections if d["score"] >= 0.5]), DET_LS)
    assert (curve.laece0[1], curve.lrp[1]) == pytest.approx((fewer["LaECE0"], fewer["LRP"]), abs=1e-12)


def test_free_response_by_hand() -> None:
    gt = {
        "images": [{"id": 1}, {"id": 2}],
        "categories": [{"id": 1, "name": "nodule"}],
        "annotations": [{"id": i, "image_id": 1, "category_id": 1, "bbox": [40 * i, 0, 20, 20]} for i in (1, 2)],
    }
    found = [(1, 40, 0.9), (2, 0, 0.8), (2, 300, 0.7), (1, 80, 0.7), (1, 300, 0.1)]
    detections = [{"image_id": i, "category_id": 1, "bbox": [x, 0, 20, 20], "score": s} for i, x, s in found]
    curve = free_response(build_table(gt, detections))
    assert curve.threshold.tolist() == [0.9, 0.8, 0.7, 0.1]
    assert curve.fp_per_image.tolist() == [0.0, 0.5, 1.0, 1.5]
    assert curve.sensitivity.tolist() == [0.5, 0.5, 1.0, 1.0]
    assert [curve.sensitivity_at(rate) for rate in (0.125, 0.5, 0.99, 1.0, 8.0)] == [0.5, 0.5, 0.5, 1.0, 1.0]
    assert curve.froc_score == pytest.approx((3 * 0.5 + 4 * 1.0) / 7)
    assert curve.log_average_miss_rate == pytest.approx((0.5**8 * 1e-10) ** (1 / 9))
