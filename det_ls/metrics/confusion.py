# SPDX-License-Identifier: AGPL-3.0-or-later
"""Which classes are taken for which, and for nothing at all, at given score thresholds."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from det_ls.metrics.boxes import TableBoxes, check_boxes, image_rows, score_mask
from det_ls.metrics.table import Bools, DetectionTable, Floats, Ints

CONFUSION_IOU = 0.5


@dataclass(frozen=True)
class Confusion:
    """A confusion matrix; C classes.

    Attributes:
        class_names: C names.
        counts: (C + 1, C + 1) boxes: rows are what was detected, columns what is there. The last row holds the objects
            that nothing was matched with, the last column the detections that match nothing.
        own_class_first: How it was matched, see `confusion`.
    """

    class_names: tuple[str, ...]
    counts: Ints
    own_class_first: bool

    @property
    def shares(self) -> Floats:
        """(C + 1, C + 1) fraction of each column, of what is there; NaN for a class without objects."""
        total = self.counts.sum(0)
        return np.divide(self.counts, total, out=np.full(self.counts.shape, np.nan), where=total > 0)

    def most_confused(self, limit: int) -> Ints:
        """Choose the classes that take part in most confusions of one class with another.

        Args:
            limit: How many to choose at most.

        Returns:
            Their places, rising. Where classes take part in equally many, those with more misses and false alarms come
            first, then those with more objects.
        """
        inner = self.counts[:-1, :-1]
        mixed = inner.sum(0) + inner.sum(1) - 2 * np.diag(inner)
        alone = self.counts[-1, :-1] + self.counts[:-1, -1]
        ranked = np.lexsort((np.arange(len(mixed)), -inner.sum(0), -alone, -mixed))
        involved = self.counts[:, :-1].sum(0) + self.counts[:-1].sum(1) > 0
        return np.sort(ranked[involved[ranked]][:limit])


def confusion(
    table: DetectionTable,
    boxes: TableBoxes,
    thresholds: Floats | Bools | float | None = None,
    *,
    own_class_first: bool = True,
) -> Confusion:
    """Count which class is detected where which class is, at IoU 0.5.

    Each detection, the highest score first, claims the object that it overlaps most among those that are not claimed
    yet, whatever the object's class, if their IoU is at least 0.5. Before that, if ``own_class_first``, the matches
    within classes are taken from the table: then the diagonal holds the true positives of every other number here, and
    a box of the wrong class never takes an object away from one of the right class.

    Args:
        table: Matched detections.
        boxes: Their boxes, see `det_ls.metrics.boxes.table_boxes`.
        thresholds: Detections that score lower are left out: one threshold, or (C,) of them of which NaN keeps nothing
            of its class; None keeps all. Or (N,) truth values, the detections to keep.
        own_class_first: False matches by score alone, as Ultralytics' ``ConfusionMatrix`` does (which keeps scores
            above a threshold, not at it, and matches above an IoU of 0.45 by default).

    Returns:
        The matrix. Crowds, and detections that a crowd of their class excuses, are left out.

    Raises:
        ValueError: The boxes or the thresholds do not fit the table.

    Example:
        >>> from det_ls.metrics.boxes import table_boxes
        >>> from det_ls.metrics.matching import build_table
        >>> gt = {"images": [{"id": 1}], "categories": [{"id": 1, "name": "cat"}, {"id": 2, "name": "dog"}],
        ...       "annotations": [{"id": 5, "image_id": 1, "category_id": 1, "bbox": [0, 0, 9, 9]}]}
        >>> found = [{"image_id": 1, "category_id": 2, "bbox": [0, 0, 9, 8], "score": 0.9}]
        >>> table = build_table(gt, found)
        >>> confusion(table, table_boxes(table, found, gt), 0.5).counts.tolist()
        [[0, 0, 0], [1, 0, 0], [0, 0, 0]]
    """
    check_boxes(table, boxes)
    matches = table.matches(CONFUSION_IOU)
    keep = score_mask(table, thresholds) & matches.kept
    n = table.n_classes
    claimed = np.full(len(table.gt_ids), -1, np.int64)
    if own_class_first:
        rows = np.flatnonzero(keep & matches.tp)
        claimed[matches.gt[rows]] = rows
    left = keep & ~matches.tp if own_class_first else keep
    free = ~table.gt_crowd & (claimed < 0)
    for rows, objects in image_rows(table, np.flatnonzero(left), np.flatnonzero(free)):
        if not len(rows) or not len(objects):
            continue
        overlap = boxes.overlaps(rows, objects)
        for place in np.flatnonzero(overlap.max(1) >= CONFUSION_IOU).tolist():
            best = int(overlap[place].argmax())
            if overlap[place, best] >= CONFUSION_IOU:
                claimed[objects[best]] = rows[place]
                overlap[:, best] = 0.0
    counts = np.zeros((n + 1, n + 1), np.int64)
    objects = np.flatnonzero(~table.gt_crowd)
    by = claimed[objects]
    np.add.at(counts, (np.where(by >= 0, np.append(table.cls, n)[by], n), table.gt_cls[objects]), 1)
    unmatched = keep.copy()
    unmatched[by[by >= 0]] = False
    np.add.at(counts, (table.cls[unmatched], n), 1)
    return Confusion(table.class_names, counts, own_class_first)
