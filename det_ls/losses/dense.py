# SPDX-License-Identifier: AGPL-3.0-or-later
"""The two forms of the smoothed classification term: dense, the reference, and lean, what runs."""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor, nn

from det_ls.losses.lean.kernel import SOFTPLUS_THRESHOLD, foreground_bce_sum
from det_ls.losses.lean.scores import LazyScores
from det_ls.smoothing.matrix import apply_smoothing


class AssignerWithLabels(Protocol):
    """An assigner that keeps the labels, (B, A), of its latest call."""

    det_ls_labels: Tensor


class DenseSmoothedBCE(nn.BCEWithLogitsLoss):
    """Element-wise binary cross-entropy against dense targets that are smoothed first: the reference."""

    matrix: Tensor

    def __init__(self, matrix: Tensor) -> None:
        """Hold the smoothing matrix.

        Args:
            matrix: P of shape (K, K).
        """
        super().__init__(reduction="none")
        self.register_buffer("matrix", matrix)

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        """Compute ``BCE(input, target @ P)`` in at least float32.

        Args:
            input: Logits of shape (B, A, K).
            target: Unsmoothed soft targets of shape (B, A, K).

        Returns:
            The element-wise loss of shape (B, A, K).
        """
        dtype = torch.promote_types(input.dtype, torch.float32)
        logits, smoothed = input.to(dtype), apply_smoothing(target.to(dtype), self.matrix)
        # Not torch's (1 - t) x - logsigmoid(x): on background it cancels, and at the head's initial bias for 1203
        # classes the float32 sum is wrong by 0.4 %.
        return nn.functional.softplus(logits, threshold=SOFTPLUS_THRESHOLD) - logits * smoothed


class _LeanSum:
    """What stands for the element-wise loss: it knows its class weights and its sum."""

    def __init__(self, logits: Tensor, image: Tensor, anchor: Tensor, targets: Tensor) -> None:
        self._arguments = logits, image, anchor, targets
        self._class_weights: Tensor | None = None

    def __imul__(self, class_weights: Tensor) -> _LeanSum:
        self._class_weights = class_weights
        return self

    def sum(self) -> Tensor:
        return foreground_bce_sum(*self._arguments, class_weights=self._class_weights)


class LeanSmoothedBCE:
    """Binary cross-entropy of lazy scores against soft scores and labels, smoothed row by row."""

    def __init__(self, matrix: Tensor, assigner: AssignerWithLabels) -> None:
        """Hold the smoothing matrix and the assigner that knows the rows' labels.

        Args:
            matrix: P of shape (K, K).
            assigner: The criterion's assigner.
        """
        self.matrix = matrix
        self.assigner = assigner
        self.foreground = 0  # rows in the latest call

    def __call__(self, scores: LazyScores, soft_scores: Tensor) -> _LeanSum:
        """Gather the foreground rows.

        Args:
            scores: The class logits.
            soft_scores: The assigner's scores of shape (B, A, 1), 0 on background.

        Returns:
            The loss, still to be weighted and summed.
        """
        image, anchor = soft_scores.squeeze(-1).nonzero(as_tuple=True)
        self.foreground = len(image)
        dtype = torch.promote_types(scores.dtype, torch.float32)
        labels = self.assigner.det_ls_labels[image, anchor].long()
        targets = soft_scores[image, anchor].to(dtype) * self.matrix[labels].to(dtype)
        return _LeanSum(scores.logits, image, anchor, targets)
