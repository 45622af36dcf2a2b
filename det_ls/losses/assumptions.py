# SPDX-License-Identifier: AGPL-3.0-or-later
"""What the losses assume of Ultralytics.

:func:`check_losses` checks that 1 to 3 still have their names and signatures; the first training batch of every run
checks what all but 4 amount to, in numbers (:mod:`det_ls.losses.agreement`).

1. ``v8DetectionLoss(model, tal_topk, tal_topk2)`` and its subclasses compute the loss in ``loss(preds, batch)``; the
   only readers of the class logits ``preds["scores"]``, (B, K, A), are the assigner and the classification term
   ``self.bce(pred_scores, target_scores)``, weighted by ``*=`` and summed by ``sum()``.
2. ``E2ELoss(model, loss_fn)`` builds its halves ``one2many`` and ``one2one`` by calling ``loss_fn`` as in 1, calls
   their ``loss``, and keeps its progress in ``updates``, ``o2m`` and ``o2o``. ``model.init_criterion()`` returns 1 or
   2.
3. ``assigner.get_targets(gt_labels, gt_bboxes, target_gt_idx, fg_mask)`` looks up the labels, the boxes and the one-hot
   targets of the assigned objects, and ``assigner(...)`` multiplies the targets by the soft score and returns
   ``(labels, boxes, scores, ...)``.
4. ``v8ClassificationLoss`` is the mean cross-entropy of the logits and ``batch["cls"]``; compared in numbers when a
   smoothed one is built.
5. Apart from the classification term, a criterion of 1 only sums the target scores over classes. It is a plain object
   whose state, but for the assigner and the term, a call does not change.
"""

from __future__ import annotations

from ultralytics.utils.loss import E2ELoss, v8DetectionLoss
from ultralytics.utils.tal import TaskAlignedAssigner

from det_ls.stock.expect import Method, Source, expect

ASSUMPTIONS = (
    Method(v8DetectionLoss, "__init__", ("model", "tal_topk", "tal_topk2")),
    Method(v8DetectionLoss, "loss", ("preds", "batch")),
    Method(E2ELoss, "__init__", ("model", "loss_fn")),
    Method(TaskAlignedAssigner, "get_targets", ("gt_labels", "gt_bboxes", "target_gt_idx", "fg_mask")),
    Method(TaskAlignedAssigner, "forward", ("pd_scores", "pd_bboxes", "anc_points", "gt_labels", "gt_bboxes")),
    Source(v8DetectionLoss, "self.bce("),
)


def check_losses() -> None:
    """Check the names and signatures that the losses assume of Ultralytics.

    Raises:
        RuntimeError: If one does not hold; it names the version and what is missing.
    """
    expect("losses", *ASSUMPTIONS)
