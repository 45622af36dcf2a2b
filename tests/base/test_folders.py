# SPDX-License-Identifier: AGPL-3.0-or-later
from __future__ import annotations

import errno
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from det_ls.base.errors import DetLsError
from det_ls.base.folders import CLAIM, claim_folder, is_file

RESULTS = ("a.json", "b.json", "sub/c.png")


def files(folder: Path) -> dict[str, str]:
    return {path.relative_to(folder).as_posix(): path.read_text() for path in folder.rglob("*") if path.is_file()}


def write(folder: Path, **content: str) -> None:
    with claim_folder(folder, results=RESULTS, exist_ok=True) as place:
        for name, text in content.items():
            file = place / name.replace("__", "/").replace("_", ".")
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text)


def test_a_result_appears_whole(tmp_path):
    folder = tmp_path / "new" / "run"
    with claim_folder(folder, results=RESULTS) as place:
        (place / "a.json").write_text("1")
        assert [name for name in files(folder) if name in RESULTS] == []
    assert files(folder) == {"a.json": "1"}


def test_exist_ok_replaces_the_whole_result_and_nothing_else(tmp_path):
    write(tmp_path / "run", a_json="old", b_json="old", sub__c_png="old", notes_txt="mine")
    with (
        pytest.raises(FileExistsError, match="got 'a.json', 'b.json', 'sub/c.png' in"),
        claim_folder(tmp_path / "run", results=RESULTS),
    ):
        pass
    write(tmp_path / "run", a_json="new")
    assert files(tmp_path / "run") == {"a.json": "new", "notes.txt": "mine"}


@pytest.mark.parametrize("failure", [RuntimeError, KeyboardInterrupt])
def test_after_a_failure_everything_is_as_it_was(tmp_path, failure):
    write(tmp_path / "run", a_json="old", sub__c_png="old")
    before = files(tmp_path / "run")
    for folder in (tmp_path / "run", tmp_path / "none" / "deep"):
        with pytest.raises(failure), claim_folder(folder, results=RESULTS, exist_ok=True) as place:
            (place / "a.json").write_text("half")
            raise failure
    assert files(tmp_path / "run") == before
    assert not (tmp_path / "none").exists()


def test_a_move_that_fails_midway_puts_the_old_result_back(tmp_path, monkeypatch):
    write(tmp_path / "run", a_json="old", b_json="old")
    before = files(tmp_path / "run")
    replace = os.replace

    def failing(source, goal):
        if Path(source).name == "b.json" and Path(source).parent.name.endswith(".partial"):
            raise OSError(errno.ENOSPC, "No space left on device")
        replace(source, goal)

    monkeypatch.setattr("det_ls.base.folders.os.replace", failing)
    with pytest.raises(
        OSError, match=r"^save_dir: expected a folder that can be written to, got .*where the disk is full\.$"
    ):
        write(tmp_path / "run", a_json="new", b_json="new")
    assert files(tmp_path / "run") == before


def test_two_runs_never_share_a_folder(tmp_path):
    with (
        claim_folder(tmp_path / "run"),
        pytest.raises(FileExistsError, match="where another run is at work"),
        claim_folder(tmp_path / "run"),
    ):
        pytest.fail("the work began")
    with claim_folder(tmp_path / "run"):
        pass


def test_of_many_at_once_one_gets_the_folder(tmp_path):
    got, refused, barrier = [], [], threading.Barrier(8)

    def run():
        barrier.wait()
        try:
            with claim_folder(tmp_path / "run"):
                got.append(1)
                done.wait(10)
        except FileExistsError:
            refused.append(1)
            if len(refused) == 7:
                done.set()

    done = threading.Event()
    threads = [threading.Thread(target=run) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (len(got), len(refused)) == (1, 7)


def test_the_claim_of_a_killed_run_is_taken_over(tmp_path):
    code = (
        "import sys, time; from det_ls.base.folders import held_folder\n"
        "with held_folder(sys.argv[1]): print(flush=True); time.sleep(60)"
    )
    run = subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE)
    assert run.stdout.readline() == b"\n"
    with pytest.raises(FileExistsError, match="another run is at work"), claim_folder(tmp_path):
        pass
    run.kill()
    run.wait()
    assert (tmp_path / CLAIM).exists()
    with claim_folder(tmp_path):
        pass
    assert files(tmp_path) == {}


def test_where_the_file_system_has_no_locks_a_run_goes_on(tmp_path, monkeypatch):
    def refuse(*args):
        raise OSError(errno.ENOLCK, "no locks available")

    monkeypatch.setattr("fcntl.flock", refuse)
    with claim_folder(tmp_path) as place:
        (place / "a").touch()
    assert list(files(tmp_path)) == ["a"]


@pytest.mark.parametrize("code", [errno.EROFS, errno.ENOSPC, errno.EACCES, errno.EIO, errno.ENOTDIR])
@pytest.mark.parametrize("where", ["pathlib.Path.mkdir", "pathlib.Path.write_bytes"])
def test_what_the_system_refuses_is_one_sentence_before_the_work(tmp_path, monkeypatch, code, where):
    def refuse(*args, **kwargs):
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(where, refuse)
    message = r"^save_dir: expected a folder that can be written to, got '.*run', .+\.$"
    with pytest.raises(DetLsError, match=message), claim_folder(tmp_path / "run"):
        pytest.fail("the work began")
    monkeypatch.undo()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["x" * 300, "file/deeper", "nul\0l"])
def test_impossible_names_are_one_sentence(tmp_path, name):
    (tmp_path / "file").write_text("")
    with pytest.raises(DetLsError, match=r"^save_dir: expected .*\.$") as caught, claim_folder(tmp_path / name):
        pytest.fail("the work began")
    assert isinstance(caught.value, OSError)
    assert "\n" not in str(caught.value)
    assert not is_file(tmp_path / name)
