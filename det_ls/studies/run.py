# SPDX-License-Identifier: AGPL-3.0-or-later
"""Run a study: every cell of its grid that has no result yet, on an executor, within a budget."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from det_ls.base.arguments import check_flag
from det_ls.base.errors import ArgumentError, DataError
from det_ls.base.files import remove_partial, working_directory, write_json
from det_ls.base.folders import check_free, check_writable, held_folder
from det_ls.studies.cell import CELL_FILE, Task, read_cell, record_failure
from det_ls.studies.executors import Executor, Job, LocalExecutor
from det_ls.studies.plan import Execution, Plan, default_folder, split_words
from det_ls.studies.records import Cell, CellResult, State
from det_ls.studies.resources import check_devices
from det_ls.studies.result import STUDY_FILE, StudyResult, write_tables
from det_ls.studies.starts import from_start, noted_start

DATASETS = "data"
_LOOK = 0.2  # seconds between two looks at what runs


@dataclass(frozen=True)
class Progress:
    """How far a study has come.

    Attributes:
        results: One for each cell, in order.
        seconds_left: What is left to run is expected to take; None before a cell has ended.
        waits: Whether a cell waits for memory, with a place free for it.
    """

    results: tuple[CellResult, ...]
    seconds_left: float | None = None
    waits: bool = False


def study(
    data: str | Path | None = None,
    model: str | Path | None = None,
    *,
    label_smoothing: object = None,
    label_smoothing_mode: object = None,
    seeds: object = None,
    label_noise: object = None,
    label_drop: object = None,
    label_jitter: object = None,
    fraction: object = None,
    weights: str | None = None,
    train_images: int | None = None,
    groups: str | None = None,
    device: object = None,
    jobs: int | None = None,
    cores: int | None = None,
    memory: float | None = None,
    executor: str | None = None,
    address: str | None = None,
    budget: object = None,
    save_dir: str | Path | None = None,
    exist_ok: bool = False,
    resume: str | Path | None = None,
    report: str | Path | None = None,
    progress: Callable[[Progress], None] | None = None,
    **train: Any,
) -> StudyResult:
    """Train and measure a grid of arms, conditions and seeds, each cell in a process and a folder of its own.

    Every cell is an ordinary ``det-ls train``, then measured on the validation split, on (a sample of) the training
    split, and again with its scores calibrated by a cross-fitted Platt map: the rival of smoothing. A cell that is
    finished is not run again unless its config changed; one that failed is recorded and the others go on; it is tried
    again on resume. A cell that was killed goes on from its last epoch, and on a CPU ends with the numbers of an
    undisturbed one.

    Args:
        data: A data YAML, as for ``yolo train``; ``{seed}`` in it stands for the cell's seed.
        model: A model YAML or checkpoint of a detector.
        label_smoothing: Epsilons, several with commas or in a list [0,0.1]; 0 is stock training.
        label_smoothing_mode: Modes, each with every epsilon above 0 [redistribute].
        seeds: A number of seeds, or a list of them; equal seeds share initial weights, order and noise [5].
        label_noise: Shares of the training objects whose class is changed [0].
        label_drop: Shares of the training objects that are dropped [0].
        label_jitter: Standard deviations by which the training boxes' sides are moved, in widths and heights [0].
        fraction: Shares of the training images in use [1].
        weights: ``best`` or ``last``: the checkpoint that is measured [best].
        train_images: Images of the training split to measure too [200].
        groups: Which images belong together, as in :func:`det_ls.evaluate`.
        device: ``cpu``, or GPUs as ``0,1``: one cell each at a time.
        jobs: Cells at the same time at most; as many as fit by default.
        cores: Threads of a cell.
        memory: GiB that a cell takes; found out by default.
        executor: ``local`` or ``ray`` [local].
        address: Address of a Ray cluster, for ``executor=ray``.
        budget: Time after which no cell is started that would not end in it: ``3h``, ``90m``.
        save_dir: The study's folder; a new one in ``runs/study`` by default.
        exist_ok: Whether to go on in a folder that holds a study, with these words: cells of the same config are kept.
        resume: Folder of a study to go on with; words of the grid replace those that it has.
        report: Folder of a study to read, without running anything.
        progress: Told from time to time how far it is.
        **train: Every other key goes to ``train`` unchanged.

    Returns:
        The results of all cells, those that are missing included.

    Raises:
        FileExistsError: If the folder holds a study and may not be gone on with, or another process works in it.
        FileNotFoundError: If the model, a data set or a study does not exist.
        KeyboardInterrupt: After Ctrl-C; what ran can go on with ``resume``.
        TypeError: If a key is unknown, or missing, or has the wrong type.
        ValueError: If a value is out of range or does not fit.
    """
    check_flag("exist_ok", exist_ok)
    words, _ = split_words(
        {
            "label_smoothing": label_smoothing,
            "label_smoothing_mode": label_smoothing_mode,
            "seeds": seeds,
            "label_noise": label_noise,
            "label_drop": label_drop,
            "label_jitter": label_jitter,
            "fraction": fraction,
        }
    )
    how = {
        "executor": executor,
        "address": address,
        "device": device,
        "jobs": jobs,
        "cores": cores,
        "memory": memory,
    }
    how = {key: value for key, value in how.items() if value is not None}
    execution = Execution.of({**how, "budget": budget})
    measure = {"weights": weights, "train_images": train_images, "groups": groups}
    fixed = {
        key: value for key, value in {"data": data, "model": model, **train, **measure}.items() if value is not None
    }
    for name, named in (("report", report), ("resume", resume)):
        if named is None:
            continue
        folder = Path(named)
        if beside := sorted([*fixed, *(["save_dir"] if save_dir is not None else [])]):
            raise ArgumentError(
                f"{beside[0]}: expected no such key with {name}, which takes it from the study, got {beside[0]}=...; "
                "for another config begin a new study."
            )
        plan = Plan.read(folder, name)
        if name == "report":
            return read_study(folder, plan)
        plan = plan.with_words(words, how)
        execution = Execution.of({**plan.execution, "budget": budget})
        start, _ = from_start(plan.where, folder, name, plan.train, plan.check)
        break
    else:
        chosen = {key: value for key, value in measure.items() if value is not None}
        keys = {key: str(v) if isinstance(v, Path) else v for key, v in fixed.items() if key not in measure}
        plan = Plan(words, keys, **chosen, execution=how)  # type: ignore[arg-type]
        folder = default_folder(data) if save_dir is None else Path(save_dir)
        check_free(folder, [STUDY_FILE], exist_ok)
        plan.check()
        start = Path.cwd()
    place = folder.absolute()
    with working_directory(start):
        check_writable("save_dir", place)
        try:
            with held_folder(place):
                remove_partial(place)
                remove_partial(place / DATASETS)
                where = _executor(place, execution)
                plan = replace(plan, where=noted_start(place))
                write_json(place / STUDY_FILE, plan.to_dict(), indent=1)
                result = _Run(place, plan, where, execution.budget, progress).run()
        finally:
            with suppress(OSError):
                place.rmdir()  # empty where the executor was refused
    return replace(result, folder=folder)


def read_study(folder: Path, plan: Plan | None = None) -> StudyResult:
    """Read what a study has found so far.

    Args:
        folder: Its folder.
        plan: What it is asked to do; None to read that too.

    Returns:
        The results.

    Raises:
        FileNotFoundError: If there is no study.
        ValueError: If a file of it cannot be read.
    """
    plan = Plan.read(folder, "report") if plan is None else plan
    tasks, place = plan.tasks, folder.absolute()
    _, results = from_start(
        plan.where, folder, "report", plan.train, lambda: tuple(read_cell(place / task.name, task) for task in tasks)
    )
    return StudyResult(folder, plan.grid, results, plan.train)


def _executor(folder: Path, execution: Execution) -> Executor:
    """Make the executor that was asked for."""
    datasets, devices = folder / DATASETS, execution.devices
    if execution.executor == "ray":
        from det_ls.studies.on_ray import RayExecutor

        return RayExecutor(
            folder.absolute(),
            datasets.absolute(),
            address=execution.address,
            cores_per_cell=execution.cores,
            gpus=int(execution.device is not None and devices != ("cpu",)),
            memory=execution.memory,
            jobs=execution.jobs,
        )
    check_devices(devices)
    return LocalExecutor(
        datasets, devices=devices, cores_per_cell=execution.cores, memory=execution.memory, jobs=execution.jobs
    )


class _Run:
    """One run of a study over the cells that have no result yet."""

    def __init__(
        self,
        folder: Path,
        plan: Plan,
        executor: Executor,
        budget: float | None,
        progress: Callable[[Progress], None] | None,
    ) -> None:
        self._folder, self._plan, self._executor = folder, plan, executor
        self._budget, self._progress = budget, progress
        self._began = time.monotonic()
        self._results: dict[Cell, CellResult] = {}
        self._tasks: dict[Cell, Task] = {task.cell: task for task in plan.tasks}

    def run(self) -> StudyResult:
        """Run what is left."""
        self._results = {cell: self._read(task) for cell, task in self._tasks.items()}
        left = [cell for cell, result in self._results.items() if result.state != State.DONE]
        for cell in left:
            self._results[cell] = replace(self._results[cell], state=State.WAITING, error=None)
        cut = False
        try:
            while left or self._running:
                while left and self._affordable(left[0], left) and self._executor.room():
                    self._start(left.pop(0))
                ended = self._executor.finished()
                for job, error in ended:
                    self._end(job, error)
                if left and not self._running and not self._affordable(left[0], left):
                    cut = True
                    break
                self._tell(left)
                if not ended:
                    time.sleep(_LOOK)
        finally:
            self._executor.stop()
            for cell in self._running:
                self._results[cell] = replace(self._results[cell], state=State.WAITING)
            write_tables(self._folder, list(self._results.values()))
        self._tell(left)
        return StudyResult(self._folder, self._plan.grid, tuple(self._results.values()), self._plan.train, cut)

    @property
    def _running(self) -> list[Cell]:
        return [cell for cell, result in self._results.items() if result.state == State.RUNNING]

    def _start(self, cell: Cell) -> None:
        """Start a cell; what is known of an earlier try goes."""
        task = self._tasks[cell]
        (self._folder / task.name / CELL_FILE).unlink(missing_ok=True)
        self._results[cell] = CellResult(cell, State.RUNNING, config=task.words)
        self._executor.start(Job(self._folder / task.name, task))

    def _end(self, job: Job, error: str | None) -> None:
        """Take in a cell that ended."""
        result = self._read(job.task)
        if result.state == State.WAITING:  # it left no word
            record_failure(job.folder, job.task, error or "cell: expected a cell.json, got none.")
            result = self._read(job.task)
        self._results[job.task.cell] = result
        write_tables(self._folder, list(self._results.values()))

    def _read(self, task: Task) -> CellResult:
        """Read a cell; one whose file cannot be read is run again."""
        try:
            return read_cell(self._folder / task.name, task)
        except DataError:
            return CellResult(task.cell, State.WAITING, config=task.words)

    def _mean_seconds(self) -> float | None:
        """Return the mean time of the cells that are done."""
        times = [result.seconds for result in self._results.values() if result.state == State.DONE]
        return sum(times) / len(times) if times else None

    def _affordable(self, cell: Cell, left: Sequence[Cell]) -> bool:
        """Tell whether a cell is expected to end within the budget: a further seed only if all of its cells are."""
        if self._budget is None:
            return True
        slots, running, mean = self._executor.slots, len(self._running), self._mean_seconds()
        remaining = self._budget - (time.monotonic() - self._began)
        begun = {c.seed for c, result in self._results.items() if result.state != State.WAITING}
        needed = 1 if cell.seed in begun or not begun else sum(c.seed == cell.seed for c in left)
        if mean is None:  # nothing is known yet: no more than what runs at once
            return remaining > 0 and running + min(needed, slots) <= slots
        return math.ceil((running + needed) / slots) * mean <= remaining

    def _tell(self, left: Sequence[Cell]) -> None:
        """Tell how far it is."""
        if self._progress is None:
            return
        mean, slots, running = self._mean_seconds(), self._executor.slots, len(self._running)
        ahead = None if mean is None else math.ceil((len(left) + running / 2) / slots) * mean
        waits = bool(left) and running < slots and self._affordable(left[0], left)
        self._progress(Progress(tuple(self._results.values()), ahead, waits))
