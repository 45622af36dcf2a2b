# SPDX-License-Identifier: AGPL-3.0-or-later
"""Cells are started where they fit, one a device, and a process that dies says so."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import pytest

from det_ls.base.errors import DetLsError
from det_ls.studies import executors
from det_ls.studies.cell import LOG_FILE, RUN, Task
from det_ls.studies.executors import Job, LocalExecutor, start_process
from det_ls.studies.records import Arm, Cell, Condition
from det_ls.studies.resources import GIB


class Sleeper:
    """A process that does nothing until it is told that it ended."""

    def __init__(self):
        self.pid, self.status = 2**22 + 1, None  # no such process

    def poll(self):
        return self.status

    def wait(self, timeout=None):
        return self.status


def job(folder, seed=0):
    return Job(folder / f"seed{seed}", Task(Cell(Condition(), Arm(), seed), {"data": "a.yaml", "model": "b.yaml"}))


@pytest.fixture
def four_cores(monkeypatch):
    monkeypatch.setattr(executors, "cores", lambda: 4)
    monkeypatch.setattr(executors, "total_memory", lambda: 64 * GIB)


def test_no_more_cells_than_cores(four_cores, tmp_path):
    executor = LocalExecutor(
        tmp_path, cores_per_cell=2, memory=1, launch=lambda *_: Sleeper(), available=lambda: 64 * GIB
    )
    assert executor.slots == 2
    for seed in (0, 1):
        assert executor.room()
        executor.start(job(tmp_path, seed))
    assert not executor.room()
    with pytest.raises(DetLsError, match="cores: expected at most the 4"):
        LocalExecutor(tmp_path, cores_per_cell=5)


def test_each_gpu_takes_one_cell(four_cores, tmp_path):
    started = []

    def launch(words, log, environment):
        started.append((words[-1], environment["OMP_NUM_THREADS"], Sleeper()))
        return started[-1][2]

    executor = LocalExecutor(tmp_path, devices=("0", "2"), launch=launch, available=lambda: 64 * GIB)
    executor.start(job(tmp_path, 0))
    executor.start(job(tmp_path, 1))
    assert [entry[:2] for entry in started] == [("device=0", "2"), ("device=2", "2")]
    assert not executor.room()
    started[0][2].status = 0
    assert [error for _, error in executor.finished()] == [None]
    executor.start(job(tmp_path, 2))
    assert started[-1][0] == "device=0"


def test_nothing_is_started_that_does_not_fit_in_memory(four_cores, tmp_path):
    free = [2.5 * GIB]
    executor = LocalExecutor(tmp_path, memory=2, launch=lambda *_: Sleeper(), available=lambda: int(free[0]))
    assert executor.room()
    executor.start(job(tmp_path, 0))
    free[0] = 3.9 * GIB  # the first has taken nothing yet, and 2 GiB are kept for it
    assert not executor.room()
    free[0] = 4.1 * GIB
    assert executor.room()
    with pytest.raises(DetLsError, match=r"memory: expected at most the 64\.0 GiB"):
        LocalExecutor(tmp_path, memory=65)


def test_a_cell_counts_with_what_the_largest_took(four_cores, monkeypatch, tmp_path):
    monkeypatch.setattr(executors, "memory_of", lambda process: 3 * GIB)
    executor = LocalExecutor(tmp_path, launch=lambda *_: Sleeper(), available=lambda: int(2.9 * GIB))
    assert executor.room()  # nothing is known: the first guess fits
    executor.start(job(tmp_path, 0))
    assert not executor.room()


def test_one_cell_runs_alone_until_it_has_shown_what_it_takes(four_cores, monkeypatch, tmp_path):
    held = [0]
    monkeypatch.setattr(executors, "memory_of", lambda process: held[0])
    curves = tmp_path / "seed0" / RUN / "results.csv"
    curves.parent.mkdir(parents=True)
    curves.touch()
    os.utime(curves, (1.0, 1.0))  # of an earlier try
    executor = LocalExecutor(tmp_path, launch=lambda *_: Sleeper(), available=lambda: 10 * GIB - held[0])
    executor.start(job(tmp_path, 0))
    assert not executor.room()  # 10 GiB are free, and four cells of 1.5 would be started that take 6 each
    held[0] = 6 * GIB
    assert not executor.room()
    curves.touch()
    assert not executor.room()  # 4 GiB are left
    held[0] = 3 * GIB
    assert not executor.room()  # what one took at its highest counts
    again = LocalExecutor(tmp_path, launch=lambda *_: Sleeper(), available=lambda: 10 * GIB - held[0])
    again.start(job(tmp_path, 0))
    curves.touch()
    assert again.room()


def test_memory_that_never_gets_free_ends_in_a_sentence(four_cores, monkeypatch, tmp_path):
    clock = [100.0]
    monkeypatch.setattr(executors.time, "monotonic", lambda: clock[0])
    executor = LocalExecutor(tmp_path, memory=8, launch=lambda *_: Sleeper(), available=lambda: 2 * GIB)
    assert not executor.room()
    clock[0] += 599
    assert not executor.room()
    clock[0] += 2
    with pytest.raises(DetLsError, match=r"memory: expected 8\.0 GiB free for a cell, got 2\.0 for 10 minutes"):
        executor.room()


def test_a_process_that_dies_leaves_a_sentence(tmp_path):
    def launch(words, log, environment):
        return start_process([sys.executable, "-c", "import os, signal; os.kill(os.getpid(), signal.SIGKILL)"], log, {})

    executor = LocalExecutor(tmp_path, launch=launch, available=lambda: 64 * GIB)
    one = job(tmp_path)
    executor.start(one)
    while not (ended := executor.finished()):
        time.sleep(0.01)
    assert ended[0][0] == one
    assert "was killed by signal 9" in ended[0][1]
    assert str(one.folder / LOG_FILE) in ended[0][1]


def test_stop_ends_the_processes_and_their_children(tmp_path):
    code = "import subprocess, sys, time; p = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)']); print(p.pid, flush=True); time.sleep(60)"

    def launch(words, log, environment):
        return start_process([sys.executable, "-c", code], log, dict(os.environ))

    executor = LocalExecutor(tmp_path, launch=launch, available=lambda: 64 * GIB)
    executor.start(job(tmp_path))
    log = tmp_path / "seed0" / LOG_FILE
    while not log.read_text().endswith("\n"):
        time.sleep(0.01)
    executor.stop()
    child = int(log.read_text())
    for _ in range(500):
        try:
            os.kill(child, 0)
        except ProcessLookupError:
            break
        if "Z" in subprocess.run(["ps", "-o", "stat=", "-p", str(child)], capture_output=True, text=True).stdout:
            break  # ended, and not yet waited for by whoever adopted it
        time.sleep(0.01)
    else:
        pytest.fail("the child of a stopped cell still runs")


@pytest.mark.skipif(not hasattr(os, "fork"), reason="wants fork")
def test_a_worker_ends_with_its_parent(tmp_path):
    code = (
        "import os, sys, time\n"
        "if os.fork() == 0:\n"
        "    os.setsid()\n"
        "    from det_ls.studies import worker\n"
        "    worker.END_WITH_PARENT = 0.01\n"
        "    print(os.getpid(), flush=True)\n"
        "    worker._end_with(int(sys.argv[1]) or os.getppid())\n"
        "time.sleep(60)\n"
    )
    parent = subprocess.Popen([sys.executable, "-c", code, "0"], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    worker = int(parent.stdout.readline())
    time.sleep(0.2)
    os.kill(worker, 0)  # it runs while its parent does
    parent.send_signal(signal.SIGKILL)
    parent.wait()
    for _ in range(1000):
        try:
            os.kill(worker, 0)
        except ProcessLookupError:
            break
        if "Z" in subprocess.run(["ps", "-o", "stat=", "-p", str(worker)], capture_output=True, text=True).stdout:
            break
        time.sleep(0.01)
    else:
        pytest.fail("the worker trains on without its study")
