# SPDX-License-Identifier: AGPL-3.0-or-later
"""Load a model to evaluate, from whatever names one, with its task, its class names and the hash of its weights."""

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
from ultralytics.nn.modules import OBB, Classify, Detect, Pose, Segment, WorldDetect, YOLOEDetect
from ultralytics.nn.tasks import ClassificationModel, DetectionModel
from ultralytics.utils import SETTINGS
from ultralytics.utils.downloads import GITHUB_ASSETS_NAMES
from ultralytics.utils.torch_utils import unwrap_model

from det_ls.base.arguments import printable
from det_ls.base.errors import ArgumentError, ArgumentTypeError, MissingFileError
from det_ls.base.files import sha256_of
from det_ls.stock.logs import quiet

TASKS = ("detect", "segment", "pose", "obb", "classify")
_HEADS = {Segment: "segment", Pose: "pose", OBB: "obb", Classify: "classify", Detect: "detect"}  # special ones first
_OTHER_HEADS = (WorldDetect, YOLOEDetect)  # subclasses of Detect whose classes are prompts


@dataclass(frozen=True)
class Detector:
    """A model that is ready to be evaluated: a detector by its boxes, whatever else it predicts, or a classifier.

    Attributes:
        model: The module, or the path of an exported model.
        names: Class names by index; None for an exported model, whose names are read when it runs.
        end2end: Whether the model has an NMS-free (one-to-one) head; None for an exported model.
        weights: The weights as the caller named them, or the class name of a model in memory.
        sha256: SHA-256 of the weights; None for an exported model that is a folder.
        sha256_of: What the hash is of: ``file`` or ``state_dict``.
        file: The weights' file, where there is one.
        train_args: The ``train_args`` of the checkpoint, as they are there; None where there are none.
        task: One of `TASKS`.
    """

    model: nn.Module | str
    names: dict[int, str] | None
    end2end: bool | None
    weights: str
    sha256: str | None
    sha256_of: str | None
    file: str | None = None
    train_args: Mapping[str, Any] | None = field(default=None, repr=False)
    task: str = "detect"


def load_detector(model: object) -> Detector:
    """Load a model without changing what the caller holds.

    Args:
        model: Path of a checkpoint or exported model, the name of an official Ultralytics checkpoint (downloaded if
            need be), an ``ultralytics.YOLO``, or a module.

    Returns:
        The model, for one of `TASKS`.

    Raises:
        FileNotFoundError: If the path does not exist.
        TypeError: If the argument is none of these.
        ValueError: If the file is not a readable checkpoint, or the model is not one of the YOLO family for one of
            `TASKS`.
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
        raise ArgumentTypeError(f"model: expected a path, a YOLO or a module, got {type(model).__name__}.")
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
    """Describe a module after checking that one of stock's validators for `TASKS` is the right one for it."""
    head: Any = None
    if isinstance(module, (DetectionModel, ClassificationModel)):
        layers: Any = module.model
        head = layers[-1]
    task = next((task for kind, task in _HEADS.items() if isinstance(head, kind)), None)
    if task is None or isinstance(head, _OTHER_HEADS):
        what = type(module).__name__ if head is None else f"{type(module).__name__} with a {type(head).__name__} head"
        raise _unknown(what)
    classes = int(head.linear.out_features if task == "classify" else head.nc)
    names = plain_names(getattr(module, "names", None) or {})
    if len(names) != classes:
        raise ArgumentError(f"model: expected names of its {classes} classes, got {len(names)} names.")
    has_one_to_one = getattr(head, "one2one_cv2", None) is not None
    return Detector(module, names, has_one_to_one, weights, sha256, sha256_of, task=task)


def _exported(path: str, task: str | None) -> Detector:
    """Describe an exported model, which Ultralytics loads when it runs."""
    file = Path(path)
    if file.suffix == ".onnx" and file.is_file():
        task = _onnx_task(path) or task  # what a file is called need not be what is in it
    if task not in {None, *TASKS}:
        raise _unknown(f"'{path}' for task '{task}'")
    sha256 = sha256_of(file) if file.is_file() else None
    return Detector(path, None, None, path, sha256, "file", path, task=task or "detect")


def _unknown(what: str) -> ArgumentError:
    """Say which models can be evaluated."""
    return ArgumentError(f"model: expected a YOLO model for {', '.join(TASKS[:-1])} or {TASKS[-1]}, got {what}.")


def _onnx_task(path: str) -> str | None:
    """Read the task in a model's metadata, or raise if ONNX Runtime cannot load the model.

    Without ONNX Runtime, Ultralytics says what to install when the model runs.
    """
    try:
        import onnxruntime
    except ImportError:
        return None
    try:
        session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
        found = session.get_modelmeta().custom_metadata_map.get("task")
    except Exception as error:  # its errors share no other base class
        raise ArgumentError(
            f"model: expected a readable ONNX model, got '{path}', which cannot be loaded ({type(error).__name__})."
        ) from error
    return None if found is None else str(found)


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
