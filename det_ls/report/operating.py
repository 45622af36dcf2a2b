# SPDX-License-Identifier: AGPL-3.0-or-later
"""The operating point in words: which threshold to type, why, and what to expect of it on new images."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from det_ls.evaluation.measure import DetectionMetrics
from det_ls.metrics.catalogue import KEPT
from det_ls.report.words import interval_text, number, percent, row_decimals


@dataclass(frozen=True)
class Chosen:
    """The operating point of one evaluation, in words.

    Attributes:
        typed: What to type, for example ``conf=0.31``, or that there is one a class, or none.
        why: How it was chosen.
        expected: What to expect on new images.
        weighs: What the choice weighs; empty for a threshold that was given.
    """

    typed: str
    why: str
    expected: str
    weighs: str

    @property
    def text(self) -> str:
        """Everything but what to type."""
        return " ".join(part for part in (self.why, self.expected, self.weighs) if part)


def no_threshold(metrics: DetectionMetrics) -> str:
    """Say why no threshold can be recommended.

    Args:
        metrics: The numbers of a detector.

    Returns:
        The reason; empty where one can.
    """
    kept = metrics.kept
    if kept.thresholds.kind == "fixed":
        return ""
    if not kept.counts["objects"]:
        return "no ground truth"
    if not metrics.table.n_detections:
        return "no detections"
    worst = kept.in_sample["LRP"]
    return "no threshold beats having no detections at all" if worst is None or worst >= 1 else ""


def differ(metrics: DetectionMetrics) -> bool:
    """Say whether classes have thresholds of their own.

    Args:
        metrics: The numbers of a detector.

    Returns:
        Whether they do.
    """
    return len(np.unique(metrics.kept.thresholds.used)) > 1


def typed(metrics: DetectionMetrics) -> str:
    """Write the threshold as it is typed.

    Args:
        metrics: The numbers of a detector.

    Returns:
        For example ``conf=0.31``.
    """
    if no_threshold(metrics):
        return "there is none"
    return "one a class" if differ(metrics) else f"conf={metrics.kept.thresholds.common:g}"


def chosen(metrics: DetectionMetrics, protocol: Mapping[str, Any]) -> Chosen:
    """Say how the operating point was chosen and what to expect of it.

    Args:
        metrics: The numbers of a detector.
        protocol: The settings of the evaluation.

    Returns:
        The words.
    """
    if reason := no_threshold(metrics):
        return Chosen(typed(metrics), f"No score threshold can be recommended: {reason}.", "", "")
    if metrics.kept.thresholds.kind == "fixed":
        split = protocol.get("split_thresholds")
        what = "The thresholds were" if differ(metrics) else "The threshold was"
        why = f"{what} {f'chosen on the {split} split' if split else 'given'}, not chosen on these images."
        return Chosen(typed(metrics), why, _expected(metrics), "")
    cost = float(protocol.get("miss_cost", 1.0))
    weighs = (
        "LRP weighs a missed object like a false alarm; where a miss is worse, choose again with miss_cost=5 or so."
        if cost == 1
        else f"A missed object was made to weigh {cost:g} times a false alarm, as asked (miss_cost={cost:g})."
    )
    return Chosen(typed(metrics), _why(metrics), _expected(metrics), weighs)


def expected_rows(metrics: DetectionMetrics) -> list[dict[str, str]]:
    """Set what is expected on new images beside what was fitted.

    Args:
        metrics: The numbers of a detector.

    Returns:
        One row a number.
    """
    rows = []
    for key in ("precision", "recall", "fp_per_image", "LRP"):
        value, interval = metrics.kept.values[key], metrics.kept.intervals.get(key)
        ends = (None, None) if interval is None else (interval.low, interval.high)
        decimals = row_decimals(value, *ends)
        fitted = metrics.kept.in_sample.get(key)
        rows.append(
            {
                "name": KEPT[key].name,
                "expected": number(value, decimals=decimals),
                "interval": interval_text(interval, decimals=decimals),
                "fitted": number(fitted, decimals=decimals) if key in metrics.kept.in_sample else "",
            }
        )
    return rows


def class_thresholds(metrics: DetectionMetrics) -> list[tuple[str, str]]:
    """List the thresholds of the classes with objects, where they differ.

    Args:
        metrics: The numbers of a detector.

    Returns:
        Name and threshold; a dagger marks the common one, which a class with too few objects takes. Empty where one
        threshold is for all.
    """
    if not differ(metrics) or no_threshold(metrics):
        return []
    found, has = metrics.kept.thresholds, metrics.table.has_gt
    marks = ["†" if few and found.kind == "by_class" else "" for few in found.few.tolist()]
    return [
        (name, f"{threshold:g}{mark}")
        for name, threshold, mark, known in zip(metrics.table.class_names, found.used.tolist(), marks, has, strict=True)
        if known
    ]


def _why(metrics: DetectionMetrics) -> str:
    found, has = metrics.kept.thresholds, metrics.table.has_gt
    if int(has.sum()) < 2:
        return "There the LRP error (misses, false positives and loose boxes together) is smallest."
    common, own = number(found.lrp_common), number(found.lrp_by_class)
    if found.kind == "common":
        return (
            "There the LRP error (misses, false positives and loose boxes together) is smallest. One threshold for all "
            f"classes does at least as well as one a class on images that neither was chosen on: LRP error {common} "
            f"against {own}."
        )
    own_threshold = "One threshold a class, where its LRP error (misses, false positives, loose boxes) is smallest: "
    return (
        f"{own_threshold}on images that they were not chosen on they do better than one for all classes, LRP error "
        f"{own} against {common}. Where only one number can be typed, it is conf={found.common:g}."
        + (" † too few objects for a threshold of its own: the common one." if found.few[has].any() else "")
    )


def _expected(metrics: DetectionMetrics) -> str:
    kept = metrics.kept
    if kept.values["precision"] is None or kept.values["recall"] is None:
        return "No box is kept there." if not kept.counts["boxes"] else ""
    precision, recall, wrong = (kept.values[k] for k in ("precision", "recall", "fp_per_image"))
    of_precision, of_recall = (
        f" ({i.level:.0%} interval {percent(i.low)} to {percent(i.high)})" if (i := kept.intervals.get(k)) else ""
        for k in ("precision", "recall")
    )
    what = (
        f"{percent(precision)} of the kept boxes are right{of_precision}, {percent(recall)} of the objects are found"
        f"{of_recall}, with {number(wrong, decimals=2)} false positives an image."
    )
    if kept.thresholds.kind == "fixed":
        return what
    return (
        f"Expect on new images: {what} That is measured with thresholds that were chosen on other images "
        f"({kept.plan.grid.folds} folds). Judged on the very images they were chosen on, precision reads "
        f"{percent(kept.in_sample['precision'])} and recall {percent(kept.in_sample['recall'])}; in the mean that is "
        "optimistic."
    )
