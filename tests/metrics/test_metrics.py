# SPDX-License-Identifier: AGPL-3.0-or-later
"""The result of an evaluation is complete, says how it was counted, and can be written down."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hard_set import hard_set, ordinary_set

from det_ls.evaluation.measure import HEADLINE, detection_metrics
from det_ls.metrics.catalogue import NUMBERS

BIASED_UPWARDS = {key for key, number in NUMBERS.items() if number.biased}

KEYS = ["AP", "AP50", "AP75", "LaECE0", "LaACE0", "LRP", "oLRP", "DECE", "signed_gap", "brier", "nll", "auroc"]


@pytest.mark.parametrize("protocol", ["det_ls", "reference"])
def test_the_headline_keys_and_every_number_survive_json(protocol: str) -> None:
    result = detection_metrics(*hard_set(), protocol=protocol, bootstrap=100)
    written = json.loads(json.dumps(result.to_dict(), allow_nan=False))
    assert list(HEADLINE) == KEYS
    assert list(written)[:12] == KEYS
    assert {k: written[k] for k in KEYS} == {k: result.values[k] for k in KEYS}
    assert written["protocol"] == protocol
    assert written["values"] == result.values
    assert written["intervals"]["LRP"]["level"] == 0.95
    assert sum(written["reliability"]["tp"]["count"]) == result.definitions["DECE"]["n"]


def test_every_number_says_how_it_was_counted() -> None:
    result = detection_metrics(*hard_set(), simulations=0)
    assert result.definitions.keys() == result.values.keys()
    for key, entry in result.definitions.items():
        assert entry["protocol"] == "det_ls"
        assert {"matching", "iou", "score_threshold", "bins", "n", "n_counts"} <= entry.keys(), key
    assert (result.definitions["DECE"]["bins"], result.definitions["DECE"]["iou"]) == ("20 equal-width", 0.5)
    assert (result.definitions["LaECE0"]["bins"], result.definitions["LaECE0"]["iou"]) == ("25 equal-width", 0.0)
    assert result.definitions["LaECE10"]["iou"] == 0.1
    assert result.definitions["LRP"]["n"] == result.counts["objects"]


def test_every_binned_error_has_a_floor_beside_it() -> None:
    result = detection_metrics(*ordinary_set())
    assert result.floors.keys() >= BIASED_UPWARDS
    for key in BIASED_UPWARDS:
        assert 0 < result.floors[key].median <= result.floors[key].p95 < 1
    assert detection_metrics(*ordinary_set(), simulations=0).floors == {}


def test_class_numbers_average_to_the_overall_ones() -> None:
    result = detection_metrics(*hard_set(3), simulations=0)
    for key in ("AP", "AP50", "LaECE0", "LaACE0", "LaECE50", "LRP", "LRP_FN", "oLRP", "oLRP_Loc"):
        known = [c[key] for c in result.per_class if c[key] is not None]
        assert sum(known) / len(known) == pytest.approx(result.values[key], abs=1e-12), key


def test_files_give_the_same_numbers_as_loaded_json(tmp_path: Path) -> None:
    gt, detections = ordinary_set()
    (tmp_path / "gt.json").write_text(json.dumps(gt))
    (tmp_path / "found.json").write_text(json.dumps(detections))
    before = json.dumps([gt, detections])
    found = detection_metrics(tmp_path / "gt.json", tmp_path / "found.json", simulations=0)
    assert found.values == detection_metrics(gt, detections, simulations=0).values
    assert json.dumps([gt, detections]) == before  # what was passed in is left as it was


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"protocol": "coco"}, "protocol: expected one of det_ls, reference, got 'coco'"),
        ({"bootstrap": -1}, "bootstrap: expected an integer of at least 0, got -1"),
        ({"bootstrap": "abc"}, "bootstrap: expected an integer of at least 0, got 'abc'"),
        ({"bootstrap": 99}, "bootstrap: expected 0 or an integer of at least 100, got 99"),
        ({"threshold": "best"}, "threshold: expected 'lrp' or a number, got 'best'"),
        ({"miss_cost": 0}, "miss_cost: expected a number from 0.01 to 100, got 0"),
        ({"simulations": -5}, "simulations: expected an integer of at least 0, got -5"),
        ({"seed": True}, "seed: expected an integer of at least 0, got True"),
        ({"level": 95}, "level: expected a number between 0 and 1, got 95"),
    ],
)
def test_arguments_out_of_range_are_refused_before_any_work(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises((TypeError, ValueError), match=message):
        detection_metrics("no such file", "no such file", **arguments)
