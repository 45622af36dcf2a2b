# SPDX-License-Identifier: AGPL-3.0-or-later
"""Oriented boxes: their overlap is exact, and pycocotools' rules hold for them."""

from __future__ import annotations

import math

import numpy as np
import pytest
from ultralytics.utils.ops import xywhr2xyxyxyxy, xyxyxyxy2xywhr

from det_ls.data.coco import coco_evaluate, read_detections, read_ground_truth
from det_ls.data.oriented import corners, enclosing, oriented_iou, smallest_rectangle, upright
from det_ls.evaluation.evaluate import evaluate_detections
from det_ls.metrics.boxes import overlaps


def random_boxes(n: int, seed: int, spread: float = 20.0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return np.c_[rng.uniform(0, spread, (n, 2)), rng.uniform(1, 20, (n, 2)), rng.uniform(-4, 4, n)]


def clipped_area(a: np.ndarray, b: np.ndarray) -> float:
    """The shared area of two rectangles by Sutherland and Hodgman's clipping, one half plane after another."""
    polygon, frame = list(corners(a[None])[0]), corners(b[None])[0]
    for start, end in zip(frame, np.roll(frame, -1, axis=0), strict=True):

        def side(p, start=start, end=end):
            return (end[0] - start[0]) * (p[1] - start[1]) - (end[1] - start[1]) * (p[0] - start[0])

        kept = []
        for p, q in zip(polygon, [*polygon[1:], *polygon[:1]], strict=True):
            if side(p) >= 0:
                kept.append(p)
            if side(p) * side(q) < 0:
                kept.append(p + (q - p) * side(p) / (side(p) - side(q)))
        polygon = kept
    x, y = np.array(polygon).T if polygon else (np.zeros(1), np.zeros(1))
    return abs(float(np.dot(x, np.roll(y, -1)) - np.dot(y, np.roll(x, -1)))) / 2


def test_overlap_equals_polygon_clipping():
    a, b = random_boxes(40, 0), random_boxes(40, 1)
    found = oriented_iou(a, b)
    for i in range(40):
        for j in range(40):
            inside = clipped_area(a[i], b[j])
            union = a[i, 2] * a[i, 3] + b[j, 2] * b[j, 3] - inside
            assert found[i, j] == pytest.approx(inside / union, abs=1e-12)
    assert (found > 0.3).any()
    assert (found == 0).any()


def test_overlap_of_a_square_and_the_same_square_turned_by_45_degrees():
    octagon = 2 * (math.sqrt(2) - 1)  # of unit squares
    assert oriented_iou(np.array([[7, 3, 1, 1, 0.0]]), np.array([[7, 3, 1, 1, math.pi / 4]]))[0, 0] == pytest.approx(
        octagon / (2 - octagon), rel=1e-12
    )


def test_overlap_of_upright_boxes_is_pycocotools():
    rng = np.random.default_rng(2)
    boxes = [np.c_[rng.integers(0, 30, (60, 2)), rng.integers(0, 20, (60, 2))].astype(float) for _ in range(2)]
    a, b = (np.array([upright(box) for box in some]) for some in boxes)
    assert oriented_iou(a, b) == pytest.approx(overlaps(*boxes), abs=1e-12)


def test_overlap_does_not_change_when_everything_is_turned_and_is_symmetric():
    a, b = random_boxes(50, 3), random_boxes(50, 4)
    before = oriented_iou(a, b)
    assert pytest.approx(before, abs=1e-12) == oriented_iou(b, a).T
    for angle in (0.3, 2.0, math.pi / 2):
        turned = []
        for boxes in (a, b):
            moved = boxes.copy()
            c, s = math.cos(angle), math.sin(angle)
            moved[:, 0], moved[:, 1] = c * boxes[:, 0] - s * boxes[:, 1], s * boxes[:, 0] + c * boxes[:, 1]
            moved[:, 4] += angle
            turned.append(moved)
        assert oriented_iou(*turned) == pytest.approx(before, abs=1e-11)


def test_overlap_of_equal_touching_and_empty_boxes():
    box = np.array([[1e4, 1e4, 30, 0.5, 0.7]])
    assert oriented_iou(box, box)[0, 0] == pytest.approx(1, abs=1e-9)
    swapped = np.array([[1e4, 1e4, 0.5, 30, 0.7 + math.pi / 2]])
    assert oriented_iou(box, swapped)[0, 0] == pytest.approx(1, abs=1e-9)
    side = np.array([[0, 0, 2, 2, 0.0]]), np.array([[2, 0, 2, 2, 0.0]])
    assert oriented_iou(*side)[0, 0] == 0
    empty = np.array([[0, 0, 0, 0, 0.1]])
    assert oriented_iou(empty, empty)[0, 0] == 0
    assert oriented_iou(np.array([[0, 0, 2, 2, 0.0]]), np.array([[0, 0, 9, 9, 0.4]]), [1])[0, 0] == pytest.approx(1)


def test_corners_and_rectangles_are_those_of_training():
    import torch

    boxes = random_boxes(50, 5)
    assert corners(boxes)[:, [2, 1, 0, 3]] == pytest.approx(xywhr2xyxyxyxy(torch.from_numpy(boxes)).numpy(), abs=1e-9)
    found = np.array([smallest_rectangle(points) for points in corners(boxes)])
    assert np.diag(oriented_iou(found, boxes)) == pytest.approx(1, abs=1e-9)
    skewed = corners(boxes) + np.random.default_rng(6).normal(0, 0.3, (50, 4, 2))
    ours = np.array([smallest_rectangle(points) for points in skewed])
    stock = np.array([xyxyxyxy2xywhr(points.reshape(1, 8).astype(np.float32))[0] for points in skewed])
    assert ours[:, 2] * ours[:, 3] == pytest.approx(stock[:, 2] * stock[:, 3], rel=1e-4)
    left, top, w, h = enclosing(boxes).T
    points = corners(boxes)
    assert pytest.approx(points.min(1), abs=1e-9) == np.stack([left, top]).T
    assert pytest.approx(points.max(1), abs=1e-9) == np.stack([left + w, top + h]).T


def scene(angle: float | None, turn: float = 0.0) -> tuple[dict, list]:
    """Objects and detections of two classes, upright (None) or with an angle; all turned about the origin."""
    rng = np.random.default_rng(7)
    objects, found = [], []
    c, s = math.cos(turn), math.sin(turn)
    for image in range(12):
        for i in range(5):
            x, y, w, h = *rng.integers(20, 200, 2).tolist(), *rng.integers(8, 120, 2).tolist()
            entries = [(x, y, w, h)]
            for _ in range(3):
                entries.append((x + rng.integers(-9, 9), y + rng.integers(-9, 9), w + rng.integers(-4, 9), h))
            for j, (x1, y1, w1, h1) in enumerate(entries):
                entry = {"image_id": image, "category_id": i % 2}
                if angle is None:
                    entry["bbox"] = [float(x1), float(y1), float(w1), float(h1)]
                else:
                    cx, cy = x1 + w1 / 2, y1 + h1 / 2
                    entry["rbox"] = [c * cx - s * cy, s * cx + c * cy, float(w1), float(h1), angle + turn]
                if j:
                    found.append({**entry, "score": round(float(rng.random()), 2)})
                else:
                    objects.append({**entry, "id": len(objects) + 1, "iscrowd": int(rng.random() < 0.15)})
    gt = {"images": [{"id": i} for i in range(12)], "categories": [{"id": 0, "name": "a"}, {"id": 1, "name": "b"}]}
    return {**gt, "annotations": objects}, found


def test_boxes_at_angle_zero_are_evaluated_as_upright_ones_in_every_number():
    settings = {"bootstrap": 100, "simulations": 5}
    plain, oriented = (evaluate_detections(*scene(angle), **settings) for angle in (None, 0.0))
    assert 0.2 < plain.stats["AP"] < 0.9
    for population in ("values", "intervals"):
        a, b = (getattr(e.metrics, population) for e in (plain, oriented))
        assert a.keys() == b.keys()
    assert oriented.metrics.values == pytest.approx(plain.metrics.values, abs=1e-9)
    assert oriented.metrics.kept.values == pytest.approx(plain.metrics.kept.values, abs=1e-9)
    assert (oriented.metrics.table.match_gt == plain.metrics.table.match_gt).all()


def test_numbers_do_not_change_when_every_box_is_turned():
    results = [evaluate_detections(*scene(0.4, turn), simulations=0) for turn in (0.0, 0.3, math.pi)]
    for other in results[1:]:
        assert other.metrics.values == pytest.approx(results[0].metrics.values, abs=1e-6)


def test_a_crossing_box_matches_by_its_rectangle_and_not_by_the_box_around_it():
    thin = [50, 50, 80, 4, math.pi / 4]
    crossing = [50, 50, 80, 4, -math.pi / 4]
    gt = read_ground_truth({
        "images": [{"id": 1}], "categories": [{"id": 1, "name": "a"}],
        "annotations": [{"id": 1, "image_id": 1, "category_id": 1, "rbox": thin}],
    })  # fmt: skip
    for box, ap in ((thin, 1.0), (crossing, 0.0)):
        result = read_detections([{"image_id": 1, "category_id": 1, "rbox": box, "score": 0.9}], gt)
        assert result[0]["bbox"] == pytest.approx(gt["annotations"][0]["bbox"])
        assert coco_evaluate(gt, result).stats[0] == pytest.approx(ap)
    assert gt["annotations"][0]["area"] == 320


def test_boxes_of_the_other_kind_are_refused():
    gt, detections = scene(0.3)
    upright = [{"image_id": d["image_id"], "category_id": d["category_id"], "bbox": [1, 1, 9, 9], "score": 0.5}
               for d in detections]  # fmt: skip
    with pytest.raises(ValueError, match=r"detections: expected oriented boxes \(with 'rbox'\).* got upright ones in"):
        evaluate_detections(gt, [*detections[:-1], upright[-1]])
    plain = read_ground_truth(gt)
    plain["annotations"] = [{k: v for k, v in a.items() if k != "rbox"} for a in plain["annotations"]]
    with pytest.raises(ValueError, match=r"detections: expected upright boxes \(without 'rbox'\).* got oriented ones"):
        evaluate_detections(plain, [upright[0], {**upright[1], "rbox": [5, 5, 8, 8, 0]}])
    assert read_detections([{**upright[0], "rbox": [5, 5, 8, 8, 0]}], {**plain, "annotations": []})


@pytest.mark.parametrize("rbox", [[1, 2, 3, 4], [1, 2, -3, 4, 0], [1, 2, 3, 4, float("nan")], ["a"] * 5, None, 3])
def test_nonsense_is_refused(rbox):
    gt, _ = scene(0.0)
    gt["annotations"][0]["rbox"] = rbox
    with pytest.raises(ValueError, match=r"gt.annotations: expected every rbox to "):
        read_ground_truth(gt)
