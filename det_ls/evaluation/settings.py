# SPDX-License-Identifier: AGPL-3.0-or-later
"""How an evaluation is measured, as one value that is checked before any work starts."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

from det_ls.base.arguments import check_fraction, check_integer
from det_ls.metrics.protocols import get_protocol
from det_ls.uncertainty.intervals import LEAST_REPLICATES


@dataclass(frozen=True)
class MeasureSettings:
    """How detections are measured.

    Attributes:
        protocol: ``det_ls`` (ours) or ``reference`` (reproduces the reference tools, quirks included).
        bootstrap: Replicates of the images (or groups of them) for intervals, at least 100; 0 for none.
        simulations: Simulations of a perfectly calibrated detector; 0 for no floors.
        seed: Seed of bootstrap, simulations and folds.
        level: Nominal coverage of the intervals, in (0, 1).
        threshold: ``lrp`` to choose the score threshold on other images, or the threshold itself, in [0, 1).
        miss_cost: What a missed object costs in that choice, where a false alarm costs 1.

    Raises:
        TypeError: If a value has the wrong type.
        ValueError: If a value is out of range.
    """

    protocol: str = "det_ls"
    bootstrap: int = 0
    simulations: int = 100
    seed: int = 0
    level: float = 0.95
    threshold: float | Literal["lrp"] = "lrp"
    miss_cost: float = 1.0

    def __post_init__(self) -> None:
        """Check every value."""
        get_protocol(self.protocol)
        check_integer("bootstrap", self.bootstrap)
        if 0 < self.bootstrap < LEAST_REPLICATES:
            raise ValueError(
                f"bootstrap: expected 0 or an integer of at least {LEAST_REPLICATES}, got {self.bootstrap}."
            )
        check_integer("simulations", self.simulations)
        check_integer("seed", self.seed)
        check_fraction("level", self.level)
        self._check_threshold()
        if isinstance(self.miss_cost, bool) or not isinstance(self.miss_cost, (int, float)):
            raise TypeError(f"miss_cost: expected a number above 0, got {self.miss_cost!r}.")
        if not 0 < self.miss_cost < float("inf"):
            raise ValueError(f"miss_cost: expected a number above 0, got {self.miss_cost!r}.")

    def _check_threshold(self) -> None:
        if self.threshold == "lrp":
            return
        message = f"threshold: expected 'lrp' or a number from 0 to below 1, got {self.threshold!r}."
        if isinstance(self.threshold, bool) or not isinstance(self.threshold, (int, float)):
            raise TypeError(message)
        if not 0 <= self.threshold < 1:
            raise ValueError(message)

    def to_dict(self) -> dict[str, Any]:
        """Return what ``metrics.json`` records: ``metrics`` is the protocol."""
        return {("metrics" if key == "protocol" else key): value for key, value in asdict(self).items()}
