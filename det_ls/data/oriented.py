# SPDX-License-Identifier: AGPL-3.0-or-later
"""Oriented boxes: rectangles at any angle, their overlap, and COCO's evaluation of them.

A box is ``[x_center, y_center, width, height, angle]``, in pixels and radians, the width along the angle from the x
axis towards the y axis, as Ultralytics has it. In COCO's files it stands under :data:`ORIENTED` beside ``bbox``, which
is the upright box around it.

The overlap is the exact intersection over union of the rectangles. Stock Ultralytics matches by probiou (Llerena et
al., "Gaussian bounding boxes and probabilistic intersection-over-union", 2021) instead, which compares two Gaussians:
it is above 0 for boxes that do not touch, and of squares it does not see the angle.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from pycocotools.cocoeval import COCOeval

Floats = NDArray[np.float64]

ORIENTED = "rbox"  # as Ultralytics calls it in its own predictions.json
NOTHING = 1e-9  # of the smaller box: what boxes that only touch share by rounding
_PAIRS_AT_ONCE = 1 << 16


def is_oriented(gt: Mapping[str, Any]) -> bool:
    """Tell whether COCO instances are to be matched as oriented boxes.

    Args:
        gt: COCO instances.

    Returns:
        Whether any object has an oriented box.
    """
    return any(ORIENTED in annotation for annotation in gt["annotations"])


def oriented_boxes(entries: Sequence[Mapping[str, Any]]) -> Floats:
    """Take the oriented boxes of COCO entries; an entry without one has its upright box.

    Args:
        entries: Annotations or results.

    Returns:
        (N, 5) boxes.

    Example:
        >>> oriented_boxes([{"bbox": [0, 0, 4, 2]}, {"bbox": [0, 0, 2, 2], "rbox": [1, 1, 2, 1, 0.5]}]).tolist()
        [[2.0, 1.0, 4.0, 2.0, 0.0], [1.0, 1.0, 2.0, 1.0, 0.5]]
    """
    rows = [e[ORIENTED] if ORIENTED in e else upright(e["bbox"]) for e in entries]
    return np.array(rows, np.float64).reshape(-1, 5)


def upright(box: Sequence[float]) -> list[float]:
    """Write an upright box as an oriented one.

    Args:
        box: Left, top, width and height.

    Returns:
        Centre, width, height and the angle 0.
    """
    left, top, width, height = box
    return [left + width / 2, top + height / 2, width, height, 0.0]


def enclosing(boxes: Floats) -> Floats:
    """Find the upright boxes around oriented ones.

    Args:
        boxes: (N, 5) oriented boxes.

    Returns:
        (N, 4) boxes: left, top, width and height.

    Example:
        >>> import numpy as np
        >>> enclosing(np.array([[5.0, 5.0, 4.0, 2.0, np.pi / 2]])).round(9).tolist()
        [[4.0, 3.0, 2.0, 4.0]]
    """
    x, y, width, height, angle = np.asarray(boxes, np.float64).reshape(-1, 5).T
    cos, sin = np.abs(np.cos(angle)), np.abs(np.sin(angle))
    w, h = width * cos + height * sin, width * sin + height * cos
    return np.stack([x - w / 2, y - h / 2, w, h], axis=1)


def corners(boxes: Floats) -> Floats:
    """Find the corners of oriented boxes.

    Args:
        boxes: (N, 5) oriented boxes.

    Returns:
        (N, 4, 2) points, one after another around the box.
    """
    x, y, width, height, angle = np.asarray(boxes, np.float64).reshape(-1, 5).T
    cos, sin = np.cos(angle), np.sin(angle)
    along = np.stack([width * cos, width * sin], axis=1)[:, None] / 2
    across = np.stack([-height * sin, height * cos], axis=1)[:, None] / 2
    signs = np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]])[:, :, None]
    return np.asarray(np.stack([x, y], axis=1)[:, None] + signs[:, 0] * along + signs[:, 1] * across)


def smallest_rectangle(points: Floats) -> list[float]:
    """Find the smallest rectangle around points, as the training does with the corners of a label.

    One of its sides lies along a side of the points' convex hull (Freeman and Shapira 1975); of rectangles, it is the
    rectangle itself. Of several the one with the smallest angle is taken.

    Args:
        points: (n, 2) points in pixels, at least 3.

    Returns:
        The oriented box; its angle lies in [0, pi / 2).

    Example:
        >>> import numpy as np
        >>> [round(v, 6) for v in smallest_rectangle(np.array([[0.0, 1], [1, 0], [3, 2], [2, 3]]))]
        [1.5, 1.5, 2.828427, 1.414214, 0.785398]
    """
    from_, to = np.triu_indices(len(points), 1)
    side = points[to] - points[from_]  # of the hull, and others, whose rectangles are no smaller
    angle = np.unique(np.arctan2(side[:, 1], side[:, 0])[(side != 0).any(1)] % (np.pi / 2))
    if not len(angle):
        return [*points[0].tolist(), 0.0, 0.0, 0.0]
    cos, sin = np.cos(angle)[:, None], np.sin(angle)[:, None]
    x, y = points[:, 0], points[:, 1]
    u, v = cos * x + sin * y, cos * y - sin * x
    width, height = np.ptp(u, axis=1), np.ptp(v, axis=1)
    area = width * height
    best = int(np.flatnonzero(area <= area.min() * (1 + 1e-9))[0])
    along, across = (float(p.max() + p.min()) / 2 for p in (u[best], v[best]))
    c, s = float(cos[best, 0]), float(sin[best, 0])
    center = c * along - s * across, s * along + c * across
    return [*center, float(width[best]), float(height[best]), float(angle[best])]


def oriented_iou(boxes: Floats, others: Floats, crowd: Sequence[int] | None = None) -> Floats:
    """Compute the exact intersection over union of each pair of oriented boxes.

    Args:
        boxes: (K, 5) oriented boxes.
        others: (L, 5) oriented boxes.
        crowd: (L,) whether each of ``others`` is a crowd, for which the union is the first box alone, as COCO has it.

    Returns:
        (K, L) overlaps in [0, 1]; 0 where neither has an area.

    Example:
        >>> import numpy as np
        >>> square, turned = np.array([[0, 0, 2, 2, 0.0]]), np.array([[0, 0, 2, 2, np.pi / 4]])
        >>> octagon = 8 * (np.sqrt(2) - 1)  # of two unit squares at 45 degrees, times 4
        >>> bool(np.isclose(oriented_iou(square, turned)[0, 0], octagon / (8 - octagon), rtol=1e-12))
        True
    """
    a, b = (np.asarray(v, np.float64).reshape(-1, 5) for v in (boxes, others))
    if not len(a) or not len(b):
        return np.zeros((len(a), len(b)))
    first, second = (v.reshape(-1) for v in np.indices((len(a), len(b))))
    inside = np.concatenate(
        [
            _intersections(a[first[i : i + _PAIRS_AT_ONCE]], b[second[i : i + _PAIRS_AT_ONCE]])
            for i in range(0, len(first), _PAIRS_AT_ONCE)
        ]
    ).reshape(len(a), len(b))
    area, other_area = a[:, 2] * a[:, 3], b[:, 2] * b[:, 3]
    inside[inside < NOTHING * np.minimum(area[:, None], other_area)] = 0.0
    union = area[:, None] + other_area - inside
    if crowd is not None:
        union = np.where(np.asarray(crowd, bool), area[:, None], union)
    return np.divide(inside, union, out=np.zeros(inside.shape), where=union > 0)


def _intersections(a: Floats, b: Floats) -> Floats:
    """Compute the areas that P pairs of boxes share: (P,).

    In the frame of b, the area of a within b is the integral of the length of a's vertical slices, cut to b's height,
    over b's width. A slice ends on two sides of a, so that is a sum over a's sides of the integral of its height, cut
    to b's, with a sign by its direction. It needs no case distinctions, and is exact up to rounding.
    """
    angle = b[:, 4]
    cos, sin = np.cos(angle)[:, None], np.sin(angle)[:, None]
    moved = a.copy()
    moved[:, :2] -= b[:, :2]
    points = corners(moved)
    x, y = cos * points[..., 0] + sin * points[..., 1], cos * points[..., 1] - sin * points[..., 0]
    half_w, half_h = b[:, 2, None] / 2, b[:, 3, None] / 2
    x0, y0, x1, y1 = x, y, np.roll(x, -1, axis=1), np.roll(y, -1, axis=1)
    run, rise = x1 - x0, y1 - y0

    def at(position: Floats, start: Floats, step: Floats) -> Floats:
        """Say how far along each side a position is reached, cut to its ends; anywhere on a side that does not move."""
        place = np.divide(position - start, step, out=np.zeros(step.shape), where=step != 0)
        return np.clip(place, 0.0, 1.0)

    enter, leave = at(-half_w, x0, run), at(half_w, x0, run)
    low, high = at(-half_h, y0, rise), at(half_h, y0, rise)
    first, last = np.minimum(enter, leave), np.maximum(enter, leave)
    stops = np.sort(np.stack([first, np.clip(low, first, last), np.clip(high, first, last), last]), axis=0)
    xs = np.clip(x0 + stops * run, -half_w, half_w)
    ys = np.clip(y0 + stops * rise, -half_h, half_h)
    return np.abs((np.diff(xs, axis=0) * (ys[1:] + ys[:-1]) / 2).sum((0, 2)))


def oriented_evaluation(gt: Any, results: Any) -> COCOeval:
    """Make pycocotools' evaluation of oriented boxes: its own but for the overlaps.

    Args:
        gt: pycocotools' COCO of the ground truth.
        results: The same of the results.

    Returns:
        The evaluation, not begun.
    """
    from pycocotools.cocoeval import COCOeval

    class OrientedEvaluation(COCOeval):  # type: ignore[misc]
        """Matching, ignore rules and averages are pycocotools'."""

        def computeIoU(self, imgId: Any, catId: Any) -> Any:
            """Compute the overlaps of an image's boxes of one class, the highest score first."""
            objects, found = self._gts[imgId, catId], self._dts[imgId, catId]
            if not objects or not found:
                return []
            order = np.argsort([-d["score"] for d in found], kind="mergesort")[: self.params.maxDets[-1]]
            crowd = [int(o["iscrowd"]) for o in objects]
            return oriented_iou(oriented_boxes([found[i] for i in order]), oriented_boxes(objects), crowd)

    return OrientedEvaluation(gt, results, "bbox")
