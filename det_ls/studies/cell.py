# SPDX-License-Identifier: AGPL-3.0-or-later
"""One cell of a study: what it is asked to do, its files, and doing it.

A cell's folder holds ``task.json`` (what it is asked), ``config.json`` (what ``train/`` was made with), ``train/`` (an
ordinary run folder), ``log.txt`` (what was printed) and, in the end, ``cell.json`` (what came out), which appears whole
or not at all.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import shutil
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from det_ls.base.errors import DataError, RunError
from det_ls.base.files import remove_partial, write_json
from det_ls.base.folders import held_folder
from det_ls.base.types import Json
from det_ls.smoothing.settings import PREFIX
from det_ls.studies.grid import cell_name, condition_parts, training_keys
from det_ls.studies.records import Arm, Cell, CellResult, Condition, Measured, State

SCHEMA = 1
TASK_FILE, CONFIG_FILE, CELL_FILE, LOG_FILE, RUN = "task.json", "config.json", "cell.json", "log.txt", "train"
WEIGHTS = ("best", "last")
_WHERE = ("device", "workers", "project", "name", "exist_ok", "save_dir", "resume", "plots", "verbose", "show", "cache")
"""Training keys that say where and how a run is made, not what comes out."""


@dataclass(frozen=True)
class Task:
    """What a cell is asked to do.

    Attributes:
        cell: The cell.
        train: The training keys of ``det-ls train`` that all arms share, data and seed of this cell included.
        weights: ``best`` or ``last``: which checkpoint is measured.
        train_images: Images of the training split to measure.
        groups: Which images belong together; None for none.
    """

    cell: Cell
    train: Mapping[str, Any]
    weights: str = "best"
    train_images: int = 200
    groups: str | None = None

    @property
    def name(self) -> str:
        """The cell's folder, relative to that of the study."""
        return cell_name(self.cell)

    @property
    def words(self) -> dict[str, Any]:
        """Every training key of the cell as it would be typed, the noise apart."""
        keys = training_keys(self.cell.arm)
        shared = {k: v for k, v in self.train.items() if keys or not k.startswith(PREFIX)}  # stock takes none of them
        return {**shared, "seed": self.cell.seed, **keys}

    def resolved(self) -> dict[str, Any]:
        """Return all that decides what comes out, defaults included.

        Returns:
            Values by key that JSON can hold.
        """
        from ultralytics.utils import DEFAULT_CFG_DICT

        from det_ls.smoothing.request import Request

        request = Request.parse(self.words)
        words = {**DEFAULT_CFG_DICT, **self.words, **request.smoothing.to_args()}
        training = {key: value for key, value in sorted(words.items()) if key not in _WHERE and key != "cfg"}
        measuring = {"weights": self.weights, "train_images": self.train_images, "groups": self.groups}
        content = {"train": training, "condition": asdict(self.cell.condition), "measure": measuring}
        plain: dict[str, Any] = json.loads(json.dumps(content, default=str, sort_keys=True))
        return plain

    def hash(self) -> str:
        """Return the SHA-256 of :meth:`resolved`."""
        return hashlib.sha256(json.dumps(self.resolved(), sort_keys=True).encode()).hexdigest()

    def to_dict(self) -> Json:
        """Return what JSON can hold."""
        return {"schema": SCHEMA, **asdict(self), "train": json.loads(json.dumps(dict(self.train), default=str))}

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> Task:
        """Read what :meth:`to_dict` returned."""
        known = ("train", "weights", "train_images", "groups")
        return cls(cell_of(content["cell"]), **{key: content[key] for key in known})


def cell_of(content: Mapping[str, Any]) -> Cell:
    """Read a cell from JSON."""
    return Cell(Condition(**content["condition"]), Arm(**content["arm"]), int(content["seed"]))


def run_cell(folder: Path, task: Task, datasets: Path, device: object = None, cores: int = 1) -> Json:
    """Train and measure a cell, or go on with it, and write its cell.json.

    Args:
        folder: Its folder.
        task: What it is asked to do.
        datasets: Where data sets with noise are kept, for all cells together.
        device: As in Ultralytics.
        cores: Threads.

    Returns:
        The content of cell.json. What fails is recorded there, except an interruption.
    """
    import traceback

    began = time.monotonic()
    folder.mkdir(parents=True, exist_ok=True)
    with held_folder(folder, "cell", patience=60):
        remove_partial(folder)
        code = task.hash()
        _prepare(folder, task, code)
        content: Json = {"schema": SCHEMA, "hash": code, "resolved": task.resolved(), **_asked(task)}
        before = _seconds(folder / RUN / "results.csv")
        try:
            measured, manifest = _do(folder, task, datasets, device, cores)
            content |= {"state": State.DONE.value, "error": None, "measured": asdict(measured), "noise": manifest}
        except Exception as error:  # whatever ends a run must not end the study: it is recorded and reported
            traceback.print_exc()
            content |= {"state": State.FAILED.value, "error": sentence_of(error), "measured": None}
        content |= {
            "seconds": before + time.monotonic() - began,
            "curves": read_curves(folder / RUN / "results.csv"),
            "versions": _versions(),
        }
        write_json(folder / CELL_FILE, content, indent=1)
    return content


def record_failure(folder: Path, task: Task, error: str) -> None:
    """Record a cell whose process ended without a word.

    Args:
        folder: Its folder.
        task: What it was asked to do.
        error: What happened, as one sentence.
    """
    folder.mkdir(parents=True, exist_ok=True)
    content = {"schema": SCHEMA, "hash": task.hash(), "resolved": task.resolved(), **_asked(task)}
    curves = read_curves(folder / RUN / "results.csv")
    content |= {"state": State.FAILED.value, "error": error, "measured": None, "seconds": 0.0, "curves": curves}
    write_json(folder / CELL_FILE, content, indent=1)


def read_cell(folder: Path, task: Task) -> CellResult:
    """Read what is known of a cell.

    Args:
        folder: Its folder, which need not exist.
        task: What it is asked to do.

    Returns:
        The result; waiting where there is none, or one of another config.

    Raises:
        ValueError: If its cell.json cannot be read.
    """
    file = folder / CELL_FILE
    waiting = CellResult(task.cell, State.WAITING, config=task.words)
    if not file.is_file():
        return waiting
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
        if content.get("schema") != SCHEMA or not _as_asked(content, task):
            return waiting
        return result_of(content)
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(f"resume: expected a cell.json of a study, got '{file}' ({error}).") from error


def _as_asked(content: Mapping[str, Any], task: Task) -> bool:
    """Say whether a cell was made as it is asked for now.

    Ultralytics' defaults are part of a config: a key that only another version has, and nobody gave, changes nothing.
    """
    if content.get("hash") == task.hash():
        return True
    then, now = content.get("resolved"), task.resolved()
    if not isinstance(then, Mapping) or any(then.get(part) != now[part] for part in ("condition", "measure")):
        return False
    before: Mapping[str, Any] = then.get("train", {})
    given = {*task.words, *content.get("config", {})} - {*_WHERE, "cfg"}
    shared = before.keys() & now["train"].keys()
    return given <= shared and all(before[key] == now["train"][key] for key in shared)


def result_of(content: Mapping[str, Any]) -> CellResult:
    """Read a result from the content of a cell.json."""
    measured = content.get("measured")
    return CellResult(
        cell_of(content["cell"]),
        State(content["state"]),
        None if measured is None else Measured(**measured),
        content.get("error"),
        content["config"],
        float(content.get("seconds", 0.0)),
        content.get("curves", {}),
    )


def sentence_of(error: BaseException) -> str:
    """Say in one line what went wrong.

    Args:
        error: What was raised.

    Returns:
        The first line, with the error's type where it is not one of ours.

    Examples:
        >>> sentence_of(KeyError("a"))
        "KeyError: 'a'"
        >>> sentence_of(DataError("data: expected labels, got none."))
        'data: expected labels, got none.'
    """
    from det_ls.base.errors import DetLsError

    line = next((line.strip() for line in str(error).splitlines() if line.strip()), "")
    return line if isinstance(error, DetLsError) and line else f"{type(error).__name__}: {line}".rstrip(": ")


def read_curves(file: Path) -> dict[str, list[float | None]]:
    """Read a results.csv by column.

    Args:
        file: The file.

    Returns:
        Values by column, None for one that is not finite, up to the first row that is not complete; empty where there
        is no file.
    """
    import csv
    import math

    try:
        with file.open(newline="", encoding="utf-8") as table:
            rows = list(csv.DictReader(table))
    except OSError:
        return {}
    columns: dict[str, list[float | None]] = {}
    for row in rows:
        try:
            values = {str(key).strip(): float(value) for key, value in row.items()}
        except (TypeError, ValueError):
            break
        for key, value in values.items():
            columns.setdefault(key, []).append(value if math.isfinite(value) else None)
    return columns


def _do(folder: Path, task: Task, datasets: Path, device: object, cores: int) -> tuple[Measured, Json | None]:
    """Train, or go on, and measure."""
    import torch
    from ultralytics.utils import torch_utils

    from det_ls.stock.patches import label_caches_replaced, replaced
    from det_ls.studies.measure import measure_cell
    from det_ls.studies.noise import MANIFEST, noisy_data

    data, manifest = str(task.train["data"]), None
    if parts := condition_parts(task.cell.condition):
        place = datasets / "_".join([f"seed{task.cell.seed}", *parts])
        data = str(noisy_data(data, place, task.cell.condition, task.cell.seed, task.groups))
        manifest = json.loads((place / MANIFEST).read_text(encoding="utf-8"))["counts"]
    torch.set_num_threads(cores)
    with (
        replaced(torch_utils, "NUM_THREADS", cores),  # which Ultralytics sets threads to on a CPU
        label_caches_replaced(),  # cells of the same data start at the same time
    ):
        _train(folder, {**task.words, "data": data}, device)
        weights = folder / RUN / "weights"
        chosen = weights / f"{task.weights}.pt"
        if not chosen.is_file():
            raise RunError(f"weights: expected {chosen.name} of the run, got none in '{weights.name}'.")
        measured = measure_cell(
            chosen, data, task.words, device=device, train_images=task.train_images, groups=task.groups
        )
    return measured, manifest


def _train(folder: Path, words: Mapping[str, Any], device: object) -> None:
    """Train, unless that is done, from the last epoch if there is one that a run can go on from exactly."""
    from det_ls.training.exact import ExactDetectionTrainer
    from det_ls.training.model import YOLO

    last = folder / RUN / "weights" / "last.pt"
    under_way = _progress(last, int(words.get("epochs") or 100))
    if under_way is None:
        return
    where: dict[str, Any] = {} if device is None else {"device": device}
    if under_way:
        YOLO(last).train(trainer=ExactDetectionTrainer, resume=True, **where)
        return
    shutil.rmtree(folder / RUN, ignore_errors=True)
    keys: dict[str, Any] = {key: value for key, value in words.items() if key not in {"model", "device"}}
    model = YOLO(str(words["model"]))
    model.train(
        trainer=ExactDetectionTrainer,
        **{"plots": False, **keys},
        **where,
        project=str(folder.absolute()),
        name=RUN,
        exist_ok=True,
    )


def _progress(last: Path, epochs: int) -> bool | None:
    """Say whether a run can go on exactly; None if it is trained."""
    from ultralytics.utils.patches import torch_load

    from det_ls.training.exact import state_file

    try:
        checkpoint = torch_load(last, map_location="cpu")
        epoch = int(checkpoint["epoch"])
    except Exception:  # none, or a file that no torch can read: whatever that raises, the run starts again
        return False
    if epoch < 0 or epoch + 1 >= epochs:
        return None
    return checkpoint.get("optimizer") is not None and state_file(last, epoch).is_file()


def _prepare(folder: Path, task: Task, code: str) -> None:
    """Note what the run is made with; what is there of another config goes."""
    file = folder / CONFIG_FILE
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        content = {}
    known = content.get("hash")
    if not _as_asked(content, task):
        shutil.rmtree(folder / RUN, ignore_errors=True)
        if (folder / CELL_FILE).is_file():  # numbers are never thrown away
            os.replace(folder / CELL_FILE, folder / f"cell-{str(known)[:8]}.json")
    write_json(file, {"hash": code, "resolved": task.resolved()}, indent=1)


def _asked(task: Task) -> Json:
    """Say in a cell.json what was asked."""
    return {"cell": asdict(task.cell), "config": json.loads(json.dumps(task.words, default=str))}


def _seconds(file: Path) -> float:
    """Return the time that the epochs of a run took before it was killed."""
    times = [time for time in read_curves(file).get("time", []) if time is not None]
    return times[-1] if times else 0.0


def _versions() -> dict[str, str]:
    """Name what the numbers depend on."""
    from det_ls.calibration.files import versions

    return {**versions("ultralytics", "torch", "numpy", "pycocotools"), "python": platform.python_version()}
