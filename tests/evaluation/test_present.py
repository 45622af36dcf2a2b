# SPDX-License-Identifier: AGPL-3.0-or-later
"""An evaluation shows its own numbers, as text, in notebooks and as data frames."""

from __future__ import annotations

import sys
from types import SimpleNamespace
from xml.etree import ElementTree

import pytest
from hard_set import hard_set, ordinary_set

from det_ls.evaluation.evaluate import evaluate_detections
from det_ls.evaluation.present import as_html, brief, summary, to_dataframe
from det_ls.evaluation.results import Evaluation
from det_ls.metrics.catalogue import HEADLINE


@pytest.fixture(scope="module")
def evaluation() -> Evaluation:
    return evaluate_detections(*ordinary_set(), bootstrap=100)


def test_a_summary_has_each_headline_with_its_boxes_interval_and_floor(evaluation: Evaluation) -> None:
    head, columns, *lines = summary(evaluation).splitlines()
    assert "12 images" in head
    assert "95% interval" in columns
    cells = {tuple(line.split()[:2]): line.split()[2:] for line in lines}
    assert len(cells) == len(lines)
    assert [key for boxes, key in cells if boxes == "all"] == list(HEADLINE)
    assert {("kept", "precision"), ("kept", "LaECE0")} < cells.keys()
    for (boxes, key), (value, low, _, high, *floor) in cells.items():
        found = evaluation.metrics if boxes == "all" else evaluation.metrics.kept
        interval = found.intervals[key]
        assert (value, low, high) == (f"{found.values[key]:.4f}", f"{interval.low:.4f}", f"{interval.high:.4f}")
        assert floor == ([f"{found.floors[key].p95:.4f}"] if key in found.floors else [])
    assert summary(evaluation).isascii()


def test_a_brief_has_about_ten_lines_and_no_sentence(evaluation: Evaluation) -> None:
    text = brief(evaluation)
    assert 8 <= len(text.splitlines()) <= 12
    assert f"{evaluation.metrics.values['AP']:.4f}" in text
    assert ". " not in text


def test_what_is_undefined_is_a_dash() -> None:
    gt, _ = hard_set()
    empty = evaluate_detections(gt, [])
    line = next(line for line in summary(empty).splitlines() if line.split()[:2] == ["all", "brier"])
    assert line.split() == ["all", "brier", "-"]


def test_the_notebooks_table_is_well_formed_and_escaped(evaluation: Evaluation) -> None:
    named = Evaluation(evaluation.metrics, {"weights": "<a & b>.pt"}, evaluation.ground_truth, evaluation.detections)
    table = ElementTree.fromstring(as_html(named))
    assert "<a & b>.pt" in (table.findtext("caption") or "")
    rows = table.findall("tbody/tr")
    cells = [[cell.text or "" for cell in row] for row in rows]
    assert [row[1] for row in cells if row[0] == "all"] == list(HEADLINE)
    assert f"{evaluation.metrics.values['AP']:.4f}" in next(row for row in cells if row[:2] == ["all", "AP"])


def test_data_frames_hold_every_number_and_class(evaluation: Evaluation) -> None:
    frame = to_dataframe(evaluation, library="polars")
    rows = {(row["boxes"], row["key"]): row for row in frame.to_dicts()}
    for boxes, found in (("all", evaluation.metrics), ("kept", evaluation.metrics.kept)):
        assert [key for which, key in rows if which == boxes] == list(found.values)
        assert {key: rows[boxes, key]["value"] for key in found.values} == found.values
        assert rows[boxes, "LaECE0"]["low"] == found.intervals["LaECE0"].low
        assert rows[boxes, "LaECE0"]["floor_p95"] == found.floors["LaECE0"].p95
    classes = to_dataframe(evaluation, "classes", library="polars")
    assert classes["name"].to_list() == ["class 1", "class 2", "class 3"]
    assert classes["AP"].to_list() == [entry["AP"] for entry in evaluation.metrics.per_class]


def test_the_first_library_that_is_there_is_taken(evaluation: Evaluation, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pandas", SimpleNamespace(DataFrame=dict, __spec__=object()))
    monkeypatch.setattr("det_ls.evaluation.present.find_spec", lambda name: name)
    assert to_dataframe(evaluation)["key"][0] == "AP"


def test_without_a_library_or_with_a_wrong_name_it_is_one_sentence(
    evaluation: Evaluation, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ValueError, match="table: expected one of numbers, classes, got 'all'"):
        to_dataframe(evaluation, "all")
    with pytest.raises(ValueError, match="library: expected one of pandas, polars, got 'numpy'"):
        to_dataframe(evaluation, library="numpy")
    monkeypatch.setattr("det_ls.evaluation.present.find_spec", lambda _: None)
    with pytest.raises(ImportError, match="library: expected pandas or polars to be installed"):
        to_dataframe(evaluation)
