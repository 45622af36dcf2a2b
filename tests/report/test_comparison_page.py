# SPDX-License-Identifier: AGPL-3.0-or-later
"""A comparison begins with whether seeds were measured, and claims only what was declared or survives adjustment."""

from __future__ import annotations

import re
from dataclasses import replace
from html import unescape
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from report_scene import Page, seen_by_browser

from det_ls.evaluation.comparison import PairedEvaluation, compare
from det_ls.metrics.catalogue import DECLARED
from det_ls.report import write_comparison
from det_ls.report.comparison_words import comparison_findings, difference_text, seeds_sentence
from det_ls.report.differences import differences
from det_ls.report.measured import LEADING, OF_ALL
from det_ls.report.training import differing_settings
from det_ls.report.words import number
from det_ls.uncertainty.paired import Verdict

NAMES = ("old <1>", "new & 2")


def detector(seed: int, power: float) -> list[dict[str, Any]]:
    """Boxes around two objects an image, and wrong ones beside them, with scores that a power sharpens."""
    rng = np.random.default_rng(seed)
    found = []
    for image in range(1, 41):
        for k, x in enumerate((10, 110)):
            if rng.random() < 0.8:
                box = [x + rng.uniform(0, 12), 20, 50, 50]
                found.append({"image_id": image, "category_id": 1 + k, "bbox": box, "score": rng.uniform(0.4, 0.95)})
            if rng.random() < 0.6:
                box = [300 + x, 200, 40, 40]
                found.append({"image_id": image, "category_id": 1 + k, "bbox": box, "score": rng.uniform(0.05, 0.7)})
    return [{**d, "score": float(d["score"] ** power)} for d in found]


GT: dict[str, Any] = {
    "images": [{"id": i, "file_name": f"{i}.jpg"} for i in range(1, 41)],
    "categories": [{"id": 1, "name": "one"}, {"id": 2, "name": "two"}],
    "annotations": [
        {"id": 2 * i + k, "image_id": i, "category_id": 1 + k, "bbox": [x, 20, 50, 50]}
        for i in range(1, 41)
        for k, x in enumerate((10, 110))
    ],
}


@pytest.fixture(scope="module")
def single() -> PairedEvaluation:
    return compare(
        detector(0, 1.0), detector(0, 3.0), annotations=GT, bootstrap=300, simulations=20, names=NAMES, threshold=0.1
    )


@pytest.fixture(scope="module")
def several() -> PairedEvaluation:
    arms: Any = [tuple(detector(seed, power) for seed in range(3)) for power in (1.0, 3.0)]
    return compare(*arms, annotations=GT, bootstrap=100, simulations=20, names=NAMES, paired=True, threshold=0.1)


def rows_of(text: str) -> list[tuple[str, str]]:
    """Key and text of every row of every table of differences."""
    tables = re.findall(r'<table class="numbers differences stack">.*?</table>', text, re.S)
    rows = [row for table in tables for row in re.findall(r'<tr>\s*<th scope="row">.*?</tr>', table, re.S)]
    return [
        (re.search(r'<th scope="row">\s*(\w+)', row)[1], unescape(re.sub(r"<[^>]+>", " ", row)))  # type: ignore[index]
        for row in rows
    ]


def test_one_run_an_arm_is_said_first_and_no_verdict_on_the_method_given(
    single: PairedEvaluation, tmp_path: Path
) -> None:
    text = write_comparison(tmp_path / "c.html", single, title="c").read_text(encoding="utf-8")
    first = Page(text).text.split("c c ", 1)[1]
    assert first.startswith(
        "Training seeds were not measured (one run of each), so no verdict on the method is possible"
    )
    assert "by chance" not in first


def test_what_was_declared_comes_first_and_the_rest_is_adjusted(single: PairedEvaluation, tmp_path: Path) -> None:
    text = write_comparison(tmp_path / "c.html", single, title="c").read_text(encoding="utf-8")
    rows, found = rows_of(text), differences(single)
    assert [key for key, _ in rows[:2]] == [key for _, key in DECLARED]
    shown = [*DECLARED, *(w for w in (*LEADING, *OF_ALL) if w not in DECLARED)]
    for which, (key, row) in zip(shown, rows, strict=False):
        d = found[which]
        assert key == which[1]
        for value in (d.a[0], d.b[0], d.difference, d.low, d.high):
            assert number(value, decimals=d.decimals).lstrip("+") in row, which
        if d.verdict is Verdict.UNJUDGED:
            assert "no verdict" in row
            assert "p = " not in row
        else:
            assert ("adjusted" in row) == (which not in DECLARED)
            assert ("no difference shown" in row) == (not d.differs)
    assert "(Holm 1979)" in text


def test_a_binned_error_shows_its_difference_and_why_it_is_no_verdict(single: PairedEvaluation) -> None:
    found = differences(single)
    said = difference_text(found["kept", "DECE"], NAMES)
    assert said.startswith(
        "No verdict, as this number is binned: biased upwards, by how much depends on how sharp the scores are"
    )
    assert number(found["kept", "DECE"].difference, signed=True, decimals=found["kept", "DECE"].decimals) in said
    assert not found["kept", "DECE"].differs


def test_findings_list_the_declared_verdicts_and_what_else_survives(single: PairedEvaluation) -> None:
    found = differences(single)
    says = comparison_findings(single, found)
    assert [f.topic for f in says[:3]] == [
        "Declared in advance: AP of all boxes",
        f"Declared in advance: {DECLARED[1][1]} of the kept boxes",
        "Everything else",
    ]
    judged = [d for d in found.values() if not d.declared and d.verdict is not Verdict.UNJUDGED]
    differing = [d for d in judged if d.differs]
    assert 0 < len(differing) < len(judged)
    assert says[2].lead == f"{len(differing)} of {len(judged)} other numbers differ"
    for d in differing:
        assert d.about.key in says[2].text
    none = comparison_findings(single, {})
    assert none[0].lead == "Nothing can be compared"


def test_several_runs_show_intervals_over_seeds_images_beside_and_each_value(
    several: PairedEvaluation, tmp_path: Path
) -> None:
    assert several.seeds is not None
    assert seeds_sentence(several).startswith("Training seeds were measured: 3 runs an arm, paired by seed")
    text = write_comparison(tmp_path / "c.html", several, title="c").read_text(encoding="utf-8")
    assert "Interval over seeds" in text
    (row,) = [row for key, row in rows_of(text) if key == "AP"]
    seeds = several.seeds["all", "AP"]
    decimals = differences(several)["all", "AP"].decimals
    for value in (*seeds.a, *seeds.b, seeds.low, seeds.high):
        assert number(value, decimals=decimals).lstrip("+") in row
    assert seeds.images is not None
    assert f"over images {number(seeds.images.low, signed=True, decimals=decimals)}" in row
    assert "old <1>, run 3" in Page(text).text  # every run's settings are listed


def test_an_arm_with_one_run_measures_no_seeds(several: PairedEvaluation) -> None:
    pair = replace(several, seeds=None, runs_b=several.runs_b[:1])
    assert "(3 and 1 runs, of which each arm needs two)" in seeds_sentence(pair)


def test_settings_that_differ_are_named_and_warned_of(single: PairedEvaluation) -> None:
    record = {"source": "args.yaml", "model": "a.yaml", "epochs": 10, "seed": 0, "label_smoothing": {}}
    smoothed = {**record, "label_smoothing": {"label_smoothing": 0.1}, "seed": 1}
    assert differing_settings([record], [smoothed]) == [("label_smoothing", "none", "0.1")]
    assert differing_settings([record], [None]) == []
    assert differing_settings([record], [{**smoothed, "label_smoothing": None}]) == []
    trained = [
        replace(run, protocol={**run.protocol, "training": how})
        for run, how in ((single.a, record), (single.b, {**smoothed, "epochs": 20, "selected_on_split": True}))
    ]
    pair = replace(single, a=trained[0], b=trained[1], runs_a=(trained[0],), runs_b=(trained[1],))
    said = {f.topic: f for f in comparison_findings(pair, differences(pair))}
    assert said["Training"].lead == "The arms differ in epochs and label_smoothing"
    assert said["Training"].caution
    assert "cannot be put down to one of these" in said["Training"].text
    assert said["Careful, new & 2"].lead == "best.pt was chosen on this split"


def test_a_page_is_never_replaced_unasked_and_needs_one_protocol(single: PairedEvaluation, tmp_path: Path) -> None:
    path = write_comparison(tmp_path / "c.html", single, title="c")
    with pytest.raises(FileExistsError):
        write_comparison(path, single, title="c")
    other = replace(single.b, metrics=replace(single.b.metrics, protocol="reference"))
    with pytest.raises(ValueError, match="protocol"):
        write_comparison(tmp_path / "d.html", replace(single, b=other), title="c")


def test_difference_and_result_are_visible_at_any_width(several: PairedEvaluation, tmp_path: Path) -> None:
    page = write_comparison(tmp_path / "c.html", several, title="c")
    for width, dark in ((1280, False), (400, True)):
        seen = seen_by_browser(page, tmp_path, width, dark)
        assert seen["faint"] == []
        assert 0 < seen["difference"] <= width
        assert 0 < seen["result"] <= width
        assert seen["wide"] <= width
        assert seen["cut"] == []
