# SPDX-License-Identifier: AGPL-3.0-or-later
"""scripts/demo.py: a study's numbers, decision and pictures, nothing done twice, and errors before anything is done."""

from __future__ import annotations

import shlex
import shutil
import sys
from dataclasses import asdict

import demo
import pytest

from det_ls import YOLO
from det_ls.base.files import write_json
from det_ls.cli import study as command
from det_ls.data.phantom import write_phantom
from det_ls.studies import run as runs
from det_ls.studies.cell import CELL_FILE, SCHEMA
from det_ls.studies.records import Measured


class Trained:
    """An executor whose cells end at the next look with made-up numbers and an untrained model; some fail."""

    slots = 1

    def __init__(self, weights, fails=(), interrupted=False):
        self._weights, self._fails, self._interrupted, self.started, self._running = weights, fails, interrupted, [], []

    def room(self):
        return not self._running

    def start(self, job):
        self.started.append(job.task.name)
        self._running.append(job)

    def finished(self):
        if self._interrupted:
            raise KeyboardInterrupt
        ended, self._running = self._running, []
        for job in ended:
            done, cell = job.task.name not in self._fails, job.task.cell
            values = {"AP": ap(cell), "AP50": 0.5, "kept.absolute_gap": 0.1, "kept.squared_error": 0.02}
            found = asdict(Measured(values, values, values)) if done else None
            content = {"schema": SCHEMA, "hash": job.task.hash(), "cell": asdict(cell), "config": job.task.words}
            content |= {"state": "done" if done else "failed", "measured": found, "seconds": 1.0}
            content |= {"error": None if done else "train: expected a finite loss, got nan.", "curves": {}}
            best = job.folder / "train" / "weights" / "best.pt"
            best.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(self._weights, best)
            write_json(job.folder / CELL_FILE, content)
        return [(job, None) for job in ended]

    def stop(self):
        pass


def ap(cell):
    """What is made up for a cell."""
    return round(0.3 + 0.05 * (not cell.arm.stock) + 0.01 * cell.seed, 4)


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """A checkpoint of a model that nobody trained."""
    file = tmp_path_factory.mktemp("weights") / "best.pt"
    YOLO("yolo11n.yaml").save(file)
    return file


@pytest.fixture
def run(monkeypatch, weights, tmp_path):
    """A function that runs the demo in `out`, where a small phantom is drawn, and returns status and cells started."""
    monkeypatch.setattr(runs, "_LOOK", 0.0)
    write_phantom(tmp_path / "out" / "phantom", train=2, val=2)

    def start(*words, drawn=False, **how):
        if not drawn:  # pages and pictures take most of the time
            monkeypatch.setattr(command, "_write_page", lambda result: result.folder / "report.html")
            monkeypatch.setattr(demo, "draw_predictions", lambda *args: None)
        stub = Trained(weights, **how)
        monkeypatch.setattr(runs, "_executor", lambda folder, execution: stub)
        monkeypatch.setattr(sys, "argv", ["demo.py", f"out={tmp_path / 'out'}", *words])
        return demo.main(), stub.started

    return start


def test_it_ends_with_a_decision_the_numbers_of_seed_0_and_pictures(run, tmp_path, capsys):
    status, started = run("epochs=3", drawn=True)
    said, out = capsys.readouterr().out, tmp_path / "out"
    assert status == 0
    assert started == [f"seed{seed}/{arm}" for seed in (0, 1) for arm in ("stock", "redistribute_0.1")]
    assert "Labels as they are: " in said
    rows = {line.split()[0]: line.split()[1:] for line in said.splitlines() if line.startswith("label_smoothing=")}
    assert rows["label_smoothing=0"] == ["0.3000", "0.5000", "-", "-", "-", "-"]  # seed 0 of 0 and 1
    assert rows["label_smoothing=0.1"] == ["0.3500", "0.5000", "-", "-", "-", "-"]
    for file in ("predictions.png", "study/report.html", "study/pictures/reliability.png"):
        assert (out / file).is_file()
        assert str(out / file) in said
    assert "synthetic" in said.splitlines()[-1]


def test_what_is_there_is_not_repeated_and_what_failed_is_tried_again(run, capsys):
    assert run(fails=["seed1/stock", "seed0/redistribute_0.1"])[0] == 0
    assert "label_smoothing=0.1  " not in capsys.readouterr().out  # it has no numbers
    assert run() == (0, ["seed0/redistribute_0.1", "seed1/stock"])
    assert run() == (0, [])
    assert run("seeds=3")[1] == ["seed2/stock", "seed2/redistribute_0.1"]


def test_a_demo_of_which_every_run_failed_is_no_success(run, capsys):
    status, started = run("seeds=1", fails=["seed0/stock", "seed0/redistribute_0.1"])
    assert (status, len(started)) == (2, 2)
    assert (
        capsys.readouterr()
        .err.splitlines()[-1]
        .startswith("det-ls: error: study: expected a cell that finishes, got 2")
    )


def test_after_ctrl_c_the_demo_itself_goes_on(run, tmp_path, capsys):
    assert run("epochs=3", interrupted=True)[0] == 130
    again = shlex.join([sys.executable, "demo.py", f"out={tmp_path / 'out'}", "epochs=3"])
    assert capsys.readouterr().err.splitlines()[-1] == f"det-ls: interrupted; go on with: {again}"


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["epochs=0"], "epochs: expected an integer of at least 1, got 0."),
        (["seeds=0"], "seeds: expected an integer of at least 1, got 0."),
        (["out=file"], "out: expected "),
        (["epoch=3"], "epoch"),
    ],
)
def test_a_wrong_word_is_one_sentence_and_nothing_is_drawn(words, sentence, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").touch()
    monkeypatch.setattr(sys, "argv", ["demo.py", *words])
    assert demo.main() == 2
    error = capsys.readouterr().err
    assert error.startswith(f"det-ls: error: {sentence}")
    assert error.count("\n") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
