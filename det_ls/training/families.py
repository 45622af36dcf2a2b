# SPDX-License-Identifier: AGPL-3.0-or-later
"""The families of Ultralytics' models that are built and trained by classes of their own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ultralytics.nn.tasks import yaml_model_load

# By the beginning of the name of the head's module: RTDETRDecoder, WorldDetect, YOLOEDetect, YOLOESegment26.
WORLD, YOLOE, RTDETR = FAMILIES = ("World", "YOLOE", "RTDETR")
WHY_NOT_RTDETR = (
    "expected a YOLO model, got an RT-DETR model: its varifocal loss pushes a share of another class to 0 or, taking "
    "it for a match, no longer learns what an object is not (docs/paths.md)."
)


def family_of(cfg: Any) -> str:
    """Tell which family a model's configuration is of.

    Args:
        cfg: A model's YAML file or its content.

    Returns:
        ``World``, ``YOLOE`` or ``RTDETR``; "" for the usual YOLO models and for what is no configuration.

    Examples:
        >>> family_of("yolo11n.yaml"), family_of("yolov8s-worldv2.yaml"), family_of("rtdetr-l.yaml")
        ('', 'World', 'RTDETR')
    """
    content = yaml_model_load(cfg) if isinstance(cfg, (str, Path)) else cfg
    try:
        head = str(content["head"][-1][2])
    except (KeyError, IndexError, TypeError):
        return ""
    return next((family for family in FAMILIES if head.startswith(family)), "")


def mismatch(trainer: str, trains: str, got: str) -> str:
    """Say that a model is of a family that a trainer does not train.

    Args:
        trainer: The trainer's name.
        trains: The family that it trains.
        got: The model's family.

    Returns:
        One sentence.
    """
    if got == RTDETR:
        return f"label_smoothing: {WHY_NOT_RTDETR}"
    names = {"": "a YOLO model", WORLD: "a YOLO-World model", YOLOE: "a YOLOE model"}
    return f"trainer: expected {names[trains]} with {trainer}, got {names[got]}."
