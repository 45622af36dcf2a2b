# SPDX-License-Identifier: AGPL-3.0-or-later
"""Match results and image files to the images of COCO instances by name, where ids do not say it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path, PurePosixPath

from det_ls.base.arguments import examples
from det_ls.base.errors import DataError
from det_ls.base.types import ImageId, Json
from det_ls.data.ground_truth import match_images


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
    paths = list(paths)
    named = [image for image in gt["images"] if isinstance(image.get("file_name"), str)]
    wanted = {PurePosixPath(image["file_name"].replace("\\", "/")).name for image in named}
    known = [path for path in paths if Path(path).name in wanted]
    if not known:
        raise DataError(
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
