# SPDX-License-Identifier: AGPL-3.0-or-later
"""COCO folders as other tools lay them out, with polygons and keypoints; Ultralytics reads what was written."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
import yaml

from det_ls.cli import main as cli
from det_ls.data.convert import convert

SQUARE = [8.0, 8.0, 40.0, 8.0, 40.0, 32.0, 8.0, 32.0]
OBJECT = {
    "id": 1,
    "image_id": 1,
    "category_id": 5,
    "bbox": [8, 8, 32, 24],
    "area": 768,
    "iscrowd": 0,
    "segmentation": [SQUARE],
    "keypoints": [8, 8, 2, 0, 0, 0, 40, 32, 1],
}


def instances(**change: object) -> dict[str, object]:
    return {
        "images": [{"id": 1, "file_name": "a.png", "width": 64, "height": 48}],
        "annotations": [{**OBJECT, **change}],
        "categories": [{"id": 5, "name": "cat", "keypoints": ["nose", "ear", "tail"]}],
    }


LAYOUTS = {
    "coco": ("annotations/instances_{0}2017.json", "{0}2017", "train", "val"),
    "roboflow": ("{0}/_annotations.coco.json", "{0}", "train", "valid"),
    "plain": ("{0}.json", "images/{0}", "train", "val"),
    "plain in annotations": ("annotations/{0}.json", "{0}", "train", "val"),
    "plain, images together": ("{0}.json", "images", "train", "val"),
}


def make(root: Path, layout: str = "coco", **change: object) -> Path:
    file, images, *splits = LAYOUTS[layout]
    for split in splits:
        (root / file.format(split)).parent.mkdir(parents=True, exist_ok=True)
        (root / file.format(split)).write_text(json.dumps(instances(**change)))
        (root / images.format(split)).mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(root / images.format(split) / "a.png"), np.full((48, 64, 3), 90, np.uint8))
    return root


def labels(data_file: Path, task: str):
    from ultralytics.data.dataset import YOLODataset
    from ultralytics.data.utils import check_det_dataset

    data = check_det_dataset(str(data_file))
    for split in ("train", "val"):
        [label] = YOLODataset(img_path=data[split], data=data, task=task, imgsz=64, augment=False).labels
        yield label


@pytest.mark.parametrize("layout", LAYOUTS)
def test_each_layout_becomes_a_data_set_with_its_annotations(layout, tmp_path, capsys):
    source = make(tmp_path / "coco", layout)
    assert cli.main(["convert", f"source={source}", f"out={tmp_path / 'out'}"]) == 0
    data_file = tmp_path / "out" / "data.yaml"
    assert f"det-ls train data={data_file}" in capsys.readouterr().out
    for label in labels(data_file, "detect"):
        np.testing.assert_allclose(label["bboxes"], [[24 / 64, 20 / 48, 32 / 64, 24 / 48]], rtol=1e-6)
    data = yaml.safe_load(data_file.read_text())
    assert data["names"] == {0: "cat"}
    for split in ("train", "val"):
        file = data_file.parent / data["annotations"][split]
        assert json.loads(file.read_text()) == instances()


def test_polygons_are_kept(tmp_path):
    for label in labels(convert(make(tmp_path / "coco"), tmp_path / "out", "segment"), "segment"):
        np.testing.assert_allclose(label["segments"][0].ravel(), np.array(SQUARE) / ([64, 48] * 4), rtol=1e-6)


def test_the_polygons_of_one_object_are_joined(tmp_path):
    halves = [[8, 8, 20, 8, 20, 32, 8, 32], [28, 8, 40, 8, 40, 32, 28, 32]]
    for label in labels(convert(make(tmp_path / "coco", segmentation=halves), tmp_path / "out", "segment"), "segment"):
        assert len(label["segments"]) == 1
        corners = {tuple(point) for point in np.round(label["segments"][0] * [64, 48]).tolist()}
        assert corners == {(x, y) for x in (8.0, 20.0, 28.0, 40.0) for y in (8.0, 32.0)}


def test_keypoints_are_kept(tmp_path):
    data_file = convert(make(tmp_path / "coco"), tmp_path / "out", "pose")
    assert yaml.safe_load(data_file.read_text())["kpt_shape"] == [3, 3]
    for label in labels(data_file, "pose"):
        expected = [[8 / 64, 8 / 48, 2], [0, 0, 0], [40 / 64, 32 / 48, 1]]
        np.testing.assert_allclose(label["keypoints"][0], expected, rtol=1e-6)


@pytest.mark.parametrize(
    ("task", "change", "message"),
    [
        ("cut", {}, "task: expected one of detect, segment, pose, got 'cut'."),
        (
            "segment",
            {"segmentation": {"counts": "abc", "size": [48, 64]}},
            "source: expected polygons of at least 3 points",
        ),
        ("segment", {"segmentation": [[1, 2]]}, "source: expected polygons of at least 3 points"),
        ("pose", {"keypoints": [1, 2, 2]}, "source: expected objects with one number of keypoints"),
    ],
)
def test_what_does_not_fit_is_one_sentence_and_nothing_is_left(task, change, message, tmp_path, capsys):
    source = make(tmp_path / "coco", **change)
    assert cli.main(["convert", f"source={source}", f"out={tmp_path / 'out'}", f"task={task}"]) == 2
    assert message in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["coco"]


@pytest.mark.parametrize(
    ("name", "folder", "images"),
    [
        ("train.json", "images", None),
        ("train.json", "train", None),
        ("labels.json", "", None),
        ("annotations/instances_all.json", "all", None),
        ("labels.json", "pictures/all", "pictures/all"),
    ],
)
def test_one_json_becomes_a_data_set_whose_val_is_train(name, folder, images, tmp_path, capsys):
    source = tmp_path / "coco" / name
    for place in (source.parent, tmp_path / "coco" / folder):
        place.mkdir(parents=True, exist_ok=True)
    source.write_text(json.dumps(instances()))
    cv2.imwrite(str(tmp_path / "coco" / folder / "a.png"), np.full((48, 64, 3), 90, np.uint8))
    words = [f"source={source}", f"out={tmp_path / 'out'}"]
    words += [f"images={tmp_path / 'coco' / images}"] if images else []
    assert cli.main(["convert", *words]) == 0
    assert "val is train, the one split there is" in capsys.readouterr().out
    data = yaml.safe_load((tmp_path / "out" / "data.yaml").read_text())
    assert data["train"] == data["val"]
    for label in labels(tmp_path / "out" / "data.yaml", "detect"):
        np.testing.assert_allclose(label["bboxes"], [[24 / 64, 20 / 48, 32 / 64, 24 / 48]], rtol=1e-6)


def test_images_that_are_not_there_or_not_asked_for_are_one_sentence(tmp_path, capsys):
    source = make(tmp_path / "coco", "plain")
    for words, message in (
        ([f"source={source / 'train.json'}", f"images={tmp_path / 'gone'}"], "images: expected a folder, got"),
        ([f"source={source}", f"images={source}"], "images: expected none with a folder as source"),
    ):
        assert cli.main(["convert", *words, f"out={tmp_path / 'out'}"]) == 2
        assert message in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["coco"]
