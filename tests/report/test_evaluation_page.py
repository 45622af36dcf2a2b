# SPDX-License-Identifier: AGPL-3.0-or-later
"""The report is one page that stands alone, leads with the kept boxes, and holds every number with what it counts."""

from __future__ import annotations

import base64
import os
import re
from dataclasses import replace
from html import unescape
from itertools import pairwise
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from report_scene import EVIL, Page, scene, seen_by_browser

from det_ls import evaluate_detections
from det_ls.evaluation.results import Evaluation
from det_ls.report import write_report
from det_ls.report.measured import LEADING, OF_ALL, OTHER_KEPT, OTHERS, measured
from det_ls.report.words import floor_text, number, row_decimals

PROTOCOL = {"weights": "/home/somebody/best.pt", "seed": None, "versions": {"torch": "2.9"}, "sizes": [1, 2]}
TRAINING = {
    "source": "args.yaml",
    "model": "/home/somebody/yolo26n.yaml",
    "data": "scans.yaml",
    "epochs": 7,
    "imgsz": 160,
    "batch": 16,
    "seed": 3,
    "label_smoothing": {"label_smoothing": 0.1, "label_smoothing_mode": "uniform"},
    "weights": "best",
    "selected_on_split": True,
    "trained_on_split": False,
}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Evaluation, Path]:
    folder = tmp_path_factory.mktemp("scene")
    gt, detections, files = scene(folder)
    found = evaluate_detections(gt, detections, images=files, bootstrap=100, simulations=20)
    found = replace(found, protocol={**found.protocol, **PROTOCOL, "training": TRAINING})
    return found, write_report(folder / "new" / "report.html", found, title=f"Report of {EVIL}")


def said(path: Path) -> str:
    return Page(path.read_text(encoding="utf-8")).text


def table_rows(text: str, heading: str) -> dict[str, str]:
    """The rows of the table below a heading, by their numbers' keys."""
    section = re.search(rf"<h2[^>]*>{heading}.*?</table>", text, re.S)
    assert section is not None
    return {
        m[1]: unescape(re.sub(r"<[^>]+>", " ", m[0]))
        for m in re.finditer(r'<tr>\s*<th scope="row"[^>]*>\s*(\w+).*?</tr>', section[0], re.S)
    }


def test_page_is_well_formed_and_titled(made: tuple[Evaluation, Path]) -> None:
    text = made[1].read_text(encoding="utf-8")
    assert text.startswith("<!DOCTYPE html>")
    page = Page(text)
    levels = [int(tag[1]) for tag, _ in page.tags if re.fullmatch(r"h[1-6]", tag)]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(b - a <= 1 for a, b in pairwise(levels))
    ids = [a["id"] for _, a in page.tags if "id" in a]
    assert len(ids) == len(set(ids))
    assert all(a.get("alt") for tag, a in page.tags if tag == "img")
    assert all(a.get("aria-label") or a.get("aria-hidden") for tag, a in page.tags if tag == "svg")


def test_page_needs_nothing_else_and_names_no_machine(made: tuple[Evaluation, Path]) -> None:
    text = made[1].read_text(encoding="utf-8")
    page = Page(text)
    for tag, attributes in page.tags:
        assert tag not in {"script", "iframe", "object", "embed"}
        for name in ("src", "href", "srcset", "data", "action"):
            assert (attributes.get(name) or "data:").startswith(("data:", "#"))
    assert not re.search(r"url\((?!#)", text)
    assert "@import" not in text
    assert "somebody" not in text
    assert str(made[1].parent.parent) not in text
    assert "best.pt" in page.text
    assert made[1].stat().st_size < 3_000_000


def test_names_are_escaped_and_the_date_is_there(made: tuple[Evaluation, Path]) -> None:
    text = made[1].read_text(encoding="utf-8")
    assert "<script" not in text
    assert f"Report of {EVIL}" in Page(text).text
    assert "a <&>.png" in Page(text).text
    assert re.search(r"evaluated \d{4}-\d\d-\d\d \d\d:\d\d UTC", text)


def test_the_headline_is_average_precision_and_the_kept_boxes(made: tuple[Evaluation, Path]) -> None:
    text = made[1].read_text(encoding="utf-8")
    rows = table_rows(text, "Headline numbers")
    assert list(rows) == [key for _, key in LEADING]
    assert list(rows)[:2] == ["AP", "AP50"]
    for population, key in LEADING:
        assert f"{population} boxes" in rows[key]
    assert list(table_rows(text, "All boxes")) == [key for _, key in OF_ALL]
    n = made[0].metrics.table.n_detections
    assert f"they count all {n} boxes" in Page(text).text
    assert "score below 0.05" in Page(text).text


def test_every_number_is_shown_to_one_precision_with_what_it_counts(made: tuple[Evaluation, Path]) -> None:
    metrics, text = made[0].metrics, made[1].read_text(encoding="utf-8")
    tables = {
        "Headline numbers": LEADING,
        "All boxes": OF_ALL,
        "All other numbers": (*OTHER_KEPT, *OTHERS),
    }
    for heading, listed in tables.items():
        rows = {}
        section = re.search(rf"<h2[^>]*>{heading}.*?</table>", text, re.S)
        assert section is not None
        found = re.findall(r'<tr>\s*<th scope="row">.*?</tr>', section[0], re.S)
        rows = dict(zip(listed, (unescape(re.sub(r"<[^>]+>", " ", row)) for row in found), strict=True))
        for which, row in rows.items():
            one = measured(metrics, which)
            if one.value is None:
                assert f"undefined: {one.reason}" in row
                continue
            ends = (None, None) if one.interval is None else (one.interval.low, one.interval.high)
            shown = {"signed": one.about.signed, "decimals": row_decimals(one.value, *ends)}
            assert number(one.value, **shown) in row, which
            assert f"{one.definition['n']:,} " in row
            if one.interval is not None:
                assert number(one.interval.high, **shown) in row
                assert ("*" in row) == (one.interval.of == "estimator")
            if one.floor is not None:
                assert number(one.floor.p95, decimals=shown["decimals"]) in row
                assert floor_text(one.value, one.floor) in row
    assert "no objects" in Page(text).text  # the class that is left out is listed


def test_how_numbers_were_counted_is_said_once(made: tuple[Evaluation, Path]) -> None:
    text = made[1].read_text(encoding="utf-8")
    details = re.findall(r'<details class="counted">.*?</details>', text, re.S)
    assert len(details) == 1
    for which in (*LEADING, *OF_ALL, *OTHERS):
        assert f">{which[1]}<" in details[0]
    assert "COCO greedy" in details[0]
    assert "COCO greedy" not in text.replace(details[0], "")


@pytest.mark.usefixtures("without_pictures")
def test_settings_and_training_are_listed(made: tuple[Evaluation, Path]) -> None:
    words = said(made[1])
    for expected in ("versions · torch 2.9", "sizes 1, 2", "weights best.pt", "counted · images 2"):
        assert expected in words
    assert "How the model was trained" in words
    assert "yolo26n.yaml scans.yaml 7 160 16 3 0.1, mode=uniform best.pt, chosen on this split" in words
    assert "best.pt was chosen on this split" in words
    other = replace(made[0], protocol=PROTOCOL)
    assert "How the model was trained" not in said(write_report(made[1].parent / "other.html", other, title="t"))


def test_page_holds_the_crops_with_whole_images(made: tuple[Evaluation, Path]) -> None:
    page = Page(made[1].read_text(encoding="utf-8"))
    sources = [a["src"] for tag, a in page.tags if tag == "img"]
    cases = sum(tag == "figure" and "crop" in (a.get("class") or "") for tag, a in page.tags)
    assert len(sources) == 2 * cases > 0
    for source in sources:
        assert cv2.imdecode(np.frombuffer(base64.b64decode((source or "").split(",")[1]), np.uint8), 1) is not None


@pytest.mark.usefixtures("without_pictures")
def test_without_images_there_is_one_sentence_instead_of_empty_cards(
    made: tuple[Evaluation, Path], tmp_path: Path
) -> None:
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"no image")
    for i, images in enumerate(({}, {1: str(broken), 2: str(tmp_path / "gone.png")})):
        text = write_report(tmp_path / f"{i}.html", replace(made[0], images=images), title="t").read_text("utf-8")
        assert not [1 for tag, a in Page(text).tags if tag == "img" or (a.get("class") or "").startswith("crop")]
        reason = "cannot be read" if images else "no image files were given"
        assert 1 <= text.count(reason) <= 2  # false positives, missed objects


@pytest.mark.usefixtures("without_pictures")
def test_the_gap_between_train_and_val_is_shown_when_train_was_measured(
    made: tuple[Evaluation, Path], tmp_path: Path
) -> None:
    val = made[0]
    better = [{**d, "score": d["score"] ** 2} for d in val.detections]
    train = evaluate_detections(val.ground_truth, better, simulations=0)
    text = write_report(tmp_path / "gap.html", replace(val, train=train), title="t").read_text(encoding="utf-8")
    rows = table_rows(text, "Train and val")
    assert list(rows) == [key for _, key in LEADING]
    a, b = train.metrics.kept.values["signed_gap"], val.metrics.kept.values["signed_gap"]
    interval = val.metrics.kept.intervals["signed_gap"]
    decimals = row_decimals(b, interval.low, interval.high)
    assert number(a - b, signed=True, decimals=decimals) in rows["signed_gap"]
    assert "Train (2 images)" in text
    assert "scores that promise too much on new images" in Page(text).text
    assert "Train minus val" not in write_report(tmp_path / "no.html", val, title="t").read_text(encoding="utf-8")


@pytest.mark.usefixtures("without_pictures")
def test_never_replaces_a_file_unasked(made: tuple[Evaluation, Path], tmp_path: Path) -> None:
    path = tmp_path / "r.html"
    path.write_text("mine")
    with pytest.raises(FileExistsError, match="exist_ok"):
        write_report(path, made[0], title="t")
    assert path.read_text() == "mine"
    write_report(path, made[0], title="t", exist_ok=True)
    assert path.read_text(encoding="utf-8").startswith("<!DOCTYPE")


@pytest.mark.usefixtures("without_pictures")
def test_is_written_completely_or_not_at_all(
    made: tuple[Evaluation, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(OSError, match="disk full"):
        write_report(tmp_path / "r.html", made[0], title="t")
    assert list(tmp_path.iterdir()) == []


def test_other_detections_or_objects_are_refused(made: tuple[Evaluation, Path], tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="detections: expected the 15"):
        write_report(tmp_path / "r.html", replace(made[0], detections=made[0].detections[1:]), title="t")
    truth = made[0].ground_truth
    fewer = replace(made[0], ground_truth={**truth, "annotations": truth["annotations"][1:]})
    with pytest.raises(ValueError, match="ground_truth: expected the objects"):
        write_report(tmp_path / "r.html", fewer, title="t")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("protocol", ["det_ls", "reference"])
@pytest.mark.parametrize("objects", [True, False], ids=["no detections", "no ground truth"])
def test_what_is_undefined_is_said_with_its_reason(tmp_path: Path, protocol: str, objects: bool) -> None:
    gt, detections, _ = scene(tmp_path)
    gt, detections = (gt, []) if objects else ({**gt, "annotations": []}, detections)
    found: Any = evaluate_detections(gt, detections, bootstrap=100, protocol=protocol)
    words = said(write_report(tmp_path / "r.html", found, title="t"))
    reason = "no detections" if objects else "no ground truth"
    assert words.count(f"undefined: {reason}") >= 5
    assert f"No score threshold can be recommended: {reason}." in words
    assert "nan" not in words.lower().split()
    assert "None" not in words.replace("None:", "").split()


def test_a_browser_shows_the_page_and_stacks_its_rows(made: tuple[Evaluation, Path], tmp_path: Path) -> None:
    for width, dark in ((1280, False), (400, True)):
        seen = seen_by_browser(made[1], tmp_path, width, dark)
        assert seen["faint"] == []
        assert seen["images"] == seen["loaded"] > 0
        assert seen["wide"] <= width
        assert seen["cut"] == []  # no table is wider than its place
