# SPDX-License-Identifier: AGPL-3.0-or-later
"""The operating point: what a detector finds and gets wrong among the boxes that a user keeps."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from det_ls.evaluation.measure import DetectionMetrics
from det_ls.metrics.protocols import TP_IOU, get_protocol
from det_ls.metrics.table import Bools, Floats


@dataclass(frozen=True)
class OperatingPoint:
    """Counts over all classes with ground truth of the boxes that a user keeps.

    Attributes:
        threshold: (C,) score threshold of each class, to use on new images.
        keep: (N,) detections of the table that are kept.
        n_tp: Objects found.
        n_fp: False positives.
        n_objects: Objects, crowds left out.
        n_images: Images.
    """

    threshold: Floats
    keep: Bools
    n_tp: int
    n_fp: int
    n_objects: int
    n_images: int

    @property
    def known(self) -> Floats:
        """The different thresholds, rising."""
        return np.unique(self.threshold)

    @property
    def sensitivity(self) -> float:
        """Objects found, as a fraction; NaN without objects."""
        return self.n_tp / self.n_objects if self.n_objects else float("nan")

    @property
    def precision(self) -> float:
        """Detections that are right, as a fraction; NaN without detections."""
        return self.n_tp / (self.n_tp + self.n_fp) if self.n_tp + self.n_fp else float("nan")

    @property
    def fp_per_image(self) -> float:
        """False positives per image; NaN without images."""
        return self.n_fp / self.n_images if self.n_images else float("nan")


def operating_point(metrics: DetectionMetrics) -> OperatingPoint:
    """Count the kept boxes.

    Args:
        metrics: The numbers of a detector.

    Returns:
        The counts, true positives being those at IoU 0.5.
    """
    table, kept, rules = metrics.table, metrics.kept, get_protocol(metrics.protocol)
    matches = rules.matches(table, TP_IOU)
    rows = kept.keep & rules.counted(table, matches)
    n_tp = int((rows & matches.tp).sum())
    return OperatingPoint(
        kept.thresholds.used, kept.keep, n_tp, int(rows.sum()) - n_tp, int(table.n_gt.sum()), table.n_images
    )
