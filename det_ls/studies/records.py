# SPDX-License-Identifier: AGPL-3.0-or-later
"""What a study is made of: arms, conditions, cells, and what was measured of a cell."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

Values = Mapping[str, float]
"""Values by the number's name; of the kept boxes with ``kept.`` before it (``AP``, ``kept.absolute_gap``)."""


@dataclass(frozen=True, order=True)
class Arm:
    """One way to train.

    Attributes:
        label_smoothing: The key's value as it is typed: ``0``, ``0.1``, a mapping.
        mode: The mode; means nothing where the epsilon is 0.
    """

    label_smoothing: str = "0"
    mode: str = "redistribute"

    @property
    def stock(self) -> bool:
        """Whether this is training without smoothing."""
        return self.label_smoothing == "0"

    @property
    def name(self) -> str:
        """``stock``, or mode and epsilon."""
        return "stock" if self.stock else f"{self.mode} {self.label_smoothing}"


@dataclass(frozen=True, order=True)
class Condition:
    """What the arms are compared under; each has a decision of its own.

    Attributes:
        flip: Share of the training objects whose class is another one, in [0, 1).
        drop: Share of the training objects that are missing, in [0, 1).
        jitter: Standard deviation of the training boxes' sides, as a share of the box's width and height, at least 0.
        fraction: Share of the training images in use, in (0, 1].
    """

    flip: float = 0.0
    drop: float = 0.0
    jitter: float = 0.0
    fraction: float = 1.0


@dataclass(frozen=True, order=True)
class Cell:
    """One training run of a study.

    Attributes:
        condition: What it is trained under.
        arm: How it is trained.
        seed: Its seed: cells of equal seed share initial weights, order of the data and label noise, so that they pair.
    """

    condition: Condition
    arm: Arm
    seed: int


class State(str, Enum):
    """How far a cell has come."""

    WAITING = "waiting"
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"


@dataclass(frozen=True)
class Measured:
    """The numbers of a finished cell.

    Attributes:
        val: On the validation split.
        train: On (a sample of) the training split, with the labels that the run was trained on.
        platt: On the validation split with the same weights and a shared Platt map that other images fitted: the rival.
        reliability: By ``val`` and ``platt``, the kept boxes' reliability diagram: a list of bins, each with
            ``score`` and ``precision`` (means, 0-1) and ``count``.
    """

    val: Values
    train: Values
    platt: Values
    reliability: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class CellResult:
    """What is known of a cell.

    Attributes:
        cell: Which.
        state: How far it has come.
        measured: Its numbers, once it is done.
        error: One sentence, where it failed.
        config: The training keys in use.
        seconds: Time of training and evaluation.
        curves: The columns of the run's ``results.csv``, by name; None for a value that is not finite.
    """

    cell: Cell
    state: State
    measured: Measured | None = None
    error: str | None = None
    config: Mapping[str, Any] = field(default_factory=dict)
    seconds: float = 0.0
    curves: Mapping[str, list[float | None]] = field(default_factory=dict)
