# SPDX-License-Identifier: AGPL-3.0-or-later
"""Whether the lean form may be used: compared on a small piece of a real training batch, agreed on by all processes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from det_ls.losses.dense import dense_form
from det_ls.losses.form import CurrentMatrix, stock_form
from det_ls.losses.lean.term import lean_form

MAX_IMAGES = 2
IMAGE_KEYS = {"img", "masks", "sem_masks"}  # one row an image, even where a batch has as many objects as images
Predictions = dict[str, Any]
Loss = Callable[[Predictions, dict[str, Any]], Any]


@dataclass(frozen=True)
class Verdict:
    """What a batch says of the lean form.

    Attributes:
        right: Whether it is right; None if the batch does not tell.
        reason: What is wrong, as the end of a sentence.
    """

    right: bool | None
    reason: str = ""


def judge(stock: Any, matrix: Tensor, preds: Predictions, batch: dict[str, Any]) -> Verdict:
    """Compare lean with dense at the run's own P, and with stock at P = I. A run that begins at P = I has a P to come.

    The forms are built for the purpose: nothing of the run is changed.

    Args:
        stock: The stock criterion.
        matrix: P of shape (K, K), as the run uses it.
        preds: The head's outputs.
        batch: The training batch that belongs to them.

    Returns:
        The verdict; undecided if no anchor is foreground, or the reference itself is not finite.
    """
    limit = tolerance(preds["scores"].dtype)
    try:
        if not has_objects(batch):
            return Verdict(None)
        preds, batch = excerpt(preds, batch, masks_of_objects=not getattr(stock, "overlap", True))
        for name in ("dense", "stock"):
            current = CurrentMatrix(torch.eye(len(matrix)) if name == "stock" else telling(matrix), matrix.device)
            lean = lean_form(stock, current)
            reference = stock_form(stock) if name == "stock" else dense_form(stock, current)
            difference = largest_difference(lean.loss, reference.loss, preds, batch)
            if difference is None or not lean.criterion.bce.foreground:
                return Verdict(None)
            if difference > limit:
                return Verdict(False, f"differs from the {name} one by {difference:.1e} (more than {limit:.0e})")
    # Whatever an unknown version makes go wrong here, out of memory included, must not stop or halve the run: the
    # dense form is stock's own method, and the warning says what happened.
    except Exception as error:
        return Verdict(False, f"fails ({type(error).__name__}: {error})")
    return Verdict(True)


def telling(matrix: Tensor) -> Tensor:
    """Return a matrix at which a form that smooths wrongly shows.

    Args:
        matrix: P as the run uses it.

    Returns:
        P; in place of the identity one that moves a fifth of each row to the next class.

    Examples:
        >>> telling(torch.eye(3))[0]
        tensor([0.8000, 0.2000, 0.0000])
    """
    identity = torch.equal(matrix, torch.eye(len(matrix)).to(matrix))
    return 0.8 * matrix + 0.2 * matrix.roll(1, 1) if identity else matrix


def agree(right: bool | None, device: torch.device) -> bool | None:
    """Take the vote of all processes of a distributed run.

    Args:
        right: What this process found.
        device: A device that the processes' backend can reduce on.

    Returns:
        False if one process says so, None if one does not know yet, else True.
    """
    distributed = torch.distributed
    if not (distributed.is_available() and distributed.is_initialized() and distributed.get_world_size() > 1):
        return right
    votes = torch.tensor([right is False, right is None], dtype=torch.int32, device=device)
    distributed.all_reduce(votes, op=distributed.ReduceOp.MAX)
    wrong, undecided = votes.tolist()
    return False if wrong else None if undecided else True


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


def excerpt(
    preds: Predictions, batch: Mapping[str, Any], masks_of_objects: bool = False
) -> tuple[Predictions, dict[str, Any]]:
    """Cut the first images with objects out of a batch, detached from its graph.

    Args:
        preds: The head's outputs: tensors with images first, lists of them, or anything else.
        batch: The batch: tensors with one row an image or an object, or anything else.
        masks_of_objects: Whether ``masks`` has one row an object (``overlap_mask=False``), not one an image.

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

    of_images = IMAGE_KEYS - {"masks"} if masks_of_objects else IMAGE_KEYS
    small: dict[str, Any] = {}
    for key, value in batch.items():
        if isinstance(value, Tensor) and value.ndim and value.shape[0] == image_of.numel() and key not in of_images:
            small[key] = value[objects.to(value.device)]
        else:
            small[key] = cut(value)
    small["batch_idx"] = torch.searchsorted(images, image_of[objects]).to(batch["batch_idx"].dtype)
    return {key: cut(value) for key, value in preds.items()}, small


def largest_difference(ours: Loss, reference: Loss, preds: Predictions, batch: dict[str, Any]) -> float | None:
    """Compare loss and gradients of two forms.

    Args:
        ours: The form in use.
        reference: The form that is right by definition.
        preds: Detached head outputs.
        batch: The batch that belongs to them.

    Returns:
        The largest of the norm-relative differences of the loss and of each output's gradient; NaN counts as infinite.
        None if the reference is not finite, as with a logit that is not: then the batch says nothing of our form.
    """
    reference_outcome = _outcome(reference, preds, batch)
    if not all(bool(torch.isfinite(value).all()) for value in reference_outcome):
        return None
    differences = []
    for got, wanted in zip(_outcome(ours, preds, batch), reference_outcome, strict=True):
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
