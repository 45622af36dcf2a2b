# SPDX-License-Identifier: AGPL-3.0-or-later
"""The page of a study stands alone, begins with the decision and its rules, and holds every cell."""

from __future__ import annotations

import csv
import json
import re
from dataclasses import replace
from pathlib import Path

import pytest
from report_scene import EVIL, Page, seen_by_browser
from study_scene import CONDITIONS, made_up

from det_ls.report.plots_study import against_epsilon, pooled, reliability_of_arms, trade_off, training_curves
from det_ls.report.study_page import study_sentences, write_study
from det_ls.report.study_words import decision_lead, decision_text, rules
from det_ls.studies.decision import ALPHA, LOSS_ALPHA, MARGINS, decide
from det_ls.studies.records import Arm, CellResult, Condition, State
from det_ls.studies.statistics import AP, GAP, study_numbers

COMMAND = "det-ls study data=phantom.yaml label_smoothing=0,0.1,0.3 seeds=5"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    target = tmp_path_factory.mktemp("study") / "new"
    write_study(target, made_up(), title=f"Of {EVIL}", command=COMMAND)
    return target


@pytest.fixture(scope="module")
def text(folder: Path) -> str:
    return (folder / "report.html").read_text(encoding="utf-8")


def test_page_stands_alone(text: str) -> None:
    shown = Page(text)
    assert f"Of {EVIL}" in shown.text
    assert not re.search(r"url\((?!#)|@import|<script", text)
    for tag, attributes in shown.tags:
        assert (attributes.get("src") or attributes.get("href") or "data:").startswith(("data:", "#")), tag
    ids = [a["id"] for _, a in shown.tags if "id" in a]
    assert len(ids) == len(set(ids))


@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("width", [400, 1280])
def test_nothing_is_cut_off_or_faint_in_a_browser(folder: Path, tmp_path: Path, width: int, dark: bool) -> None:
    opened = (folder / "report.html").read_text(encoding="utf-8").replace("<details", "<details open")
    page = tmp_path / "page.html"
    page.write_text(opened, encoding="utf-8")
    found = seen_by_browser(page, tmp_path, width, dark)
    assert found["wide"] <= width
    assert found["cut"] == []
    assert (found["ground"] < 0.1) == dark
    assert found["written"] > 100
    assert found["faint"] == []


def test_the_decision_comes_first_with_the_rules_that_are_applied_beside_it(text: str) -> None:
    shown = Page(text).text
    decisions = [decide(one) for one in study_numbers(made_up())]
    assert [d.outcome.value for d in decisions] == ["do not smooth, calibrate", "use it"]
    places = [shown.index(decision_lead(d)) for d in decisions]
    assert max(places) < shown.index("Runs finished") < shown.index("The rules") < shown.index("The arms")
    said = " ".join(rule for _, rule in rules())
    for value in (f"{MARGINS[AP]:g}", f"{MARGINS[GAP]:g}", f"{ALPHA:.0%}", f"{1 - 2 * LOSS_ALPHA[AP]:.0%}"):
        assert value in said
    assert all(rule in shown for _, rule in rules())


def test_every_run_is_there_and_the_failed_one_with_its_error(text: str, folder: Path) -> None:
    shown = Page(text).text
    assert "39 of 40" in shown
    assert "expected a finite loss, got nan in epoch 17." in shown
    assert COMMAND in shown
    assert "epochs = 240" in shown
    with open(folder / "cells.csv", encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 40
    results = {(r.cell.condition.flip, r.cell.arm.name, r.cell.seed): r for r in made_up()}
    for row in rows:
        measured = results[float(row["flip"]), row["arm"], int(row["seed"])].measured
        assert row["platt.kept.absolute_gap"] == ("" if measured is None else str(measured.platt[GAP]))
    assert [row["error"] for row in rows if row["state"] == "failed"] == [
        "train: expected a finite loss, got nan in epoch 17."
    ]


def test_numbers_are_written_as_json_that_any_reader_takes(folder: Path) -> None:
    record = json.loads((folder / "study_numbers.json").read_text(encoding="utf-8"), parse_constant=pytest.fail)
    assert [d["outcome"] for d in record["decisions"]] == ["do not smooth, calibrate", "use it"]
    assert record["command"] == COMMAND
    assert {f.stem for f in (folder / "pictures").glob("*.svg")} >= {"ap", "gap", "reliability", "trade_off"}
    assert record["conditions"][1]["arms"][0]["against"]["stock"]["AP"]["values"].keys() == {"0", "1", "2", "3", "4"}
    assert len(record["cells"]) == 40


def test_nothing_is_replaced_without_being_told(folder: Path) -> None:
    before = (folder / "cells.csv").read_bytes()
    with pytest.raises(FileExistsError, match="exist_ok"):
        write_study(folder, made_up(seeds=[0]), title="Other")
    assert (folder / "cells.csv").read_bytes() == before
    with pytest.raises(ValueError, match="at least one cell"):
        write_study(folder, [], title="None")


def test_a_study_that_has_hardly_begun_or_failed_altogether_has_a_page(tmp_path: Path) -> None:
    some = made_up(conditions=CONDITIONS[:1], failed=())
    waiting = [r if r.cell.seed == 0 else CellResult(r.cell, State.WAITING) for r in some]
    failed = [CellResult(r.cell, State.FAILED, error="train: no.") for r in some]
    for name, results in (("begun", waiting), ("failed", failed), ("stock", [r for r in some if r.cell.arm.stock])):
        path = write_study(tmp_path / name, results, title=name, pictures=False)
        shown = Page(path.read_text(encoding="utf-8")).text
        assert "Too few seeds to tell" in shown


def test_means_of_different_seeds_are_said_to_be_such(text: str, tmp_path: Path) -> None:
    said = "Not all arms have finished the same seeds"
    noisy = "30% of classes flipped"
    assert f"{said} (" in Page(text).text  # a run of the scene failed
    whole = write_study(tmp_path / "whole", made_up(failed=()), title="Whole", pictures=False)
    assert said not in Page(whole.read_text(encoding="utf-8")).text
    results = [r for r in made_up(failed=()) if r.cell.arm.stock or r.cell.seed < 3 or not r.cell.condition.flip]
    partly = write_study(tmp_path / "partly", results, title="Partly", pictures=False)
    assert f"{said} ({noisy}): " in Page(partly.read_text(encoding="utf-8")).text


def without_objects(result: CellResult) -> CellResult:
    """Make a run one that finds no object, as such runs are measured: no box is kept, no map can be fitted."""
    assert result.measured is not None
    none = {"AP": 0.0, "AP50": 0.0, "oLRP": 1.0, "brier": 1e-5 * (1 + result.cell.seed), "kept.recall": 0.0}
    measured = replace(result.measured, val=none, train=none, platt={}, reliability={"val": []})
    return replace(result, measured=measured)


def test_a_study_of_runs_that_find_nothing_says_so_and_compares_nothing(tmp_path: Path) -> None:
    found = [without_objects(r) for r in made_up(conditions=CONDITIONS[:1], seeds=range(5), failed=())]
    write_study(tmp_path / "none", found, title="None", command=COMMAND)
    shown = Page(page_of(tmp_path / "none")).text
    assert "No run finds any object: there is nothing to compare" in shown
    assert "Train longer, or look at the data set and its labels." in shown
    verdicts = shown
    for pair in rules():
        verdicts = verdicts.replace(" ".join(pair), "")
    for word in ("not settled", "not even 200", "not measured", "none shown", "All numbers", "What was asked"):
        assert word not in verdicts, word
    assert {file.stem.split("_")[0] for file in (tmp_path / "none" / "pictures").iterdir()} == {"training"}
    (said,) = study_sentences(found)
    assert said.endswith("Train longer, or look at the data set and its labels.")


def test_of_a_condition_that_finds_something_the_other_is_told_apart(tmp_path: Path) -> None:
    found = [without_objects(r) if r.cell.condition.flip else r for r in made_up(failed=())]
    write_study(tmp_path, found, title="Half", pictures=False)
    shown = Page(page_of(tmp_path)).text
    assert "No arm beats Platt: do not smooth, calibrate" in shown
    assert "No run finds any object" in shown
    assert "All numbers" in shown


def test_of_arms_that_cannot_be_compared_as_stock_finds_nothing_the_page_says_what_is_missing(tmp_path: Path) -> None:
    found = [without_objects(r) if r.cell.arm.stock else r for r in made_up(conditions=CONDITIONS[:1], failed=())]
    write_study(tmp_path, found, title="Stock finds nothing", pictures=False)
    shown = Page(page_of(tmp_path)).text
    assert "Too few seeds to tell: too few runs have AP with Platt and gap with Platt to compare." in shown
    asked = re.findall(r"<li><span[^>]*>([^<]*)</span>([^<]*)</li>", page_of(tmp_path))
    unmeasured = [status for status, text in asked if "not measured" in text]
    assert set(unmeasured) == {"not settled"}
    assert len(unmeasured) >= 10


def test_of_runs_most_of_which_find_nothing_the_page_does_not_ask_for_seeds_alone() -> None:
    found = [without_objects(r) if r.cell.seed else r for r in made_up(conditions=CONDITIONS[:1], failed=())]
    decision = decide(study_numbers(found)[0])
    assert (
        decision_lead(decision)
        == "Too few seeds to tell: too few runs have AP with Platt and gap with Platt to compare"
    )
    assert "A run that finds no object has neither a gap nor a Platt map: train longer" in decision_text(decision)
    (single,) = study_numbers([r for r in made_up(conditions=CONDITIONS[:1], failed=()) if not r.cell.seed])
    assert decision_lead(decide(single)) == "Too few seeds to tell: at least 2 a condition and arm are needed"
    assert "finds no object" not in decision_text(decide(single))


def page_of(folder: Path) -> str:
    return (folder / "report.html").read_text(encoding="utf-8")


def test_epochs_whose_loss_was_finite_in_no_run_are_a_gap_in_its_curve() -> None:
    results = made_up(conditions=CONDITIONS[:1], seeds=range(2), failed=())
    column = "train/cls_loss"
    for i, r in enumerate(results):
        values = list(r.curves[column])
        values[0] = values[9] = None
        values[19] = values[19] if r.cell.seed else None  # the other seed still has it
        results[i] = replace(r, curves={**r.curves, column: values})
    figure = training_curves(study_numbers(results), results, column)
    assert figure is not None
    lines = figure.axes[0].get_lines()
    second = {r.cell.arm.name: r.curves[column] for r in results if r.cell.seed}
    assert {line.get_label() for line in lines} == set(second)
    for line in lines:
        assert list(line.get_xdata()) == list(range(1, 61))
        drawn = dict(zip(line.get_xdata(), line.get_ydata(), strict=True))
        assert [epoch for epoch in range(1, 61) if not drawn[epoch] > 0] == [1, 10]  # no line joins 9 and 11
        assert drawn[20] == pytest.approx(second[line.get_label()][19])


def test_sentences_change_with_the_numbers() -> None:
    noisy = decide(study_numbers(made_up(sd=0.03, rng=2))[1])
    assert decision_lead(noisy).startswith("Too few seeds to tell: about ")
    assert "Until then calibrate stock." in decision_text(noisy)
    used = decide(study_numbers(made_up())[1])
    assert decision_lead(used) == "redistribute 0.1, then calibrate: use it"
    assert "AP better than stock, both with Platt: +0.0" in decision_text(used)


def test_curves_show_means_a_line_a_mode_and_the_rival() -> None:
    numbers = study_numbers([*made_up(), *made_up(arms=[Arm("adaptive", "background")], failed=())])
    figure = against_epsilon(numbers, AP, "val", "AP")
    assert len(figure.axes) == 2
    assert numbers[1].stock is not None
    lines = {line.get_label(): line for line in figure.axes[1].lines}
    assert lines["stock + Platt"].get_ydata()[0] == pytest.approx(numbers[1].stock.platt[AP].mean)
    means = [numbers[1].stock.val[AP].mean, *(a.val[AP].mean for a in numbers[1].arms[:2])]
    assert list(lines["redistribute"].get_ydata()) == pytest.approx(means)
    assert len(lines["background"].get_xdata()) == 2  # a policy has no place among the numbers, and is not joined
    names = [t.get_text() for t in figure.axes[1].get_xticklabels()]
    assert names == ["stock", "0.1", "0.3", "adaptive"]


def test_diagrams_pool_the_boxes_of_all_seeds() -> None:
    results = made_up()
    data = pooled(results, Condition(), Arm(), "val")
    assert data.count.sum() == 5 * (60 + 70 + 60 + 50 + 40 + 40 + 40 + 40 + 30 + 8)
    first = results[0].measured
    assert first is not None
    lone = pooled(results[:1], Condition(), Arm(), "val")
    total = sum(b["precision"] * b["count"] for b in first.reliability["val"])
    assert (lone.mean_target * lone.count).sum() == pytest.approx(total)
    shown = {Condition(): [Arm("0.1")]}
    figure = reliability_of_arms(study_numbers(results), results, shown)
    labels = {line.get_label() for line in figure.axes[0].lines}
    assert {"stock", "stock + Platt", "redistribute 0.1"} <= labels


def test_pictures_without_anything_to_draw_say_so() -> None:
    results = [CellResult(r.cell, State.WAITING) for r in made_up()]
    numbers = study_numbers(results)
    for figure in (against_epsilon(numbers, AP, "val", "AP"), trade_off(numbers), reliability_of_arms(numbers, [], {})):
        assert all(any("Undefined" in t.get_text() for t in ax.texts) for ax in figure.axes)
    silent = [replace(r, curves={"val/cls_loss": [0.0, 0.0]}) for r in made_up()]
    assert training_curves(study_numbers(silent), silent, "val/cls_loss") is None
