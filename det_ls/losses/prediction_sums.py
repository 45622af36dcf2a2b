# SPDX-License-Identifier: AGPL-3.0-or-later
"""The model's own distribution over classes, summed up by true class while it trains: what ``online`` learns from.

Nothing here makes the CPU wait for a GPU: rows are added where they are, and read once an epoch.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from det_ls.smoothing.policy import ClassPredictions


def sigmoid_shares(logits: Tensor) -> Tensor:
    """Turn a detector's logits into distributions over classes: sigmoids, normalised to a sum of 1.

    Args:
        logits: Logits of shape (N, K).

    Returns:
        (N, K) in float32 or better; right also where every sigmoid underflows.

    Examples:
        >>> sigmoid_shares(torch.tensor([[0.0, -200.0], [-300.0, -300.0]]))
        tensor([[1.0000, 0.0000],
                [0.5000, 0.5000]])
    """
    with torch.autocast(logits.device.type, enabled=False):
        return logsigmoid(logits.to(torch.promote_types(logits.dtype, torch.float32))).softmax(1)


class PredictionSums:
    """Sums of the model's distributions over the rows that it classified correctly, by class.

    Examples:
        >>> sums = PredictionSums(2, torch.device("cpu"))
        >>> shares = torch.tensor([[0.75, 0.25], [0.25, 0.75]])
        >>> sums.add(torch.tensor([0, 0]), shares, torch.tensor([0.5, 1.0]))  # the second row is taken for class 1
        >>> sums.total().sums[0], sums.total().weights
        (tensor([0.3750, 0.1250], dtype=torch.float64), tensor([0.5000, 0.0000], dtype=torch.float64))
    """

    def __init__(self, num_classes: int, device: torch.device) -> None:
        """Start with nothing.

        Args:
            num_classes: K.
            device: Where the criterion works.
        """
        dtype = torch.float32 if device.type == "mps" else torch.float64
        self._sums = torch.zeros(num_classes, num_classes + 1, dtype=dtype, device=device)  # the last column: weights

    def reset(self) -> None:
        """Forget everything, at the start of an epoch."""
        self._sums.zero_()

    @torch.no_grad()
    def add(self, labels: Tensor, shares: Tensor, weights: Tensor) -> None:
        """Add the rows of a training step.

        Args:
            labels: (N,) true classes, int64.
            shares: (N, K) the model's distributions.
            weights: (N,) weights of the rows, at least 0.
        """
        with torch.autocast(shares.device.type, enabled=False):
            right = shares.argmax(1) == labels
            weights = (weights * right).to(self._sums.dtype)[:, None]
            self._sums.index_add_(0, labels, torch.cat((shares.to(self._sums.dtype) * weights, weights), 1))

    def total(self) -> ClassPredictions:
        """Sum up over all processes of a distributed run; each of them has to call it.

        Returns:
            The sums, on the CPU.
        """
        total, distributed = self._sums.clone(), torch.distributed
        if distributed.is_available() and distributed.is_initialized() and distributed.get_world_size() > 1:
            distributed.all_reduce(total)
        total = total.cpu()
        return ClassPredictions(total[:, :-1], total[:, -1])
