# SPDX-License-Identifier: AGPL-3.0-or-later
"""Every task of every architecture smooths its class targets, and nothing else: read from real training steps."""

from __future__ import annotations

import pytest
from probe import watch_training

import det_ls
from det_ls.losses.families import halves

TASKS = ("segment", "pose", "obb", "classify")  # detect: test_training_paths
SUFFIX = {"detect": "", "segment": "-seg", "pose": "-pose", "obb": "-obb", "classify": "-cls"}
TRAINERS = {
    "segment": det_ls.SegmentationTrainer,
    "pose": det_ls.PoseTrainer,
    "obb": det_ls.OBBTrainer,
    "classify": det_ls.ClassificationTrainer,
}


def model_of(task: str, architecture: str = "yolo11n") -> str:
    return f"{architecture}{SUFFIX[task]}.yaml"


def quickly(quick: dict, task: str) -> dict:
    return {**quick, "imgsz": 32, "erasing": 0.0} if task == "classify" else quick


def assert_epsilon(records, expected: float, halves: int = 1, epoch: int | None = None) -> None:
    found = records.epsilons(epoch)
    assert len(found) >= halves, "no foreground was seen"
    assert found == pytest.approx([expected] * len(found), abs=2e-3)
    assert {len(r["halves"]) for r in records} - {0} == {halves}


ARCHITECTURES = [
    *((task, name) for task in ("segment", "pose", "obb") for name in ("yolov8n", "yolo11n", "yolo26n")),
    ("detect", "yolov10n"),
    *(("classify", name) for name in ("yolov8n", "yolo11n", "yolo26n")),
]


@pytest.mark.parametrize(("task", "architecture"), ARCHITECTURES)
def test_python_keyword_smooths_every_half_in_the_fast_form(task, architecture, task_data, quick):
    forms = []
    model = det_ls.YOLO(model_of(task, architecture))
    model.add_callback(
        "on_train_epoch_end",
        lambda t: forms.extend(getattr(half, "form", "no forms") for half in halves(t.model.criterion)),
    )
    with watch_training() as records:
        model.train(data=str(task_data(task)), label_smoothing=0.2, **quickly(quick, task))
    end_to_end = architecture in {"yolov10n", "yolo26n"} and task != "classify"
    assert_epsilon(records, 0.2, 2 if end_to_end else 1)
    assert set(forms) == {"no forms" if task == "classify" else "lean"}
