# SPDX-License-Identifier: AGPL-3.0-or-later
"""What a study runs, in which order, and what it does when something goes wrong; the cells are stubs."""

from __future__ import annotations

import csv
import json
import os
from dataclasses import asdict
from pathlib import Path

import pytest
import ultralytics

from det_ls.base.errors import DetLsError, ExistingFileError
from det_ls.base.folders import held_folder
from det_ls.studies import read_study, study
from det_ls.studies import run as runs
from det_ls.studies.cell import CELL_FILE, SCHEMA
from det_ls.studies.grid import cell_name
from det_ls.studies.records import Measured, State


class StubExecutor:
    """Ends each cell at the next look, with numbers that follow from what it is."""

    def __init__(self, slots=1, fails=(), dies=(), interrupt_at=None, clock=None):
        self.slots, self._fails, self._dies = slots, fails, dies
        self._interrupt_at, self._clock = interrupt_at, clock
        self.started, self.stopped, self._running = [], 0, []

    def room(self):
        return len(self._running) < self.slots

    def start(self, job):
        self.started.append(job.task.name)
        self._running.append(job)

    def finished(self):
        if self._interrupt_at is not None and len(self.started) > self._interrupt_at:
            raise KeyboardInterrupt
        ended, self._running = self._running, []
        if ended and self._clock is not None:
            self._clock[0] += 60.0
        return [(job, self._end(job)) for job in ended]

    def stop(self):
        self.stopped += 1

    def _end(self, job):
        name = job.task.name
        if name in self._dies:
            return "cell: expected to be trained, but its process was killed by signal 9."
        failed = name in self._fails
        measured = Measured({"AP": job.task.cell.seed + 0.25}, {"AP": 1.0}, {"kept.absolute_gap": 0.1})
        content = {
            "schema": SCHEMA,
            "hash": job.task.hash(),
            "cell": asdict(job.task.cell),
            "config": job.task.words,
            "state": "failed" if failed else "done",
            "error": "data: expected labels, got none." if failed else None,
            "measured": None if failed else asdict(measured),
            "seconds": 60.0,
            "curves": {"epoch": [1.0]},
        }
        job.folder.mkdir(parents=True, exist_ok=True)
        (job.folder / CELL_FILE).write_text(json.dumps(content))
        return None


@pytest.fixture
def run_stubs(monkeypatch, tiny, tmp_path):
    """A function that runs a study of stubs, and returns its result and the executor."""
    monkeypatch.setattr(runs, "_LOOK", 0.0)
    words = {"data": str(tiny), "model": "yolo11n.yaml", "epochs": 2, "save_dir": tmp_path / "study", "seeds": 2}

    def run(stub=None, **changed):
        stub = stub or StubExecutor()
        monkeypatch.setattr(runs, "_executor", lambda folder, execution: stub)
        keys = changed if {"resume", "report"} & set(changed) else {**words, **changed}
        return study(**keys), stub

    return run


def test_cells_run_seed_by_seed_and_their_numbers_come_back(run_stubs, tmp_path):
    result, executor = run_stubs(label_noise="0,0.3")
    assert executor.started == [
        f"seed{seed}/{arm}{noise}"
        for seed in (0, 1)
        for noise in ("", "_flip0.3")
        for arm in ("stock", "redistribute_0.1")
    ]
    assert executor.stopped == 1
    assert not result.missing
    assert [r.measured.val["AP"] for r in result.results] == [0.25] * 4 + [1.25] * 4
    with (tmp_path / "study" / "cells.csv").open() as file:
        table = list(csv.DictReader(file))
    assert [(row["arm"], int(row["seed"]), float(row["flip"])) for row in table] == [
        (r.cell.arm.name, r.cell.seed, r.cell.condition.flip) for r in result.results
    ]
    assert [float(row["val.AP"]) for row in table] == [row["val.AP"] for row in result.rows()]
    frame = result.to_dataframe("polars")
    assert frame["arm"].to_list()[:2] == ["stock", "redistribute 0.1"]


def test_a_cell_that_fails_leaves_the_others(run_stubs):
    executor = StubExecutor(fails=["seed0/redistribute_0.1"], dies=["seed1/stock"])
    result, _ = run_stubs(executor)
    assert len(executor.started) == 4
    assert [r.state for r in result.results] == [State.DONE, State.FAILED, State.FAILED, State.DONE]
    assert [r.error for r in result.failed] == [
        "data: expected labels, got none.",
        "cell: expected to be trained, but its process was killed by signal 9.",
    ]
    assert read_study(result.folder).results == result.results


def test_on_resume_the_finished_are_kept_and_the_failed_tried_again(run_stubs, tmp_path):
    run_stubs(StubExecutor(fails=["seed0/redistribute_0.1"]))
    result, executor = run_stubs(resume=tmp_path / "study")
    assert executor.started == ["seed0/redistribute_0.1"]
    assert len(result.done) == 4
    result, executor = run_stubs(resume=str(tmp_path / "study"), seeds=3)
    assert executor.started == ["seed2/stock", "seed2/redistribute_0.1"]
    assert len(result.done) == 6
    _, executor = run_stubs(report=tmp_path / "study")
    assert executor.started == []


def test_only_cells_of_another_config_run_again(run_stubs, tmp_path):
    run_stubs()
    _, executor = run_stubs(exist_ok=True)
    assert executor.started == []
    _, executor = run_stubs(exist_ok=True, device="cpu", plots=True)  # where, and pictures: the same numbers
    assert executor.started == []
    _, executor = run_stubs(exist_ok=True, label_smoothing="0,0.2")
    assert executor.started == ["seed0/redistribute_0.2", "seed1/redistribute_0.2"]
    _, executor = run_stubs(exist_ok=True, epochs=3)
    assert len(executor.started) == 4


def test_a_study_is_not_overwritten_silently(run_stubs, tmp_path):
    run_stubs()
    before = {f: f.read_bytes() for f in (tmp_path / "study").rglob("*") if f.is_file()}
    with pytest.raises(ExistingFileError, match=r"study\.json"):
        run_stubs(epochs=3)
    assert {f: f.read_bytes() for f in (tmp_path / "study").rglob("*") if f.is_file()} == before


def test_two_processes_do_not_share_a_folder(run_stubs, tmp_path):
    run_stubs()
    with held_folder(tmp_path / "study"), pytest.raises(ExistingFileError, match="another run is at work"):
        run_stubs(resume=tmp_path / "study")


@pytest.mark.parametrize("device", ["0,1", "cuda:1", 3])
def test_a_gpu_that_is_not_there_is_said_before_the_folder_is_a_study(tiny, monkeypatch, tmp_path, device):
    monkeypatch.setattr("torch.cuda.device_count", lambda: 1)
    with pytest.raises(DetLsError, match="device: expected GPUs of this machine, which has only 0, got"):
        study(tiny, "yolo11n.yaml", device=device, seeds=1, epochs=1, save_dir=tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_ctrl_c_stops_what_runs_and_keeps_what_is_done(run_stubs, tmp_path):
    executor = StubExecutor(interrupt_at=2)
    with pytest.raises(KeyboardInterrupt):
        run_stubs(executor)
    assert executor.stopped == 1
    result = read_study(tmp_path / "study")
    assert [r.state for r in result.results] == [State.DONE] * 2 + [State.WAITING] * 2
    states = [cell["state"] for cell in json.loads((tmp_path / "study" / "cells.json").read_text())]
    assert states == ["done"] * 2 + ["waiting"] * 2
    result, executor = run_stubs(resume=tmp_path / "study")
    assert executor.started == ["seed1/stock", "seed1/redistribute_0.1"]


def test_a_budget_ends_with_whole_seeds(run_stubs, monkeypatch, tmp_path):
    clock = [0.0]
    monkeypatch.setattr(runs.time, "monotonic", lambda: clock[0])
    executor = StubExecutor(clock=clock)  # a minute a cell, two cells a seed: a third seed would end after 6 minutes
    result, _ = run_stubs(executor, seeds=5, budget="5.5m")
    assert [cell.seed for cell in result.done] == [0, 0, 1, 1]
    assert result.cut
    assert cell_name(result.missing[0]) == "seed2/stock"
    clock[0] = 0.0
    result, _ = run_stubs(StubExecutor(clock=clock), resume=tmp_path / "study", budget="1h")
    assert len(result.done) == 10
    assert not result.cut


def test_a_budget_ends_with_whole_seeds_where_cells_run_side_by_side(run_stubs, monkeypatch):
    clock = [0.0]
    monkeypatch.setattr(runs.time, "monotonic", lambda: clock[0])
    executor = StubExecutor(slots=3, clock=clock)  # of three cells at once the third would begin a second seed
    result, _ = run_stubs(executor, seeds=3, budget="90s")
    assert [cell.seed for cell in result.done] == [0, 0]
    assert result.cut


def test_resuming_goes_on_with_the_same_devices(run_stubs, monkeypatch, tmp_path):
    run_stubs(device="0,1", jobs=2, budget="1h")
    used = []
    monkeypatch.setattr(runs, "_executor", lambda folder, execution: used.append(execution) or StubExecutor())
    study(resume=tmp_path / "study", jobs=1)
    assert (used[0].devices, used[0].jobs, used[0].budget) == (("0", "1"), 1, None)


def test_a_broken_cell_json_is_run_again(run_stubs, tmp_path):
    run_stubs()
    (tmp_path / "study" / "seed0" / "stock" / CELL_FILE).write_text("{")
    with pytest.raises(DetLsError, match=r"cell\.json"):
        run_stubs(report=tmp_path / "study")
    _, executor = run_stubs(resume=tmp_path / "study")
    assert executor.started == ["seed0/stock"]


def test_progress_is_told(run_stubs):
    told = []
    run_stubs(progress=told.append)
    counts = [sum(r.state == State.DONE for r in p.results) for p in told]
    assert counts == sorted(counts)
    assert counts[-1] == 4
    assert any(p.seconds_left == 180 for p in told)  # three cells of a minute


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ({"data": None}, "data: expected data="),
        ({"model": "yolo11n-seg.yaml"}, "model: expected a detection model"),
        ({"model": "nothing.yaml"}, "model: expected a model"),
        ({"data": "nothing.yaml"}, "data: expected a data set"),
        ({"project": "x"}, "project: expected save_dir= .in a study"),
        ({"seed": 1}, "seed: expected seeds= .in a study"),
        ({"epoch": 1}, "expected training keys of yolo"),
        ({"epochs": "many"}, "expected training keys that fit"),
        ({"label_smoothing": "0,2"}, "label_smoothing: expected"),
        ({"label_smoothing_mode": "other"}, "label_smoothing_mode: expected one of"),
        ({"weights": "first"}, "weights: expected one of best, last"),
        ({"executor": "slurm"}, "executor: expected one of local, ray"),
        ({"address": "auto"}, "address: expected executor=ray"),
        ({"budget": "soon"}, "budget: expected a time"),
        ({"jobs": 0}, "jobs: expected an integer"),
        ({"train_images": -1}, "train_images: expected an integer"),
        ({"resume": "nowhere"}, "resume: expected the folder of a study"),
        ({"report": "nowhere"}, "report: expected the folder of a study"),
        ({"resume": "nowhere", "epochs": 3}, "epochs: expected no such key with resume"),
    ],
)
def test_what_does_not_fit_is_said_before_any_work(run_stubs, tmp_path, words, sentence):
    with pytest.raises(DetLsError, match=sentence):
        run_stubs(**words)
    assert not (tmp_path / "study").exists()


def test_data_may_differ_by_seed(run_stubs, tiny, tmp_path):
    for seed in (0, 1):
        (tmp_path / f"set_{seed}.yaml").write_text(tiny.read_text())
    result, _ = run_stubs(data=str(tmp_path / "set_{seed}.yaml"))
    assert [r.config["data"][-10:] for r in result.results] == ["set_0.yaml"] * 2 + ["set_1.yaml"] * 2


@pytest.fixture
def project(run_stubs, tiny, tmp_path, monkeypatch):
    """The working directory of a finished study of relative paths in runs/mine, left for another one."""
    folder, elsewhere = tmp_path / "project", tmp_path / "elsewhere"
    (folder / "sets").mkdir(parents=True)
    elsewhere.mkdir()
    for seed in (0, 1, 2):
        (folder / "sets" / f"set_{seed}.yaml").write_text(tiny.read_text())
    model = Path(ultralytics.__file__).parent / "cfg" / "models" / "11" / "yolo11.yaml"
    (folder / "yolo11n-mine.yaml").write_text(model.read_text())
    (folder / "table.csv").write_text(",red,green,blue\nred,0,1,1\ngreen,1,0,1\nblue,1,1,0\n")
    monkeypatch.chdir(folder)
    words = {"model": "yolo11n-mine.yaml", "save_dir": "runs/mine"}
    run_stubs(data="sets/set_{seed}.yaml", label_smoothing_similarity="table.csv", **words)
    monkeypatch.chdir(elsewhere)
    return folder


NEW = ["seed2/stock", "seed2/redistribute_0.1"]


def test_a_study_of_relative_paths_is_gone_on_with_and_read_from_anywhere(run_stubs, project):
    here = os.getcwd()
    result, stub = run_stubs(resume="../project/runs/mine", seeds=3)
    assert stub.started == NEW
    assert len(result.done) == 6
    assert str(result.folder) == "../project/runs/mine"  # as it was named, from where it was named
    assert os.getcwd() == here
    assert not os.listdir()
    assert read_study(result.folder).done == result.done
    assert run_stubs(report="../project/runs/mine")[0].done == result.done


def test_a_study_in_its_project_names_no_machine_and_both_may_move(run_stubs, project):
    study_file = project / "runs" / "mine" / "study.json"
    assert str(project.parent) not in study_file.read_text()
    assert json.loads(study_file.read_text())["where"] == "../.."
    moved = project.rename(project.with_name("moved"))
    result, stub = run_stubs(resume=moved / "runs" / "mine", seeds=3)
    assert stub.started == NEW
    assert len(result.done) == 6


def test_a_study_that_was_moved_without_its_project_is_gone_on_with_in_the_project(run_stubs, project, monkeypatch):
    moved = (project / "runs" / "mine").rename(project.parent / "archived")
    with pytest.raises(
        DetLsError, match=r"^resume: expected to find what .*, or from here, got neither \(model: .*\)\.$"
    ):
        run_stubs(resume=moved, seeds=3)
    monkeypatch.chdir(project)
    assert run_stubs(resume=moved, seeds=3)[1].started == NEW
    monkeypatch.chdir("/")
    assert len(run_stubs(report=moved)[0].done) == 6  # it notes where it was gone on with


def test_a_study_that_did_not_note_where_it_was_begun_says_so_and_goes_on_there(run_stubs, project, monkeypatch):
    study_file = project / "runs" / "mine" / "study.json"
    old = {key: value for key, value in json.loads(study_file.read_text()).items() if key != "where"}
    study_file.write_text(json.dumps(old))
    for name, words in (("resume", {"seeds": 3}), ("report", {})):
        with pytest.raises(
            FileNotFoundError, match=f"^{name}: expected .* begun, which its study.json does not say, or"
        ):
            run_stubs(**{name: study_file.parent}, **words)
    assert json.loads(study_file.read_text()) == old
    monkeypatch.chdir(project)
    assert run_stubs(resume="runs/mine", seeds=3)[1].started == NEW
    assert json.loads(study_file.read_text())["where"] == "../.."


def test_what_an_absolute_path_names_is_missed_by_its_own_name(run_stubs, tiny, tmp_path):
    data = tmp_path / "data.yaml"
    data.write_text(tiny.read_text())
    run_stubs(data=str(data))
    data.unlink()
    with pytest.raises(DetLsError, match="^data: expected a data set, got"):
        run_stubs(resume=tmp_path / "study", seeds=3)
