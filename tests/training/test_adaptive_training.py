# SPDX-License-Identifier: AGPL-3.0-or-later
"""A run with label_smoothing=adaptive: what it trains on, what it is steered by, and that the loss in use follows."""

from __future__ import annotations

import csv
import json
import math
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import ultralytics
import yaml
from conftest import make_dataset, make_task_dataset
from cpu_ddp import run_in_processes
from probe import Records, watch_training
from ultralytics.data.base import BaseDataset
from ultralytics.utils.patches import torch_load

import det_ls
from det_ls.calibration.smoothing import kept_shares
from det_ls.cli import main as cli
from det_ls.data.ground_truth import list_images
from det_ls.evaluation.predictions import predict
from det_ls.training import observed
from det_ls.training.held_out import divide, hold_out
from det_ls.training.policy_state import STATE_KEY
from det_ls.training.tune import keys_of_runs

TRAIN, HELD_OUT = "label_smoothing_train.txt", "label_smoothing_held_out.txt"


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """44 training images, of which 20 are held out."""
    return make_dataset(tmp_path_factory.mktemp("adaptive") / "data", train=44, val=2)


@pytest.fixture
def short(quick):
    """Four epochs, the last two of which steer, with batches of 12."""
    return {**quick, "batch": 12, "nbs": 12, "epochs": 4, "label_smoothing": "adaptive"}


def table(trainer) -> dict[str, list[float]]:
    with open(trainer.csv, newline="", encoding="utf-8") as file:
        rows = [{key.strip(): value for key, value in row.items()} for row in csv.DictReader(file)]
    return {key: [float(row[key]) for row in rows] for key in rows[0] if key != "time"}


def lists(folder) -> tuple[list[str], list[str]]:
    return tuple((Path(folder) / name).read_text().split() for name in (TRAIN, HELD_OUT))


def assert_steered(trainer, records, gaps=(2, 3)) -> None:
    """The targets in use have the logged epsilon, which is the sum of the logged gaps."""
    epochs = trainer.epochs
    found = table(trainer)
    assert [not math.isnan(gap) for gap in found["label_smoothing_gap"]] == [e in gaps for e in range(epochs)]
    expected = 0.0
    for epoch in range(epochs):
        assert found["label_smoothing"][epoch] == pytest.approx(expected, abs=1e-5)
        used = records.epsilons(epoch)
        if used:  # a resumed run has recorded its own epochs only
            assert used == pytest.approx([expected] * len(used), abs=3e-3)
        gap = found["label_smoothing_gap"][epoch]
        expected = expected if math.isnan(gap) else min(max(expected + 5 / 2 * gap, 0.0), 0.5)


@pytest.fixture
def over_confident(monkeypatch):
    """A gap that is as large as in a real run, of a detector that has learnt next to nothing in a few steps."""
    measured = observed.measured_gap
    monkeypatch.setattr(observed, "measured_gap", lambda *args: 0.08 + measured(*args))


def test_the_targets_in_use_follow_the_gap_and_the_slice_is_not_trained_on(data, short, over_confident):
    seen: dict[str, set[str]] = {"trained": set(), "validated": set()}
    model = det_ls.YOLO("yolo11n.yaml")
    model.add_callback("on_train_start", lambda t: seen["trained"].update(t.train_loader.dataset.im_files))
    model.add_callback("on_train_start", lambda t: seen["validated"].update(t.test_loader.dataset.im_files))
    with watch_training() as records:
        model.train(data=str(data), **short)
    assert len(records.epsilons(3)) > 0
    assert_steered(model.trainer, records)
    assert table(model.trainer)["label_smoothing"][3] > 0.1
    train, held_out = lists(model.trainer.save_dir)
    assert seen["trained"] == set(train)
    assert (len(train), len(held_out)) == (24, 20)
    assert sorted(train + held_out) == list_images(str(data.parent / "images" / "train"))
    assert not seen["validated"] & {*train, *held_out}
    args = yaml.safe_load((model.trainer.save_dir / "args.yaml").read_text())
    assert args["label_smoothing"] == "adaptive"
    assert args["data"] == str(data)


def test_background_is_steered_too_and_named_on_the_command_line(data, short, over_confident):
    matrices = {}
    stock = det_ls.DetectionTrainer.run_callbacks

    def look(self, event):
        stock(self, event)
        if event == "on_train_batch_end":
            matrices[self.epoch] = (self, self.model.criterion.smoothing_matrix.clone())

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(det_ls.DetectionTrainer, "run_callbacks", look)
        words = [f"data={data}", "model=yolo11n.yaml", *(f"{k}={v}" for k, v in short.items())]
        assert cli.main(["train", *words, "label_smoothing_mode=background"]) == 0
    trainer = matrices[3][0]
    epsilons = table(trainer)["label_smoothing"]
    assert epsilons[3] > 0.1
    for epoch, (_, matrix) in matrices.items():
        torch.testing.assert_close(matrix, (1 - epsilons[epoch]) * torch.eye(3).to(matrix), rtol=0.0, atol=1e-5)


class Killed(BaseException):
    pass


def test_a_killed_run_goes_on_with_its_lists_and_its_epsilon_to_the_bit(data, short, over_confident):
    def kill(trainer) -> None:
        if trainer.epoch == 3:
            raise Killed

    model = ultralytics.YOLO("yolo11n.yaml")
    model.add_callback("on_train_batch_start", kill)
    with pytest.raises(Killed):
        model.train(trainer=det_ls.DetectionTrainer, data=str(data), **short)
    before = lists(model.trainer.save_dir)
    epsilon = model.trainer.policy.epsilon
    state = torch_load(model.trainer.last, map_location="cpu")["train_args"]
    assert state[STATE_KEY] == {"epsilon": epsilon}
    assert epsilon > 0.1
    again = det_ls.YOLO(model.trainer.last)
    with watch_training() as records:
        again.train(resume=True, label_smoothing="adaptive")
    assert lists(again.trainer.save_dir) == before
    assert {record["epoch"] for record in records} == {3}
    assert records.epsilons(3)
    assert_steered(again.trainer, records)


def test_a_run_that_moved_takes_its_lists_along_and_one_without_them_does_not_go_on(data, tmp_path):
    source, old, new = str(data.parent / "images" / "train"), tmp_path / "old", tmp_path / "new"
    hold_out(source, old, fraction=1.0, seed=0)
    hold_out(source, new, fraction=1.0, seed=1, resumed=old)
    assert lists(new) == lists(old)
    (old / HELD_OUT).unlink()
    with pytest.raises(FileNotFoundError, match="label_smoothing=adaptive: expected the run's list of images .*held_o"):
        hold_out(source, new, fraction=1.0, seed=0, resumed=old)


def test_nan_recovery_takes_no_step_of_the_epoch_that_is_trained_again(data, short, over_confident, log):
    poisoned = []

    def poison(trainer) -> None:
        if trainer.epoch == 3 and not poisoned:
            poisoned.append(trainer.policy.epsilon)
            trainer.loss = torch.tensor(float("nan"))
            validate = trainer.validate

            def validate_once():
                trainer.validate = validate
                return validate()[0], float("nan")

            trainer.validate = validate_once

    model = det_ls.YOLO("yolo11n.yaml")
    used = []
    model.add_callback("on_train_epoch_end", poison)
    model.add_callback("on_train_batch_end", lambda t: used.append((t.epoch, t.model.criterion.smoothing_matrix[0, 0])))
    model.train(data=str(data), **short)
    assert "recovering from last.pt" in "\n".join(log)
    assert poisoned[0] > 0.1
    assert {float(diagonal) for epoch, diagonal in used if epoch == 3} == {1 - poisoned[0]}
    assert sum(epoch == 3 for epoch, _ in used) == 4  # two batches, twice
    assert_steered(model.trainer, Records())


def test_the_gap_is_that_of_the_boxes_of_an_independent_prediction(data, short):
    """Match the EMA's boxes in pixels of the images with a plain loop: highest score first, IoU 0.5, same class."""
    found = {}

    def learn(trainer) -> None:  # make it sure of red, so that boxes score high; nothing is trained
        with torch.no_grad():
            for model in (trainer.model, trainer.ema.ema):
                for branch in model.model[-1].cv3:
                    branch[-1].bias.copy_(torch.tensor([0.5, -9.0, -9.0]))

    def keep(trainer) -> None:
        found["model"] = {k: v.clone() for k, v in trainer.ema.ema.state_dict().items()}

    model = det_ls.YOLO("yolo11n.yaml")
    model.add_callback("on_train_start", learn)
    model.add_callback("on_train_epoch_end", keep)
    model.train(data=str(data), **{**short, "epochs": 1, "lr0": 0.0, "warmup_bias_lr": 0.0, "save": True})
    gap = table(model.trainer)["label_smoothing_gap"][0]
    held_out = Path(model.trainer.save_dir) / HELD_OUT
    copied = det_ls.YOLO("yolo11n.yaml")
    copied.model = copied.model if copied.model.model[-1].nc == 3 else ultralytics.nn.tasks.DetectionModel(
        "yolo11n.yaml", nc=3, verbose=False
    )  # fmt: skip
    copied.model.load_state_dict(found["model"])
    copied.model.names = {0: "red", 1: "green", 2: "blue"}
    content = {**yaml.safe_load(data.read_text()), "train": str(held_out)}
    predicted = predict(copied, {**content, "channels": 3}, "train", imgsz=64, device="cpu")
    rows, objects = [], 0
    for image in predicted.images:
        label = Path(image.path.replace("/images/", "/labels/")).with_suffix(".txt")
        truth = [[float(v) for v in line.split()] for line in label.read_text().splitlines()]
        objects += len(truth)
        height, width = image.shape
        free = list(truth)
        order = sorted(range(len(image.scores)), key=lambda i: -image.scores[i])
        for i in order:
            left, top, w, h = image.boxes[i].tolist()
            best = None
            for row in free:
                c, x, y, tw, th = row
                tl, tt, tw, th = (x - tw / 2) * width, (y - th / 2) * height, tw * width, th * height
                inter = max(0, min(left + w, tl + tw) - max(left, tl)) * max(0, min(top + h, tt + th) - max(top, tt))
                overlap = inter / (w * h + tw * th - inter)
                if int(c) == image.classes[i] and overlap >= 0.5 and (best is None or overlap > best[0]):
                    best = (overlap, row)
            if best is not None:
                free.remove(best[1])
            rows.append((float(image.scores[i]), best is not None))
    kept = sorted(rows, key=lambda row: -row[0])[:objects]
    assert len(kept) == objects == 40
    expected = sum(score for score, _ in kept) / objects - sum(right for _, right in kept) / objects
    assert gap == pytest.approx(expected, abs=0.03)  # one box more or less on the edge of IoU 0.5
    assert gap > 0.3


@pytest.mark.parametrize("task", ["segment", "pose", "obb"])
def test_other_tasks_are_steered(task, short, tmp_path, monkeypatch):
    measured, asked = observed.measured_gap, []

    def over_confident(validator, trainer):
        asked.append(validator.args.conf)
        return 0.08 + measured(validator, trainer)

    monkeypatch.setattr(observed, "measured_gap", over_confident)
    stock = make_dataset
    monkeypatch.setattr("conftest.make_dataset", lambda *args, **keys: stock(*args, **{**keys, "train": 44, "val": 2}))
    data = make_task_dataset(tmp_path / "data", task)
    model = det_ls.YOLO(f"yolo11n-{task[:3] if task != 'pose' else task}.yaml")
    with watch_training() as records:
        model.train(data=str(data), **{**short, "epochs": 3})
    assert asked == [0.001] * 2  # as for AP: a box that scores less is not kept by anybody
    assert records.epsilons(2)
    assert_steered(model.trainer, records, gaps=(1, 2))
    assert table(model.trainer)["label_smoothing"][2] > 0.1


@pytest.mark.parametrize("fraction", [1.0, 0.95, 42])
def test_what_stock_leaves_out_by_fraction_is_on_neither_side(fraction, data):
    folder = str(data.parent / "images" / "train")
    stock = BaseDataset.get_img_files(SimpleNamespace(prefix="", fraction=fraction), folder)
    train, held_out = divide(list_images(folder), fraction, seed=0)
    assert sorted(train + held_out) == stock
    assert divide(list_images(folder), [fraction, 1.0], seed=0) == (train, held_out)


def test_a_fraction_trains_on_what_it_did_less_the_slice(data, short):
    seen = []
    model = det_ls.YOLO("yolo11n.yaml")
    model.add_callback("on_train_start", lambda t: seen.append(len(t.train_loader.dataset)))
    model.train(data=str(data), **{**short, "epochs": 1, "fraction": 0.95, "val": False})
    train, held_out = lists(model.trainer.save_dir)
    assert seen == [len(train)] == [round(44 * 0.95) - 20]
    assert len(held_out) == 20


def test_the_slice_is_drawn_by_the_seed():
    images = [f"{i:03d}.png" for i in range(300)]
    assert divide(images, 1.0, 0) == divide(images, 1.0, 0)
    assert divide(images, 1.0, 0)[1] != divide(images, 1.0, 1)[1]


REFUSED = [
    ({"label_smoothing_mode": "binary"}, "expected background or redistribute with label_smoothing=adaptive"),
    ({"single_cls": True}, "'redistribute': expected at least 2 classes"),
]


@pytest.mark.parametrize(("keys", "message"), REFUSED)
def test_what_cannot_be_steered_is_refused_before_any_work(keys, message, data, short):
    with pytest.raises(ValueError, match=message):
        det_ls.YOLO("yolo11n.yaml").train(data=str(data), **short, **keys)
    assert not Path(short["project"]).exists()


def test_a_small_set_another_task_and_another_family_are_refused(tiny, short, task_data):
    with pytest.raises(ValueError, match="label_smoothing=adaptive: expected at least 40 training images, .* got 8"):
        det_ls.YOLO("yolo11n.yaml").train(data=str(tiny), **short)
    with pytest.raises(ValueError, match="expected a task among detect, segment, pose, obb, got 'classify'"):
        det_ls.YOLO("yolo11n-cls.yaml").train(data=str(task_data("classify")), **short)
    with pytest.raises(ValueError, match="expected a usual YOLO model, got one of the family World"):
        det_ls.YOLO("yolov8s-worldv2.yaml").train(data=str(tiny), **short)
    assert not list(Path(short["project"]).glob("*"))


def test_a_slice_without_an_object_is_refused_before_the_first_epoch(short, tmp_path):
    data = make_dataset(tmp_path / "data", train=44, val=2)
    _, held_out = divide(list_images(str(data.parent / "images" / "train")), 1.0, seed=3)
    for image in held_out:
        (data.parent / "labels" / "train" / f"{Path(image).stem}.txt").write_text("")
    with pytest.raises(ValueError, match="expected an object in the held-out images, got none in '.*held_out.txt'"):
        det_ls.YOLO("yolo11n.yaml").train(data=str(data), **short)


def test_it_is_not_searched_and_not_undone():
    with pytest.raises(ValueError, match="label_smoothing: expected one number where space= searches it, .*'adaptive'"):
        keys_of_runs({"label_smoothing": "adaptive"}, (0.0, 0.2))
    with pytest.raises(ValueError, match="smoothing: expected an epsilon that is known before a run to undo"):
        kept_shares({"label_smoothing": "adaptive"}, "best.pt", {0: "a", 1: "b"})


@pytest.mark.skipif(not torch.distributed.is_available(), reason="this PyTorch is built without distributed")
def test_two_processes_have_one_slice_and_one_epsilon(data, short, tmp_path):
    trainer = det_ls.DetectionTrainer(
        overrides={**short, "epochs": 2, "model": "yolo11n.yaml", "data": str(data), "mode": "train", "task": "detect"}
    )
    run_in_processes(trainer, tmp_path, 2)
    found = table(trainer)
    assert math.isnan(found["label_smoothing_gap"][0])
    assert not math.isnan(found["label_smoothing_gap"][1])
    train, held_out = lists(trainer.save_dir)
    assert len({*train, *held_out}) == 44
    for rank in range(2):
        records = Records(json.loads((tmp_path / f"targets-{rank}.json").read_text()))
        assert {record["epoch"] for record in records} == {0, 1}
