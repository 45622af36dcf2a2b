# SPDX-License-Identifier: AGPL-3.0-or-later
"""The smoothing that a run was trained with, as far as it can be undone from one class's score."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path, PurePath
from typing import Any

import numpy as np

from det_ls.base.errors import ArgumentError
from det_ls.smoothing.request import Request


def kept_shares(smoothing: object, model: object, names: Mapping[int, str]) -> dict[str, float]:
    """Give the share of its target that each class kept in training.

    Args:
        smoothing: Label-smoothing keys; or the (C, C) matrix in the order of the model's classes; or None for the keys
            in the args.yaml of the model's run folder.
        model: The model as the caller named it.
        names: The model's class names by index.

    Returns:
        The diagonal of the smoothing matrix by class name.

    Raises:
        ValueError: If there is no smoothing, it changed over the epochs, or its matrix is not diagonal.
    """
    classes = [names[i] for i in sorted(names)]
    if smoothing is None:
        smoothing = _run_keys(model)
    if isinstance(smoothing, Mapping):
        request = Request.parse(smoothing)
        if not request.smoothing.enabled:
            raise ArgumentError("smoothing: expected a run that was trained with label smoothing, got one without.")
        if request.smoothing.label_smoothing_schedule != "constant":
            raise ArgumentError(
                "smoothing: expected a constant epsilon to undo, got the schedule "
                f"{request.smoothing.label_smoothing_schedule!r}."
            )
        smoothing = request.smoothing.matrix(classes, request.table).numpy()
    matrix = np.asarray(smoothing, np.float64)
    if matrix.shape != (len(classes), len(classes)):
        raise ArgumentError(f"smoothing: expected shape ({len(classes)}, {len(classes)}), got {matrix.shape}.")
    if np.abs(matrix - np.diag(np.diag(matrix))).max() > 1e-12:
        raise ArgumentError(
            "smoothing: expected a diagonal matrix (mode background, or one class), got one that moves mass between "
            "classes, whose inverse needs every class's score of a box where detections have one."
        )
    return dict(zip(classes, np.diag(matrix).tolist(), strict=True))


def _run_keys(model: object) -> dict[str, Any]:
    """Read the keys of the run that a checkpoint lies in."""
    from ultralytics.utils import YAML

    file = Path(str(model)).parent.parent / "args.yaml" if isinstance(model, (str, PurePath)) else None
    if file is None or not file.is_file():
        raise ArgumentError("smoothing: expected the keys that the run was trained with, got none and no args.yaml.")
    return dict(YAML.load(file))
