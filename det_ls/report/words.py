# SPDX-License-Identifier: AGPL-3.0-or-later
"""How numbers are written: one precision a row, intervals, verdicts, and how a number was counted."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from det_ls.metrics.number import Number, Unjudged
from det_ls.uncertainty.floor import Floor
from det_ls.uncertainty.intervals import Interval
from det_ls.uncertainty.paired import Verdict

DASH, MINUS = "\N{EN DASH}", "\N{MINUS SIGN}"
CALIBRATED = "not distinguishable from calibrated"
LEAST_DECIMALS, MOST_DECIMALS = 3, 6

_BETTER = {"higher": "higher", "lower": "lower", "zero": "closer to 0", "neither": ""}


def better_text(about: Number) -> str:
    """Say which direction of a number is better.

    Args:
        about: The number.

    Returns:
        A word or two; nothing where neither direction is better.
    """
    return _BETTER[about.better]


def row_decimals(value: float | None, low: float | None = None, high: float | None = None) -> int:
    """Choose the decimals of a row: those in which its interval has two digits, or else its value.

    Args:
        value: The number, or a difference.
        low: Lower end of its interval, None without.
        high: Upper end.

    Returns:
        Decimals, at least 3 (1 for numbers of at least 10) and at most 6.

    Example:
        >>> row_decimals(0.2, 0.15, 0.25), row_decimals(0.0012, 0.0009, 0.0015), row_decimals(0.00012), row_decimals(31)
        (3, 5, 5, 1)
    """
    known = [abs(v) for v in (value, low, high) if v is not None and not math.isnan(v)]
    least = 1 if known and max(known) >= 10 else LEAST_DECIMALS
    scale = abs(value or 0.0) if low is None or high is None else (high - low) / 2
    if not scale > 0:
        scale = max(known, default=0.0)
    if not 0 < scale < math.inf:
        return least
    return int(np.clip(1 - math.floor(math.log10(scale) + 1e-9), least, MOST_DECIMALS))


def number(value: float | None, *, signed: bool = False, decimals: int | None = None) -> str:
    """Write a number.

    Args:
        value: The number.
        signed: Whether to write a plus.
        decimals: Decimals; by default three, or those that a smaller number needs not to read as 0.

    Returns:
        The text; a dash for None.

    Example:
        >>> number(-0.0712, signed=True), number(0.5), number(0.000123), number(0.2, decimals=4), number(None)
        ('−0.071', '0.500', '0.00012', '0.2000', '–')
    """
    if value is None or math.isnan(value):
        return DASH
    if decimals is None:
        decimals = 3 if abs(value) >= 5e-4 or abs(value) < 5e-7 else 1 - math.floor(math.log10(abs(value)))
    text = f"{value:{'+' if signed else ''}.{decimals}f}"
    if not float(text):
        text = text.lstrip("+-")
    return text.replace("-", MINUS)


def interval_text(interval: Interval | None, *, signed: bool = False, decimals: int | None = None) -> str:
    """Write an interval.

    Args:
        interval: The interval.
        signed: Whether to write a plus.
        decimals: Decimals of both ends.

    Returns:
        The text; empty for None.
    """
    return "" if interval is None else span_text(interval.low, interval.high, signed=signed, decimals=decimals)


def span_text(low: float, high: float, *, signed: bool = False, decimals: int | None = None) -> str:
    """Write two ends.

    Args:
        low: The lower end.
        high: The upper end.
        signed: Whether to write a plus.
        decimals: Decimals of both.

    Returns:
        For example ``0.100 to 0.200``.
    """
    return f"{number(low, signed=signed, decimals=decimals)} to {number(high, signed=signed, decimals=decimals)}"


def between(interval: Interval | None, *, signed: bool = False, decimals: int | None = None) -> str:
    """Write an interval in brackets, with its level.

    Args:
        interval: The interval.
        signed: Whether to write a plus.
        decimals: Decimals of both ends.

    Returns:
        The text, which begins with a space; empty for None.
    """
    if interval is None:
        return ""
    return f" ({interval.level:.0%} interval {interval_text(interval, signed=signed, decimals=decimals)})"


def interval_note(intervals: Iterable[Interval], groups: int | None = None) -> str:
    """Say what the intervals over images are.

    Args:
        intervals: The intervals of a page.
        groups: Number of groups of images that were drawn, None where each image is its own.

    Returns:
        A sentence.
    """
    known = list(intervals)
    if not known:
        return "There are no intervals: how far chance could move the numbers cannot be read from this page."
    counts = sorted({i.replicates + i.undefined for i in known})
    replicates = f"{counts[0]:,}" if len(counts) == 1 else f"{counts[0]:,} to {counts[-1]:,}"
    drawn = "images" if groups is None else f"{groups:,} groups of images"
    return (
        f"Intervals are {known[0].level:.0%} bootstrap intervals: percentiles of {replicates} samples of the {drawn}, "
        "placed around the estimate."
    )


def floor_text(value: float | None, floor: Floor | None) -> str:
    """Read a calibration error against its floor.

    Args:
        value: The error.
        floor: Its floor.

    Returns:
        ``not distinguishable from calibrated``, ``above the floor``, or nothing where either is missing.
    """
    if value is None or floor is None:
        return ""
    return "above the floor" if floor.exceeded_by(value) else CALIBRATED


def verdict_text(verdict: Verdict, name: str) -> str:
    """Say what a comparison shows of the second detector.

    Args:
        verdict: The verdict.
        name: What the second detector is called.

    Returns:
        For example ``smoothed better``.

    Example:
        >>> verdict_text(Verdict.NONE, "smoothed"), verdict_text(Verdict.UNJUDGED, "smoothed")
        ('no difference shown', 'no verdict')
    """
    words = {Verdict.DIFFERS: "differs", Verdict.NONE: "no difference shown", Verdict.UNJUDGED: "no verdict"}
    return words.get(verdict) or f"{name} {verdict.value}".strip()


_UNJUDGED = {
    Unjudged.BINNED: "binned: biased upwards, by how much depends on how sharp the scores are",
    Unjudged.SPREAD: "grows with the spread of the scores as well as with their errors",
    Unjudged.ALL_BOXES: "decided by boxes that no user sees: junk with tiny scores makes it look better",
    Unjudged.PART: "part of another number",
    Unjudged.NEITHER: "neither direction is better",
}


def unjudged_text(about: Number) -> str:
    """Say why a difference of a number is no verdict.

    Args:
        about: The number.

    Returns:
        A few words.
    """
    return "" if about.unjudged is None else _UNJUDGED[about.unjudged]


def count(n: int, one: str, many: str | None = None) -> str:
    """Write a count with its noun.

    Args:
        n: The count.
        one: The noun.
        many: Its plural, if that is not the noun with an s.

    Returns:
        For example ``1 image``.
    """
    return f"{n:,} {one if n == 1 else many or one + 's'}"


def percent(value: float | None) -> str:
    """Write a fraction as a percentage.

    Args:
        value: The fraction.

    Returns:
        The text; a dash for None.
    """
    return DASH if value is None or math.isnan(value) else f"{value:.0%}"


def ascii_text(text: str) -> str:
    """Replace the signs that some consoles cannot print.

    Args:
        text: A text of this module.

    Returns:
        The text in ASCII, as far as it is ours.

    Example:
        >>> ascii_text("IoU ≥ 0.5: −0.071")
        'IoU >= 0.5: -0.071'
    """
    return (
        text.replace("\N{PRIME}", "'")
        .replace("\N{GREATER-THAN OR EQUAL TO}", ">=")
        .replace(MINUS, "-")
        .replace(DASH, "-")
    )


def overlap_text(definition: Mapping[str, Any], *, named: bool = True) -> str:
    """Write the IoU from which a detection is a true positive.

    Args:
        definition: One of `DetectionMetrics.definitions`.
        named: Whether to say that it is an IoU.

    Returns:
        For example ``IoU ≥ 0.5``.
    """
    iou, prefix = definition["iou"], "IoU " if named else ""
    if isinstance(iou, str):
        return prefix + iou
    return prefix + ("> 0" if iou == 0 and definition["protocol"] == "det_ls" else f"≥ {iou:g}")


def definition_text(definition: Mapping[str, Any], other: Mapping[str, Any] | None = None) -> str:
    """Write how a number was counted.

    Args:
        definition: One of `DetectionMetrics.definitions`.
        other: That of the detector to compare with, which can differ in n.

    Returns:
        One line: IoU, threshold, bins, n, matching and protocol.
    """
    threshold = definition["score_threshold"]
    n = f"{definition['n']:,}"
    if other is not None and other["n"] != definition["n"]:
        n += f" and {other['n']:,}"
    parts = [
        overlap_text(definition),
        f"score ≥ {threshold:g}" if isinstance(threshold, float) else f"score threshold {threshold}",
        f"{definition['bins']} bins" if definition["bins"] else "",
        f"n = {n} {definition['n_counts']}",
        f"matching {definition['matching']}",
        f"protocol {definition['protocol']}",
    ]
    return "; ".join(p for p in parts if p)
