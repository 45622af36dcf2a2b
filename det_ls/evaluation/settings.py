# SPDX-License-Identifier: AGPL-3.0-or-later
"""How an evaluation is measured, as one value that is checked before any work starts."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np

from det_ls.base.arguments import check_flag, check_fraction, check_integer, check_number
from det_ls.base.errors import ArgumentError, ArgumentTypeError
from det_ls.metrics.evaluators import DEFAULT_EVALUATOR, get_evaluator
from det_ls.metrics.grid import THRESHOLDS
from det_ls.metrics.protocols import get_protocol
from det_ls.stock.devices import check_device
from det_ls.uncertainty.intervals import LEAST_REPLICATES


@dataclass(frozen=True)
class PredictionSettings:
    """How a model predicts.

    Attributes:
        imgsz: Length of the longer side of the model's input, in pixels.
        batch: Images a batch.
        conf: Smallest score that is kept.
        iou: IoU threshold of NMS.
        max_det: Detections an image at most.
        device: As in Ultralytics, for example ``cpu`` or ``0``; None chooses.
        workers: Processes that load images.
        end2end: Whether an end-to-end model uses its NMS-free head; None means yes.
        single_cls: Whether NMS takes all boxes for one class.

    Raises:
        TypeError: If a value has the wrong type.
        ValueError: If a value is out of range, or there is no such device.
    """

    imgsz: int = 640
    batch: int = 16
    conf: float = 0.001
    iou: float = 0.7
    max_det: int = 300
    device: object = None
    workers: int = 8
    end2end: bool | None = None
    single_cls: bool = False

    def __post_init__(self) -> None:
        """Check every value."""
        for name, least in (("imgsz", 1), ("batch", 1), ("max_det", 1), ("workers", 0)):
            check_integer(name, getattr(self, name), least)
        for name in ("conf", "iou"):
            check_number(name, getattr(self, name), 0, 1)
        if self.end2end is not None:
            check_flag("end2end", self.end2end)
        check_flag("single_cls", self.single_cls)
        check_device(self.device)


@dataclass(frozen=True)
class MeasureSettings:
    """How detections are measured.

    Attributes:
        protocol: ``det_ls`` (ours) or ``reference`` (reproduces the reference tools, quirks included).
        bootstrap: Replicates of the images (or groups of them) for intervals, at least 100; 0 for none.
        simulations: Simulations of a perfectly calibrated detector; 0 for no floors.
        seed: Seed of bootstrap, simulations and folds.
        level: Nominal coverage of the intervals, in (0, 1).
        threshold: ``lrp`` to choose the score threshold on other images, or the threshold itself: one of
            `det_ls.metrics.grid.THRESHOLDS`, which are the multiples of 0.01 and a few more.
        miss_cost: What a missed object costs in that choice, where a false alarm costs 1.
        evaluator: ``pycocotools``, or ``hotcoco``, which gives the same numbers faster and has to be installed.

    Raises:
        ImportError: If the evaluator is not installed.
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
    evaluator: str = DEFAULT_EVALUATOR

    def __post_init__(self) -> None:
        """Check every value."""
        get_protocol(self.protocol)
        check_integer("bootstrap", self.bootstrap)
        if 0 < self.bootstrap < LEAST_REPLICATES:
            raise ArgumentError(
                f"bootstrap: expected 0 or an integer of at least {LEAST_REPLICATES}, got {self.bootstrap}."
            )
        check_integer("simulations", self.simulations)
        check_integer("seed", self.seed)
        check_fraction("level", self.level)
        if self.threshold != "lrp":
            if isinstance(self.threshold, str):
                raise ArgumentTypeError(f"threshold: expected 'lrp' or a number, got {self.threshold!r}.")
            check_number("threshold", self.threshold, 0, 1)
            if not np.isclose(THRESHOLDS, float(self.threshold), atol=1e-9, rtol=0).any():
                raise ArgumentError(
                    "threshold: expected 'lrp' or a multiple of 0.01 below 1 (or 0.001, 0.002, 0.005, 0.995, 0.998, "
                    f"0.999), got {self.threshold!r}."
                )
        check_number("miss_cost", self.miss_cost, 0.01, 100)
        if self.miss_cost != 1 and self.threshold != "lrp":
            raise ArgumentError(
                f"miss_cost: expected a threshold that is chosen (threshold=lrp), got threshold={self.threshold}."
            )
        get_evaluator(self.evaluator)

    def to_dict(self) -> dict[str, Any]:
        """Return what ``metrics.json`` records; there ``metrics`` is the protocol."""
        return {("metrics" if key == "protocol" else key): value for key, value in asdict(self).items()}
