# SPDX-License-Identifier: AGPL-3.0-or-later
"""The ``reference`` protocol reproduces what independent tools gave on two fixed sets."""

from __future__ import annotations

import csv
import json
from typing import Any

import numpy as np
import pytest
from hard_set import GOLDEN

from det_ls.evaluation.measure import DetectionMetrics, detection_metrics
from det_ls.metrics.calibration import equal_mass_reliability, reliability
from det_ls.metrics.catalogue import table_numbers
from det_ls.metrics.class_errors import class_errors
from det_ls.metrics.lrp import LRP, lrp, optimal_lrp
from det_ls.metrics.protocols import get_protocol, lrp_optimal_mask
from det_ls.metrics.table import DetectionTable

FOLDERS, SETS = ("coco_tiny", "synth_edge"), ("all", "thr0.3", "lrpopt_self")
TIGHT, TOLERANCE = 1e-12, 1e-9
REFERENCE = get_protocol("reference")
_cache: dict[str, Any] = {}


def golden(folder: str) -> dict[str, Any]:
    if folder not in _cache:
        _cache[folder] = json.loads((GOLDEN / folder / "golden.json").read_text())
    return _cache[folder]


def measured(folder: str) -> DetectionMetrics:
    key = f"measured {folder}"
    if key not in _cache:
        _cache[key] = detection_metrics(
            GOLDEN / folder / "gt.json", GOLDEN / folder / "detections.json", protocol="reference", simulations=0
        )
    return _cache[key]


def subset(folder: str, name: str) -> DetectionTable:
    table = measured(folder).table
    if name == "all":
        return table
    if name == "thr0.3":
        return table.filter(table.score >= 0.3)
    best = optimal_lrp(table, REFERENCE.matches(table, 0.0), split_ties=True)
    return table.filter(lrp_optimal_mask(table, best.threshold, REFERENCE))


def assert_by_class(table: DetectionTable, ours: np.ndarray[Any, Any], expected: dict[str, float | None]) -> None:
    for class_id, value in zip(table.class_ids, ours, strict=True):
        theirs = expected.get(str(class_id))
        assert (theirs in (None, -1.0)) == bool(np.isnan(value)), f"class {class_id}: {value} beside {theirs}"
        if not np.isnan(value):
            assert value == pytest.approx(theirs, abs=TOLERANCE), f"class {class_id}"


def assert_parts(found: LRP, expected: dict[str, Any], prefix: str) -> None:
    for part, value in found.mean().items():
        key = prefix if part == "LRP" else f"{prefix}_{part}"
        assert value == pytest.approx(expected[key], abs=TOLERANCE), key


@pytest.mark.parametrize("folder", FOLDERS)
def test_every_match_is_cocos(folder: str) -> None:
    table = measured(folder).table
    row = {int(d): i for i, d in enumerate(table.detection)}
    seen = 0
    with (GOLDEN / folder / "matches.csv").open() as file:
        for line in csv.DictReader(file):
            matches = table.matches(float(line["iou_thr"]), zero_overlap=True)
            i = row[int(line["det"])]
            gt_id = 0 if matches.gt[i] < 0 else int(table.gt_ids[matches.gt[i]])
            assert gt_id == int(line["gt_id"])
            assert matches.iou[i] == pytest.approx(float(line["iou"]), abs=TIGHT)
            assert (matches.ignored[i], matches.tp[i]) == (line["ignore"] == "1", line["tp"] == "1")
            assert table.has_gt[table.cls[i]] == (line["class_has_gt"] == "1")
            assert table.score[i] == float(line["score"])
            seen += 1
    assert seen == 4 * table.n_detections


@pytest.mark.parametrize("folder", FOLDERS)
def test_coco_stats(folder: str) -> None:
    result, expected = measured(folder), golden(folder)["pycocotools"]
    assert list(result.values.values())[:12] == pytest.approx(expected["stats12"], abs=TIGHT)
    assert list(result.values)[:3] == ["AP", "AP50", "AP75"]
    for entry in result.per_class:
        theirs = expected["ap_per_class"].get(str(entry["id"]))
        assert (entry["AP"] is None) == (theirs is None)
        assert theirs is None or entry["AP"] == pytest.approx(theirs, abs=TIGHT)


@pytest.mark.parametrize("tau", [0.0, 0.1, 0.5])
@pytest.mark.parametrize("name", SETS)
@pytest.mark.parametrize("folder", FOLDERS)
def test_laece_laace_and_lrp(folder: str, name: str, tau: float) -> None:
    table, expected = subset(folder, name), golden(folder)["fiveai"][name]
    assert table.n_detections == expected["n_det"] - (table.n_beyond_max if name == "all" else 0)
    expected = expected[f"tau{tau}"]
    error, absolute = class_errors(table, tau, REFERENCE)
    assert np.nanmean(error) == pytest.approx(expected["LaECE"], abs=TOLERANCE)
    assert np.nanmean(absolute) == pytest.approx(expected["LaACE"], abs=TOLERANCE)
    assert_by_class(table, error, expected["laece_per_class"])
    assert_by_class(table, absolute, expected["laace_per_class"])
    kept = table.filter(REFERENCE.matches(table, tau).kept)
    without = np.nanmean(class_errors(kept, tau, REFERENCE)[1])
    assert without == pytest.approx(expected["LaACE_without_ignored"], abs=TOLERANCE)
    assert_parts(lrp(table, REFERENCE.matches(table, tau)), expected, "LRP")


@pytest.mark.parametrize("name", SETS)
@pytest.mark.parametrize("folder", FOLDERS)
def test_detection_calibration_error_and_optimal_lrp(folder: str, name: str) -> None:
    table, expected = subset(folder, name), golden(folder)["fiveai"][name]
    matches = REFERENCE.matches(table, 0.5)
    rows = REFERENCE.counted(table, matches)
    for bins in (10, 15, 20, 25):
        error = reliability(table.score[rows], matches.tp[rows], bins=bins).error
        assert error == pytest.approx(expected[f"DECE_tau0.5_bins{bins}"], abs=TOLERANCE)
    expected = expected["lrp_eval_iou0.5"]
    assert_parts(lrp(table, matches), expected, "LRP")
    best = optimal_lrp(table, matches, split_ties=True)
    assert_parts(best, expected, "oLRP")
    assert_by_class(table, best.threshold, expected["opt_thr_per_class"])
    for size in ("small", "medium", "large"):
        found = optimal_lrp(table, REFERENCE.matches(table, 0.5, area=size), split_ties=True).mean()["LRP"]
        theirs = expected[f"oLRP_{size[0].upper()}"]
        assert (-1.0 if np.isnan(found) else found) == pytest.approx(theirs, abs=TOLERANCE)


@pytest.mark.parametrize("folder", FOLDERS)
def test_lrp_optimal_thresholds_at_iou_0(folder: str) -> None:
    table = measured(folder).table
    best = optimal_lrp(table, REFERENCE.matches(table, 0.0), split_ties=True)
    assert_by_class(table, best.threshold, golden(folder)["fiveai"]["lrpopt_self_thresholds_tau0"])


@pytest.mark.parametrize("classes", ["incl", "excl"])
@pytest.mark.parametrize("name", SETS)
@pytest.mark.parametrize("folder", FOLDERS)
def test_scores_against_true_positives(folder: str, name: str, classes: str) -> None:
    table = subset(folder, name)
    expected = golden(folder)["detection_level"][name][f"coco_greedy_iou0.5_{classes}_classes_without_gt"]
    matches = REFERENCE.matches(table, 0.5)
    rows = matches.kept if classes == "incl" else REFERENCE.counted(table, matches)
    score, tp = table.score[rows], matches.tp[rows]
    for bins in (10, 15, 20, 25):
        error = reliability(score, tp, bins=bins, closed="left").error
        assert error == pytest.approx(expected[f"netcal_ECE_bins{bins}_st1"], abs=TOLERANCE)
        error = equal_mass_reliability(score, tp, bins=bins, ties="order").error
        assert error == pytest.approx(expected[f"ECE_equalmass_arraysplit_bins{bins}"], abs=TOLERANCE)
    if classes == "excl":
        numbers = table_numbers(table, REFERENCE)
        for ours, theirs in {
            "signed_gap": "conf_minus_prec",
            "brier": "brier_tp",
            "nll": "nll_tp",
            "auroc": "auroc_tp_vs_fp",
            "precision": "precision",
            "mean_score": "mean_conf",
            "DECE_equal_mass": "ECE_equalmass_arraysplit_bins20",
        }.items():
            assert numbers[ours] == pytest.approx(expected[theirs], abs=TOLERANCE), ours


@pytest.mark.parametrize("folder", FOLDERS)
def test_headline_keys_are_the_golden_values(folder: str) -> None:
    values, expected = measured(folder).to_dict(), golden(folder)["fiveai"]["all"]
    for ours, theirs in {
        "LaECE0": expected["tau0.0"]["LaECE"],
        "LaACE0": expected["tau0.0"]["LaACE"],
        "LRP": expected["tau0.5"]["LRP"],
        "oLRP": expected["lrp_eval_iou0.5"]["oLRP"],
        "DECE": expected["DECE_tau0.5_bins20"],
    }.items():
        assert values[ours] == pytest.approx(theirs, abs=TOLERANCE), ours
    at_optimum = golden(folder)["fiveai"]["lrpopt_self"]["tau0.0"]
    assert values["values"]["LaECE0_lrpopt"] == pytest.approx(at_optimum["LaECE"], abs=TOLERANCE)
    assert values["values"]["LaACE0_lrpopt"] == pytest.approx(at_optimum["LaACE"], abs=TOLERANCE)
