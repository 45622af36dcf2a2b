# SPDX-License-Identifier: AGPL-3.0-or-later
"""Which smoothed criterion belongs to which criterion of Ultralytics, alone or as the halves of an end-to-end one."""

from __future__ import annotations

from functools import partial
from typing import Any

from torch import Tensor, nn
from ultralytics.utils import loss as stock_losses
from ultralytics.utils.loss import E2ELoss, v8ClassificationLoss, v8DetectionLoss

from det_ls.base.errors import ArgumentError, ArgumentTypeError
from det_ls.losses.assumptions import check_losses
from det_ls.losses.classes import first_matrix
from det_ls.losses.classification import LabelSmoothingClassificationLoss
from det_ls.losses.criterion import LabelSmoothingDetectionLoss, SmoothedCriterion
from det_ls.smoothing.request import Request

# Criteria whose classification term is that of v8DetectionLoss. The 26 classes are not in every version.
DENSE_CRITERIA = ("v8SegmentationLoss", "SegmentLoss26", "v8PoseLoss", "PoseLoss26", "v8OBBLoss")


def _counterpart(stock: type) -> type[SmoothedCriterion]:
    """Derive the smoothed criterion from a stock class: ``LabelSmoothingPoseLoss26`` from ``PoseLoss26``."""
    name = f"LabelSmoothing{stock.__name__.removeprefix('v8')}"
    doc = f"``{stock.__name__}`` with smoothed classification targets; every other term is stock."
    body = {"stock_class": stock, "__module__": __name__, "__doc__": doc}
    return type(name, (SmoothedCriterion, stock), body)


# The smoothed counterpart of each criterion: the exact class, a subclass of which may compute something else.
FAMILIES: dict[type, type[SmoothedCriterion]] = {
    v8DetectionLoss: LabelSmoothingDetectionLoss,
    **{
        stock: _counterpart(stock)
        for stock in (getattr(stock_losses, name, None) for name in DENSE_CRITERIA)
        if stock is not None
    },
}
globals().update({family.__name__: family for family in FAMILIES.values()})  # found by pickle and copy


def smoothed_criterion(model: nn.Module, **keys: Any) -> Any:
    """Build the smoothed counterpart of ``model.init_criterion()``.

    Args:
        model: An Ultralytics model with ``args``, not wrapped for parallel training.
        **keys: The label-smoothing keys (:class:`det_ls.smoothing.settings.LabelSmoothing`).
            ``label_smoothing_schedule`` is accepted and starts at its first epoch:
            :func:`set_smoothing_matrix` moves it on.

    Returns:
        ``model.init_criterion()`` itself when every epsilon is 0; else its counterpart, for example
        :class:`det_ls.LabelSmoothingDetectionLoss`, or an ``E2ELoss`` with two of them.

    Raises:
        TypeError: If the model's criterion has no smoothed counterpart, or a key has the wrong type.
        ValueError: If a key's value does not fit the model's classes.
    """
    request = Request.of_keys(keys)
    if request.smoothing.calibrate is not None:
        raise ArgumentError("calibrate: expected in train mode only, got a criterion, where it would have no effect.")
    if not request.smoothing.enabled:
        owner: Any = model
        return owner.init_criterion()
    return criterion_with_matrix(model, first_matrix(model, {"label_smoothing": request}))


def criterion_with_matrix(model: nn.Module, matrix: Tensor) -> Any:
    """Build the smoothed counterpart of ``model.init_criterion()`` from a smoothing matrix.

    Args:
        model: An Ultralytics model with ``args``, not wrapped for parallel training.
        matrix: P of shape (K, K).

    Returns:
        A smoothed criterion, or an ``E2ELoss`` with two of them.

    Raises:
        TypeError: If the model's criterion has no smoothed counterpart.
    """
    check_losses()
    owner: Any = model
    stock = owner.init_criterion()
    family = FAMILIES.get(type(halves(stock)[0]))
    if family is not None and type(stock) is E2ELoss:
        loss_fn: Any = partial(family.with_matrix, matrix=matrix, warned=[])
        return E2ELoss(model, loss_fn)
    if family is not None and halves(stock) == [stock]:
        return family.with_matrix(model, matrix=matrix)
    if type(stock) is v8ClassificationLoss:
        return LabelSmoothingClassificationLoss(matrix)
    known = ", ".join(kind.__name__ for kind in (*FAMILIES, v8ClassificationLoss, E2ELoss))
    raise ArgumentTypeError(
        f"model: expected a model with one of the criteria {known}, got {type(model).__name__} with "
        f"{type(stock).__name__}, which label_smoothing does not support."
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
        criterion: A criterion.

    Returns:
        The one-to-many and one-to-one halves of an end-to-end criterion, or the criterion itself.
    """
    return [criterion.one2many, criterion.one2one] if isinstance(criterion, E2ELoss) else [criterion]


def describe(criterion: Any) -> str:
    """Name a criterion as a log line should.

    Args:
        criterion: A criterion.

    Returns:
        For example ``E2ELoss of LabelSmoothingDetectionLoss``.
    """
    inner = type(halves(criterion)[0]).__name__
    return inner if halves(criterion) == [criterion] else f"{type(criterion).__name__} of {inner}"


def copy_progress(source: Any, target: Any) -> None:
    """Carry an end-to-end criterion's progress over to its replacement.

    Args:
        source: The criterion that is replaced, or None.
        target: Its replacement.
    """
    if isinstance(source, E2ELoss) and isinstance(target, E2ELoss):
        target.updates, target.o2m, target.o2o = source.updates, source.o2m, source.o2o
