# SPDX-License-Identifier: AGPL-3.0-or-later
"""LaECE and LaACE: how far scores are from the IoU of their boxes, averaged over the classes.

Kuzucu et al., "On calibration of object detectors: pitfalls, evaluation and baselines", ECCV 2024. A true positive's
target is its IoU, a false positive's is 0.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from det_ls.metrics.binned import binned_error
from det_ls.metrics.calibration import LAECE_BINS, bin_index
from det_ls.metrics.lrp import optimal_lrp
from det_ls.metrics.protocols import Protocol, lrp_optimal_mask
from det_ls.metrics.table import Bools, DetectionTable, Floats
from det_ls.metrics.weighted import (
    Estimates,
    Progress,
    Weights,
    binned_sums,
    class_mean,
    dot,
    once,
    ratio,
    sums_by_place,
)


@dataclass(frozen=True)
class ClassErrors:
    """A pair of LaECE and LaACE on the same detections.

    Attributes:
        laece: LaECE's key.
        laace: LaACE's key.
        tau: IoU threshold of a true positive.
        lrp_optimal: Whether only detections at or above the LRP-optimal threshold of their class count; the thresholds
            are those of the table at IoU 0, and stay so in replicates.
    """

    laece: str
    laace: str
    tau: float
    lrp_optimal: bool = False

    def rows(self, table: DetectionTable, protocol: Protocol) -> tuple[Bools, Bools]:
        """Say which detections count.

        Args:
            table: Matched detections.
            protocol: What is counted.

        Returns:
            (N,) detections that LaECE counts, and those that LaACE counts.
        """
        chosen = np.ones(table.n_detections, bool)
        if self.lrp_optimal:
            best = optimal_lrp(table, protocol.matches(table, 0.0), split_ties=protocol.split_ties)
            chosen = lrp_optimal_mask(table, best.threshold, protocol)
        kept = protocol.matches(table, self.tau).kept & chosen
        return kept, chosen if protocol.laace_ignored else kept


CLASS_ERRORS = (
    ClassErrors("LaECE0", "LaACE0", 0.0),
    ClassErrors("LaECE10", "LaACE10", 0.1),
    ClassErrors("LaECE50", "LaACE50", 0.5),
    ClassErrors("LaECE0_lrpopt", "LaACE0_lrpopt", 0.0, lrp_optimal=True),
)


def class_error_numbers(
    table: DetectionTable,
    weights: Weights,
    protocol: Protocol,
    *,
    progress: Progress = iter,
    wanted: tuple[ClassErrors, ...] = CLASS_ERRORS,
) -> Estimates:
    """Estimate LaECE and LaACE.

    Args:
        table: Matched detections.
        weights: (I, R) how often each image counts.
        protocol: What is counted, and which classes take part in the mean.
        progress: Not used: these take a few matrix products a class.
        wanted: The pairs.

    Returns:
        Both errors of each pair, over the classes and by class (NaN for the classes that the mean leaves out).
    """
    shape = (table.n_classes, weights.shape[1])
    errors = {key: np.full(shape, np.nan) for pair in wanted for key in (pair.laece, pair.laace)}
    parts = []
    for pair in wanted:
        binned, absolute = (rows.astype(np.float64) for rows in pair.rows(table, protocol))
        parts.append((pair, table.score - protocol.matches(table, pair.tau).tp_iou, binned, absolute))
    order = np.argsort(table.cls, kind="stable")
    starts = np.searchsorted(table.cls[order], np.arange(table.n_classes + 1))
    bins = bin_index(table.score, LAECE_BINS)
    width = LAECE_BINS + 3
    for c in np.flatnonzero(table.has_gt):
        rows = order[starts[c] : starts[c + 1]]
        images, place = np.unique(table.image[rows], return_inverse=True)
        n, sums = len(images), []
        for _, gap, binned, absolute in parts:
            sums.append(binned_sums(place, n, bins[rows], LAECE_BINS, gap[rows] * binned[rows]))
            sums.append(sums_by_place(place, n, binned[rows], np.abs(gap[rows]) * absolute[rows], absolute[rows]))
        total = dot(np.concatenate(sums, axis=1), weights[images])
        for i, (pair, *_) in enumerate(parts):
            block = total[i * width : (i + 1) * width]
            n_binned, total_absolute, n_absolute = block[LAECE_BINS:]
            errors[pair.laece][c] = binned_error(block[None, :LAECE_BINS], n_binned[None])[0]
            errors[pair.laace][c] = ratio(total_absolute, n_absolute)
    present = dot(table.gt_per_image(), weights) > 0
    by_class = {key: protocol.class_errors(found.T, present.T).T for key, found in errors.items()}
    return Estimates({key: class_mean(found) for key, found in by_class.items()}, by_class)


def class_errors(table: DetectionTable, tau: float, protocol: Protocol) -> tuple[Floats, Floats]:
    """Compute LaECE and LaACE of each class at any IoU threshold that the table was matched at.

    Args:
        table: Matched detections, or a subset of them.
        tau: IoU threshold of a true positive.
        protocol: What is counted.

    Returns:
        (C,) LaECE and (C,) LaACE, NaN for the classes that the mean leaves out.
    """
    found = class_error_numbers(table, once(table), protocol, wanted=(ClassErrors("LaECE", "LaACE", tau),)).by_class
    return found["LaECE"][:, 0], found["LaACE"][:, 0]
