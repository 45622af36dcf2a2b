# SPDX-License-Identifier: AGPL-3.0-or-later
"""The crops show the worst errors, where they are."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import cv2
import numpy as np
import pytest
from report_scene import EVIL, scene

from det_ls.data.coco import read_ground_truth
from det_ls.evaluation.measure import detection_metrics
from det_ls.evaluation.operating_point import operating_point
from det_ls.report.crops import CaseFinder, base_name, cut, read_image


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    gt, detections, files = scene(tmp_path_factory.mktemp("scene"))
    metrics = detection_metrics(gt, detections, simulations=0, threshold=0.5)
    return {"gt": gt, "detections": detections, "files": files, "metrics": metrics}


def finder(made: dict[str, Any]) -> CaseFinder:
    metrics = made["metrics"]
    return CaseFinder(metrics, made["detections"], read_ground_truth(made["gt"]), operating_point(metrics))


def test_worst_false_positives_are_chosen(made: dict[str, Any]) -> None:
    cases = finder(made).false_positives()
    assert [(c.name, c.score) for c in cases[:2]] == [("dog", 0.95), ("dog", 0.8)]
    assert [c.remark for c in cases[:2]] == ["nothing annotated here", f"annotated as {EVIL}"]
    assert [c.score for c in cases[2:]] == [0.3] * 6
    assert len(finder(made).false_positives(limit=1)) == 1


def test_largest_missed_objects_are_chosen(made: dict[str, Any]) -> None:
    cases = finder(made).missed_objects()
    assert [c.boxes[0].xywh[2] for c in cases] == [80, 40, 30]
    assert cases[0].remark == "no box of this class near it"
    assert cases[1].remark == "scored 0.10, which is not kept"
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


def test_file_names_lose_the_folders_of_the_machine() -> None:
    assert [base_name(n) for n in ("C:\\me\\x.png", "../y/z.png", "val/x.png", "~/x.png")] == [
        "x.png",
        "z.png",
        "val/x.png",
        "x.png",
    ]
