# SPDX-License-Identifier: AGPL-3.0-or-later
"""Match detections with pycocotools and read the result into a `det_ls.metrics.table.DetectionTable`.

pycocotools matches the detections once. A second pass at lower IoU thresholds runs over the IoUs that the first pass
cached; adding those thresholds to the first pass would change COCO's means.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from itertools import chain
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from det_ls.base.errors import ArgumentError
from det_ls.data.coco import coco_evaluate, plain_id, read_detections, read_ground_truth
from det_ls.metrics.table import OVERLAPPING, Bools, DetectionTable, Floats, Ints

if TYPE_CHECKING:
    from pycocotools.cocoeval import COCOeval

EXTRA_IOU_THRESHOLDS = (0.0, 0.1)
SIZES = ("small", "medium", "large")
SIZE_IOU = 0.5


def build_table(
    gt: object,
    detections: object,
    *,
    extra_iou_thresholds: Sequence[float] = EXTRA_IOU_THRESHOLDS,
    zero_overlap: bool | None = None,
) -> DetectionTable:
    """Evaluate detections with pycocotools and read the result into a table.

    Args:
        gt: COCO instances (loaded, or a path): ``images``, ``categories`` and ``annotations`` with ``bbox`` as x, y,
            width, height in pixels. A missing ``area`` is the box's, a missing ``iscrowd`` is 0.
        detections: COCO results (loaded, or a path): ``image_id``, ``category_id``, ``bbox`` and ``score`` in [0, 1].
        extra_iou_thresholds: IoU thresholds of the second matching pass, besides COCO's ten.
        zero_overlap: How to match at threshold 0: as COCO would, which pairs boxes that do not touch (True), with an
            IoU above 0 required (False), or both ways (None).

    Returns:
        The table.

    Raises:
        FileNotFoundError: A path does not exist.
        ValueError: The input is not valid, or a score is NaN or outside [0, 1]; the message names the image.
    """
    coco_eval = evaluate_checked(gt, detections)
    return table_from_coco(coco_eval, extra_iou_thresholds=extra_iou_thresholds, zero_overlap=zero_overlap)


def evaluate_checked(gt: object, detections: object) -> COCOeval:
    """Check COCO ground truth and detections, then evaluate them with pycocotools.

    Args:
        gt: COCO instances, loaded or as a path.
        detections: COCO results, loaded or as a path.

    Returns:
        The evaluator after ``evaluate``, ``accumulate`` and ``summarize``.

    Raises:
        FileNotFoundError: A path does not exist.
        ValueError: The input is not valid, or a score is outside [0, 1].
    """
    instances = read_ground_truth(gt)
    results = read_detections(detections, instances)
    check_scores([d["score"] for d in results], [d["image_id"] for d in results])
    return coco_evaluate(instances, results)


def check_scores(scores: Sequence[float], image_ids: Sequence[Any]) -> None:
    """Check that scores are probabilities.

    Args:
        scores: Scores of N detections.
        image_ids: Their images.

    Raises:
        ValueError: A score is NaN or outside [0, 1]; the message names the image.
    """
    values = np.asarray(scores, np.float64)
    for bad in np.flatnonzero(~((values >= 0) & (values <= 1)))[:1]:
        raise ArgumentError(f"score: expected numbers from 0 to 1, got {values[bad]:g} in image {image_ids[bad]!r}.")


def table_from_coco(
    coco_eval: COCOeval,
    *,
    extra_iou_thresholds: Sequence[float] = EXTRA_IOU_THRESHOLDS,
    zero_overlap: bool | None = None,
) -> DetectionTable:
    """Read a finished COCO evaluation into a table and match once more at low thresholds.

    Args:
        coco_eval: A pycocotools evaluation of boxes after ``evaluate()``, which is left as it is, or the evaluation of
            another of `det_ls.metrics.evaluators`, which has a ``to_table`` of its own.
        extra_iou_thresholds: IoU thresholds of the second matching pass, area range ``all``.
        zero_overlap: How to match at threshold 0, see `build_table`.

    Returns:
        The table; rows are in the order of the results.

    Raises:
        ValueError: The evaluation lacks the area range ``all``, or a score is outside [0, 1].
    """
    if hasattr(coco_eval, "to_table"):
        table: DetectionTable = coco_eval.to_table(extra_iou_thresholds=extra_iou_thresholds, zero_overlap=zero_overlap)
        return table
    params = coco_eval.params
    names = list(params.areaRngLbl)
    if "all" not in names:
        raise ArgumentError(f"coco_eval: expected the area range 'all', got {names}.")
    image_ids, class_ids = list(params.imgIds), list(params.catIds)
    gts = _flat_gt(coco_eval, image_ids, class_ids)
    every = _entries(coco_eval, names.index("all"))
    rows = _flat_detections(coco_eval, every, image_ids, class_ids)
    check_scores(rows["score"], np.array(image_ids, object)[rows["image"]])
    reader = _Reader(coco_eval, every, gts, rows["id"])

    matchings: list[tuple[float, str]] = [(float(t), "all") for t in params.iouThrs]
    blocks = [reader.read(every, list(range(len(params.iouThrs))))]
    extra = [t for t in _second_pass_thresholds(extra_iou_thresholds, zero_overlap) if (t, "all") not in matchings]
    if extra:
        blocks.append(reader.read_again(_second_pass(coco_eval, every, extra), blocks[0][2][0], len(extra)))
        matchings += [(t, "all") for t in extra]
    at_half = np.flatnonzero(np.isclose(params.iouThrs, SIZE_IOU))
    for name in SIZES:
        if name in names and len(at_half):
            blocks.append(reader.read(_entries(coco_eval, names.index(name)), [int(at_half[0])]))
            matchings.append((SIZE_IOU, name))
    match_gt, match_iou, match_ignored = (np.concatenate(parts) for parts in zip(*blocks, strict=True))

    known = {str(c["id"]): str(c.get("name", c["id"])) for c in coco_eval.cocoGt.dataset.get("categories", [])}
    n_known = sum(len(found) for found in coco_eval._dts.values())
    results = coco_eval.cocoDt.dataset.get("annotations", [])
    result_ids = np.fromiter((a["id"] for a in results), np.int64, len(results))
    box_area = np.fromiter((a["area"] for a in results), np.float64, len(results))
    by_id = np.argsort(result_ids)
    detection = by_id[np.searchsorted(result_ids, rows["id"], sorter=by_id)]
    order = np.argsort(detection)
    return DetectionTable(
        image_ids=tuple(plain_id(i) for i in image_ids),
        class_ids=tuple(plain_id(i) for i in class_ids),
        class_names=tuple(known[str(c)] for c in class_ids),
        detection=detection[order],
        image=rows["image"][order],
        cls=rows["cls"][order],
        score=rows["score"][order],
        box_area=box_area[detection[order]],
        matchings=tuple(matchings),
        match_gt=match_gt[:, order],
        match_iou=match_iou[:, order],
        match_ignored=match_ignored[:, order],
        match_tp=((match_gt >= 0) & ~match_ignored)[:, order],
        gt_ids=gts["id"],
        gt_image=gts["image"],
        gt_cls=gts["cls"],
        gt_area=gts["area"],
        gt_crowd=gts["crowd"],
        area_ranges={n: (float(r[0]), float(r[1])) for n, r in zip(names, params.areaRng, strict=True)},
        max_detections=int(params.maxDets[-1]),
        n_results=len(results),
        n_beyond_max=n_known - len(order),
    )


def _second_pass_thresholds(thresholds: Sequence[float], zero_overlap: bool | None) -> list[float]:
    """List the second pass's thresholds, with threshold 0 in the readings that are wanted."""
    listed = sorted({float(t) for t in thresholds})
    if 0.0 not in listed:
        return listed
    readings = {True: [0.0], False: [OVERLAPPING], None: [0.0, OVERLAPPING]}[zero_overlap]
    return [*readings, *listed[1:]]


def _entries(coco_eval: COCOeval, area: int) -> list[dict[str, Any]]:
    """List the per-image results of one area range that hold a detection, class by class."""
    n_images, n_areas = len(coco_eval.params.imgIds), len(coco_eval.params.areaRng)
    found: list[dict[str, Any]] = []
    for cls in range(len(coco_eval.params.catIds)):
        start = (cls * n_areas + area) * n_images
        found += [e for e in coco_eval.evalImgs[start : start + n_images] if e is not None and e["dtIds"]]
    return found


def _second_pass(coco_eval: COCOeval, every: list[dict[str, Any]], thresholds: list[float]) -> list[dict[str, Any]]:
    """Match again, at other IoU thresholds, where there are objects; the IoUs of the first pass are reused."""
    again = copy.copy(coco_eval)
    again.params = copy.copy(coco_eval.params)
    again.params.iouThrs = np.array(thresholds)
    return [again.evaluateImg(e["image_id"], e["category_id"], e["aRng"], e["maxDet"]) for e in every if e["gtIds"]]


def _flat_gt(coco_eval: COCOeval, image_ids: list[Any], class_ids: list[Any]) -> dict[str, Any]:
    """Flatten the objects; ``column`` is an object's place in the cached IoUs of its image and class."""
    image_at = {k: i for i, k in enumerate(image_ids)}
    class_at = {k: i for i, k in enumerate(class_ids)}
    flat = [
        (gt["id"], image_at[image], class_at[cls], gt["area"], bool(gt["ignore"]), column)
        for (image, cls), found in coco_eval._gts.items()
        for column, gt in enumerate(found)
    ]
    ids, image, cls, area, crowd, column = zip(*flat, strict=True) if flat else ((),) * 6
    return {
        "id": np.array(ids, np.int64),
        "image": np.array(image, np.int32),
        "cls": np.array(cls, np.int32),
        "area": np.array(area, np.float64),
        "crowd": np.array(crowd, bool),
        "column": np.array(column, np.int64),
    }


def _flat_detections(
    coco_eval: COCOeval, every: list[dict[str, Any]], image_ids: list[Any], class_ids: list[Any]
) -> dict[str, Any]:
    """Flatten the evaluated detections in the order of the per-image results."""
    image_at = {k: i for i, k in enumerate(image_ids)}
    class_at = {k: i for i, k in enumerate(class_ids)}
    lengths = [len(e["dtIds"]) for e in every]
    n = sum(lengths)
    return {
        "id": np.fromiter(chain.from_iterable(e["dtIds"] for e in every), np.int64, n),
        "image": np.repeat(np.array([image_at[e["image_id"]] for e in every], np.int32), lengths),
        "cls": np.repeat(np.array([class_at[e["category_id"]] for e in every], np.int32), lengths),
        "score": np.fromiter(chain.from_iterable(e["dtScores"] for e in every), np.float64, n),
    }


class _Reader:
    """Reads per-image results into flat arrays and looks up the IoU of each match."""

    def __init__(
        self, coco_eval: COCOeval, every: list[dict[str, Any]], gts: dict[str, Any], detection_ids: Ints
    ) -> None:
        ious = [coco_eval.ious[e["image_id"], e["category_id"]] if e["gtIds"] else np.zeros((0, 0)) for e in every]
        lengths = np.array([len(e["dtIds"]) for e in every], np.int64)
        widths = np.array([len(e["gtIds"]) for e in every], np.int64)
        sizes = lengths * widths
        first_row = np.cumsum(lengths) - lengths
        self._flat_ious = np.concatenate([np.ravel(i) for i in ious]) if ious else np.zeros(0)
        # Where the IoUs of each detection start: those of its image and class, then its place among them.
        self._iou_start = np.repeat(np.cumsum(sizes) - sizes - first_row * widths, lengths)
        self._iou_start += np.arange(len(detection_ids)) * np.repeat(widths, lengths)
        self._order = np.argsort(gts["id"])
        self._sorted_ids = gts["id"][self._order]
        self._column = gts["column"]
        self._n = len(detection_ids)
        self._has_gt = np.repeat(widths > 0, lengths)

    def read(self, entries: list[dict[str, Any]], thresholds: list[int]) -> tuple[NDArray[np.int32], Floats, Bools]:
        """Read the matched object's row, the IoU and the ignore flag, each of shape (thresholds, N)."""
        if not entries:
            return self._look_up(np.zeros((len(thresholds), 0)), np.zeros((len(thresholds), 0), bool))
        matched = np.concatenate([e["dtMatches"] for e in entries], axis=1)[thresholds]
        ignored = np.concatenate([e["dtIgnore"] for e in entries], axis=1)[thresholds]
        return self._look_up(matched, ignored.astype(bool))

    def read_again(
        self, entries: list[dict[str, Any]], ignored_unmatched: Bools, n: int
    ) -> tuple[NDArray[np.int32], Floats, Bools]:
        """Read a second pass over the images and classes with objects; elsewhere nothing can match."""
        matched, ignored = np.zeros((n, self._n)), np.tile(ignored_unmatched, (n, 1))
        if entries:
            matched[:, self._has_gt] = np.concatenate([e["dtMatches"] for e in entries], axis=1)
            ignored[:, self._has_gt] = np.concatenate([e["dtIgnore"] for e in entries], axis=1)
        return self._look_up(matched, ignored)

    def _look_up(self, matched: Floats, ignored: Bools) -> tuple[NDArray[np.int32], Floats, Bools]:
        """Find the row and the IoU of each matched object by its id."""
        gt, iou = np.full(matched.shape, -1, np.int32), np.zeros(matched.shape)
        row, col = np.nonzero(matched)
        if len(row):
            found = self._order[np.searchsorted(self._sorted_ids, matched[row, col].astype(np.int64))]
            gt[row, col] = found
            iou[row, col] = self._flat_ious[self._iou_start[col] + self._column[found]]
        return gt, iou, ignored
