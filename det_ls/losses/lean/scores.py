# SPDX-License-Identifier: AGPL-3.0-or-later
"""A stand-in for the head's class scores that is transposed and squashed only where somebody looks.

Ultralytics transposes the head's (B, K, A) logits to (B, A, K), copies them, and takes the sigmoid of all of them, only
for the assigner to read a few triples (image, anchor, class). This object answers the same calls on the head's own
layout. Whatever it does not know, it answers with the dense tensor: right first, lean second.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from det_ls.base.errors import VersionError


class LazyScores:
    """Class scores of shape (B, A, K) that read from the head's logits of shape (B, K, A).

    Attributes:
        logits: The head's logits, shape (B, K, A).

    Examples:
        >>> logits = torch.arange(12.0).reshape(1, 3, 4)
        >>> scores = LazyScores(logits).permute(0, 2, 1).contiguous()
        >>> tuple(scores.shape), scores[0, 3, 2].item()
        ((1, 4, 3), 11.0)
        >>> i = torch.tensor([0])
        >>> torch.equal(scores.detach().sigmoid()[i, i, i], logits[0, 0, :1].sigmoid())
        True
    """

    def __init__(self, logits: Tensor, squashed: bool = False) -> None:
        """Wrap the logits.

        Args:
            logits: The head's logits, shape (B, K, A).
            squashed: Whether what is read goes through a sigmoid.
        """
        self.logits = logits
        self._squashed = squashed

    @property
    def shape(self) -> torch.Size:
        """(B, A, K)."""
        b, k, a = self.logits.shape
        return torch.Size((b, a, k))

    @property
    def dtype(self) -> torch.dtype:
        """The logits' dtype."""
        return self.logits.dtype

    @property
    def device(self) -> torch.device:
        """The logits' device."""
        return self.logits.device

    def permute(self, *dims: int) -> LazyScores:
        """Take note of the transposition that this object already stands for."""
        if dims != (0, 2, 1):  # an unknown version's loss: the guard then takes the dense form
            raise VersionError(f"dims: expected (0, 2, 1), got {dims}.")
        return self

    def contiguous(self) -> LazyScores:
        """Do nothing: a copy is what this object avoids."""
        return self

    def detach(self) -> LazyScores:
        """Cut the graph."""
        return LazyScores(self.logits.detach(), self._squashed)

    def cpu(self) -> LazyScores:
        """Move to the CPU."""
        return LazyScores(self.logits.cpu(), self._squashed)

    def sigmoid(self) -> LazyScores:
        """Squash whatever is read from now on."""
        return LazyScores(self.logits, squashed=True)

    def dense(self) -> Tensor:
        """Return the (B, A, K) tensor that this object stands for."""
        return self._squash(self.logits.permute(0, 2, 1)).contiguous()

    def _squash(self, read: Tensor) -> Tensor:
        return read.sigmoid() if self._squashed else read

    def __getitem__(self, index: Any) -> Any:
        """Read as from a (B, A, K) tensor: triples, all anchors of (image, class) pairs, one class, or some images."""
        if isinstance(index, slice):
            return LazyScores(self.logits[index], self._squashed)
        if isinstance(index, tuple) and len(index) == 3 and not any(i is Ellipsis or i is None for i in index):
            image, anchor, label = index
            if not isinstance(anchor, slice) and not isinstance(image, slice) and not isinstance(label, slice):
                return self._squash(self.logits[image, label, anchor])
            if anchor == slice(None) and isinstance(image, Tensor) and isinstance(label, Tensor):
                return self._squash(self.logits[image, label])
        if isinstance(index, tuple) and len(index) == 2 and index[0] is Ellipsis and isinstance(index[1], int):
            return self._squash(self.logits[:, index[1]])
        return self.dense()[index]

    def __getattr__(self, name: str) -> Any:
        """Answer any other attribute with the dense tensor's."""
        if name.startswith("__") or name in {"logits", "_squashed"}:
            raise AttributeError(name)
        return getattr(self.dense(), name)

    @classmethod
    def __torch_function__(
        cls, function: Callable[..., Any], types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Answer torch functions with the dense tensor."""
        dense = [a.dense() if isinstance(a, cls) else a for a in args]
        return function(*dense, **{k: v.dense() if isinstance(v, cls) else v for k, v in (kwargs or {}).items()})
