# SPDX-License-Identifier: AGPL-3.0-or-later
"""What a calibration found, as typed values: maps, parameters with intervals, numbers before and after, thresholds."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from det_ls.base.files import write_json
from det_ls.base.folders import claim_folder
from det_ls.calibration.judge import Change
from det_ls.calibration.maps import CalibrationMap, logit, map_to_dict
from det_ls.metrics.calibration import Reliability

MAP_FILE, NUMBERS_FILE = "map.json", "calibration.json"


@dataclass(frozen=True)
class Estimate:
    """The fitted parameters of one class, or of the shared map.

    Attributes:
        name: The class; None for the shared map.
        a: Slope of the logit, in the map that is shipped.
        b: Offset, likewise.
        a_interval: 95% interval of the true slope, around what was fitted and not around what is shipped; None where it
            cannot be told.
        b_interval: 95% interval of the true offset, likewise; None too where it is fixed at 0.
        n: Detections that it was fitted on.
        n_matched: Those of them that match an object.
        own: How much of a class's slope is its own, from 0 (that of all classes) to 1; 1 for the shared map.
        kept: How much of the fitted map's distance from the identity is shipped, from 0 (scores stay as they are) to 1
            (the map as it was fitted): :mod:`det_ls.calibration.identity`.
    """

    name: str | None
    a: float
    b: float
    a_interval: tuple[float, float] | None
    b_interval: tuple[float, float] | None
    n: int
    n_matched: int
    own: float
    kept: float = 1.0


@dataclass(frozen=True)
class Threshold:
    """The recommended operating point of one class, before and after; the latter keeps what the former keeps.

    Attributes:
        name: The class.
        before: Score threshold before (:mod:`det_ls.metrics.thresholds`).
        after: What the shipped map makes of it.
        n_tp: True positives at it.
        n_fp: False positives at it.
        n_objects: Objects of the class.
    """

    name: str
    before: float
    after: float
    n_tp: int
    n_fp: int
    n_objects: int


@dataclass(frozen=True)
class Calibration:
    """The result of a calibration.

    The numbers and diagrams are cross-fitted: every detection was calibrated by a map that has not seen its image (nor
    its group). The map itself, its parameters and the thresholds are fitted on all images.

    Attributes:
        map: The map to ship.
        method: ``platt``, ``temperature``, ``beta``, ``isotonic`` or ``desmooth``.
        target: ``iou`` or ``tp``: what the scores were fitted to.
        weighting: ``score``, ``above`` or ``all``: how detections were weighed.
        numbers: Change by key, by population ``all`` and ``kept`` (:mod:`det_ls.calibration.judge`).
        reliability: By diagram, its data before and after.
        estimates: Parameters: the shared ones first, then those by class; empty for maps without any.
        thresholds: Operating point of each class with objects.
        counts: ``images``, ``groups``, ``folds``, ``detections``, ``kept``, ``fitted`` and ``matched``.
        pipeline: AP, AP50 and detections of the whole pipeline before and after, measured by predicting again with the
            folded model; empty where that was not done.
        record: Data, split, settings, versions and SHA-256 of the source, as plain values.
        weights: The calibrated checkpoint, where one was written.
        scores: (N,) cross-fitted scores of the detections, and (N,) those before; in the order of the results.
    """

    map: CalibrationMap
    method: str
    target: str
    weighting: str
    numbers: dict[str, dict[str, Change]]
    reliability: dict[str, tuple[Reliability, Reliability]]
    estimates: tuple[Estimate, ...]
    thresholds: tuple[Threshold, ...]
    counts: dict[str, int]
    pipeline: dict[str, Change] = field(default_factory=dict)
    record: dict[str, Any] = field(default_factory=dict)
    weights: Path | None = None
    scores: tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]] | None = field(default=None, repr=False, compare=False)

    @property
    def folds(self) -> bool:
        """Whether the map is affine in the logit, and so folds into a model."""
        return self.method in {"platt", "temperature"}

    @property
    def judged_by(self) -> str:
        """The proper score whose minimum is what the map aims at: ``brier_iou`` for IoU targets, else ``brier``."""
        return "brier_iou" if self.target == "iou" else "brier"

    @property
    def iou_minus_precision(self) -> float:
        """Mean IoU minus precision of the kept boxes, false positives counting 0; NaN without any.

        It is where ``signed_gap`` ends if scores meet the IoU exactly: below 0, as even a right box has an IoU below 1.
        """
        return _mean_target(self.reliability["iou_kept"][0]) - _mean_target(self.reliability["tp_kept"][0])

    def carried(self, score: float) -> tuple[float, ...]:
        """Say what the map makes of a score.

        Args:
            score: A score before.

        Returns:
            One score, or one for each class of a map by class.
        """
        n = max(1, len(self.map.classes))
        after: list[float] = self.map(np.full(n, logit(score)), np.arange(n)).tolist()
        return tuple(after)

    def to_dict(self) -> dict[str, Any]:
        """Return everything but the scores as values that JSON can hold, None for what is undefined."""
        named = {
            key: getattr(self, key)
            for key in ("method", "target", "weighting", "numbers", "reliability", "estimates", "thresholds")
        }
        rest = {key: getattr(self, key) for key in ("counts", "pipeline", "record")}
        weights = None if self.weights is None else str(self.weights)
        return {"map": map_to_dict(self.map), **plain({**named, **rest}), "weights": weights}

    def summary(self) -> dict[str, Any]:
        """Return what a calibrated checkpoint records: plain values, a few kilobytes at most."""
        numbers = {
            population: {key: plain([change.before, change.after]) for key, change in by_key.items()}
            for population, by_key in self.numbers.items()
        }
        named = {key: getattr(self, key) for key in ("method", "target", "weighting", "counts")}
        return {"map": map_to_dict(self.map), **named, "before_after": numbers, **plain(self.record)}

    def save(self, folder: str | Path, exist_ok: bool = False) -> None:
        """Write ``map.json`` and ``calibration.json``, both or none of them.

        Args:
            folder: Where to write; made if need be.
            exist_ok: Whether to replace files that are there.

        Raises:
            FileExistsError: If a file is there and ``exist_ok`` is False.
        """
        with claim_folder(folder, results=(MAP_FILE, NUMBERS_FILE), exist_ok=exist_ok) as place:
            write_json(place / MAP_FILE, {**map_to_dict(self.map), "fitted": self.summary()}, indent=2)
            write_json(place / NUMBERS_FILE, self.to_dict(), indent=2)


def _mean_target(data: Reliability) -> float:
    """Average the targets of all detections of a diagram."""
    n = data.count.sum()
    return float((data.count * np.nan_to_num(data.mean_target)).sum() / n) if n else float("nan")


def plain(value: Any) -> Any:
    """Turn dataclasses, arrays and NaN into what JSON holds, at any depth.

    Args:
        value: Nested values.

    Returns:
        Dictionaries, lists, numbers, strings and None.
    """
    if hasattr(value, "__dataclass_fields__"):
        return plain(asdict(value))
    if isinstance(value, Mapping):
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(v) for v in value]
    if isinstance(value, np.ndarray):
        return plain(value.tolist())
    if isinstance(value, np.generic):
        return plain(value.item())
    if isinstance(value, Path):
        return str(value)
    return None if isinstance(value, float) and not math.isfinite(value) else value
