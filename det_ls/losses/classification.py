# SPDX-License-Identifier: AGPL-3.0-or-later
"""The classification loss with smoothed targets: cross-entropy against the rows of P."""

from __future__ import annotations

from typing import Any

import torch
import ultralytics
from torch import Tensor
from ultralytics.utils.loss import v8ClassificationLoss

from det_ls.base.errors import ArgumentError, RunError
from det_ls.losses.cross_entropy import cross_entropy_with_matrix
from det_ls.smoothing.settings import PREFIX, LabelSmoothing


def check_mode(smoothing: LabelSmoothing, task: str | None) -> None:
    """Raise for a mode that smooths nothing under a softmax.

    A row of ``background`` is (1 - eps) times a one-hot row: the gradient is (1 - eps) times the plain loss's, and
    the same probabilities minimise it.

    Args:
        smoothing: The keys.
        task: The trainer's task; only ``classify`` has a softmax.

    Raises:
        ValueError: If the mode is ``background`` and the task ``classify``.
    """
    if task == "classify" and smoothing.label_smoothing_mode == "background":
        raise ArgumentError(
            f"{PREFIX}_mode: expected redistribute, uniform or binary for a classifier, got 'background', "
            "which only scales the loss of a softmax."
        )


class LabelSmoothingClassificationLoss(v8ClassificationLoss):
    """``v8ClassificationLoss`` with smoothed targets.

    Examples:
        >>> from det_ls import smoothing_matrix
        >>> criterion = LabelSmoothingClassificationLoss(smoothing_matrix(3, 0.1))
        >>> criterion(torch.tensor([[2.0, 0.5, 0.0], [0.0, 1.0, 3.0]]), {"cls": torch.tensor([0, 2])})[0]
        tensor(0.4506)
    """

    def __init__(self, matrix: Tensor) -> None:
        """Hold the smoothing matrix, after a look at what stock computes without one.

        Args:
            matrix: P of shape (K, K).

        Raises:
            RuntimeError: If stock's loss is not the mean cross-entropy of the logits and ``batch["cls"]``.
        """
        self.smoothing_matrix = matrix
        logits = torch.linspace(-2.0, 2.0, 6).reshape(2, 3)
        labels = torch.tensor([2, 0])
        stock, items = super().__call__(logits, {"cls": labels})
        if not torch.allclose(stock, cross_entropy_with_matrix(logits, labels, torch.eye(3))):
            raise RunError(
                "ultralytics: expected a version whose v8ClassificationLoss is the mean cross-entropy, "
                f"got {ultralytics.__version__}, whose loss is another."
            )
        self._item = next(iter(items)) if isinstance(items, dict) else None  # older versions log a bare tensor

    def __call__(self, preds: Any, batch: dict[str, Tensor]) -> tuple[Tensor, Any]:
        """Compute the mean cross-entropy against smoothed targets.

        Args:
            preds: Logits of shape (N, K), or a tuple whose second item they are.
            batch: The batch; ``cls`` holds the N class indices.

        Returns:
            The loss, and what is logged of it in the form that stock has.
        """
        logits: Tensor = preds[1] if isinstance(preds, (list, tuple)) else preds
        loss = cross_entropy_with_matrix(logits, batch["cls"], self.smoothing_matrix)
        logged: Any = loss.detach() if self._item is None else {self._item: loss.detach()}
        return loss, logged

    def set_smoothing_matrix(self, matrix: Tensor) -> None:
        """Replace the smoothing matrix, at the start of an epoch.

        Args:
            matrix: P of shape (K, K).

        Raises:
            ValueError: If it has another shape.
        """
        if matrix.shape != self.smoothing_matrix.shape:
            raise ArgumentError(
                f"matrix: expected shape {tuple(self.smoothing_matrix.shape)}, got {tuple(matrix.shape)}."
            )
        self.smoothing_matrix = matrix
