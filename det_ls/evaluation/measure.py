# SPDX-License-Identifier: AGPL-3.0-or-later
"""Every number of an evaluation, from one table of matched detections."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from det_ls.base.arguments import check_integer
from det_ls.metrics import calibration as cal
from det_ls.metrics.catalogue import COCO_STATS, HEADLINE, definition, reason_undefined
from det_ls.metrics.curves import reliability_by_size, reliability_data
from det_ls.metrics.lrp import LRP, lrp, optimal_lrp
from det_ls.metrics.matching import evaluate_checked, table_from_coco
from det_ls.metrics.protocols import Protocol, get_protocol, lrp_optimal_mask
from det_ls.metrics.table import DetectionTable, Floats
from det_ls.uncertainty.bootstrap import Interval, bootstrap_intervals
from det_ls.uncertainty.floor import Floor, calibration_floors
from det_ls.uncertainty.replicates import LAECE_TAUS, TP_IOU, Progress, laece_key

if TYPE_CHECKING:
    from pycocotools.cocoeval import COCOeval

_NAN = float("nan")


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
        }


def detection_metrics(
    gt: object,
    detections: object,
    *,
    protocol: str = "det_ls",
    bootstrap: int = 0,
    ap_bootstrap: int | None = None,
    simulations: int = 100,
    seed: int = 0,
    level: float = 0.95,
    progress: Progress = iter,
) -> DetectionMetrics:
    """Measure detections against COCO ground truth.

    Args:
        gt: COCO instances, loaded or as a path.
        detections: COCO results with scores in [0, 1], loaded or as a path.
        protocol: ``det_ls`` (ours) or ``reference`` (reproduces the reference tools, quirks included).
        bootstrap: Image-level bootstrap replicates; 0 for no intervals.
        ap_bootstrap: Replicates for AP, which cost more; by default at most 200, 0 for none.
        simulations: Simulations of a perfectly calibrated detector; 0 for no floors.
        seed: Seed of bootstrap and simulations.
        level: Nominal coverage of the intervals, in (0, 1).
        progress: Wraps the replicates' numbers, for example in a progress bar.

    Returns:
        The numbers.

    Raises:
        FileNotFoundError: A path does not exist.
        TypeError: A number of replicates or simulations, or the seed, is no integer.
        ValueError: The input is not valid, a score is NaN or outside [0, 1] (the message names the image), or an
            argument is out of its range.

    Example:
        >>> gt = {"images": [{"id": 1}], "categories": [{"id": 1, "name": "a"}],
        ...       "annotations": [{"id": 1, "image_id": 1, "category_id": 1, "bbox": [0, 0, 10, 10]}]}
        >>> detections = [{"image_id": 1, "category_id": 1, "bbox": [0, 0, 10, 8], "score": 0.75}]
        >>> result = detection_metrics(gt, detections)
        >>> [round(result.values[key], 3) for key in ("AP50", "LaECE0", "LRP", "signed_gap")]
        [1.0, 0.05, 0.4, -0.25]
    """
    _check(protocol, bootstrap, ap_bootstrap, simulations, seed, level)
    return metrics_from_coco(
        evaluate_checked(gt, detections),
        protocol=protocol,
        bootstrap=bootstrap,
        ap_bootstrap=ap_bootstrap,
        simulations=simulations,
        seed=seed,
        level=level,
        progress=progress,
    )


def metrics_from_coco(
    coco_eval: COCOeval,
    *,
    protocol: str = "det_ls",
    bootstrap: int = 0,
    ap_bootstrap: int | None = None,
    simulations: int = 100,
    seed: int = 0,
    level: float = 0.95,
    progress: Progress = iter,
) -> DetectionMetrics:
    """Derive every number from a finished COCO evaluation.

    Args:
        coco_eval: A pycocotools evaluation of boxes at default parameters after ``evaluate``, ``accumulate`` and
            ``summarize``.
        protocol: As in `detection_metrics`, like all further arguments.
        bootstrap: Image-level bootstrap replicates.
        ap_bootstrap: Replicates for AP.
        simulations: Simulations of a perfectly calibrated detector.
        seed: Seed of bootstrap and simulations.
        level: Nominal coverage of the intervals.
        progress: Wraps the replicates' numbers.

    Returns:
        The numbers.

    Raises:
        TypeError: A number of replicates or simulations, or the seed, is no integer.
        ValueError: A score is NaN or outside [0, 1], or an argument is out of its range.
    """
    _check(protocol, bootstrap, ap_bootstrap, simulations, seed, level)
    rules = get_protocol(protocol)
    table = table_from_coco(coco_eval, zero_overlap=rules.zero_overlap)
    numbers, parts = _numbers(table, rules)
    values: dict[str, float | None] = {k: None if math.isnan(v) else v for k, v in numbers.items()}
    stats = {k: float(v) for k, v in zip(COCO_STATS, coco_eval.stats, strict=True)}
    values = {**{k: rules.absent if v == -1 else v for k, v in stats.items()}, **values}
    intervals: dict[str, Interval] = {}
    if bootstrap and table.n_images:
        intervals = bootstrap_intervals(
            table,
            protocol=protocol,
            replicates=bootstrap,
            ap_replicates=ap_bootstrap,
            seed=seed,
            level=level,
            progress=progress,
        )
    return DetectionMetrics(
        protocol=protocol,
        values=values,
        reasons={
            k: reason_undefined(k, table, rules)
            for k, v in values.items()
            if v is None or (v == -1 and k in COCO_STATS)
        },
        definitions={k: definition(k, table, rules) for k in values},
        per_class=_per_class(table, parts, _class_ap(coco_eval)),
        left_out={n: "no ground truth" for n, has in zip(table.class_names, table.has_gt, strict=True) if not has},
        counts=_counts(table),
        reliability=_reliability(table, rules),
        intervals={k: i for k, i in intervals.items() if values.get(k) is not None},
        floors=calibration_floors(table, protocol=protocol, simulations=simulations, seed=seed) if simulations else {},
        table=table,
    )


def table_numbers(table: DetectionTable, *, protocol: str = "det_ls") -> dict[str, float]:
    """Compute every number that needs nothing but the table; COCO's AP and AR are not among them.

    Args:
        table: Matched detections, or a subset of them by score.
        protocol: ``det_ls`` or ``reference``.

    Returns:
        Number by key, NaN where undefined.
    """
    return _numbers(table, get_protocol(protocol))[0]


def laece(table: DetectionTable, tau: float = 0.0, *, protocol: str = "det_ls", bins: int = cal.LAECE_BINS) -> Floats:
    """Compute LaECE of each class at any IoU threshold that the table was matched at.

    Args:
        table: Matched detections.
        tau: IoU threshold of a true positive.
        protocol: ``det_ls`` or ``reference``.
        bins: Number of equal-width bins.

    Returns:
        (C,) errors, NaN for the classes that the mean leaves out.
    """
    rules = get_protocol(protocol)
    matches = rules.matches(table, tau)
    rows, target = matches.kept, matches.tp_iou
    errors = cal.per_class_calibration_error(
        table.score[rows], target[rows], table.cls[rows], table.n_classes, bins=bins
    )
    return rules.class_errors(errors, table.has_gt)


def laace(table: DetectionTable, tau: float = 0.0, *, protocol: str = "det_ls") -> Floats:
    """Compute LaACE of each class at any IoU threshold that the table was matched at.

    Args:
        table: Matched detections.
        tau: IoU threshold of a true positive.
        protocol: ``det_ls``, or ``reference``, which counts ignored detections with IoU 0.

    Returns:
        (C,) errors, NaN for the classes that the mean leaves out.
    """
    rules = get_protocol(protocol)
    matches = rules.matches(table, tau)
    rows = np.ones(table.n_detections, bool) if rules.laace_ignored else matches.kept
    target = matches.tp_iou
    errors = cal.per_class_absolute_error(table.score[rows], target[rows], table.cls[rows], table.n_classes)
    return rules.class_errors(errors, table.has_gt)


def _check(protocol: str, bootstrap: int, ap_bootstrap: int | None, simulations: int, seed: int, level: float) -> None:
    """Raise before any work starts."""
    check_integer("bootstrap", bootstrap)
    if ap_bootstrap is not None:
        check_integer("ap_bootstrap", ap_bootstrap)
    check_integer("simulations", simulations)
    check_integer("seed", seed)
    get_protocol(protocol)
    if not 0 < level < 1:
        raise ValueError(f"level must be between 0 and 1, got {level}.")


def _mean(values: Floats) -> float:
    known = values[~np.isnan(values)]
    return float(known.mean()) if len(known) else _NAN


def _numbers(table: DetectionTable, rules: Protocol) -> tuple[dict[str, float], dict[str, Any]]:
    """Compute the numbers over all classes, and the parts by class that they come from."""
    half, overlap = rules.matches(table, TP_IOU), rules.matches(table, 0.0)
    rows = rules.counted(table, half)
    s, tp, ties = table.score[rows], half.tp[rows], "order" if rules.split_ties else "mean"
    numbers = {
        "DECE": cal.reliability(s, tp).error,
        "DECE_equal_mass": cal.equal_mass_reliability(s, tp, ties="order" if ties == "order" else "mean").error,
        "signed_gap": cal.signed_gap(s, tp),
        "mean_score": _mean(s),
        "precision": _mean(tp.astype(np.float64)),
        "brier": cal.brier_score(s, tp),
        "nll": cal.negative_log_likelihood(s, tp),
        "auroc": cal.auroc(s, tp),
    }
    rows = rules.counted(table, overlap)
    numbers["signed_gap_iou"] = cal.signed_gap(table.score[rows], overlap.tp_iou[rows])
    optima = {tau: optimal_lrp(table, rules.matches(table, tau), split_ties=rules.split_ties) for tau in (0.0, TP_IOU)}
    at_optimum = table.filter(lrp_optimal_mask(table, optima[0.0].threshold, rules))
    parts: dict[str, Any] = {"rules": rules, "lrp": lrp(table, half), "optima": optima}
    for tau in LAECE_TAUS:
        key = laece_key(tau)
        parts[key] = laece(table, tau, protocol=rules.name)
        parts[key.replace("LaECE", "LaACE")] = laace(table, tau, protocol=rules.name)
    parts["LaECE0_lrpopt"] = laece(at_optimum, protocol=rules.name)
    parts["LaACE0_lrpopt"] = laace(at_optimum, protocol=rules.name)
    numbers |= {key: _mean(errors) for key, errors in parts.items() if key.startswith("La")}
    for prefix, found in (("", parts["lrp"]), ("o", optima[TP_IOU])):
        averages = found.mean()
        numbers[f"{prefix}LRP"] = averages["LRP"]
        numbers |= {f"{prefix}LRP_{part}": averages[part] for part in ("Loc", "FP", "FN")}
    return numbers, parts


def _class_ap(coco_eval: COCOeval) -> dict[str, Floats]:
    """Read AP, AP50 and AP75 of each class; NaN where COCO says -1."""
    precision = coco_eval.eval["precision"][:, :, :, 0, -1]
    if not precision.size:
        empty = np.full(precision.shape[2], _NAN)
        return dict.fromkeys(("AP", "AP50", "AP75"), empty)
    by_threshold = np.where((precision > -1).any(1), precision.mean(1), _NAN)
    at = {round(float(t), 2): i for i, t in enumerate(coco_eval.params.iouThrs)}
    return {"AP": by_threshold.mean(0), "AP50": by_threshold[at[0.5]], "AP75": by_threshold[at[0.75]]}


def _per_class(table: DetectionTable, parts: dict[str, Any], ap: dict[str, Floats]) -> list[dict[str, Any]]:
    """List the numbers of each class."""
    rules: Protocol = parts["rules"]
    n = table.n_classes
    half, overlap = rules.matches(table, TP_IOU), rules.matches(table, 0.0)
    kept, kept0 = half.kept, overlap.kept
    count, count0 = (np.bincount(table.cls[k], minlength=n) for k in (kept, kept0))

    def average(values: Floats, rows: np.ndarray[Any, Any], total: np.ndarray[Any, Any]) -> Floats:
        sums = np.bincount(table.cls[rows], weights=values[rows], minlength=n)
        return np.divide(sums, total, out=np.full(n, _NAN), where=total > 0)

    whole: LRP = parts["lrp"]
    best: LRP = parts["optima"][TP_IOU]
    columns: dict[str, Any] = {
        "n_gt": table.n_gt,
        "n_detections": count,
        "n_tp": whole.n_tp.astype(int),
        **ap,
        **{key: parts[key] for key in parts if key.startswith("La")},
        "DECE": cal.per_class_calibration_error(
            table.score[kept], half.tp[kept].astype(np.float64), table.cls[kept], n, bins=cal.DECE_BINS
        ),
        "signed_gap": average(table.score - half.tp, kept, count),
        "signed_gap_iou": average(table.score - overlap.tp_iou, kept0, count0),
        "precision": average(half.tp.astype(np.float64), kept, count),
        "LRP": whole.lrp,
        "LRP_Loc": whole.loc,
        "LRP_FP": whole.fp,
        "LRP_FN": whole.fn,
        "oLRP": best.lrp,
        "oLRP_Loc": best.loc,
        "oLRP_FP": best.fp,
        "oLRP_FN": best.fn,
        "lrp_threshold": best.threshold,
        "lrp_threshold_iou0": parts["optima"][0.0].threshold,
    }
    lists = {key: _jsonable(np.asarray(column)) for key, column in columns.items()}
    return [
        {"id": table.class_ids[c], "name": table.class_names[c], **{key: lists[key][c] for key in lists}}
        for c in range(n)
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
