# SPDX-License-Identifier: AGPL-3.0-or-later
"""The page of a calibration stands alone, says what the map does and whether it helps, and holds its numbers."""

from __future__ import annotations

import re
from dataclasses import replace
from html import unescape
from pathlib import Path

import numpy as np
import pytest
from report_scene import EVIL, Page, seen_by_browser

from det_ls.calibration.files import calibrate_detections
from det_ls.calibration.judge import Change
from det_ls.calibration.maps import AffineMap
from det_ls.calibration.results import Calibration
from det_ls.cli import main as cli
from det_ls.report.calibration_page import write_calibration
from det_ls.report.calibration_words import calibration_findings, conf_text, typed_before_after
from det_ls.report.plots_calibration import reliability_before_after, score_map

GOLDEN = Path(__file__).parents[1] / "golden" / "coco_tiny"
GT, DETECTIONS = str(GOLDEN / "gt.json"), str(GOLDEN / "detections.json")


@pytest.fixture(scope="module")
def result() -> Calibration:
    return calibrate_detections(GT, DETECTIONS, bootstrap=30)


@pytest.fixture(scope="module")
def by_class() -> Calibration:
    return calibrate_detections(GT, DETECTIONS, per_class=True, target="tp", bootstrap=0)


@pytest.fixture(scope="module")
def page(result: Calibration, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_calibration(tmp_path_factory.mktemp("page") / "new" / "report.html", result, title=f"Of {EVIL}")


def rows(text: str, heading: str) -> dict[str, str]:
    section = re.search(rf"<h2[^>]*>{heading}.*?</table>", text, re.S)
    assert section is not None
    found = re.finditer(r'<tr>\s*<th scope="row"[^>]*>\s*([\w ]+).*?</tr>', section[0], re.S)
    return {m[1].strip(): re.sub(r"\s+", " ", unescape(re.sub(r"<[^>]+>", " ", m[0]))) for m in found}


def test_page_stands_alone_and_names_no_machine(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    shown = Page(text)
    assert f"Of {EVIL}" in shown.text
    assert not re.search(r"url\((?!#)|@import|<script", text)
    for tag, attributes in shown.tags:
        assert (attributes.get("src") or attributes.get("href") or "data:").startswith(("data:", "#")), tag
    assert str(GOLDEN.parent) not in text
    assert re.search(r"calibrated \d{4}-\d\d-\d\d \d\d:\d\d UTC", shown.text)
    ids = [a["id"] for _, a in shown.tags if "id" in a]
    assert len(ids) == len(set(ids))
    with pytest.raises(FileExistsError):
        write_calibration(page, None, title="t")


@pytest.mark.parametrize(("population", "heading"), [("kept", "Kept boxes"), ("all", "All boxes")])
def test_both_tables_hold_the_numbers_before_and_after(result: Calibration, page: Path, population, heading) -> None:
    found = rows(page.read_text(encoding="utf-8"), f"{heading} before and after")
    assert set(found) == set(result.numbers[population])
    assert next(iter(found)) == "brier_iou"  # what the map aims at comes first
    for key, text in found.items():
        change = result.numbers[population][key]
        values = [float(v) for v in re.findall(r"(?<![\w.])[+-]?\d\.\d+", text.replace("\N{MINUS SIGN}", "-"))]
        assert values[-5:] == pytest.approx(
            [change.before, change.after, change.difference, *change.difference_interval], abs=6e-4
        ), key


def test_the_verdict_follows_the_proper_score_of_the_target(result: Calibration) -> None:
    def lead(brier_iou: tuple[float, float], brier: tuple[float, float]) -> str:
        kept = {**result.numbers["kept"]}
        kept["brier_iou"] = Change(0.2, 0.1, difference_interval=brier_iou)
        kept["brier"] = Change(0.2, 0.1, difference_interval=brier)
        return calibration_findings(replace(result, numbers={**result.numbers, "kept": kept}))[1].lead

    assert lead((-0.2, -0.1), (-0.2, -0.1)) == "Better as IoUs"
    assert lead((-0.2, -0.1), (0.1, 0.2)) == "Better as IoUs, worse as the chance to be right"
    assert lead((0.1, 0.2), (-0.2, -0.1)).startswith("Worse as IoUs")
    assert lead((-0.1, 0.1), (-0.2, -0.1)) == "No difference shown"


def test_the_target_iou_is_said_to_lie_below_the_precision(result: Calibration, by_class: Calibration) -> None:
    [said] = [f for f in calibration_findings(result) if f.topic == "Score minus precision"]
    assert "target=iou moves the signed gap to the precision below 0" in said.text
    for when in ("before", "after"):  # whatever the scores; a few boxes are ignored at one IoU and not at the other
        gaps = [getattr(result.numbers["kept"][key], when) for key in ("signed_gap", "signed_gap_iou")]
        assert result.iou_minus_precision == pytest.approx(gaps[0] - gaps[1], abs=6e-3)
    assert f"{-result.iou_minus_precision:.3f} below their precision" in said.text
    assert not [f for f in calibration_findings(by_class) if f.topic == "Score minus precision"]


def test_what_to_type_stands_before_and_after(result: Calibration, by_class: Calibration, page: Path) -> None:
    before = result.thresholds[0].before
    after = float(result.map(np.log([before / (1 - before)]))[0])
    typed = typed_before_after(result)
    assert typed == (f"conf={conf_text(before)}", f"conf={conf_text(after)}")
    assert f"Operating point: {typed[0]} becomes {typed[1]}" in Page(page.read_text(encoding="utf-8")).text
    assert typed_before_after(by_class) is None


@pytest.mark.parametrize("value", [0.34567, 0.99999, 0.0001, 0.31, 1 / 3])
def test_a_threshold_that_is_typed_loses_no_box(value: float) -> None:
    assert value * (1 - 2e-3) < float(conf_text(value)) <= value + 1e-9


def test_a_map_by_class_shows_each_class(by_class: Calibration, tmp_path: Path) -> None:
    text = write_calibration(tmp_path / "r.html", by_class, title="t").read_text(encoding="utf-8")
    found = rows(text, "The map of each class")
    assert list(found) == ["shared", *by_class.map.classes]
    assert "There are no intervals" in text


def test_the_pipeline_is_shown_and_more_boxes_are_warned_of(result: Calibration, tmp_path: Path) -> None:
    pipeline = {"AP": Change(0.4196, 0.42), "AP50": Change(0.57, 0.57), "detections": Change(2837.0, 90000.0)}
    folded = replace(result, map=AffineMap((0.5,), (0.0,)), pipeline=pipeline, record={"settings": {"conf": 0.001}})
    text = write_calibration(tmp_path / "r.html", folded, title="t").read_text(encoding="utf-8")
    found = rows(text, "The pipeline before and after")
    assert found["AP"].split() == ["AP", "0.4196", "0.4200"]
    assert found["Boxes"].split() == ["Boxes", "2,837", "90,000"]
    said = calibration_findings(folded)[-1]
    assert said.caution
    assert "conf=0.03066 keeps what it kept before" in said.text  # the root of the odds 1 : 999


def test_pictures_draw_the_cross_fitted_diagrams(result: Calibration, by_class: Calibration) -> None:
    for target in ("iou", "tp"):
        upper = reliability_before_after(result, target).axes[0]
        for label, data in zip(("before", "after (cross-fitted)"), result.reliability[f"{target}_kept"], strict=True):
            [line] = [one for one in upper.lines if one.get_label() == label]
            assert line.get_xdata() == pytest.approx(data.mean_score[data.count > 0])
    [line] = [one for one in score_map(result).axes[0].lines if one.get_label() == "the map"]
    x, y = (np.asarray(v, float) for v in line.get_data())
    assert y == pytest.approx(result.map(np.log(x / (1 - x))))
    assert "shared map" in [one.get_label() for one in score_map(by_class).axes[0].lines]


@pytest.mark.parametrize("method", ["temperature", "beta", "isotonic"])
def test_every_method_has_a_page(method: str, tmp_path: Path) -> None:
    if method == "isotonic":
        pytest.importorskip("sklearn")
    made = calibrate_detections(GT, DETECTIONS, method, bootstrap=0)
    Page(write_calibration(tmp_path / "r.html", made, title="t").read_text(encoding="utf-8"))
    assert ("does not fold" in calibration_findings(made)[0].text) == (method != "temperature")


def test_the_command_writes_the_page_and_replaces_none(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["calibrate", f"annotations={GT}", f"predictions={DETECTIONS}", "bootstrap=0"]
    assert cli.main([*words, f"out={tmp_path / 'out.json'}"]) == 0
    assert "detections calibrated on gt" in (tmp_path / "report.html").read_text(encoding="utf-8")
    for name in ("map.json", "calibration.json", "out.json"):
        (tmp_path / name).unlink()
    capsys.readouterr()
    assert cli.main([*words, f"out={tmp_path / 'out.json'}"]) != 0
    assert "exist_ok" in capsys.readouterr().err
    assert not (tmp_path / "out.json").exists()


@pytest.mark.parametrize(("width", "dark"), [(400, False), (1280, True)])
def test_nothing_is_cut_off_or_faint_in_a_browser(page: Path, tmp_path: Path, width: int, dark: bool) -> None:
    found = seen_by_browser(page, tmp_path, width, dark)
    assert found["wide"] <= width
    assert found["cut"] == []
    assert found["faint"] == []
