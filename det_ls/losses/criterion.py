# SPDX-License-Identifier: AGPL-3.0-or-later
"""The smoothed criterion: the only module that touches the internals of Ultralytics' losses.

It assumes four things of Ultralytics. :func:`check_ultralytics` checks that the first two still have their names and
signatures; the first training batch of every run checks what all four amount to, in numbers (:meth:`_Lean._decide`).

1. ``v8DetectionLoss(model, tal_topk, tal_topk2)`` and its subclasses compute the loss in ``loss(preds, batch)``; the
   only readers of the class logits ``preds["scores"]``, (B, K, A), are the assigner and the classification term
   ``self.bce(pred_scores, target_scores)``, weighted by ``*=`` and summed by ``sum()``.
2. ``E2ELoss(model, loss_fn)`` builds its halves ``one2many`` and ``one2one`` by calling ``loss_fn`` as in 1, calls
   their ``loss``, and keeps its progress in ``updates``, ``o2m`` and ``o2o``. ``model.init_criterion()`` returns 1 or
   2.
3. ``assigner.get_targets(gt_labels, gt_bboxes, target_gt_idx, fg_mask)`` looks up the labels, the boxes and the one-hot
   targets of the assigned objects, and ``assigner(...)`` multiplies the targets by the soft score and returns
   ``(labels, boxes, scores, ...)``.
4. Apart from the classification term, the criterion only sums the target scores over classes.

Two forms of the same maths exist. The lean form never makes a dense target or a transposed copy of the logits; it is
cheaper than stock without smoothing. The dense form is stock's own method with only ``bce`` replaced; it is the
reference, and what a run uses when the lean form does not reproduce it.
"""

from __future__ import annotations

import copy
import inspect
from functools import cache, partial
from typing import Any

import torch
import ultralytics
from torch import Tensor, nn
from ultralytics.utils import LOGGER
from ultralytics.utils.loss import E2ELoss, v8DetectionLoss
from ultralytics.utils.tal import TaskAlignedAssigner

from det_ls.losses.agreement import excerpt, has_objects, in_double, largest_difference, tolerance
from det_ls.losses.dense import DenseSmoothedBCE, LeanSmoothedBCE
from det_ls.losses.lean.scores import LazyScores
from det_ls.smoothing.settings import LabelSmoothing, ordered_names
from det_ls.smoothing.similarity import SimilarityTable


class _SoftScoreAssigner(TaskAlignedAssigner):
    """Mixin for an assigner that hands on the soft score alone, (B, A, 1), and keeps the labels beside it."""

    det_ls_labels: Tensor  # (B, A), of the latest call

    def forward(self, pd_scores: Any, pd_bboxes: Tensor, anc_points: Tensor, gt_labels: Tensor, gt_bboxes: Tensor, *args: Any, **kwargs: Any) -> Any:  # fmt: skip  # noqa: E501
        """Assign as stock does, and keep the labels."""
        if gt_bboxes.shape[1] == 0:  # stock answers with zeros in the shape of the scores
            pd_scores = pd_scores[..., 0].unsqueeze(-1)
        result = super().forward(pd_scores, pd_bboxes, anc_points, gt_labels, gt_bboxes, *args, **kwargs)
        self.det_ls_labels = result[0]
        return result

    def get_targets(self, gt_labels: Tensor, gt_bboxes: Tensor, target_gt_idx: Tensor, fg_mask: Tensor) -> Any:
        """Look labels and boxes up as stock does; in place of its one-hot targets, say where there is one."""
        index = target_gt_idx.unsqueeze(-1)
        labels = gt_labels.long().gather(1, index).squeeze(-1).clamp_(0)
        boxes = gt_bboxes.gather(1, index.expand(-1, -1, gt_bboxes.shape[-1]))
        return labels, boxes, (fg_mask > 0).unsqueeze(-1)


@cache
def _soft_score_class(stock: type) -> type:
    """Derive the soft-score assigner from whichever assigner a criterion has."""
    return type(f"SoftScore{stock.__name__}", (_SoftScoreAssigner, stock), {})


class _Lean:
    """Mixin that smooths the classification term of any criterion in the family of ``v8DetectionLoss``."""

    bce: Any
    assigner: Any
    device: torch.device

    def _start(self, matrix: Tensor) -> None:
        """Take over a criterion that stock has just built."""
        self._stock_assigner_class = type(self.assigner)
        self._matrix = matrix.to(self.device, torch.float32 if self.device.type == "mps" else torch.float64)
        self._verdict: bool | None = None  # whether this process found the lean form right
        self._decided = False  # whether all processes have
        self._warnings: list[str] = []  # of this run: the halves of an end-to-end criterion share it
        self._take_form("dense")

    @property
    def smoothing_matrix(self) -> Tensor:
        """The smoothing matrix P in use, of shape (K, K)."""
        return self._matrix

    @property
    def form(self) -> str:
        """``lean`` or ``dense``; a run starts dense and decides on its first training batch with an object."""
        return self._form

    def set_smoothing_matrix(self, matrix: Tensor) -> None:
        """Replace the smoothing matrix, for the epochs of a schedule.

        Args:
            matrix: P of shape (K, K).
        """
        self._matrix = matrix.to(self._matrix)
        self._take_form(self._form)

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
        return self._loss(preds, batch, *args, **kwargs)

    def _loss(self, preds: dict[str, Any], batch: dict[str, Any], *args: Any, **kwargs: Any) -> Any:
        if self._form == "lean":
            preds = {**preds, "scores": LazyScores(preds["scores"])}
        return super().loss(preds, batch, *args, **kwargs)  # type: ignore[misc]

    def _take_form(self, form: str) -> None:
        """Set ``bce`` and the assigner's class: ``lean``, ``dense``, or ``stock`` for the check."""
        self._form = form
        lean = form == "lean"
        stock: Any = self._stock_assigner_class
        self.assigner.__class__ = _soft_score_class(stock) if lean else stock
        if form == "stock":
            self.bce = nn.BCEWithLogitsLoss(reduction="none")
        else:
            self.bce = LeanSmoothedBCE(self._matrix, self.assigner) if lean else DenseSmoothedBCE(self._matrix)

    def _twin(self, form: str, matrix: Tensor) -> Any:
        """Return a copy of this criterion in another form, which shares nothing that a call changes."""
        twin = copy.copy(self)
        twin.assigner = copy.deepcopy(self.assigner)
        twin._matrix, twin._decided = matrix, True
        twin._take_form(form)
        return twin

    def _decide(self, preds: dict[str, Any], batch: dict[str, Any]) -> None:
        """Find out, on the first training batch with an object, whether the lean form may be used for the run."""
        if self._verdict is None and has_objects(batch):
            self._verdict, reason = self._check(preds, batch)
            if self._verdict is False and not self._warnings:
                self._warnings.append(
                    f"label_smoothing: with ultralytics {ultralytics.__version__} the fast form of "
                    f"{type(self).__name__} {reason}; this run uses the slower dense form, with the same numbers."
                )
                LOGGER.warning(self._warnings[0])
        agreed = _agree(self._verdict, self.device)
        if agreed is not None:
            self._decided = True
            self._take_form("lean" if agreed else "dense")

    def _check(self, preds: dict[str, Any], batch: dict[str, Any]) -> tuple[bool | None, str]:
        """Compare lean with dense at the run's own P, and with stock at P = I; None if no anchor was foreground."""
        identity = torch.eye(len(self._matrix), dtype=self._matrix.dtype, device=self._matrix.device)
        limit = tolerance(preds["scores"].dtype)
        try:
            preds, batch = excerpt(preds, batch)
            # Stock in double: its float32 loss cancels on background (see DenseSmoothedBCE).
            for form, matrix, outputs in (("dense", self._matrix, preds), ("stock", identity, in_double(preds))):
                lean, reference = self._twin("lean", matrix), self._twin(form, matrix)
                difference = largest_difference(lean._loss, reference._loss, outputs, batch)
                if difference > limit:
                    return False, f"differs from the {form} one by {difference:.1e} (more than {limit:.0e})"
                if not lean.bce.foreground:
                    return None, ""
        # Whatever an unknown version makes go wrong here, out of memory included, must not stop or halve the run: the
        # dense form is stock's own method, and the warning says what happened.
        except Exception as error:
            return False, f"fails ({type(error).__name__}: {error})"
        return True, ""


class LabelSmoothingDetectionLoss(_Lean, v8DetectionLoss):
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
            **keys: The label-smoothing keys (:class:`det_ls.smoothing.settings.LabelSmoothing`).

        Raises:
            TypeError: If a key is unknown or a value has the wrong type.
            ValueError: If a key's value does not fit the model's classes.
        """
        check_ultralytics()
        matrix = _first_matrix(model, keys)
        super().__init__(model, tal_topk, tal_topk2)
        self._start(matrix)


def smoothed_criterion(model: nn.Module, **keys: Any) -> Any:
    """Build the smoothed counterpart of ``model.init_criterion()``.

    Args:
        model: A detection model with ``args``, not wrapped for parallel training.
        **keys: The label-smoothing keys (:class:`det_ls.smoothing.settings.LabelSmoothing`).
            ``label_smoothing_schedule`` is accepted and starts at its first epoch:
            :func:`set_smoothing_matrix` moves it on.

    Returns:
        ``model.init_criterion()`` itself when every epsilon is 0; else a :class:`LabelSmoothingDetectionLoss`, or an
        ``E2ELoss`` with two of them.

    Raises:
        TypeError: If the model's criterion has no smoothed counterpart, or a key has the wrong type.
        ValueError: If a key's value does not fit the model's classes.
    """
    owner: Any = model
    stock = owner.init_criterion()
    if not LabelSmoothing.from_args(keys).enabled:
        return stock
    check_ultralytics()
    loss_fn: Any = partial(LabelSmoothingDetectionLoss, **keys)
    if type(stock) is v8DetectionLoss:
        return loss_fn(model)
    if type(stock) is E2ELoss and type(stock.one2many) is v8DetectionLoss:
        criterion = E2ELoss(model, loss_fn)
        criterion.one2one._warnings = criterion.one2many._warnings
        return criterion
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


def describe(criterion: Any) -> str:
    """Name a criterion as a log line should.

    Args:
        criterion: A detection criterion.

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


def model_class_names(model: nn.Module) -> list[str]:
    """Return a detection model's class names, by index.

    Args:
        model: A detection model.

    Returns:
        One name for each class of its head; indices where the model has no fitting names.
    """
    head: Any = model.model[-1]  # type: ignore[index]
    num_classes = int(head.nc)
    names = ordered_names(getattr(model, "names", None) or {})
    return names if len(names) == num_classes else [str(i) for i in range(num_classes)]


@cache
def check_ultralytics() -> None:
    """Check, once, the names and signatures that this module assumes of Ultralytics.

    Raises:
        RuntimeError: If one does not hold; it names the version and what is missing.
    """
    wanted = (
        (v8DetectionLoss, "__init__", ("model", "tal_topk", "tal_topk2")),
        (v8DetectionLoss, "loss", ("preds", "batch")),
        (E2ELoss, "__init__", ("model", "loss_fn")),
        (TaskAlignedAssigner, "get_targets", ("gt_labels", "gt_bboxes", "target_gt_idx", "fg_mask")),
        (TaskAlignedAssigner, "forward", ("pd_scores", "pd_bboxes", "anc_points", "gt_labels", "gt_bboxes")),
    )
    missing = [
        f"{cls.__name__}.{method}({', '.join(names)})"
        for cls, method, names in wanted
        if not set(names) <= set(inspect.signature(getattr(cls, method, lambda: None)).parameters)
    ]
    if "self.bce(" not in inspect.getsource(v8DetectionLoss):
        missing.append("v8DetectionLoss.bce")
    if missing:
        raise RuntimeError(
            f"det-ls does not know the losses of ultralytics {ultralytics.__version__}: expected {', '.join(missing)}; "
            "install a supported version (>= 8.4.50, < 8.5)."
        )


def _first_matrix(model: nn.Module, keys: dict[str, Any]) -> Tensor:
    """Build the smoothing matrix at the schedule's start for a model's classes."""
    smoothing = LabelSmoothing.from_args(keys)
    path = smoothing.label_smoothing_similarity
    table = None if path is None else SimilarityTable.read(path)
    return smoothing.matrix(model_class_names(model), table)


def _agree(verdict: bool | None, device: torch.device) -> bool | None:
    """Return what all processes of a distributed run say: False if one does, None if one has not seen an object yet."""
    distributed = torch.distributed
    if not (distributed.is_available() and distributed.is_initialized() and distributed.get_world_size() > 1):
        return verdict
    votes = torch.tensor([verdict is False, verdict is None], dtype=torch.int32, device=device)
    distributed.all_reduce(votes, op=distributed.ReduceOp.MAX)
    wrong, undecided = votes.tolist()
    return False if wrong else None if undecided else True
