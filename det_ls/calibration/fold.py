# SPDX-License-Identifier: AGPL-3.0-or-later
"""Fold an affine map of the logit into a model: the only module of the package that touches Ultralytics' models.

A class logit is w . f + b from a 1 x 1 convolution at each level, so a (w . f + b) + b' is that of the weights a w and
a b + b'. The model stays an ordinary Ultralytics model: nothing of ours is in the file but a record of plain values
under one key of the checkpoint, which stock ignores and keeps.

It assumes that a detection head keeps its class branches in ``cv3`` and, where it has a second head, ``one2one_cv3``,
one a level, each ending in the convolution; that ``sigmoid`` of its output is the score; that a classifier ends in
``linear``; and that a checkpoint is a dictionary with modules under ``model`` and ``ema``.
"""

from __future__ import annotations

import copy
import functools
import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import nn
from ultralytics.engine.exporter import export_formats
from ultralytics.engine.model import Model
from ultralytics.nn.modules import OBB, Classify, Detect, Pose, Segment, WorldDetect, YOLOEDetect
from ultralytics.nn.tasks import BaseModel, DetectionModel
from ultralytics.utils.patches import torch_load

from det_ls.base.errors import ArgumentError, ArgumentTypeError, MissingFileError, RunError
from det_ls.base.files import write_atomically
from det_ls.calibration.maps import AffineMap, CalibrationMap
from det_ls.evaluation.detector import plain_names
from det_ls.stock.expect import Method, Source, expect

KEY = "det_ls_calibration"
ASSUMPTIONS = (
    Method(Detect, "_inference", ("x",)),
    Source(Detect, "self.cv3 = "),
    Source(Detect, "self.one2one_cv3 = "),
    Source(Detect, '["scores"].sigmoid()'),
    Source(Classify, "self.linear = nn.Linear("),
)
_TRAINING_STATE = ("optimizer", "best_fitness", "stopper", "updates", "scaler")
_TEXT_HEADS = (WorldDetect, YOLOEDetect)  # their class logits come from a text embedding, not from a convolution


def class_layers(module: nn.Module) -> list[nn.Conv2d | nn.Linear]:
    """Find the layers whose outputs are the class logits.

    Args:
        module: A YOLO detection, segmentation, pose, obb or classification model.

    Returns:
        The last convolution of each class branch: every level, and both heads of an end-to-end model unless one was
        removed for inference; for a classifier its linear layer.

    Raises:
        ValueError: If the model has no such layers; it names what was found.
    """
    check_heads()
    layers: Any = module.model if isinstance(module, BaseModel) else ()
    head: Any = layers[-1] if len(layers) else None
    if isinstance(head, Classify):
        return [head.linear]
    if not isinstance(head, Detect) or isinstance(head, _TEXT_HEADS):
        found = type(module).__name__ if head is None else f"a {type(head).__name__} head"
        raise ArgumentError(f"model: expected a YOLO whose class branch ends in a 1 x 1 convolution, got {found}.")
    found_layers: list[nn.Conv2d | nn.Linear] = []
    for name in ("cv3", "one2one_cv3"):
        for branch in getattr(head, name, None) or ():
            last: Any = branch[-1] if isinstance(branch, nn.Sequential) and len(branch) else branch
            if not isinstance(last, nn.Conv2d) or last.kernel_size != (1, 1) or last.out_channels != head.nc:
                raise ArgumentError(
                    f"model: expected each class branch to end in a 1 x 1 convolution to {head.nc} classes, "
                    f"got {name} that ends in {last}."
                )
            found_layers.append(last)
    return found_layers


def fold_map(module: nn.Module, calibration_map: CalibrationMap) -> None:
    """Fold an affine map into a model, in place.

    Args:
        module: As in :func:`class_layers`. Its class layers become single precision: a product rounded to half would
            not be the map any more, and stock converts a whole model to one precision when it loads it.
        calibration_map: A Platt or temperature map; for a classifier a shared temperature.

    Raises:
        ValueError: If the map is not affine, does not know one of the model's classes, or the model has no class
            layers to fold it into.
    """
    if not isinstance(calibration_map, AffineMap):
        raise ArgumentError(
            f"map: expected platt or temperature to fold, got {calibration_map.kind}, which is not affine in the logit."
        )
    layers = class_layers(module)
    names = plain_names(getattr(module, "names", None) or {})
    a, b = calibration_map.by_class([names.get(i, str(i)) for i in range(_outputs(layers[0]))])
    if isinstance(layers[0], nn.Linear) and (len(set(a.tolist())) > 1 or b.any()):
        raise ArgumentError("map: expected one temperature for a classification model, got more than that.")
    for layer in layers:
        if layer.bias is None:
            raise ArgumentError("model: expected class layers with a bias, got one without.")
        device = layer.weight.device
        slope, offset = (torch.from_numpy(np.ascontiguousarray(v)).to(device) for v in (a, b))
        shape = (-1, *[1] * (layer.weight.ndim - 1))
        with torch.no_grad():
            layer.weight.data = (layer.weight.double() * slope.view(shape)).float()
            layer.bias.data = (layer.bias.double() * slope + offset).float()


def detection_view(module: nn.Module) -> nn.Module:
    """Return a model whose boxes stock's detection pipeline can judge.

    Args:
        module: A YOLO model.

    Returns:
        A detection model as it is; of a segmentation or pose model a copy whose head computes boxes and scores alone.

    Raises:
        ValueError: For oriented boxes and classifiers, which have no boxes along the axes to match.
    """
    layers: Any = module.model
    head = layers[-1]
    if isinstance(head, Classify):
        raise ArgumentError("model: expected a detector, got a classifier: det_ls.calibrate_classifier calibrates it.")
    if isinstance(head, OBB):
        raise ArgumentError(
            "model: expected boxes along the image's axes to fit a map on, got an OBB head; det_ls.calibration.fold "
            "folds a map that was fitted elsewhere."
        )
    if not isinstance(head, (Segment, Pose)):
        return module
    view: Any = DetectionModel.__new__(DetectionModel)
    view.__dict__ = copy.deepcopy(module).__dict__
    view.model[-1].__class__ = Detect
    return cast(nn.Module, view)


def load_checkpoint(weights: str | Path) -> dict[str, Any]:
    """Load a checkpoint as it lies in the file.

    Args:
        weights: Path of a ``.pt`` file.

    Returns:
        Its content, with a module under ``model`` or ``ema``.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is an exported model, or no Ultralytics checkpoint.
    """
    path = Path(weights)
    if not path.exists():
        raise MissingFileError(f"model: expected a checkpoint, got '{path}', which does not exist.")
    if path.suffix.lower() != ".pt":
        exported = str(path).lower().endswith(tuple(s for s in export_formats()["Suffix"] if s))
        what = "an exported model: calibrate before the export" if exported else f"'{path}'"
        raise ArgumentError(f"model: expected a checkpoint (.pt), got {what}.")
    try:
        content = torch_load(path, map_location="cpu")
    except Exception as error:  # unpickling raises whatever the pickled classes raise
        raise ArgumentError(f"model: expected a readable checkpoint, got '{path}' ({type(error).__name__}).") from error
    if not isinstance(content, dict) or not any(isinstance(content.get(k), nn.Module) for k in ("model", "ema")):
        raise ArgumentError(f"model: expected an Ultralytics checkpoint with a model, got something else in '{path}'.")
    if content.get("modelopt"):
        raise ArgumentError("model: expected weights without quantisation-aware training, got weights with it.")
    return content


def held_checkpoint(model: object) -> dict[str, Any]:
    """Describe a model in memory as a checkpoint.

    Args:
        model: An ``ultralytics.YOLO`` or a module.

    Returns:
        What it was loaded from, if anything, with the module that it holds now under ``model``.

    Raises:
        TypeError: If it is neither.
        ValueError: If it is an exported model.
    """
    module = model.model if isinstance(model, Model) else model
    if isinstance(module, str):
        raise ArgumentError(f"model: expected a checkpoint (.pt), got an export, '{module}': calibrate before it.")
    if not isinstance(module, nn.Module):
        raise ArgumentTypeError(f"model: expected a path, a YOLO or a detection module, got {type(model).__name__}.")
    rest = model.ckpt if isinstance(model, Model) and isinstance(model.ckpt, Mapping) else {}
    return {"train_args": {}, **rest, "model": module, "ema": None}


def read_record(checkpoint: object) -> dict[str, Any] | None:
    """Return what a calibrated checkpoint records of its calibration.

    Args:
        checkpoint: A loaded checkpoint, or an ``ultralytics.YOLO`` that was loaded from one.

    Returns:
        The record: the map under ``map``, then method, data, counts, numbers, versions and the source's SHA-256; None
        if there is none.
    """
    content = getattr(checkpoint, "ckpt", checkpoint)
    record = content.get(KEY) if isinstance(content, Mapping) else None
    return dict(record) if isinstance(record, Mapping) else None


def fold_checkpoint(
    checkpoint: Mapping[str, Any], calibration_map: AffineMap, record: Mapping[str, Any], destination: str | Path
) -> None:
    """Write a checkpoint with a map folded into its models, complete or not at all.

    The models under ``model`` and ``ema`` are both calibrated. Training state is left out, as in a finished run: going
    on with a run whose class weights were scaled would undo the calibration.

    Args:
        checkpoint: A loaded checkpoint, which is left as it is.
        calibration_map: The map.
        record: Plain values to keep under :data:`KEY`.
        destination: The file, in a folder that exists; it is replaced.

    Raises:
        ValueError: If the map cannot be folded into the models.
        RuntimeError: If a folded model does not compute the map of the original.
    """
    content = {key: value for key, value in checkpoint.items() if key not in {"model", "ema"}}
    for key in ("model", "ema"):
        module = checkpoint.get(key)
        if isinstance(module, nn.Module):
            folded = copy.deepcopy(module)
            fold_map(folded, calibration_map)
            check_fold(module, folded, calibration_map)
            module = folded
        content[key] = module
    content |= {key: None for key in _TRAINING_STATE if key in content}
    buffer = io.BytesIO()
    torch.save({**content, "epoch": -1, KEY: dict(record)}, buffer)
    write_atomically(Path(destination), buffer.getvalue())


def check_fold(original: nn.Module, folded: nn.Module, calibration_map: AffineMap) -> None:
    """Raise unless a folded model's class logits are the map of the original's, on an image of noise.

    Args:
        original: The model before.
        folded: The model after.
        calibration_map: The map that was folded.

    Raises:
        RuntimeError: If they differ by more than 1e-4.
    """
    names = plain_names(getattr(original, "names", None) or {})
    for before, after in zip(class_logits(original), class_logits(folded), strict=True):
        a, b = calibration_map.by_class([names.get(i, str(i)) for i in range(before.shape[1])])
        shape = (1, -1, *[1] * (before.ndim - 2))
        expected = before.double() * torch.from_numpy(a).view(shape) + torch.from_numpy(b).view(shape)
        if not torch.allclose(after.double(), expected, rtol=1e-4, atol=1e-4):
            worst = float((after.double() - expected).abs().max())
            raise RunError(f"model: expected folded logits to be the map of the original's, got {worst:.3g} apart.")


def class_logits(module: nn.Module, image: torch.Tensor | None = None) -> list[torch.Tensor]:
    """Compute the class logits of a model in single precision.

    Args:
        module: A model, which is left as it is.
        image: (B, channels, height, width) in [0, 1]; noise if None.

    Returns:
        (B, classes, anchors) of each head, or (B, classes) of a classifier.
    """
    network: Any = copy.deepcopy(module).float().cpu().eval()
    if image is None:
        first = next(m for m in network.modules() if isinstance(m, nn.Conv2d))
        size = 2 * int(max(network.stride)) if hasattr(network, "stride") else 64
        image = torch.rand(1, first.in_channels, size, size, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        output = network(image)
    raw = output[1]
    if isinstance(raw, torch.Tensor):
        return [raw]
    heads = [raw[k] for k in ("one2many", "one2one")] if "one2one" in raw else [raw]
    return [head["scores"] for head in heads if head]


@functools.cache
def check_heads() -> None:
    """Check what this module assumes, once: reading the source of a class takes long.

    Raises:
        RuntimeError: If it does not hold; it names the version and what is missing.
    """
    expect("heads", *ASSUMPTIONS)


def _outputs(layer: nn.Conv2d | nn.Linear) -> int:
    return layer.out_channels if isinstance(layer, nn.Conv2d) else layer.out_features
