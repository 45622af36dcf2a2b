# SPDX-License-Identifier: AGPL-3.0-or-later
"""A run with label_smoothing_mode=online: the loss in use follows what the model predicted in the epoch before."""

from __future__ import annotations

import csv
import json
import os
from pathlib import Path

import pytest
import torch
import ultralytics
import yaml
from cpu_ddp import run_in_processes
from probe import Records, watch_training
from ultralytics.nn.tasks import DetectionModel
from ultralytics.utils.patches import torch_load

import det_ls
from det_ls.cli import main as cli
from det_ls.smoothing.matrix import smoothing_matrix
from det_ls.training.policy_state import STATE_KEY
from det_ls.training.trainer import LabelSmoothingTrainerMixin

UNIFORM = smoothing_matrix(3, 0.4, "uniform")


@pytest.fixture
def online(quick):
    keys = {"label_smoothing": 0.4, "label_smoothing_mode": "online"}
    return {**quick, "epochs": 3, **keys}


def take_for_red(model) -> None:
    head = model.model[-1]
    with torch.no_grad():
        for branches in (head.cv3, getattr(head, "one2one_cv3", [])):
            for branch in branches:
                branch[-1].bias.copy_(torch.tensor([-1.0, -2.0, -5.0]))


@pytest.fixture(autouse=True)
def matrices(monkeypatch):
    """P of each epoch by the policy, and a head that begins by taking everything for red, sometimes for green."""
    found: dict[int, torch.Tensor] = {}
    stock = LabelSmoothingTrainerMixin.run_callbacks

    def run_callbacks(self, event):
        stock(self, event)
        if event == "on_train_epoch_start":
            found[self.epoch] = self.policy.matrix(self.epoch, self.epochs)
        if event == "on_train_start" and self.args.task == "detect" and not self.resume:
            take_for_red(self.model)

    monkeypatch.setattr(LabelSmoothingTrainerMixin, "run_callbacks", run_callbacks)
    return found


def assert_in_use(records, matrices, epochs) -> None:
    """Each row of targets is a row of the epoch's P, up to its soft score."""
    for epoch in epochs:
        rows = [torch.tensor(r) for rec in records if rec["epoch"] == epoch for r in rec["halves"].values()]
        assert rows, "no foreground was seen"
        expected = matrices[epoch] / matrices[epoch].amax(1, keepdim=True)
        found = torch.cat(rows).double()
        torch.testing.assert_close(found, expected[found.argmax(1)], rtol=0.0, atol=5e-3)


@pytest.mark.parametrize("name", ["yolo11n.yaml", "yolo26n.yaml"])
def test_the_targets_in_use_are_the_models_own_of_the_epoch_before(name, tiny, online, matrices):
    model = det_ls.YOLO(name)
    with watch_training() as records:
        model.train(data=str(tiny), **online)
    assert torch.allclose(matrices[0], UNIFORM)
    assert matrices[1][0, 0] > UNIFORM[0, 0] + 0.05  # sure of red by now, which it takes for green rather than blue
    assert matrices[1][0, 1] > matrices[1][0, 2] + 0.05
    assert torch.allclose(matrices[1][2], UNIFORM[2])  # it took nothing for blue
    assert_in_use(records, matrices, range(3))
    with open(model.trainer.csv, newline="", encoding="utf-8") as file:
        rows = [{key.strip(): value for key, value in row.items()} for row in csv.DictReader(file)]
    assert [float(row["label_smoothing"]) for row in rows] == [0.4] * 3
    diagonal = [(matrices[e].diagonal().mean().item() - 0.6) / 0.4 for e in range(3)]
    assert [float(row["label_smoothing_online"]) for row in rows] == pytest.approx(diagonal, rel=1e-4)
    args = yaml.safe_load((model.trainer.save_dir / "args.yaml").read_text())
    assert args["label_smoothing_mode"] == "online"


def test_command_line_and_a_trainer_of_stock_yolo(tiny, online, matrices):
    words = [f"data={tiny}", "model=yolo11n.yaml", *(f"{k}={v}" for k, v in {**online, "epochs": 2}.items())]
    with watch_training() as records:
        assert cli.main(["train", *words]) == 0
    assert_in_use(records, matrices, range(2))
    matrices.clear()
    with watch_training() as records:
        ultralytics.YOLO("yolo11n.yaml").train(
            trainer=det_ls.DetectionTrainer, data=str(tiny), **{**online, "epochs": 2}
        )
    assert_in_use(records, matrices, range(2))
    assert not torch.allclose(matrices[1], UNIFORM)


class Killed(BaseException):
    pass


def test_a_killed_run_goes_on_with_its_matrix_to_the_bit(tiny, online, matrices):
    def kill(trainer) -> None:
        if trainer.epoch == 2:
            raise Killed

    model = det_ls.YOLO("yolo11n.yaml")
    model.add_callback("on_train_batch_end", kill)
    with pytest.raises(Killed):
        model.train(data=str(tiny), **online)
    before = matrices.pop(2)
    state = torch_load(model.trainer.last, map_location="cpu")["train_args"][STATE_KEY]
    assert torch.tensor(state["shares"]).shape == (3, 3)
    again = det_ls.YOLO(model.trainer.last)
    with watch_training() as records:
        again.train(resume=True)
    assert torch.equal(matrices[2], before)
    assert not torch.allclose(before, UNIFORM)
    assert_in_use(records, matrices, [2])
    for file in (again.trainer.last, again.trainer.best):
        ultralytics.YOLO(file)


def test_a_classifier_learns_from_its_images(task_data, online, matrices):
    model = det_ls.YOLO("yolo11n-cls.yaml")
    with watch_training() as records:
        model.train(data=str(task_data("classify")), **{**online, "imgsz": 32, "lr0": 0.01})
    assert not torch.allclose(matrices[2], UNIFORM)
    for epoch in range(3):
        rows = torch.cat([torch.tensor(r) for rec in records if rec["epoch"] == epoch for r in rec["halves"].values()])
        expected = matrices[epoch] / matrices[epoch].amax(1, keepdim=True)
        torch.testing.assert_close(rows.double(), expected[rows.argmax(1)], rtol=0.0, atol=5e-3)


def test_prompts_are_refused(tiny, online):
    with pytest.raises(ValueError, match="label_smoothing_mode: expected a mode that treats all classes alike"):
        det_ls.YOLO("yolov8s-worldv2.yaml").train(data=str(tiny), **online)
    assert not Path(online["project"]).exists()


def test_one_class_is_refused(tiny, online):
    with pytest.raises(ValueError, match="'online': expected at least 2 classes to learn from each other, got 1"):
        det_ls.YOLO("yolo11n.yaml").train(data=str(tiny), single_cls=True, **online)
    assert not Path(online["project"]).exists()


@pytest.mark.skipif(not torch.distributed.is_available(), reason="this PyTorch is built without distributed")
@pytest.mark.skipif(not os.environ.get("DET_LS_SLOW"), reason="one more run in two processes: DET_LS_SLOW=1 runs it")
def test_two_processes_learn_one_matrix(tiny, online, tmp_path):
    torch.manual_seed(0)  # of the start's weights
    start = det_ls.YOLO("yolo11n.yaml")
    start.model = DetectionModel("yolo11n.yaml", nc=3, verbose=False)
    start.model.names = {0: "red", 1: "green", 2: "blue"}  # the head is loaded by the names of its classes
    take_for_red(start.model)
    start.save(tmp_path / "start.pt")
    words = {"epochs": 2, "model": str(tmp_path / "start.pt"), "data": str(tiny), "mode": "train", "task": "detect"}
    run_in_processes(det_ls.DetectionTrainer(overrides={**online, **words}), tmp_path, 2)
    for rank in range(2):
        records = Records(json.loads((tmp_path / f"targets-{rank}.json").read_text()))
        rows = torch.cat([torch.tensor(r) for rec in records if rec["epoch"] == 1 for r in rec["halves"].values()])
        red = rows[rows.argmax(1) == 0]
        assert len(red)
        torch.testing.assert_close(red, red[:1].expand_as(red), rtol=0.0, atol=5e-3)
        assert red[0, 1] > red[0, 2] + 0.05  # as in one process: it took the others for red, and green before blue
