# SPDX-License-Identifier: AGPL-3.0-or-later
"""Match results and image files to the images of COCO instances by name, where ids do not say it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from det_ls.data.coco import ImageId, Json, examples


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
        raise ValueError(
            f"{what}: expected every image_id to be the stem of a file_name of the ground truth, as others are, got "
            f"{examples(unknown)}."
        )
    if several := sorted((str(i), images) for (i, _), images in found.items() if len(images) > 1):
        stem, images = several[0]
        raise ValueError(
            f"{what}: expected every image_id to be the stem of one file_name of the ground truth, got {stem!r}, "
            f"which is that of {examples(names[i] for i in images)}."
        )
    return [found[key][0] for key in keys]


def image_paths(paths: Iterable[str], gt: Json) -> dict[ImageId, str]:
    """Find the file of each image of COCO instances among some files; files of other images are passed over.

    A file belongs to the image whose ``file_name`` has its last part; where several have, to the one whose whole
    ``file_name`` is the end of the path.

    Args:
        paths: Image files.
        gt: COCO instances.

    Returns:
        File by image id, for the images that are there.

    Raises:
        ValueError: If the files and the instances have no name in common.

    Examples:
        >>> image_paths(["/data/val/7.jpg", "/data/val/8.jpg"], {"images": [{"id": 1, "file_name": "7.jpg"}]})
        {1: '/data/val/7.jpg'}
    """
    from det_ls.data.ground_truth import match_images

    paths = list(paths)
    named = [image for image in gt["images"] if isinstance(image.get("file_name"), str)]
    wanted = {PurePosixPath(image["file_name"].replace("\\", "/")).name for image in named}
    known = [path for path in paths if Path(path).name in wanted]
    if not known:
        raise ValueError(
            f"images: expected files of the ground truth's images, got none of its file_names among {examples(paths)}."
        )
    ids = match_images(_best(known, named), {**gt, "images": named}, "the ground truth", surplus=True)
    return {image_id: path for path, image_id in ids.items()}


def _best(paths: Sequence[str], images: Sequence[Json]) -> list[str]:
    """Leave out files whose base name is known but whose folder is another image set's, if the whole name says so."""
    whole = {tuple(PurePosixPath(image["file_name"].replace("\\", "/")).parts) for image in images}
    lengths = {len(parts) for parts in whole}
    fitting = [p for p in paths if any(Path(p).parts[-n:] in whole for n in lengths)]
    return fitting or list(paths)


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
