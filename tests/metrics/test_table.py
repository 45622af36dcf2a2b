# SPDX-License-Identifier: AGPL-3.0-or-later
"""The table of matched detections is COCO's evaluation, and holds at its edges."""

from __future__ import annotations

import contextlib
import copy
import io
from typing import Any

import numpy as np
import pytest
from hard_set import hard_set, ordinary_set, repeat_images
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from det_ls.evaluation.measure import HEADLINE, detection_metrics
from det_ls.metrics.average_precision import WeightedAP
from det_ls.metrics.matching import build_table, evaluate_checked, table_from_coco
from det_ls.uncertainty.samples import image_weights

Json = dict[str, Any]


def coco_matches(gt: Json, detections: list[Json], thresholds: list[float], area: str) -> dict[int, tuple[Any, ...]]:
    """Ask pycocotools itself: by place of the detection, the matched ids, and the ignore flags."""
    with contextlib.redirect_stdout(io.StringIO()):
        of_gt = COCO()
        of_gt.dataset = copy.deepcopy(gt)
        of_gt.createIndex()
        evaluator = COCOeval(of_gt, of_gt.loadRes(copy.deepcopy(detections)), "bbox")
        evaluator.params.iouThrs = np.array(thresholds)
        evaluator.evaluate()
    wanted = evaluator.params.areaRng[evaluator.params.areaRngLbl.index(area)]
    return {
        number - 1: (e["dtMatches"][:, i], e["dtIgnore"][:, i])
        for e in evaluator.evalImgs
        if e is not None and e["aRng"] == wanted
        for i, number in enumerate(e["dtIds"])
    }


@pytest.mark.parametrize("area", ["all", "small", "medium", "large"])
def test_objects_of_each_size_are_counted_as_coco_counts_them(area: str) -> None:
    gt, detections = hard_set()
    evaluator = evaluate_checked(gt, detections)
    wanted = evaluator.params.areaRng[evaluator.params.areaRngLbl.index(area)]
    expected = dict.fromkeys(evaluator.params.catIds, 0)
    for entry in evaluator.evalImgs:
        if entry is not None and entry["aRng"] == wanted:
            expected[entry["category_id"]] += int((entry["gtIgnore"] == 0).sum())
    table = table_from_coco(evaluator)
    assert table.gt_count(area).tolist() == list(expected.values())
    assert table.gt_per_image(area).sum(0).tolist() == list(expected.values())


def one_object(**detection: Any) -> tuple[Json, list[Json]]:
    gt = {
        "images": [{"id": 1}, {"id": 2}],
        "categories": [{"id": 1, "name": "cat"}],
        "annotations": [{"id": 1, "image_id": 1, "category_id": 1, "bbox": [0, 0, 10, 10]}],
    }
    return gt, [{"image_id": 1, "category_id": 1, "bbox": [0, 0, 10, 10], "score": 0.5, **detection}]


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(
    ("thresholds", "area", "zero_overlap"),
    [
        ([0.5, 0.55, 0.75, 0.95], "all", True),
        ([0.0, 0.1], "all", True),
        ([1e-300, 0.1], "all", False),
        ([0.5], "small", True),
        ([0.5], "medium", True),
        ([0.5], "large", True),
    ],
)
def test_matches_are_those_of_pycocotools(seed: int, thresholds: list[float], area: str, zero_overlap: bool) -> None:
    gt, detections = hard_set(seed)
    table = build_table(gt, detections)
    expected = coco_matches(gt, detections, thresholds, area)
    assert sorted(expected) == table.detection.tolist()
    for row, threshold in enumerate(thresholds):
        tau = 0.0 if threshold < 1e-200 else threshold
        matches = table.matches(tau, area=area, zero_overlap=zero_overlap)
        ids = np.where(matches.gt >= 0, table.gt_ids[matches.gt], 0)
        assert ids.tolist() == [int(expected[d][0][row]) for d in table.detection]
        assert matches.ignored.tolist() == [bool(expected[d][1][row]) for d in table.detection]
        assert (matches.tp == ((matches.gt >= 0) & ~matches.ignored)).all()


def test_ious_are_those_of_the_matched_boxes() -> None:
    gt, detections = hard_set(1)
    table = build_table(gt, detections)
    objects = {a["id"]: a for a in gt["annotations"]}
    matches = table.matches(0.0, zero_overlap=True)
    assert (matches.iou[matches.gt < 0] == 0).all()
    for row in np.flatnonzero(matches.gt >= 0):
        target = objects[int(table.gt_ids[matches.gt[row]])]
        (x, y, w, h), (u, v, a, b) = detections[table.detection[row]]["bbox"], target["bbox"]
        inter = max(0.0, min(x + w, u + a) - max(x, u)) * max(0.0, min(y + h, v + b) - max(y, v))
        union = w * h if target["iscrowd"] else w * h + a * b - inter
        assert matches.iou[row] == pytest.approx(inter / union, abs=1e-12)


@pytest.mark.parametrize("tau", [0.0, 0.1])
def test_a_match_at_tau_0_needs_overlap(tau: float) -> None:
    gt, detections = one_object(bbox=[50, 50, 10, 10])
    table = build_table(gt, detections)
    assert not table.matches(tau).tp.any()
    assert table.matches(tau, zero_overlap=True).tp.tolist() == [tau == 0]


def test_the_second_pass_leaves_cocos_evaluation_as_it_was() -> None:
    evaluator = evaluate_checked(*hard_set())
    stats, thresholds = evaluator.stats.copy(), evaluator.params.iouThrs.copy()
    table_from_coco(evaluator)
    with contextlib.redirect_stdout(io.StringIO()):
        evaluator.accumulate()
        evaluator.summarize()
    assert (evaluator.stats == stats).all()
    assert (evaluator.params.iouThrs == thresholds).all()


def test_at_most_100_detections_of_a_class_and_image_and_the_rest_counted() -> None:
    gt, detections = hard_set()
    table = build_table(gt, detections)
    kept = [d for d in table.detection if detections[d]["category_id"] == 7 and detections[d]["image_id"] == 105]
    total = sum(d["category_id"] == 7 and d["image_id"] == 105 for d in detections)
    assert len(kept) == 100
    assert table.n_beyond_max == total - 100 == len(detections) - table.n_detections


@pytest.mark.parametrize("seed", range(3))
def test_a_subset_by_score_equals_a_new_evaluation(seed: int) -> None:
    gt, detections = hard_set(seed)
    table = build_table(gt, detections)
    some = [i for i, d in enumerate(detections) if d["score"] >= 0.3]
    expected = build_table(gt, [detections[i] for i in some])
    subset = table.filter(table.score >= 0.3)
    rows = np.isin(some, subset.detection)
    assert np.array(some)[rows].tolist() == subset.detection.tolist()
    for name in ("match_gt", "match_iou", "match_ignored", "match_tp"):
        assert (getattr(subset, name) == getattr(expected, name)).all()


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("make", [hard_set, ordinary_set])
def test_average_precision_from_the_table_is_cocos(make: Any, seed: int) -> None:
    evaluator = evaluate_checked(*make(seed))
    table = table_from_coco(evaluator)
    ours = WeightedAP(table)(np.ones(table.n_images, int))
    precision = evaluator.eval["precision"][:, :, :, 0, -1]
    assert (np.isnan(ours) == (precision == -1).all(1)).all()
    assert np.nan_to_num(ours) == pytest.approx(np.maximum(precision, 0).mean(1), abs=1e-12)


@pytest.mark.parametrize("seed", range(3))
def test_weighted_average_precision_equals_a_set_with_images_repeated(seed: int) -> None:
    gt, detections = ordinary_set(seed)
    table = build_table(gt, detections)
    weights = image_weights(table.n_images, 1, seed)[:, 0]
    repeated = repeat_images(gt, detections, dict(zip(table.image_ids, weights.tolist(), strict=True)))
    evaluator = evaluate_checked(*repeated)
    expected = np.maximum(evaluator.eval["precision"][:, :, :, 0, -1], 0).mean(1)
    assert WeightedAP(table)(weights) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("digits", [1, 2])
@pytest.mark.parametrize("seed", range(3))
def test_ties_are_broken_as_in_a_real_resample(seed: int, digits: int) -> None:
    gt, detections = hard_set(seed)
    detections = [{**d, "score": round(d["score"], digits)} for d in detections]
    table = build_table(gt, detections)
    weights = image_weights(table.n_images, 1, seed + 1)[:, 0]
    repeated = repeat_images(gt, detections, dict(zip(table.image_ids, weights.tolist(), strict=True)))
    expected = evaluate_checked(*repeated).stats
    by_class = WeightedAP(table)(weights)
    known = ~np.isnan(by_class[0])
    assert by_class[:, known].mean() == pytest.approx(expected[0], abs=1e-12)
    assert by_class[0, known].mean() == pytest.approx(expected[1], abs=1e-12)


@pytest.mark.parametrize("score", [float("nan"), -0.01, 1.01, float("inf")])
def test_a_score_that_is_no_probability_is_an_error_that_names_the_image(score: float) -> None:
    gt, detections = one_object(score=score, image_id=2)
    with pytest.raises(ValueError, match=r"score.*image 2"):
        detection_metrics(gt, detections)


def test_a_table_says_which_thresholds_it_has() -> None:
    with pytest.raises(ValueError, match=r"iou_threshold: expected one .* 0\.1 \(all\).*got 0\.3"):
        build_table(*one_object()).matches(0.3)


def test_string_image_ids() -> None:
    gt, detections = hard_set()
    names = {i["id"]: f"scan {i['id']} (2)" for i in gt["images"]}
    renamed = {
        **gt,
        "images": [{"id": names[i["id"]]} for i in gt["images"]],
        "annotations": [{**a, "image_id": names[a["image_id"]]} for a in gt["annotations"]],
    }
    found = detection_metrics(renamed, [{**d, "image_id": names[d["image_id"]]} for d in detections])
    assert found.values == detection_metrics(gt, detections).values
    assert all(type(i) is str for i in found.table.image_ids)


@pytest.mark.parametrize("shift", [-1, 10])
def test_category_ids_from_0_or_1_or_with_gaps(shift: int) -> None:
    gt, detections = ordinary_set()
    moved = {
        **gt,
        "categories": [{**c, "id": c["id"] + shift} for c in gt["categories"]],
        "annotations": [{**a, "category_id": a["category_id"] + shift} for a in gt["annotations"]],
    }
    found = detection_metrics(moved, [{**d, "category_id": d["category_id"] + shift} for d in detections])
    assert found.values == detection_metrics(gt, detections).values


def test_annotation_ids_from_0_lose_no_match() -> None:
    gt, detections = one_object()
    gt["annotations"][0]["id"] = 0
    assert build_table(gt, detections).matches(0.5).tp.tolist() == [True]


def test_a_duplicate_detection_is_a_false_positive() -> None:
    gt, detections = one_object()
    assert build_table(gt, detections * 2).matches(0.5).tp.tolist() == [True, False]


def test_a_crowd_absorbs_detections_and_is_no_object() -> None:
    gt, detections = one_object(bbox=[2, 2, 3, 3])
    gt["annotations"][0]["iscrowd"] = 1
    table = build_table(gt, detections * 3)
    assert table.matches(0.5).ignored.all()
    assert table.n_gt.tolist() == [0]


@pytest.mark.parametrize("protocol", ["det_ls", "reference"])
def test_no_ground_truth_leaves_every_number_undefined_with_a_reason(protocol: str) -> None:
    gt, detections = one_object()
    gt["annotations"] = []
    result = detection_metrics(gt, detections, protocol=protocol, bootstrap=100)
    absent = -1 if protocol == "reference" else None
    for key in HEADLINE:
        assert result.values[key] == (absent if key.startswith("AP") else None), key
        assert result.reasons[key] == "no ground truth"
    assert result.left_out == {"cat": "no ground truth"}
    assert result.intervals == {}


def test_no_detections_is_the_worst_but_not_an_error() -> None:
    gt, _ = one_object()
    result = detection_metrics(gt, [], bootstrap=100)
    assert (result.values["AP"], result.values["LRP"], result.values["oLRP"]) == (0.0, 1.0, 1.0)
    for key in ("LaECE0", "DECE", "brier", "nll", "auroc", "signed_gap"):
        assert (result.values[key], result.reasons[key]) == (None, "no detections"), key


def test_neither_objects_nor_detections_succeeds() -> None:
    gt, _ = one_object()
    gt["annotations"] = []
    result = detection_metrics(gt, [], bootstrap=100)
    assert all(value is None for value in result.values.values())
    assert set(result.reasons) == set(result.values)


def test_one_class_gives_that_classs_numbers() -> None:
    gt, detections = ordinary_set(n_classes=1)
    result = detection_metrics(gt, detections)
    assert len(result.per_class) == 1
    for key in ("AP", "LaECE0", "LaACE0", "LRP", "oLRP", "DECE", "signed_gap"):
        assert result.per_class[0][key] == pytest.approx(result.values[key], abs=1e-12), key


def test_classes_without_ground_truth_are_left_out_and_listed() -> None:
    gt, detections = hard_set()
    result = detection_metrics(gt, detections)
    assert result.left_out == {"class 20": "no ground truth", "class 60": "no ground truth"}
    fewer = [d for d in detections if d["category_id"] not in (20, 60)]
    assert detection_metrics(gt, fewer).values == result.values


def test_a_class_without_detections_counts_as_missed_but_has_no_calibration_error() -> None:
    result = detection_metrics(*hard_set())
    entry = next(c for c in result.per_class if c["name"] == "class 50")
    assert (entry["AP"], entry["LRP"], entry["oLRP"]) == (0.0, 1.0, 1.0)
    assert (entry["LaECE0"], entry["signed_gap"], entry["lrp_threshold"]) == (None, None, None)


def test_ignored_detections_count_nowhere_in_det_ls() -> None:
    gt, detections = hard_set(2)
    before = detection_metrics(gt, detections)
    everywhere = before.table.match_ignored[[i for i, m in enumerate(before.table.matchings) if m[1] == "all"]].all(0)
    assert everywhere.any()
    dropped = set(before.table.detection[everywhere].tolist())
    after = detection_metrics(gt, [d for i, d in enumerate(detections) if i not in dropped])
    for key in HEADLINE:
        assert after.values[key] == pytest.approx(before.values[key], abs=1e-12), key


def test_a_class_with_an_error_of_exactly_0_counts_in_det_ls_only() -> None:
    gt, detections = one_object(score=1.0)
    assert detection_metrics(gt, detections).values["LaECE0"] == 0.0
    reference = detection_metrics(gt, detections, protocol="reference")
    assert reference.values["LaECE0"] is None
    assert "exactly 0" in reference.reasons["LaECE0"]
