# SPDX-License-Identifier: AGPL-3.0-or-later
"""Policies: which smoothing matrix is in force in which epoch.

The trainer asks the run's policy for each epoch's matrix, tells it what was measured after the epoch, and saves its
state with the checkpoint; the criterion only ever sees the matrix. ``label_smoothing_schedule`` names the policy.
To add one, derive from :class:`Policy` and register a function that makes it::

    @register_policy("mine")
    def make(smoothing, names, table):
        return MyPolicy(smoothing.epsilons(names))
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol

from det_ls.base.errors import ArgumentError
from det_ls.smoothing.columns import column_names

if TYPE_CHECKING:
    from torch import Tensor

    from det_ls.smoothing.similarity import SimilarityTable

    Factory = Callable[["Keys", Sequence[str], SimilarityTable | None], "Policy"]


@dataclass(frozen=True)
class EpochFacts:
    """What was measured in an epoch.

    Attributes:
        epoch: The epoch, counted from 0.
        epochs: The run's number of epochs as it stands.
        metrics: The numbers of the epoch's row of results.csv: losses, validation metrics, learning rates.
    """

    epoch: int
    epochs: int
    metrics: Mapping[str, float] = field(default_factory=dict)


class Policy(ABC):
    """Says which smoothing matrix is in force; one object for each run and process.

    A policy without state only implements :meth:`matrix` and :meth:`logged`, as functions of the epoch. In a
    distributed run the first process observes, and hands its state to the others before each epoch.
    """

    @abstractmethod
    def matrix(self, epoch: int, epochs: int) -> Tensor:
        """Return the smoothing matrix of an epoch.

        Args:
            epoch: The epoch, counted from 0.
            epochs: The run's number of epochs as it stands at the epoch's start.

        Returns:
            P of shape (K, K).
        """

    @abstractmethod
    def logged(self, epoch: int, epochs: int) -> dict[str, float]:
        """Return what results.csv says of an epoch, before :meth:`observe` is told of it.

        Args:
            epoch: As in :meth:`matrix`.
            epochs: As in :meth:`matrix`.

        Returns:
            The same columns for every epoch.
        """

    def observe(self, facts: EpochFacts) -> None:  # noqa: B027 - optional
        """Take note of what was measured in an epoch, before its checkpoint is saved.

        Args:
            facts: The measurements.
        """

    def state_dict(self) -> dict[str, Any]:
        """Return the state to be saved in last.pt.

        Returns:
            Plain values: numbers, strings, None, and lists and dicts of these; empty without state.
        """
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over a saved state, on resume and when training goes back to last.pt after a NaN.

        Args:
            state: What :meth:`state_dict` returned.

        Raises:
            ValueError: If a policy without state is given one.
        """
        if state:
            raise ArgumentError(f"state: expected none for {type(self).__name__}, got {', '.join(map(str, state))}.")


class Keys(Protocol):
    """What a schedule needs of the label-smoothing keys (`det_ls.smoothing.settings.LabelSmoothing`)."""

    @property
    def label_smoothing(self) -> float | Mapping[Any, float]:
        """Epsilon, or the epsilon of each class."""
        ...

    def matrix(self, names: Sequence[str], table: SimilarityTable | None, scale: float) -> Tensor:
        """Return P of shape (K, K) for the scaled epsilons."""
        ...


class ScheduledPolicy(Policy):
    """Every class's epsilon times a curve over the epochs: constant, linear or cosine.

    Examples:
        >>> from det_ls.smoothing.settings import LabelSmoothing
        >>> policy = ScheduledPolicy(cosine, LabelSmoothing(0.1), ["a", "b"])
        >>> policy.logged(epoch=5, epochs=11)
        {'label_smoothing': 0.05}
        >>> policy.matrix(5, 11)[0]
        tensor([0.9500, 0.0500], dtype=torch.float64)
    """

    def __init__(
        self,
        curve: Callable[[float], float],
        smoothing: Keys,
        names: Sequence[str],
        table: SimilarityTable | None = None,
    ) -> None:
        """Hold what the matrices are made of.

        Args:
            curve: The factor of epsilon at the share x of the run, 0 <= x <= 1, that has passed.
            smoothing: The keys.
            names: The data set's K class names, in index order.
            table: The table that the keys name.
        """
        self._curve = curve
        self._smoothing = smoothing
        self._names = list(names)
        self._table = table

    def scale(self, epoch: int, epochs: int) -> float:
        """Return the curve's factor f(e / (E - 1)) for an epoch.

        Args:
            epoch: e, counted from 0.
            epochs: E; ``time=`` may make it smaller than e.

        Returns:
            The factor, in [0, 1]; 1 when E is 1.
        """
        return self._curve(min(max(epoch / (epochs - 1), 0.0), 1.0)) if epochs > 1 else 1.0

    def matrix(self, epoch: int, epochs: int) -> Tensor:
        """Return the matrix of the scaled epsilons."""
        return self._smoothing.matrix(self._names, self._table, self.scale(epoch, epochs))

    def logged(self, epoch: int, epochs: int) -> dict[str, float]:
        """Return one column ``label_smoothing``, or one for each key of a mapping."""
        return epsilon_columns(self._smoothing.label_smoothing, self.scale(epoch, epochs))


def epsilon_columns(epsilon: float | Mapping[Any, float], scale: float = 1.0) -> dict[str, float]:
    """Give the columns of results.csv that say which epsilon is in force.

    Args:
        epsilon: One number, or a mapping from class to number.
        scale: What to multiply it with.

    Returns:
        One column ``label_smoothing``, or one for each key of a mapping.
    """
    if isinstance(epsilon, Mapping):
        return {name: scale * epsilon[key] for key, name in column_names(epsilon).items()}
    return {"label_smoothing": scale * float(epsilon)}


def constant(x: float) -> float:
    """Return 1."""
    del x
    return 1.0


def linear(x: float) -> float:
    """Return 1 - x."""
    return 1.0 - x


def cosine(x: float) -> float:
    """Return (1 + cos(pi x)) / 2."""
    return (1.0 + math.cos(math.pi * x)) / 2.0


POLICIES: dict[str, Factory] = {
    "constant": partial(ScheduledPolicy, constant),
    "linear": partial(ScheduledPolicy, linear),
    "cosine": partial(ScheduledPolicy, cosine),
}


def register_policy(name: str) -> Callable[[Factory], Factory]:
    """Make a policy known under a value of ``label_smoothing_schedule``.

    The module that does so has to be imported in every process of a distributed run, for example by the module of the
    trainer class.

    Args:
        name: The value.

    Returns:
        A decorator for a function of the keys, the K class names in index order and the similarity table (or None).

    Raises:
        ValueError: If the name is taken.
    """

    def register(factory: Factory) -> Factory:
        if name in POLICIES:
            raise ArgumentError(f"name: expected a new policy's name, got {name!r}, which is taken.")
        POLICIES[name] = factory
        return factory

    return register
