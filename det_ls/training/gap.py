# SPDX-License-Identifier: AGPL-3.0-or-later
"""The gap of the kept boxes on the held-out slice, by the stock validator's own pipeline on the EMA model.

Letterboxing, NMS and the matching of boxes and objects at IoU 0.5 are stock's, also for masks, keypoints and oriented
boxes, whose boxes alone count here; only its metrics are replaced by keeping scores and true positives.
"""

from __future__ import annotations

import copy
from functools import cache
from typing import Any

import torch
from ultralytics.models.yolo.detect import DetectionTrainer, DetectionValidator

from det_ls.base.errors import ArgumentError
from det_ls.smoothing.adaptive import kept_gap
from det_ls.smoothing.settings import ADAPTIVE, PREFIX, split_keys
from det_ls.stock.expect import Method, Source, expect
from det_ls.stock.validators import WithoutMetrics

# What is overridden or called here. A validator that is called with a trainer takes from it the EMA model, device,
# data, names of the losses and the number of processes, and hands batches to ``update_metrics``.
ASSUMPTIONS = (
    Method(DetectionTrainer, "get_dataloader", ("dataset_path", "batch_size", "rank", "mode")),
    Method(DetectionTrainer, "build_dataset", ("img_path", "mode", "batch"), only=True),
    Method(DetectionValidator, "__call__", ("trainer", "model")),
    Method(DetectionValidator, "init_metrics", ("model",), only=True),
    Method(DetectionValidator, "update_metrics", ("preds", "batch"), only=True),
    Method(DetectionValidator, "_prepare_batch", ("si", "batch"), only=True),
    Method(DetectionValidator, "_prepare_pred", ("pred",), only=True),
    Method(DetectionValidator, "_process_batch", ("preds", "batch"), only=True),
    Source(DetectionValidator, '"tp": '),
)

CONF = 0.001  # smallest score of a box


class GapValidator(WithoutMetrics, DetectionValidator):
    """Mixin for a task's validator that keeps each box's score and whether it is a true positive at IoU 0.5.

    Attributes:
        scores: Scores of each image's boxes.
        correct: Whether each of them is a true positive.
        objects: The number of objects so far.
    """

    scores: list[torch.Tensor]
    correct: list[torch.Tensor]
    objects: int

    def init_metrics(self, model: torch.nn.Module) -> None:
        """Start with no images."""
        super().init_metrics(model)
        self.scores, self.correct, self.objects = [], [], 0

    def update_metrics(self, preds: list[dict[str, torch.Tensor]], batch: dict[str, Any]) -> None:
        """Match a batch's boxes with its objects as stock does, and keep the first of its IoU thresholds, 0.5."""
        for index, prediction in enumerate(preds):
            truth = self._prepare_batch(index, batch)
            found = self._prepare_pred(prediction)
            correct = torch.as_tensor(self._process_batch(found, truth)["tp"])[:, 0]
            self.objects += len(truth["cls"])
            self.scores.append(found["conf"].float().cpu())
            self.correct.append(correct.bool().cpu())

    def gap(self) -> float | None:
        """Return the gap of the images so far; None without a box or an object."""
        return kept_gap(torch.cat(self.scores), torch.cat(self.correct), self.objects) if self.scores else None

    def get_desc(self) -> str:
        """Return the progress bar's label."""
        return "Held-out slice"

    def gather_stats(self) -> None:
        """Do nothing: the first process alone predicts the slice."""


def gap_validator(trainer: Any, images: str) -> GapValidator:
    """Build the validator of the slice, from the task's own.

    Args:
        trainer: The trainer, set up but for this.
        images: The file that lists the slice.

    Returns:
        The validator; called with :func:`measured_gap`.

    Raises:
        RuntimeError: If Ultralytics is not as is assumed here.
        ValueError: If there is no object in the slice.
    """
    expect("validator", *ASSUMPTIONS)
    loader = trainer.get_dataloader(images, batch_size=trainer.test_loader.batch_size, rank=-1, mode="val")
    if not any(len(label["cls"]) for label in loader.dataset.labels):
        raise ArgumentError(f"{PREFIX}={ADAPTIVE}: expected an object in the held-out images, got none in '{images}'.")
    quiet = {"plots": False, "save_json": False, "save_txt": False, "visualize": False}
    args = {**split_keys(vars(trainer.args))[1], **quiet, "conf": CONF}
    stock: type = type(trainer.validator)
    validator: GapValidator = _kind(stock)(loader, save_dir=trainer.save_dir, args=args)
    return validator


def measured_gap(validator: GapValidator, trainer: Any) -> float | None:
    """Predict the slice with the EMA model, in this process alone.

    Args:
        validator: What :func:`gap_validator` returned.
        trainer: The trainer, at the end of an epoch.

    Returns:
        The gap in [-1, 1]; None without a box.
    """
    alone = copy.copy(trainer)  # the validator would wait for the other processes of a distributed run
    alone.world_size = 0
    validator(alone)
    return validator.gap()


@cache
def _kind(stock: type) -> Any:
    """Derive the validator of the slice from a task's own."""
    return type(f"Gap{stock.__name__}", (GapValidator, stock), {})
