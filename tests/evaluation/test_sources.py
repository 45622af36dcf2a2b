# SPDX-License-Identifier: AGPL-3.0-or-later
"""Detections of any origin are measured on the ground truth they belong to, with the images beside them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from det_ls.data.ground_truth import GroundTruth, ground_truth_for
from det_ls.data.locate import check_dataset
from det_ls.evaluation.evaluate import evaluate_detections


@pytest.fixture(scope="module")
def truth(tiny: Path) -> GroundTruth:
    return ground_truth_for(check_dataset(tiny))


def own_labels(truth: GroundTruth) -> list[dict[str, Any]]:
    return [{**{k: a[k] for k in ("image_id", "category_id", "bbox")}, "score": 0.9} for a in truth.coco["annotations"]]


@pytest.fixture
def text_files(tiny: Path, tmp_path: Path) -> Path:
    """The labels of the val split as perfect predictions."""
    folder = tmp_path / "labels"
    folder.mkdir()
    for file in (tiny.parent / "labels" / "val").glob("*.txt"):
        lines = [f"{line} 0.9\n" for line in file.read_text().splitlines()]
        (folder / file.name).write_text("".join(lines))
    return tmp_path


def test_text_files_and_coco_results_give_the_same_numbers(tiny: Path, truth: GroundTruth, text_files: Path) -> None:
    of_files = evaluate_detections(None, text_files, data=tiny)
    of_json = evaluate_detections(truth.coco, own_labels(truth))
    assert of_files.stats["AP"] == pytest.approx(1.0)
    assert of_files.stats == of_json.stats
    assert of_files.metrics.values["signed_gap"] == pytest.approx(of_json.metrics.values["signed_gap"])
    assert of_files.images == {i: path for path, i in truth.image_ids.items()}
    assert of_files.protocol["data"] == str(tiny)
    assert of_files.protocol["detections"] == str(text_files)
    assert (of_files.protocol["split"], of_files.protocol["ground_truth"]) == ("val", "labels")


def test_stems_and_data_need_no_annotations(tiny: Path, truth: GroundTruth, tmp_path: Path) -> None:
    stems = {image["id"]: Path(image["file_name"]).stem for image in truth.coco["images"]}
    named = [{**d, "image_id": stems[d["image_id"]]} for d in own_labels(truth)]
    (tmp_path / "predictions.json").write_text(json.dumps(named))
    result = evaluate_detections(None, tmp_path / "predictions.json", data=tiny)
    assert result.stats["AP"] == pytest.approx(1.0)


def test_images_are_found_in_a_folder_a_data_yaml_or_a_mapping(tiny: Path, truth: GroundTruth) -> None:
    coco, found = truth.coco, own_labels(truth)
    expected = {i: path for path, i in truth.image_ids.items()}
    assert evaluate_detections(coco, found).images == {}
    for images in (tiny.parent / "images" / "val", str(tiny.parent / "images"), tiny, str(tiny)):
        assert evaluate_detections(coco, found, images=images).images == expected
    assert evaluate_detections(coco, found, images={1: "a.png", 99: "b.png"}).images == {1: "a.png"}


def test_what_is_missing_is_said_before_any_work(tiny: Path, truth: GroundTruth, text_files: Path) -> None:
    with pytest.raises(TypeError, match="^gt: expected COCO instances, or a data set"):
        evaluate_detections(None, [])
    with pytest.raises(TypeError, match="^data: expected a data YAML with a folder of YOLO predictions"):
        evaluate_detections(truth.coco, text_files)
    with pytest.raises(TypeError, match="^images: expected a folder, a data YAML or a mapping, got 3"):
        evaluate_detections(truth.coco, [], images=3)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="images: expected files of the ground truth's images, got none"):
        evaluate_detections(
            {**truth.coco, "images": [{"id": 1, "file_name": "x.png"}], "annotations": []}, [], images=tiny
        )
