# SPDX-License-Identifier: AGPL-3.0-or-later
"""A folder of text files with scores reads as the boxes that stock wrote, and wrong files are named."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from ultralytics import YOLO

from det_ls.data.ground_truth import GroundTruth, ground_truth_for
from det_ls.data.locate import check_dataset
from det_ls.data.yolo_predictions import read_prediction_file, read_yolo_predictions

CATEGORIES = {0: 1, 1: 2, 2: 3}


@pytest.fixture(scope="module")
def truth(tiny: Path) -> GroundTruth:
    return ground_truth_for(check_dataset(tiny))


def test_what_yolo_predict_writes_are_its_boxes(tiny: Path, truth: GroundTruth, tmp_path: Path) -> None:
    model = YOLO("yolo11n.yaml", verbose=False)
    model.model.names = {0: "red", 1: "green", 2: "blue"}
    results = model.predict(
        str(tiny.parent / "images" / "val"), imgsz=32, conf=1e-6, max_det=5, device="cpu", verbose=False,
        save_txt=True, save_conf=True, project=str(tmp_path), name="p", classes=[0, 1, 2],
    )  # fmt: skip
    read = read_yolo_predictions(tmp_path / "p", truth, CATEGORIES)
    expected = [
        (truth.image_ids[r.path], int(cls) + 1, xywh, score)
        for r in sorted(results, key=lambda r: r.path)
        for cls, xywh, score in zip(r.boxes.cls, r.boxes.xywh.tolist(), r.boxes.conf.tolist(), strict=True)
    ]
    assert len(expected) > 0
    assert [(d["image_id"], d["category_id"]) for d in read] == [e[:2] for e in expected]
    for found, (_, _, (x, y, w, h), score) in zip(read, expected, strict=True):
        np.testing.assert_allclose(found["bbox"], [x - w / 2, y - h / 2, w, h], atol=1e-3)
        assert found["score"] == pytest.approx(score, rel=1e-5)


def test_an_image_without_a_file_has_no_detections_and_folders_may_be_nested(
    truth: GroundTruth, tmp_path: Path
) -> None:
    (tmp_path / "labels" / "val").mkdir(parents=True)
    (tmp_path / "labels" / "val" / "001.txt").write_text("2 0.5 0.5 0.25 0.5 0.75\n\n")
    (tmp_path / "labels" / "val" / "002.txt").write_text("")
    (found,) = read_yolo_predictions(tmp_path, truth, CATEGORIES)
    assert found == {"image_id": 2, "category_id": 3, "bbox": [24.0, 16.0, 16.0, 32.0], "score": 0.75}


def test_the_size_of_each_image_is_its_own(truth: GroundTruth, tmp_path: Path) -> None:
    Image.new("RGB", (80, 40)).save(tmp_path / "wide.png")
    Image.new("RGB", (20, 60)).save(tmp_path / "tall.png")
    for name in ("wide", "tall"):
        (tmp_path / f"{name}.txt").write_text("0 0.5 0.5 0.5 0.25 0.5\n")
    two = GroundTruth(truth.coco, {str(tmp_path / "tall.png"): 1, str(tmp_path / "wide.png"): 2}, "labels")
    found = read_yolo_predictions(tmp_path, two, CATEGORIES)
    assert [(d["image_id"], d["bbox"]) for d in found] == [(1, [5.0, 22.5, 10.0, 15.0]), (2, [20.0, 15.0, 40.0, 10.0])]


def test_equal_names_are_told_apart_by_their_folders_or_refused(truth: GroundTruth, tmp_path: Path) -> None:
    two = GroundTruth(truth.coco, {"/d/a/1.png": 1, "/d/b/1.png": 2}, "labels")
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "1.txt").write_text("")
    assert read_yolo_predictions(tmp_path, two, CATEGORIES) == []
    (tmp_path / "1.txt").write_text("")
    with pytest.raises(ValueError, match=r"belong to one image, and an image to one file, got '1.txt'\.$"):
        read_yolo_predictions(tmp_path, two, CATEGORIES)
    one = GroundTruth(truth.coco, {"/d/a/1.png": 1}, "labels")
    with pytest.raises(ValueError, match="got '1.txt', 'a/1.txt', 'b/1.txt'"):
        read_yolo_predictions(tmp_path, one, CATEGORIES)


def test_wrong_folders_are_named(truth: GroundTruth, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="got '.*nowhere', which is none"):
        read_yolo_predictions(tmp_path / "nowhere", truth, CATEGORIES)
    with pytest.raises(ValueError, match="predictions: expected YOLO text files in '.*', got none"):
        read_yolo_predictions(tmp_path, truth, CATEGORIES)
    (tmp_path / "train_7.txt").write_text("")
    with pytest.raises(ValueError, match="files that are named as the split's images, got 'train_7.txt'"):
        read_yolo_predictions(tmp_path, truth, CATEGORIES)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("0 0.5 0.5 0.1 0.1", r"expected a score after the box \(save_conf=True\)"),
        ("0 0.5 0.5 0.1 0.1 0.9 17", "got 7 words"),
        ("3 0.5 0.5 0.1 0.1 0.9", "expected a class index from 0 to 2, got 3"),
        ("0.5 0.5 0.5 0.1 0.1 0.9", "expected a class index from 0 to 2, got 0.5"),
        ("0 0.5 0.5 -0.1 0.1 0.9", "expected a box in fractions of the image"),
        ("0 320 240 50 50 0.9", "expected a box in fractions of the image, got 320 240 50 50"),
        ("0 0.5 0.5 0.1 0.1 1.5", "expected a score from 0 to 1, got 1.5"),
        ("0 0.5 0.5 0.1 0.1 nan", "expected finite numbers"),
        ("red 0.5 0.5 0.1 0.1 0.9", "expected numbers, got 'red'"),
    ],
)
def test_a_bad_line_is_named(line: str, message: str, tmp_path: Path) -> None:
    file = tmp_path / "a.txt"
    file.write_text(f"1 0.5 0.5 0.2 0.2 0.5\n{line}\n")
    with pytest.raises(ValueError, match=f"^predictions: '.*a.txt', line 2: .*{message}"):
        read_prediction_file(file, 3)
