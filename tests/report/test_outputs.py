# SPDX-License-Identifier: AGPL-3.0-or-later
"""The files beside a page hold the numbers of the page, and no file is written that is not listed."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest
from report_scene import scene

from det_ls import evaluate_detections
from det_ls.evaluation.comparison import compare
from det_ls.report.outputs import COMPARISON_FILES, EVALUATION_FILES, write_evaluation, write_pair


def files_in(folder: Path) -> set[str]:
    return {str(file.relative_to(folder)) for file in folder.rglob("*") if file.is_file()}


def table(file: Path) -> list[dict[str, str]]:
    with file.open(newline="", encoding="utf-8") as opened:
        return list(csv.DictReader(opened))


def test_an_evaluation_writes_exactly_what_is_listed(tmp_path: Path) -> None:
    gt, detections, _ = scene(tmp_path)
    made = evaluate_detections(gt, detections, bootstrap=100, simulations=20, threshold=0.2)
    out = tmp_path / "out"
    write_evaluation(out, made, title="t")
    assert files_in(out) == set(EVALUATION_FILES)
    numbers = {(row["boxes"], row["number"]): row for row in table(out / "tables" / "numbers.csv")}
    assert float(numbers["all", "AP"]["value"]) == pytest.approx(made.metrics.values["AP"], rel=1e-5)
    assert float(numbers["kept", "DECE"]["floor_p95"]) == pytest.approx(made.metrics.kept.floors["DECE"].p95, rel=1e-5)
    assert len(numbers) == len(made.metrics.values) + len(made.metrics.kept.values)
    errors = table(out / "errors.csv")
    wrong = [row for row in errors if row["what"] == "false positive" and row["class"] != "no objects"]
    kept = made.metrics.kept.counts
    assert len(wrong) == kept["boxes"] - kept["found"]
    assert sum(row["what"] == "missed object" for row in errors) == kept["objects"] - kept["found"]
    with pytest.raises(FileExistsError):
        write_evaluation(out, made, title="t")
    write_evaluation(out, made, title="t", exist_ok=True)


def test_nothing_to_evaluate_writes_the_same_files(tmp_path: Path) -> None:
    gt, _, _ = scene(tmp_path)
    write_evaluation(tmp_path / "out", evaluate_detections(gt, [], simulations=0), title="t")
    assert files_in(tmp_path / "out") == set(EVALUATION_FILES)


def test_a_comparison_writes_exactly_what_is_listed(tmp_path: Path) -> None:
    gt, detections, _ = scene(tmp_path)
    other = [{**d, "score": d["score"] ** 2} for d in detections]
    pair = compare(detections, other, annotations=gt, bootstrap=100, simulations=0, names=("a", "b"))
    write_pair(tmp_path / "out", pair, title="t")
    assert files_in(tmp_path / "out") == set(COMPARISON_FILES)
    rows = {(row["boxes"], row["number"]): row for row in table(tmp_path / "out" / "tables" / "differences.csv")}
    found = pair.comparisons.all["AP"]
    assert float(rows["all", "AP"]["low"]) == pytest.approx(found.interval.low, rel=1e-5, abs=1e-12)
    assert rows["all", "AP"]["declared"] == "yes"
    assert {row["verdict"] for key, row in rows.items() if key[1] == "DECE"} == {"unjudged"}
