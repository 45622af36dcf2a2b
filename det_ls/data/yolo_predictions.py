# SPDX-License-Identifier: AGPL-3.0-or-later
"""Read a folder of YOLO predictions, as ``yolo predict save_txt=True save_conf=True`` writes them.

One text file an image with a detection a line: ``class x_center y_center width height conf``, the box in fractions of
the image. Images without a file have no detections.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Mapping
from pathlib import Path

from det_ls.base.arguments import examples
from det_ls.base.errors import DataError, MissingFileError
from det_ls.base.types import ImageId, Json
from det_ls.data.ground_truth import GroundTruth, image_size
from det_ls.data.labels import read_numbers


def read_yolo_predictions(
    folder: str | Path, truth: GroundTruth, categories: Mapping[int, ImageId], what: str = "predictions"
) -> list[Json]:
    """Read the predictions on a split as COCO results, boxes in pixels of the images.

    Args:
        folder: The folder with the text files, or the run folder whose ``labels`` holds them; subfolders are searched.
        truth: The ground truth of the split. Image sizes are read from its images.
        categories: Category id by class index.
        what: The argument's name for error messages.

    Returns:
        One result a line, image by image; unchecked but for what a line itself says.

    Raises:
        FileNotFoundError: If there is no such folder.
        ValueError: If it holds no text file, a file belongs to no image or to several, or a line is not valid; the
            error names file and line.
    """
    root = Path(folder)
    if not root.is_dir():
        raise MissingFileError(f"{what}: expected a folder of YOLO text files, got '{root}', which is none.")
    if (root / "labels").is_dir() and not any(root.glob("*.txt")):
        root = root / "labels"
    files = sorted(path for path in root.rglob("*.txt") if path.is_file())
    if not files:
        raise DataError(f"{what}: expected YOLO text files in '{folder}', got none.")
    owners = _owners([path.relative_to(root) for path in files], truth, what)
    results: list[Json] = []
    for file, image in zip(files, owners, strict=True):
        rows = read_prediction_file(file, len(categories))
        if rows:
            width, height = image_size(image)
        for index, (x, y, w, h), score in rows:
            box = [(x - w / 2) * width, (y - h / 2) * height, w * width, h * height]
            results.append(
                {"image_id": truth.image_ids[image], "category_id": categories[index], "bbox": box, "score": score}
            )
    return results


def read_prediction_file(
    file: str | Path, num_classes: int
) -> list[tuple[int, tuple[float, float, float, float], float]]:
    """Read one text file of predictions.

    Args:
        file: The file.
        num_classes: Number of classes K; indices are 0 to K - 1.

    Returns:
        Class index, box (x_center, y_center, width, height; fractions of the image) and score of each line.

    Raises:
        ValueError: If a line is not valid; the error names the file and the line.
    """
    try:
        lines = Path(file).read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise DataError(f"predictions: expected UTF-8 text in '{file}', got other bytes.") from error
    rows = []
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            rows.append(_parse(line.split(), num_classes))
        except ValueError as error:
            raise DataError(f"predictions: '{file}', line {number}: {error}.") from error
    return rows


def _parse(cells: list[str], num_classes: int) -> tuple[int, tuple[float, float, float, float], float]:
    """Check one line and return its class, box and score."""
    if len(cells) == 5:
        raise DataError("expected a score after the box (save_conf=True), got a class and a box only")
    if len(cells) != 6:
        raise DataError(f"expected class, x_center, y_center, width, height and score, got {len(cells)} words")
    index, x, y, w, h, score = values = read_numbers(cells)
    if not all(math.isfinite(value) for value in values):
        raise DataError("expected finite numbers, got NaN or infinity")
    if not index.is_integer() or not 0 <= index < num_classes:
        raise DataError(f"expected a class index from 0 to {num_classes - 1}, got {cells[0]}")
    if min(w, h) < 0 or max(map(abs, (x, y, w, h))) > 2:
        raise DataError(f"expected a box in fractions of the image, got {' '.join(cells[1:5])}")
    if not 0 <= score <= 1:
        raise DataError(f"expected a score from 0 to 1, got {cells[5]}")
    return int(index), (x, y, w, h), score


def _owners(files: list[Path], truth: GroundTruth, what: str) -> list[str]:
    """Find the image of each text file by its stem, or among equal stems by the folders before it."""
    images: dict[str, list[str]] = defaultdict(list)
    for path in truth.image_ids:
        images[Path(path).stem].append(path)
    owners: list[str] = []
    missing: list[str] = []
    unclear: list[str] = []
    for file in files:
        found = images.get(file.stem, [])
        if len(found) > 1:
            parts = file.with_suffix("").parts
            found = [path for path in found if Path(path).with_suffix("").parts[-len(parts) :] == parts]
        if len(found) == 1:
            owners += found
        else:
            (unclear if file.stem in images else missing).append(file.as_posix())
    if missing:
        raise DataError(f"{what}: expected files that are named as the split's images, got {examples(missing)}.")
    if not unclear:
        counts = Counter(owners)
        unclear = [file.as_posix() for file, image in zip(files, owners, strict=True) if counts[image] > 1]
    if unclear:
        raise DataError(
            f"{what}: expected each file to belong to one image, and an image to one file, got {examples(unclear)}."
        )
    return owners
