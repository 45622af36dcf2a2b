# SPDX-License-Identifier: AGPL-3.0-or-later
"""Load a detection model, from whatever names one, with its class names and the hash of its weights."""

from __future__ import annotations

import hashlib
import pickle
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePath
from typing import Any

import torch
from torch import nn
from ultralytics import YOLO
from ultralytics.engine.exporter import export_formats
from ultralytics.engine.model import Model
from ultralytics.nn.modules import OBB, Detect, Pose, Segment, WorldDetect, YOLOEDetect
from ultralytics.nn.tasks import DetectionModel
from ultralytics.utils import SETTINGS
from ultralytics.utils.downloads import GITHUB_ASSETS_NAMES
from ultralytics.utils.torch_utils import unwrap_model

from det_ls.base.arguments import printable
from det_ls.base.errors import ArgumentError, ArgumentTypeError, MissingFileError
from det_ls.base.files import sha256_of
from det_ls.stock.logs import quiet

_OTHER_HEADS = (Segment, Pose, OBB, WorldDetect, YOLOEDetect)  # subclasses of Detect with validators of their own


@dataclass(frozen=True)
class Detector:
    """A detection model that is ready to be evaluated.

    Attributes:
        model: The module, or the path of an exported model.
        names: Class names by index; None for an exported model, whose names are read when it runs.
        end2end: Whether the model has an NMS-free (one-to-one) head; None for an exported model.
        weights: The weights as the caller named them, or the class name of a model in memory.
        sha256: SHA-256 of the weights; None for an exported model that is a folder.
        sha256_of: What the hash is of: ``file`` or ``state_dict``.
        file: The weights' file, where there is one.
        train_args: The ``train_args`` of the checkpoint, as they are there; None where there are none.
    """

    model: nn.Module | str
    names: dict[int, str] | None
    end2end: bool | None
    weights: str
    sha256: str | None
    sha256_of: str | None
    file: str | None = None
    train_args: Mapping[str, Any] | None = field(default=None, repr=False)


def load_detector(model: object) -> Detector:
    """Load a detection model without changing what the caller holds.

    Args:
        model: Path of a checkpoint or exported model, the name of an official Ultralytics checkpoint (downloaded if
            need be), an ``ultralytics.YOLO``, or a detection module.

    Returns:
        The detector.

    Raises:
        FileNotFoundError: If the path does not exist.
        TypeError: If the argument is none of these.
        ValueError: If the file is not a readable checkpoint, or the model is not a detection model of the YOLO family.
    """
    if isinstance(model, Detector):
        return model
    if isinstance(model, (str, PurePath)):
        return _load_file(str(model))
    weights = type(model).__name__
    origin: dict[str, Any] = {}
    if isinstance(model, Model):
        origin = {"file": str(model.ckpt_path) if model.ckpt_path else None, "train_args": _train_args(model)}
        weights = Path(model.ckpt_path).name if model.ckpt_path else weights
        if isinstance(model.model, str):  # an exported model
            return _exported(model.model, model.task)
        model = model.model
    if not isinstance(model, nn.Module):
        raise ArgumentTypeError(f"model: expected a path, a YOLO or a detection module, got {type(model).__name__}.")
    found = _in_memory(unwrap_model(model), weights, _state_hash(unwrap_model(model)), "state_dict")
    return replace(found, **origin)


def _load_file(path: str) -> Detector:
    """Load a checkpoint, or note the path of an exported model."""
    suffix = Path(path).suffix.lower()
    if suffix in {".yaml", ".yml"}:
        raise ArgumentError(f"model: expected trained weights, got '{path}', which only describes a network.")
    official = any(name in GITHUB_ASSETS_NAMES for name in (Path(path).name, f"{path}.pt"))
    stored = Path(path).exists() or (Path(str(SETTINGS["weights_dir"])) / path).is_file()
    if not stored and not official and "://" not in path:
        raise MissingFileError(f"model: expected a file with weights, got '{path}', which does not exist.")
    if Path(path).exists() and not path.lower().endswith(tuple(s for s in export_formats()["Suffix"] if s)):
        raise ArgumentError(f"model: expected a checkpoint (.pt) or an exported model, got '{path}'.")
    try:
        with quiet():
            loaded = YOLO(path)
    except (ConnectionError, FileNotFoundError) as error:
        raise MissingFileError(f"model: expected weights, got '{path}', which could not be downloaded.") from error
    except (
        AttributeError,
        EOFError,
        ImportError,
        KeyError,
        OSError,
        RuntimeError,
        TypeError,
        ValueError,
        AssertionError,
        IndexError,
        RecursionError,
        SyntaxError,
        pickle.UnpicklingError,
    ) as error:
        raise ArgumentError(
            f"model: expected a readable Ultralytics checkpoint, got '{path}', which cannot be loaded "
            f"({type(error).__name__})."
        ) from error
    if isinstance(loaded.model, str):
        return _exported(loaded.model, loaded.task)
    found = _in_memory(loaded.model, path, sha256_of(str(loaded.ckpt_path)), "file")
    return replace(found, file=str(loaded.ckpt_path), train_args=_train_args(loaded))


def _in_memory(module: Any, weights: str, sha256: str, sha256_of: str) -> Detector:
    """Describe a module after checking that stock's detection validator is the right one for it."""
    head: Any = None
    if isinstance(module, DetectionModel):
        layers: Any = module.model
        head = layers[-1]
    if not isinstance(head, Detect) or isinstance(head, _OTHER_HEADS):
        what = type(module).__name__ if head is None else f"{type(module).__name__} with a {type(head).__name__} head"
        raise ArgumentError(f"model: expected a YOLO detection model, got {what}.")
    names = plain_names(getattr(module, "names", None) or {})
    if len(names) != head.nc:
        raise ArgumentError(f"model: expected names of its {head.nc} classes, got {len(names)} names.")
    has_one_to_one = getattr(head, "one2one_cv2", None) is not None
    return Detector(module, names, has_one_to_one, weights, sha256, sha256_of)


def _exported(path: str, task: str | None) -> Detector:
    """Describe an exported model, which Ultralytics loads when it runs."""
    if task not in {None, "detect"}:
        raise ArgumentError(f"model: expected a YOLO detection model, got '{path}' for task '{task}'.")
    file = Path(path)
    if file.suffix == ".onnx" and file.is_file():
        _check_onnx(path)
    return Detector(path, None, None, path, sha256_of(file) if file.is_file() else None, "file", path)


def _check_onnx(path: str) -> None:
    """Raise unless ONNX Runtime can load a model; without it, Ultralytics says what to install when the model runs."""
    try:
        import onnxruntime
    except ImportError:
        return
    try:
        onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    except Exception as error:  # its errors share no other base class
        raise ArgumentError(
            f"model: expected a readable ONNX model, got '{path}', which cannot be loaded ({type(error).__name__})."
        ) from error


def _train_args(model: Model) -> Mapping[str, Any] | None:
    """Return the training arguments that a loaded checkpoint holds."""
    checkpoint: Any = model.ckpt
    args = checkpoint.get("train_args") if isinstance(checkpoint, Mapping) else None
    return args if isinstance(args, Mapping) else None


def plain_names(names: Any) -> dict[int, str]:
    """Return class names by index from a mapping or a list."""
    return {
        int(i): printable(str(name)) for i, name in (names.items() if isinstance(names, Mapping) else enumerate(names))
    }


def _state_hash(module: nn.Module) -> str:
    """Return a SHA-256 of a module's parameters and buffers, with their names, types and shapes."""
    digest = hashlib.sha256()
    for name, tensor in sorted(module.state_dict().items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
