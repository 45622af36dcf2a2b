# SPDX-License-Identifier: AGPL-3.0-or-later
"""Simulated detectors whose true map is known: most boxes near zero, as at conf=0.001, and images that share a mood."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from det_ls.calibration.maps import sigmoid


@dataclass
class Simulated:
    z: np.ndarray
    iou: np.ndarray  # mean sigmoid(a z + b): 0 for a false positive, else a spread around its mean
    cls: np.ndarray
    image: np.ndarray


def simulate(rng, n_images, a=1.0, b=0.0, per_image=20, n_classes=1, cls=None, mood=0.0) -> Simulated:
    """Draw detections; a and b are numbers, or one a class; mood is the spread of an offset that an image's boxes share."""
    n = n_images * per_image
    image = np.repeat(np.arange(n_images), per_image)
    cls = rng.integers(n_classes, size=n) if cls is None else cls
    junk = rng.random(n) < 0.85
    z = np.where(junk, rng.normal(-4.0, 1.0, n), rng.normal(0.0, 1.5, n))
    p = sigmoid(np.broadcast_to(a, n_classes)[cls] * z + np.broadcast_to(b, n_classes)[cls])
    if mood:  # raises some images' targets and lowers others', with the mean over images as it was
        up = rng.choice([-1, 1], n_images)[image]
        p = p + up * mood * p * (1 - p)
    hit = rng.random(n) < np.sqrt(p)
    mean = np.sqrt(p)
    return Simulated(z, np.where(hit, rng.beta(20 * mean + 1e-9, 20 * (1 - mean) + 1e-9), 0.0), cls, image)
