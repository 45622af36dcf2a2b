# SPDX-License-Identifier: AGPL-3.0-or-later
"""Every number of an evaluation, from one table of matched detections."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from det_ls.evaluation.kept import KeptMetrics, floors_of, kept_metrics, plan_kept
from det_ls.evaluation.settings import MeasureSettings
from det_ls.metrics import calibration as cal
from det_ls.metrics.catalogue import BESIDES_AP, COCO_STATS, HEADLINE, NUMBERS, definition, reason_undefined
from det_ls.metrics.curves import reliability_by_size, reliability_data
from det_ls.metrics.lrp import optimal_lrp
from det_ls.metrics.matching import evaluate_checked, table_from_coco
from det_ls.metrics.number import Population
from det_ls.metrics.protocols import TP_IOU, Protocol, get_protocol
from det_ls.metrics.scores import score_numbers_by_class
from det_ls.metrics.table import DetectionTable, Floats, Ints
from det_ls.metrics.weighted import Progress, once
from det_ls.uncertainty.bootstrap import bootstrap_intervals
from det_ls.uncertainty.floor import Floor
from det_ls.uncertainty.intervals import Interval

if TYPE_CHECKING:
    from pycocotools.cocoeval import COCOeval


@dataclass(frozen=True)
class DetectionMetrics:
    """The numbers of one detector on one set of images.

    Attributes:
        protocol: ``det_ls`` or ``reference``.
        values: Number by key, None where undefined. `HEADLINE` lists the keys to lead with.
        reasons: Why a number is undefined, by key.
        definitions: By key, how the number was counted: ``matching``, ``iou``, ``score_threshold``, ``bins`` and ``n``.
        per_class: One entry for each class, in the order of the ids; None where undefined.
        left_out: Why a class takes no part in the numbers over classes, by name.
        counts: Images, objects, crowds and detections, and the detections that were left out.
        reliability: Reliability diagrams over all classes: ``tp`` (20 bins), ``tp_equal_mass`` and ``iou`` (25 bins),
            and by COCO's object sizes ``tp_small``, ``tp_medium`` and ``tp_large``.
        intervals: Bootstrap interval by key; empty without a bootstrap.
        floors: Floor of a calibration error by key; empty without simulations.
        table: The matched detections.
        kept: The numbers of the boxes that a user keeps.
        groups: Number of groups of images, as many as images where each is its own.
    """

    protocol: str
    values: dict[str, float | None]
    reasons: dict[str, str]
    definitions: dict[str, dict[str, Any]]
    per_class: list[dict[str, Any]]
    left_out: dict[str, str]
    counts: dict[str, int]
    reliability: dict[str, cal.Reliability]
    intervals: dict[str, Interval]
    floors: dict[str, Floor]
    table: DetectionTable = field(repr=False)
    kept: KeptMetrics = field(repr=False)
    groups: int

    def gap_to(self, train: DetectionMetrics) -> dict[str, float]:
        """Subtract these numbers from those of the train split.

        Args:
            train: The numbers of the same detector on images that it was trained on.

        Returns:
            Train minus these of each number that both define.
        """
        undefined = {*self.reasons, *train.reasons}
        pairs = {k: (train.values.get(k), v) for k, v in self.values.items() if k not in undefined}
        return {k: a - b for k, (a, b) in pairs.items() if a is not None and b is not None}

    def to_dict(self) -> dict[str, Any]:
        """Return what JSON can hold.

        Returns:
            The headline numbers under their own keys, every number under ``values``, then the other attributes except
            the table. NaN becomes None and arrays become lists.
        """
        return {
            **{key: self.values[key] for key in HEADLINE},
            "protocol": self.protocol,
            **{
                name: _jsonable(getattr(self, name))
                for name in ("values", "reasons", "definitions", "per_class", "left_out", "counts")
            },
            **{
                name: {k: _jsonable(asdict(v)) for k, v in getattr(self, name).items()}
                for name in ("reliability", "intervals", "floors")
            },
            "kept": _jsonable(self.kept.to_dict()),
        }


def detection_metrics(
    gt: object, detections: object, *, groups: Ints | None = None, progress: Progress = iter, **settings: Any
) -> DetectionMetrics:
    """Measure detections against COCO ground truth.

    Args:
        gt: COCO instances, loaded or as a path.
        detections: COCO results with scores in [0, 1], loaded or as a path.
        groups: (I,) group of each image, by rising image id, from 0; by default each image is its own.
        progress: Wraps the replicates' numbers, for example in a progress bar.
        **settings: `det_ls.evaluation.settings.MeasureSettings`.

    Returns:
        The numbers.

    Raises:
        FileNotFoundError: A path does not exist.
        TypeError: A setting has the wrong type.
        ValueError: The input is not valid, a score is NaN or outside [0, 1] (the message names the image), or a
            setting is out of its range.

    Example:
        >>> gt = {"images": [{"id": 1}], "categories": [{"id": 1, "name": "a"}],
        ...       "annotations": [{"id": 1, "image_id": 1, "category_id": 1, "bbox": [0, 0, 10, 10]}]}
        >>> detections = [{"image_id": 1, "category_id": 1, "bbox": [0, 0, 10, 8], "score": 0.75}]
        >>> result = detection_metrics(gt, detections)
        >>> [round(result.values[key], 3) for key in ("AP50", "LaECE0", "LRP", "signed_gap")]
        [1.0, 0.05, 0.4, -0.25]
    """
    how = MeasureSettings(**settings)
    return metrics_from_coco(evaluate_checked(gt, detections), how, groups=groups, progress=progress)


def metrics_from_coco(
    coco_eval: COCOeval,
    settings: MeasureSettings | None = None,
    *,
    groups: Ints | None = None,
    thresholds: Floats | None = None,
    progress: Progress = iter,
) -> DetectionMetrics:
    """Derive every number from a finished COCO evaluation.

    Args:
        coco_eval: A pycocotools evaluation of boxes at default parameters after ``evaluate``, ``accumulate`` and
            ``summarize``.
        settings: How detections are measured; None for the defaults.
        groups: (I,) group of each image, by rising image id, from 0; by default each image is its own.
        thresholds: (C,) score thresholds that were chosen on another split.
        progress: Wraps the replicates' numbers.

    Returns:
        The numbers.

    Raises:
        ValueError: A score is NaN or outside [0, 1].
    """
    how = settings or MeasureSettings()
    rules = get_protocol(how.protocol)
    table = table_from_coco(coco_eval, zero_overlap=rules.zero_overlap)
    # AP is pycocotools' own, whose replicate at weight 1 it equals.
    stats = {k: float(v) for k, v in zip(COCO_STATS, coco_eval.stats, strict=True)}
    return metrics_of_table(
        table,
        {k: rules.absent if v == -1 else v for k, v in stats.items()},
        _class_ap(coco_eval),
        how,
        groups=groups,
        thresholds=thresholds,
        progress=progress,
    )


def metrics_of_table(
    table: DetectionTable,
    stats: Mapping[str, float | None],
    class_ap: Mapping[str, Floats],
    settings: MeasureSettings,
    *,
    groups: Ints | None = None,
    thresholds: Floats | None = None,
    progress: Progress = iter,
) -> DetectionMetrics:
    """Derive every number from a table and COCO's own.

    Args:
        table: Matched detections.
        stats: COCO's twelve numbers by key.
        class_ap: (C,) ``AP``, ``AP50`` and ``AP75`` by key.
        settings: How detections are measured.
        groups: (I,) group of each image; by default each image is its own.
        thresholds: (C,) score thresholds that were chosen on another split.
        progress: Wraps the replicates' numbers.

    Returns:
        The numbers.
    """
    rules = get_protocol(settings.protocol)
    found, columns = dict(stats), dict(class_ap)
    for family in BESIDES_AP:
        estimates = family(table, once(table), rules)
        found |= {k: None if math.isnan(v[0]) else float(v[0]) for k, v in estimates.overall.items()}
        columns |= {k: v[:, 0] for k, v in estimates.by_class.items()}
    values: dict[str, float | None] = {key: found[key] for key in NUMBERS}
    group = np.arange(table.n_images) if groups is None else np.unique(groups, return_inverse=True)[1]
    plan, chosen = plan_kept(table, settings, group, thresholds)
    intervals: dict[Population, dict[str, Interval]] = {"all": {}, "kept": {}}
    if settings.bootstrap and table.n_images:
        intervals = bootstrap_intervals(
            plan, replicates=settings.bootstrap, seed=settings.seed, level=settings.level, progress=progress
        )
    floors: dict[str, Floor] = {}
    if settings.simulations:
        floors = floors_of(table, group, settings)
    return DetectionMetrics(
        protocol=rules.name,
        values=values,
        reasons={
            k: str(reason_undefined(NUMBERS[k], table, rules))
            for k, v in values.items()
            if v is None or (v == -1 and k in COCO_STATS)
        },
        definitions={k: definition(number, table, rules) for k, number in NUMBERS.items()},
        per_class=_per_class(table, rules, columns),
        left_out={n: "no ground truth" for n, has in zip(table.class_names, table.has_gt, strict=True) if not has},
        counts=_counts(table),
        reliability=_reliability(table, rules),
        intervals={k: i for k, i in intervals["all"].items() if values.get(k) is not None},
        floors={k: f for k, f in floors.items() if NUMBERS[k].floor},
        table=table,
        kept=kept_metrics(plan, chosen, intervals["kept"], settings),
        groups=int(group.max()) + 1 if len(group) else 0,
    )


def _class_ap(coco_eval: COCOeval) -> dict[str, Floats]:
    """Read AP, AP50 and AP75 of each class; NaN where COCO says -1."""
    precision = coco_eval.eval["precision"][:, :, :, 0, -1]
    if not precision.size:
        empty = np.full(precision.shape[2], np.nan)
        return dict.fromkeys(("AP", "AP50", "AP75"), empty)
    by_threshold = np.where((precision > -1).any(1), precision.mean(1), np.nan)
    at = {round(float(t), 2): i for i, t in enumerate(coco_eval.params.iouThrs)}
    return {"AP": by_threshold.mean(0), "AP50": by_threshold[at[0.5]], "AP75": by_threshold[at[0.75]]}


def _per_class(table: DetectionTable, rules: Protocol, columns: dict[str, Floats]) -> list[dict[str, Any]]:
    """List the numbers of each class."""
    half = rules.matches(table, TP_IOU)
    at_zero = optimal_lrp(table, rules.matches(table, 0.0), split_ties=rules.split_ties)
    counts: dict[str, Any] = {
        "n_gt": table.n_gt,
        "n_detections": np.bincount(table.cls[half.kept], minlength=table.n_classes),
        "n_tp": np.bincount(table.cls[half.tp], minlength=table.n_classes),
    }
    of_classes = {**columns, **score_numbers_by_class(table, rules), "lrp_threshold_iou0": at_zero.threshold}
    lists = {key: _jsonable(np.asarray(column)) for key, column in {**counts, **of_classes}.items()}
    return [
        {"id": table.class_ids[c], "name": table.class_names[c], **{key: lists[key][c] for key in lists}}
        for c in range(table.n_classes)
    ]


def _reliability(table: DetectionTable, rules: Protocol) -> dict[str, cal.Reliability]:
    rows = rules.counted(table, half := rules.matches(table, TP_IOU))
    return {
        "tp": reliability_data(table, "tp", protocol=rules.name),
        "tp_equal_mass": cal.equal_mass_reliability(table.score[rows], half.tp[rows]),
        "iou": reliability_data(table, "iou", protocol=rules.name, bins=cal.LAECE_BINS),
        **{f"tp_{size}": data for size, data in reliability_by_size(table, protocol=rules.name).items()},
    }


def _counts(table: DetectionTable) -> dict[str, int]:
    half = table.matches(TP_IOU)
    return {
        "images": table.n_images,
        "classes": table.n_classes,
        "classes_with_ground_truth": int(table.has_gt.sum()),
        "objects": int(table.n_gt.sum()),
        "crowds": int(table.gt_crowd.sum()),
        "results": table.n_results,
        "detections": table.n_detections,
        "beyond_max_detections": table.n_beyond_max,
        "ignored_at_iou50": int(half.ignored.sum()),
        "without_ground_truth_class": int((~table.has_gt[table.cls]).sum()),
    }


def _jsonable(value: Any) -> Any:
    """Turn arrays into lists, numpy scalars into Python's own and NaN into None, at any depth."""
    convert: Callable[[Any], Any] = _jsonable
    if isinstance(value, dict):
        return {k: convert(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [convert(v) for v in value]
    if isinstance(value, np.ndarray):
        return [convert(v) for v in value.tolist()]
    if isinstance(value, np.generic):
        return convert(value.item())
    return None if isinstance(value, float) and math.isnan(value) else value
