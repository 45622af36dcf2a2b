# SPDX-License-Identifier: AGPL-3.0-or-later
"""The folder of a result: its own from the start, filled with all of it or none."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from det_ls.base.folders import claim_folder
from det_ls.cli import main as cli

ROOT = Path(__file__).parents[2]
QUICK = ["bootstrap=0", "simulations=0"]


@pytest.fixture
def words(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    box = {"image_id": 1, "category_id": 1, "bbox": [1, 1, 5, 5]}
    gt = {"images": [{"id": 1}], "annotations": [{**box, "id": 1}], "categories": [{"id": 1, "name": "cat"}]}
    (tmp_path / "gt.json").write_text(json.dumps(gt))
    (tmp_path / "dt.json").write_text(json.dumps([{**box, "score": 0.9}]))
    return ["metrics", f"annotations={tmp_path / 'gt.json'}", f"predictions={tmp_path / 'dt.json'}", *QUICK]


def content(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def no_work(monkeypatch):
    monkeypatch.setattr("det_ls.evaluation.evaluate.read_sources", lambda *a, **k: pytest.fail("the work began"))


@pytest.mark.parametrize("code", [errno.EROFS, errno.ENOSPC])
def test_a_place_that_cannot_be_written_to_is_one_sentence_before_the_work(code, words, monkeypatch, capsys):
    def refuse(*args, **kwargs):
        raise OSError(code, os.strerror(code))

    no_work(monkeypatch)
    monkeypatch.setattr("pathlib.Path.write_bytes", refuse)
    assert cli.main([*words, "save_dir=out"]) == 2
    error = capsys.readouterr().err
    assert error.startswith("det-ls: error: save_dir: expected a folder that can be written to, got 'out', ")
    assert not Path("out").exists()


@pytest.mark.parametrize("name", ["gt.json/out", "x" * 300])
def test_an_impossible_place_is_one_sentence_before_the_work(name, words, monkeypatch, capsys):
    no_work(monkeypatch)
    assert cli.main([*words, f"save_dir={name}"]) == 2
    assert capsys.readouterr().err.startswith("det-ls: error: save_dir: expected a folder")


def test_a_report_that_fails_leaves_the_old_result_whole(words, monkeypatch):
    assert cli.main([*words, "save_dir=out"]) == 0
    before = content(Path("out"))

    def fail(*args, **kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr("det_ls.report.outputs.write_report", fail)
    assert cli.main([*words, "save_dir=out", "exist_ok=True"]) == 130
    assert cli.main([*words, "save_dir=new"]) == 130
    assert content(Path("out")) == before
    assert not Path("new").exists()


def test_exist_ok_replaces_the_whole_result_and_keeps_other_files(words):
    Path("out").mkdir()
    Path("out", "ground_truth.json").write_text("of an older result")
    Path("out", "notes.txt").write_text("mine")
    assert cli.main([*words, "save_dir=out", "exist_ok=True"]) == 0
    assert not Path("out", "ground_truth.json").exists()
    assert Path("out", "notes.txt").read_text() == "mine"
    assert Path("out", "report.html").is_file()


def test_a_folder_at_work_is_refused_and_the_next_free_one_is_found(words, monkeypatch, tmp_path, capsys):
    taken, free = tmp_path / "metrics", tmp_path / "metrics2"
    folders = iter([taken, free])
    monkeypatch.setattr("det_ls.cli.results_folder._next_folder", lambda mode, task: next(folders))
    with claim_folder(taken):
        assert cli.main([*words, f"save_dir={taken}"]) == 2
        assert "where another run is at work" in capsys.readouterr().err
        assert cli.main(words) == 0
    assert (free / "metrics.json").is_file()


def test_parallel_runs_share_no_folder(words, tmp_path):
    runs = [
        subprocess.Popen(
            [sys.executable, "-m", "det_ls", *words, f"save_dir={tmp_path / 'out'}"], cwd=ROOT, stderr=-1, stdout=-1
        )
        for _ in range(2)
    ]
    done = [(run.communicate(), run.returncode) for run in runs]
    assert sorted(status for _, status in done) == [0, 2]
    [error] = [err.decode() for (_, err), status in done if status]
    assert "save_dir: expected a folder" in error
    assert (tmp_path / "out" / "report.html").is_file()
    assert [path.name for path in (tmp_path / "out").glob(".*")] == []
