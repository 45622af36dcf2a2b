# SPDX-License-Identifier: AGPL-3.0-or-later
"""Detectors that are drawn at random, of which everything is known: what statistics are checked against.

Scores follow h = Beta(a, b). A box of score s is right with probability s exactly: right boxes have scores from
Beta(a + 1, b), wrong ones from Beta(a, b + 1), in the numbers that Bayes' rule asks for. The smaller a and b, the
sharper the scores. Images of one group share an effect, which makes right boxes common and wrong ones rare in some
groups.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from det_ls.metrics.average_precision import COCO_IOU_THRESHOLDS
from det_ls.metrics.table import OVERLAPPING, DetectionTable

IOUS = (OVERLAPPING, 0.1, *COCO_IOU_THRESHOLDS)
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Detector:
    """A detector.

    Attributes:
        a: First parameter of the scores' distribution.
        b: Second parameter.
        boxes: Boxes an image, in the mean; right ones are at most as many as objects.
        shift: Added to every score, up to 1: positive for an over-confident detector.
        junk: Further boxes an image that are wrong and score at most 0.005.
        fit: IoUs of right boxes are 0.5 + 0.5 Beta(fit, 2).
    """

    a: float = 2.0
    b: float = 2.0
    boxes: float = 4.0
    shift: float = 0.0
    junk: int = 0
    fit: float = 3.0


@dataclass(frozen=True)
class Scene:
    """Images with objects, without detections.

    Attributes:
        n_images: Number of images I.
        n_classes: Number of classes.
        group: (I,) group of each image.
        effect: (I,) how easy each image is, 1 in the mean.
        gt_image: (G,) image of each object.
        gt_cls: (G,) class of each object.
    """

    n_images: int
    n_classes: int
    group: NDArray[np.int64]
    effect: Floats
    gt_image: NDArray[np.int64]
    gt_cls: NDArray[np.int64]


def scene(
    rng: np.random.Generator,
    n_images: int,
    *,
    n_classes: int = 2,
    objects: float = 3.0,
    group_size: int = 1,
    spread: float = 0.25,
) -> Scene:
    """Draw images and objects.

    Args:
        rng: Source of randomness.
        n_images: Number of images.
        n_classes: Number of classes, equally common.
        objects: Objects an image, in the mean.
        group_size: Images a group.
        spread: Standard deviation of the groups' effects, at most 0.4.

    Returns:
        The scene.
    """
    group = np.arange(n_images) // group_size
    effect = np.clip(rng.normal(1, spread, group[-1] + 1), 1 - 2.4 * spread, 1 + 2.4 * spread)[group]
    gt_image = np.repeat(np.arange(n_images), rng.poisson(objects, n_images))
    return Scene(n_images, n_classes, group, effect, gt_image, rng.integers(0, n_classes, len(gt_image)))


def frames(rng: np.random.Generator, where: Scene, *, size: int, correlation: float) -> tuple[Scene, NDArray[np.int64]]:
    """Let images of a group repeat each other, as frames of a video do.

    Args:
        rng: Source of randomness.
        where: Independent images.
        size: Images a group.
        correlation: Correlation between two images of a group, of whatever is measured on them.

    Returns:
        The scene with repeated images, and the image of ``where`` that each repeats.
    """
    group = np.arange(where.n_images) // size
    first = group * size
    copied = rng.random(where.n_images) < np.sqrt(correlation)
    source = np.where(copied, first, np.arange(where.n_images))
    gt = _rows_of(source, where.gt_image)
    gt_image = np.repeat(np.arange(where.n_images), np.bincount(where.gt_image, minlength=where.n_images)[source])
    return Scene(where.n_images, where.n_classes, group, where.effect, gt_image, where.gt_cls[gt]), source


def _rows_of(source: NDArray[np.int64], image: NDArray[np.int64]) -> NDArray[np.int64]:
    """List the rows, sorted by image, of the images that each image repeats."""
    starts = np.searchsorted(image, np.arange(source.max() + 2))
    return np.concatenate([np.arange(starts[i], starts[i + 1]) for i in source])


def detect(
    rng: np.random.Generator,
    where: Scene,
    how: Detector,
    *,
    objects: float = 3.0,
    source: NDArray[np.int64] | None = None,
) -> DetectionTable:
    """Draw a detector's boxes in a scene.

    Args:
        rng: Source of randomness.
        where: The scene.
        how: The detector.
        objects: Objects an image, as the scene was drawn.
        source: (I,) the image that each image repeats, with all its boxes; None where none does.

    Returns:
        The matched detections.
    """
    share = how.a / (how.a + how.b)
    chance = np.clip(how.boxes * share / objects * where.effect, 0, 1)
    n = where.n_images
    place = np.arange(len(where.gt_image)) - np.searchsorted(where.gt_image, where.gt_image)  # within its image
    found = np.flatnonzero(rng.random(len(where.gt_image)) < chance[where.gt_image])
    wrong = np.repeat(np.arange(n), rng.poisson(how.boxes * (1 - share) * (2 - where.effect)))
    junk = np.repeat(np.arange(n), how.junk)
    score = np.concatenate([rng.beta(how.a + 1, how.b, len(found)), rng.beta(how.a, how.b + 1, len(wrong))])
    false_cls = rng.integers(0, where.n_classes, len(wrong))
    iou = np.concatenate([0.5 + 0.5 * rng.beta(how.fit, 2, len(found)), np.zeros(len(wrong) + len(junk))])
    score = np.concatenate([np.clip(score + how.shift, 0, 1), rng.uniform(0.001, 0.005, len(junk))])
    image = np.concatenate([where.gt_image[found], wrong, junk])
    junk_cls = rng.integers(0, where.n_classes, len(junk))
    cls = np.concatenate([where.gt_cls[found], false_cls, junk_cls])
    of_object = np.concatenate([place[found], np.full(len(wrong) + len(junk), -1)])
    order = np.lexsort((-score, image))
    score, iou, image, cls, of_object = (x[order] for x in (score, iou, image, cls, of_object))
    if source is not None:
        rows = _rows_of(source, image)
        counts = np.bincount(image, minlength=n)[source]
        score, iou, cls, of_object = (x[rows] for x in (score, iou, cls, of_object))
        image = np.repeat(np.arange(n), counts)
    gt = np.where(of_object >= 0, np.searchsorted(where.gt_image, image) + of_object, -1)
    return table(where, score, iou, image, cls, gt)


def table(where: Scene, score: Floats, iou: Floats, image: Any, cls: Any, gt: Any) -> DetectionTable:
    """Make a table of boxes whose objects are known."""
    n, tp = len(score), np.stack([iou >= t for t in IOUS])
    return DetectionTable(
        image_ids=tuple(range(where.n_images)),
        class_ids=tuple(range(where.n_classes)),
        class_names=tuple(f"class {c}" for c in range(where.n_classes)),
        detection=np.arange(n),
        image=image.astype(np.int32),
        cls=cls.astype(np.int32),
        score=score,
        box_area=np.full(n, 100.0),
        matchings=tuple((t, "all") for t in IOUS),
        match_gt=np.where(tp, gt, -1).astype(np.int32),
        match_iou=np.where(tp, iou, 0.0),
        match_ignored=np.zeros_like(tp),
        match_tp=tp,
        gt_ids=np.arange(len(where.gt_image)) + 1,
        gt_image=where.gt_image.astype(np.int32),
        gt_cls=where.gt_cls.astype(np.int32),
        gt_area=np.full(len(where.gt_image), 100.0),
        gt_crowd=np.zeros(len(where.gt_image), bool),
        area_ranges={"all": (0.0, 1e10)},
        max_detections=100,
        n_results=n,
        n_beyond_max=0,
    )
