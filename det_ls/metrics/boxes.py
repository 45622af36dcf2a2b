# SPDX-License-Identifier: AGPL-3.0-or-later
"""The boxes beside a table of matched detections, which holds none itself."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from det_ls.base.errors import ArgumentError
from det_ls.data.oriented import is_oriented, oriented_boxes, oriented_iou
from det_ls.metrics.table import Bools, DetectionTable, Floats, Ints


@dataclass(frozen=True)
class TableBoxes:
    """Boxes by row of a table, as left, top, width and height in pixels.

    Attributes:
        detections: (N, 4) boxes of the table's detections.
        objects: (G, 4) boxes of the table's objects.
        oriented_detections: (N, 5) the oriented boxes within them, see `det_ls.data.oriented`; None without.
        oriented_objects: (G, 5) likewise.
    """

    detections: Floats
    objects: Floats
    oriented_detections: Floats | None = None
    oriented_objects: Floats | None = None

    def overlaps(self, detections: Ints, objects: Ints) -> Floats:
        """Compute the overlap of detections with objects, of oriented boxes where there are those.

        Args:
            detections: (K,) rows of detections.
            objects: (L,) rows of objects.

        Returns:
            (K, L) IoU in [0, 1].
        """
        found, there = self.shapes
        return overlaps(found[detections], there[objects])

    @property
    def shapes(self) -> tuple[Floats, Floats]:
        """Detections and objects as they were matched: (N, 4) and (G, 4), or (N, 5) and (G, 5) oriented boxes."""
        if self.oriented_detections is None or self.oriented_objects is None:
            return self.detections, self.objects
        return self.oriented_detections, self.oriented_objects


def table_boxes(
    table: DetectionTable, detections: Sequence[Mapping[str, Any]], ground_truth: Mapping[str, Any]
) -> TableBoxes:
    """Line boxes up with the rows of a table.

    Args:
        table: Matched detections.
        detections: The COCO results that were evaluated, in the same order.
        ground_truth: The COCO instances that they were evaluated against, with an ``id`` for each annotation.

    Returns:
        The boxes.

    Raises:
        ValueError: The detections or the objects are not those that were evaluated.

    Example:
        >>> from det_ls.metrics.matching import build_table
        >>> gt = {"images": [{"id": 1}], "categories": [{"id": 1, "name": "a"}],
        ...       "annotations": [{"id": 5, "image_id": 1, "category_id": 1, "bbox": [0, 0, 9, 9]}]}
        >>> found = [{"image_id": 1, "category_id": 1, "bbox": [0, 0, 9, 8], "score": 0.9}]
        >>> table_boxes(build_table(gt, found), found, gt).detections.tolist()
        [[0.0, 0.0, 9.0, 8.0]]
    """
    if len(detections) != table.n_results:
        raise ArgumentError(f"detections: expected the {table.n_results} that were evaluated, got {len(detections)}.")
    boxes = {a["id"]: a for a in ground_truth["annotations"]}
    ids = table.gt_ids.tolist()
    if missing := [i for i in ids if i not in boxes]:
        raise ArgumentError(f"ground_truth: expected the objects that were evaluated, got none with id {missing[0]}.")
    found, there = [detections[i] for i in table.detection.tolist()], [boxes[i] for i in ids]
    plain = [np.array([entry["bbox"] for entry in entries], np.float64).reshape(-1, 4) for entries in (found, there)]
    if is_oriented(ground_truth):
        return TableBoxes(plain[0], plain[1], oriented_boxes(found), oriented_boxes(there))
    return TableBoxes(plain[0], plain[1])


def check_boxes(table: DetectionTable, boxes: TableBoxes) -> None:
    """Check that boxes belong to a table.

    Args:
        table: Matched detections.
        boxes: Their boxes.

    Raises:
        ValueError: There is not one box a row.
    """
    for name, found, rows in (
        ("detections", boxes.detections, table.n_detections),
        ("objects", boxes.objects, len(table.gt_ids)),
    ):
        if found.shape != (rows, 4):
            raise ArgumentError(f"boxes.{name}: expected shape ({rows}, 4), got {found.shape}.")


def overlaps(boxes: Floats, others: Floats) -> Floats:
    """Compute the intersection over union of each pair of boxes, as pycocotools does.

    Args:
        boxes: (K, 4) boxes: left, top, width, height; or (K, 5) oriented boxes.
        others: (L, 4) boxes, or (L, 5).

    Returns:
        (K, L) IoU in [0, 1].

    Example:
        >>> import numpy as np
        >>> overlaps(np.array([[0.0, 0, 2, 2]]), np.array([[1.0, 0, 2, 2], [5, 5, 1, 1]])).round(4).tolist()
        [[0.3333, 0.0]]
    """
    from pycocotools import mask

    if not len(boxes) or not len(others):
        return np.zeros((len(boxes), len(others)))
    if boxes.shape[1] == 5:
        return oriented_iou(boxes, others)
    found = mask.iou(np.ascontiguousarray(boxes), np.ascontiguousarray(others), [0] * len(others))
    return np.asarray(found, np.float64)


def score_mask(table: DetectionTable, thresholds: Floats | Bools | float | None) -> Bools:
    """Say which detections score at least as high as their threshold.

    Args:
        table: Matched detections.
        thresholds: One score threshold, or (C,) thresholds of which NaN keeps nothing of its class; None keeps all. Or
            (N,) truth values, the detections to keep.

    Returns:
        (N,) detections to keep.

    Raises:
        ValueError: There is neither one threshold, nor one a class, nor a truth value for each detection.
    """
    if thresholds is None:
        return np.ones(table.n_detections, bool)
    given = np.asarray(thresholds)
    if given.dtype == bool and given.shape == (table.n_detections,):
        return given
    values = np.asarray(thresholds, np.float64)
    if given.dtype == bool or values.shape not in ((), (table.n_classes,)):
        raise ArgumentError(f"thresholds: expected one number or {table.n_classes}, got shape {values.shape}.")
    each = np.broadcast_to(np.where(np.isnan(values), np.inf, values), (table.n_classes,))
    return np.asarray(table.score >= each[table.cls])


def image_rows(table: DetectionTable, detections: Ints, objects: Ints) -> Iterator[tuple[Ints, Ints]]:
    """Go through the images that hold any of some detections or objects.

    Args:
        table: Matched detections.
        detections: Rows of detections.
        objects: Rows of objects.

    Yields:
        The detections of an image, the highest score first and in the order of the results where scores tie, and its
        objects in their order.
    """
    by_score = detections[np.lexsort((table.detection[detections], -table.score[detections], table.image[detections]))]
    by_image = objects[np.argsort(table.gt_image[objects], kind="stable")]
    edges = np.arange(table.n_images + 1)
    at = np.searchsorted(table.image[by_score], edges)
    gt_at = np.searchsorted(table.gt_image[by_image], edges)
    for i in np.flatnonzero((np.diff(at) > 0) | (np.diff(gt_at) > 0)).tolist():
        yield by_score[at[i] : at[i + 1]], by_image[gt_at[i] : gt_at[i + 1]]
