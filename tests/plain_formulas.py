# SPDX-License-Identifier: AGPL-3.0-or-later
"""Class-wise errors written down as the papers define them: the oracle of the weighted estimators."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from det_ls.metrics.calibration import LAECE_BINS, bin_index
from det_ls.metrics.protocols import get_protocol
from det_ls.metrics.table import DetectionTable, Floats


def _divide(total: Floats, count: NDArray[np.integer]) -> Floats:
    return np.divide(total, count, out=np.full(np.shape(total), np.nan), where=count > 0)


def per_class_calibration_error(
    score: Floats, target: Floats, cls: NDArray[np.integer], n_classes: int, *, bins: int = LAECE_BINS
) -> Floats:
    """Compute the calibration error of each class: with IoU targets, LaECE before its mean over the classes.

    Per class, sum over bins of (n_b / n_c) * |mean score - mean target| (Kuzucu et al. 2024).

    Args:
        score: (N,) scores in [0, 1].
        target: (N,) targets in [0, 1]; for LaECE the IoU of a true positive and 0 for a false one.
        cls: (N,) class of each detection, from 0.
        n_classes: Number of classes C.
        bins: Number of equal-width bins (a, b].

    Returns:
        (C,) errors, NaN for a class without detections.
    """
    cells = cls.astype(np.int64) * bins + bin_index(score, bins)
    gaps = np.bincount(cells, weights=score - target, minlength=n_classes * bins).reshape(n_classes, bins)
    return _divide(np.abs(gaps).sum(1), np.bincount(cls, minlength=n_classes))


def per_class_absolute_error(score: Floats, target: Floats, cls: NDArray[np.integer], n_classes: int) -> Floats:
    """Compute the mean absolute difference of each class: with IoU targets, LaACE before its mean over the classes.

    Args:
        score: (N,) scores in [0, 1].
        target: (N,) targets in [0, 1].
        cls: (N,) class of each detection, from 0.
        n_classes: Number of classes C.

    Returns:
        (C,) mean of |score - target| (Kuzucu et al. 2024), NaN for a class without detections.
    """
    total = np.bincount(cls, weights=np.abs(score - target), minlength=n_classes)
    return _divide(total, np.bincount(cls, minlength=n_classes))


def laece(table: DetectionTable, tau: float = 0.0, *, protocol: str = "det_ls", bins: int = LAECE_BINS) -> Floats:
    rules = get_protocol(protocol)
    matches = rules.matches(table, tau)
    rows = matches.kept
    errors = per_class_calibration_error(
        table.score[rows], matches.tp_iou[rows], table.cls[rows], table.n_classes, bins=bins
    )
    return rules.class_errors(errors, table.has_gt)


def laace(table: DetectionTable, tau: float = 0.0, *, protocol: str = "det_ls") -> Floats:
    rules = get_protocol(protocol)
    matches = rules.matches(table, tau)
    rows = np.ones(table.n_detections, bool) if rules.laace_ignored else matches.kept
    errors = per_class_absolute_error(table.score[rows], matches.tp_iou[rows], table.cls[rows], table.n_classes)
    return rules.class_errors(errors, table.has_gt)
