# SPDX-License-Identifier: AGPL-3.0-or-later
"""Compare two forms of a criterion on a small piece of a real training batch."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

MAX_IMAGES = 2
IMAGE_KEYS = {"img", "masks", "sem_masks"}  # one row an image, even where a batch has as many objects as images
Predictions = dict[str, Any]
Loss = Callable[[Predictions, dict[str, Any]], Any]


def tolerance(dtype: torch.dtype) -> float:
    """Return the largest norm-relative difference that two forms of the same maths may show.

    Args:
        dtype: The logits' dtype.

    Returns:
        1e-4, or four units in the last place where that is more (half precision).
    """
    return max(1e-4, 4 * torch.finfo(dtype).eps)


def has_objects(batch: Mapping[str, Any]) -> bool:
    """Tell whether a training batch has any object.

    Args:
        batch: An Ultralytics training batch.

    Returns:
        True if it has.
    """
    return batch["batch_idx"].numel() > 0


def excerpt(preds: Predictions, batch: Mapping[str, Any]) -> tuple[Predictions, dict[str, Any]]:
    """Cut the first images with objects out of a batch, detached from its graph.

    Args:
        preds: The head's outputs: tensors with images first, lists of them, or anything else.
        batch: The batch: tensors with one row an image or an object, or anything else.

    Returns:
        The predictions and the batch of at most ``MAX_IMAGES`` images.
    """
    size = preds["scores"].shape[0]
    image_of = batch["batch_idx"].flatten().long()
    images = image_of.unique()[:MAX_IMAGES]
    objects = torch.isin(image_of, images)

    def cut(value: Any) -> Any:
        if isinstance(value, Tensor) and value.ndim and value.shape[0] == size:
            return value.detach()[images.to(value.device)]
        if isinstance(value, (list, tuple)) and value and all(isinstance(v, Tensor) for v in value):
            return type(value)(cut(v) for v in value)
        return value

    small: dict[str, Any] = {}
    for key, value in batch.items():
        if isinstance(value, Tensor) and value.ndim and value.shape[0] == image_of.numel() and key not in IMAGE_KEYS:
            small[key] = value[objects.to(value.device)]
        else:
            small[key] = cut(value)
    small["batch_idx"] = torch.searchsorted(images, image_of[objects]).to(batch["batch_idx"].dtype)
    return {key: cut(value) for key, value in preds.items()}, small


def in_double(preds: Predictions) -> Predictions:
    """Return the head's outputs in float64, where the device has it.

    Args:
        preds: The head's outputs.

    Returns:
        The same with every floating tensor, not those in lists, in float64.
    """
    return {
        key: value.double()
        if isinstance(value, Tensor) and value.is_floating_point() and value.device.type != "mps"
        else value
        for key, value in preds.items()
    }


def largest_difference(ours: Loss, reference: Loss, preds: Predictions, batch: dict[str, Any]) -> float:
    """Compare loss and gradients of two forms.

    Args:
        ours: The form in use.
        reference: The form that is right by definition.
        preds: Detached head outputs.
        batch: The batch that belongs to them.

    Returns:
        The largest of the norm-relative differences of the loss and of each output's gradient; NaN counts as infinite.
    """
    differences = []
    for got, wanted in zip(_outcome(ours, preds, batch), _outcome(reference, preds, batch), strict=True):
        norm = wanted.norm().clamp_min(torch.finfo(wanted.dtype).tiny)
        differences.append(float((got - wanted).norm() / norm))
    return max((d if d == d else float("inf")) for d in differences)


def _outcome(loss: Loss, preds: Predictions, batch: dict[str, Any]) -> list[Tensor]:
    """Return the loss vector and the gradient of each floating output, in float32 or better."""
    with torch.enable_grad():
        leaves = {
            key: value.detach().requires_grad_()
            for key, value in preds.items()
            if isinstance(value, Tensor) and value.is_floating_point()
        }
        total = loss({**preds, **leaves}, dict(batch))[0]
        gradients = torch.autograd.grad(total.sum(), list(leaves.values()), allow_unused=True)
    outcome = [
        total.detach(),
        *(torch.zeros_like(v) if g is None else g for v, g in zip(leaves.values(), gradients, strict=True)),
    ]
    return [value.to(torch.promote_types(value.dtype, torch.float32)) for value in outcome]
