# SPDX-License-Identifier: AGPL-3.0-or-later
"""The dense form: stock's own method with only ``bce`` replaced. It is the reference, and needs no trick.

It is also what a run uses when the lean form does not reproduce it.
"""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn

from det_ls.losses.form import CurrentMatrix, Form, with_parts
from det_ls.losses.lean.kernel import SOFTPLUS_THRESHOLD
from det_ls.smoothing.matrix import apply_smoothing


class DenseSmoothedBCE(nn.Module):
    """Element-wise binary cross-entropy against dense targets that are smoothed first.

    Examples:
        >>> matrix = CurrentMatrix(torch.tensor([[0.9, 0.1], [0.1, 0.9]]), torch.device("cpu"))
        >>> DenseSmoothedBCE(matrix)(torch.zeros(1, 2), torch.tensor([[1.0, 0.0]]))
        tensor([[0.6931, 0.6931]])
    """

    def __init__(self, matrix: CurrentMatrix) -> None:
        """Hold the smoothing matrix.

        Args:
            matrix: P, which may change between calls.
        """
        super().__init__()
        self.matrix = matrix

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        """Compute ``BCE(input, target @ P)`` in at least float32.

        Args:
            input: Logits of shape (B, A, K).
            target: Unsmoothed soft targets of shape (B, A, K).

        Returns:
            The element-wise loss of shape (B, A, K).
        """
        dtype = torch.promote_types(input.dtype, torch.float32)
        logits, smoothed = input.to(dtype), apply_smoothing(target.to(dtype), self.matrix.value)
        # Not torch's (1 - t) x - logsigmoid(x): on background it cancels, and at the head's initial bias for 1203
        # classes the float32 sum is wrong by 0.4 %.
        return nn.functional.softplus(logits, threshold=SOFTPLUS_THRESHOLD) - logits * smoothed


def dense_form(stock: Any, matrix: CurrentMatrix) -> Form:
    """Build the dense form of a criterion.

    Args:
        stock: A stock criterion.
        matrix: P, which may change between calls.

    Returns:
        The form.
    """
    return Form("dense", with_parts(stock, copy.deepcopy(stock.assigner), DenseSmoothedBCE(matrix)))
