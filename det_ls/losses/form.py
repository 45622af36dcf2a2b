# SPDX-License-Identifier: AGPL-3.0-or-later
"""A form of a criterion: stock's own criterion with its assigner and its classification term chosen, once."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from det_ls.base.errors import ArgumentError


class CurrentMatrix:
    """The smoothing matrix in force, shared by all forms of a criterion: they are built once, it changes by epoch.

    Attributes:
        value: P of shape (K, K).
    """

    def __init__(self, matrix: Tensor, device: torch.device) -> None:
        """Hold a first matrix.

        Args:
            matrix: P of shape (K, K).
            device: Where the criterion works.
        """
        self.value = matrix.to(device, torch.float32 if device.type == "mps" else torch.float64)

    def set(self, matrix: Tensor) -> None:
        """Replace the matrix.

        Args:
            matrix: P of shape (K, K).

        Raises:
            ValueError: If it has another shape.
        """
        if matrix.shape != self.value.shape:
            raise ArgumentError(f"matrix: expected shape {tuple(self.value.shape)}, got {tuple(matrix.shape)}.")
        self.value = matrix.to(self.value)


def as_given(logits: Tensor) -> Tensor:
    """Return the logits, for a form that reads them as they are."""
    return logits


@dataclass(frozen=True)
class Form:
    """One way to compute a criterion.

    Attributes:
        name: ``lean``, ``dense`` or ``stock``.
        criterion: A criterion of stock's own class, with an assigner and a classification term of its own.
        wrap: What stock's ``loss`` gets in place of the head's class logits (B, K, A).
    """

    name: str
    criterion: Any
    wrap: Callable[[Tensor], Any] = as_given

    def loss(self, preds: dict[str, Any], batch: dict[str, Any], *args: Any, **kwargs: Any) -> Any:
        """Compute stock's loss.

        Args:
            preds: The head's outputs.
            batch: The training batch.
            *args: As in Ultralytics.
            **kwargs: As in Ultralytics.

        Returns:
            What stock returns.
        """
        return self.criterion.loss({**preds, "scores": self.wrap(preds["scores"])}, batch, *args, **kwargs)


def with_parts(stock: Any, assigner: Any, bce: Any) -> Any:
    """Copy a stock criterion with other parts; what a call changes is only in these.

    Args:
        stock: The criterion; it is not changed.
        assigner: The copy's assigner.
        bce: The copy's classification term.

    Returns:
        The copy.
    """
    criterion = copy.copy(stock)
    criterion.assigner, criterion.bce = assigner, bce
    return criterion


class PreciseTerm:
    """Stock's classification term, evaluated in float64 where the device has it.

    In float32 it cancels on background (see :class:`det_ls.losses.dense.DenseSmoothedBCE`). Only the term: the assigner
    and other terms mix the class logits with float32 tensors.
    """

    def __init__(self, bce: Any) -> None:
        """Hold the term.

        Args:
            bce: Stock's own.
        """
        self.bce = bce

    def __call__(self, scores: Tensor, targets: Tensor) -> Tensor:
        """Compute the element-wise loss.

        Args:
            scores: Logits of shape (B, A, K).
            targets: Targets of shape (B, A, K).

        Returns:
            The loss of shape (B, A, K).
        """
        dtype = torch.float32 if scores.device.type == "mps" else torch.float64
        loss: Tensor = self.bce(scores.to(dtype), targets.to(dtype))
        return loss


def stock_form(stock: Any) -> Form:
    """Return the criterion as stock has it, on an assigner of its own and with a precise classification term.

    Args:
        stock: A stock criterion.

    Returns:
        The form without smoothing.
    """
    return Form("stock", with_parts(stock, copy.deepcopy(stock.assigner), PreciseTerm(stock.bce)))
