# SPDX-License-Identifier: AGPL-3.0-or-later
"""Which checkpoints a run can go on from; any other is refused, where Ultralytics starts a new run."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from det_ls.base.errors import ArgumentError
from det_ls.evaluation.training_record import run_args
from det_ls.smoothing.settings import split_keys
from det_ls.training.policy_state import STATE_KEY

CHECKPOINT = "resume: expected the last.pt of an unfinished run"


def check_resume(resume: object, file: object, checkpoint: Mapping[str, Any] | None) -> None:
    """Refuse ``resume=`` where Ultralytics would start a new run, or go on with another one.

    Args:
        resume: The value of ``resume=``.
        file: The model's own checkpoint, which ``resume=True`` goes on from; None without one.
        checkpoint: Its content; None or empty without one.

    Raises:
        ValueError: If there is nothing to go on from.
    """
    if resume is True:
        if not checkpoint:
            raise ArgumentError(f"{CHECKPOINT} with resume, got a model that is none: write model=path/to/last.pt.")
        refuse_finished(Path(str(file)), checkpoint)
    elif resume and isinstance(resume, (str, Path)) and not Path(resume).is_file():
        raise ArgumentError(f"{CHECKPOINT}, got {str(resume)!r}, not a file.")


def refuse_finished(file: Path, checkpoint: Mapping[str, Any]) -> None:
    """Refuse to resume a run that is finished, and say how to train on.

    Args:
        file: The checkpoint's path.
        checkpoint: Its content.

    Raises:
        ValueError: If the run is finished.
    """
    args = {**(run_args(file) or {}), **(checkpoint.get("train_args") or {})}
    done, epochs = int(checkpoint.get("epoch", -1)) + 1, args.get("epochs")
    if done > 0 and checkpoint.get("optimizer") is not None:
        if epochs is None or done < epochs:
            return
        state = f"whose {done} epochs are trained: only their last validation is missing"
    else:
        state = "whose run is finished: it holds no optimizer state that more epochs could go on from"
    keys = {key: value for key, value in split_keys(args)[0].items() if key != STATE_KEY}
    words = {"model": file, "data": args.get("data") or "...", "epochs": "...", **keys}
    command = " ".join(_word(key, value) for key, value in words.items() if value is not None)
    raise ArgumentError(
        f"{CHECKPOINT}, got {str(file)!r}, {state}; measure it with `det-ls val`, or train its weights further in a "
        f"new run: `det-ls train {command}`."
    )


def _word(key: str, value: object) -> str:
    """Write a word as a shell takes it."""
    word = f"{key}={value}"
    return f'"{word}"' if any(character in word for character in " {}'") else word
