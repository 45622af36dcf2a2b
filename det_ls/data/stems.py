# SPDX-License-Identifier: AGPL-3.0-or-later
"""Match results to the images of COCO instances by the stems of their file names, where ids do not say it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import PurePosixPath
from typing import Any

from det_ls.base.arguments import examples
from det_ls.base.errors import DataError
from det_ls.base.types import ImageId, Json


def ids_by_stem(detections: Sequence[Any], gt: Json, what: str = "detections") -> list[Any] | None:
    """Find the image of each COCO result whose ``image_id`` is the stem of an image file, not an id.

    Ultralytics' ``save_json`` writes the stem, as an integer where it consists of digits, and beside it the
    ``file_name``. Results whose ids are the ground truth's are left alone, unless a ``file_name`` contradicts them:
    such an integer is a stem that happens to be another image's id.

    Args:
        detections: COCO results, unchecked.
        gt: What :func:`det_ls.data.coco.read_ground_truth` returned.
        what: The argument's name for error messages.

    Returns:
        The image id of each result, or None if they are not named by stems.

    Raises:
        ValueError: If a stem is that of several images, or of none while others are known.

    Examples:
        >>> gt = {"images": [{"id": 1, "file_name": "val/a_1.jpg"}, {"id": 2, "file_name": "val/0012.jpg"}]}
        >>> ids_by_stem([{"image_id": "a_1"}, {"image_id": 12}], gt)
        [1, 2]
        >>> ids_by_stem([{"image_id": 1}, {"image_id": 2}], gt) is None
        True
    """
    names = {image["id"]: image.get("file_name") for image in gt["images"]}
    if not all(isinstance(name, str) for name in names.values()):
        return None
    if not all(isinstance(d, Mapping) and isinstance(d.get("image_id"), (int, str)) for d in detections):
        return None
    stems = {image_id: _stem(str(name)) for image_id, name in names.items()}
    keys = [(d["image_id"], d.get("file_name")) for d in detections]
    distinct = set(keys) if all(isinstance(name, (str, type(None))) for _, name in keys) else set()
    if not any(_is_stem(i, name, stems) for i, name in distinct):
        return None
    by_stem: dict[str | int, list[ImageId]] = defaultdict(list)
    for image_id, stem in stems.items():
        by_stem[stem].append(image_id)
        if stem.isdecimal() and str(int(stem)) != stem:  # Ultralytics drops leading zeros
            by_stem[str(int(stem))].append(image_id)
    found = {(i, name): by_stem.get(_stem(name) if name else str(i), []) for i, name in distinct}
    if not any(found.values()):
        return None
    if unknown := sorted({str(name or i) for (i, name), images in found.items() if not images}):
        raise DataError(
            f"{what}: expected every image_id to be the stem of a file_name of the ground truth, as others are, got "
            f"{examples(unknown)}."
        )
    if several := sorted((str(i), images) for (i, _), images in found.items() if len(images) > 1):
        stem, images = several[0]
        raise DataError(
            f"{what}: expected every image_id to be the stem of one file_name of the ground truth, got {stem!r}, "
            f"which is that of {examples(names[i] for i in images)}."
        )
    return [found[key][0] for key in keys]


def _is_stem(image_id: ImageId, name: str | None, stems: Mapping[ImageId, str]) -> bool:
    """Say whether an id that a result has can only be a stem: a word, or contradicted by the file's name."""
    if image_id in stems:
        return name is not None and _stem(name) != stems[image_id]
    return name is not None or (
        isinstance(image_id, str) and not (image_id.isdecimal() and str(int(image_id)) == image_id)
    )


def _stem(name: str) -> str:
    """Return the last part of a file name without its suffix."""
    return PurePosixPath(name.replace("\\", "/")).stem
