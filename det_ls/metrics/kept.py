# SPDX-License-Identifier: AGPL-3.0-or-later
"""Numbers of the boxes that a user keeps: those above a score threshold that was chosen on other images."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from det_ls.metrics.binned import binned_error
from det_ls.metrics.calibration import DECE_BINS, LAECE_BINS
from det_ls.metrics.grid import THRESHOLDS, Grid, GridSums, bin_starts
from det_ls.metrics.recoverable import cross_fitted_platt
from det_ls.metrics.table import Bools, DetectionTable, Ints
from det_ls.metrics.thresholds import ThresholdRule, kept_lrp, kept_sums
from det_ls.metrics.unbiased import UnbiasedError
from det_ls.metrics.weighted import Estimates, Progress, Weights, class_mean, once, ratio


@dataclass(frozen=True)
class KeptPlan:
    """What the numbers of kept boxes need to know beside the table.

    Attributes:
        grid: Boxes by class, fold and cell.
        rule: How thresholds are chosen.
        group: (I,) group of each image, from 0.
    """

    grid: Grid
    rule: ThresholdRule
    group: NDArray[np.integer]

    def kept(self) -> Bools:
        """Say which boxes are kept, with every image once.

        Returns:
            (N,) boxes above the threshold of their class that was chosen without their image.
        """
        table = self.grid.table
        (_, sums), *_ = self.grid.sums(once(table))
        place = self.rule.cells(sums)[:, :, 0]
        return np.asarray(self.grid.cell >= place[table.cls, self.grid.fold[table.image]])


def kept_numbers(plan: KeptPlan, weights: Weights, *, progress: Progress = iter) -> Estimates:
    """Estimate the numbers of the kept boxes; each replicate chooses its thresholds anew.

    Args:
        plan: The boxes, and how thresholds are chosen.
        weights: (I, R) how often each image counts.
        progress: Not used: replicates come a few at a time, as memory allows.

    Returns:
        By key as in `det_ls.metrics.catalogue.KEPT`; precision, recall, LRP, LaECE0 and signed_gap by class too.
    """
    parts: list[Estimates] = []
    squared = np.full(weights.shape[1], np.nan)
    unbiased = UnbiasedError(plan.grid, plan.group, plan.kept())
    for part, sums in plan.grid.sums(weights):
        place = plan.rule.cells(sums)
        parts.append(_numbers(plan, sums, place))
        for r in range(part.start, part.stop):
            squared[r] = unbiased(weights[:, r].astype(np.float64), place[:, :, r - part.start])
    overall = {key: np.concatenate([p.overall[key] for p in parts]) for key in parts[0].overall}
    by_class = {key: np.concatenate([p.by_class[key] for p in parts], axis=1) for key in parts[0].by_class}
    return Estimates({**overall, "squared_error": squared}, by_class)


def _numbers(plan: KeptPlan, sums: GridSums, place: Ints) -> Estimates:
    """Compute the numbers that are sums over cells."""
    by_class = {c: kept_sums(sums, c, place).sum(1) for c in ("n", "tp", "gap", "n_iou", "gap_iou")}
    total = {column: values.sum(0) for column, values in by_class.items()}
    objects = sums.objects.sum(1)
    kept = np.arange(len(THRESHOLDS))[:, None] >= place[:, :, None]  # (C, K, T, R)
    gaps_iou = np.add.reduceat((sums.cells["gap_iou"] * kept).sum(1), bin_starts(LAECE_BINS), axis=1)
    gaps = np.add.reduceat((sums.cells["gap"] * kept).sum((0, 1)), bin_starts(DECE_BINS), axis=0)
    laece = binned_error(gaps_iou, by_class["n_iou"])
    laece = plan.grid.protocol.class_errors(laece.T, (objects > 0).T).T
    errors = kept_lrp(sums, place)
    pooled = {c: (sums.cells[c] * kept).sum(0) for c in ("n", "tp", "gap", "square", "nll")}  # (K, T, R)
    brier, nll = (ratio(pooled[column].sum((0, 1)), total["n"]) for column in ("square", "nll"))
    platt_brier, platt_nll = cross_fitted_platt(pooled["n"], pooled["tp"], pooled["gap"] + pooled["tp"])
    n = total["n"]
    return Estimates(
        {
            "precision": ratio(total["tp"], n),
            "recall": ratio(total["tp"], objects.sum(0)),
            "fp_per_image": ratio(n - total["tp"], sums.images.sum(0)),
            "LRP": class_mean(errors),
            "LaECE0": class_mean(laece),
            "DECE": binned_error(gaps[None], n[None])[0],
            "signed_gap": ratio(total["gap"], n),
            "absolute_gap": np.abs(ratio(total["gap"], n)),
            "signed_gap_iou": ratio(total["gap_iou"], total["n_iou"]),
            "mean_score": ratio(total["gap"] + total["tp"], n),
            "brier": brier,
            "nll": nll,
            "recoverable": brier - platt_brier,
            "recoverable_nll": nll - platt_nll,
        },
        {
            "n": by_class["n"],
            "precision": ratio(by_class["tp"], by_class["n"]),
            "recall": ratio(by_class["tp"], objects),
            "LRP": errors,
            "LaECE0": laece,
            "signed_gap": ratio(by_class["gap"], by_class["n"]),
        },
    )


def kept_table(plan: KeptPlan) -> DetectionTable:
    """Take the kept boxes as a table, for pictures and floors.

    Args:
        plan: The boxes, and how thresholds are chosen.

    Returns:
        The table of the kept boxes, of the same images, classes and objects.
    """
    return plan.grid.table.filter(plan.kept())
