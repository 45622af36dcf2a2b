# SPDX-License-Identifier: AGPL-3.0-or-later
"""scripts/results.py: the published pages are what the raw files give, and a page that is not is found."""

from __future__ import annotations

import json
import re
import shutil
from dataclasses import asdict

import numpy as np
import pytest
import results
import results_tables
from scipy import stats
from study_scene import made_up

from det_ls.base.errors import DetLsError
from det_ls.report.study_words import decision_lead
from det_ls.studies.decision import decide
from det_ls.studies.records import Arm, Condition
from det_ls.studies.statistics import study_numbers

ARMS = (Arm(), Arm("0.1"))
NOISE = Condition(flip=0.3)


@pytest.fixture
def raw(tmp_path):
    """A study's folder with a cell.json for each cell, taken into a raw file."""
    study = tmp_path / "study"
    for r in made_up(arms=ARMS, conditions=(NOISE,), seeds=range(3), failed=()):
        folder = study / f"seed{r.cell.seed}" / r.cell.arm.name.replace(" ", "_")
        folder.mkdir(parents=True)
        content = {**asdict(r), "state": r.state.value, "versions": {"torch": "2.14.1"}, "hash": "0"}
        (folder / "cell.json").write_text(json.dumps(content))
    results.add("scene", study, tmp_path / "raw")
    return tmp_path / "raw"


def squeezed(text):
    """The text without the spaces that align a table."""
    return re.sub(r" +", " ", text)


def cells(raw):
    return json.loads((raw / "scene.json").read_text())


def test_the_published_pages_and_pictures_are_what_the_raw_files_give():
    assert results.stale() == []


def test_a_table_holds_means_and_t_intervals_of_the_raw_file(raw):
    found = {
        c["cell"]["seed"]: c["measured"]["val"]["AP"] for c in cells(raw) if c["cell"]["arm"]["label_smoothing"] == "0"
    }
    mean, half = np.mean(list(found.values())), stats.sem(list(found.values())) * stats.t.ppf(0.975, 2)
    row = next(line for line in squeezed(results.part("scene", "arms", raw)).splitlines() if "| stock |" in line)
    assert f"| 3 | {mean:.3f} ({mean - half:.3f} to {mean + half:.3f}) |" in row


def test_a_difference_is_paired_by_seed(raw):
    by_arm = {}
    for c in cells(raw):
        by_arm.setdefault(c["cell"]["arm"]["label_smoothing"], []).append(c["measured"]["platt"]["AP"])
    test = stats.ttest_rel(by_arm["0.1"], by_arm["0"])
    rows = squeezed(results.part("scene", "differences", raw)).splitlines()
    assert rows[0].startswith("| labels | arm | AP, Platt on both sides (declared) |")
    cell = rows[2].replace("\N{MINUS SIGN}", "-").split(" | ")[2]
    mean, ends = np.mean(by_arm["0.1"]) - np.mean(by_arm["0"]), test.confidence_interval()
    up = sum(a > b for a, b in zip(by_arm["0.1"], by_arm["0"], strict=True))
    assert cell == f"{mean:+.3f} ({ends.low:+.3f} to {ends.high:+.3f}, n = 3); {up} up"


@pytest.mark.parametrize("kind", [kind for kind in results.STUDY_PARTS if kind != "policies"])
def test_a_changed_figure_on_a_page_is_found(raw, tmp_path, kind):
    page = tmp_path / "page.md"
    page.write_text(results.filled(f"Text.\n\n<!-- results: scene.{kind} -->\n<!-- end -->\n\nMore 0.5 text.\n", raw))
    assert results.stale(raw, tmp_path, [page]) == []
    text = page.read_text()
    digit = next(i for i, c in enumerate(text) if c.isdigit() and i > text.index("-->"))
    page.write_text(text[:digit] + str((int(text[digit]) + 1) % 10) + text[digit + 1 :])
    assert results.stale(raw, tmp_path, [page]) == [f"page.md: scene.{kind} is not what docs/results/scene.json gives."]


def test_one_smoothed_arm_makes_no_curve_against_epsilon(raw, tmp_path):
    assert [f.name for f in results.pictures("scene", raw, tmp_path)] == [
        "results_scene_reliability.png", "results_scene_trade_off.png"
    ]  # fmt: skip


def test_a_picture_of_other_raw_files_is_found(raw, tmp_path):
    more = [{**c, "cell": {**c["cell"], "arm": asdict(Arm("0.3"))}} for c in cells(raw) if c["cell"]["seed"] == 2]
    (raw / "scene.json").write_text(json.dumps([*cells(raw), *more]))
    files = results.pictures("scene", raw, tmp_path)
    assert {f.name for f in files} == {f"results_scene_{kind}.png" for kind in results.PICTURES}
    assert results.stale(raw, tmp_path, []) == []
    content = cells(raw)
    content[0]["measured"]["val"]["AP"] += 0.001
    (raw / "scene.json").write_text(json.dumps(content))
    assert len(results.stale(raw, tmp_path, [])) == len(files)


def test_cells_of_other_seeds_stay_and_the_same_cell_is_replaced(raw, tmp_path):
    before = cells(raw)
    study = tmp_path / "study"
    for seed in (0, 1):
        shutil.rmtree(study / f"seed{seed}")
    changed = study / "seed2" / "stock" / "cell.json"
    content = json.loads(changed.read_text())
    content["measured"]["val"]["AP"] = 0.25
    changed.write_text(json.dumps(content))
    results.add("scene", study, raw)
    after = cells(raw)
    assert [c["cell"] for c in after] == [c["cell"] for c in before]
    assert [c["measured"]["val"]["AP"] for c in after if c not in before] == [0.25]


def test_a_folder_without_a_finished_run_is_one_sentence(tmp_path):
    with pytest.raises(DetLsError, match=r"^--folder: expected a study or digits with a finished run, got '.*'\.$"):
        results.add("scene", tmp_path, tmp_path / "raw")


def test_the_summary_sets_studies_beside_each_other_with_what_is_decided(raw, monkeypatch):
    monkeypatch.setattr(results, "TITLES", {"scene": "scene", "other": "not published yet"})
    monkeypatch.setitem(results_tables.TITLES, "scene", "a scene")
    by_arm = {}
    for c in cells(raw):
        by_arm.setdefault(c["cell"]["arm"]["label_smoothing"], []).append(c["measured"]["val"]["AP"])
    stock, arm = np.mean(by_arm["0"]), np.mean(by_arm["0.1"])
    (row,) = [line for line in squeezed(results.part("all", "summary", raw)).splitlines() if "a scene" in line]
    assert row.startswith(f"| a scene; 30% of classes flipped | 3 | {stock:.3f} → {arm:.3f}: {arm - stock:+.3f}")
    ends = stats.ttest_rel(by_arm["0.1"], by_arm["0"]).confidence_interval()
    assert f"({ends.low:+.3f} to {ends.high:+.3f})" in row.replace("\N{MINUS SIGN}", "-")
    decision = decide(study_numbers(results.read_study("scene", raw))[0])
    assert row.endswith(f"| {decision_lead(decision)} |")


def test_a_summary_that_the_raw_files_do_not_give_is_found(raw, tmp_path, monkeypatch):
    monkeypatch.setattr(results, "TITLES", {"phantom": ""})
    (raw / "scene.json").rename(raw / "phantom.json")
    page = tmp_path / "page.md"
    page.write_text(results.filled("<!-- results: all.summary -->\n<!-- end -->\n", raw).replace("0.5", "0.6"))
    assert results.stale(raw, tmp_path, [page]) == ["page.md: all.summary is not what docs/results/*.json gives."]


def test_a_part_that_does_not_exist_is_one_sentence(raw):
    with pytest.raises(DetLsError, match=r"^results: expected one of arms, .*, got 'colours'\.$"):
        results.part("scene", "colours", raw)
    with pytest.raises(DetLsError, match=r"^results: expected a raw file other.json in docs/results, got none\.$"):
        results.part("other", "arms", raw)


def test_digits_are_compared_by_seed(tmp_path):
    runs = [
        {
            "epsilon": e,
            "seed": s,
            "accuracy": 0.9 + 0.01 * s + e * (0.1 + 0.01 * s),
            "ECE": 0.1,
            "signed gap": 0.0,
            "NLL": 1.0,
        }
        for e in (0.0, 0.1)
        for s in range(3)
    ]
    (tmp_path / "digits.json").write_text(json.dumps(runs))
    text = squeezed(results.part("digits", "table", tmp_path))
    assert "| 0 | 3 | 0.910" in text
    pairs = stats.ttest_1samp([0.01, 0.011, 0.012], 0).confidence_interval()
    assert f"| 0.1 minus 0 | 3 | +0.0110 ({pairs.low:+.4f} to {pairs.high:+.4f}, n = 3) |" in text


def test_means_are_taken_over_seeds_that_all_arms_have(raw):
    content = [c for c in cells(raw) if c["cell"]["seed"] < 2 or c["cell"]["arm"]["label_smoothing"] == "0"]
    (raw / "scene.json").write_text(json.dumps(content))
    rows = squeezed(results.part("scene", "arms", raw)).splitlines()
    for name, epsilon in (("stock", "0"), ("redistribute 0.1", "0.1")):
        shared = [c for c in content if c["cell"]["arm"]["label_smoothing"] == epsilon and c["cell"]["seed"] < 2]
        row = next(line for line in rows if f"| {name} |" in line)
        assert f"| 2 | {np.mean([c['measured']['val']['AP'] for c in shared]):.3f} (" in row


def with_a_policy(raw, name, ap, gap):
    """Add the cells of a policy, made of redistribute 0.1's."""
    arm = asdict(Arm("adaptive") if name == "redistribute adaptive" else Arm("0.1", "online"))
    added = []
    for c in cells(raw):
        if c["cell"]["arm"]["label_smoothing"] == "0.1" and c["cell"]["arm"]["mode"] == "redistribute":
            val = c["measured"]["val"]
            val = {**val, "AP": val["AP"] + ap, "kept.absolute_gap": val["kept.absolute_gap"] + gap}
            added.append({**c, "cell": {**c["cell"], "arm": arm}, "measured": {**c["measured"], "val": val}})
    (raw / "scene.json").write_text(json.dumps([*cells(raw), *added]))


def test_a_policy_leaves_where_it_is_worse_than_the_best_fixed_epsilon(raw):
    with_a_policy(raw, "redistribute adaptive", -0.009, 0.021)
    with_a_policy(raw, "online 0.1", -0.011, 0.0)
    rows = squeezed(results.part("scene", "policies", raw)).splitlines()[2:]
    assert rows[0].startswith("| redistribute adaptive | redistribute 0.1 |")
    assert rows[0].endswith("| leaves: gap greater by more than 0.02 |")
    assert rows[1].startswith("| online 0.1 | redistribute 0.1 |")
    assert rows[1].endswith("| leaves: AP lower by more than 0.01 |")


def test_a_policy_that_is_as_good_stays(raw):
    with_a_policy(raw, "redistribute adaptive", -0.009, 0.019)
    assert results.part("scene", "policies", raw).rstrip().endswith("| stays |")


def test_what_has_left_is_not_decided_on(raw):
    before = results.part("scene", "decisions", raw)
    with_a_policy(raw, "redistribute adaptive", 0.2, -0.01)
    assert results.part("scene", "decisions", raw) == before


def test_a_failure_does_not_replace_a_published_run_and_another_training_is_refused(raw, tmp_path):
    before = cells(raw)
    cell = tmp_path / "study" / "seed0" / "stock" / "cell.json"
    content = json.loads(cell.read_text())
    for folder in (tmp_path / "study").glob("seed*"):
        if folder.name != "seed0":
            shutil.rmtree(folder)
    cell.write_text(json.dumps({**content, "state": "failed", "measured": None, "error": "no."}))
    results.add("scene", tmp_path / "study", raw)
    assert cells(raw) == before
    cell.write_text(json.dumps({**content, "config": {**content["config"], "epochs": 3}}))
    with pytest.raises(DetLsError, match=r"^--folder: expected epochs=240 as published, got 3 in a run of it\.$"):
        results.add("scene", tmp_path / "study", raw)
    assert cells(raw) == before


def test_a_run_that_was_measured_otherwise_is_refused_and_its_noise_is_kept(raw, tmp_path):
    cell = tmp_path / "study" / "seed0" / "stock" / "cell.json"
    content = json.loads(cell.read_text()) | {"noise": {"flip": 84}}
    measured = {"weights": "last", "train_images": 200, "groups": None}
    cell.write_text(json.dumps({**content, "resolved": {"measure": measured}}))
    results.add("scene", tmp_path / "study", raw)
    kept = [e for e in json.loads((raw / "scene.json").read_text()) if "noise" in e]
    assert [(e["noise"], e["measure"]) for e in kept] == [({"flip": 84}, measured)]
    cell.write_text(json.dumps({**content, "resolved": {"measure": {**measured, "weights": "best"}}}))
    with pytest.raises(DetLsError, match="expected runs measured as the published"):
        results.add("scene", tmp_path / "study", raw)


def test_a_picture_that_a_page_shows_and_is_not_there_is_found(raw, tmp_path):
    page = tmp_path / "page.md"
    page.write_text("![Scores](images/results_scene_reliability.png)\n")
    assert results.stale(raw, tmp_path, [page]) == ["page.md: results_scene_reliability.png is not there."]
