# SPDX-License-Identifier: AGPL-3.0-or-later
"""Where cells run: as processes of this machine. :mod:`det_ls.studies.on_ray` runs them on a cluster."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from det_ls.base.errors import ArgumentError, RunError
from det_ls.base.files import write_json
from det_ls.studies.cell import LOG_FILE, RUN, TASK_FILE, Task
from det_ls.studies.resources import GIB, available_memory, cores, memory_of, total_memory

FIRST_GUESS = 1.5 * GIB
"""Memory of a cell, until one has shown how much it takes."""
_PATIENCE = 10.0  # seconds for a process to end by itself
_WAIT = 600.0  # seconds for other programs to give memory free, before a study that cannot start any cell ends


@dataclass(frozen=True)
class Job:
    """A cell to run.

    Attributes:
        folder: Its folder.
        task: What it is asked to do.
    """

    folder: Path
    task: Task


class Executor(Protocol):
    """Runs cells; a study hands them over in order and asks from time to time which are done."""

    @property
    def slots(self) -> int:
        """Cells that run at the same time at most, for estimates."""

    def room(self) -> bool:
        """Tell whether one more may be started now."""

    def start(self, job: Job) -> None:
        """Start a cell."""

    def finished(self) -> list[tuple[Job, str | None]]:
        """Return the cells that ended since the last call, with a sentence for one that left no cell.json."""

    def stop(self) -> None:
        """End what runs; it can go on later."""


class Process(Protocol):
    """What is needed of a process: that of ``subprocess`` has it."""

    pid: int

    def poll(self) -> int | None:
        """Return its exit status, None while it runs."""

    def wait(self, timeout: float | None = None) -> int:
        """Wait for its end."""


Launch = Callable[[Sequence[str], Path, Mapping[str, str]], Process]


class LocalExecutor:
    """Cells as processes of this machine.

    A cell is started only where it fits: within the cores, on a device of its own, and within the memory that is free
    once the running cells have taken what theirs is expected to be. What a cell takes is what the largest took so far,
    or what is given; while neither is known, one runs alone until the end of its first epoch.
    """

    def __init__(
        self,
        datasets: Path,
        *,
        devices: Sequence[str] = ("cpu",),
        cores_per_cell: int | None = None,
        memory: float | None = None,
        jobs: int | None = None,
        launch: Launch | None = None,
        available: Callable[[], int] = available_memory,
    ) -> None:
        """Look what there is.

        Args:
            datasets: Where data sets with noise are kept.
            devices: Devices, one cell at a time each; ``cpu`` alone for as many cells as there are cores.
            cores_per_cell: Threads of a cell; by default 1 on the CPU, and an equal share beside a GPU.
            memory: GiB that a cell takes; None to find out.
            jobs: Cells at the same time at most; None for as many as fit.
            launch: Starts a process from words, a log file and an environment.
            available: Says how much memory is free, in bytes.

        Raises:
            ValueError: If one cell takes more than the machine has.
        """
        self._datasets, self._launch, self._available = datasets, launch or start_process, available
        on_cpu = list(devices) == ["cpu"]
        have = cores()
        self._cores = cores_per_cell or (1 if on_cpu else max(1, have // len(devices)))
        if self._cores > have:
            raise ArgumentError(f"cores: expected at most the {have} of this machine, got {self._cores}.")
        slots = have // self._cores if on_cpu else len(devices)
        self._slots = slots if jobs is None else min(slots, jobs)
        self._devices = ["cpu"] * self._slots if on_cpu else list(devices)[: self._slots]
        self._given = None if memory is None else memory * GIB
        if self._given is not None and self._given > total_memory():
            have_gib = total_memory() / GIB
            raise ArgumentError(f"memory: expected at most the {have_gib:.1f} GiB of this machine, got {memory:g}.")
        self._peak, self._known, self._since = 0, memory is not None, 0.0
        self._running: list[tuple[Job, Process, str, int]] = []

    @property
    def slots(self) -> int:
        """Cells at the same time at most."""
        return self._slots

    def room(self) -> bool:
        """Tell whether a core, a device and the memory for one more are free.

        Raises:
            RuntimeError: If nothing runs, and the memory for a cell has not been free for ten minutes.
        """
        if len(self._running) >= self._slots:
            return False
        self._known = self._known or any(_curves_stamp(job) != stamp for job, _, _, stamp in self._running)
        if self._running and not self._known:
            return False
        held = [memory_of(process.pid) for _, process, _, _ in self._running]
        self._peak = max([self._peak, *held])
        needs, free = self._given or max(float(self._peak), FIRST_GUESS), self._available()
        if free - sum(max(0.0, needs - one) for one in held) >= needs:
            self._since = 0.0
            return True
        if not self._running:
            self._since = self._since or time.monotonic()
            if time.monotonic() - self._since > _WAIT:
                raise RunError(
                    f"memory: expected {needs / GIB:.1f} GiB free for a cell, got {free / GIB:.1f} for "
                    f"{_WAIT / 60:.0f} minutes; go on when there is more, or say with memory= what a cell takes."
                )
        return False

    def start(self, job: Job) -> None:
        """Start a cell in a process of its own."""
        taken = [device for _, _, device, _ in self._running]
        device = next(d for d in self._devices if taken.count(d) < self._devices.count(d))
        words, environment = worker_words(job, self._datasets, device, self._cores), environment_of(self._cores)
        stamp = _curves_stamp(job)
        self._running.append((job, self._launch(words, job.folder / LOG_FILE, environment), device, stamp))

    def finished(self) -> list[tuple[Job, str | None]]:
        """Return the cells whose process ended."""
        ended, going = [], []
        for entry in self._running:
            status = entry[1].poll()
            if status is None:
                going.append(entry)
            else:
                ended.append((entry[0], ended_without_word(status, entry[0].folder)))
        self._known = self._known or any(error is None for _, error in ended)
        self._running = going
        self._peak = max([self._peak, *(memory_of(process.pid) for _, process, _, _ in going)])
        return ended

    def stop(self) -> None:
        """End the processes, and those that they started."""
        for number in (signal.SIGTERM, getattr(signal, "SIGKILL", signal.SIGTERM)):
            for _, process, _, _ in self._running:
                _send(process.pid, number)
            for _, process, _, _ in self._running:
                with suppress(subprocess.TimeoutExpired):
                    process.wait(_PATIENCE)
        self._running = []


def _curves_stamp(job: Job) -> int:
    """Return when a cell last ended an epoch, by when it has taken the memory that it takes; 0 before the first."""
    try:
        return (job.folder / RUN / "results.csv").stat().st_mtime_ns
    except OSError:
        return 0


def worker_words(job: Job, datasets: Path, device: str | None, cores_per_cell: int) -> list[str]:
    """Write a cell's task into its folder, and the words that start its process.

    Args:
        job: The cell.
        datasets: Where data sets with noise are kept.
        device: Its device.
        cores_per_cell: Its threads.

    Returns:
        The words of a command.
    """
    job.folder.mkdir(parents=True, exist_ok=True)
    write_json(job.folder / TASK_FILE, job.task.to_dict(), indent=1)
    options = [f"cores={cores_per_cell}", f"parent={os.getpid()}", *([] if device is None else [f"device={device}"])]
    return [sys.executable, "-m", "det_ls.studies.worker", str(job.folder), str(datasets), *options]


def environment_of(cores_per_cell: int) -> dict[str, str]:
    """Return the environment of a cell, in which libraries take no more threads than it has cores."""
    threads = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), str(cores_per_cell))
    return {**os.environ, **threads}


def start_process(words: Sequence[str], log: Path, environment: Mapping[str, str]) -> Process:
    """Start a process that prints to a file; Ctrl-C at the terminal does not reach it.

    Args:
        words: The command.
        log: The file, which is appended to.
        environment: Its environment.

    Returns:
        The process.
    """
    with log.open("ab") as file:
        return subprocess.Popen(
            list(words),
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=subprocess.STDOUT,
            env=dict(environment),
            start_new_session=True,
        )


def ended_without_word(status: int, folder: Path) -> str | None:
    """Say how a process ended that did not end well.

    Args:
        status: Its exit status.
        folder: The cell's folder.

    Returns:
        A sentence; None for status 0.
    """
    if status == 0:
        return None
    how = f"was killed by signal {-status}" if status < 0 else f"ended with status {status}"
    return f"cell: expected to be trained and measured, but its process {how}; see '{folder / LOG_FILE}'."


def _send(process: int, number: Any) -> None:
    """Send a signal to a process that leads a group of its own, and to the group."""
    with suppress(OSError):
        if hasattr(os, "killpg") and os.getpgid(process) == process:
            os.killpg(process, number)
        else:
            os.kill(process, number)
