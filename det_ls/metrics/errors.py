# SPDX-License-Identifier: AGPL-3.0-or-later
"""What is wrong with each false positive and each object that is not found, and what average precision it costs.

The types, their order and their cost are those of TIDE (Bolya et al., "TIDE: A General Toolbox for Identifying Object
Detection Errors", ECCV 2020, sections 2.2 and 2.3). With IoU >= 0.5 for a match and IoU <= 0.1 for background, a false
positive is, by the first that holds, an error of

- localisation: its best overlap with an object of its class lies in [0.1, 0.5];
- classification: it overlaps an object of another class by 0.5 or more;
- duplicate: it overlaps an object of its class by 0.5 or more, which a better detection has taken;
- background: it overlaps no object by more than 0.1;
- both: anything else, the wrong class and a loose box.

An object that no detection finds is missed, unless an error of localisation or classification overlaps it.

Where this differs from the package tidecv 1.0: matches are COCO's, so at most 100 detections an image and class count
(there: 100 an image); detections that a crowd excuses are no errors (there each is given a type all the same); and a
class without objects takes no part in the mean (there its AP is 0). Costs are differences of AP in [0, 1], not of
percent.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from det_ls.metrics.boxes import TableBoxes, check_boxes, image_rows, score_mask
from det_ls.metrics.curves_pr import interpolate
from det_ls.metrics.table import Bools, DetectionTable, Floats, Ints

FOREGROUND, BACKGROUND = 0.5, 0.1
ERROR_TYPES = ("classification", "localisation", "both", "duplicate", "background", "missed")
CLASSIFICATION, LOCALISATION, BOTH, DUPLICATE, NOTHING_THERE, MISSED = range(6)


@dataclass(frozen=True)
class Errors:
    """The type of every error at a score threshold; N detections and G objects of a table.

    Attributes:
        keep: (N,) detections at or above their threshold.
        kind: (N,) place of the error's type in `ERROR_TYPES`, -1 where there is no error: the detection is right, a
            crowd excuses it, or it is below the threshold.
        about: (N,) object that the false positive overlaps most among those that make it an error of its type, -1 if
            it overlaps none.
        iou: (N,) IoU with that object; of a true positive, with its own.
        fixes: (N,) whether the error, once put right, finds an object that no other detection finds: of several errors
            about one object only that with the highest score does.
        found: (G,) objects that a kept detection finds.
        missed: (G,) objects that neither a detection nor an error of classification or localisation is about.
        nearest: (G,) kept detection that overlaps the object most, -1 if none does.
        nearest_iou: (G,) their IoU.
    """

    keep: Bools
    kind: NDArray[np.int8]
    about: NDArray[np.int32]
    iou: Floats
    fixes: Bools
    found: Bools
    missed: Bools
    nearest: NDArray[np.int32]
    nearest_iou: Floats

    @property
    def counts(self) -> dict[str, int]:
        """Errors of each type."""
        of_kind = np.bincount(self.kind[self.kind >= 0], minlength=len(ERROR_TYPES))
        of_kind[MISSED] = self.missed.sum()
        return {name: int(n) for name, n in zip(ERROR_TYPES, of_kind, strict=True)}

    @property
    def n_false_positives(self) -> int:
        """Kept detections that are wrong."""
        return int((self.kind >= 0).sum())


@dataclass(frozen=True)
class ErrorBreakdown:
    """How many errors of each type there are and what they cost.

    Attributes:
        ap50: Average precision of the kept detections at IoU 0.5, the mean of the classes with objects; NaN without.
        counts: Errors by type, see `ERROR_TYPES`.
        cost: By type, how much higher AP50 would be had these errors alone been put right; the costs do not add up.
            Never negative.
        false_positives: Kept detections that are wrong.
        false_negatives: Objects that no kept detection finds.
        false_positive_cost: How much higher AP50 would be had all false positives the lowest scores and all true
            positives the highest.
        false_negative_cost: How much higher AP50 would be were the objects that are not found not counted.
    """

    ap50: float
    counts: Mapping[str, int]
    cost: Mapping[str, float]
    false_positives: int
    false_negatives: int
    false_positive_cost: float
    false_negative_cost: float


def classify_errors(
    table: DetectionTable, boxes: TableBoxes, thresholds: Floats | Bools | float | None = None
) -> Errors:
    """Find the type of every error.

    Args:
        table: Matched detections.
        boxes: Their boxes, see `det_ls.metrics.boxes.table_boxes`.
        thresholds: Detections that score lower are left out: one threshold, or (C,) of them of which NaN keeps nothing
            of its class; None keeps all. Or (N,) truth values, the detections to keep.

    Returns:
        The errors.

    Raises:
        ValueError: The boxes or the thresholds do not fit the table.

    Example:
        >>> from det_ls.metrics.boxes import table_boxes
        >>> from det_ls.metrics.matching import build_table
        >>> gt = {"images": [{"id": 1}], "categories": [{"id": 1, "name": "cat"}, {"id": 2, "name": "dog"}],
        ...       "annotations": [{"id": 5, "image_id": 1, "category_id": 1, "bbox": [0, 0, 9, 9]}]}
        >>> found = [{"image_id": 1, "category_id": 2, "bbox": [0, 0, 9, 8], "score": 0.9}]
        >>> table = build_table(gt, found)
        >>> {name: n for name, n in classify_errors(table, table_boxes(table, found, gt)).counts.items() if n}
        {'classification': 1}
    """
    check_boxes(table, boxes)
    keep = score_mask(table, thresholds)
    matches = table.matches(FOREGROUND)
    n, g = table.n_detections, len(table.gt_ids)
    kind, about, iou = np.full(n, -1, np.int8), np.full(n, -1, np.int32), np.zeros(n)
    found = np.zeros(g, bool)
    right = keep & matches.tp
    found[matches.gt[right]] = True
    about[right], iou[right] = matches.gt[right], matches.iou[right]
    nearest, nearest_iou = np.full(g, -1, np.int32), np.zeros(g)
    for rows, objects in image_rows(table, np.flatnonzero(keep), np.flatnonzero(~table.gt_crowd)):
        if not len(rows) or not len(objects):
            kind[rows[matches.kept[rows]]] = NOTHING_THERE
            continue
        overlap = boxes.overlaps(rows, objects)
        best = overlap.argmax(0)
        nearest_iou[objects] = overlap.max(0)
        nearest[objects] = np.where(overlap.max(0) > 0, rows[best], -1)
        wrong = matches.kept[rows] & ~matches.tp[rows]
        rows, overlap = rows[wrong], overlap[wrong]
        same = table.cls[rows][:, None] == table.gt_cls[objects]
        kind[rows], place, iou[rows] = _kinds(overlap, same, found[objects])
        about[rows] = np.where(iou[rows] > 0, objects[place], -1)
    fixes = _first_about_unfound(table, kind, about, found)
    reached = np.zeros(g, bool)
    reached[about[fixes]] = True
    missed = ~found & ~reached & ~table.gt_crowd
    return Errors(keep, kind, about, iou, fixes, found, missed, nearest, nearest_iou)


def error_breakdown(table: DetectionTable, errors: Errors) -> ErrorBreakdown:
    """Count errors and find the cost of each type.

    Args:
        table: Matched detections.
        errors: Their errors, from `classify_errors`.

    Returns:
        The counts and costs.
    """
    matches = table.matches(FOREGROUND)
    rows = table.coco_order[(errors.keep & matches.kept)[table.coco_order]]
    tp, cls, kind, n_gt = matches.tp[rows], table.cls[rows].astype(np.int64), errors.kind[rows], table.n_gt

    def gain(tp: Bools, cls: Ints, n_gt: Ints) -> float:
        # A mended curve can come out a hair lower at the 101 recalls, which is no cost; the best AP is 1.
        ap = _mean_ap(tp, cls, n_gt, table.has_gt)
        return max(0.0 if np.isnan(ap) else ap - ap50, 0.0)

    ap50 = _mean_ap(tp, cls, n_gt, table.has_gt)
    cost = {}
    for code, name in enumerate(ERROR_TYPES[:MISSED]):
        stays = (kind != code) | errors.fixes[rows]
        mended = (kind == code) & errors.fixes[rows]
        new_cls = np.where(mended, table.gt_cls[errors.about[rows]] if len(table.gt_ids) else cls, cls)
        new_tp, new_cls, kept = (tp | mended)[stays], new_cls[stays], rows[stays]
        order = np.lexsort((table.detection[kept], table.image[kept], -table.score[kept], new_cls))
        cost[name] = gain(new_tp[order], new_cls[order], n_gt)
    not_missed = n_gt - np.bincount(table.gt_cls[errors.missed], minlength=table.n_classes)
    cost["missed"] = gain(tp, cls, not_missed)
    by_right = np.lexsort((~tp, cls))
    lost = ~errors.found & ~table.gt_crowd
    n_found = n_gt - np.bincount(table.gt_cls[lost], minlength=table.n_classes)
    return ErrorBreakdown(
        ap50=ap50,
        counts=errors.counts,
        cost=cost,
        false_positives=errors.n_false_positives,
        false_negatives=int(lost.sum()),
        false_positive_cost=gain(tp[by_right], cls[by_right], n_gt),
        false_negative_cost=gain(tp, cls, n_found),
    )


def _kinds(overlap: Floats, same: Bools, found: Bools) -> tuple[NDArray[np.int8], Ints, Floats]:
    """Classify the K false positives of an image with L objects: their type, the object's place and the IoU."""
    own, other = np.where(same, overlap, 0.0), np.where(same, 0.0, overlap)
    taken = own * found
    rules = (
        ((own.max(1) >= BACKGROUND) & (own.max(1) <= FOREGROUND), LOCALISATION, own),
        (other.max(1) >= FOREGROUND, CLASSIFICATION, other),
        (taken.max(1) >= FOREGROUND, DUPLICATE, taken),
        (overlap.max(1) <= BACKGROUND, NOTHING_THERE, overlap),
    )
    holds = [rule[0] for rule in rules]
    kind = np.select(holds, [rule[1] for rule in rules], BOTH).astype(np.int8)
    place = np.select(holds, [rule[2].argmax(1) for rule in rules], overlap.argmax(1))
    return kind, place, overlap[np.arange(len(overlap)), place]


def _first_about_unfound(
    table: DetectionTable, kind: NDArray[np.int8], about: NDArray[np.int32], found: Bools
) -> Bools:
    """Mark, for each object that is not found, the error of localisation or classification with the highest score."""
    rows = np.flatnonzero(((kind == CLASSIFICATION) | (kind == LOCALISATION)) & (about >= 0))
    rows = rows[~found[about[rows]]]
    rows = rows[np.lexsort((table.detection[rows], -table.score[rows], about[rows]))]
    first = np.zeros(len(kind), bool)
    first[rows[np.unique(about[rows], return_index=True)[1]]] = True
    return first


def _mean_ap(tp: Bools, cls: Ints, n_gt: Ints, has_gt: Bools) -> float:
    """Mean AP of the classes that had objects, as TIDE takes it.

    Where no objects are left a class has AP 0, or is left out if it has no detections either.
    """
    precision, _ = interpolate(tp, cls, n_gt)
    detected = np.bincount(cls, minlength=len(n_gt)) > 0
    ap = np.where(n_gt > 0, precision.mean(1), 0.0)[has_gt & ((n_gt > 0) | detected)]
    return float(ap.mean()) if len(ap) else float("nan")
