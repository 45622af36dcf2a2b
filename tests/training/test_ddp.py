# SPDX-License-Identifier: AGPL-3.0-or-later
"""Two real processes: both smooth what was asked, on schedule, and together take the step of a single process."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from conftest import make_dataset
from cpu_ddp import remember_steps, run_in_processes
from probe import Records
from ultralytics.engine.trainer import BaseTrainer
from ultralytics.nn.tasks import DetectionModel

import det_ls
from det_ls.training.tasks import TRAINERS

pytestmark = [
    pytest.mark.skipif(not torch.distributed.is_available(), reason="this PyTorch is built without distributed"),
]
STILL = {"hsv_h": 0.0, "hsv_s": 0.0, "hsv_v": 0.0, "translate": 0.0, "scale": 0.0, "fliplr": 0.0, "erasing": 0.0}
MODELS = {"detect": "yolo26n.yaml", "segment": "yolo11n-seg.yaml", "classify": "yolo11n-cls.yaml"}


@pytest.fixture
def repeated(tmp_path):
    """A detection set that is one image eight times over: however it is dealt out, every process has the same batch."""
    data = make_dataset(tmp_path / "data")
    images, labels = tmp_path / "data" / "images" / "train", tmp_path / "data" / "labels" / "train"
    for image in sorted(images.iterdir())[1:]:
        shutil.copy(images / "000.png", image)
        shutil.copy(labels / "000.txt", labels / f"{image.stem}.txt")
    return data


def overrides(task: str, data: Path, quick: dict, **more) -> dict:
    keys = {"label_smoothing": 0.3, "label_smoothing_schedule": "linear"}
    size = {"imgsz": 32} if task == "classify" else {}
    return {
        **quick,
        **STILL,
        **size,
        **keys,
        "epochs": 2,
        "task": task,
        "model": MODELS[task],
        "data": str(data),
        "mode": "train",
        **more,
    }


def assert_targets(folder: Path, halves: int) -> None:
    for rank in range(2):
        records = Records(json.loads((folder / f"targets-{rank}.json").read_text()))
        assert {record["epoch"] for record in records} == {0, 1}
        for epoch, epsilon in enumerate((0.3, 0.0)):
            found = records.epsilons(epoch)
            assert len(found) >= halves, "no foreground was seen"
            assert found == pytest.approx([epsilon] * len(found), abs=5e-3)


def test_two_processes_take_the_steps_of_one_on_the_same_global_batch(repeated, quick, tmp_path, monkeypatch):
    """Stock divides each process's loss by its own targets' sum: with the same images everywhere that is the global one."""
    start = det_ls.YOLO(MODELS["detect"])
    start.model = DetectionModel(MODELS["detect"], nc=3, verbose=False)
    start.save(tmp_path / "start.pt")  # new weights are drawn with a seed that depends on the rank
    arguments = overrides("detect", repeated, quick, lr0=0.1, model=str(tmp_path / "start.pt"))
    trainer = det_ls.DetectionTrainer(overrides=arguments)
    run_in_processes(trainer, tmp_path, 2)
    assert_targets(tmp_path, 2)
    assert (Path(trainer.save_dir) / "weights" / "best.pt").is_file()  # and final_eval has validated it
    monkeypatch.setattr(BaseTrainer, "run_callbacks", BaseTrainer.run_callbacks)  # restored afterwards
    remember_steps(tmp_path / "alone.pt")
    alone = det_ls.DetectionTrainer(overrides=arguments)
    alone.train()
    one, two = torch.load(tmp_path / "alone.pt"), [torch.load(tmp_path / f"steps-{rank}.pt") for rank in range(2)]
    assert len(one) == len(two[0]) == len(two[1]) == 4
    for name in one[0]:
        torch.testing.assert_close(two[0][-1][name], two[1][-1][name], rtol=0.0, atol=0.0)
        torch.testing.assert_close(two[0][0][name], one[0][name], rtol=1e-4, atol=1e-5)
    assert any(not torch.equal(one[0][name], one[-1][name]) for name in one[0])


@pytest.mark.parametrize("task", ["segment", "classify"])
def test_both_processes_of_other_tasks_smooth_on_schedule(task, task_data, quick, tmp_path):
    trainer = TRAINERS[""][task](overrides=overrides(task, task_data(task), quick))
    run_in_processes(trainer, tmp_path, 2)
    assert_targets(tmp_path, 1)
    assert (Path(trainer.save_dir) / "weights" / "best.pt").is_file()
