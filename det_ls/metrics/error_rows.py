# SPDX-License-Identifier: AGPL-3.0-or-later
"""One row a false positive and one row an object that is not found, as `det_ls.report.tables` writes them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from det_ls.metrics.boxes import TableBoxes
from det_ls.metrics.errors import BACKGROUND, BOTH, CLASSIFICATION, ERROR_TYPES, MISSED, Errors
from det_ls.metrics.table import DetectionTable


@dataclass(frozen=True)
class ErrorRow:
    """An error of a detector.

    Attributes:
        image_id: Id of the image.
        image: File name of the image, or its id where no name is known.
        what: ``false positive`` or ``missed object``: an object that no kept detection finds.
        name: Class of the detection or of the object.
        score: Score of a false positive, else None.
        iou: Of a false positive, IoU with the object that it is about; of a missed object, with the kept detection that
            overlaps it most; 0 where there is none.
        error: Type of the error, see `det_ls.metrics.errors.ERROR_TYPES`. A missed object is ``missed``, or has the
            type of the false positive that finds it once put right.
        other: The other class, where there is one: the object's that a false positive is about, or the detection's that
            overlaps a missed object; else None.
        object_id: Annotation id of the object, None for a false positive that is about none.
        xywh: Left, top, width and height of the false positive or of the missed object, in pixels.
    """

    image_id: Any
    image: str
    what: str
    name: str
    score: float | None
    iou: float
    error: str
    other: str | None
    object_id: int | None
    xywh: tuple[float, float, float, float]


def error_rows(
    table: DetectionTable, boxes: TableBoxes, errors: Errors, file_names: Mapping[Any, str] | None = None
) -> list[ErrorRow]:
    """List the errors of a detector.

    Args:
        table: Matched detections.
        boxes: Their boxes.
        errors: Their errors, from `det_ls.metrics.errors.classify_errors`.
        file_names: File name by image id, without what says something of a machine.

    Returns:
        The false positives, the highest score first, then the missed objects, the largest first.

    Example:
        >>> from det_ls.metrics.boxes import table_boxes
        >>> from det_ls.metrics.errors import classify_errors
        >>> from det_ls.metrics.matching import build_table
        >>> gt = {"images": [{"id": 1}], "categories": [{"id": 1, "name": "cat"}, {"id": 2, "name": "dog"}],
        ...       "annotations": [{"id": 5, "image_id": 1, "category_id": 1, "bbox": [0, 0, 9, 9]}]}
        >>> found = [{"image_id": 1, "category_id": 2, "bbox": [0, 0, 9, 9], "score": 0.9}]
        >>> table, boxes = (t := build_table(gt, found)), table_boxes(t, found, gt)
        >>> for row in error_rows(table, boxes, classify_errors(table, boxes), {1: "a.jpg"}):
        ...     print(row.image, row.what, row.name, row.score, row.error, row.other)
        a.jpg false positive dog 0.9 classification cat
        a.jpg missed object cat None classification dog
    """
    names, ids = table.class_names, table.image_ids
    files = file_names or {}

    def file(image: int) -> str:
        return str(files.get(ids[image], ids[image]))

    rows = []
    wrong = np.flatnonzero(errors.kind >= 0)
    for r in wrong[np.lexsort((table.detection[wrong], -table.score[wrong]))].tolist():
        kind, about = int(errors.kind[r]), int(errors.about[r])
        other = int(table.gt_cls[about]) if kind in (CLASSIFICATION, BOTH) and about >= 0 else int(table.cls[r])
        rows.append(
            ErrorRow(
                ids[table.image[r]],
                file(table.image[r]),
                "false positive",
                names[table.cls[r]],
                float(table.score[r]),
                float(errors.iou[r]),
                ERROR_TYPES[kind],
                None if other == table.cls[r] else names[other],
                int(table.gt_ids[about]) if about >= 0 else None,
                tuple(boxes.detections[r].tolist()),
            )
        )
    mended = {int(errors.about[r]): int(errors.kind[r]) for r in np.flatnonzero(errors.fixes)}
    lost = np.flatnonzero(~errors.found & ~table.gt_crowd)
    for g in lost[np.lexsort((table.gt_ids[lost], -table.gt_area[lost]))].tolist():
        near, cls = int(errors.nearest[g]), int(table.gt_cls[g])
        confused = near >= 0 and errors.nearest_iou[g] >= BACKGROUND and table.cls[near] != cls
        rows.append(
            ErrorRow(
                ids[table.gt_image[g]],
                file(table.gt_image[g]),
                "missed object",
                names[cls],
                None,
                float(errors.nearest_iou[g]),
                ERROR_TYPES[mended.get(g, MISSED)],
                names[table.cls[near]] if confused else None,
                int(table.gt_ids[g]),
                tuple(boxes.objects[g].tolist()),
            )
        )
    return rows
