# SPDX-License-Identifier: AGPL-3.0-or-later
"""The lean form's classification term, and the form itself."""

from __future__ import annotations

from typing import Any, Protocol

import torch
from torch import Tensor

from det_ls.losses.form import CurrentMatrix, Form, with_parts
from det_ls.losses.lean.assigner import soft_score_assigner
from det_ls.losses.lean.kernel import foreground_bce_sum
from det_ls.losses.lean.scores import LazyScores


class AssignerWithLabels(Protocol):
    """An assigner that keeps the labels, (B, A), of its latest call."""

    det_ls_labels: Tensor


class LeanSum:
    """What stands for the element-wise loss: it knows its class weights and its sum."""

    def __init__(self, logits: Tensor, image: Tensor, anchor: Tensor, targets: Tensor) -> None:
        """Hold the arguments of :func:`det_ls.losses.lean.kernel.foreground_bce_sum`."""
        self._arguments = logits, image, anchor, targets
        self._class_weights: Tensor | None = None

    def __imul__(self, class_weights: Tensor) -> LeanSum:
        """Take note of the class weights."""
        self._class_weights = class_weights
        return self

    def sum(self) -> Tensor:
        """Return the scalar sum."""
        return foreground_bce_sum(*self._arguments, class_weights=self._class_weights)


class LeanSmoothedBCE:
    """Binary cross-entropy of lazy scores against soft scores and labels, smoothed row by row."""

    def __init__(self, matrix: CurrentMatrix, assigner: AssignerWithLabels) -> None:
        """Hold the smoothing matrix and the assigner that knows the rows' labels.

        Args:
            matrix: P, which may change between calls.
            assigner: The criterion's assigner.
        """
        self.matrix = matrix
        self.assigner = assigner
        self.foreground = 0  # rows in the latest call

    def __call__(self, scores: LazyScores, soft_scores: Tensor) -> LeanSum:
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
        score = soft_scores[image, anchor]
        targets = score.to(dtype) * self.matrix.value[labels].to(dtype)
        return LeanSum(scores.logits, image, anchor, targets)


def lean_form(stock: Any, matrix: CurrentMatrix) -> Form:
    """Build the lean form of a criterion.

    Args:
        stock: A stock criterion.
        matrix: P, which may change between calls.

    Returns:
        The form.
    """
    assigner = soft_score_assigner(stock.assigner)
    return Form("lean", with_parts(stock, assigner, LeanSmoothedBCE(matrix, assigner)), LazyScores)
