# SPDX-License-Identifier: AGPL-3.0-or-later
"""Cells on a Ray cluster. Ray schedules; here is only what a cell asks for, and how its files come back."""

from __future__ import annotations

import os
import secrets
import subprocess
import tempfile
from pathlib import Path
from typing import Any

from det_ls.base.errors import ArgumentError, MissingPackageError
from det_ls.base.files import write_atomically
from det_ls.studies.cell import CELL_FILE, CONFIG_FILE, LOG_FILE, RUN, Task
from det_ls.studies.executors import Job, ended_without_word, environment_of, worker_words
from det_ls.studies.resources import GIB

TOKEN, GPU = ".det-ls-shared", "gpu"
_RETURNED = (CELL_FILE, CONFIG_FILE, LOG_FILE, f"{RUN}/results.csv", f"{RUN}/args.yaml")
"""What comes back from a machine that does not see the study's folder; the weights stay there, and go with it."""


class RayExecutor:
    """Cells as tasks of a Ray cluster, each in a process of its own.

    Where a node sees the study's folder, cells work in it and go on from their last epoch after a kill. Elsewhere they
    work in a folder of the node, and their small files come back as bytes. The data set has to be at the same path on
    every node, and det-ls installed.
    """

    def __init__(
        self,
        folder: Path,
        datasets: Path,
        *,
        address: str | None = None,
        cores_per_cell: int | None = None,
        gpus: int = 0,
        memory: float | None = None,
        jobs: int | None = None,
    ) -> None:
        """Connect to a cluster, or start one on this machine.

        Args:
            folder: The study's folder.
            datasets: Where data sets with noise are kept, within it.
            address: The cluster's address; None for the one that is connected, or a new one.
            cores_per_cell: Cores that a cell asks for, and its threads; 1 by default.
            gpus: GPUs that a cell asks for, 0 or 1.
            memory: GiB that a cell asks for; None for no condition.
            jobs: Cells at the same time at most; None for as many as the cluster holds.

        Raises:
            ImportError: If Ray is not installed.
            ValueError: If there is no cluster at the address.
        """
        try:
            import ray
        except ImportError as error:
            raise MissingPackageError(
                "executor: expected Ray to be installed for executor=ray (pip install 'det-ls[ray]'), got none."
            ) from error
        self._ray: Any = ray
        self._started = not ray.is_initialized()
        if self._started:
            try:
                ray.init(address=address, log_to_driver=False, configure_logging=False)
            except (ConnectionError, ValueError) as error:
                raise ArgumentError(f"address: expected that of a Ray cluster, got {address!r} ({error}).") from error
        self._folder, self._datasets, self._cores = folder, datasets, cores_per_cell or 1
        self._token = secrets.token_hex(16)
        write_atomically(folder / TOKEN, self._token.encode())
        asked: dict[str, Any] = {"num_cpus": self._cores, "num_gpus": gpus, "max_retries": 0, "max_calls": 1}
        if memory is not None:
            asked["memory"] = int(memory * GIB)
        self._jobs, self._asked = jobs, {"CPU": asked["num_cpus"], "GPU": gpus, "memory": asked.get("memory", 0)}
        self._device = GPU if gpus else "cpu"
        self._task: Any = ray.remote(**asked)(run_remotely)
        self._running: dict[Any, Job] = {}

    @property
    def slots(self) -> int:
        """Cells that the cluster's cores, GPUs and memory hold, for estimates."""
        there = self._ray.cluster_resources()
        held = min(int(there.get(name, 0) // asked) for name, asked in self._asked.items() if asked)
        return max(1, held if self._jobs is None else min(held, self._jobs))

    def room(self) -> bool:
        """Tell whether one more may be handed over; Ray starts it when there is room."""
        return self._jobs is None or len(self._running) < self._jobs

    def start(self, job: Job) -> None:
        """Hand a cell over to Ray."""
        place = (str(self._folder), str(job.folder.relative_to(self._folder)), str(self._datasets), os.getcwd())
        self._running[self._task.remote(self._token, place, job.task.to_dict(), self._device, self._cores)] = job

    def finished(self) -> list[tuple[Job, str | None]]:
        """Return the cells that ended, their files in place."""
        if not self._running:
            return []
        done, _ = self._ray.wait(list(self._running), num_returns=len(self._running), timeout=0)
        ended: list[tuple[Job, str | None]] = []
        for reference in done:
            job = self._running.pop(reference)
            try:
                error, files = self._ray.get(reference)
            except self._ray.exceptions.RayError as problem:
                said = next((line.strip() for line in str(problem).splitlines() if line.strip()), "").rstrip(".")
                error, files = f"cell: expected to run on the cluster, got {type(problem).__name__} ({said}).", {}
            for name, content in files.items():
                path = job.folder / name
                path.parent.mkdir(parents=True, exist_ok=True)
                write_atomically(path, content)
            ended.append((job, error))
        return ended

    def stop(self) -> None:
        """Cancel what runs or waits, and leave the cluster if it was started here."""
        for reference in self._running:
            self._ray.cancel(reference, force=True)
        self._running = {}
        (self._folder / TOKEN).unlink(missing_ok=True)
        if self._started:
            self._ray.shutdown()


def run_remotely(
    token: str, place: tuple[str, str, str, str], task: dict[str, Any], device: str, cores_per_cell: int
) -> tuple[str | None, dict[str, bytes]]:
    """Run a cell on a node of the cluster.

    Args:
        token: What the study's folder holds, where the node sees it.
        place: The study's folder, the cell's relative to it, that of the data sets, and where relative paths start.
        task: What the cell is asked to do.
        device: ``cpu``, or ``gpu`` for the one that Ray gave it.
        cores_per_cell: Its threads.

    Returns:
        A sentence if it left no cell.json, and its files where the node does not see the study's folder.
    """
    if device == GPU:
        import ray

        device = str(ray.get_gpu_ids()[0])
    study, cell, datasets, start = place
    try:
        shared = (Path(study) / TOKEN).read_text() == token
    except OSError:
        shared = False
    if shared:
        job = Job(Path(study) / cell, Task.from_dict(task))
        return _run(job, Path(datasets), device, cores_per_cell, start), {}
    with tempfile.TemporaryDirectory(prefix="det-ls-study-") as root:
        job = Job(Path(root) / cell, Task.from_dict(task))
        error = _run(job, Path(root) / "data", device, cores_per_cell, start)
        files = {name: (job.folder / name).read_bytes() for name in _RETURNED if (job.folder / name).is_file()}
    return error, files


def _run(job: Job, datasets: Path, device: str, cores_per_cell: int, start: str) -> str | None:
    """Run a cell's process to its end, in the folder that relative paths start from where the node has it."""
    words = worker_words(job, datasets, device, cores_per_cell)
    with (job.folder / LOG_FILE).open("ab") as log:
        there = start if os.path.isdir(start) else None
        status = subprocess.run(words, stdout=log, stderr=log, env=environment_of(cores_per_cell), cwd=there).returncode
    return ended_without_word(status, job.folder)
