# SPDX-License-Identifier: AGPL-3.0-or-later
"""How far apart two half-precision tensors are."""

from __future__ import annotations

import torch


def ulps(a: torch.Tensor, b: torch.Tensor) -> int:
    """Return the largest distance between two half-precision tensors, in representable numbers."""

    def ordered(x: torch.Tensor) -> torch.Tensor:
        bits = x.contiguous().view(torch.int16).int()
        return torch.where(bits < 0, -(bits & 0x7FFF), bits)

    return int((ordered(a) - ordered(b)).abs().max())
