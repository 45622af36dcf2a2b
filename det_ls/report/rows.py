# SPDX-License-Identifier: AGPL-3.0-or-later
"""Turns an evaluation's numbers into the rows and tiles that the templates of a report show, all of them plain text."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from det_ls.evaluation.measure import DetectionMetrics
from det_ls.metrics.number import Number
from det_ls.report.crops import base_name
from det_ls.report.measured import LEADING, Measured, Which, measured
from det_ls.report.operating import differ, no_threshold, typed
from det_ls.report.words import (
    DASH,
    better_text,
    count,
    definition_text,
    floor_text,
    interval_text,
    number,
    row_decimals,
)

Row = dict[str, Any]
_NOUNS = {"objects": ("object",), "images": ("image",), "detections": ("box", "boxes")}


def flat(mapping: Mapping[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    """List nested settings by their joined names, absolute paths shortened.

    Args:
        mapping: Settings; values can be mappings and lists.
        prefix: What to put before each name.

    Returns:
        Pairs of name and value.
    """
    rows: list[tuple[str, str]] = []
    for name, value in mapping.items():
        full = f"{prefix}{name}".replace("_", " ")
        if isinstance(value, Mapping):
            rows += flat(value, f"{full} · ")
        elif isinstance(value, (list, tuple)):
            rows.append((full, ", ".join(base_name(v) for v in value) or DASH))
        else:
            rows.append((full, DASH if value is None else base_name(value)))
    return rows


def number_row(metrics: DetectionMetrics, which: Which) -> Row:
    """Show a number with its interval and its floor, all to the same decimal.

    Args:
        metrics: The numbers of a detector.
        which: What it counts, and its key.

    Returns:
        The row.
    """
    one = measured(metrics, which)
    about, interval, floor = one.about, one.interval, one.floor
    decimals = _decimals(one)
    return {
        "key": about.key,
        "name": about.name,
        "what": about.what,
        "better": better_text(about),
        "population": "kept boxes" if about.population == "kept" else "all boxes",
        "n": count(one.definition["n"], *_NOUNS[one.definition["n_counts"]]),
        "value": number(one.value, signed=about.signed, decimals=decimals),
        "reason": one.reason,
        "interval": interval_text(interval, signed=about.signed, decimals=decimals),
        "of_estimator": interval is not None and interval.of == "estimator",
        "floor": ""
        if one.value is None or floor is None
        else f"{number(floor.median, decimals=decimals)}, 95% below {number(floor.p95, decimals=decimals)}",
        "verdict": floor_text(one.value, floor),
        "calibrated": one.value is not None and floor is not None and not floor.exceeded_by(one.value),
        "how": definition_text(one.definition),
    }


def number_rows(metrics: DetectionMetrics, which: Iterable[Which]) -> list[Row]:
    """Show several numbers.

    Args:
        metrics: The numbers of a detector.
        which: What they count, and their keys.

    Returns:
        The rows.
    """
    return [number_row(metrics, one) for one in which]


def _decimals(one: Measured) -> int:
    ends = (None, None) if one.interval is None else (one.interval.low, one.interval.high)
    return row_decimals(one.value, *ends)


def gap_rows(val: DetectionMetrics, train: DetectionMetrics) -> list[Row]:
    """Show the leading numbers of the train and val split beside each other.

    Args:
        val: The numbers of a detector on images that it has not seen.
        train: Its numbers on images that it was trained on.

    Returns:
        One row a number.
    """
    rows = []
    for which in LEADING:
        of_train, of_val = measured(train, which), measured(val, which)
        values = [None if one.reason else one.value for one in (of_train, of_val)]
        gap = None if values[0] is None or values[1] is None else values[0] - values[1]
        about, decimals = of_val.about, _decimals(of_val)
        rows.append(
            {
                "key": about.key,
                "name": about.name,
                "better": better_text(about),
                "population": "kept boxes" if about.population == "kept" else "all boxes",
                "train": number(values[0], signed=about.signed, decimals=decimals),
                "val": number(values[1], signed=about.signed, decimals=decimals),
                "gap": number(gap, signed=True, decimals=decimals),
            }
        )
    return rows


def tiles(metrics: DetectionMetrics) -> list[Row]:
    """Show the few numbers that come first.

    Args:
        metrics: The numbers of a detector.

    Returns:
        The tiles.
    """
    shown: list[Row] = []
    wanted: Sequence[tuple[Which, str]] = (
        (("all", "AP"), "AP, all boxes"),
        (("kept", "precision"), "Precision, kept boxes"),
        (("kept", "recall"), "Recall, kept boxes"),
        (("kept", "signed_gap"), "Score minus precision, kept boxes"),
    )
    for which, name in wanted:
        row = number_row(metrics, which)
        value = "undefined" if row["reason"] else row["value"]
        shown.append(
            {"name": name, "value": value, "more": row["reason"] or row["interval"], "words": bool(row["reason"])}
        )
    none, found = no_threshold(metrics), metrics.kept.thresholds
    given = found.kind == "fixed"
    own = found.used[metrics.table.has_gt]
    shown.append(
        {
            "name": "Score threshold that was given" if given else "Score threshold to type",
            "value": typed(metrics),
            "more": none or (f"{own.min():g} to {own.max():g}, listed below" if differ(metrics) and len(own) else ""),
            "words": bool(none) or differ(metrics),
        }
    )
    return shown


def class_rows(metrics: DetectionMetrics) -> list[Row]:
    """Show the numbers of each class: AP of all its boxes, the rest of those that are kept.

    Args:
        metrics: The numbers of a detector.

    Returns:
        One row a class.
    """
    floor = metrics.kept.floors.get("LaECE0")
    limits = None if floor is None else floor.class_p95
    rows: list[Row] = []
    for i, (whole, kept) in enumerate(zip(metrics.per_class, metrics.kept.per_class, strict=True)):
        gap, error = kept["signed_gap"], kept["LaECE0"]
        limit = math.nan if limits is None else float(limits[i])
        judged = error is not None and not math.isnan(limit)
        bar = 0.0 if gap is None else round(50 * min(abs(gap), 1.0), 1)
        rows.append(
            {
                "name": whole["name"],
                "left_out": metrics.left_out.get(whole["name"], ""),
                "objects": f"{whole['n_gt']:,}",
                "boxes": f"{kept['n'] or 0:,.0f}",
                "ap": number(whole["AP"], decimals=3),
                "ap50": number(whole["AP50"], decimals=3),
                "precision": number(kept["precision"], decimals=3),
                "recall": number(kept["recall"], decimals=3),
                "laece": number(error, decimals=3),
                "verdict": judged,
                "calibrated": judged and error <= limit,
                "gap": number(gap, signed=True, decimals=3),
                "bar": bar,
                "bar_left": 50 if gap is None or gap >= 0 else 50 - bar,
                "under": gap is not None and gap < 0,
                "lrp": number(kept["LRP"], decimals=3),
                "threshold": f"{kept['threshold']:g}",
            }
        )
    return rows


def how_rows(metrics: DetectionMetrics, which: Iterable[Which], other: DetectionMetrics | None = None) -> list[Row]:
    """Say how numbers were counted.

    Args:
        metrics: The numbers of a detector.
        which: What they count, and their keys.
        other: The detector to compare with.

    Returns:
        One row a number.
    """
    rows = []
    for population, key in which:
        one = measured(metrics, (population, key))
        beside = None if other is None else measured(other, (population, key)).definition
        rows.append(
            {
                "key": key,
                "population": "kept" if population == "kept" else "all",
                "how": definition_text(one.definition, beside),
            }
        )
    return rows


def arrow(about: Number) -> str:
    """Point to where a number gets better.

    Args:
        about: The number.

    Returns:
        An arrow in brackets, or nothing.
    """
    return {"higher": "(↑)", "lower": "(↓)"}.get(about.better, "")
