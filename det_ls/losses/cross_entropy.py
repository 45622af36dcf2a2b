# SPDX-License-Identifier: AGPL-3.0-or-later
"""Cross-entropy with smoothed labels, for classifiers and sequence models: the same P as in detection.

For logits x, a label c and class weights w (1 by default) the loss is ``-sum_k w_k P[c, k] log softmax(x)_k``. With
``S_c = sum_k w_k P[c, k]`` it is ``S_c logsumexp(x) - sum_k w_k P[c, k] x_k``, and its gradient is
``S_c softmax(x) - w P[c]``: neither log-probabilities nor dense targets are ever stored. Without a similarity table a
row of P is two numbers, so that a vocabulary of any size fits.

Sources: Szegedy et al., "Rethinking the Inception architecture", CVPR 2016, equation 6 (``uniform``, as in
``torch.nn.functional.cross_entropy(label_smoothing=)``); fairseq's ``label_smoothed_nll_loss`` (``redistribute``).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from det_ls.base.errors import ArgumentError, ArgumentTypeError
from det_ls.smoothing.matrix import Similarity, smoothing_matrix, smoothing_rows

Reduction = Literal["mean", "sum", "none"]
PIECE = 2**20  # elements that are worked on at a time


def smoothed_cross_entropy(
    logits: Tensor,
    labels: Tensor,
    epsilon: float | Sequence[float] | Tensor,
    mode: str = "redistribute",
    similarity: Similarity | None = None,
    *,
    weight: Tensor | None = None,
    ignore_index: int = -100,
    reduction: Reduction = "mean",
    dim: int | None = None,
) -> Tensor:
    """Compute cross-entropy between logits and smoothed labels.

    Args:
        logits: Logits of shape (N, K), (N, ..., K), or torch's (N, K, ...).
        labels: Class indices, integers of the logits' shape without the class dimension; or soft labels, floating
            point of the logits' shape, whose rows are multiplied by P.
        epsilon: Share of mass taken from the true class, one number or one for each class
            (:func:`det_ls.smoothing_matrix`).
        mode: ``redistribute``, ``uniform``, ``binary`` or ``background``. Under a softmax ``background`` smooths
            nothing: a row of it is (1 - eps) times a one-hot row, so that the loss is (1 - eps) times the plain one.
            A row of ``binary`` has the mass S = 1 + (K - 2) eps / 2: the loss is S times that of the row divided by S,
            whose true class has (1 - eps / 2) / S, far below 1 - eps with many classes. Prefer the other two.
        similarity: (K, K) table that says where each class's share goes (``redistribute`` only).
        weight: (K,) class weights, or None. As in torch, the mean divides by the weights of the true classes.
        ignore_index: Label whose rows count nothing; for class indices only.
        reduction: ``mean``, ``sum`` or ``none``.
        dim: The class dimension: -1, or 1 as in torch. None finds it from the shapes.

    Returns:
        The loss in float32 or better: a scalar, or with ``none`` one number a row in the labels' shape. The mean of no
        rows is NaN, as in torch.

    Raises:
        TypeError: If logits or labels have the wrong type.
        ValueError: If shapes do not fit or leave the class dimension open, a label is out of range, or an argument of
            the smoothing is out of its range.

    Examples:
        >>> logits, labels = torch.tensor([[2.0, 0.5, 0.0], [0.0, 1.0, 3.0]]), torch.tensor([0, 2])
        >>> smoothed_cross_entropy(logits, labels, 0.1)
        tensor(0.4506)
        >>> smoothed_cross_entropy(logits, labels, 0.1, mode="uniform")
        tensor(0.3798)
        >>> torch.nn.functional.cross_entropy(logits, labels, label_smoothing=0.1)
        tensor(0.3798)
    """
    if reduction not in ("mean", "sum", "none"):
        raise ArgumentError(f"reduction: expected mean, sum or none, got {reduction!r}.")
    rows, labels = _rows(logits, labels, dim)
    shape, k = labels.shape, rows.shape[1]
    dtype = torch.promote_types(rows.dtype, torch.float32)
    weights = torch.ones(k, dtype=dtype, device=rows.device) if weight is None else weight.to(rows.device, dtype)
    if weights.shape != (k,):
        raise ArgumentError(f"weight: expected {k} numbers, one a class, got shape {tuple(weights.shape)}.")
    if labels.is_floating_point():
        if similarity is None:
            diagonal, rest = (v.to(rows.device, dtype) for v in smoothing_rows(k, epsilon, mode))
            soft = labels.reshape(-1, k).to(dtype)
            targets = soft * (diagonal - rest) + (soft * rest).sum(1, keepdim=True)
        else:
            matrix = smoothing_matrix(k, epsilon, mode, similarity).to(rows.device, dtype)
            targets = labels.reshape(-1, k).to(dtype) @ matrix
        losses = -(targets * weights * torch.log_softmax(rows.to(dtype), 1)).sum(1)
        return _reduced(losses, losses.new_tensor(float(len(losses))), reduction, shape[:-1])
    flat = labels.reshape(-1).long()
    counted = (flat != ignore_index).nonzero().squeeze(1)
    kept = flat[counted]
    if kept.numel() and not (int(kept.min()) >= 0 and int(kept.max()) < k):
        wrong = int(kept.min()) if int(kept.min()) < 0 else int(kept.max())
        raise ArgumentError(f"labels: expected class indices from 0 to {k - 1} or {ignore_index}, got {wrong}.")
    smoothing: tuple[Tensor, ...]
    if similarity is None:
        smoothing = smoothing_rows(k, epsilon, mode)
    else:
        smoothing = (smoothing_matrix(k, epsilon, mode, similarity),)
    smoothing = tuple(v.to(rows.device, dtype) for v in smoothing)
    found: Tensor = _IndexLoss.apply(rows if len(counted) == len(rows) else rows[counted], kept, weights, *smoothing)
    if reduction == "none":
        found = found.new_zeros(len(flat)).index_put((counted,), found)
    return _reduced(found, weights[kept].sum(), reduction, shape)


def cross_entropy_with_matrix(logits: Tensor, labels: Tensor, matrix: Tensor) -> Tensor:
    """Compute the mean cross-entropy between logits and the rows of a smoothing matrix.

    Args:
        logits: Logits of shape (N, K).
        labels: Class indices of shape (N,), int64, in range.
        matrix: P of shape (K, K).

    Returns:
        The mean in float32 or better.

    Examples:
        >>> logits, labels = torch.tensor([[2.0, 0.5, 0.0], [0.0, 1.0, 3.0]]), torch.tensor([0, 2])
        >>> cross_entropy_with_matrix(logits, labels, smoothing_matrix(3, 0.1))
        tensor(0.4506)
    """
    dtype = torch.promote_types(logits.dtype, torch.float32)
    matrix = matrix.to(logits.device, dtype)
    loss: Tensor = _IndexLoss.apply(logits, labels, matrix.new_ones(len(matrix)), matrix).mean()
    return loss


def _rows(logits: Tensor, labels: Tensor, dim: int | None) -> tuple[Tensor, Tensor]:
    """Bring logits to (N, K), and soft labels to class-last, after finding the class dimension."""
    if not isinstance(logits, Tensor) or not logits.is_floating_point() or logits.ndim < 2:
        raise ArgumentTypeError("logits: expected a floating-point tensor of shape (N, K), (N, ..., K) or (N, K, ...).")
    if not isinstance(labels, Tensor) or labels.dtype == torch.bool or labels.is_complex():
        raise ArgumentTypeError("labels: expected a tensor of class indices or of soft labels.")
    if dim not in (None, -1, 1):
        raise ArgumentError(f"dim: expected -1, 1 or None, got {dim!r}.")
    soft = labels.is_floating_point()
    size = logits.shape
    expected = {-1: size if soft else size[:-1], 1: size if soft else size[:1] + size[2:]}
    fitting = [d for d in ((-1, 1) if dim is None else (dim,)) if labels.shape == expected[d]]
    if not fitting:
        raise ArgumentError(
            f"labels: expected a shape that fits logits of shape {tuple(size)}, got {tuple(labels.shape)}."
        )
    if logits.ndim > 2 and len(fitting) > 1:
        raise ArgumentError(f"dim: expected -1 or 1 for logits of shape {tuple(size)}, which fit both ways, got None.")
    if fitting[0] == 1 and logits.ndim > 2:
        logits, labels = logits.movedim(1, -1), labels.movedim(1, -1) if soft else labels
    return logits.reshape(-1, logits.shape[-1]), labels


def _reduced(losses: Tensor, total: Tensor, reduction: str, shape: torch.Size) -> Tensor:
    """Average, sum, or give back one number a row."""
    if reduction == "none":
        return losses.reshape(shape)
    return losses.sum() / total if reduction == "mean" else losses.sum()


class _IndexLoss(torch.autograd.Function):
    """One loss a row for class indices; P comes whole, or as its diagonal and the rest of each row."""

    @staticmethod
    def forward(ctx: Any, logits: Tensor, labels: Tensor, weights: Tensor, *smoothing: Tensor) -> Tensor:
        """Compute ``S_c logsumexp(x) - sum_k w_k P[c, k] x_k`` of each row."""
        mass = _mass(labels, weights, *smoothing)
        losses = torch.empty(len(logits), dtype=weights.dtype, device=logits.device)
        for piece in _pieces(logits):
            x, c = logits[piece].to(weights.dtype), labels[piece]
            losses[piece] = mass[piece] * x.logsumexp(1) - _weighted_sum(x, c, weights, *smoothing)
        ctx.save_for_backward(logits, labels, weights, mass, *smoothing)
        return losses

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor | None, ...]:
        """Compute ``upstream * (S_c softmax(x) - w P[c])`` of each row."""
        logits, labels, weights, mass, *smoothing = ctx.saved_tensors
        gradient = torch.empty_like(logits)
        for piece in _pieces(logits):
            rows = logits[piece].to(weights.dtype).softmax(1).mul_(mass[piece, None])
            if len(smoothing) == 1:
                rows -= smoothing[0][labels[piece]] * weights
            else:
                diagonal, rest = smoothing
                c = labels[piece]
                rows -= rest[c, None] * weights
                rows[torch.arange(len(c), device=c.device), c] -= (diagonal - rest)[c] * weights[c]
            gradient[piece] = rows.mul_(upstream[piece, None]).to(gradient.dtype)
        return gradient, None, None, *(None for _ in smoothing)


def _mass(labels: Tensor, weights: Tensor, *smoothing: Tensor) -> Tensor:
    """Return S_c of each row."""
    if len(smoothing) == 1:
        return (smoothing[0] @ weights)[labels]
    diagonal, rest = smoothing
    return (rest * weights.sum() + (diagonal - rest) * weights)[labels]


def _weighted_sum(x: Tensor, labels: Tensor, weights: Tensor, *smoothing: Tensor) -> Tensor:
    """Return ``sum_k w_k P[c, k] x_k`` of each row."""
    if len(smoothing) == 1:
        return (x * (smoothing[0][labels] * weights)).sum(1)
    diagonal, rest = smoothing
    own = x.gather(1, labels[:, None]).squeeze(1) * weights[labels]
    # Where the rest is 0, as with epsilon 0, a masked logit of minus infinity must not become 0 * inf.
    total = torch.where(rest[labels] > 0, x @ weights, torch.zeros_like(own))
    return rest[labels] * total + (diagonal - rest)[labels] * own


def _pieces(logits: Tensor) -> list[slice]:
    """Cut the rows into pieces of at most ``PIECE`` elements."""
    rows = max(1, PIECE // max(1, logits.shape[1]))
    return [slice(i, i + rows) for i in range(0, len(logits), rows)]
