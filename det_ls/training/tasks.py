# SPDX-License-Identifier: AGPL-3.0-or-later
"""The trainers with the label-smoothing keys, by task."""

from __future__ import annotations

from ultralytics.models.yolo.detect import DetectionTrainer as StockDetectionTrainer

from det_ls.training.trainer import LabelSmoothingTrainerMixin


class DetectionTrainer(LabelSmoothingTrainerMixin, StockDetectionTrainer):
    """The stock detection trainer with the label-smoothing keys.

    Pass it to any Ultralytics model: ``YOLO("yolo11n.pt").train(trainer=DetectionTrainer, label_smoothing=0.1, ...)``.
    """


# A task is added here, its criterion in det_ls.losses.families.
TRAINERS: dict[str, type[LabelSmoothingTrainerMixin]] = {"detect": DetectionTrainer}
