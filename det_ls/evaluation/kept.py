# SPDX-License-Identifier: AGPL-3.0-or-later
"""Which boxes a user keeps, and what holds for them."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from det_ls.evaluation.settings import MeasureSettings
from det_ls.metrics.catalogue import KEPT
from det_ls.metrics.grid import Grid
from det_ls.metrics.kept import KeptPlan, kept_numbers, kept_table
from det_ls.metrics.protocols import TP_IOU, get_protocol
from det_ls.metrics.table import Bools, DetectionTable, Floats
from det_ls.metrics.thresholds import ThresholdRule, Thresholds, fixed_rule, image_folds, recommend
from det_ls.metrics.weighted import once
from det_ls.uncertainty.floor import Floor, calibration_floors, grouped_floors
from det_ls.uncertainty.intervals import Interval


@dataclass(frozen=True)
class KeptMetrics:
    """The numbers of the boxes that a user keeps.

    Unless the threshold was given, that of an image was chosen on other images, so the numbers are what is to be
    expected on new ones.

    Attributes:
        thresholds: The thresholds to use on new images, and how they were chosen.
        values: Number by key (`det_ls.metrics.catalogue.KEPT`), None where undefined.
        in_sample: Precision, recall and LRP with thresholds that were chosen on the very images they are judged on.
        definitions: By key, how the number was counted.
        per_class: One entry for each class: threshold, boxes, precision, recall, LRP, LaECE0, signed_gap.
        counts: Boxes kept, and objects found.
        intervals: Bootstrap interval by key; empty without a bootstrap.
        floors: Floor of a calibration error by key; empty without simulations.
        keep: (N,) rows of the table that are kept.
        plan: The boxes by class and fold, for comparisons.
    """

    thresholds: Thresholds
    values: dict[str, float | None]
    in_sample: dict[str, float | None]
    definitions: dict[str, dict[str, Any]]
    per_class: list[dict[str, Any]]
    counts: dict[str, int]
    intervals: dict[str, Interval]
    floors: dict[str, Floor]
    keep: Bools = field(repr=False)
    plan: KeptPlan = field(repr=False)

    def to_dict(self) -> dict[str, Any]:
        """Return what JSON can hold: every number under its own name, then how it came about."""
        t = self.thresholds
        names = [entry["name"] for entry in self.per_class]
        chosen = {
            "kind": t.kind,
            "common": t.common if t.pays_off else None,
            "by_class": {n: v if t.pays_off else None for n, v in zip(names, t.by_class.tolist(), strict=True)},
            "lrp_common": _none(t.lrp_common),
            "lrp_by_class": _none(t.lrp_by_class),
        }
        return {
            **self.values,
            "thresholds": chosen,
            "in_sample": self.in_sample,
            "per_class": self.per_class,
            "counts": self.counts,
            "definitions": self.definitions,
            "intervals": {key: asdict(interval) for key, interval in self.intervals.items()},
            "floors": {key: {"median": f.median, "p95": f.p95} for key, f in self.floors.items()},
        }


def plan_kept(
    table: DetectionTable,
    settings: MeasureSettings,
    group: NDArray[np.integer],
    elsewhere: Floats | None = None,
) -> tuple[KeptPlan, Thresholds]:
    """Decide how the kept boxes are chosen.

    Args:
        table: Matched detections.
        settings: How detections are measured.
        group: (I,) group of each image, from 0.
        elsewhere: (C,) thresholds that were chosen on another split.

    Returns:
        The plan, and the thresholds to use on new images.
    """
    rules = get_protocol(settings.protocol)
    grid = Grid(table, rules, image_folds(group, settings.seed))
    if elsewhere is not None or not isinstance(settings.threshold, str):
        given = settings.threshold if elsewhere is None else elsewhere
        rule, thresholds = fixed_rule(table, np.asarray(given, np.float64), grid.fold)
    else:
        rule, thresholds = recommend(grid, miss_cost=settings.miss_cost)
    return KeptPlan(grid, rule, group), thresholds


def kept_metrics(
    plan: KeptPlan, thresholds: Thresholds, intervals: dict[str, Interval], settings: MeasureSettings
) -> KeptMetrics:
    """Measure the kept boxes.

    Args:
        plan: The boxes, and how the kept ones are chosen.
        thresholds: The thresholds to use on new images.
        intervals: Their intervals by key.
        settings: How detections are measured.

    Returns:
        The numbers.
    """
    table, rules = plan.grid.table, plan.grid.protocol
    found = kept_numbers(plan, once(table))
    values = {key: _none(float(found.overall[key][0])) for key in KEPT}
    keep = plan.kept()
    rows = keep & rules.counted(table, rules.matches(table, TP_IOU))
    # The same thresholds for every fold: what would be read if the choice were judged on its own images.
    same = ThresholdRule(plan.grid.fold, kind="fixed", fixed=thresholds.used)
    optimistic = kept_numbers(KeptPlan(plan.grid, same, plan.group), once(table)).overall
    floors = {}
    if settings.simulations:
        simulated = floors_of(kept_table(plan), plan.group, settings)
        floors = {key: simulated[key] for key, number in KEPT.items() if number.floor and key in simulated}
    columns = {key: column[:, 0] for key, column in found.by_class.items()}
    per_class = [
        {
            "id": table.class_ids[c],
            "name": table.class_names[c],
            "threshold": float(thresholds.used[c]),
            "own_threshold": thresholds.kind != "common" and not bool(thresholds.few[c]),
            **{key: _none(float(column[c])) for key, column in columns.items()},
        }
        for c in range(table.n_classes)
    ]
    return KeptMetrics(
        thresholds=thresholds,
        values=values,
        in_sample={key: _none(float(optimistic[key][0])) for key in ("precision", "recall", "LRP")},
        definitions={key: _definition(key, plan, rows, thresholds) for key in KEPT},
        per_class=per_class,
        counts={
            "boxes": int(rows.sum()),
            "found": int((rows & rules.matches(table, TP_IOU).tp).sum()),
            "objects": int(table.n_gt.sum()),
            "images": table.n_images,
        },
        intervals={key: interval for key, interval in intervals.items() if values.get(key) is not None},
        floors=floors,
        keep=keep,
        plan=plan,
    )


def floors_of(table: DetectionTable, group: NDArray[np.integer], settings: MeasureSettings) -> dict[str, Floor]:
    """Say what a calibrated detector would read, whether or not images come in groups.

    Args:
        table: Matched detections.
        group: (I,) group of each image, from 0.
        settings: How detections are measured.

    Returns:
        Floor by key.
    """
    alone = len(np.unique(group)) == table.n_images
    if alone:
        return calibration_floors(
            table, protocol=settings.protocol, simulations=settings.simulations, seed=settings.seed
        )
    return grouped_floors(
        table, group, protocol=settings.protocol, simulations=settings.simulations, seed=settings.seed
    )


def _definition(key: str, plan: KeptPlan, rows: Bools, thresholds: Thresholds) -> dict[str, Any]:
    """Say how a number of the kept boxes was counted."""
    number, table = KEPT[key], plan.grid.table
    n = {"objects": int(table.n_gt.sum()), "images": table.n_images, "detections": int(rows.sum())}[number.counts]
    return {
        "protocol": plan.grid.protocol.name,
        "population": "kept boxes",
        "matching": f"COCO greedy, at most {table.max_detections} detections an image and class",
        "score_threshold": "given" if thresholds.kind == "fixed" else f"chosen on other images ({thresholds.kind})",
        "bins": number.bins,
        "iou": number.iou,
        "n": n,
        "n_counts": number.counts,
    }


def _none(value: float) -> float | None:
    return None if math.isnan(value) else value
