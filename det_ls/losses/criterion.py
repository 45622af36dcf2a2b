# SPDX-License-Identifier: AGPL-3.0-or-later
"""The smoothed criterion: stock's loss in one of two forms of the same maths.

The dense form (``det_ls.losses.dense``) is stock's own method with only ``bce`` replaced; it is the reference. The lean
form (``det_ls.losses.lean``) never makes a dense target or a transposed copy of the logits, and is cheaper than stock
without smoothing. Both are built once; which one a run uses is decided on its first training batch with an object
(``det_ls.losses.agreement``). What is assumed of Ultralytics is stated in ``det_ls.losses.assumptions``.
"""

from __future__ import annotations

from typing import Any

import torch
import ultralytics
from torch import Tensor, nn
from ultralytics.utils import LOGGER
from ultralytics.utils.loss import v8DetectionLoss

from det_ls.base.errors import ArgumentError
from det_ls.losses.agreement import Verdict, agree, has_objects, judge
from det_ls.losses.assumptions import check_losses
from det_ls.losses.classes import first_matrix
from det_ls.losses.dense import dense_form
from det_ls.losses.form import CurrentMatrix, Form
from det_ls.losses.lean.term import lean_form


class SmoothedCriterion:
    """Mixin that smooths the classification term of any criterion in the family of ``v8DetectionLoss``.

    Put it before the stock class, and name that class in ``stock_class``.

    Attributes:
        stock_class: The stock criterion's class.
    """

    stock_class: type
    device: torch.device

    def __init__(self, model: nn.Module, tal_topk: int = 10, tal_topk2: int | None = None, **keys: Any) -> None:
        """Build the stock criterion and smooth its targets.

        Args:
            model: A model with ``args``, not wrapped for parallel training.
            tal_topk: As in Ultralytics.
            tal_topk2: As in Ultralytics.
            **keys: The label-smoothing keys (:class:`det_ls.smoothing.settings.LabelSmoothing`).

        Raises:
            TypeError: If a key is unknown or a value has the wrong type.
            ValueError: If a key's value does not fit the model's classes.
        """
        check_losses()
        self._set_up(self.stock_class(model, tal_topk, tal_topk2), first_matrix(model, keys), [])

    @classmethod
    def with_matrix(
        cls, model: nn.Module, *args: Any, matrix: Tensor, warned: list[str] | None = None, **kwargs: Any
    ) -> Any:
        """Build the criterion of a smoothing matrix.

        Args:
            model: A model with ``args``, not wrapped for parallel training.
            *args: As stock's class takes them.
            matrix: P of shape (K, K).
            warned: The warnings of the run, which the halves of an end-to-end criterion share.
            **kwargs: As stock's class takes them.

        Returns:
            The criterion.
        """
        criterion = cls.__new__(cls)
        criterion._set_up(cls.stock_class(model, *args, **kwargs), matrix, [] if warned is None else warned)
        return criterion

    def _set_up(self, stock: Any, matrix: Tensor, warned: list[str]) -> None:
        """Build both forms from a new stock criterion, and show its attributes as ours."""
        if len(matrix) != stock.nc:
            raise ArgumentError(f"matrix: expected shape ({stock.nc}, {stock.nc}), got {tuple(matrix.shape)}.")
        own = {name: value for name, value in vars(stock).items() if name not in {"assigner", "bce"}}
        vars(self).update(own)
        self._stock = stock
        self._matrix = CurrentMatrix(matrix, self.device)
        self._forms = {form.name: form for form in (dense_form(stock, self._matrix), lean_form(stock, self._matrix))}
        self._form = self._forms["dense"]
        self._verdict = Verdict(None)  # of this process
        self._decided = False  # by all processes
        self._warned = warned

    @property
    def smoothing_matrix(self) -> Tensor:
        """The smoothing matrix P in use, of shape (K, K)."""
        return self._matrix.value

    @property
    def form(self) -> str:
        """``lean`` or ``dense``; a run starts dense and decides on its first training batch with an object."""
        return self._form.name

    @property
    def forms(self) -> dict[str, Form]:
        """Both forms, by name."""
        return dict(self._forms)

    @property
    def assigner(self) -> Any:
        """The assigner of the form in use."""
        return self._form.criterion.assigner

    @property
    def bce(self) -> Any:
        """The classification term of the form in use."""
        return self._form.criterion.bce

    def set_smoothing_matrix(self, matrix: Tensor) -> None:
        """Replace the smoothing matrix, at the start of an epoch.

        Args:
            matrix: P of shape (K, K).
        """
        self._matrix.set(matrix)

    def use(self, form: str) -> None:
        """Choose the form and decide no more.

        Args:
            form: ``lean`` or ``dense``.

        Raises:
            ValueError: If there is no such form.
        """
        if form not in self._forms:
            raise ArgumentError(f"form: expected one of {', '.join(self._forms)}, got {form!r}.")
        self._form = self._forms[form]
        self._decided = True

    def loss(self, preds: dict[str, Any], batch: dict[str, Any], *args: Any, **kwargs: Any) -> Any:
        """Compute stock's loss with smoothed classification targets.

        Args:
            preds: The head's outputs; ``scores`` are the class logits of shape (B, K, A).
            batch: The training batch.
            *args: As in Ultralytics.
            **kwargs: As in Ultralytics.

        Returns:
            What stock returns.
        """
        if not self._decided and torch.is_grad_enabled():
            self._decide(preds, batch)
        return self._form.loss(preds, batch, *args, **kwargs)

    def _decide(self, preds: dict[str, Any], batch: dict[str, Any]) -> None:
        """Find out, on the first training batch that tells, whether the lean form may be used for the run."""
        if self._verdict.right is None and has_objects(batch):
            self._verdict = judge(self._stock, self._matrix.value, preds, batch)
            if self._verdict.right is False and not self._warned:
                self._warned.append(
                    f"label_smoothing: with ultralytics {ultralytics.__version__} the fast form of "
                    f"{type(self).__name__} {self._verdict.reason}; this run uses the slower dense form, with the same "
                    "numbers."
                )
                LOGGER.warning(self._warned[0])
        agreed = agree(self._verdict.right, self.device)
        if agreed is not None:
            self.use("lean" if agreed else "dense")


class LabelSmoothingDetectionLoss(SmoothedCriterion, v8DetectionLoss):  # type: ignore[override]
    """The YOLO detection loss with smoothed classification targets; box and DFL terms are stock.

    Examples:
        >>> from ultralytics.cfg import get_cfg
        >>> from ultralytics.nn.tasks import DetectionModel
        >>> model = DetectionModel("yolo11n.yaml", nc=3, verbose=False)
        >>> model.args = get_cfg()
        >>> LabelSmoothingDetectionLoss(model, label_smoothing=0.1).smoothing_matrix[0]
        tensor([0.9000, 0.0500, 0.0500], dtype=torch.float64)
    """

    stock_class = v8DetectionLoss
