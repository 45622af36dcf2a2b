# SPDX-License-Identifier: AGPL-3.0-or-later
"""What is calibrated: a checkpoint, its name and hash, and where the calibrated one goes."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any

from torch import nn

from det_ls.base.errors import ArgumentError, ArgumentTypeError, ExistingFileError
from det_ls.base.files import sha256_of
from det_ls.calibration.fold import class_layers, fold_map, held_checkpoint, load_checkpoint, read_record
from det_ls.calibration.maps import AffineMap, map_from_dict
from det_ls.calibration.methods import FOLDING


@dataclass(frozen=True)
class Source:
    """A model to calibrate, with its original scores.

    Attributes:
        checkpoint: Its checkpoint, an earlier calibration undone.
        module: The model in it that predicts: the EMA where there is one.
        weights: The model as the caller named it, or the class name of a model in memory.
        name: Name of the file that the original scores are of, or as ``weights``.
        sha256: SHA-256 of that file; None for a model in memory.
    """

    checkpoint: dict[str, Any]
    module: nn.Module
    weights: str
    name: str
    sha256: str | None


def load_source(model: object, recalibrate: bool) -> Source:
    """Load what is to be calibrated, with an earlier calibration undone if that was asked for.

    Args:
        model: Path of a checkpoint, an ``ultralytics.YOLO`` or a module.
        recalibrate: Whether to start again from the original scores of a checkpoint that is calibrated already.

    Returns:
        The source.

    Raises:
        FileNotFoundError: If there is no such file.
        TypeError: If it names no model.
        ValueError: If it cannot be calibrated, or is already.
    """
    path = Path(str(model)) if isinstance(model, (str, PurePath)) else None
    checkpoint = held_checkpoint(model) if path is None else load_checkpoint(path)
    record = read_record(checkpoint)
    chosen = "ema" if isinstance(checkpoint.get("ema"), nn.Module) else "model"
    class_layers(checkpoint[chosen])
    name = type(model).__name__ if path is None else path.name
    if record is None:
        sha256 = None if path is None else sha256_of(path)
        return Source(checkpoint, checkpoint[chosen], str(path or name), name, sha256)
    if not recalibrate:
        raise ArgumentError(
            "model: expected a checkpoint that is not calibrated yet, got one that is; recalibrate=True starts "
            "again from its original scores."
        )
    earlier = map_from_dict(record.get("map"), "model: the record of its calibration")
    if not isinstance(earlier, AffineMap):
        raise ArgumentError(f"model: expected a record of a folded map, got one of {earlier.kind}.")
    checkpoint = dict(checkpoint)
    for key in ("model", "ema"):
        if isinstance(checkpoint.get(key), nn.Module):
            checkpoint[key] = copy.deepcopy(checkpoint[key])
            fold_map(checkpoint[key], earlier.inverse)
    known = [record.get(key) for key in ("source", "source_sha256")]
    original, sha256 = (value if isinstance(value, str) else None for value in known)
    return Source(checkpoint, checkpoint[chosen], str(path or name), original or name, sha256)


def destination_of(model: object, save: object, method: str, exist_ok: bool) -> Path | None:
    """Say where the calibrated checkpoint goes, before any work.

    Args:
        model: The model as the caller named it.
        save: True for beside the weights when the model is a path, False for nowhere, or the path.
        method: The method, which may not fold.
        exist_ok: Whether a file that is there may be replaced.

    Returns:
        The file; None for nowhere.

    Raises:
        FileExistsError: If it is there and may not be replaced.
        TypeError: If ``save`` is none of these.
        ValueError: If it cannot be written there.
    """
    path = Path(str(model)) if isinstance(model, (str, PurePath)) else None
    if isinstance(save, bool):
        if not save or path is None or method not in FOLDING:
            return None
        destination = path.with_name(f"{path.stem}_calibrated.pt")
    elif isinstance(save, (str, PurePath)):
        destination = Path(str(save))
        if method not in FOLDING:
            raise ArgumentError(
                f"save: expected a method that folds into a checkpoint ({', '.join(FOLDING)}), got {method!r}, which "
                "needs code at inference; save_dir keeps its map.json."
            )
    else:
        raise ArgumentTypeError(f"save: expected a path, True or False, got {save!r}.")
    if destination.suffix != ".pt":
        raise ArgumentError(f"save: expected a path that ends in .pt, got '{destination}'.")
    if path is not None and destination.resolve() == path.resolve():
        raise ArgumentError("save: expected another file than the model's own, got the same.")
    check_absent(destination, exist_ok)
    return destination


def check_absent(destination: Path, exist_ok: bool) -> None:
    """Raise if a calibrated checkpoint would replace a file that it may not.

    Args:
        destination: The file.
        exist_ok: Whether it may be replaced.

    Raises:
        FileExistsError: If it is there and may not.
    """
    if destination.exists() and not exist_ok:
        raise ExistingFileError(f"save: expected no file at '{destination}' without exist_ok, got one.")
