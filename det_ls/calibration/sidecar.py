# SPDX-License-Identifier: AGPL-3.0-or-later
"""Maps beside a model: apply one to the Results of any Ultralytics model, for maps that cannot be folded."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from det_ls.base.errors import ArgumentError, ArgumentTypeError
from det_ls.calibration.maps import CalibrationMap, class_positions, logit, map_from_dict
from det_ls.data.coco import load_coco

_START, _EVENT = "on_predict_start", "on_predict_postprocess_end"


@dataclass(frozen=True)
class Calibrator:
    """A map that works on Ultralytics' Results.

    Attributes:
        map: The map.
    """

    map: CalibrationMap
    _attached: list[Any] = field(default_factory=list, repr=False, compare=False)

    def __call__(self, results: Iterable[Any]) -> None:
        """Replace the scores of Results by calibrated ones, in place; order and number of boxes stay.

        Args:
            results: What ``model.predict`` returned: boxes, with or without track ids, or oriented boxes.

        Raises:
            ValueError: If the map does not know a class of the model.
        """
        for result in results:
            boxes = result.boxes if result.boxes is not None else result.obb
            if boxes is None or not len(boxes):
                continue
            indices = sorted(result.names)
            position = dict(
                zip(indices, class_positions(self.map.classes, [result.names[i] for i in indices]), strict=True)
            )
            cls = np.array([position[int(c)] for c in boxes.cls], np.int64)
            scores = np.array([float(s) for s in boxes.conf])
            data = boxes.data.clone() if hasattr(boxes.data, "clone") else boxes.data.copy()
            calibrated = self.map(logit(scores), cls)
            data[:, -2] = data.new_tensor(calibrated) if hasattr(data, "new_tensor") else calibrated
            boxes.data = data

    def attach(self, model: Any) -> Any:
        """Calibrate whatever a model predicts from now on.

        ``conf``, non-maximum suppression and a tracker still see the scores as they were; only what is returned is
        calibrated. A calibrator that is attached already is not attached twice.

        Args:
            model: An ``ultralytics.YOLO``.

        Returns:
            The same model.

        Raises:
            TypeError: If it takes no callbacks.
            ValueError: If another calibrator is attached to it.
        """
        if not hasattr(model, "add_callback"):
            raise ArgumentTypeError(f"model: expected an ultralytics.YOLO, got {type(model).__name__}.")
        there = [c.calibrator for c in model.callbacks.get(_EVENT, ()) if isinstance(c, _Calibrate)]
        if any(calibrator is not self for calibrator in there):
            raise ArgumentError("model: expected one without a calibrator, got one with another: detach it first.")
        if not there:
            last = _Calibrate(self)
            model.add_callback(_EVENT, last)
            model.add_callback(_START, last.move_to_the_end)
            self._attached.append(model)
        return model

    def detach(self) -> None:
        """Leave every model that this was attached to as it was."""
        while self._attached:
            model = self._attached.pop()
            for owner in (model, getattr(model, "predictor", None)):
                callbacks = getattr(owner, "callbacks", {})
                for event in (_START, _EVENT):
                    kept = [c for c in callbacks.get(event, ()) if not self._is_ours(c)]
                    callbacks.get(event, [])[:] = kept

    def _is_ours(self, callback: object) -> bool:
        owner = getattr(callback, "__self__", callback)
        return isinstance(owner, _Calibrate) and owner.calibrator is self


@dataclass(frozen=True, eq=False)
class _Calibrate:
    """The callback that calibrates, after all others: a tracker, which works in a callback too, needs scores as is."""

    calibrator: Calibrator

    def __call__(self, predictor: Any) -> None:
        self.calibrator(predictor.results)

    def move_to_the_end(self, predictor: Any) -> None:
        """Be the last of the callbacks: a tracker registers its own when tracking begins."""
        listed = predictor.callbacks[_EVENT]
        listed[:] = [*(c for c in listed if c is not self), self]


def load_calibrator(path: str | Path) -> Calibrator:
    """Load a map that a calibration wrote.

    Args:
        path: A ``map.json``.

    Returns:
        A calibrator for Ultralytics' Results.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it holds no map of det-ls.
    """
    return Calibrator(read_map(path))


def read_map(path: object) -> CalibrationMap:
    """Read a map from a file, or from its loaded content.

    Args:
        path: A ``map.json``, or a dictionary as in it.

    Returns:
        The map.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it holds no map of det-ls.
    """
    return map_from_dict(load_coco(path, "map"), "map")
