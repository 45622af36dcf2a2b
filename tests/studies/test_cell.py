# SPDX-License-Identifier: AGPL-3.0-or-later
"""A cell trains, measures and writes what came out, once; what it cannot do it records."""

from __future__ import annotations

import json
from dataclasses import asdict, replace

import pytest
import torch
from ultralytics import YOLO

from det_ls.studies.cell import CELL_FILE, RUN, SCHEMA, Task, read_cell, read_curves, run_cell
from det_ls.studies.records import Arm, Cell, Condition, State


@pytest.fixture
def task(tiny):
    words = {"data": str(tiny), "model": "yolo11n.yaml", "epochs": 1, "imgsz": 32, "batch": 4, "nbs": 4, "workers": 0}
    return Task(Cell(Condition(flip=0.4), Arm("0.1"), 3), words, train_images=4)


def test_a_cell_from_beginning_to_end(task, tmp_path):
    folder = tmp_path / "study" / task.name
    content = run_cell(folder, task, tmp_path / "study" / "data", "cpu")
    result = read_cell(folder, task)
    assert result.state == State.DONE, content["error"]
    assert {"AP", "AP50", "oLRP", "LaECE0", "DECE", "kept.recall"} <= set(result.measured.val)
    assert {"AP", "LaECE0"} <= set(result.measured.train)
    assert result.curves["epoch"] == [1.0]
    assert "label_smoothing" in result.curves or any("smoothing" in name for name in result.curves)
    assert content["noise"]["flip"] > 0
    assert content["versions"].keys() >= {"det_ls", "ultralytics", "torch"}
    assert result.config["seed"] == 3
    args = (folder / RUN / "args.yaml").read_text()
    assert "seed3_flip0.4" in args  # trained on the noisy labels

    # Killed after training: the weights are measured as they are, and the numbers are the same.
    (folder / CELL_FILE).unlink()
    stamp = (folder / RUN / "weights" / "last.pt").stat().st_mtime_ns
    run_cell(folder, task, tmp_path / "study" / "data", "cpu")
    assert (folder / RUN / "weights" / "last.pt").stat().st_mtime_ns == stamp
    assert read_cell(folder, task).measured == result.measured

    # With another config the run folder is another run's, and goes.
    other = replace(task, train={**task.train, "model": "nothing.yaml"})
    content = run_cell(folder, other, tmp_path / "study" / "data", "cpu")
    assert content["state"] == "failed"
    assert "nothing.yaml" in content["error"]
    assert not (folder / RUN).exists()
    assert read_cell(folder, task).state == State.WAITING
    assert read_cell(folder, other).error == content["error"]


def test_equal_seeds_share_initial_weights_and_data_order_whatever_the_arm(task, tmp_path):
    """At a learning rate of 0 the weights stay what they were drawn as, and batch norm averages what it saw, in order."""
    still = {**task.train, "lr0": 0.0, "warmup_epochs": 0, "optimizer": "SGD", "batch": 2, "nbs": 2, "mosaic": 1.0}
    found = {}
    for arm, seed in ((Arm("0"), 3), (Arm("0.1"), 3), (Arm("0.3", "background"), 3), (Arm("0"), 4)):
        cell = replace(task, cell=Cell(Condition(), arm, seed), train=still)
        run_cell(tmp_path / cell.name, cell, tmp_path / "data", "cpu")
        assert read_cell(tmp_path / cell.name, cell).state is State.DONE
        found[arm.name, seed] = YOLO(tmp_path / cell.name / RUN / "weights" / "last.pt").model.state_dict()
    reference = found["stock", 3]
    weights, means = ([k for k in reference if k.endswith(end)] for end in ("conv.weight", "running_mean"))
    for key in weights + means:
        for same in ("redistribute 0.1", "background 0.3"):
            assert torch.equal(reference[key], found[same, 3][key]), key
    assert any(not torch.equal(reference[key], found["stock", 4][key]) for key in weights)
    assert any(not torch.equal(reference[key], found["stock", 4][key]) for key in means)


def test_cells_of_the_same_data_can_write_the_cache_of_its_labels_at_the_same_time(task, tmp_path, monkeypatch):
    """The other cell removes the file between stock's look at it and stock's removal."""
    from ultralytics.data import dataset, utils

    class Gone(type(tmp_path)):
        def exists(self, **keys):
            there = super().exists(**keys)
            self.unlink(missing_ok=True)
            return there

    def train(folder, words, device):
        file = tmp_path / "train.cache"
        for content in ("first", "second"):
            dataset.save_dataset_cache_file("", Gone(file), {"labels": [content]}, "1")
        raise RuntimeError(utils.load_dataset_cache_file(file)["labels"][0])

    monkeypatch.setattr("det_ls.studies.cell._train", train)
    content = run_cell(tmp_path / "cell", task, tmp_path / "data", "cpu")
    assert content["error"] == "RuntimeError: second"


def test_the_config_is_what_decides_the_numbers(task):
    def with_words(**words):
        return replace(task, train={**task.train, **words})

    same = [
        with_words(device="0"),
        with_words(workers=4),
        with_words(plots=True),
        with_words(label_smoothing_schedule="constant"),
    ]
    assert {t.hash() for t in same} == {task.hash()}
    cells = [
        Cell(Condition(flip=0.3), Arm("0.1"), 3),
        Cell(Condition(flip=0.4), Arm("0.2"), 3),
        Cell(Condition(flip=0.4), Arm("0.1"), 4),
    ]
    others = [
        with_words(epochs=2),
        with_words(lr0=0.5),
        with_words(label_smoothing_schedule="linear"),
        replace(task, weights="last"),
        replace(task, train_images=5),
        *(replace(task, cell=cell) for cell in cells),
    ]
    assert len({t.hash() for t in [task, *others]}) == 1 + len(others)


def test_a_default_that_only_another_version_has_leaves_a_cell_finished(task, tmp_path, monkeypatch):
    import ultralytics.utils

    content = {"hash": task.hash(), "resolved": task.resolved(), "config": dict(task.words), "seconds": 1.0}
    content |= {"state": "failed", "error": "no.", "measured": None, "cell": asdict(task.cell), "schema": SCHEMA}
    (tmp_path / CELL_FILE).write_text(json.dumps(content))
    monkeypatch.setitem(ultralytics.utils.DEFAULT_CFG_DICT, "new_key", 0.5)
    assert task.hash() != content["hash"]
    assert read_cell(tmp_path, task).state is State.FAILED
    for changed in (replace(task, train={**task.train, "new_key": 0.7}), replace(task, train_images=5)):
        assert read_cell(tmp_path, changed).state is State.WAITING
    monkeypatch.setitem(ultralytics.utils.DEFAULT_CFG_DICT, "box", 99.0)
    assert read_cell(tmp_path, task).state is State.WAITING


def test_the_numbers_of_another_config_are_moved_aside(task, tmp_path, monkeypatch):
    monkeypatch.setattr("det_ls.studies.cell._do", lambda *args: (_ for _ in ()).throw(RuntimeError("no.")))
    run_cell(tmp_path, task, tmp_path / "data", "cpu")
    before = (tmp_path / CELL_FILE).read_text()
    run_cell(tmp_path, replace(task, train={**task.train, "epochs": 2}), tmp_path / "data", "cpu")
    (aside,) = tmp_path.glob("cell-*.json")
    assert aside.read_text() == before
    assert (tmp_path / CELL_FILE).is_file()


def test_stock_takes_no_key_of_label_smoothing(task):
    stock = replace(
        task, cell=Cell(Condition(), Arm("0"), 0), train={**task.train, "label_smoothing_schedule": "linear"}
    )
    assert not any(key.startswith("label_smoothing") for key in stock.words)


def test_a_task_survives_its_file(task):
    assert Task.from_dict(json.loads(json.dumps(task.to_dict()))) == task


def test_curves_end_where_a_row_is_not_complete(tmp_path):
    file = tmp_path / "results.csv"
    assert read_curves(file) == {}
    file.write_text("epoch, loss\n1, 0.5\n2, nan\n3,\n4, 1\n")
    assert read_curves(file) == {"epoch": [1.0, 2.0], "loss": [0.5, None]}
