# SPDX-License-Identifier: AGPL-3.0-or-later
"""What a study is asked to do, checked before any work, and kept in its study.json."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from det_ls.base.arguments import check_integer, check_number, shown
from det_ls.base.errors import ArgumentError, ArgumentTypeError, DataError, DetLsError, MissingFileError
from det_ls.studies.cell import SCHEMA, WEIGHTS, Task
from det_ls.studies.grid import GRID_WORDS, NOISE_WORDS, Grid, training_keys
from det_ls.studies.result import STUDY_FILE

EXECUTORS = ("local", "ray")
OURS = {
    "project": "save_dir=",
    "name": "save_dir=",
    "seed": "seeds=",
    "save": "no such key: a study keeps checkpoints",
    "resume": "resume=FOLDER",
    "cfg": "its keys as words",
    "mode": "no mode",
    "task": "no such key: a study measures detection",
}
"""Training keys that a study sets itself, and what to write instead."""
_SECONDS = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}


@dataclass(frozen=True)
class Execution:
    """How cells are run; it changes no number.

    Attributes:
        executor: ``local`` or ``ray``.
        address: Address of a Ray cluster; None for none.
        device: Devices, as ``cpu`` or ``0,1``; None for the first GPU, or the CPU where there is none.
        jobs: Cells at the same time at most.
        cores: Threads of a cell.
        memory: GiB of a cell.
        budget: Seconds in which new cells may be started and are expected to end.
    """

    executor: str = "local"
    address: str | None = None
    device: str | None = None
    jobs: int | None = None
    cores: int | None = None
    memory: float | None = None
    budget: float | None = None

    @classmethod
    def of(cls, words: Mapping[str, Any]) -> Execution:
        """Read and check the words.

        Args:
            words: Values by key; None means the default.

        Returns:
            The execution.

        Raises:
            TypeError: If a value has the wrong type.
            ValueError: If a value is out of range.

        Examples:
            >>> Execution.of({"device": (0, 1), "budget": "1.5h"})
            Execution(executor='local', address=None, device='0,1', jobs=None, cores=None, memory=None, budget=5400.0)
        """
        given = {key: value for key, value in words.items() if value is not None}
        if given.get("executor", "local") not in EXECUTORS:
            raise ArgumentError(f"executor: expected one of {', '.join(EXECUTORS)}, got {shown(given['executor'])}.")
        for name in ("jobs", "cores"):
            if name in given:
                check_integer(name, given[name], 1)
        if "memory" in given:
            check_number("memory", given["memory"], 0.01, 1e6)
        if "budget" in given:
            given["budget"] = seconds_of(given["budget"])
        if "address" in given and given.get("executor") != "ray":
            raise ArgumentError("address: expected executor=ray with it, got executor=local.")
        if "device" in given:
            device = given["device"]
            parts = device if isinstance(device, (list, tuple)) else re.sub(r"[\s\[\]()']", "", str(device)).split(",")
            given["device"] = ",".join(str(part) for part in parts)
        return cls(**given)

    @property
    def devices(self) -> tuple[str, ...]:
        """The devices that cells run on, one each."""
        if self.device is not None:
            return tuple(self.device.split(","))
        import torch

        return ("0",) if torch.cuda.is_available() else ("cpu",)


@dataclass(frozen=True)
class Plan:
    """What a study is asked to do.

    Attributes:
        words: The words of the grid, as they were given.
        train: The training keys that all cells share, ``data`` and ``model`` among them.
        weights: Which checkpoint is measured.
        train_images: Images of the training split to measure.
        groups: Which images belong together.
        execution: The words of :class:`Execution` that were given, the budget apart: resuming goes on with them.
        where: The folder that relative paths start from, as seen from the study's, or an absolute path
            (:mod:`det_ls.studies.starts`); None of studies that did not note it.
    """

    words: Mapping[str, Any]
    train: Mapping[str, Any]
    weights: str = "best"
    train_images: int = 200
    groups: str | None = None
    execution: Mapping[str, Any] = field(default_factory=dict)
    where: str | None = None
    grid: Grid = field(init=False)

    def __post_init__(self) -> None:
        """Read the grid, and check all that needs no data."""
        object.__setattr__(self, "grid", Grid.from_words(self.words))
        for key in ("data", "model"):
            if not self.train.get(key):
                raise ArgumentTypeError(f"{key}: expected {key}=... for a study, got none.")
        for key, instead in OURS.items():
            if key in self.train:
                raise ArgumentError(f"{key}: expected {instead} (in a study), got {key}={shown(self.train[key])}.")
        if self.weights not in WEIGHTS:
            raise ArgumentError(f"weights: expected one of {', '.join(WEIGHTS)}, got {shown(self.weights)}.")
        check_integer("train_images", self.train_images)

    @property
    def tasks(self) -> tuple[Task, ...]:
        """What each cell is asked to do, in order."""
        return tuple(
            Task(
                cell,
                {**self.train, "data": data_of(self.train["data"], cell.seed)},
                self.weights,
                self.train_images,
                self.groups,
            )
            for cell in self.grid.cells
        )

    def check(self) -> None:
        """Check keys, model and data of every cell, before any of them runs.

        Raises:
            FileNotFoundError: If the model or a data set does not exist.
            TypeError: If a training key is unknown.
            ValueError: If a key does not fit.
        """
        from det_ls.data.locate import check_dataset
        from det_ls.smoothing.request import Request
        from det_ls.training.exact import ExactDetectionTrainer
        from det_ls.training.trainer import check_data

        shared = {key: value for key, value in self.train.items() if key.startswith("label_smoothing")}
        _check_training(self.train)
        _check_model(str(self.train["model"]))
        requests = []
        for arm in self.grid.arms:
            keys = training_keys(arm)
            requests.append(Request.parse({**shared, **keys} if keys else {}))
        for data in dict.fromkeys(str(task.train["data"]) for task in self.tasks):
            resolved = check_dataset(data, "train")
            check_dataset(data, "val")
            if len(resolved["names"]) < 2 and any(c.flip for c in self.grid.conditions):
                raise ArgumentError(f"label_noise: expected data with at least 2 classes to flip, got one in '{data}'.")
            for request in requests:
                check_data(ExactDetectionTrainer, request, data, self.train.get("single_cls"))

    def to_dict(self) -> dict[str, Any]:
        """Return what JSON can hold."""
        content = {f.name: getattr(self, f.name) for f in fields(self) if f.init}
        plain: dict[str, Any] = json.loads(json.dumps({"schema": SCHEMA, **content}, default=str))
        return plain

    @classmethod
    def read(cls, folder: Path, name: str) -> Plan:
        """Read the plan of a study that was begun.

        Args:
            folder: Its folder.
            name: The argument that named it.

        Returns:
            The plan.

        Raises:
            FileNotFoundError: If there is no study.
            ValueError: If its study.json is of another version, or no such file.
        """
        file = folder / STUDY_FILE
        try:
            content = json.loads(file.read_text(encoding="utf-8"))
        except OSError as error:
            raise MissingFileError(
                f"{name}: expected the folder of a study, got '{folder}', which has no {STUDY_FILE}."
            ) from error
        except ValueError as error:
            raise DataError(f"{name}: expected a {STUDY_FILE} of a study, got '{file}', which is no JSON.") from error
        if not isinstance(content, dict) or content.pop("schema", None) != SCHEMA:
            raise DataError(f"{name}: expected a {STUDY_FILE} of version {SCHEMA}, got '{file}' of another.")
        try:
            return cls(**content)
        except TypeError as error:
            raise DataError(f"{name}: expected a {STUDY_FILE} of a study, got '{file}' ({error}).") from error

    def with_words(self, words: Mapping[str, Any], execution: Mapping[str, Any]) -> Plan:
        """Return the plan with other words of the grid, such as more seeds, and of the execution."""
        return replace(self, words={**self.words, **words}, execution={**self.execution, **execution})


def split_words(arguments: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Split a study's arguments into the words of its grid and training keys.

    Args:
        arguments: Values by key.

    Returns:
        Both, in this order; what is None is left out.
    """
    given = {key: value for key, value in arguments.items() if value is not None}
    words = {key: value for key, value in given.items() if key in GRID_WORDS}
    return words, {key: value for key, value in given.items() if key not in GRID_WORDS}


def data_of(data: object, seed: int) -> str:
    """Name the data set of a seed: ``{seed}`` in the name stands for the seed.

    Args:
        data: As it was given.
        seed: The seed.

    Returns:
        The name.

    Examples:
        >>> data_of("phantom_{seed}/data.yaml", 10)
        'phantom_10/data.yaml'
    """
    return str(data).replace("{seed}", str(seed))


def seconds_of(budget: object) -> float:
    """Read a time with its unit.

    Args:
        budget: Such as ``3h``, ``90m``, ``30s`` or ``2d``; a number is seconds.

    Returns:
        Seconds.

    Raises:
        ValueError: If it is none.

    Examples:
        >>> seconds_of("1.5h")
        5400.0
    """
    if isinstance(budget, (int, float)) and not isinstance(budget, bool):
        seconds = float(budget)
    else:
        found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([smhd])", str(budget).strip().lower())
        seconds = float(found.group(1)) * _SECONDS[found.group(2)] if found else -1.0
    if not 0 < seconds < float("inf"):
        raise ArgumentError(f"budget: expected a time such as 3h, 90m or 2d, got {shown(budget)}.")
    return seconds


def default_name(data: object) -> str:
    """Name a study after its data.

    Args:
        data: As it was given.

    Returns:
        A word.

    Examples:
        >>> default_name("datasets/brain-tumor.yaml"), default_name("runs/phantom_{seed}/data.yaml")
        ('brain-tumor', 'phantom')
    """
    path = Path(str(data).replace("{seed}", ""))
    name = path.parent.name if path.stem in {"data", "dataset"} and path.parent.name else path.stem
    return name.strip("_-. ") or "study"


def default_folder(data: object) -> Path:
    """Name the next free folder of a study: after its data.

    Args:
        data: As it was given.

    Returns:
        A folder in ``runs/study`` that is not there.
    """
    name = default_name(data)
    folders = (Path("runs/study") / (name if number == 1 else f"{name}{number}") for number in range(1, 10_000))
    return next(folder for folder in folders if not folder.exists())


def _check_training(train: Mapping[str, Any]) -> None:
    """Check the training keys as Ultralytics will."""
    from ultralytics.cfg import get_cfg

    from det_ls.smoothing.settings import split_keys
    from det_ls.stock.logs import without_lines

    keys = split_keys(train)[1]
    try:
        with without_lines(""):
            get_cfg(overrides={**keys, "mode": "train"})
    except SyntaxError as error:
        line = next((line for line in str(error).splitlines() if line.strip()), "").strip()
        raise ArgumentTypeError(f"study: expected training keys of yolo, got another ({line}).") from error
    except (TypeError, ValueError) as error:
        if isinstance(error, DetLsError):
            raise
        line = str(error).splitlines()[0].strip().rstrip(".")
        raise ArgumentError(f"study: expected training keys that fit ({line}).") from error
    assert not set(NOISE_WORDS) & set(keys)


def _check_model(model: str) -> None:
    """Load or build the model once, to see that there is one, and that it detects."""
    from det_ls.stock.logs import quiet
    from det_ls.training.model import YOLO

    try:
        with quiet():
            task = YOLO(model).task
    except FileNotFoundError as error:
        raise MissingFileError(f"model: expected a model, got {shown(model)}, which was not found.") from error
    if task != "detect":
        raise ArgumentError(f"model: expected a detection model for a study, got one for the task {task!r}.")
