# SPDX-License-Identifier: AGPL-3.0-or-later
"""A COCO-format folder becomes a YOLO dataset with the same objects: pycocotools reads one, Ultralytics the other."""

from __future__ import annotations

import importlib.util
import json
import re
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import yaml
from pycocotools.coco import COCO

SCRIPT = Path(__file__).parents[2] / "scripts" / "coco_to_yolo.py"

specification = importlib.util.spec_from_file_location("coco_to_yolo", SCRIPT)
coco_to_yolo = importlib.util.module_from_spec(specification)
specification.loader.exec_module(coco_to_yolo)
convert = coco_to_yolo.convert

CATEGORIES = [{"id": 90, "name": "yes: no"}, {"id": 3, "name": "car"}, {"id": 17, "name": "never used"}]


def instances(**changes):
    """Return annotations with gaps in the category ids, a crowd, a box over the edge, an empty one, and background."""
    images = [
        {"id": 11, "file_name": "000000000011.png", "width": 64, "height": 48},
        {"id": 5, "file_name": "sub/a b (2).png", "width": 40, "height": 80},
        {"id": 7, "file_name": "background.png", "width": 40, "height": 40},
    ]
    boxes = [
        (11, 90, [3.25, 4.5, 20.125, 30.0], 0),
        (11, 3, [50.0, 30.0, 30.0, 30.0], 0),
        (5, 3, [-4.0, 10.0, 14.0, 60.5], 0),
        (5, 90, [5.0, 5.0, 0.0, 10.0], 0),
        (7, 3, [0.0, 0.0, 40.0, 40.0], 1),
    ]
    keys = ("image_id", "category_id", "bbox", "iscrowd")
    annotations = [{"id": i + 1, **dict(zip(keys, box, strict=True)), "area": 1.0} for i, box in enumerate(boxes)]
    return {"images": images, "annotations": annotations, "categories": CATEGORIES, **changes}


@pytest.fixture
def source(tmp_path):
    root = tmp_path / "coco"
    for name in ("train2017", "val2017"):
        write_json(root, name, instances())
        for image in instances()["images"]:
            file = root / name / image["file_name"]
            file.parent.mkdir(parents=True, exist_ok=True)
            cv2.imwrite(str(file), np.full((image["height"], image["width"], 3), 90, np.uint8))
    return root


def write_json(root, name, content):
    (root / "annotations").mkdir(parents=True, exist_ok=True)
    (root / "annotations" / f"instances_{name}.json").write_text(json.dumps(content))


def stock_boxes(data_file, split):
    """Return (class name, x1, y1, x2, y2) rows in pixels by file name, as Ultralytics' dataset class reads them."""
    from ultralytics.data.dataset import YOLODataset
    from ultralytics.data.utils import check_det_dataset

    data = check_det_dataset(str(data_file))
    result = {}
    for label in YOLODataset(img_path=data[split], data=data, task="detect", imgsz=64, augment=False).labels:
        height, width = label["shape"]
        centre, half = label["bboxes"][:, :2], label["bboxes"][:, 2:] / 2
        corners = np.hstack([centre - half, centre + half]) * [width, height, width, height]
        names = [data["names"][int(c)] for c in label["cls"].ravel()]
        result[str(Path(label["im_file"]).relative_to(data[split]))] = rows(names, corners)
    return result


def coco_boxes(annotation_file):
    """Return the same of an instances JSON, read by pycocotools: no crowds, clipped to the image, nothing empty."""
    coco = COCO(str(annotation_file))
    result = {}
    for image in coco.loadImgs(coco.getImgIds()):
        found = coco.loadAnns(coco.getAnnIds(imgIds=image["id"], iscrowd=False))
        xywh = np.array([x["bbox"] for x in found]).reshape(-1, 4)
        size = [image["width"], image["height"]] * 2
        corners = np.clip(np.hstack([xywh[:, :2], xywh[:, :2] + xywh[:, 2:]]), 0, size)
        keep = (corners[:, 2:] > corners[:, :2]).all(1)
        names = [coco.cats[x["category_id"]]["name"] for x in found]
        result[image["file_name"]] = rows([n for n, k in zip(names, keep, strict=True) if k], corners[keep])
    return result


def rows(names, corners):
    """Return sorted unique rows: Ultralytics drops repeated ones."""
    return sorted({(name, *np.round(box, 2).tolist()) for name, box in zip(names, corners, strict=True)})


def assert_same_boxes(found, expected):
    assert found.keys() == expected.keys()
    for name in expected:
        assert [x[0] for x in found[name]] == [x[0] for x in expected[name]]
        assert np.allclose([x[1:] for x in found[name]], [x[1:] for x in expected[name]], atol=0.02)


def test_ultralytics_reads_the_boxes_that_pycocotools_reads(source, tmp_path):
    data_file = convert(source, tmp_path / "out")
    for split in ("train", "val"):
        found = stock_boxes(data_file, split)
        assert sum(map(len, found.values())) == 3
        assert_same_boxes(found, coco_boxes(source / "annotations" / f"instances_{split}2017.json"))


def test_coco_tiny_keeps_its_boxes_and_image_ids(shared_data, tmp_path):
    before = sorted(str(x) for x in (shared_data / "coco-tiny").rglob("*"))
    data_file = convert(shared_data / "coco-tiny", tmp_path / "out")
    data = yaml.safe_load(data_file.read_text(encoding="utf-8"))
    for split in ("train", "val"):
        expected = coco_boxes(data_file.parent / data["annotations"][split])
        assert len(expected) == 80
        assert_same_boxes(stock_boxes(data_file, split), expected)
    assert sorted(str(x) for x in (shared_data / "coco-tiny").rglob("*")) == before


def test_all_categories_become_classes_in_the_order_of_their_ids(source, tmp_path):
    data = yaml.safe_load(convert(source, tmp_path / "out").read_text(encoding="utf-8"))
    assert data["names"] == {0: "car", 1: "never used", 2: "yes: no"}


def test_the_data_yaml_names_the_official_annotations(source, tmp_path):
    data_file = convert(source, tmp_path / "out")
    data = yaml.safe_load(data_file.read_text(encoding="utf-8"))
    for split in ("train", "val"):
        file = data_file.parent / data["annotations"][split]
        assert file.samefile(source / "annotations" / f"instances_{split}2017.json")


def test_images_are_links_under_their_own_names_and_only_those_of_the_json(source, tmp_path):
    cv2.imwrite(str(source / "val2017" / "not listed.png"), np.zeros((8, 8, 3), np.uint8))
    folder = convert(source, tmp_path / "out").parent / "images" / "val2017"
    files = {str(x.relative_to(folder)) for x in folder.rglob("*.png")}
    assert files == {x["file_name"] for x in instances()["images"]}
    assert all((folder / x).is_symlink() and (folder / x).samefile(source / "val2017" / x) for x in files)


def test_images_may_lie_in_a_folder_of_their_own(source, tmp_path):
    (source / "images").mkdir()
    (source / "val2017").rename(source / "images" / "val2017")
    assert sum(map(len, stock_boxes(convert(source, tmp_path / "out"), "val").values())) == 3


def test_the_dataset_can_be_moved(source, tmp_path):
    convert(source, tmp_path / "out").parent.rename(tmp_path / "moved")
    assert sum(map(len, stock_boxes(tmp_path / "moved" / "data.yaml", "val").values())) == 3


def test_a_folder_with_files_is_not_overwritten(source, tmp_path):
    (tmp_path / "out").mkdir()
    assert convert(source, tmp_path / "out").is_file()
    with pytest.raises(FileExistsError, match="out: expected a new or empty folder"):
        convert(source, tmp_path / "out")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"categories": [*CATEGORIES[:2], {"id": 17, "name": "other"}]},
            "source: expected the same categories in .*val2017",
        ),
        ({"categories": CATEGORIES[:1]}, r"a known category_id .* got \[3\]"),
        ({"images": instances()["images"][1:]}, r"a known image_id .* got \[11\]"),
        ({"annotations": None}, "expected images, annotations and categories"),
        ({"annotations": [{"image_id": 5, "category_id": 3}]}, "'bbox'.*each of the annotations"),
        ({"images": [{**x, "file_name": "../up.png"} for x in instances()["images"]]}, "stay inside the folder"),
        (
            {"images": [{**x, "file_name": "background.png"} for x in instances()["images"]]},
            "expected a label file of its own",
        ),
    ],
)
def test_annotations_that_do_not_fit_are_refused_and_nothing_is_left(source, tmp_path, changes, message):
    write_json(source, "val2017", instances(**changes))
    with pytest.raises(ValueError, match=message):
        convert(source, tmp_path / "out")
    assert list(tmp_path.iterdir()) == [source]


def test_missing_images_are_counted_with_examples_and_nothing_is_left(source, tmp_path):
    (source / "val2017" / "background.png").unlink()
    with pytest.raises(FileNotFoundError, match=r"1 missing, such as \['background.png'\]"):
        convert(source, tmp_path / "out")
    assert list(tmp_path.iterdir()) == [source]


def test_an_incomplete_source_is_explained(source, tmp_path):
    write_json(source, "val2014", instances())
    with pytest.raises(ValueError, match=r"source: expected one instances_val\*.json .* got 2"):
        convert(source, tmp_path / "out")
    for file in (source / "annotations").glob("*val*"):
        file.unlink()
    with pytest.raises(FileNotFoundError, match=r"annotations/instances_val\*.json"):
        convert(source, tmp_path / "out")
    (source / "annotations" / "instances_val2017.json").write_text("{")
    with pytest.raises(ValueError, match="source: expected valid JSON"):
        convert(source, tmp_path / "out")
    (source / "annotations" / "instances_val2017.json").write_text(json.dumps(instances()))
    (source / "val2017").rename(source / "elsewhere")
    with pytest.raises(FileNotFoundError, match=r"source: expected the images of 'instances_val2017.json' in"):
        convert(source, tmp_path / "out")


def test_the_command_line_converts_and_explains(source, tmp_path):
    def run(*arguments):
        return subprocess.run([sys.executable, str(SCRIPT), *arguments], capture_output=True, text=True, check=False)

    done = run(f"source={source}", f"out={tmp_path / 'out'}")
    assert done.returncode == 0, done.stderr
    assert str(tmp_path / "out" / "data.yaml") in done.stdout
    again = run(f"source={source}", f"out={tmp_path / 'out'}")
    assert again.returncode != 0
    assert re.search(r"^error: out: expected a new or empty folder", again.stderr, re.MULTILINE)
    with pytest.raises(
        SystemExit, match="arguments: expected source=<COCO-format folder> out=<new folder>, got sauce=x"
    ):
        coco_to_yolo.main(["sauce=x"])
