# SPDX-License-Identifier: AGPL-3.0-or-later
"""Binary cross-entropy for a dense detector whose targets are zero on all but a few rows.

BCE with logits is linear in its target: ``BCE(x, t) = softplus(x) - x t``. Where nearly all targets are zero, the
summed loss is ``sum softplus(x) - sum_rows x t`` and its gradient ``sigmoid(x) - t``: neither a dense target nor the
dense element-wise loss is ever needed. Any smoothing matrix fits, because it changes only the rows.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

# softplus(x) = x to float64 precision above this; PyTorch's default of 20 is only good for float32.
SOFTPLUS_THRESHOLD = 40.0
GROUP = 8  # logits that share a logarithm, ...
LARGEST_LOSS_OF_PRECISION = 64.0  # ... unless 1 - sigmoid would lose more than this factor in precision
PIECE = 2**20  # elements that are worked on at a time: few enough for the cache, enough to hide the overhead


def foreground_bce_sum(
    logits: Tensor, image: Tensor, anchor: Tensor, targets: Tensor, class_weights: Tensor | None = None
) -> Tensor:
    """Sum binary cross-entropy with logits over all anchors, given the targets of the foreground anchors only.

    Accumulates in float32, or in float64 for float64 logits. Its extra memory is one buffer of the logits' size; what
    else is element-wise, such as the float32 copy of half-precision logits, is made of a few images at a time.

    Args:
        logits: Logits of shape (B, K, A), in the head's own layout.
        image: Image indices of the N foreground rows, int64, shape (N,).
        anchor: Anchor indices of the rows, int64, shape (N,); a pair (image, anchor) occurs once.
        targets: Targets of the rows, shape (N, K), at least float32, in [0, 1].
        class_weights: Weights of the K classes, or None.

    Returns:
        The scalar sum, float32 or float64.

    Examples:
        >>> logits = torch.tensor([[[0.0, 1.0], [2.0, -1.0]]])  # one image, two classes, two anchors
        >>> index = torch.tensor([0])
        >>> foreground_bce_sum(logits, index, index, torch.tensor([[0.9, 0.1]]))
        tensor(4.2466)
        >>> dense = torch.tensor([[[0.9, 0.0], [0.1, 0.0]]])
        >>> torch.nn.functional.binary_cross_entropy_with_logits(logits, dense, reduction="sum")
        tensor(4.2466)
    """
    result: Tensor = _ForegroundBCESum.apply(logits, image, anchor, targets, class_weights)
    return result


class _ForegroundBCESum(torch.autograd.Function):
    """The sum and its gradient."""

    @staticmethod
    def forward(
        ctx: Any, logits: Tensor, image: Tensor, anchor: Tensor, targets: Tensor, class_weights: Tensor | None
    ) -> Tensor:
        """Compute the sum; on the CPU ``sigmoid(logits)`` serves the sum, and then the gradient."""
        dtype = torch.promote_types(logits.dtype, torch.float32)
        targets = targets.to(dtype)
        weights = None if class_weights is None else class_weights.to(dtype).flatten()
        losses = (logits[image, :, anchor].to(dtype) * targets).sum(0).neg_()  # of each class
        sigmoid = torch.empty_like(logits) if logits.device.type == "cpu" and logits.dtype == dtype else None
        images = max(1, PIECE // max(1, logits[:1].numel()))
        for i in range(0, len(logits), images):
            piece = slice(i, i + images)
            losses += _softplus_sums(logits[piece].to(dtype), None if sigmoid is None else sigmoid[piece]).sum(0)
        ctx.save_for_backward(logits, image, anchor, targets, weights)
        ctx.sigmoid = sigmoid
        return losses.sum() if weights is None else torch.dot(losses, weights)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor, None, None, None, None]:
        """Compute ``upstream * weights * (sigmoid(logits) - targets)``."""
        logits, image, anchor, targets, weights = ctx.saved_tensors
        sigmoid, ctx.sigmoid = ctx.sigmoid, None  # becomes the gradient; a second backward pass makes its own
        scale = upstream.to(targets.dtype)
        column = scale if weights is None else scale * weights[:, None]
        if sigmoid is not None:
            gradient = sigmoid.mul_(column)
        elif logits.dtype == targets.dtype:
            gradient = _scaled_sigmoid(logits, column)
        else:  # in half precision scale alone may overflow where the product does not
            gradient = torch.empty_like(logits)
            for one, out in zip(logits, gradient, strict=True):
                out.copy_(_scaled_sigmoid(one.to(targets.dtype), column))
        if image.numel():
            rows = logits[image, :, anchor].to(targets.dtype).sigmoid_().sub_(targets).mul_(scale)
            if weights is not None:
                rows *= weights
            gradient[image, :, anchor] = rows.to(gradient.dtype)
        return gradient, None, None, None, None


def _softplus_sums(logits: Tensor, sigmoid: Tensor | None) -> Tensor:
    """Sum softplus over the anchors, (B, K, A) to (B, K), from the sigmoid s where it is known.

    ``softplus(x) = -log(1 - s)``, so a group of anchors needs only one, slow, logarithm. What it is taken of is
    ``1 - (1 - a)(1 - b)...``: ``a`` moved towards 1 by the share ``b``, where small numbers keep all their digits.
    """
    size = logits.shape[2] // GROUP
    if sigmoid is not None:
        torch.sigmoid(logits, out=sigmoid)
    if sigmoid is None or size == 0:
        return torch.nn.functional.softplus(logits, threshold=SOFTPLUS_THRESHOLD).sum(2)
    first, second, *others = sigmoid[..., : GROUP * size].split(size, 2)
    one = sigmoid.new_ones(())
    group = torch.lerp(first, one, second)
    for other in others:
        group.lerp_(one, other)
    imprecise = 1 - group.amax(2) < 1 / LARGEST_LOSS_OF_PRECISION  # a confident anchor, or several that are not sure
    sums = group.neg_().log1p_().sum(2).neg_()
    if imprecise.any():
        sums[imprecise] = _softplus_sums(logits[..., : GROUP * size][imprecise].unsqueeze(0), None).squeeze(0)
    return sums + _softplus_sums(logits[..., GROUP * size :], None)


def _scaled_sigmoid(logits: Tensor, column: Tensor) -> Tensor:
    """Return ``column * sigmoid(logits)`` without a buffer for the sigmoid."""
    return torch.ops.aten.softplus_backward(column.expand_as(logits), logits, 1.0, SOFTPLUS_THRESHOLD)
