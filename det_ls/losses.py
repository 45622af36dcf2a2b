# SPDX-License-Identifier: AGPL-3.0-or-later
"""The smoothed criterion: the only module that touches the internals of Ultralytics' losses.

It assumes four things of Ultralytics, and :func:`check_ultralytics` says so when one no longer holds:

1. ``v8DetectionLoss(model, tal_topk, tal_topk2)`` builds the detection criterion, and its classification term is
   ``self.bce(pred_scores, target_scores)`` with dense (B, A, K) logits and soft targets, summed by the caller.
2. ``E2ELoss(model, loss_fn)`` builds its halves ``one2many`` and ``one2one`` by calling ``loss_fn`` as in 1, and keeps
   its progress in ``updates``, ``o2m`` and ``o2o``.
3. ``model.init_criterion()`` returns one of these two for a detection model.
4. Nothing but ``bce`` reads the targets that it is given: box weights and ``target_scores_sum`` use the unsmoothed ones.
"""

from __future__ import annotations

import inspect
from functools import cache, partial
from typing import Any

import torch
import ultralytics
from torch import Tensor, nn
from ultralytics.utils import loss as ultralytics_loss
from ultralytics.utils.loss import E2ELoss, v8DetectionLoss

from det_ls.config import LabelSmoothing, ordered_names
from det_ls.similarity import SimilarityTable
from det_ls.targets import apply_smoothing

Criterion = v8DetectionLoss | E2ELoss


class SmoothedBCEWithLogitsLoss(nn.BCEWithLogitsLoss):
    """Element-wise binary cross-entropy against targets that are smoothed first.

    Attributes:
        matrix: The smoothing matrix P of shape (K, K).
    """

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
        return super().forward(input.to(dtype), apply_smoothing(target.to(dtype), self.matrix))


class LabelSmoothingDetectionLoss(v8DetectionLoss):
    """The YOLO detection loss with smoothed classification targets; box and DFL terms are stock.

    Examples:
        >>> from ultralytics.cfg import get_cfg
        >>> from ultralytics.nn.tasks import DetectionModel
        >>> model = DetectionModel("yolo11n.yaml", nc=3, verbose=False)
        >>> model.args = get_cfg()
        >>> LabelSmoothingDetectionLoss(model, label_smoothing=0.1).smoothing_matrix[0]
        tensor([0.9000, 0.0500, 0.0500], dtype=torch.float64)
    """

    def __init__(self, model: nn.Module, tal_topk: int = 10, tal_topk2: int | None = None, **keys: Any) -> None:
        """Build the stock criterion and smooth its targets.

        Args:
            model: A detection model with ``args``, not wrapped for parallel training.
            tal_topk: As in Ultralytics.
            tal_topk2: As in Ultralytics.
            **keys: The label-smoothing keys (:class:`det_ls.config.LabelSmoothing`).

        Raises:
            TypeError: If a key is unknown or a value has the wrong type.
            ValueError: If a key's value does not fit the model's classes.
        """
        check_ultralytics()
        matrix = _matrix(model, keys)
        super().__init__(model, tal_topk, tal_topk2)
        self.set_smoothing_matrix(matrix)

    @property
    def smoothing_matrix(self) -> Tensor:
        """The smoothing matrix P in use, of shape (K, K)."""
        return self.bce.matrix

    def set_smoothing_matrix(self, matrix: Tensor) -> None:
        """Replace the smoothing matrix, for the epochs of a schedule.

        Args:
            matrix: P of shape (K, K).
        """
        self.bce = SmoothedBCEWithLogitsLoss(matrix.to(self.device))


def smoothed_criterion(model: nn.Module, **keys: Any) -> Any:
    """Build the smoothed counterpart of ``model.init_criterion()``.

    Args:
        model: A detection model with ``args``, not wrapped for parallel training.
        **keys: The label-smoothing keys (:class:`det_ls.config.LabelSmoothing`). ``label_smoothing_schedule`` is
            accepted and starts at its first epoch: :func:`set_smoothing_matrix` moves it on.

    Returns:
        ``model.init_criterion()`` itself when every epsilon is 0; else a :class:`LabelSmoothingDetectionLoss`, or an
        ``E2ELoss`` with two of them.

    Raises:
        TypeError: If the model's criterion has no smoothed counterpart, or a key has the wrong type.
        ValueError: If a key's value does not fit the model's classes.
    """
    if not LabelSmoothing.from_args(keys).enabled:
        return model.init_criterion()
    check_ultralytics()
    stock = model.init_criterion()
    loss_fn = partial(LabelSmoothingDetectionLoss, **keys)
    if type(stock) is v8DetectionLoss:
        return loss_fn(model)
    if type(stock) is E2ELoss and type(stock.one2many) is v8DetectionLoss:
        return E2ELoss(model, loss_fn)
    raise TypeError(
        f"model: expected a detection model with the criterion v8DetectionLoss or E2ELoss, "
        f"got {type(model).__name__} with {type(stock).__name__}, which label_smoothing does not support."
    )


def set_smoothing_matrix(criterion: Any, matrix: Tensor) -> None:
    """Replace the smoothing matrix of a smoothed criterion, of both halves of an end-to-end one.

    Args:
        criterion: What :func:`smoothed_criterion` returned for an epsilon above 0.
        matrix: P of shape (K, K).
    """
    for half in halves(criterion):
        half.set_smoothing_matrix(matrix)


def halves(criterion: Any) -> list[Any]:
    """Return the criteria that hold a classification term.

    Args:
        criterion: A detection criterion.

    Returns:
        The one-to-many and one-to-one halves of an end-to-end criterion, or the criterion itself.
    """
    return [criterion.one2many, criterion.one2one] if isinstance(criterion, E2ELoss) else [criterion]


def copy_progress(source: Any, target: Any) -> None:
    """Carry an end-to-end criterion's progress over to its replacement.

    Args:
        source: The criterion that is replaced, or None.
        target: Its replacement.
    """
    if isinstance(source, E2ELoss) and isinstance(target, E2ELoss):
        target.updates, target.o2m, target.o2o = source.updates, source.o2m, source.o2o


@cache
def check_ultralytics() -> None:
    """Check, once, what this module assumes of Ultralytics.

    Raises:
        RuntimeError: If an assumption does not hold; it names the version and what is missing.
    """
    missing = []
    for cls, wanted in ((v8DetectionLoss, ("model", "tal_topk", "tal_topk2")), (E2ELoss, ("model", "loss_fn"))):
        if not set(wanted) <= set(inspect.signature(cls).parameters):
            missing.append(f"{cls.__name__}({', '.join(wanted)})")
    source = inspect.getsource(ultralytics_loss.v8DetectionLoss)
    if "self.bce(" not in source:
        missing.append("v8DetectionLoss.bce")
    if missing:
        raise RuntimeError(
            f"det-ls does not know the losses of ultralytics {ultralytics.__version__}: expected {', '.join(missing)}; "
            "install a supported version (>= 8.4.50, < 8.5)."
        )


def _matrix(model: nn.Module, keys: dict[str, Any]) -> Tensor:
    """Build the smoothing matrix at the schedule's start for a model's classes."""
    smoothing = LabelSmoothing.from_args(keys)
    path = smoothing.label_smoothing_similarity
    table = None if path is None else SimilarityTable.read(path)
    return smoothing.matrix(model_class_names(model), table)


def model_class_names(model: nn.Module) -> list[str]:
    """Return a detection model's class names, by index.

    Args:
        model: A detection model.

    Returns:
        One name for each class of its head; indices where the model has no fitting names.
    """
    num_classes = int(model.model[-1].nc)
    names = ordered_names(getattr(model, "names", None) or {})
    return names if len(names) == num_classes else [str(i) for i in range(num_classes)]
