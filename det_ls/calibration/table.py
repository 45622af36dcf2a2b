# SPDX-License-Identifier: AGPL-3.0-or-later
"""Calibrate a table of matched detections: the core that models and COCO files share."""

from __future__ import annotations

from typing import Any

import numpy as np

from det_ls.calibration.crossfit import FOLDS, check_folds, cross_fitted, folds_by_group
from det_ls.calibration.identity import pulled
from det_ls.calibration.judge import Judged, changes, judged, reliability
from det_ls.calibration.maps import CalibrationMap, DesmoothMap, Floats, Ints, logit
from det_ls.calibration.methods import Fitted, Recipe, Sample, fit, sample_of
from det_ls.calibration.results import Calibration, Estimate, Threshold
from det_ls.metrics.protocols import TP_IOU
from det_ls.metrics.table import DetectionTable
from det_ls.metrics.thresholds import Thresholds


def calibrate_table(
    table: DetectionTable,
    z: Floats,
    recipe: Recipe,
    *,
    group: Ints | None = None,
    folds: int = FOLDS,
    bootstrap: int = 0,
    seed: int = 0,
) -> Calibration:
    """Fit a map on all detections, and judge the method by cross-fitting.

    Args:
        table: Matched detections.
        z: (N,) their logits.
        recipe: What to fit.
        group: (I,) group of each image from 0; each image on its own if None.
        folds: Folds of the cross-fit.
        bootstrap: Replicates over groups for the intervals of the numbers.
        seed: Seed of folds and bootstrap.

    Returns:
        The calibration.

    Raises:
        ValueError: If nothing matches (or nothing outside one of the folds), there are too few groups, or a slope is
            not above 0.
    """
    group = np.arange(table.n_images) if group is None else group
    sample, rows = sample_of(table, z, group, recipe)
    fitted = fit(sample, recipe)
    fold_of_image = folds_by_group(group, folds, seed)
    matched = np.bincount(table.image[rows], weights=sample.target > 0, minlength=table.n_images) > 0
    check_folds(fold_of_image, group, matched, table.image_ids)
    fold = fold_of_image[table.image]
    place = np.full(table.n_detections, -1)
    place[rows] = np.arange(len(rows))

    def fit_on(chosen: Ints) -> CalibrationMap:
        used = place[chosen]
        return fit(sample.take(used[used >= 0]), recipe).map

    of, thresholds = judged(table, group, seed)
    after = cross_fitted(z, of.cls, fold, fit_on)
    counts = {"folds": len(np.unique(fold)), "fitted": len(rows), "matched": sample.n_matched}
    return _calibration(table, z, after, fitted, sample, of, thresholds, recipe, counts, bootstrap, seed)


def desmooth_table(
    table: DetectionTable, z: Floats, kept: Floats, *, group: Ints | None = None, bootstrap: int = 0, seed: int = 0
) -> Calibration:
    """Undo a known diagonal smoothing matrix; nothing is fitted, so nothing needs cross-fitting.

    Args:
        table: Matched detections.
        z: (N,) their logits.
        kept: (C,) the matrix's diagonal, in the order of the table's classes.
        group: (I,) group of each image from 0; each image on its own if None.
        bootstrap: Replicates over groups for the intervals of the numbers.
        seed: Seed of the bootstrap.

    Returns:
        The calibration.
    """
    group = np.arange(table.n_images) if group is None else group
    shared = len(set(kept.tolist())) == 1
    values = tuple(kept.tolist())
    fitted = Fitted(DesmoothMap(values[:1]) if shared else DesmoothMap(values, table.class_names))
    of, thresholds = judged(table, group, seed)
    counts = {"folds": 0, "fitted": 0, "matched": 0}
    return _calibration(table, z, fitted.map(z, of.cls), fitted, None, of, thresholds, None, counts, bootstrap, seed)


def _calibration(
    table: DetectionTable,
    z: Floats,
    after: Floats,
    fitted: Fitted,
    sample: Sample | None,
    of: Judged,
    thresholds: Thresholds,
    recipe: Recipe | None,
    counts: dict[str, int],
    bootstrap: int,
    seed: int,
) -> Calibration:
    before = table.score
    diagrams = {"before": reliability(before, of), "after": reliability(after, of)}
    scores = np.full((2, table.n_results), np.nan)  # detections beyond COCO's limit are in no table
    scores[:, table.detection] = after, before
    return Calibration(
        map=fitted.map,
        method=fitted.map.kind,
        target=recipe.target if recipe else "",
        weighting=recipe.weighting if recipe else "",
        numbers=changes(before, after, of, bootstrap=bootstrap, seed=seed),
        reliability={key: (diagrams["before"][key], diagrams["after"][key]) for key in diagrams["before"]},
        estimates=_estimates(fitted, sample) if sample else (),
        thresholds=_operating_points(table, fitted.map, thresholds),
        counts={
            "images": table.n_images,
            "groups": of.n_groups,
            "detections": table.n_detections,
            "kept": int((of.kept & of.in_tp).sum()),
            **counts,
        },
        scores=(scores[0], scores[1]),
    )


def _estimates(fitted: Fitted, sample: Sample) -> tuple[Estimate, ...]:
    """List the shared parameters and those by class."""
    if fitted.shared is None:
        return ()

    def estimate(
        name: str | None, theta: Floats, ends: Floats, n: int, n_matched: int, own: float, kept: float
    ) -> Estimate:
        spans: list[Any] = [None if np.isnan(pair).any() else (float(pair[0]), float(pair[1])) for pair in ends]
        shipped = pulled(theta, kept).tolist()
        a, b = shipped if len(shipped) > 1 else (shipped[0], 0.0)
        return Estimate(name, a, b, spans[0], spans[1] if len(spans) > 1 else None, n, n_matched, own, kept)

    ends = fitted.shared.interval()[0]
    found = [estimate(None, fitted.shared.theta[0], ends, len(sample.z), sample.n_matched, 1.0, fitted.shares[0])]
    if fitted.pooled is None:
        return tuple(found)
    pooled = fitted.pooled
    by_class = pooled.interval()
    matched = np.bincount(sample.cls[sample.target > 0], minlength=len(sample.classes))
    for c, name in enumerate(sample.classes):
        n, own = int(pooled.n[c]), float(pooled.own[c])
        found.append(estimate(name, pooled.theta[c], by_class[c], n, int(matched[c]), own, fitted.shares[c + 1]))
    return tuple(found)


def _operating_points(
    table: DetectionTable, calibration_map: CalibrationMap, thresholds: Thresholds
) -> tuple[Threshold, ...]:
    """Carry the recommended threshold of each class over to the calibrated scores."""
    matches = table.matches(TP_IOU)
    classes = np.flatnonzero(table.has_gt)
    before = thresholds.used[classes]
    after = calibration_map(logit(before), classes)
    found = []
    for c, old, new in zip(classes.tolist(), before.tolist(), after.tolist(), strict=True):
        rows = (table.cls == c) & matches.kept & (table.score >= old)
        n_tp = int((rows & matches.tp).sum())
        found.append(Threshold(table.class_names[c], old, new, n_tp, int(rows.sum()) - n_tp, int(table.n_gt[c])))
    return tuple(found)
