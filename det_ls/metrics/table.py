# SPDX-License-Identifier: AGPL-3.0-or-later
"""One table of matched detections, from which every number and picture of an evaluation is derived.

Nothing is ever matched again: score thresholds, bootstrap replicates and simulations all work on the table. A subset by
score needs no new matching, because a detection's match never depends on detections that score lower.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from det_ls.base.errors import ArgumentError

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]

# The smallest positive float: COCO's rule "IoU >= threshold" then means "IoU > 0".
OVERLAPPING = float(np.nextafter(0.0, 1.0))


@dataclass(frozen=True)
class Matches:
    """The matching of a table's detections at one IoU threshold and area range; N detections.

    Attributes:
        iou_threshold: Smallest IoU of a match.
        area: COCO's area range: ``all``, ``small``, ``medium`` or ``large``.
        gt: (N,) row of the matched object in the table's ``gt_*`` arrays, -1 without a match.
        iou: (N,) IoU with the matched object (intersection over the detection's area for a crowd), 0 without a match.
        ignored: (N,) matched to an ignored object, or unmatched and outside the area range.
        tp: (N,) matched and not ignored.
    """

    iou_threshold: float
    area: str
    gt: NDArray[np.int32]
    iou: Floats
    ignored: Bools
    tp: Bools

    @property
    def kept(self) -> Bools:
        """(N,) detections that count, which are true or false positives."""
        return ~self.ignored

    @property
    def tp_iou(self) -> Floats:
        """(N,) IoU of true positives, 0 for every other detection."""
        return np.where(self.tp, self.iou, 0.0)


@dataclass(frozen=True)
class DetectionTable:
    """Detections, matched; one row a detection that COCO evaluates (N), M matchings, G objects, I images, C classes.

    Attributes:
        image_ids: I image ids, sorted; ``image`` and ``gt_image`` are positions in it.
        class_ids: C category ids, sorted; ``cls`` and ``gt_cls`` are positions in it.
        class_names: C names of the classes.
        detection: (N,) position of the detection in the list of results.
        image: (N,) image of the detection.
        cls: (N,) class of the detection.
        score: (N,) score in [0, 1].
        box_area: (N,) area of the detected box, in square pixels.
        matchings: M pairs of IoU threshold and area range, the first axis of the next four.
        match_gt: (M, N) row of the matched object, -1 without one.
        match_iou: (M, N) IoU with it.
        match_ignored: (M, N) whether the detection is ignored.
        match_tp: (M, N) whether it is a true positive.
        gt_ids: (G,) annotation ids of the objects.
        gt_image: (G,) their images.
        gt_cls: (G,) their classes.
        gt_area: (G,) their areas, in square pixels.
        gt_crowd: (G,) whether they are crowd (ignore) regions.
        area_ranges: Area range by name: smallest and largest area, in square pixels.
        max_detections: Detections an image and class that COCO evaluates.
        n_results: Detections in the list of results.
        n_beyond_max: Detections left out because an image and class had more than ``max_detections``.
    """

    image_ids: tuple[Any, ...]
    class_ids: tuple[Any, ...]
    class_names: tuple[str, ...]
    detection: Ints
    image: NDArray[np.int32]
    cls: NDArray[np.int32]
    score: Floats
    box_area: Floats
    matchings: tuple[tuple[float, str], ...]
    match_gt: NDArray[np.int32]
    match_iou: Floats
    match_ignored: Bools
    match_tp: Bools
    gt_ids: Ints
    gt_image: NDArray[np.int32]
    gt_cls: NDArray[np.int32]
    gt_area: Floats
    gt_crowd: Bools
    area_ranges: dict[str, tuple[float, float]]
    max_detections: int
    n_results: int
    n_beyond_max: int

    @property
    def n_detections(self) -> int:
        """Rows of the table."""
        return len(self.score)

    @property
    def n_images(self) -> int:
        """Images of the ground truth, with or without objects and detections."""
        return len(self.image_ids)

    @property
    def n_classes(self) -> int:
        """Classes that the ground truth declares, with or without objects."""
        return len(self.class_ids)

    @cached_property
    def n_gt(self) -> Ints:
        """(C,) objects per class, crowds left out."""
        return self.gt_count("all")

    @cached_property
    def has_gt(self) -> Bools:
        """(C,) classes with at least one object that is no crowd."""
        return self.n_gt > 0

    def gt_in_range(self, area: str = "all") -> Bools:
        """Say which objects count in an area range.

        Args:
            area: Name of the range.

        Returns:
            (G,) objects that are no crowd and whose area is in the range, both ends included.
        """
        low, high = self.area_ranges[area]
        return ~self.gt_crowd & (self.gt_area >= low) & (self.gt_area <= high)

    def gt_count(self, area: str = "all") -> Ints:
        """Count the objects of each class.

        Args:
            area: Name of the area range.

        Returns:
            (C,) objects in the range that are no crowd.
        """
        return np.bincount(self.gt_cls[self.gt_in_range(area)], minlength=self.n_classes)

    def gt_per_image(self, area: str = "all") -> Ints:
        """Count the objects of each image and class.

        Args:
            area: Name of the area range.

        Returns:
            (I, C) objects in the range that are no crowd.
        """
        counted = self.gt_in_range(area)
        cells = self.gt_image[counted].astype(np.int64) * self.n_classes + self.gt_cls[counted]
        counts = np.bincount(cells, minlength=self.n_images * self.n_classes)
        return counts.reshape(self.n_images, self.n_classes)

    def matches(self, iou_threshold: float, *, area: str = "all", zero_overlap: bool = False) -> Matches:
        """Take one matching of the table.

        Args:
            iou_threshold: Smallest IoU of a match.
            area: COCO's area range.
            zero_overlap: At threshold 0, let a detection match an object that it does not touch, which is what COCO's
                rule "IoU at least the threshold" says there. Otherwise a match needs an IoU above 0.

        Returns:
            The matching, as views of the table's arrays.

        Raises:
            ValueError: The table holds no such matching.
        """
        wanted = OVERLAPPING if iou_threshold == 0 and not zero_overlap else iou_threshold
        for row, (threshold, name) in enumerate(self.matchings):
            if name == area and math.isclose(threshold, wanted, rel_tol=1e-9, abs_tol=0.0):
                return Matches(
                    float(iou_threshold),
                    area,
                    self.match_gt[row],
                    self.match_iou[row],
                    self.match_ignored[row],
                    self.match_tp[row],
                )
        held = ", ".join(f"{0.0 if t == OVERLAPPING else t:g} ({a})" for t, a in self.matchings if t != 0)
        raise ArgumentError(
            f"iou_threshold: expected one that the table was matched at ({held}), got {iou_threshold:g} ({area})."
        )

    def filter(self, keep: Bools) -> DetectionTable:
        """Keep some of the detections.

        This equals a new evaluation of the kept detections as long as they are chosen by score, a threshold for each
        class included.

        Args:
            keep: (N,) detections to keep.

        Returns:
            A table of the same images, classes and objects.

        Example:
            >>> import numpy as np
            >>> from det_ls.metrics.matching import build_table
            >>> gt = {"images": [{"id": 1}], "categories": [{"id": 1, "name": "a"}],
            ...       "annotations": [{"id": 1, "image_id": 1, "category_id": 1, "bbox": [0, 0, 9, 9]}]}
            >>> detections = [{"image_id": 1, "category_id": 1, "bbox": [0, 0, 9, 9], "score": s} for s in (0.9, 0.2)]
            >>> table = build_table(gt, detections)
            >>> table.filter(table.score >= 0.5).matches(0.5).tp.tolist()
            [True]
        """
        rows = np.flatnonzero(keep)
        return replace(
            self,
            detection=self.detection[rows],
            image=self.image[rows],
            cls=self.cls[rows],
            score=self.score[rows],
            box_area=self.box_area[rows],
            match_gt=self.match_gt[:, rows],
            match_iou=self.match_iou[:, rows],
            match_ignored=self.match_ignored[:, rows],
            match_tp=self.match_tp[:, rows],
        )

    @cached_property
    def coco_order(self) -> Ints:
        """(N,) rows by class, then by falling score with COCO's order of ties: image, then place in the results."""
        return np.lexsort((self.detection, self.image, -self.score, self.cls))
