# SPDX-License-Identifier: AGPL-3.0-or-later
"""The numbers before and after: those of an evaluation, on the same boxes, with paired intervals."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from det_ls.calibration.judge import changes, judged, reliability, score_numbers
from det_ls.calibration.maps import AffineMap, logit
from det_ls.evaluation.evaluate import evaluate_detections
from det_ls.metrics.matching import build_table

GOLDEN = Path(__file__).parents[1] / "golden" / "coco_tiny"


@pytest.fixture(scope="module")
def table():
    return build_table(str(GOLDEN / "gt.json"), str(GOLDEN / "detections.json"))


@pytest.fixture(scope="module")
def of(table):
    return judged(table, np.arange(table.n_images))[0]


def test_the_numbers_of_all_boxes_are_those_of_an_evaluation(table, of):
    values = evaluate_detections(str(GOLDEN / "gt.json"), str(GOLDEN / "detections.json")).metrics.values
    numbers = score_numbers(table.score, of)
    for key in ("LaECE0", "DECE", "brier", "nll", "signed_gap", "signed_gap_iou"):
        assert numbers[key] == pytest.approx(values[key], abs=1e-12), key


def test_calibrated_scores_have_the_numbers_of_calibrated_results(table, of):
    import json

    one = AffineMap((0.7,), (-0.4,))
    results = json.loads((GOLDEN / "detections.json").read_text())
    moved = [{**r, "score": float(one(logit([r["score"]]))[0])} for r in results]
    values = evaluate_detections(str(GOLDEN / "gt.json"), moved).metrics.values
    numbers = changes(table.score, one(logit(table.score)), of)["all"]
    for key in ("LaECE0", "DECE", "brier", "nll"):
        assert numbers[key].after == pytest.approx(values[key], abs=1e-9), key


def test_kept_boxes_are_those_of_an_evaluation(table, of):
    evaluation = evaluate_detections(str(GOLDEN / "gt.json"), str(GOLDEN / "detections.json"))
    kept = evaluation.metrics.kept
    numbers = score_numbers(table.score, of, population="kept")
    for key in ("LaECE0", "DECE", "brier", "nll", "signed_gap"):
        assert numbers[key] == pytest.approx(kept.values[key], abs=1e-12), key


def test_intervals_hold_the_estimate_and_are_shorter_for_the_paired_difference(table, of):
    one = AffineMap((0.98,), (-0.02,))
    found = changes(table.score, one(logit(table.score)), of, bootstrap=50)["kept"]["brier"]
    low, high = found.before_interval
    assert low < found.before < high
    paired = found.difference_interval
    assert paired[1] - paired[0] < 0.2 * (high - low)
    assert paired[0] <= found.difference <= paired[1]


def test_groups_are_resampled_whole():
    rng = np.random.default_rng(0)
    gt = {
        "images": [{"id": i} for i in range(40)],
        "categories": [{"id": 1, "name": "a"}],
        "annotations": [{"id": i + 1, "image_id": i, "category_id": 1, "bbox": [0, 0, 9, 9]} for i in range(40)],
    }
    hit = np.repeat(rng.random(4) < 0.5, 10)  # images of one group are alike
    hit[:10], hit[10:20] = True, False
    found = [{"image_id": i, "category_id": 1, "bbox": [0 if hit[i] else 50, 0, 9, 9], "score": 0.5} for i in range(40)]
    table = build_table(gt, found)
    widths = []
    for group in (np.arange(40), np.repeat(np.arange(4), 10)):
        one = changes(table.score, table.score, judged(table, group)[0], bootstrap=200)["all"]["signed_gap"]
        widths.append(one.before_interval[1] - one.before_interval[0])
    assert widths[1] > 2 * widths[0]


def test_reliability_diagrams_hold_every_counted_box(table, of):
    diagrams = reliability(table.score, of)
    assert diagrams["tp"].count.sum() == of.in_tp.sum()
    assert diagrams["iou_kept"].count.sum() == (of.in_iou & of.kept).sum()
    assert diagrams["tp"].error == pytest.approx(score_numbers(table.score, of)["DECE"], abs=1e-12)
