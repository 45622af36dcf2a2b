# SPDX-License-Identifier: AGPL-3.0-or-later
"""What the numbers allow to be said, in sentences that follow from them by fixed rules."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from det_ls.evaluation.measure import DetectionMetrics
from det_ls.evaluation.operating_point import OperatingPoint
from det_ls.metrics.catalogue import HEADLINE, NUMBERS
from det_ls.uncertainty.floor import Floor
from det_ls.uncertainty.intervals import Interval
from det_ls.uncertainty.paired import Comparison, Verdict

DASH, MINUS = "\N{EN DASH}", "\N{MINUS SIGN}"
CALIBRATED = "not distinguishable from calibrated"

_BETTER = {"higher": "higher", "lower": "lower", "zero": "closer to 0", "neither": ""}


@dataclass(frozen=True)
class Finding:
    """One thing that the numbers say.

    Attributes:
        topic: What it is about.
        lead: The result, in a few words.
        text: The numbers behind it.
    """

    topic: str
    lead: str
    text: str


def better_text(key: str) -> str:
    """Say which direction of a number is better.

    Args:
        key: Name of the number.

    Returns:
        A word or two; nothing where neither direction is better.

    Example:
        >>> better_text("signed_gap")
        'closer to 0'
    """
    return _BETTER[NUMBERS[key].better]


def number(value: float | None, *, signed: bool = False) -> str:
    """Write a number with three decimals, or with those that a smaller one needs not to read as 0.

    Args:
        value: The number.
        signed: Whether to write a plus.

    Returns:
        The text; a dash for None.

    Example:
        >>> number(-0.0712, signed=True), number(0.5), number(0.000123), number(None)
        ('−0.071', '0.500', '0.00012', '–')
    """
    if value is None or np.isnan(value):
        return DASH
    if abs(value) < 5e-7:
        return "0.000"
    decimals = 3 if abs(value) >= 5e-4 else 1 - math.floor(math.log10(abs(value)))
    text = f"{value:{'+' if signed else ''}.{decimals}f}"
    return text.replace("-", MINUS)


def interval_text(interval: Interval | None, *, signed: bool = False) -> str:
    """Write an interval.

    Args:
        interval: The interval.
        signed: Whether to write a plus.

    Returns:
        The text; empty for None.
    """
    if interval is None:
        return ""
    return f"{number(interval.low, signed=signed)} to {number(interval.high, signed=signed)}"


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
        >>> verdict_text(Verdict.NONE, "smoothed")
        'no difference shown'
    """
    words = {Verdict.DIFFERS: "differs", Verdict.NONE: "no difference shown"}
    return words.get(verdict) or f"{name} {verdict.value}"


def comparison_text(comparison: Comparison, names: tuple[str, str]) -> str:
    """Say in a sentence whether two detectors differ in a number.

    Args:
        comparison: The comparison.
        names: What the detectors are called.

    Returns:
        The sentence.
    """
    one, other = (f"{name} ({number(value)})" for name, value in zip(names, (comparison.a, comparison.b), strict=True))
    difference = f"{names[1]} {MINUS} {names[0]} = {number(comparison.difference, signed=True)}"
    span = f"{comparison.interval.level:.0%} interval {interval_text(comparison.interval, signed=True)}"
    if not comparison.differs:
        return f"No difference shown between {one} and {other}: {difference}, {span} includes zero."
    judged = {Verdict.BETTER: " (better)", Verdict.WORSE: " (worse)"}.get(comparison.verdict, "")
    direction = "higher" if comparison.difference > 0 else "lower"
    return f"{other} is {direction}{judged} than {one}: {difference}, {span} excludes zero."


def findings(metrics: DetectionMetrics, point: OperatingPoint) -> list[Finding]:
    """Say what an evaluation shows.

    Args:
        metrics: The numbers of a detector.
        point: Its operating point.

    Returns:
        How good the boxes are, whether scores are too high or too low, whether they are calibrated, and the threshold.
    """
    return [_boxes(metrics), _confidence(metrics), *_calibration(metrics), _threshold(metrics, point)]


def comparison_findings(comparisons: Mapping[str, Comparison], names: tuple[str, str]) -> list[Finding]:
    """Say what a paired comparison shows, and what it does not.

    Args:
        comparisons: Comparison by key.
        names: What the detectors are called.

    Returns:
        How many headline numbers differ, each of those in a sentence, and how to take that.
    """
    shown = [comparisons[k] for k in HEADLINE if k in comparisons]
    differing = [c for c in shown if c.differs]
    if not shown:
        return [Finding("Differences", "Nothing can be compared", "No headline number is defined for both detectors.")]
    level = shown[0].interval.level
    chance = len(shown) * (1 - level)
    found = [
        Finding(
            "Differences",
            f"{len(differing)} of {len(shown)} headline numbers differ"
            if differing
            else f"No difference shown in {len(shown)} headline numbers",
            f"A number differs if the {level:.0%} interval of the paired difference, {names[1]} minus {names[0]} on "
            f"the same images, excludes zero. Of {len(shown)} such intervals, about {chance:.1f} would exclude zero by "
            "chance alone. An interval that includes zero does not show that the detectors are equal.",
        )
    ]
    return found + [Finding(c.key, NUMBERS[c.key].name, comparison_text(c, names)) for c in differing]


def _between(interval: Interval | None, *, signed: bool = False) -> str:
    if interval is None:
        return ""
    return f" ({interval.level:.0%} interval {interval_text(interval, signed=signed)})"


def _undefined(metrics: DetectionMetrics, key: str) -> bool:
    """Whether a number is None, or the -1 that the reference tools give instead."""
    return metrics.values[key] is None or key in metrics.reasons


def _boxes(metrics: DetectionMetrics) -> Finding:
    if _undefined(metrics, "AP"):
        return Finding("The boxes", "Cannot be judged", f"AP is undefined: {metrics.reasons['AP']}.")
    counts = metrics.counts
    text = (
        f"Average precision (AP) is {number(metrics.values['AP'])}{_between(metrics.intervals.get('AP'))}; where half "
        f"an overlap is enough, AP50 is {number(metrics.values['AP50'])}{_between(metrics.intervals.get('AP50'))}. "
        f"Measured on {_count(counts['images'], 'image')} with {_count(counts['objects'], 'object')} of "
        f"{_count(counts['classes_with_ground_truth'], 'class', 'classes')}."
    )
    return Finding("The boxes", f"AP {number(metrics.values['AP'])}", text)


def _confidence(metrics: DetectionMetrics) -> Finding:
    gap = metrics.values["signed_gap"]
    if gap is None:
        reason = metrics.reasons["signed_gap"]
        return Finding("The scores", "Cannot be judged", f"Their distance from the precision is undefined: {reason}.")
    interval = metrics.intervals.get("signed_gap")
    means = (
        f"Scores average {number(metrics.values['mean_score'])} and {_percent(metrics.values['precision'])} of the "
        f"detections are right, a gap of {number(gap, signed=True)}{_between(interval, signed=True)}. "
    )
    if interval is None:
        lead = "On average too high" if gap > 0 else "On average too low" if gap < 0 else "Right on average"
        means += "Without an interval it cannot be said whether that is more than chance. "
    elif interval.low > 0:
        lead = f"Over-confident by {number(gap)}"
    elif interval.high < 0:
        lead = f"Under-confident by {number(-gap)}"
    else:
        lead = "Neither over- nor under-confident, as far as can be shown"
        means += "The interval includes zero; errors of opposite sign can hide behind that, see the diagram. "
    iou = metrics.values["signed_gap_iou"]
    if iou is not None:
        between = _between(metrics.intervals.get("signed_gap_iou"), signed=True)
        means += f"Against the IoU of the boxes the gap is {number(iou, signed=True)}{between}."
    return Finding("The scores", lead, means.strip())


def _calibration(metrics: DetectionMetrics) -> list[Finding]:
    found = []
    for key, topic in (("LaECE0", "Scores as IoU"), ("DECE", "Scores as precision")):
        value, floor = metrics.values[key], metrics.floors.get(key)
        if value is None:
            found.append(Finding(topic, "Cannot be judged", f"{key} is undefined: {metrics.reasons[key]}."))
        elif floor is None:
            text = f"{key} is {number(value)}, but what a perfectly calibrated detector would read was not simulated."
            found.append(Finding(topic, "Cannot be judged", text))
        else:
            below = not floor.exceeded_by(value)
            text = (
                f"{key} is {number(value)}. With the same scores, a perfectly calibrated detector would read "
                f"{number(floor.median)} (median), and more than {number(floor.p95)} one time in twenty. "
            )
            text += (
                "A value within that range says nothing against calibration, nor does it prove it."
                if below
                else "The part above that range is not explained by chance."
            )
            found.append(Finding(topic, CALIBRATED.capitalize() if below else "Not calibrated", text))
    return found


def _threshold(metrics: DetectionMetrics, point: OperatingPoint) -> Finding:
    known, topic = point.known, "The operating point"
    if not len(known):
        reason = "no ground truth" if not point.n_objects else "no threshold beats having no detections at all"
        return Finding(topic, "There is none", f"No score threshold can be recommended: {reason}.")
    several = int(metrics.table.has_gt.sum()) > 1
    lead = f"Score threshold {number(float(np.median(known)))}" + (" (median)" if several else "")
    text = "It is where the LRP error, of misses, false positives and loose boxes together, is smallest. "
    if several:
        text = (
            f"Each class has its own, from {number(float(known[0]))} to {number(float(known[-1]))}, where its LRP "
            "error (misses, false positives and loose boxes together) is smallest; the table lists them. "
        )
        if without := int(metrics.table.has_gt.sum()) - len(known):
            text += f"For {_count(without, 'class', 'classes')} no threshold pays off. "
    text += (
        f"There, {point.n_tp:,} of {_count(point.n_objects, 'object')} are found ({_percent(point.sensitivity)}), with "
        f"{point.fp_per_image:.2f} false positives per image; {_percent(point.precision)} of the kept boxes are right. "
        "The thresholds were chosen on these same images: expect a little less on new ones."
    )
    return Finding(topic, lead, text)


def _count(n: int, one: str, many: str | None = None) -> str:
    return f"{n:,} {one if n == 1 else many or one + 's'}"


def _percent(value: float | None) -> str:
    return DASH if value is None or np.isnan(value) else f"{value:.0%}"


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
    return text.replace("\N{GREATER-THAN OR EQUAL TO}", ">=").replace(MINUS, "-").replace(DASH, "-")


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
