# SPDX-License-Identifier: AGPL-3.0-or-later
"""The numbers of one trained cell: on the validation split, on the training split, and after the rival's map."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from det_ls.base.errors import ArgumentError
from det_ls.calibration.maps import logit
from det_ls.calibration.methods import Recipe
from det_ls.calibration.table import calibrate_table
from det_ls.data.groups import GroupSpec
from det_ls.evaluation.classification import Classification
from det_ls.evaluation.evaluate import evaluate
from det_ls.evaluation.measure import DetectionMetrics
from det_ls.metrics import calibration as cal
from det_ls.metrics.catalogue import COCO_STATS, KEPT, NUMBERS, table_numbers
from det_ls.metrics.grid import Grid
from det_ls.metrics.kept import KeptPlan, kept_numbers
from det_ls.metrics.protocols import TP_IOU, get_protocol
from det_ls.metrics.table import DetectionTable, Floats
from det_ls.metrics.thresholds import fixed_rule
from det_ls.metrics.weighted import once
from det_ls.studies.records import Measured

RIVAL = Recipe("platt", target="tp")
"""What the rival fits: one Platt map for all classes, to whether a box is right, which is what a gap is judged by."""
RANKED = frozenset((*COCO_STATS, "auroc", "LRP", *(key for key in NUMBERS if key.startswith(("LRP_", "oLRP")))))
"""Numbers that one rising map of all scores leaves as they are; the rival's are those of the scores before it."""


def measure_cell(
    weights: str | Path,
    data: str | Path,
    train: Mapping[str, Any],
    *,
    device: object = None,
    train_images: int = 200,
    groups: GroupSpec | None = None,
) -> Measured:
    """Measure a trained detector as a cell of a study.

    Without bootstrap and floors: what counts in a study is how the numbers vary over its seeds. The folds that choose
    thresholds and fit maps are the same for every cell.

    Args:
        weights: The checkpoint.
        data: The data YAML that it was trained on.
        train: The training keys, of which the image size, the batch and the loading processes are used.
        device: As in Ultralytics.
        train_images: Images of the training split to measure too; 0 for none.
        groups: Which images belong together, as in :func:`det_ls.evaluate`.

    Returns:
        The numbers; one that is undefined is left out, and so is the whole rival where no map could be fitted.
    """
    size = train.get("imgsz", 640)
    batch = train.get("batch", 16)
    result = evaluate(
        str(weights),
        str(data),
        imgsz=max(size) if isinstance(size, (list, tuple)) else int(size),
        batch=batch if isinstance(batch, int) and batch >= 1 else 16,
        device=device,
        workers=int(train.get("workers", 8)),
        simulations=0,
        train_images=train_images,
        groups=groups,
    )
    if isinstance(result, Classification):
        raise ArgumentError("model: expected one that finds boxes in a study, got a classifier.")
    metrics = result.metrics
    after = platt_scores(metrics)
    diagrams = {"val": kept_reliability(metrics, metrics.table.score)}
    if after is not None:
        diagrams["platt"] = kept_reliability(metrics, after)
    return Measured(
        val=_values(metrics),
        train={} if result.train is None else _values(result.train.metrics),
        platt={} if after is None else rival_values(metrics, after),
        reliability=diagrams,
    )


def platt_scores(metrics: DetectionMetrics) -> Floats | None:
    """Calibrate every box by the Platt map of the other images.

    Args:
        metrics: The numbers of a split, with its table.

    Returns:
        (N,) scores, by the table's rows; None where no map can be fitted, as when no box is right.
    """
    table, group = metrics.table, np.asarray(metrics.kept.plan.group, np.int64)
    try:
        found = calibrate_table(table, logit(table.score), RIVAL, group=group)
    except ArgumentError:
        return None
    assert found.scores is not None
    scores: Floats = found.scores[0][table.detection]
    return scores


def rival_values(metrics: DetectionMetrics, score: Floats) -> dict[str, float]:
    """Compute the numbers of a split with other scores of the same boxes, of which the same are kept.

    Args:
        metrics: The numbers with the scores before.
        score: (N,) the scores after a rising map, by the table's rows.

    Returns:
        Value by key, without the undefined; of the kept boxes with ``kept.`` before it.
    """
    rules, keep, plan = get_protocol(metrics.protocol), metrics.kept.keep, metrics.kept.plan
    table = replace(metrics.table, score=score)
    values: dict[str, float | None] = {**metrics.values}
    values |= {key: value for key, value in table_numbers(table, rules).items() if key not in RANKED}
    kept = table.filter(keep)
    rule, _ = fixed_rule(kept, 0.0, plan.grid.fold)
    found = kept_numbers(KeptPlan(Grid(kept, rules, plan.grid.fold), rule, plan.group), once(kept)).overall
    return _defined({**values, **{f"kept.{key}": float(found[key][0]) for key in KEPT}})


def kept_reliability(metrics: DetectionMetrics, score: Floats) -> list[dict[str, float]]:
    """Give the reliability diagram of the kept boxes.

    Args:
        metrics: The numbers of a split, which say which boxes are kept.
        score: (N,) their scores, by the table's rows.

    Returns:
        A dictionary for each bin that has boxes: mean ``score``, ``precision``, and ``count``.
    """
    table: DetectionTable = metrics.table
    rules = get_protocol(metrics.protocol)
    half = rules.matches(table, TP_IOU)
    rows = metrics.kept.keep & rules.counted(table, half)
    found = cal.reliability(score[rows], half.tp[rows].astype(np.float64))
    bins = zip(found.mean_score.tolist(), found.mean_target.tolist(), found.count.tolist(), strict=True)
    return [{"score": s, "precision": p, "count": n} for s, p, n in bins if n]


def _values(metrics: DetectionMetrics) -> dict[str, float]:
    """List the defined numbers of a split."""
    return _defined({**metrics.values, **{f"kept.{key}": value for key, value in metrics.kept.values.items()}})


def _defined(values: Mapping[str, float | None]) -> dict[str, float]:
    """Leave out what is undefined."""
    return {key: float(value) for key, value in values.items() if value is not None and math.isfinite(value)}
