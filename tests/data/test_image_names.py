# SPDX-License-Identifier: AGPL-3.0-or-later
"""Results and files find their images by name, and never the wrong one in silence."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from ultralytics import YOLO

from det_ls.data.coco import read_detections, read_ground_truth
from det_ls.data.ground_truth import ground_truth_for
from det_ls.data.image_names import image_paths
from det_ls.data.locate import check_dataset

NAMES = ["val/a_1.jpg", "val/b.v2.jpg", "val/0012.jpg", "val/7.jpg"]


def instances(names: list[str] = NAMES) -> dict[str, Any]:
    return read_ground_truth(
        {
            "images": [{"id": i, "file_name": name} for i, name in enumerate(names, start=1)],
            "categories": [{"id": 1, "name": "x"}],
            "annotations": [],
        }
    )


def ids(given: list[Any], gt: dict[str, Any] | None = None, **extra: Any) -> list[Any]:
    found = [{"image_id": i, "category_id": 1, "bbox": [0, 0, 5, 5], "score": 0.5, **extra} for i in given]
    return [d["image_id"] for d in read_detections(found, gt or instances())]


def test_stems_are_matched_and_integers_beside_them_are_stems_too() -> None:
    assert ids(["a_1", "b.v2", 12, 7, "a_1"]) == [1, 2, 3, 4, 1]


def test_ids_of_the_ground_truth_stay_ids() -> None:
    assert ids([4, 1, 2]) == [4, 1, 2]
    assert ids([]) == []
    without_names = {**instances(), "images": [{"id": "a"}, {"id": "b"}]}
    assert ids(["b", "a"], without_names) == ["b", "a"]


def test_an_integer_that_its_file_name_contradicts_is_a_stem() -> None:
    # Images 1.jpg and 2.jpg in an instances file that counts from 0: every stem but the last is another image's id.
    gt = instances(["2.jpg", "1.jpg"])
    found = [{"image_id": 1, "file_name": "1.jpg", "category_id": 1, "bbox": [0, 0, 5, 5], "score": 0.5}]
    assert read_detections(found, gt)[0]["image_id"] == 2


@pytest.mark.parametrize(
    ("given", "names", "message"),
    [
        (["a", "b"], ["x/a.jpg", "y/a.jpg", "b.jpg"], "got 'a', which is that of 'x/a.jpg', 'y/a.jpg'"),
        (["a", "c"], ["a.jpg", "b.jpg"], "as others are, got 'c'"),
        (["a", 1], ["a.jpg", "b.jpg"], "as others are, got '1'"),
        (["c"], ["a.jpg", "b.jpg"], r"one of the ground truth's ids \(such as 1\), got 'c'"),
        ([9], ["a.jpg", "b.jpg"], r"one of the ground truth's ids \(such as 1\), got 9"),
    ],
)
def test_ambiguous_and_unknown_stems_are_refused_with_examples(
    given: list[Any], names: list[str], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        ids(given, instances(names))


def test_the_json_that_yolo_val_writes_reads_as_it_is(tiny: Path, tmp_path: Path) -> None:
    (tmp_path / "images" / "val").mkdir(parents=True)
    (tmp_path / "labels" / "val").mkdir(parents=True)
    for i, name in enumerate(["scan_2", "scan_1", "00054_7", "31"]):
        for kind, suffix in (("images", "png"), ("labels", "txt")):
            source = tiny.parent / kind / "val" / f"{i:03d}.{suffix}"
            (tmp_path / kind / "val" / f"{name}.{suffix}").write_bytes(source.read_bytes())
    data = tmp_path / "data.yaml"
    data.write_text(f"path: {tmp_path}\ntrain: images/val\nval: images/val\nnames: [red, green, blue]\n")
    model = YOLO("yolo11n.yaml", verbose=False)
    settings: dict[str, Any] = {"imgsz": 32, "conf": 1e-6, "max_det": 5, "device": "cpu", "workers": 0, "plots": False}
    model.val(data=str(data), save_json=True, project=str(tmp_path), name="v", verbose=False, **settings)
    stock = json.loads((tmp_path / "v" / "predictions.json").read_text())
    truth = ground_truth_for(check_dataset(data))
    stock = [{**d, "category_id": 1 + d["category_id"] % 3} for d in stock]
    read = read_detections(stock, truth.coco)
    by_id = {image["id"]: Path(image["file_name"]).stem for image in truth.coco["images"]}
    assert stock
    assert [by_id[d["image_id"]] for d in read] == [str(d["image_id"]) for d in stock]


def test_files_find_their_images_by_name(tmp_path: Path) -> None:
    gt = instances(["a/1.jpg", "b/1.jpg", "b/2.jpg"])
    assert image_paths(["/r/a/1.jpg", "/r/b/1.jpg", "/r/b/3.jpg"], gt) == {1: "/r/a/1.jpg", 2: "/r/b/1.jpg"}
    assert image_paths(["/r/2.jpg"], gt) == {3: "/r/2.jpg"}
    # A train folder beside the val folder, with the same names.
    assert image_paths(["/r/c/2.jpg", "/r/b/2.jpg"], gt) == {3: "/r/b/2.jpg"}
    with pytest.raises(ValueError, match="none of its file_names among '/r/9.jpg'"):
        image_paths(["/r/9.jpg"], gt)
