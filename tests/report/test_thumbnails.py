# SPDX-License-Identifier: AGPL-3.0-or-later
"""The whole image shows where its crop is from, and grows without a script."""

from __future__ import annotations

import base64
from pathlib import Path

import cv2
import numpy as np
import pytest
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from PIL import Image
from report_scene import Page

from det_ls.report import page_parts
from det_ls.report.crops import Box, Case, crop_window, cut, read_image, whole
from det_ls.report.thumbnails import whole_row

FOCUS = Box("detection", "<cat>", 0.9, (600.0, 300.0, 100.0, 50.0), True)
CASE = Case(1, 'a "1".jpg', "<cat>", 0.9, "nothing", (FOCUS, Box("object", "dog", None, (10.0, 20.0, 30.0, 40.0))))


def decoded(src: str) -> np.ndarray:
    return cv2.imdecode(np.frombuffer(base64.b64decode(src.split(",")[1]), np.uint8), cv2.IMREAD_COLOR)


def test_window_and_boxes_lie_where_they_are_in_the_image() -> None:
    image = np.zeros((800, 1280, 3), np.uint8)
    x, y, w, h = crop_window(image, CASE)
    image[y : y + h, x : x + w] = 255
    row = whole_row(image, CASE)
    picture = decoded(row["src"])
    assert picture.shape[:2] == (row["height"], row["width"]) == (400, 640)
    found = np.argwhere(picture[..., 0] > 128)
    top, left = found.min(0)
    assert row["window"] == pytest.approx({"x": left, "y": top, "w": w / 2, "h": h / 2}, abs=1)
    assert row["boxes"] == [
        {"kind": "object", "focus": False, "turn": "", "x": 5, "y": 10, "w": 15, "h": 20},
        {"kind": "detection", "focus": True, "turn": "", "x": 300, "y": 150, "w": 50, "h": 25},
    ]
    crop = cut(image, CASE)
    assert cv2.imdecode(np.frombuffer(crop.jpeg, np.uint8), 0).min() > 250  # exactly the white part


def test_a_small_image_is_not_made_larger() -> None:
    taken = whole(np.zeros((50, 40, 3), np.uint8), CASE)
    assert (taken.width, taken.height) == (40, 50)


def test_an_image_that_lies_on_its_side_is_turned_upright_in_both(tmp_path: Path) -> None:
    file = tmp_path / "turned.jpg"
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees
    Image.fromarray(np.zeros((60, 100, 3), np.uint8)).save(file, exif=exif)
    row = whole_row(read_image(file), CASE)
    assert (row["width"], row["height"]) == (60, 100)


def test_it_is_opened_by_a_summary_and_holds_one_picture() -> None:
    row = whole_row(np.zeros((80, 100, 3), np.uint8), CASE)
    folder = Path(page_parts.__file__).parent / "templates"
    environment = Environment(loader=FileSystemLoader(folder), autoescape=True, undefined=StrictUndefined)
    show = environment.get_template("macros.html").module
    made = Page(str(show.whole(row)))
    tags = [tag for tag, _ in made.tags]
    assert tags[:2] == ["details", "summary"]
    assert tags.count("img") == 1
    assert "script" not in tags
    assert dict(made.tags)["img"]["alt"] == 'The whole of a "1".jpg, around <cat> 0.90'
    windows = [a for tag, a in made.tags if tag == "rect" and "window" in (a["class"] or "")]
    assert len(windows) == 1
