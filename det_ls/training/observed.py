# SPDX-License-Identifier: AGPL-3.0-or-later
"""What the trainer measures for the policy in an epoch: nothing, or the gap on the held-out slice."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from ultralytics.utils import RANK

from det_ls.smoothing.policy import EpochFacts, Policy
from det_ls.training.gap import gap_validator, measured_gap
from det_ls.training.held_out import HELD_OUT_LIST

GAP_COLUMN = "label_smoothing_gap"


class Observer:
    """Measures nothing; a run's observer is asked in every process."""

    def begin(self) -> None:
        """Forget what was measured: an epoch begins, for the first time or again."""

    def end(self, trainer: Any) -> None:
        """Measure, after the epoch's last step.

        Args:
            trainer: The trainer.
        """

    def logged(self) -> dict[str, float]:
        """Return what results.csv says of the epoch: the same columns for every epoch."""
        return {}

    def facts(self, epoch: int, epochs: int, metrics: dict[str, float]) -> EpochFacts:
        """Return the facts of the epoch.

        Args:
            epoch: The epoch, counted from 0.
            epochs: The run's number of epochs as it stands.
            metrics: The numbers of its row of results.csv.

        Returns:
            The facts for the policy.
        """
        return EpochFacts(epoch, epochs, metrics)

    def close(self) -> None:
        """Let go of what it holds: the run has ended."""


class GapObserver(Observer):
    """Measures the gap of the kept boxes on the held-out slice, in the first process."""

    def __init__(self, trainer: Any, policy: Policy) -> None:
        """Load the slice.

        Args:
            trainer: The trainer, set up but for this.
            policy: The policy, which says in which epochs it wants the gap.

        Raises:
            ValueError: If there is no object in the slice.
        """
        self._policy = policy
        self._validator: Any = None
        self._gap: float | None = None
        if RANK in {-1, 0}:
            self._validator = gap_validator(trainer, str(Path(trainer.save_dir) / HELD_OUT_LIST))

    def begin(self) -> None:
        """Forget the gap."""
        self._gap = None

    def end(self, trainer: Any) -> None:
        """Measure the gap, if the policy wants it."""
        if self._validator is not None and self._policy.wants_gap(trainer.epoch, trainer.epochs):
            self._gap = measured_gap(self._validator, trainer)

    def logged(self) -> dict[str, float]:
        """Return the gap; not a number where it was not measured."""
        return {GAP_COLUMN: math.nan if self._gap is None else self._gap}

    def facts(self, epoch: int, epochs: int, metrics: dict[str, float]) -> EpochFacts:
        """Return the facts with the gap."""
        return EpochFacts(epoch, epochs, metrics, gap=self._gap)

    def close(self) -> None:
        """End the processes that load the slice."""
        close = getattr(getattr(self._validator, "dataloader", None), "close", None)
        if close is not None:
            close()


def observer_for(policy: Policy | None, trainer: Any) -> Observer:
    """Build what measures for a policy.

    Args:
        policy: The run's policy, or None.
        trainer: The trainer, set up but for this.

    Returns:
        The observer.

    Raises:
        ValueError: If what the policy needs cannot be measured.
    """
    if policy is not None and policy.needs_gap:
        return GapObserver(trainer, policy)
    return Observer()
