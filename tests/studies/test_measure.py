# SPDX-License-Identifier: AGPL-3.0-or-later
"""The rival: the same boxes with a map of their scores that other images fitted."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from det_ls.evaluation.evaluate import evaluate_detections
from det_ls.metrics.protocols import TP_IOU
from det_ls.studies.measure import RANKED, RIVAL, kept_reliability, platt_scores, rival_values


@pytest.fixture(scope="module")
def metrics():
    """A detector of one class that is far too sure of itself: boxes of score s are right in about s / 2."""
    rng = np.random.default_rng(0)
    images, annotations, detections = [], [], []
    for image in range(1, 201):
        images.append({"id": image, "width": 100, "height": 100})
        for place in range(4):
            score = float(rng.uniform(0.02, 0.98))
            box = [place * 25, 10, 20, 20]
            detections.append({"image_id": image, "category_id": 1, "bbox": box, "score": score})
            if rng.random() < score / 2:
                area = {"area": 400, "iscrowd": 0}
                annotations.append(
                    {"id": len(annotations) + 1, "image_id": image, "category_id": 1, "bbox": box, **area}
                )
    gt = {"images": images, "annotations": annotations, "categories": [{"id": 1, "name": "a"}]}
    return evaluate_detections(gt, detections, simulations=0).metrics


def test_each_image_is_calibrated_by_a_map_of_the_others(metrics, monkeypatch):
    monkeypatch.setattr("det_ls.studies.measure.RIVAL", replace(RIVAL, shrink=False))  # which scikit-learn can repeat
    table = metrics.table
    scores = platt_scores(metrics)
    fold = metrics.kept.plan.grid.fold[table.image]
    right = table.matches(TP_IOU).tp
    z = np.log(table.score / (1 - table.score))
    for held in np.unique(fold):
        others = fold != held
        oracle = LogisticRegression(C=1e9, tol=1e-9, max_iter=1000)
        oracle.fit(z[others, None], right[others], sample_weight=table.score[others])
        assert scores[~others] == pytest.approx(oracle.predict_proba(z[~others, None])[:, 1], abs=1e-4)


def test_the_same_boxes_are_kept_with_other_scores(metrics):
    scores = platt_scores(metrics)
    found = rival_values(metrics, scores)
    keep, right = metrics.kept.keep, metrics.table.matches(TP_IOU).tp
    for key in ("precision", "recall", "fp_per_image", "LRP"):
        assert found[f"kept.{key}"] == pytest.approx(metrics.kept.values[key])
    assert found["kept.signed_gap"] == pytest.approx(scores[keep].mean() - right[keep].mean())
    assert found["kept.absolute_gap"] == pytest.approx(abs(found["kept.signed_gap"]))
    assert found["kept.brier"] == pytest.approx(np.mean((scores[keep] - right[keep]) ** 2))
    assert found["brier"] == pytest.approx(np.mean((scores - right) ** 2))
    assert found["kept.absolute_gap"] < 0.25 * metrics.kept.values["absolute_gap"]
    assert found["kept.squared_error"] < 0.25 * metrics.kept.values["squared_error"]


def test_what_one_rising_map_cannot_change_stays(metrics):
    found = rival_values(metrics, platt_scores(metrics))
    for key in RANKED & set(found):
        assert found[key] == metrics.values[key]
    assert {"AP", "AP50", "oLRP", "auroc"} <= RANKED
    assert found["DECE"] != metrics.values["DECE"]


def test_reliability_of_the_kept_boxes(metrics):
    bins = kept_reliability(metrics, metrics.table.score)
    keep = metrics.kept.keep
    assert sum(b["count"] for b in bins) == keep.sum()
    means = [sum(b["count"] * b[key] for b in bins) / keep.sum() for key in ("score", "precision")]
    assert means[0] - means[1] == pytest.approx(metrics.kept.values["signed_gap"])


def test_without_a_right_box_there_is_no_rival():
    gt = {
        "images": [{"id": i} for i in (1, 2, 3)],
        "categories": [{"id": 1, "name": "a"}],
        "annotations": [{"id": 1, "image_id": 1, "category_id": 1, "bbox": [0, 0, 9, 9]}],
    }
    wrong = [{"image_id": i, "category_id": 1, "bbox": [50, 50, 9, 9], "score": 0.5} for i in (1, 2, 3)]
    assert platt_scores(evaluate_detections(gt, wrong, simulations=0).metrics) is None
