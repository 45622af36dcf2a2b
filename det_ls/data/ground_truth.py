# SPDX-License-Identifier: AGPL-3.0-or-later
"""The ground truth of a dataset split: its official COCO instances, or COCO instances built from its YOLO labels."""

from __future__ import annotations

import glob
import math
import os
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any

import numpy as np

from det_ls.base.arguments import examples
from det_ls.base.errors import DataError, MissingFileError
from det_ls.base.folders import is_file
from det_ls.base.types import ImageId, Json
from det_ls.data.coco import read_ground_truth
from det_ls.data.labels import read_labels, read_polygons
from det_ls.data.oriented import ORIENTED, is_oriented, smallest_rectangle


@dataclass(frozen=True)
class GroundTruth:
    """The objects of one dataset split.

    Attributes:
        coco: COCO instances: ``images``, ``annotations`` and ``categories``.
        image_ids: The id of each image of the split by its path, in sorted order of the paths.
        source: Where the objects come from: ``annotations`` (an official instances JSON) or ``labels`` (YOLO labels).
    """

    coco: Json
    image_ids: dict[str, ImageId]
    source: str


def ground_truth_for(
    data: Mapping[str, Any],
    split: str = "val",
    annotations: object = None,
    *,
    sample: str | None = None,
    oriented: bool = False,
) -> GroundTruth:
    """Return the ground truth of a dataset split: its official instances JSON if it has one, else its YOLO labels.

    Args:
        data: A resolved data YAML, as ``check_dataset`` returns it. Its key ``annotations`` names the official JSON of
            the val split, or is a mapping from split to JSON; paths are relative to the dataset's root.
        split: The split's key in ``data``.
        annotations: Path or loaded content of an instances JSON to use instead.
        sample: A text file that lists some of the split's images, to cut the ground truth to. The JSON may then list
            more images than the split, as COCO's train JSON does.
        oriented: Whether the objects are to have oriented boxes.

    Returns:
        The ground truth.

    Raises:
        FileNotFoundError: If a named file does not exist.
        ValueError: If the JSON is not valid or its images are not those of the split, a label cannot be read, or
            oriented boxes are wanted and there are none.
    """
    what = "annotations"
    if annotations is None:
        declared = data.get("annotations")
        if declared is not None and not isinstance(declared, (str, Mapping)):
            raise DataError(f"data: expected annotations in the data YAML to be a path or a mapping, got {declared!r}.")
        annotations = declared.get(split) if isinstance(declared, Mapping) else declared if split == "val" else None
        if annotations is None:
            return ground_truth_from_yolo(data if sample is None else {**data, split: sample}, split, oriented=oriented)
        annotations = Path(data.get("path") or ".") / str(annotations)
        what = "annotations in the data YAML"
    coco = read_ground_truth(annotations, what)
    if oriented and coco["annotations"] and not is_oriented(coco):
        raise DataError(f"{what}: expected oriented boxes ('{ORIENTED}') for a model of task obb, got none.")
    ids = match_images(list_images(data[split]), coco, what, surplus=sample is not None)
    if sample is not None:
        ids = {path: ids[path] for path in list_images(sample)}
        coco = _cut(coco, set(ids.values()))
    return GroundTruth(coco, ids, "annotations")


def ground_truth_from_yolo(data: Mapping[str, Any], split: str = "val", *, oriented: bool = False) -> GroundTruth:
    """Build COCO instances from the YOLO labels of a dataset split.

    Image ids count from 1 in sorted order of the paths, category ids from 1 in order of the class indices. Boxes are
    clipped to the image. Images without a label file, or with an empty one, are images without objects.

    Args:
        data: A resolved data YAML, as ``check_dataset`` returns it: ``names`` and the split's image source are used,
            ``path`` and ``kpt_shape`` if they are there.
        split: The split's key in ``data``.
        oriented: Whether labels are corners of oriented boxes: each object is then the smallest rectangle around them,
            as in training, and is not clipped to the image.

    Returns:
        The ground truth.

    Raises:
        FileNotFoundError: If there are no images.
        ValueError: If an image or a label line cannot be read.
    """
    from ultralytics.data.utils import img2label_paths
    from ultralytics.utils import TQDM

    paths = list_images(data[split])
    names: Mapping[int, str] = data["names"]
    keypoint_columns = math.prod(data.get("kpt_shape") or [0])
    file_names = _file_names(paths, data.get("path"))
    images: list[Json] = []
    annotations: list[Json] = []
    bar = TQDM(zip(paths, img2label_paths(list(paths)), strict=True), desc=f"Reading {split} labels", total=len(paths))
    for image_id, (path, label_file) in enumerate(bar, start=1):
        width, height = image_size(path)
        images.append({"id": image_id, "file_name": file_names[image_id - 1], "width": width, "height": height})
        if oriented:
            for index, points in read_polygons(label_file, len(names)):
                box = smallest_rectangle(np.asarray(points) * [width, height])
                entry = {"image_id": image_id, "category_id": index + 1, ORIENTED: box}
                annotations.append({"id": len(annotations) + 1, **entry, "area": box[2] * box[3], "iscrowd": 0})
            continue
        for index, (x, y, w, h) in read_labels(label_file, len(names), keypoint_columns):
            left, right = (min(max(edge * width, 0.0), float(width)) for edge in (x - w / 2, x + w / 2))
            top, bottom = (min(max(edge * height, 0.0), float(height)) for edge in (y - h / 2, y + h / 2))
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": image_id,
                    "category_id": index + 1,
                    "bbox": [left, top, right - left, bottom - top],
                    "area": (right - left) * (bottom - top),
                    "iscrowd": 0,
                }
            )
    categories = [{"id": index + 1, "name": str(name)} for index, name in sorted(names.items())]
    coco = read_ground_truth({"images": images, "annotations": annotations, "categories": categories}, "the dataset")
    return GroundTruth(coco, {path: i for i, path in enumerate(paths, start=1)}, "labels")


def list_images(source: str | Sequence[str]) -> list[str]:
    """List the images of a dataset split exactly as Ultralytics does.

    Args:
        source: A folder (searched with its subfolders), a text file with one image path a line, or a list of these.
            In a text file, paths that start with ``./`` are relative to the file.

    Returns:
        Paths in sorted order.

    Raises:
        FileNotFoundError: If a source or an image of a text file does not exist, or there is no image.
        ValueError: If an image is listed twice.
    """
    from ultralytics.data.utils import IMG_FORMATS

    found: list[str] = []
    for entry in [source] if isinstance(source, str) else source:
        path = Path(entry)
        if path.is_dir():
            found += glob.glob(os.path.join(glob.escape(str(path)), "**", "*.*"), recursive=True)
        elif is_file(path):
            folder = str(path.parent) + os.sep
            try:
                lines = path.read_text(encoding="utf-8-sig").strip().splitlines()
            except UnicodeDecodeError:
                raise DataError(
                    f"images: expected UTF-8 text in '{path}', which lists images, got other bytes."
                ) from None
            found += [line.replace("./", folder, 1) if line.startswith("./") else line for line in lines]
        else:
            raise MissingFileError(f"images: expected a folder or list of images, got '{path}', which does not exist.")
    images = sorted(f.replace("/", os.sep) for f in found if f.rpartition(".")[-1].lower() in IMG_FORMATS)
    if not images:
        raise MissingFileError(
            f"images: expected images in {source!r}, got none of the formats that Ultralytics reads."
        )
    if len(set(images)) < len(images):
        repeated = [image for image, count in Counter(images).items() if count > 1]
        raise DataError(f"images: expected each image of a split once, got {examples(repeated)} repeatedly.")
    if missing := [image for image in images if not Path(image).is_file()]:
        raise MissingFileError(
            f"images: expected the images listed in {source!r} to exist, got none at {examples(missing)}."
        )
    return images


def image_size(path: str) -> tuple[int, int]:
    """Read an image's width and height in pixels, turned by its EXIF orientation as the image itself will be.

    Args:
        path: An image file.

    Returns:
        Width and height.

    Raises:
        ValueError: If the file is not a readable image.
    """
    from PIL import Image
    from ultralytics.data.utils import exif_size

    try:
        with Image.open(path) as image:
            width, height = exif_size(image)
    # A truncated header, a decompression bomb, a plugin for HEIC that Ultralytics tries on what Pillow cannot read.
    except (OSError, ImportError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise DataError(f"images: expected an image, got '{path}', which cannot be read as one.") from error
    return int(width), int(height)


def match_images(
    paths: Iterable[str], gt: Json, what: str = "annotations", *, surplus: bool = False
) -> dict[str, ImageId]:
    """Find the image id of each image path by ``file_name``.

    A path belongs to the entry with its base name; where several entries have that name, to the one whose whole
    ``file_name`` is the end of the path.

    Args:
        paths: Image paths of a dataset split.
        gt: COCO instances.
        what: Name of the instances for error messages.
        surplus: Whether entries without an image are allowed.

    Returns:
        Image id by path, in the order of ``paths``.

    Raises:
        ValueError: If images and entries do not correspond one to one, ``surplus`` entries aside.
    """
    entries: dict[str, list[tuple[tuple[str, ...], ImageId]]] = defaultdict(list)
    for image in gt["images"]:
        if not isinstance(image.get("file_name"), str):
            raise DataError(f"{what}: expected every image to have a file_name, got none for id {image['id']!r}.")
        parts = PurePath(image["file_name"].replace("\\", "/")).parts
        entries[parts[-1] if parts else ""].append((parts, image["id"]))
    ids: dict[str, ImageId] = {}
    missing, ambiguous, owner = [], [], {}
    for path in paths:
        parts = Path(path).parts
        found = entries.get(parts[-1], [])
        if len(found) > 1:
            found = [entry for entry in found if parts[-len(entry[0]) :] == entry[0]]
            longest = max((len(entry[0]) for entry in found), default=0)
            found = [entry for entry in found if len(entry[0]) == longest]
        if not found:
            missing.append(path)
        elif len(found) > 1 or found[0][1] in owner:
            ambiguous.append(path)
        else:
            ids[path] = found[0][1]
            owner[found[0][1]] = path
    if ambiguous:
        raise DataError(f"{what}: expected an entry of its own for each image, got none for {examples(ambiguous)}.")
    unused = [] if surplus else [image["file_name"] for image in gt["images"] if image["id"] not in owner]
    if missing or unused:
        parts_of = [(missing, f"missing in {what}"), (unused, f"only in {what}")]
        got = " and ".join(f"{len(files)} {where} ({examples(files)})" for files, where in parts_of if files)
        raise DataError(f"{what}: expected the same images as in the split, got {got}.")
    return ids


def _file_names(paths: Sequence[str], root: object) -> list[str]:
    """Name images by their path below the dataset's root, or below their common folder if some lie elsewhere."""
    base = Path(str(root)) if root else Path()
    if not root or not all(Path(path).is_relative_to(base) for path in paths):
        base = Path(os.path.commonpath([os.path.dirname(os.path.abspath(path)) for path in paths]))
        return [Path(os.path.abspath(path)).relative_to(base).as_posix() for path in paths]
    return [Path(path).relative_to(base).as_posix() for path in paths]


def _cut(coco: Json, ids: set[ImageId]) -> Json:
    """Keep the images with these ids, and their annotations."""
    return {
        **coco,
        "images": [image for image in coco["images"] if image["id"] in ids],
        "annotations": [a for a in coco["annotations"] if a["image_id"] in ids],
    }
