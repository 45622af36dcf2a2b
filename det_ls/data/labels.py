# SPDX-License-Identifier: AGPL-3.0-or-later
"""YOLO label files, read by Ultralytics' rules."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from det_ls.base.errors import DataError

Floats = NDArray[np.float64]

# Ultralytics' own limits: what is beyond them makes it drop the image from its own validation.
LARGEST_COORDINATE, SMALLEST_COORDINATE = 1.01, -0.01


def read_labels(file: str | Path, num_classes: int, keypoint_columns: int = 0) -> list[tuple[int, list[float]]]:
    """Read a YOLO label file by Ultralytics' rules: polygons become boxes, and repeated lines count once.

    Args:
        file: A label file; one that does not exist means an image without objects.
        num_classes: Number of classes K; indices are 0 to K - 1.
        keypoint_columns: Numbers after the box that belong to keypoints and are left out.

    Returns:
        Class index and box ``[x_center, y_center, width, height]`` (fractions of the image) of each object.

    Raises:
        ValueError: If a line is not a valid label; the error names the file and the line.
    """
    rows = _read_rows(file)
    if keypoint_columns:
        rows = [(n, cells[:5] if len(cells) == 5 + keypoint_columns else cells) for n, cells in rows]
    polygons = any(len(cells) > 6 for _, cells in rows)
    found: list[tuple[int, list[float]]] = _read_each(
        file, rows, lambda values: _parse_label(values, polygons, num_classes)
    )
    return found


def read_polygons(file: str | Path, num_classes: int) -> list[tuple[int, list[list[float]]]]:
    """Read a YOLO label file whose lines are polygons, such as the four corners of oriented boxes.

    Args:
        file: A label file; one that does not exist means an image without objects.
        num_classes: Number of classes K; indices are 0 to K - 1.

    Returns:
        Class index and points ``[x, y]`` (fractions of the image) of each object.

    Raises:
        ValueError: If a line is not a class and at least three points; the error names the file and the line.
    """

    def parse(values: Floats) -> tuple[int, list[list[float]]]:
        if len(values) < 7 or len(values) % 2 == 0:
            raise DataError(f"expected a class and the corners of an oriented box, got {len(values)} numbers")
        index, _ = _parse_label(values, True, num_classes)
        return index, values[1:].reshape(-1, 2).tolist()

    found: list[tuple[int, list[list[float]]]] = _read_each(file, _read_rows(file), parse)
    return found


def _read_rows(file: str | Path) -> list[tuple[int, list[str]]]:
    """Read the words of each line of a label file that is not blank, with the line's number."""
    path = Path(file)
    if not path.is_file():
        return []
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise DataError(f"labels: expected UTF-8 text in '{path}', got other bytes.") from error
    return [(number, line.split()) for number, line in enumerate(lines, start=1) if line.strip()]


def _read_each(file: str | Path, rows: list[tuple[int, list[str]]], parse: Callable[[Floats], Any]) -> list[Any]:
    """Parse lines, of which repeated ones count once; an error names the file and the line."""
    labels, seen = [], set()
    for number, cells in rows:
        try:
            values = np.array(read_numbers(cells), dtype=np.float64)
            label = parse(values)
        except ValueError as error:
            raise DataError(f"labels: '{Path(file)}', line {number}: {error}.") from error
        key = values.astype(np.float32).tobytes()  # the precision in which Ultralytics compares lines
        if key not in seen:
            seen.add(key)
            labels.append(label)
    return labels


def read_numbers(cells: Sequence[str]) -> list[float]:
    """Read the words of a line as numbers.

    Args:
        cells: The words.

    Returns:
        The numbers; NaN and infinity are among what a word may say.

    Raises:
        ValueError: If a word is no number.
    """
    numbers = []
    for cell in cells:
        try:
            numbers.append(float(cell))
        except ValueError:
            raise DataError(f"expected numbers, got {cell!r}") from None
    return numbers


def _parse_label(values: Floats, polygons: bool, num_classes: int) -> tuple[int, list[float]]:
    """Check one label line's numbers and return its class and its box (x_center, y_center, width, height)."""
    if not np.isfinite(values).all():
        raise DataError("expected finite numbers, got NaN or infinity")
    if polygons:
        if len(values) < 7 or len(values) % 2 == 0:
            raise DataError(f"expected a class and a polygon, as on other lines, got {len(values)} numbers")
        points = values[1:].reshape(-1, 2)
        low, high = points.min(0), points.max(0)
        box = np.concatenate([(low + high) / 2, high - low])
    else:
        if len(values) != 5:
            raise DataError(f"expected a class and four box coordinates, got {len(values)} numbers")
        box = values[1:]
    index = float(values[0])
    if not index.is_integer() or not 0 <= index < num_classes:
        raise DataError(f"expected a class index from 0 to {num_classes - 1}, got {index:g}")
    if box.max() > LARGEST_COORDINATE:
        raise DataError(f"expected coordinates as fractions of the image, at most 1, got {box.max():g}")
    if box.min() < SMALLEST_COORDINATE or box[2:].min() < 0:
        raise DataError(f"expected no negative coordinates, got {box.min():g}")
    return int(index), box.tolist()
