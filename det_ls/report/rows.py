# SPDX-License-Identifier: AGPL-3.0-or-later
"""Turns numbers into the rows, tiles and crops that the templates of a report show, all of them plain text."""

from __future__ import annotations

import base64
import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from det_ls.evaluation.measure import DetectionMetrics
from det_ls.evaluation.operating_point import OperatingPoint
from det_ls.metrics.catalogue import HEADLINE, NUMBERS
from det_ls.report.crops import SIDE, Case, base_name, cut, read_image
from det_ls.report.words import (
    DASH,
    better_text,
    definition_text,
    floor_text,
    interval_text,
    number,
    verdict_text,
)
from det_ls.uncertainty.floor import Floor
from det_ls.uncertainty.intervals import Interval
from det_ls.uncertainty.paired import Comparison, Verdict

Row = dict[str, Any]
_TAGS = {Verdict.BETTER: "good", Verdict.WORSE: "bad", Verdict.DIFFERS: "other", Verdict.NONE: "none"}
_ESTIMATOR = "uncertainty of the estimator, which is biased upwards; not a range for the true error"


class Cropper:
    """Turns cases into what the template shows, reading an image once for cases that follow each other.

    Args:
        images: Image file by image id; None for cases without pictures.
    """

    def __init__(self, images: Mapping[Any, str | Path] | None) -> None:
        self._images = images
        self._last: tuple[Any, NDArray[np.uint8] | None] = (None, None)

    def __call__(self, case: Case) -> Row:
        """Cut a case out.

        Args:
            case: The case.

        Returns:
            What the template shows: without ``src`` where there is no image that can be read.
        """
        focus = case.boxes[0]
        label = case.name if case.score is None else f"{case.name} {case.score:.2f}"
        row: Row = {
            "heading": label,
            "label": label if len(label) <= 30 else f"{label[:18]}… {label[-4:]}",
            "remark": case.remark,
            "file_name": case.file_name,
            "src": "",
            "no_picture": "no image files were given",
        }
        if self._images is None:
            return row
        file = self._images.get(case.image_id)
        image = None if file is None else self._read(file)
        if image is None:
            return {**row, "no_picture": "the image file is not there or cannot be read"}
        crop = cut(image, case)
        kind = "Missed object" if case.score is None else "False positive"
        x, y, _, h = crop.boxes[0].xywh
        above = y - 7 if y > 24 else min(y + h + 18, crop.height - 6)
        return {
            **row,
            "src": "data:image/jpeg;base64," + base64.b64encode(crop.jpeg).decode("ascii"),
            "alt": f"{kind}: {label} in {case.file_name}, {case.remark}",
            "width": crop.width,
            "height": crop.height,
            "share_x": round(100 * crop.width / max(crop.width, crop.height), 2),
            "share_y": round(100 * crop.height / max(crop.width, crop.height), 2),
            "boxes": [
                {
                    "kind": box.kind,
                    "focus": box.focus,
                    **{k: round(v, 1) for k, v in zip("xywh", box.xywh, strict=True)},
                }
                for box in sorted(crop.boxes, key=lambda box: box.focus)
            ],
            "label_x": round(min(max(x, 6.0), max(6.0, SIDE - 8.5 * len(label))), 1),
            "label_y": round(above, 1),
            "focus": focus.kind,
        }

    def _read(self, file: str | Path) -> NDArray[np.uint8] | None:
        if self._last[0] != file:
            self._last = (file, read_image(file))
        return self._last[1]


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
            rows.append((full, ", ".join(base_name(v) for v in value)))
        else:
            rows.append((full, DASH if value is None else base_name(value)))
    return rows


def ordered(keys: Iterable[str]) -> list[str]:
    """Put the headline first, and keep the order of the rest.

    Args:
        keys: Names of numbers.

    Returns:
        The names.
    """
    present = list(keys)
    return [k for k in HEADLINE if k in present] + [k for k in present if k not in HEADLINE]


def interval_note(intervals: Iterable[Interval]) -> str:
    """Say what the intervals are.

    Args:
        intervals: The intervals of a page.

    Returns:
        A sentence.
    """
    known = list(intervals)
    if not known:
        return "There are no intervals: how far chance could move the numbers cannot be read from this page."
    counts = sorted({i.replicates + i.undefined for i in known})
    replicates = f"{counts[0]:,}" if len(counts) == 1 else f"{counts[0]:,} to {counts[-1]:,}"
    return f"Intervals are {known[0].level:.0%} percentile intervals of {replicates} bootstrap samples of the images."


def number_row(metrics: DetectionMetrics, key: str) -> Row:
    """Show a number with its interval, its floor and how it was counted.

    Args:
        metrics: The numbers of a detector.
        key: Name of the number.

    Returns:
        The row.
    """
    value, interval, floor = metrics.values[key], metrics.intervals.get(key), metrics.floors.get(key)
    about = NUMBERS[key]
    signed = about.signed
    reason = metrics.reasons.get(key, "")
    if reason and value is not None:
        reason += f" (shown as {value:g} by the reference tools)"
    return {
        "key": key,
        "name": about.name,
        "what": about.what,
        "better": better_text(key),
        "value": number(value, signed=signed),
        "reason": reason,
        "interval": interval_text(interval, signed=signed),
        "interval_note": _ESTIMATOR if interval is not None and interval.of == "estimator" else "",
        "floor": "" if value is None else _floor_span(floor),
        "verdict": floor_text(value, floor),
        "calibrated": value is not None and floor is not None and not floor.exceeded_by(value),
        "how": definition_text(metrics.definitions[key]),
    }


def gap_rows(val: DetectionMetrics, train: DetectionMetrics) -> list[Row]:
    """Show the headline numbers of the train and val split beside each other.

    Args:
        val: The numbers of a detector on images that it has not seen.
        train: Its numbers on images that it was trained on.

    Returns:
        One row a headline number.
    """
    gap = val.gap_to(train)

    def text(metrics: DetectionMetrics, key: str) -> str:
        return number(None if key in metrics.reasons else metrics.values[key], signed=NUMBERS[key].signed)

    return [
        {
            "key": key,
            "name": NUMBERS[key].name,
            "better": better_text(key),
            "train": text(train, key),
            "val": text(val, key),
            "gap": number(gap.get(key), signed=True),
        }
        for key in HEADLINE
    ]


def tiles(metrics: DetectionMetrics, point: OperatingPoint) -> list[Row]:
    """Show the few numbers that come first.

    Args:
        metrics: The numbers of a detector.
        point: Its operating point.

    Returns:
        The tiles.
    """
    shown: list[Row] = []
    for key, name in (
        ("AP", "AP, quality of the boxes"),
        ("signed_gap", "Score minus precision"),
        ("LaECE0", "LaECE0, calibration error"),
    ):
        row = number_row(metrics, key)
        more = row["verdict"] if key == "LaECE0" and row["verdict"] else row["interval"]
        shown.append(
            {
                "name": name,
                "value": "undefined" if row["reason"] else row["value"],
                "more": row["reason"] or more,
                "words": bool(row["reason"]),
            }
        )
    known = point.known
    shown.append(
        {
            "name": "Score threshold to use",
            "value": number(float(np.median(known))) if len(known) else "there is none",
            "more": "median; each class has its own" if len(known) and metrics.table.has_gt.sum() > 1 else "",
            "words": not len(known),
        }
    )
    return shown


def class_rows(metrics: DetectionMetrics) -> list[Row]:
    """Show the numbers of each class.

    Args:
        metrics: The numbers of a detector.

    Returns:
        One row a class.
    """
    floor = metrics.floors.get("LaECE0")
    limits = None if floor is None else floor.class_p95
    rows: list[Row] = []
    for i, c in enumerate(metrics.per_class):
        gap, error = c["signed_gap"], c["LaECE0"]
        limit = math.nan if limits is None else float(limits[i])
        judged = error is not None and not math.isnan(limit)
        bar = 0.0 if gap is None else round(50 * min(abs(gap), 1.0), 1)
        rows.append(
            {
                "name": c["name"],
                "left_out": metrics.left_out.get(c["name"], ""),
                "objects": f"{c['n_gt']:,}",
                "detections": f"{c['n_detections']:,}",
                "ap": number(c["AP"]),
                "ap50": number(c["AP50"]),
                "precision": number(c["precision"]),
                "laece": number(error),
                "verdict": judged,
                "calibrated": judged and error <= limit,
                "gap": number(gap, signed=True),
                "bar": bar,
                "bar_left": 50 if gap is None or gap >= 0 else 50 - bar,
                "under": gap is not None and gap < 0,
                "olrp": number(c["oLRP"]),
                "threshold": number(c["lrp_threshold"]),
            }
        )
    return rows


def difference_tile(comparison: Comparison, names: tuple[str, str]) -> Row:
    """Show one paired difference.

    Args:
        comparison: The comparison.
        names: What the detectors are called.

    Returns:
        The tile.
    """
    result = verdict_text(comparison.verdict, names[1])
    return {
        "name": f"{comparison.key}, difference",
        "value": number(comparison.difference, signed=True),
        "more": f"{interval_text(comparison.interval, signed=True)}: {result}",
        "words": False,
    }


def difference_row(key: str, a: DetectionMetrics, b: DetectionMetrics, comparison: Comparison | None) -> Row:
    """Show a number of two detectors, with its paired difference.

    Args:
        key: Name of the number.
        a: The numbers of the first detector.
        b: The numbers of the second detector.
        comparison: Their comparison; None where there is none.

    Returns:
        The row.
    """
    about = NUMBERS[key]
    row: Row = {"key": key, "name": about.name, "what": about.what, "better": better_text(key), "reason": ""}
    row["how"] = definition_text(a.definitions[key], b.definitions[key])
    if comparison is None:
        reason = a.reasons.get(key) or b.reasons.get(key)
        return {**row, "reason": reason or "no bootstrap sample defines it for both"}
    signed = NUMBERS[key].signed
    return {
        **row,
        "a": number(comparison.a, signed=signed),
        "b": number(comparison.b, signed=signed),
        "floor_a": _floor_span(a.floors.get(key)),
        "floor_b": _floor_span(b.floors.get(key)),
        "difference": number(comparison.difference, signed=True),
        "interval": interval_text(comparison.interval, signed=True),
        "verdict": verdict_text(comparison.verdict, "").strip(),
        "tag": _TAGS[comparison.verdict],
    }


def _floor_span(floor: Floor | None) -> str:
    return "" if floor is None else f"{number(floor.median)}, 95% below {number(floor.p95)}"
