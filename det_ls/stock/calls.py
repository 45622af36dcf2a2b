# SPDX-License-Identifier: AGPL-3.0-or-later
"""What Ultralytics was called with, where it hands on something else."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any


def resume_turned_off(overrides: Mapping[str, Any]) -> bool:
    """Tell whether a trainer is being made by ``Model.train(resume=True)`` that trains a finished run anew instead.

    It assumes that ``Model.train`` of ``ultralytics.engine.model`` keeps its keywords in ``kwargs``, and sets the
    trainer's ``resume`` to False, with a warning, where the model's checkpoint has no state to resume from. A caller
    who says ``resume=False`` sends the trainer the same, which is why the frames are looked at.

    Args:
        overrides: What the trainer was given.

    Returns:
        Whether a resume was asked for and dropped, and the model is a file.
    """
    model = overrides.get("model")
    if overrides.get("resume") is not False or not isinstance(model, (str, Path)) or not Path(model).is_file():
        return False
    frame = sys._getframe(1)
    while frame is not None:
        if frame.f_globals.get("__name__") == "ultralytics.engine.model" and frame.f_code.co_name == "train":
            asked = frame.f_locals.get("kwargs")
            return isinstance(asked, dict) and asked.get("resume") is True
        frame = frame.f_back  # type: ignore[assignment]
    return False
