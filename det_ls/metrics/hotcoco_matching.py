# SPDX-License-Identifier: AGPL-3.0-or-later
"""Match detections with hotcoco, a Rust evaluator, into the table and the numbers that pycocotools gives.

Matching takes it a hundredth of pycocotools' time, but its matches come as Python lists, which take far longer than the
matching itself. So it is asked only for what it alone can say: at each IoU threshold for the detections that overlap an
object enough to match, and for nothing else than who matches whom. IoUs and ignore flags follow from that.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

import numpy as np
from numpy.typing import NDArray

from det_ls.base.errors import ArgumentError
from det_ls.base.memory import paused_collection
from det_ls.base.types import Json
from det_ls.data.oriented import is_oriented
from det_ls.metrics.matching import EXTRA_IOU_THRESHOLDS, SIZE_IOU, SIZES, _second_pass_thresholds, check_scores
from det_ls.metrics.table import OVERLAPPING, Bools, DetectionTable, Floats, Ints

Rows = NDArray[np.int32]
_MARGIN = 1e-9  # relative: who might match at a threshold, whatever the last digit of an IoU


@dataclass(frozen=True)
class _Boxes:
    """Boxes [left, top, width, height] of one kind, with the image and class of each as a position, and its area."""

    box: Floats
    image: Rows
    cls: Rows
    area: Floats


class HotcocoEvaluation:
    """A finished evaluation that `det_ls.metrics.matching.table_from_coco` reads like one of pycocotools.

    Attributes:
        params: pycocotools' parameters of boxes, at their defaults.
        stats: (12,) COCO's stats.
        eval: ``precision`` (IoU thresholds, recalls, classes, area ranges, limits of detections) and ``recall``
            (without recalls), -1 where undefined.
    """

    def __init__(self, gt: Json, detections: Sequence[Json]) -> None:
        from pycocotools.cocoeval import Params

        self.params = Params("bbox")
        self._image_ids = sorted(image["id"] for image in gt["images"])
        self._categories = {c["id"]: c["name"] for c in gt["categories"]}
        self._class_ids = sorted(self._categories)
        image_at = {k: i for i, k in enumerate(self._image_ids)}
        class_at = {k: i for i, k in enumerate(self._class_ids)}
        objects = _flat(gt["annotations"], image_at, class_at)
        area = np.array([a["area"] for a in gt["annotations"]], np.float64)
        crowd = np.array([a["iscrowd"] for a in gt["annotations"]], bool)
        ids = np.array([a["id"] for a in gt["annotations"]], np.int64)
        order = _coco_order(objects.image, self._cells(objects))
        self._gt = _Boxes(objects.box[order], objects.image[order], objects.cls[order], area[order])
        self._crowd, self._gt_ids = crowd[order], ids[order]

        found = _flat(detections, image_at, class_at)
        scores = np.array([d["score"] for d in detections], np.float64)
        self._n_results = len(scores)
        self._kept = np.flatnonzero(_rank(self._cells(found), scores) < self.params.maxDets[-1])
        kept = self._kept
        self._dt = _Boxes(found.box[kept], found.image[kept], found.cls[kept], found.area[kept])
        self._score = scores[self._kept]

        self._hotcoco = self._objects()
        evaluator = self._evaluate(np.arange(len(self._kept)))
        with contextlib.redirect_stdout(io.StringIO()):
            evaluator.accumulate()
            evaluator.summarize()
        self.stats = np.array(evaluator.stats, np.float64)
        self.eval: dict[str, Any] = dict(evaluator.eval)

    @paused_collection()
    def to_table(
        self, *, extra_iou_thresholds: Sequence[float] = EXTRA_IOU_THRESHOLDS, zero_overlap: bool | None = None
    ) -> DetectionTable:
        """Read the matches into a table, see `det_ls.metrics.matching.table_from_coco`.

        Args:
            extra_iou_thresholds: IoU thresholds besides COCO's ten, area range ``all``.
            zero_overlap: How to match at threshold 0.

        Returns:
            The table; rows are in the order of the results.

        Raises:
            ValueError: A score is outside [0, 1].
        """
        check_scores(self._score.tolist(), [self._image_ids[i] for i in self._dt.image])
        names = list(self.params.areaRngLbl)
        ranges = {n: (float(r[0]), float(r[1])) for n, r in zip(names, self.params.areaRng, strict=True)}
        coco = [float(t) for t in self.params.iouThrs]
        extra = [t for t in _second_pass_thresholds(extra_iou_thresholds, zero_overlap) if t not in coco]
        overlap = self._best_overlap()

        def matched(thresholds: list[float], areas: list[str]) -> list[Rows]:
            least = min(thresholds)
            able = overlap >= (least if least == OVERLAPPING else least * (1 - _MARGIN))
            return self._matches(np.flatnonzero(able), thresholds, [ranges[a] for a in areas])

        matchings = [(t, "all") for t in (*coco, *extra)] + [(SIZE_IOU, name) for name in SIZES]
        blocks = matched(coco, ["all"])
        for threshold in extra:
            blocks += matched([threshold], ["all"])
        blocks += matched([SIZE_IOU], list(SIZES))
        match_gt = np.stack(blocks)
        match_ignored = np.stack(
            [self._ignored(g, ranges[area]) for g, (_, area) in zip(match_gt, matchings, strict=True)]
        )
        return DetectionTable(
            image_ids=tuple(self._image_ids),
            class_ids=tuple(self._class_ids),
            class_names=tuple(self._categories[c] for c in self._class_ids),
            detection=self._kept,
            image=self._dt.image,
            cls=self._dt.cls,
            score=self._score,
            box_area=self._dt.area,
            matchings=tuple(matchings),
            match_gt=match_gt,
            match_iou=self._match_iou(match_gt),
            match_ignored=match_ignored,
            match_tp=(match_gt >= 0) & ~match_ignored,
            gt_ids=self._gt_ids,
            gt_image=self._gt.image,
            gt_cls=self._gt.cls,
            gt_area=self._gt.area,
            gt_crowd=self._crowd,
            area_ranges=ranges,
            max_detections=int(self.params.maxDets[-1]),
            n_results=self._n_results,
            n_beyond_max=self._n_results - len(self._kept),
        )

    def _cells(self, boxes: _Boxes) -> Ints:
        """Number the pairs of image and class of boxes."""
        return boxes.image.astype(np.int64) * len(self._class_ids) + boxes.cls

    def _objects(self) -> Any:
        """Give the objects to hotcoco; ids are rows plus 1, its images and classes positions plus 1."""
        import hotcoco

        return hotcoco.COCO.from_arrays(
            [{"id": i + 1} for i in range(len(self._image_ids))],
            [{"id": i + 1, "name": str(i)} for i in range(len(self._class_ids))],
            self._gt.image.astype(np.int64) + 1,
            self._gt.cls.astype(np.int64) + 1,
            self._gt.box,
            area=self._gt.area,
            iscrowd=self._crowd,
        )

    def _evaluate(self, rows: Ints, thresholds: Sequence[float] = (), areas: Sequence[tuple[float, float]] = ()) -> Any:
        """Evaluate some detections with hotcoco, at COCO's parameters or others; ids are places in rows plus 1."""
        import hotcoco

        columns = (self._dt.image[rows] + 1, self._dt.box[rows], self._score[rows], self._dt.cls[rows] + 1)
        evaluator = hotcoco.COCOeval(self._hotcoco, self._hotcoco.load_res(np.column_stack(columns)), "bbox")
        if thresholds:
            evaluator.params.iou_thrs = list(thresholds)
            evaluator.params.area_rng = [list(area) for area in areas]
            evaluator.params.area_rng_lbl = [str(i) for i in range(len(areas))]
        evaluator.evaluate()
        return evaluator

    def _matches(self, rows: Ints, thresholds: list[float], areas: list[tuple[float, float]]) -> list[Rows]:
        """Match some detections; the result is the matched object's row of all, -1 without one, area by area."""
        result = np.full((len(areas), len(thresholds), len(self._score)), -1, np.int32)
        if len(rows):
            entries = [e for e in self._evaluate(rows, thresholds, areas).eval_imgs if e is not None and e["dtIds"]]
            for place, area in enumerate(areas):
                of_area = [e for e in entries if e["aRng"] == list(area)]
                n = sum(len(e["dtIds"]) for e in of_area)
                found = rows[np.fromiter(chain.from_iterable(e["dtIds"] for e in of_area), np.int64, n) - 1]
                for t in range(len(thresholds)):
                    matched = np.fromiter(chain.from_iterable(e["dtMatches"][t] for e in of_area), np.int32, n)
                    result[place, t, found] = matched - 1
        return list(result.reshape(len(areas) * len(thresholds), len(self._score)))

    def _best_overlap(self) -> Floats:
        """Return the largest IoU of each detection with any object of its image and class, -1 where there is none."""
        cells = self._cells(self._gt)
        order = np.argsort(cells, kind="stable")
        of_dt = self._cells(self._dt)
        first, last = (np.searchsorted(cells[order], of_dt, side) for side in ("left", "right"))
        count = last - first
        dt = np.repeat(np.arange(len(of_dt)), count)
        gt = order[np.arange(len(dt)) - np.repeat(np.cumsum(count) - count, count) + np.repeat(first, count)]
        best = np.full(len(of_dt), -1.0)
        some = np.flatnonzero(count)
        if len(some):
            best[some] = np.maximum.reduceat(self._iou(dt, gt), (np.cumsum(count) - count)[some])
        return best

    def _iou(self, dt: Ints, gt: Ints) -> Floats:
        """Compute IoUs of pairs by pycocotools' arithmetic; for a crowd the intersection over the detection's area."""
        d, g = self._dt.box[dt].T, self._gt.box[gt].T
        width = np.minimum(d[2] + d[0], g[2] + g[0]) - np.maximum(d[0], g[0])
        height = np.minimum(d[3] + d[1], g[3] + g[1]) - np.maximum(d[1], g[1])
        touching = (width > 0) & (height > 0)
        inside = width * height
        area = d[2] * d[3]
        union = np.where(self._crowd[gt], area, area + g[2] * g[3] - inside)
        return np.divide(inside, union, out=np.zeros(len(dt)), where=touching)

    def _match_iou(self, match_gt: NDArray[np.int32]) -> Floats:
        """Return the IoU of each match, 0 without one."""
        result = np.zeros(match_gt.shape)
        row, dt = np.nonzero(match_gt >= 0)
        result[row, dt] = self._iou(dt, match_gt[row, dt].astype(np.int64))
        return result

    def _ignored(self, match_gt: Rows, area: tuple[float, float]) -> Bools:
        """Say which detections COCO ignores in an area range: matched to an ignored object, or unmatched outside it."""

        def outside(areas: Floats) -> Bools:
            return (areas < area[0]) | (areas > area[1])

        ignored_gt = np.append(self._crowd | outside(self._gt.area), False)
        return np.where(match_gt >= 0, ignored_gt[match_gt], outside(self._dt.area))


def hotcoco_evaluate(gt: Json, detections: Sequence[Json]) -> HotcocoEvaluation:
    """Evaluate boxes with hotcoco at COCO's parameters, as `det_ls.data.coco.coco_evaluate` does with pycocotools.

    Args:
        gt: What `det_ls.data.coco.read_ground_truth` returned.
        detections: What `det_ls.data.coco.read_detections` returned; may be empty.

    Returns:
        The finished evaluation.
    """
    if is_oriented(gt):
        raise ArgumentError("evaluator: expected pycocotools for oriented boxes, got 'hotcoco'.")
    return HotcocoEvaluation(gt, detections)


def _flat(entries: Sequence[Json], image_at: dict[Any, int], class_at: dict[Any, int]) -> _Boxes:
    """Flatten annotations or results; a box's area is its own, whatever an annotation says of its mask."""
    n = len(entries)
    box = np.fromiter(chain.from_iterable(e["bbox"] for e in entries), np.float64, 4 * n).reshape(n, 4)
    return _Boxes(
        box,
        np.fromiter((image_at[e["image_id"]] for e in entries), np.int32, n),
        np.fromiter((class_at[e["category_id"]] for e in entries), np.int32, n),
        box[:, 2] * box[:, 3],
    )


def _coco_order(image: Rows, cells: Ints) -> Ints:
    """Order objects as pycocotools lists them: by image, then by the first object of their class in it, then theirs."""
    _, first, inverse = np.unique(cells, return_index=True, return_inverse=True)
    return np.lexsort((np.arange(len(cells)), first[inverse.reshape(-1)] if len(cells) else first, image))


def _rank(cells: Ints, scores: Floats) -> Ints:
    """Rank each detection within its cell by falling score, equal scores in their order, from 0."""
    order = np.lexsort((np.arange(len(cells)), -scores, cells))
    sorted_cells = cells[order]
    rank = np.empty(len(cells), np.int64)
    rank[order] = np.arange(len(cells)) - np.searchsorted(sorted_cells, sorted_cells)
    return rank
