# SPDX-License-Identifier: AGPL-3.0-or-later
"""``det-ls study`` on the command line: its words, its errors, and what Ctrl-C prints."""

from __future__ import annotations

import functools
from dataclasses import asdict

import pytest

from det_ls.base.files import write_json
from det_ls.cli.main import main
from det_ls.studies import run as runs
from det_ls.studies.cell import CELL_FILE
from det_ls.studies.plan import Plan
from det_ls.studies.result import STUDY_FILE


@pytest.fixture
def given(monkeypatch):
    """What the command hands to the study, which is not run."""
    found = {}

    @functools.wraps(runs.study)  # whose keys the command knows
    def study(**arguments):
        found.update(arguments)
        if "save_dir" in arguments:
            arguments["save_dir"].mkdir(parents=True)
            (arguments["save_dir"] / "study.json").touch()
        raise KeyboardInterrupt

    monkeypatch.setattr(runs, "study", study)
    return found


def test_words_reach_the_study_and_ctrl_c_says_how_to_go_on(given, monkeypatch, tmp_path, capsys):
    monkeypatch.chdir(tmp_path)
    words = "study data=sets/brain-tumor.yaml model=yolo26n.yaml epochs=3 label_smoothing=0,0.1 label_noise=0,0.3 device=0,1"
    assert main([*words.split(), "label_smoothing_mode=redistribute,background", "budget=3h"]) == 130
    assert "go on with: det-ls study resume=runs/study/brain-tumor" in capsys.readouterr().err
    assert given["label_smoothing"] == (0, 0.1)
    assert given["label_smoothing_mode"] == "redistribute,background"
    assert given["epochs"] == 3
    assert str(given["save_dir"]) == "runs/study/brain-tumor"


def test_a_cfg_file_gives_training_keys(given, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "cfg.yaml").write_text("epochs: 7\nimgsz: 32\n")
    main(["study", f"cfg={tmp_path / 'cfg.yaml'}", "data=a.yaml", "model=b.yaml", "imgsz=64"])
    assert (given["epochs"], given["imgsz"], "cfg" in given) == (7, 64, False)


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (
            "study lable_smoothing=0",
            "lable_smoothing: expected a key of det-ls study or of det-ls train, got an unknown",
        ),
        ("study seed", "expected key=value"),
        ("study model=yolo11n.yaml", "data: expected data=... for a study, got none."),
        ("study task=segment data=a.yaml model=b.yaml", "task: expected no such key: a study measures detection"),
        ("segment study data=a.yaml model=b.yaml", "task: expected no such key: a study measures detection"),
        ("study resume=nowhere", "resume: expected the folder of a study, got 'nowhere'"),
        ("study report=nowhere seeds=3", "report: expected the folder of a study, got 'nowhere'"),
    ],
)
def test_errors_are_one_sentence(words, sentence, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(words.split()) == 2
    error = capsys.readouterr().err
    assert sentence in error
    assert error.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_help_and_completion_know_the_keys(capsys):
    main(["study", "--help"])
    text = capsys.readouterr().out
    for key in ("label_noise=", "seeds=", "budget=", "resume=", "executor="):
        assert key in text
    main(["completion", "bash"])
    assert "label_noise=" in capsys.readouterr().out


def test_report_reads_a_study_and_writes_its_page(tiny, tmp_path, capsys):
    plan = Plan(
        {"seeds": [0, 1, 2], "label_smoothing": [0, 0.1]}, {"data": str(tiny), "model": "yolo11n.yaml", "epochs": 2}
    )
    write_json(tmp_path / STUDY_FILE, plan.to_dict())
    for task in plan.tasks[:-1]:
        gap = 0.05 + 0.001 * task.cell.seed + 0.1 * task.cell.arm.stock
        values = {"AP": 0.4 + 0.01 * task.cell.seed, "kept.absolute_gap": gap, "kept.squared_error": gap**2}
        measured = {"val": values, "train": values, "platt": {**values, "kept.absolute_gap": 0.12}, "reliability": {}}
        content = {"schema": 1, "hash": task.hash(), "cell": asdict(task.cell), "config": task.words}
        (tmp_path / task.name).mkdir(parents=True)
        write_json(tmp_path / task.name / CELL_FILE, {**content, "state": "done", "measured": measured})
    assert main(["study", f"report={tmp_path}"]) == 0
    printed = capsys.readouterr().out
    assert f"Missing: seed2/redistribute_0.1. Go on with: det-ls study resume={tmp_path}" in printed
    assert "Labels as they are: " in printed
    page = (tmp_path / "report.html").read_text()
    assert f"det-ls study data={tiny} model=yolo11n.yaml epochs=2 seeds=0,1,2 label_smoothing=0,0.1" in page


class Ending:
    """An executor whose cells end at the next look: those that are named are done, the others fail."""

    slots = 1

    def __init__(self, done=()):
        self._done, self._running = done, []

    def room(self):
        return not self._running

    def start(self, job):
        self._running.append(job)

    def finished(self):
        ended, self._running = self._running, []
        for job in ended:
            done = job.task.name in self._done
            values = {"AP": 0.4, "kept.absolute_gap": 0.1, "kept.squared_error": 0.02}
            measured = {"val": values, "train": values, "platt": values, "reliability": {}} if done else None
            content = {"schema": 1, "hash": job.task.hash(), "cell": asdict(job.task.cell), "config": job.task.words}
            content |= {"state": "done" if done else "failed", "measured": measured, "seconds": 1.0}
            job.folder.mkdir(parents=True, exist_ok=True)
            write_json(
                job.folder / CELL_FILE, {**content, "error": None if done else "data: expected a cat, got a dog."}
            )
        return [(job, None) for job in ended]

    def stop(self):
        pass


def test_a_study_of_which_every_cell_failed_is_no_success(tiny, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(runs, "_LOOK", 0.0)
    folder, page = tmp_path / "study", tmp_path / "study" / "report.html"
    begin = ["study", f"data={tiny}", "model=yolo11n.yaml", "epochs=1", "seeds=1", "label_smoothing=0,0.1"]
    for words in ([*begin, f"save_dir={folder}"], ["study", f"resume={folder}"]):
        monkeypatch.setattr(runs, "_executor", lambda *args: Ending())
        page.unlink(missing_ok=True)
        assert main(words) == 2
        said = capsys.readouterr()
        error = "study: expected a cell that finishes, got 2 that failed, the first one (seed0/stock) with: data: "
        assert said.err.splitlines()[-1] == f"det-ls: error: {error}expected a cat, got a dog."
        assert "seed0/redistribute_0.1 failed: data: expected a cat" in said.out
        assert page.is_file()
    assert main(["study", f"report={folder}"]) == 0
    monkeypatch.setattr(runs, "_executor", lambda *args: Ending(["seed0/stock"]))
    assert main(["study", f"resume={folder}"]) == 0
    assert "seed0/redistribute_0.1 failed: data: expected a cat" in capsys.readouterr().out
