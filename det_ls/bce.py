# SPDX-License-Identifier: AGPL-3.0-or-later
"""Binary cross-entropy for a dense detector whose targets are zero on all but a few rows.

BCE with logits is linear in its target: ``BCE(x, t) = softplus(x) - x t``. Where nearly all targets are zero, the summed
loss is ``sum softplus(x) - sum_rows x t`` and its gradient ``sigmoid(x) - t``: neither a dense target nor the dense
element-wise loss is ever needed. Any smoothing matrix fits, because it changes only the rows.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.autograd.function import FunctionCtx, once_differentiable

# softplus(x) = x to float64 precision above this; PyTorch's default of 20 is only good for float32.
SOFTPLUS_THRESHOLD = 40.0


def foreground_bce_sum(
    logits: Tensor, image: Tensor, anchor: Tensor, targets: Tensor, class_weights: Tensor | None = None
) -> Tensor:
    """Sum binary cross-entropy with logits over all anchors, given the targets of the foreground anchors only.

    Accumulates in float32, or in float64 for float64 logits. Its extra memory is one buffer of the logits' size in the
    backward pass; in the forward pass, and for the float32 copy of half-precision logits, one image at a time.

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
    """The sum and its gradient, with nothing dense kept between them but the logits themselves."""

    @staticmethod
    def forward(
        ctx: FunctionCtx, logits: Tensor, image: Tensor, anchor: Tensor, targets: Tensor, class_weights: Tensor | None
    ) -> Tensor:
        """Compute the sum."""
        dtype = _accumulation_dtype(logits)
        targets = targets.to(dtype)
        weights = None if class_weights is None else class_weights.to(dtype).flatten()
        total = logits.new_zeros((), dtype=dtype)
        for one in logits:  # an image at a time: the element-wise loss stays in cache and off the peak
            loss = torch.nn.functional.softplus(one.to(dtype), threshold=SOFTPLUS_THRESHOLD)
            total += loss.sum() if weights is None else torch.dot(loss.sum(1), weights)
        rows = logits[image, :, anchor].to(dtype) * targets
        total -= rows.sum() if weights is None else torch.dot(rows.sum(0), weights)
        ctx.save_for_backward(logits, image, anchor, targets, weights)
        return total

    @staticmethod
    @once_differentiable
    def backward(ctx: FunctionCtx, upstream: Tensor) -> tuple[Tensor, None, None, None, None]:
        """Compute ``upstream * weights * (sigmoid(logits) - targets)``."""
        logits, image, anchor, targets, weights = ctx.saved_tensors
        scale = upstream.to(targets.dtype)
        column = scale if weights is None else scale * weights[:, None]
        gradient = torch.empty_like(logits)
        for one, out in zip(logits, gradient, strict=True):
            if logits.dtype == targets.dtype:
                torch.ops.aten.softplus_backward.grad_input(
                    column.expand_as(one), one, 1.0, SOFTPLUS_THRESHOLD, grad_input=out
                )
            else:  # in half precision scale alone may overflow where the product does not
                one = one.to(targets.dtype)
                out.copy_(torch.ops.aten.softplus_backward(column.expand_as(one), one, 1.0, SOFTPLUS_THRESHOLD))
        if image.numel():
            rows = logits[image, :, anchor].to(targets.dtype).sigmoid_().sub_(targets).mul_(scale)
            if weights is not None:
                rows *= weights
            gradient[image, :, anchor] = rows.to(gradient.dtype)
        return gradient, None, None, None, None


def _accumulation_dtype(logits: Tensor) -> torch.dtype:
    """At least float32, whatever the logits."""
    return torch.promote_types(logits.dtype, torch.float32)
