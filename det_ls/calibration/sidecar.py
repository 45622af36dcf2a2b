# SPDX-License-Identifier: AGPL-3.0-or-later
"""Maps beside a model: apply one to the Results of any Ultralytics model, for maps that cannot be folded."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from det_ls.base.errors import ArgumentTypeError
from det_ls.calibration.maps import CalibrationMap, class_positions, logit, map_from_dict
from det_ls.data.coco import load_coco

_EVENT = "on_predict_postprocess_end"


@dataclass(frozen=True)
class Calibrator:
    """A map that works on Ultralytics' Results.

    Attributes:
        map: The map.
    """

    map: CalibrationMap
    _attached: list[tuple[Any, Callable[[Any], None]]] = field(default_factory=list, repr=False, compare=False)

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

        ``conf`` and non-maximum suppression still see the scores as they were; only what is returned is calibrated.

        Args:
            model: An ``ultralytics.YOLO``.

        Returns:
            The same model.

        Raises:
            TypeError: If it takes no callbacks.
        """
        if not hasattr(model, "add_callback"):
            raise ArgumentTypeError(f"model: expected an ultralytics.YOLO, got {type(model).__name__}.")

        def calibrate_results(predictor: Any) -> None:
            self(predictor.results)

        model.add_callback(_EVENT, calibrate_results)
        self._attached.append((model, calibrate_results))
        return model

    def detach(self) -> None:
        """Leave every model that this was attached to as it was."""
        while self._attached:
            model, callback = self._attached.pop()
            for owner in (model, getattr(model, "predictor", None)):
                listed = getattr(owner, "callbacks", {}).get(_EVENT, [])
                if callback in listed:
                    listed.remove(callback)


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
