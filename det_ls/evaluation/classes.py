# SPDX-License-Identifier: AGPL-3.0-or-later
"""The classes of a model and of the ground truth: matched by name, or all merged into one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from det_ls.base.arguments import examples
from det_ls.base.errors import ArgumentError
from det_ls.base.types import ImageId, Json
from det_ls.data.ground_truth import GroundTruth

if TYPE_CHECKING:
    from det_ls.evaluation.predictions import Predictions

SINGLE_CLASS = "item"  # what Ultralytics names the class of a model trained with single_cls=True


def category_ids(names: Mapping[int, str], gt: Json) -> dict[int, ImageId]:
    """Map a model's class indices to the category ids of the ground truth, by class name.

    Args:
        names: The model's class names by index.
        gt: COCO instances.

    Returns:
        Category id by class index.

    Raises:
        ValueError: If the model has a class that the ground truth does not know, or one name twice.
    """
    ids = {category["name"]: category["id"] for category in gt["categories"]}
    if unknown := [name for name in names.values() if name not in ids]:
        raise ArgumentError(f"model: expected its classes to be classes of the data, got {examples(unknown)} besides.")
    if len(set(names.values())) < len(names):
        repeated = [name for name in dict.fromkeys(names.values()) if list(names.values()).count(name) > 1]
        raise ArgumentError(f"model: expected classes with different names, got {examples(repeated)} repeatedly.")
    return {index: ids[name] for index, name in names.items()}


def single_class_name(names: Mapping[int, str] | None) -> str:
    """Name the one class into which all are merged: as the model names it, if it has only one.

    Args:
        names: The model's class names by index, or None where they are unknown.

    Returns:
        The name.

    Examples:
        >>> single_class_name({0: "lesion"}), single_class_name({0: "cat", 1: "dog"})
        ('lesion', 'item')
    """
    return next(iter(names.values())) if names is not None and len(names) == 1 else SINGLE_CLASS


def merge_classes(truth: GroundTruth, name: str) -> GroundTruth:
    """Merge all classes of the ground truth into one, as Ultralytics reads labels under ``single_cls=True``.

    Args:
        truth: The ground truth.
        name: The class's name.

    Returns:
        The same objects, all of category 1.
    """
    coco = {
        **truth.coco,
        "annotations": [{**a, "category_id": 1} for a in truth.coco["annotations"]],
        "categories": [{"id": 1, "name": name}],
    }
    return replace(truth, coco=coco)


def merge_predicted(predictions: Predictions, name: str) -> Predictions:
    """Merge all classes of predictions into one.

    Args:
        predictions: The predictions.
        name: The class's name.

    Returns:
        The same boxes, all of class 0.
    """
    images = tuple(replace(image, classes=np.zeros_like(image.classes)) for image in predictions.images)
    return replace(predictions, images=images, names={0: name})
