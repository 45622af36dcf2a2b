# SPDX-License-Identifier: AGPL-3.0-or-later
"""Sentences are about the kept boxes, and claim no more than their intervals and floors allow."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from report_scene import scene

from det_ls.evaluation.measure import DetectionMetrics, detection_metrics, metrics_from_coco
from det_ls.evaluation.settings import MeasureSettings
from det_ls.metrics.matching import evaluate_checked
from det_ls.report.findings import findings
from det_ls.report.operating import chosen, class_thresholds, expected_rows, typed
from det_ls.report.words import number
from det_ls.uncertainty.floor import Floor
from det_ls.uncertainty.intervals import Interval


def two_classes(seed: int = 0, per_class: int = 60) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Sixty images with an object of either class; the scores of one class are a third of the other's."""
    rng = np.random.default_rng(seed)
    gt, found = [], []
    for image in range(per_class):
        for cls, factor in ((1, 1.0), (2, 0.3)):
            box = [100 * cls, 50, 40, 40]
            gt.append({"id": len(gt) + 1, "image_id": image, "category_id": cls, "bbox": box})
            found.append({"image_id": image, "category_id": cls, "bbox": box, "score": factor * rng.uniform(0.6, 0.9)})
            for k in range(2):
                wrong = [300 + 50 * k, 200, 30, 30]
                found.append(
                    {"image_id": image, "category_id": cls, "bbox": wrong, "score": factor * rng.uniform(0.05, 0.6)}
                )
    coco = {
        "images": [{"id": i} for i in range(per_class)],
        "annotations": gt,
        "categories": [{"id": 1, "name": "bold"}, {"id": 2, "name": "shy"}],
    }
    return coco, found


@pytest.fixture(scope="module")
def metrics(tmp_path_factory: pytest.TempPathFactory) -> DetectionMetrics:
    gt, detections, _ = scene(tmp_path_factory.mktemp("scene"))
    return detection_metrics(gt, detections, bootstrap=100, simulations=20, threshold=0.2)


def altered(metrics: DetectionMetrics, **change: Any) -> dict[str, str]:
    """What is said once values, intervals or floors of the kept boxes are replaced."""
    fields = {name: {**getattr(metrics.kept, name), **new} for name, new in change.items()}
    changed = replace(metrics, kept=replace(metrics.kept, **fields))
    return {f.topic: f"{f.lead}. {f.text}" for f in findings(changed, {})}


@pytest.mark.parametrize(("value", "words"), [(0.2, "Not distinguishable from calibrated"), (0.2001, "Not calibrated")])
def test_calibration_error_is_read_against_its_floor(metrics: DetectionMetrics, value: float, words: str) -> None:
    floors = {key: Floor(0.18, 0.2, 100) for key in ("LaECE0", "DECE")}
    said = altered(metrics, values={"LaECE0": value, "DECE": value}, floors=floors)
    assert said["Scores as IoU"].startswith(words)
    assert said["Scores as precision"].startswith(words)
    assert "of the kept boxes" in said["Scores as IoU"]


def test_without_a_floor_a_calibration_error_is_not_judged(metrics: DetectionMetrics) -> None:
    changed = replace(metrics, kept=replace(metrics.kept, floors={}))
    assert {f.topic: f.lead for f in findings(changed, {})}["Scores as IoU"] == "Cannot be judged"


@pytest.mark.parametrize(
    ("gap", "low", "high", "words"),
    [
        (0.1, 0.05, 0.2, "Over-confident by 0.100"),
        (-0.1, -0.2, -0.05, "Under-confident by 0.100"),
        (0.1, -0.01, 0.2, "Neither over- nor under-confident, as far as can be shown"),
        (-0.1, -0.2, 0.01, "Neither over- nor under-confident, as far as can be shown"),
    ],
)
def test_confidence_is_claimed_only_if_its_interval_excludes_zero(
    metrics: DetectionMetrics, gap: float, low: float, high: float, words: str
) -> None:
    interval = Interval(low, high, 0.95, 100, 0, "value")
    said = altered(metrics, values={"signed_gap": gap}, intervals={"signed_gap": interval})
    assert said["The scores of the kept boxes"].startswith(words)
    assert number(low, signed=True) in said["The scores of the kept boxes"]


def test_without_an_interval_confidence_is_not_claimed(metrics: DetectionMetrics) -> None:
    changed = replace(metrics, kept=replace(metrics.kept, intervals={}))
    said = {f.topic: f for f in findings(changed, {})}["The scores of the kept boxes"]
    assert "confident" not in said.lead
    assert "cannot be said whether that is more than chance" in said.text


def test_junk_below_the_threshold_changes_no_sentence_about_the_kept_boxes(tmp_path: Path) -> None:
    gt, detections = two_classes()
    box = {"category_id": 1, "bbox": [400, 300, 20, 20]}
    junk = [{**box, "image_id": i, "score": 0.0005 * (1 + k)} for i in range(60) for k in range(9)]
    settings: dict[str, Any] = {"bootstrap": 0, "simulations": 20, "threshold": 0.15}
    said = [
        {f.topic: (f.lead, f.text) for f in findings(detection_metrics(gt, found, **settings), {})}
        for found in (detections, detections + junk)
    ]
    assert said[0] == said[1]


def test_one_number_is_typed_or_one_a_class_is_listed() -> None:
    gt, detections = two_classes()
    metrics = detection_metrics(gt, detections, bootstrap=100, simulations=0)
    assert metrics.kept.thresholds.kind == "by_class"
    words = chosen(metrics, {})
    assert typed(metrics) == words.typed == "one a class"
    assert f"it is conf={metrics.kept.thresholds.common:g}" in words.why
    listed = dict(class_thresholds(metrics))
    assert listed == {
        name: f"{t:g}" for name, t in zip(("bold", "shy"), metrics.kept.thresholds.used.tolist(), strict=True)
    }
    only = {**gt, "annotations": [a for a in gt["annotations"] if a["category_id"] == 1]}
    one = detection_metrics(only, detections, simulations=0)
    assert typed(one) == f"conf={one.kept.thresholds.common:g}"
    assert class_thresholds(one) == []
    assert "median" not in words.text + chosen(one, {}).text


def test_what_is_expected_stands_beside_what_was_fitted_and_that_is_called_optimistic() -> None:
    gt, detections = two_classes()
    metrics = detection_metrics(gt, detections, bootstrap=100, simulations=0)
    rows = {row["name"]: row for row in expected_rows(metrics)}
    assert float(rows["Recall"]["expected"]) == pytest.approx(metrics.kept.values["recall"], abs=5e-4)
    assert float(rows["Recall"]["fitted"]) == pytest.approx(metrics.kept.in_sample["recall"], abs=5e-4)
    words = chosen(metrics, {})
    assert "optimistic" in words.expected
    assert "weighs a missed object like a false alarm" in words.weighs
    assert "5 times a false alarm" in chosen(metrics, {"miss_cost": 5.0}).weighs


def test_a_threshold_that_was_given_is_said_to_be(metrics: DetectionMetrics) -> None:
    words = chosen(metrics, {"threshold": 0.2})
    assert words.typed == "conf=0.2"
    assert "The threshold was given, not chosen on these images." in words.text
    assert "optimistic" not in words.text
    gt, detections = two_classes()
    table = evaluate_checked(gt, detections)
    other = metrics_from_coco(table, MeasureSettings(simulations=0), thresholds=np.array([0.4, 0.2]))
    said = chosen(other, {"split_thresholds": "train"})
    assert "The thresholds were chosen on the train split" in said.text
    assert dict(class_thresholds(other)) == {"bold": "0.4", "shy": "0.2"}


def test_groups_are_counted_and_shared_ones_warned_of(metrics: DetectionMetrics) -> None:
    facts = {
        "spec": "^\\d+",
        "n": 12,
        "images": 40,
        "correlation": 0.5,
        "design_effect": 2.25,
        "shared_with_train": ("7", "8"),
        "n_shared": 2,
    }
    said = {f.topic: f for f in findings(metrics, {"groups": facts})}
    assert said["Groups"].lead == "12 groups"
    for words in ("40 images", "0.500", "2.25 times", "rough"):
        assert words in said["Groups"].text
    assert said["Careful"].caution
    assert "images of 7, 8:" in said["Careful"].text
    assert "Groups" not in {f.topic for f in findings(metrics, {"groups": None})}


def test_weights_that_were_chosen_on_the_split_are_warned_of(metrics: DetectionMetrics) -> None:
    record = {"selected_on_split": True, "trained_on_split": False, "source": "args.yaml"}
    assert "best.pt was chosen on this split" in {f.lead for f in findings(metrics, {"training": record})}
    unknown = {**record, "selected_on_split": None}
    assert not [f for f in findings(metrics, {"training": unknown}) if f.caution]
