# SPDX-License-Identifier: AGPL-3.0-or-later
"""The lean form's assigner: stock's, which hands on a soft score an anchor in place of a row of targets."""

from __future__ import annotations

import copy
from functools import cache
from typing import Any

from torch import Tensor
from ultralytics.utils.tal import TaskAlignedAssigner


class SoftScoreAssigner(TaskAlignedAssigner):
    """Mixin for an assigner that hands on the soft score alone, (B, A, 1), and keeps the labels beside it.

    It assumes that ``get_targets`` looks up the labels, the boxes and the one-hot targets of the assigned objects, and
    that ``forward`` multiplies the targets by the soft score and returns ``(labels, boxes, scores, ...)``.
    """

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


def soft_score_assigner(stock: Any) -> SoftScoreAssigner:
    """Make the soft-score counterpart of whichever assigner a criterion has.

    Args:
        stock: A stock assigner; it is not changed.

    Returns:
        A new assigner with the same settings.
    """
    stock_class: type = type(stock)
    kind = _soft_score_class(stock_class)
    assigner: SoftScoreAssigner = kind.__new__(kind)
    vars(assigner).update(copy.deepcopy(vars(stock)))  # its constructor's arguments differ from class to class
    return assigner


@cache
def _soft_score_class(stock: type) -> type[SoftScoreAssigner]:
    """Derive the soft-score assigner from a stock class."""
    return type(f"SoftScore{stock.__name__}", (SoftScoreAssigner, stock), {})
