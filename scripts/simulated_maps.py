# SPDX-License-Identifier: AGPL-3.0-or-later
"""Simulated detectors whose true map is known: most boxes near zero, as at conf=0.001, and images that share a mood."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from det_ls.calibration.maps import Floats, Ints, sigmoid

JUNK = 0.85  # share of boxes near zero
SPREAD = 20.0  # of the IoUs of hits around their mean: the sum of the parameters of their beta distribution


@dataclass(frozen=True)
class Simulated:
    """Detections, n of them.

    Attributes:
        z: (n,) logits.
        iou: (n,) IoU with the object, 0 for a false positive; its mean at a logit z is sigmoid(a z + b).
        cls: (n,) classes from 0.
        image: (n,) images from 0, rising.
    """

    z: Floats
    iou: Floats
    cls: Ints
    image: Ints


def simulate(
    rng: np.random.Generator,
    n_images: int,
    a: ArrayLike = 1.0,
    b: ArrayLike = 0.0,
    *,
    per_image: int = 20,
    n_classes: int = 1,
    cls: Ints | None = None,
    mood: float = 0.0,
) -> Simulated:
    """Draw detections.

    Args:
        rng: Source of randomness.
        n_images: Number of images.
        a: Slope of the true map: a number, or one a class.
        b: Its offset, likewise.
        per_image: Boxes an image; 10 of them make an object in the mean.
        n_classes: Number of classes.
        cls: (n,) classes; drawn with equal chances if None.
        mood: How far the boxes of an image are right, or wrong, together: from 0 for independent boxes up to 1.

    Returns:
        The detections.
    """
    n = n_images * per_image
    image = np.repeat(np.arange(n_images), per_image)
    cls = rng.integers(n_classes, size=n) if cls is None else cls
    junk = rng.random(n) < JUNK
    z = np.where(junk, rng.normal(-4.0, 1.0, n), rng.normal(0.0, 1.5, n))
    p = sigmoid(np.broadcast_to(a, n_classes)[cls] * z + np.broadcast_to(b, n_classes)[cls])
    if mood:  # raises some images' targets and lowers others', with the mean over images as it was
        up = rng.choice([-1, 1], n_images)[image]
        p = p + up * mood * p * (1 - p)
    mean = np.sqrt(p)
    iou: Any = np.zeros(n)
    hit = np.flatnonzero(rng.random(n) < mean)
    iou[hit] = rng.beta(SPREAD * mean[hit] + 1e-9, SPREAD * (1 - mean[hit]) + 1e-9)
    return Simulated(z, iou, cls, image)
