# SPDX-License-Identifier: AGPL-3.0-or-later
"""The trainers with the label-smoothing keys, by family and task.

A task is added here, its criterion in ``det_ls.losses.families``.
"""

from __future__ import annotations

from ultralytics.models.yolo.classify import ClassificationTrainer as StockClassificationTrainer
from ultralytics.models.yolo.detect import DetectionTrainer as StockDetectionTrainer
from ultralytics.models.yolo.obb import OBBTrainer as StockOBBTrainer
from ultralytics.models.yolo.pose import PoseTrainer as StockPoseTrainer
from ultralytics.models.yolo.segment import SegmentationTrainer as StockSegmentationTrainer
from ultralytics.models.yolo.world import WorldTrainer as StockWorldTrainer
from ultralytics.models.yolo.yoloe import YOLOEPESegTrainer as StockYOLOEPESegTrainer
from ultralytics.models.yolo.yoloe import YOLOEPETrainer as StockYOLOEPETrainer

from det_ls.training.families import WORLD, YOLOE
from det_ls.training.prompts import PromptTrainerMixin
from det_ls.training.trainer import LabelSmoothingTrainerMixin


class DetectionTrainer(LabelSmoothingTrainerMixin, StockDetectionTrainer):
    """The stock detection trainer with the label-smoothing keys.

    Pass it to any Ultralytics model: ``YOLO("yolo11n.pt").train(trainer=DetectionTrainer, label_smoothing=0.1, ...)``.
    """

    task = "detect"


class SegmentationTrainer(LabelSmoothingTrainerMixin, StockSegmentationTrainer):
    """The stock instance segmentation trainer with the label-smoothing keys."""

    task = "segment"


class PoseTrainer(LabelSmoothingTrainerMixin, StockPoseTrainer):
    """The stock pose trainer with the label-smoothing keys."""

    task = "pose"


class OBBTrainer(LabelSmoothingTrainerMixin, StockOBBTrainer):
    """The stock trainer for oriented boxes with the label-smoothing keys."""

    task = "obb"


class ClassificationTrainer(LabelSmoothingTrainerMixin, StockClassificationTrainer):
    """The stock classification trainer with the label-smoothing keys."""

    task = "classify"
    names_in_yaml = False


class WorldTrainer(PromptTrainerMixin, StockWorldTrainer):
    """The stock trainer that fine-tunes YOLO-World, with the label-smoothing keys."""

    task = "detect"
    family = WORLD


class YOLOEPETrainer(LabelSmoothingTrainerMixin, StockYOLOEPETrainer):
    """The stock trainer that fine-tunes YOLOE on a fixed set of classes, with the label-smoothing keys."""

    task = "detect"
    family = YOLOE


class YOLOEPESegTrainer(LabelSmoothingTrainerMixin, StockYOLOEPESegTrainer):
    """The stock trainer that fine-tunes YOLOE for instance segmentation of a fixed set of classes, with the keys."""

    task = "segment"
    family = YOLOE


# What each family of models trains with unless it is told otherwise. YOLOE's default feeds no prompts, so that a class
# channel stands for nothing: its trainers above have to be named.
TRAINERS: dict[str, dict[str, type[LabelSmoothingTrainerMixin]]] = {
    "": {
        "detect": DetectionTrainer,
        "segment": SegmentationTrainer,
        "pose": PoseTrainer,
        "obb": OBBTrainer,
        "classify": ClassificationTrainer,
    },
    WORLD: {"detect": WorldTrainer},
    YOLOE: {},
}
