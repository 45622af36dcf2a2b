# SPDX-License-Identifier: AGPL-3.0-or-later
"""No fault of a disk or a kill destroys a checkpoint, and a run goes on from one as if nothing had happened."""

from __future__ import annotations

import errno
import os
import shutil
from pathlib import Path

import pytest
import torch
import ultralytics
from probe import watch_training
from ultralytics.utils.patches import torch_load

import det_ls
from det_ls.cli import main as cli
from det_ls.training.checkpoints import trim_results, write_checkpoint

KEYS = {"label_smoothing": 0.3, "label_smoothing_schedule": "linear"}


class Killed(BaseException):
    """As good as a SIGKILL for what is on the disk: nothing that catches exceptions sees it."""


def train_until(event: str, epoch: int, data: Path, quick: dict, **more):
    """Train for three epochs, killed at the first event of an epoch."""
    model = det_ls.YOLO("yolo11n.yaml")

    def kill(trainer) -> None:
        if trainer.epoch == epoch:
            raise Killed

    model.add_callback(event, kill)
    with pytest.raises(Killed):
        model.train(data=str(data), **KEYS, **{**quick, "epochs": 3, **more})
    return model.trainer


def epochs_in(csv: Path) -> list[int]:
    return [int(line.split(",")[0]) for line in csv.read_text().splitlines()[1:]]


def full_disk(monkeypatch, when) -> None:
    """Let writing fail half-way as on a full disk, for the files that `when` is true of."""
    sync = os.fsync

    def fsync(handle: int) -> None:
        name = os.readlink(f"/proc/self/fd/{handle}")
        if when(Path(name)):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        sync(handle)

    monkeypatch.setattr("os.fsync", fsync)


def test_a_full_disk_leaves_the_checkpoint_before_and_says_how_to_go_on(tiny, quick, monkeypatch):
    seen = []

    def fill(trainer) -> None:
        if trainer.epoch == 1:
            seen.append(trainer.last.read_bytes())
            full_disk(monkeypatch, lambda name: name.name.startswith(".last.pt"))

    model = det_ls.YOLO("yolo11n.yaml")
    model.add_callback("on_train_epoch_start", fill)
    with pytest.raises(OSError, match="No space left on device'; the one before it is kept: make room and go on with"):
        model.train(data=str(tiny), **KEYS, **{**quick, "epochs": 3})
    last = model.trainer.last
    assert last.read_bytes() == seen[0]
    assert sorted(f.name for f in last.parent.iterdir()) == ["best.pt", "last.pt"]  # no half-written file
    monkeypatch.undo()
    with watch_training() as records:
        assert cli.main(["train", "resume", f"model={last}"]) == 0
    assert records.epsilons(1) == pytest.approx([0.15] * len(records.epsilons(1)), abs=5e-3)
    assert epochs_in(model.trainer.csv) == [1, 2, 3]


def test_a_full_disk_in_the_end_costs_only_the_smaller_copy(tiny, quick, monkeypatch, log):
    model = det_ls.YOLO("yolo11n.yaml")
    strip = ultralytics.utils.torch_utils.strip_optimizer

    def fails(f, s="", updates=None):
        Path(s).write_bytes(b"half of a checkpoint")
        raise RuntimeError("[enforce fail at inline_container.cc:664] . unexpected pos 64 vs 0")

    monkeypatch.setattr("ultralytics.engine.trainer.strip_optimizer", fails)
    model.train(data=str(tiny), **KEYS, **quick)
    assert sum("without the optimizer could not be written" in line for line in log) == 2
    for name in ("last.pt", "best.pt"):
        assert torch_load(model.trainer.wdir / name, map_location="cpu")["optimizer"] is not None
    assert sorted(f.name for f in model.trainer.wdir.iterdir()) == ["best.pt", "last.pt"]
    monkeypatch.setattr("ultralytics.engine.trainer.strip_optimizer", strip)
    with pytest.raises(ValueError, match="whose 1 epochs are trained: only their last validation is missing"):
        det_ls.YOLO(model.trainer.last).train(resume=True)


def test_a_kill_while_a_checkpoint_is_stripped_leaves_it_whole(tiny, quick, monkeypatch):
    def dies(f, s="", updates=None):
        Path(s or f).write_bytes(b"half of a checkpoint")
        raise Killed

    monkeypatch.setattr("ultralytics.engine.trainer.strip_optimizer", dies)
    model = det_ls.YOLO("yolo11n.yaml")
    with pytest.raises(Killed):
        model.train(data=str(tiny), **KEYS, **quick)
    for name in ("last.pt", "best.pt"):
        assert torch_load(model.trainer.wdir / name, map_location="cpu")["epoch"] == 0


def test_a_row_of_an_epoch_without_checkpoint_is_not_there_twice(tiny, quick, monkeypatch):
    monkeypatch.setattr("det_ls.training.trainer.kept_whole", dies_in_epoch(1))
    model = det_ls.YOLO("yolo11n.yaml")
    with pytest.raises(Killed):
        model.train(data=str(tiny), **KEYS, **{**quick, "epochs": 3})
    csv = model.trainer.csv
    assert epochs_in(csv) == [1, 2]
    csv.write_text(csv.read_text() + "3,0.5,0.")  # and a torn one
    monkeypatch.undo()
    again = det_ls.YOLO(model.trainer.last)
    again.train(resume=True)
    assert epochs_in(csv) == [1, 2, 3]
    assert len({line.count(",") for line in csv.read_text().splitlines()}) == 1


def dies_in_epoch(epoch: int):
    from det_ls.training.checkpoints import kept_whole

    calls = []

    def kept():
        calls.append(None)
        if len(calls) == epoch + 1:
            raise Killed
        return kept_whole()

    return kept


def test_a_best_checkpoint_that_a_kill_prevented_is_written_on_resume(tiny, quick):
    trainer = train_until("on_train_batch_start", 1, tiny, quick)
    content = trainer.last.read_bytes()
    assert trainer.best.read_bytes() == content  # the first epoch is the best so far
    trainer.best.unlink()
    (trainer.wdir / ".last.pt.1.partial").write_bytes(b"half of a checkpoint")
    seen = []
    model = det_ls.YOLO(trainer.last)
    model.add_callback("on_train_start", lambda t: seen.append(sorted(f.name for f in t.wdir.iterdir())))
    model.add_callback("on_train_start", lambda t: seen.append(t.best.read_bytes()))
    model.train(resume=True)
    assert seen == [["best.pt", "last.pt"], content]


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("epoch,a\n1,0\n2,0\n", "epoch,a\n1,0\n2,0\n"),
        ("epoch,a\n1,0\n2,0\n3,0\n", "epoch,a\n1,0\n2,0\n"),
        ("epoch,a\n1,0\n2,0\n2,1\n3", "epoch,a\n1,0\n2,1\n"),
        ("epoch,a\n1,0\n2", "epoch,a\n1,0\n"),
        ('epoch,"a, b"\n1,0\nnonsense\n\n', 'epoch,"a, b"\n1,0\n'),
    ],
)
def test_trimming_keeps_the_last_complete_row_of_each_epoch(before, after, tmp_path):
    file = tmp_path / "results.csv"
    file.write_text(before)
    trim_results(file, 2)
    assert file.read_text() == after


def test_an_empty_results_file_goes_so_that_the_header_is_written_again(tmp_path):
    file = tmp_path / "results.csv"
    file.write_text("")
    trim_results(file, 1)
    assert not file.exists()


def test_a_checkpoint_replaces_a_link_and_does_not_follow_it(tmp_path):
    (tmp_path / "mine.txt").write_text("keep")
    (tmp_path / "last.pt").symlink_to(tmp_path / "mine.txt")
    (tmp_path / f".last.pt.{os.getpid()}.partial").symlink_to(tmp_path / "mine.txt")
    write_checkpoint(tmp_path / "last.pt", b"weights")
    assert (tmp_path / "mine.txt").read_text() == "keep"
    assert (tmp_path / "last.pt").read_bytes() == b"weights"
    assert not (tmp_path / "last.pt").is_symlink()


def test_without_smoothing_a_resume_gives_the_weights_of_stocks_own_resume_to_the_bit(tiny, quick):
    """What a resume loses is stock's: it goes on from half-precision averages, with images in another order."""
    weights = []
    for name in ("ours", "stock"):
        make = det_ls.YOLO if name == "ours" else ultralytics.YOLO
        model = make("yolo11n.yaml")

        def kill(trainer) -> None:
            if trainer.epoch == 1:
                raise Killed

        model.add_callback("on_train_batch_end", kill)
        with pytest.raises(Killed):
            model.train(data=str(tiny), **{**quick, "epochs": 3, "lr0": 0.01, "name": name})
        again = make(model.trainer.last)
        again.train(resume=True)
        weights.append(torch_load(again.trainer.last, map_location="cpu")["model"].state_dict())
    assert all(torch.equal(weights[0][key], weights[1][key]) for key in weights[1])


def test_a_resume_is_the_same_each_time(tiny, quick, tmp_path):
    trainer = train_until("on_train_batch_end", 1, tiny, {**quick, "lr0": 0.01})
    copy = tmp_path / "copy"
    shutil.copytree(trainer.save_dir, copy)
    weights = []
    for _ in range(2):
        shutil.rmtree(trainer.save_dir)
        shutil.copytree(copy, trainer.save_dir)
        model = det_ls.YOLO(trainer.last)
        model.train(resume=True)
        weights.append(torch_load(model.trainer.last, map_location="cpu")["model"].state_dict())
    assert all(torch.equal(weights[0][key], weights[1][key]) for key in weights[1])
