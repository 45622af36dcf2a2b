# SPDX-License-Identifier: AGPL-3.0-or-later
"""Detection sets made to hurt, and simulated tables of matched detections."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from det_ls.metrics.grid import Grid
from det_ls.metrics.kept import KeptPlan
from det_ls.metrics.protocols import get_protocol
from det_ls.metrics.table import OVERLAPPING, DetectionTable
from det_ls.metrics.thresholds import image_folds, recommend

Json = dict[str, Any]
GOLDEN = Path(__file__).parent / "golden"
# Scores of 0 and 1, the edges of 10, 20 and 25 bins, and the floats beside them.
EDGES = [0.0, 1.0, 0.04, 0.05, 0.1, 0.15, 0.2, 0.5, 0.52, 0.6, 0.95, np.nextafter(0.5, 0), np.nextafter(0.5, 1)]


def hard_set(seed: int = 0, *, n_images: int = 12) -> tuple[Json, list[Json]]:
    """Make ground truth and detections with everything that trips an evaluation.

    Class 1 and 3 are ordinary, 7 has 130 detections in one image, 20 has no ground truth, 50 has no detections, 60 has
    a crowd as its only annotation. Scores tie and sit on bin edges, boxes repeat, an image has no objects, another no
    detections.
    """
    rng = np.random.default_rng(seed)
    gt: Json = {
        "images": [{"id": int(i)} for i in rng.permutation(n_images) + 100],
        "categories": [{"id": c, "name": f"class {c}"} for c in (7, 1, 3, 20, 50, 60)],
        "annotations": [],
    }
    detections: list[Json] = []

    def add_object(image: int, cls: int, box: np.ndarray[Any, Any], crowd: int = 0) -> None:
        number = len(gt["annotations"]) + 1
        gt["annotations"].append(
            {
                "id": number,
                "image_id": image,
                "category_id": cls,
                "bbox": box.tolist(),
                "area": float(box[2] * box[3]),
                "iscrowd": crowd,
            }
        )

    def add_detection(image: int, cls: int, box: np.ndarray[Any, Any], score: float) -> None:
        found = {"image_id": image, "category_id": cls, "bbox": box.tolist(), "score": float(score)}
        detections.append(found)

    def score() -> float:
        return float(rng.choice(EDGES)) if rng.random() < 0.5 else float(rng.random().__round__(2))

    for place, image in enumerate(range(100, 100 + n_images)):
        for cls in (1, 3, 7):
            n_objects = 0 if place == 0 else int(rng.integers(0, 4))
            for _ in range(n_objects):
                size = rng.choice([12.0, 50.0, 150.0])
                box = np.round(np.concatenate([rng.uniform(0, 300, 2), size * rng.uniform(0.8, 1.25, 2)]), 2)
                crowd = int(rng.random() < 0.1)
                add_object(image, cls, box, crowd)
                if place == 1:  # objects, no detections
                    continue
                for spread in (0.0, 0.1, 0.1, 0.3, 0.6)[: int(rng.integers(0, 6))]:
                    shifted = box.copy()
                    shifted[:2] += box[2:] * rng.normal(0, spread, 2)
                    add_detection(image, cls if rng.random() < 0.9 else 4 - min(cls, 3), shifted, score())
        if place != 1:
            for cls in (1, 3, 20):
                far = np.concatenate([rng.uniform(400, 600, 2), rng.uniform(10, 60, 2)])
                add_detection(image, cls, far, score())
    add_object(101, 50, np.array([10.0, 10.0, 40.0, 40.0]))
    add_object(104, 60, np.array([0.0, 0.0, 200.0, 200.0]), crowd=1)
    add_detection(104, 60, np.array([20.0, 20.0, 30.0, 30.0]), 0.7)
    for k in range(130):
        add_detection(105, 7, np.array([5.0 * (k % 13), 5.0 * (k // 13), 20.0, 20.0]), (k % 50) / 50)
    detections.extend(dict(d) for d in detections[:5])  # duplicates
    detections = [d for d in detections if d["category_id"] in (1, 3, 7, 20, 60)]
    return gt, detections


def ordinary_set(seed: int = 0, *, n_images: int = 12, n_classes: int = 3) -> tuple[Json, list[Json]]:
    """Make a set in which every image has an object and a detection of every class, without ties in an image."""
    rng = np.random.default_rng(seed)
    gt: Json = {
        "images": [{"id": i} for i in range(1, n_images + 1)],
        "categories": [{"id": c, "name": f"class {c}"} for c in range(1, n_classes + 1)],
        "annotations": [],
    }
    detections: list[Json] = []
    for image in range(1, n_images + 1):
        for cls in range(1, n_classes + 1):
            n = int(rng.integers(1, 4))
            scores = rng.permutation(99)[: 3 * n] / 100 + 0.01  # ties between images only
            for k in range(n):
                box = np.concatenate([rng.uniform(0, 300, 2), rng.uniform(20, 120, 2)])
                number = len(gt["annotations"]) + 1
                crowd = int(k > 0 and rng.random() < 0.15)
                gt["annotations"].append(
                    {
                        "id": number,
                        "image_id": image,
                        "category_id": cls,
                        "bbox": box.tolist(),
                        "area": float(box[2] * box[3]),
                        "iscrowd": crowd,
                    }
                )
                for j, spread in enumerate((0.05, 0.2, 0.8)):
                    shifted = box.copy()
                    shifted[:2] += box[2:] * rng.normal(0, spread, 2)
                    found = {"image_id": image, "category_id": cls, "bbox": shifted.tolist()}
                    detections.append({**found, "score": float(scores[3 * k + j])})
    return gt, detections


def plan_of(table: DetectionTable, protocol: str = "det_ls", group: Any = None, seed: int = 0) -> KeptPlan:
    """Plan which boxes of a table are kept, as an evaluation does."""
    own = np.arange(table.n_images) if group is None else group
    grid = Grid(table, get_protocol(protocol), image_folds(own, seed))
    return KeptPlan(grid, recommend(grid)[0], own)


def table_of(
    score: np.ndarray[Any, Any],
    iou: np.ndarray[Any, Any],
    image: np.ndarray[Any, Any],
    cls: np.ndarray[Any, Any],
    gt_image: np.ndarray[Any, Any],
    gt_cls: np.ndarray[Any, Any],
    *,
    n_images: int,
    n_classes: int,
) -> DetectionTable:
    """Make a table without matching: a detection with an IoU above 0 has an object of its own."""
    taus = (OVERLAPPING, 0.1, 0.5)
    tp = np.stack([iou >= t for t in taus])
    n = len(score)
    return DetectionTable(
        image_ids=tuple(range(n_images)),
        class_ids=tuple(range(n_classes)),
        class_names=tuple(str(c) for c in range(n_classes)),
        detection=np.arange(n),
        image=image.astype(np.int32),
        cls=cls.astype(np.int32),
        score=score,
        box_area=np.full(n, 100.0),
        matchings=tuple((t, "all") for t in taus),
        match_gt=np.where(tp, np.arange(n), -1).astype(np.int32),
        match_iou=np.where(tp, iou, 0.0),
        match_ignored=np.zeros_like(tp),
        match_tp=tp,
        gt_ids=np.arange(len(gt_image)) + 1,
        gt_image=gt_image.astype(np.int32),
        gt_cls=gt_cls.astype(np.int32),
        gt_area=np.full(len(gt_image), 100.0),
        gt_crowd=np.zeros(len(gt_image), bool),
        area_ranges={"all": (0.0, 1e10)},
        max_detections=100,
        n_results=n,
        n_beyond_max=0,
    )


def simulated_table(rng: np.random.Generator, n_images: int, *, crowding: float = 4.0) -> DetectionTable:
    """Draw a detector of two classes whose images differ: in a hard image, few detections are right."""
    ease = rng.beta(4, 2, n_images)
    image = np.repeat(np.arange(n_images), rng.poisson(crowding, n_images))
    cls = (rng.random(len(image)) < 0.3).astype(int)
    score = rng.beta(1.2, 1.2, len(image))
    right = rng.random(len(image)) < np.clip(score * ease[image] * 1.2, 0, 1)
    iou = np.where(right, rng.uniform(0.5, 1.0, len(image)), np.where(rng.random(len(image)) < 0.2, 0.3, 0.0))
    missed = np.repeat(np.arange(n_images), rng.poisson(1.0, n_images))
    gt_image = np.concatenate([image[iou > 0], missed])
    gt_cls = np.concatenate([cls[iou > 0], (rng.random(len(missed)) < 0.3).astype(int)])
    return table_of(score, iou, image, cls, gt_image, gt_cls, n_images=n_images, n_classes=2)


def repeat_images(gt: Json, detections: list[Json], weights: dict[int, int]) -> tuple[Json, list[Json]]:
    """Write a weighted set out: copies of an image lie side by side in the order of the ids."""

    def copies(items: list[Json]) -> list[Json]:
        return [{**x, "image_id": 100 * x["image_id"] + k} for x in items for k in range(weights[x["image_id"]])]

    annotations = [{**a, "id": i} for i, a in enumerate(copies(gt["annotations"]), start=1)]
    images = [{"id": 100 * i["id"] + k} for i in gt["images"] for k in range(weights[i["id"]])]
    return {**gt, "images": images, "annotations": annotations}, copies(detections)
