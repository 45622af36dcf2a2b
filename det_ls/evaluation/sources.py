# SPDX-License-Identifier: AGPL-3.0-or-later
"""What `evaluate_detections` is given: COCO files, a folder of YOLO predictions, a data set, and images by id."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePath
from typing import Any

from det_ls.base.arguments import called
from det_ls.base.errors import ArgumentTypeError
from det_ls.base.types import ImageId, Json
from det_ls.data.coco import read_detections, read_ground_truth
from det_ls.data.ground_truth import GroundTruth, ground_truth_for, list_images
from det_ls.data.image_names import image_paths
from det_ls.data.yolo_predictions import read_yolo_predictions
from det_ls.evaluation.classes import category_ids


@dataclass(frozen=True)
class Sources:
    """Ground truth and detections, checked.

    Attributes:
        gt: COCO instances.
        detections: COCO results.
        images: Image file by image id, where the images are known.
        record: Where they came from, for the protocol of the evaluation.
    """

    gt: Json
    detections: list[Json]
    images: dict[ImageId, str] = field(default_factory=dict)
    record: dict[str, Any] = field(default_factory=dict)


def read_sources(
    gt: object,
    detections: object,
    *,
    data: str | Path | None = None,
    split: str = "val",
    images: str | Path | Mapping[ImageId, str] | None = None,
) -> Sources:
    """Read ground truth and detections from whatever names them.

    Args:
        gt: COCO instances, a path or loaded; None for the ground truth of ``data``.
        detections: COCO results, a path or loaded; or a folder of YOLO text files with scores, which needs ``data``.
        data: A data YAML, whose classes and images the text files are about.
        split: The split of ``data``.
        images: Where the images are, for the report: a folder, a text file that lists them, a data YAML (its
            ``split``), or file by image id. None takes those of ``data``, if there is one.

    Returns:
        What was read.

    Raises:
        FileNotFoundError: If a file or folder does not exist.
        TypeError: If neither ``gt`` nor ``data`` is given, or a folder of text files without ``data``.
        ValueError: If something that was read is not valid, or does not fit the rest.
    """
    record = {
        key: str(value)
        for key, value in {"gt": gt, "detections": detections, "data": data}.items()
        if isinstance(value, (str, PurePath))
    }
    is_folder = isinstance(detections, (str, PurePath)) and Path(detections).is_dir()
    if data is None:
        if gt is None:
            raise ArgumentTypeError(
                f"{called('gt')}: expected COCO instances, or a data set to take the ground truth from, got neither."
            )
        if is_folder:
            raise ArgumentTypeError(
                f"data: expected a data YAML with a folder of YOLO predictions ('{detections}'), got none."
            )
        coco = read_ground_truth(gt, called("gt"))
        found = {} if images is None else _images(images, coco, split)
        return Sources(coco, read_detections(detections, coco, called("detections")), found, record)
    from det_ls.data.locate import check_dataset

    resolved = check_dataset(data, split)
    truth = ground_truth_for(resolved, split, gt)
    record |= {"split": split, "ground_truth": truth.source}
    raw = _text_files(detections, resolved, truth) if is_folder else detections
    results = read_detections(raw, truth.coco, called("detections"))
    found = {i: path for path, i in truth.image_ids.items()} if images is None else _images(images, truth.coco, split)
    return Sources(truth.coco, results, found, record)


def _text_files(folder: Any, resolved: Mapping[str, Any], truth: GroundTruth) -> list[Json]:
    """Read a folder of YOLO predictions in the data set's own classes."""
    return read_yolo_predictions(folder, truth, category_ids(resolved["names"], truth.coco), called("detections"))


def _images(source: object, gt: Json, split: str) -> dict[ImageId, str]:
    """Find image files by image id."""
    if isinstance(source, Mapping):
        known = {image["id"] for image in gt["images"]}
        return {i: str(path) for i, path in source.items() if i in known}
    if not isinstance(source, (str, PurePath)):
        raise ArgumentTypeError(f"images: expected a folder, a data YAML or a mapping, got {source!r}.")
    place: Any = str(source)
    if not Path(place).is_dir() and Path(place).suffix.lower() != ".txt":
        from det_ls.data.locate import check_dataset

        place = check_dataset(place, split)[split]
    return image_paths(list_images(place), gt)
