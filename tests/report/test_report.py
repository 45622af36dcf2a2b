# SPDX-License-Identifier: AGPL-3.0-or-later
"""The report is one page that stands alone, says what the numbers allow, and shows the right crops."""

from __future__ import annotations

import base64
import json
import os
import re
import shutil
import subprocess
from dataclasses import replace
from html import unescape
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from det_ls.data.coco import read_ground_truth
from det_ls.evaluation.measure import DetectionMetrics, detection_metrics
from det_ls.evaluation.operating_point import operating_point
from det_ls.metrics.catalogue import HEADLINE
from det_ls.report import page as report
from det_ls.report.crops import CaseFinder, base_name, cut, read_image
from det_ls.report.words import comparison_findings, findings, floor_text, number
from det_ls.uncertainty.bootstrap import Interval, compare_tables
from det_ls.uncertainty.floor import Floor

EVIL = "<script>alert('x')</script> & \"co\" $x_{<b>"
VOID = {"meta", "link", "img", "br", "input", "hr", "rect"}


class Page(HTMLParser):
    """Checks that tags are balanced, and collects what a test asks for."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.said: list[str] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open, f"</{tag}> closes nothing"
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if not {"style", "script"} & set(self.open):
            self.said.append(data)

    @property
    def text(self) -> str:
        return re.sub(r"\s+", " ", " ".join(self.said))


def scene(tmp_path: Path) -> tuple[dict[str, Any], list[dict[str, Any]], dict[int, Path]]:
    """Two images in which every kind of error happens once, with a class and a file of difficult names."""
    rng = np.random.default_rng(0)
    files = {1: tmp_path / "a <&>.png", 2: tmp_path / "b.png"}
    for file in files.values():
        cv2.imwrite(str(file), rng.integers(0, 255, (240, 320, 3), dtype=np.uint8))

    def thing(i: int, image: int, cls: int, x: float, y: float, side: float, crowd: int = 0) -> dict[str, Any]:
        return {"id": i, "image_id": image, "category_id": cls, "bbox": [x, y, side, side], "iscrowd": crowd}

    def found(image: int, cls: int, x: float, y: float, side: float, score: float) -> dict[str, Any]:
        return {"image_id": image, "category_id": cls, "bbox": [x, y, side, side], "score": score}

    gt = {
        "images": [{"id": i, "file_name": f.name, "width": 320, "height": 240} for i, f in files.items()],
        "categories": [{"id": 5, "name": EVIL}, {"id": 9, "name": "dog"}, {"id": 11, "name": "no objects"}],
        "annotations": [
            thing(1, 1, 5, 10, 10, 50),  # found
            thing(2, 1, 9, 100, 10, 80),  # missed: nothing near
            thing(3, 1, 9, 200, 100, 40),  # missed: score below the threshold
            thing(4, 2, 5, 0, 0, 60, crowd=1),
            thing(5, 2, 9, 100, 100, 60),  # found
            thing(6, 2, 5, 200, 150, 30),  # taken for a dog
        ],
    }
    detections = [
        found(1, 5, 10, 10, 50, 0.9),
        found(1, 5, 11, 10, 50, 0.88),  # second box on a found object
        found(1, 9, 0, 150, 40, 0.95),  # nothing there: the worst
        found(1, 9, 2, 151, 40, 0.85),  # the same spot again
        found(1, 9, 200, 100, 40, 0.1),
        found(2, 5, 5, 5, 20, 0.97),  # in the crowd: ignored
        found(2, 9, 100, 100, 60, 0.99),
        found(2, 9, 200, 150, 30, 0.8),
        found(2, 11, 250, 10, 20, 0.98),  # a class without objects: takes no part
        *(found(2, 9, 10 + 30 * i, 200, 20, 0.3) for i in range(6)),  # make a low threshold not pay off
    ]
    return gt, detections, files


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("scene")
    gt, detections, files = scene(folder)
    metrics = detection_metrics(gt, detections, bootstrap=100, simulations=20)
    path = report.write_report(
        folder / "new" / "report.html",
        metrics,
        title=f"Report of {EVIL}",
        protocol={"weights": "/home/somebody/best.pt", "seed": None, "versions": {"torch": "2.9"}, "sizes": [1, 2]},
        images=files,
        detections=detections,
        ground_truth=gt,
    )
    return {"gt": gt, "detections": detections, "files": files, "metrics": metrics, "path": path, "folder": folder}


def finder(made: dict[str, Any]) -> CaseFinder:
    metrics = made["metrics"]
    return CaseFinder(metrics, made["detections"], read_ground_truth(made["gt"]), operating_point(metrics))


def test_page_is_well_formed_and_titled(made: dict[str, Any]) -> None:
    text = made["path"].read_text(encoding="utf-8")
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


def test_page_needs_nothing_else_and_names_no_machine(made: dict[str, Any]) -> None:
    text = made["path"].read_text(encoding="utf-8")
    page = Page(text)
    for tag, attributes in page.tags:
        assert tag not in {"script", "iframe", "object", "embed"}
        for name in ("src", "href", "srcset", "data", "action"):
            assert (attributes.get(name) or "data:").startswith(("data:", "#"))
    assert not re.search(r"url\((?!#)", text)
    assert "@import" not in text
    assert "somebody" not in text
    assert str(made["folder"]) not in text
    assert "best.pt" in page.text
    assert made["path"].stat().st_size < 3_000_000


def test_names_are_escaped(made: dict[str, Any]) -> None:
    text = made["path"].read_text(encoding="utf-8")
    assert "<script" not in text
    assert f"Report of {EVIL}" in Page(text).text
    assert "a <&>.png" in Page(text).text


def test_every_headline_number_stands_beside_its_definition(made: dict[str, Any]) -> None:
    metrics, text = made["metrics"], made["path"].read_text(encoding="utf-8")
    rows = {
        m[1]: unescape(re.sub(r"<[^>]+>", " ", m[0]))
        for m in re.finditer(r'<tr>\s*<th scope="row">(\w+)[^<]*<.*?</tr>', text, re.S)
    }
    for key in metrics.values:
        if metrics.values[key] is None:
            assert f"undefined: {metrics.reasons[key]}" in rows[key]
            continue
        assert number(metrics.values[key], signed=key.startswith("signed")) in rows[key], key
        assert f"n = {metrics.definitions[key]['n']:,}" in rows[key]
        assert "COCO greedy" in rows[key]
        assert "protocol det_ls" in rows[key]
        if key in metrics.intervals:
            assert number(metrics.intervals[key].high, signed=key.startswith("signed")) in rows[key]
            assert ("uncertainty of the estimator" in rows[key]) == (metrics.intervals[key].of == "estimator")
        if key in metrics.floors:
            assert number(metrics.floors[key].p95) in rows[key]
            assert floor_text(metrics.values[key], metrics.floors[key]) in rows[key]
    assert set(HEADLINE) <= set(rows)
    assert "no objects" in Page(text).text  # the class that is left out is listed


def test_settings_are_listed_flat(made: dict[str, Any]) -> None:
    said = Page(made["path"].read_text(encoding="utf-8")).text
    for words in ("versions · torch 2.9", "sizes 1, 2", "weights best.pt", "counted · images 2"):
        assert words in said


def test_worst_false_positives_are_chosen(made: dict[str, Any]) -> None:
    cases = finder(made).false_positives()
    assert [(c.name, c.score) for c in cases[:2]] == [("dog", 0.95), ("dog", 0.8)]
    assert [c.remark for c in cases[:2]] == ["nothing annotated here", f"annotated as {EVIL}"]
    assert [c.score for c in cases[2:]] == [0.3] * 6
    assert len(finder(made).false_positives(limit=1)) == 1


def test_largest_missed_objects_are_chosen(made: dict[str, Any]) -> None:
    cases = finder(made).missed_objects()
    threshold = operating_point(made["metrics"]).threshold[1]
    assert threshold > 0.3
    assert [c.boxes[0].xywh[2] for c in cases] == [80, 40, 30]
    assert cases[0].remark == "no box of this class near it"
    assert cases[1].remark == f"scored 0.10, below the threshold {threshold:.2f}"
    assert cases[0].score is None
    assert cases[0].boxes[0].focus
    assert {b.kind for b in cases[2].boxes} == {"object", "detection", "crowd"}


def test_crop_shows_the_box_where_it_is_in_the_image(made: dict[str, Any]) -> None:
    case = finder(made).missed_objects()[1]
    image = read_image(made["files"][case.image_id])
    image[100:140, 200:240] = 255
    crop = cut(image, case, side=160)
    picture = cv2.imdecode(np.frombuffer(crop.jpeg, np.uint8), cv2.IMREAD_GRAYSCALE)
    assert picture.shape == (crop.height, crop.width)
    assert max(picture.shape) == 160
    x, y, w, h = (round(v) for v in crop.boxes[0].xywh)
    assert picture[y + 2 : y + h - 2, x + 2 : x + w - 2].min() > 230
    outside = np.delete(picture, np.s_[y : y + h], axis=0)
    assert outside.mean() < 180


def test_crop_stays_within_a_small_image(made: dict[str, Any]) -> None:
    case = finder(made).missed_objects()[0]
    beyond = replace(case, boxes=(replace(case.boxes[0], xywh=(-20.0, -5.0, 400.0, 90.0)),))
    crop = cut(np.zeros((30, 60, 3), np.uint8), beyond, side=120)
    assert (crop.width, crop.height) == (120, 60)
    assert crop.boxes[0].xywh == (-40.0, -10.0, 800.0, 180.0)


def test_page_holds_the_crops_and_stays_without_images_too(made: dict[str, Any], tmp_path: Path) -> None:
    page = Page(made["path"].read_text(encoding="utf-8"))
    sources = [a["src"] for tag, a in page.tags if tag == "img"]
    assert len(sources) == len(finder(made).false_positives()) + len(finder(made).missed_objects())
    for source in sources:
        assert cv2.imdecode(np.frombuffer(base64.b64decode(source.split(",")[1]), np.uint8), 1) is not None
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"no image")
    for i, images in enumerate((None, {}, {1: broken, 2: tmp_path / "gone.png"})):
        text = write(made, tmp_path / f"{i}.html", images=images).read_text(encoding="utf-8")
        assert not [1 for tag, _ in Page(text).tags if tag == "img"]
        assert ("no image files were given" if images is None else "cannot be read") in text


def write(made: dict[str, Any], path: Path, **change: Any) -> Path:
    names = {"metrics": made["metrics"], "images": None, "detections": made["detections"], "ground_truth": made["gt"]}
    arguments = {**names, "title": "t", "protocol": {}, **change}
    return report.write_report(path, arguments.pop("metrics"), **arguments)


def test_the_gap_between_train_and_val_is_shown_when_train_was_measured(made: dict[str, Any], tmp_path: Path) -> None:
    val = made["metrics"]
    better = [{**d, "score": d["score"] ** 2} for d in made["detections"]]
    train = detection_metrics(made["gt"], better, simulations=0)
    text = write(made, tmp_path / "gap.html", train=train).read_text(encoding="utf-8")
    table = re.search(r'<table class="gaps">.*?</table>', text, re.S)
    assert table is not None
    rows = {
        m[1]: re.findall(r"<td[^>]*>([^<]*)</td>", m[0])
        for m in re.finditer(r'<tr><th scope="row"[^>]*>(\w+).*?</tr>', table[0], re.S)
    }
    assert list(rows) == list(HEADLINE)
    assert "Train (2 images)" in table[0]
    for key, cells in rows.items():
        a, b, signed = train.values[key], val.values[key], key == "signed_gap"
        assert cells == [number(a, signed=signed), number(b, signed=signed), number(a - b, signed=True)], key
    assert "scores that promise too much on new images" in Page(text).text
    assert "Train minus val" not in write(made, tmp_path / "no.html").read_text(encoding="utf-8")


def test_never_replaces_a_file_unasked(made: dict[str, Any], tmp_path: Path) -> None:
    path = tmp_path / "r.html"
    path.write_text("mine")
    with pytest.raises(FileExistsError, match="exist_ok"):
        write(made, path)
    assert path.read_text() == "mine"
    write(made, path, exist_ok=True)
    assert path.read_text(encoding="utf-8").startswith("<!DOCTYPE")


def test_is_written_completely_or_not_at_all(
    made: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(OSError, match="disk full"):
        write(made, tmp_path / "r.html")
    assert list(tmp_path.iterdir()) == []


def test_other_detections_or_objects_are_refused(made: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="detections: expected the 15"):
        write(made, tmp_path / "r.html", detections=made["detections"][1:])
    fewer = {**made["gt"], "annotations": made["gt"]["annotations"][1:]}
    with pytest.raises(ValueError, match="ground_truth: expected the objects"):
        write(made, tmp_path / "r.html", ground_truth=fewer)
    assert list(tmp_path.iterdir()) == []


def altered(metrics: DetectionMetrics, **change: Any) -> dict[str, str]:
    """What is said once values, intervals or floors are replaced."""
    fields = {name: {**getattr(metrics, name), **new} for name, new in change.items()}
    changed = replace(metrics, **fields)
    return {f.topic: f"{f.lead}. {f.text}" for f in findings(changed, operating_point(changed))}


@pytest.mark.parametrize(("value", "words"), [(0.2, "Not distinguishable from calibrated"), (0.2001, "Not calibrated")])
def test_calibration_error_is_read_against_its_floor(made: dict[str, Any], value: float, words: str) -> None:
    floors = {key: Floor(0.18, 0.2, 100) for key in ("LaECE0", "DECE")}
    said = altered(made["metrics"], values={"LaECE0": value, "DECE": value}, floors=floors)
    assert said["Scores as IoU"].startswith(words)
    assert said["Scores as precision"].startswith(words)


def test_without_a_floor_a_calibration_error_is_not_judged(made: dict[str, Any]) -> None:
    changed = replace(made["metrics"], floors={})
    said = {f.topic: f.lead for f in findings(changed, operating_point(changed))}
    assert said["Scores as IoU"] == "Cannot be judged"


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
    made: dict[str, Any], gap: float, low: float, high: float, words: str
) -> None:
    interval = Interval(low, high, 0.95, 100, 0, "value")
    said = altered(made["metrics"], values={"signed_gap": gap}, intervals={"signed_gap": interval})["The scores"]
    assert said.startswith(words)
    assert number(low, signed=True) in said


def test_without_an_interval_confidence_is_not_claimed(made: dict[str, Any]) -> None:
    changed = replace(made["metrics"], intervals={})
    said = {f.topic: f for f in findings(changed, operating_point(changed))}["The scores"]
    assert "confident" not in said.lead
    assert "cannot be said whether that is more than chance" in said.text


@pytest.mark.parametrize("protocol", ["det_ls", "reference"])
@pytest.mark.parametrize("objects", [True, False], ids=["no detections", "no ground truth"])
def test_what_is_undefined_is_said_with_its_reason(tmp_path: Path, protocol: str, objects: bool) -> None:
    gt, detections, _ = scene(tmp_path)
    gt, detections = (gt, []) if objects else ({**gt, "annotations": []}, detections)
    metrics = detection_metrics(gt, detections, bootstrap=5, protocol=protocol)
    path = report.write_report(
        tmp_path / "r.html", metrics, title="t", protocol={}, images=None, detections=detections, ground_truth=gt
    )  # fmt: skip
    said = Page(path.read_text(encoding="utf-8")).text
    reason = "no detections" if objects else "no ground truth"
    assert said.count(f"undefined: {reason}") >= 5
    assert "nan" not in said.lower().split()
    assert "None" not in said.replace("None:", "").split()


def test_comparison_claims_only_paired_differences(made: dict[str, Any], tmp_path: Path) -> None:
    a = made["metrics"]
    b = detection_metrics(made["gt"], [{**d, "score": d["score"] ** 3} for d in made["detections"]], simulations=20)
    compared = compare_tables(a.table, b.table, replicates=50, ap_replicates=10)
    arguments: dict[str, Any] = {"names": ("old <1>", "new & 2"), "title": "c", "protocol": {"a": {"seed": 0}}}
    path = report.write_comparison(tmp_path / "c.html", a, b, compared, **arguments)
    text = path.read_text(encoding="utf-8")
    page = Page(text)
    shown = [compared[k] for k in HEADLINE if k in compared]
    differing = [c for c in shown if c.differs]
    assert 0 < len(differing) < len(shown)
    assert f"{len(differing)} of {len(shown)} headline numbers differ" in page.text
    assert f"about {0.05 * len(shown):.1f} would exclude zero by chance" in page.text
    for c in shown:
        row = re.search(rf'<tr>\s*<th scope="row">{c.key} .*?</tr>', text, re.S)[0]
        assert ("no difference shown" in row) == (not c.differs)
        assert number(c.difference, signed=True) in unescape(row)
    none = comparison_findings({k: c for k, c in compared.items() if not c.differs}, ("a", "b"))
    assert len(none) == 1
    assert none[0].lead.startswith("No difference shown")
    assert "does not show that the detectors are equal" in none[0].text
    with pytest.raises(FileExistsError):
        report.write_comparison(path, a, b, compared, **arguments)
    with pytest.raises(ValueError, match="protocol"):
        report.write_comparison(tmp_path / "d.html", a, replace(b, protocol="reference"), compared, **arguments)


def test_small_differences_do_not_read_as_zero() -> None:
    assert [number(v, signed=True) for v in (0.00049, -0.000012, 0.0, 1.0)] == [
        "+0.00049",
        "\N{MINUS SIGN}0.000012",
        "0.000",
        "+1.000",
    ]


def test_file_names_lose_the_folders_of_the_machine() -> None:
    assert [base_name(n) for n in ("C:\\me\\x.png", "../y/z.png", "val/x.png", "~/x.png")] == [
        "x.png",
        "z.png",
        "val/x.png",
        "x.png",
    ]


def test_a_browser_shows_the_page(made: dict[str, Any], tmp_path: Path) -> None:
    browser = next((b for b in ("chromium", "chromium-browser", "google-chrome") if shutil.which(b)), None)
    if browser is None:
        pytest.skip("no Chromium is installed")
    inside = made["path"].read_text(encoding="utf-8")
    probe = """<script>addEventListener("load", () => {
      const page = document.querySelector("iframe").contentDocument, images = [...page.images];
      const loaded = images.filter(image => image.naturalWidth > 0).length;
      document.title = JSON.stringify({images: images.length, loaded, wide: page.documentElement.scrollWidth});
    });</script>"""
    for width in (1280, 400):
        page = tmp_path / f"{width}.html"
        source = inside.replace("&", "&amp;").replace('"', "&quot;")
        page.write_text(f'<!DOCTYPE html><body>{probe}<iframe width="{width}" height="900" srcdoc="{source}"></iframe>')
        command = [browser, "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"]
        command += ["--disable-background-networking", "--disable-component-update", "--disable-sync", "--dump-dom"]
        command += ["--enable-logging=stderr", f"--user-data-dir={tmp_path / f'profile{width}'}", page.as_uri()]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
        title = re.search(r"<title>(\{.*?\})</title>", done.stdout)
        assert title is not None
        seen = json.loads(unescape(title[1]))
        assert seen["images"] == seen["loaded"] > 0
        assert seen["wide"] <= width
        assert "CONSOLE" not in done.stderr
