# SPDX-License-Identifier: AGPL-3.0-or-later
"""The operating point: what a detector finds and gets wrong at the LRP-optimal score threshold of each class."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from det_ls.evaluation.measure import DetectionMetrics
from det_ls.metrics.protocols import TP_IOU, get_protocol, lrp_optimal_mask
from det_ls.metrics.table import Bools, Floats


@dataclass(frozen=True)
class OperatingPoint:
    """Counts over all classes with ground truth, at the thresholds that were found on the same images.

    Attributes:
        threshold: (C,) LRP-optimal score threshold of each class at IoU 0.5, NaN for a class that has none.
        keep: (N,) detections of the table at or above it.
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
        """The thresholds of the classes that have one, rising."""
        return np.sort(self.threshold[~np.isnan(self.threshold)])

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
    """Count at the LRP-optimal thresholds.

    Args:
        metrics: The numbers of a detector.

    Returns:
        The counts, true positives being those at IoU 0.5.
    """
    table, rules = metrics.table, get_protocol(metrics.protocol)
    found = [c["lrp_threshold"] for c in metrics.per_class]
    threshold = np.array([np.nan if t is None else t for t in found], np.float64)
    keep = lrp_optimal_mask(table, threshold, rules) if table.n_detections else np.zeros(0, bool)
    matches = rules.matches(table, TP_IOU)
    rows = keep & rules.counted(table, matches)
    n_tp = int((rows & matches.tp).sum())
    return OperatingPoint(threshold, keep, n_tp, int(rows.sum()) - n_tp, int(table.n_gt.sum()), table.n_images)
