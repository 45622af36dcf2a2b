# SPDX-License-Identifier: AGPL-3.0-or-later
"""The detections worth looking at: the most over-confident false positives and the largest missed objects, cut out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from det_ls.evaluation.measure import DetectionMetrics
from det_ls.evaluation.operating_point import OperatingPoint
from det_ls.metrics.boxes import overlaps, table_boxes
from det_ls.metrics.protocols import TP_IOU, get_protocol
from det_ls.metrics.table import DetectionTable, Floats

LIMIT = 12
SIDE = 320  # pixels of a crop's longer side
WHOLE_SIDE = 640  # pixels at most of a whole image's longer side
SAME_SPOT = 0.5  # boxes that overlap by this IoU or more are one spot
NEAR = 0.1  # below this IoU, boxes have nothing to do with each other
_QUALITY, _WHOLE_QUALITY = 78, 70


@dataclass(frozen=True)
class Box:
    """A box of a crop.

    Attributes:
        kind: ``detection``, ``object`` or ``crowd``.
        name: Class.
        score: Score of a detection, else None.
        xywh: Left, top, width and height, in pixels of the image or of the crop, before it is turned.
        focus: Whether the crop is about this box.
        angle: By how many degrees it is turned about its centre, clockwise as it is seen.
    """

    kind: str
    name: str
    score: float | None
    xywh: tuple[float, float, float, float]
    focus: bool = False
    angle: float = 0.0

    @property
    def turn(self) -> str:
        """How SVG turns it; empty for an upright box."""
        x, y, w, h = self.xywh
        return f"rotate({self.angle:.1f} {x + w / 2:.1f} {y + h / 2:.1f})" if self.angle else ""


@dataclass(frozen=True)
class Case:
    """A false positive or a missed object.

    Attributes:
        image_id: Id of its image.
        file_name: Name of the image, without the folders of this machine.
        name: Class.
        score: Score of a false positive, else None.
        remark: What is known about the error, in a few words.
        boxes: The box in question first, then the objects and the detections at the operating point of that image.
    """

    image_id: Any
    file_name: str
    name: str
    score: float | None
    remark: str
    boxes: tuple[Box, ...]


@dataclass(frozen=True)
class Crop:
    """The part of an image around a case.

    Attributes:
        jpeg: Content of a JPEG file.
        width: Its width in pixels.
        height: Its height in pixels.
        boxes: The case's boxes that touch it, in its pixels.
    """

    jpeg: bytes
    width: int
    height: int
    boxes: tuple[Box, ...]


class CaseFinder:
    """Finds the cases of one evaluation.

    Args:
        metrics: The numbers of a detector.
        detections: The COCO results that were evaluated, in the same order.
        ground_truth: The COCO instances, as `det_ls.data.coco.read_ground_truth` returns them.
        point: The operating point.

    Raises:
        ValueError: The detections or the objects are not those that were evaluated.
    """

    def __init__(
        self,
        metrics: DetectionMetrics,
        detections: Sequence[Mapping[str, Any]],
        ground_truth: Mapping[str, Any],
        point: OperatingPoint,
    ) -> None:
        table = metrics.table
        boxes = table_boxes(table, detections, ground_truth)
        self._table: DetectionTable = table
        self._point = point
        self._names = {image["id"]: base_name(image.get("file_name", image["id"])) for image in ground_truth["images"]}
        self._boxes, self._gt_boxes = boxes.shapes
        rules = get_protocol(metrics.protocol)
        self._matches = rules.matches(table, TP_IOU)
        self._counted = rules.counted(table, self._matches)

    def false_positives(self, limit: int = LIMIT) -> list[Case]:
        """Choose the false positives with the highest scores at IoU 0.5, each spot of an image once.

        Ignored detections and classes without ground truth are no false positives. A second box on an object that was
        found is left out too, as it says nothing new of that spot.

        Args:
            limit: How many to choose at most.

        Returns:
            The cases, the highest score first.
        """
        table = self._table
        cases: list[Case] = []
        taken: dict[int, list[int]] = {}
        wrong = np.flatnonzero(self._counted & ~self._matches.tp)
        for row in wrong[np.lexsort((table.detection[wrong], -table.score[wrong]))]:
            if len(cases) == limit:
                break
            image = int(table.image[row])
            shown = taken.setdefault(image, [])
            if len(shown) and (overlaps(self._boxes[[row]], self._boxes[shown])[0] >= SAME_SPOT).any():
                continue
            remark = self._why_wrong(row)
            if remark is None:
                continue
            shown.append(int(row))
            cases.append(self._case(image, self._detection(row, focus=True), remark))
        return cases

    def missed_objects(self, limit: int = LIMIT) -> list[Case]:
        """Choose the largest objects that no kept box finds at IoU 0.5.

        Args:
            limit: How many to choose at most.

        Returns:
            The cases, the largest object first.
        """
        table = self._table
        found = np.zeros(len(table.gt_ids), bool)
        found[self._matches.gt[self._matches.tp & self._point.keep]] = True
        missed = np.flatnonzero(~found & ~table.gt_crowd)
        order = missed[np.lexsort((table.gt_ids[missed], -table.gt_area[missed]))]
        return [
            self._case(int(table.gt_image[g]), self._object(g, focus=True), self._why_missed(g)) for g in order[:limit]
        ]

    def _why_wrong(self, row: int) -> str | None:
        """Say what is annotated where a false positive is; None where it repeats a detection of the same object."""
        table = self._table
        there = np.flatnonzero((table.gt_image == table.image[row]) & ~table.gt_crowd)
        overlap = overlaps(self._boxes[[row]], self._gt_boxes[there])[0]
        same = table.gt_cls[there] == table.cls[row]
        own, other = np.where(same, overlap, 0.0), np.where(same, 0.0, overlap)
        if len(there) and own.max() >= TP_IOU:
            return None
        if len(there) and other.max() >= TP_IOU:
            return f"annotated as {table.class_names[table.gt_cls[there[other.argmax()]]]}"
        if len(there) and own.max() >= NEAR:
            return f"box off: IoU {own.max():.2f} with the object"
        return "nothing annotated here"

    def _why_missed(self, g: int) -> str:
        """Say which detection came closest to a missed object."""
        table = self._table
        by = np.flatnonzero(self._matches.tp & (self._matches.gt == g))
        cls = int(table.gt_cls[g])
        if len(by):
            return f"scored {table.score[by[0]]:.2f}, which is not kept"
        near = np.flatnonzero(table.image == table.gt_image[g])
        overlap = overlaps(self._gt_boxes[[g]], self._boxes[near])[0]
        same = table.cls[near] == cls
        own, other = np.where(same, overlap, 0.0), np.where(same | ~self._point.keep[near], 0.0, overlap)
        if len(near) and other.max() >= TP_IOU:
            best = near[other.argmax()]
            return f"detected as {table.class_names[table.cls[best]]} ({table.score[best]:.2f})"
        if len(near) and own.max() >= NEAR:
            best = near[own.argmax()]
            return f"closest box: IoU {own.max():.2f}, score {table.score[best]:.2f}"
        return "no box of this class near it"

    def _case(self, image: int, focus: Box, remark: str) -> Case:
        table = self._table
        objects = [self._object(g) for g in np.flatnonzero(table.gt_image == image).tolist()]
        kept = np.flatnonzero((table.image == image) & self._point.keep).tolist()
        others = [box for box in (*objects, *(self._detection(r) for r in kept)) if replace(box, focus=True) != focus]
        image_id = table.image_ids[image]
        return Case(image_id, self._names[image_id], focus.name, focus.score, remark, (focus, *others))

    def _object(self, g: int, focus: bool = False) -> Box:
        table = self._table
        kind = "crowd" if table.gt_crowd[g] else "object"
        return Box(kind, table.class_names[table.gt_cls[g]], None, *_drawn(self._gt_boxes[g], focus))

    def _detection(self, row: int, focus: bool = False) -> Box:
        table = self._table
        name, score = table.class_names[table.cls[row]], float(table.score[row])
        return Box("detection", name, score, *_drawn(self._boxes[row], focus))


def base_name(file_name: object) -> str:
    r"""Shorten a file name to what says nothing of a machine: its last part if it is an absolute path.

    Args:
        file_name: A file name with ``/`` or ``\`` between its parts, or an image id.

    Returns:
        The name.

    Example:
        >>> base_name("/home/me/images/a.jpg"), base_name("val/a.jpg"), base_name(7)
        ('a.jpg', 'val/a.jpg', '7')
    """
    name = str(file_name).replace("\\", "/")
    absolute = name.startswith(("/", "~")) or name[1:3] == ":/" or "://" in name or ".." in name.split("/")
    return name.rsplit("/", 1)[-1] if absolute else name


def cut(image: NDArray[np.uint8], case: Case, side: int = SIDE) -> Crop:
    """Cut a square around the box in question, with as much room again around it.

    Args:
        image: (H, W, 3) image, BGR.
        case: The case.
        side: Longer side of the crop in pixels.

    Returns:
        The crop: smaller than square at the border of a small image.
    """
    x0, y0, w, h = crop_window(image, case)
    return _take(image, case, (x0, y0, x0 + w, y0 + h), side / max(w, h), _QUALITY)


def whole(image: NDArray[np.uint8], case: Case, side: int = WHOLE_SIDE) -> Crop:
    """Take the whole image, made smaller if need be.

    Args:
        image: (H, W, 3) image, BGR.
        case: The case.
        side: Longer side in pixels at most.

    Returns:
        The image with all boxes of the case.
    """
    height, width = image.shape[:2]
    return _take(image, case, (0, 0, width, height), min(1.0, side / max(width, height)), _WHOLE_QUALITY)


def crop_window(image: NDArray[np.uint8], case: Case) -> tuple[int, int, int, int]:
    """Say which part of the image `cut` cuts out.

    Args:
        image: (H, W, 3) image, BGR.
        case: The case.

    Returns:
        Left, top, width and height in pixels of the image.
    """
    height, width = image.shape[:2]
    left, top, w, h = case.boxes[0].xywh
    wanted = max(1.9 * max(w, h), 64.0)
    x0, x1 = _window(left + w / 2, wanted, width)
    y0, y1 = _window(top + h / 2, wanted, height)
    return x0, y0, x1 - x0, y1 - y0


def read_image(path: str | Path) -> NDArray[np.uint8] | None:
    """Read an image as Ultralytics does, turned upright.

    Args:
        path: The file.

    Returns:
        (H, W, 3) image, BGR; None if there is no such file or it is no image.
    """
    file = Path(path)
    if not file.is_file():
        return None
    content = np.fromfile(file, np.uint8)
    image = cv2.imdecode(content, cv2.IMREAD_COLOR) if len(content) else None
    return None if image is None else np.asarray(image, np.uint8)


def _drawn(box: Floats, focus: bool) -> tuple[tuple[float, float, float, float], bool, float]:
    """Say where a box is, whether a case is about it, and how it is turned."""
    if len(box) == 4:
        x, y, w, h = box.tolist()
        return (x, y, w, h), focus, 0.0
    cx, cy, w, h, angle = box.tolist()
    return (cx - w / 2, cy - h / 2, w, h), focus, float(np.degrees(angle))


def _take(image: NDArray[np.uint8], case: Case, corners: tuple[int, int, int, int], scale: float, quality: int) -> Crop:
    """Take the part of an image between two corners, with the boxes that touch it."""
    x0, y0, x1, y1 = corners
    size = max(1, round((x1 - x0) * scale)), max(1, round((y1 - y0) * scale))
    shrink = cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
    _, jpeg = cv2.imencode(
        ".jpg", cv2.resize(image[y0:y1, x0:x1], size, interpolation=shrink), [cv2.IMWRITE_JPEG_QUALITY, quality]
    )
    boxes = []
    for box in case.boxes:
        bx, by, bw, bh = box.xywh
        if box.focus or (bx < x1 and by < y1 and bx + bw > x0 and by + bh > y0):
            moved = ((bx - x0) * scale, (by - y0) * scale, bw * scale, bh * scale)
            boxes.append(replace(box, xywh=moved))
    return Crop(jpeg.tobytes(), size[0], size[1], tuple(boxes))


def _window(centre: float, wanted: float, size: int) -> tuple[int, int]:
    """Place an interval of a wanted length around a centre, moved to lie within [0, size]."""
    length = min(int(np.ceil(wanted)), size)
    start = int(np.clip(round(centre - length / 2), 0, size - length))
    return start, start + length
