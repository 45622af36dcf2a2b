# SPDX-License-Identifier: AGPL-3.0-or-later
"""What an evaluation shows, in sentences that follow from its numbers by fixed rules."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from det_ls.evaluation.measure import DetectionMetrics
from det_ls.report.measured import measured
from det_ls.report.operating import chosen, no_threshold
from det_ls.report.training import cautions
from det_ls.report.words import CALIBRATED, between, count, number, percent

FEW_GROUPS = 20
UNDERSTOOD = {"LaECE0": "Scores as IoU", "DECE": "Scores as precision"}


@dataclass(frozen=True)
class Finding:
    """One thing that the numbers say.

    Attributes:
        topic: What it is about.
        lead: The result, in a few words.
        text: The numbers behind it.
        caution: Whether it warns.
    """

    topic: str
    lead: str
    text: str
    caution: bool = False


def findings(metrics: DetectionMetrics, protocol: Mapping[str, Any]) -> list[Finding]:
    """Say what an evaluation shows.

    Args:
        metrics: The numbers of a detector.
        protocol: Its settings, and how the model was trained.

    Returns:
        How good the boxes are, which threshold to use, whether the kept boxes' scores are too high or too low and
        whether they are calibrated, and what to be careful about.
    """
    return [
        _boxes(metrics),
        _operating_point(metrics, protocol),
        _confidence(metrics),
        *_calibration(metrics),
        *(Finding("Careful", lead, text, True) for lead, text in cautions(protocol.get("training"))),
        *group_findings(protocol.get("groups")),
    ]


def group_findings(facts: object) -> list[Finding]:
    """Say what is known of images that are not independent.

    Args:
        facts: ``protocol["groups"]``; None where each image is its own group, or a specification without facts.

    Returns:
        The number of groups with how alike their images are, and a warning where train has some of them too.
    """
    if not isinstance(facts, Mapping) or "n" not in facts:
        return []
    text = (
        f"The {count(facts['images'], 'image')} come in {count(facts['n'], 'group')} ({facts['spec']})"
        ", which bootstrap and folds keep together. "
    )
    if facts["correlation"] is None:
        text += "How alike the images of a group are could not be estimated."
    else:
        text += (
            "The intra-group correlation of an image's mean score minus precision is "
            f"{number(facts['correlation'])}: the variance of a mean is {facts['design_effect']:.2f} times that of as "
            "many independent images (design effect)."
        )
    if facts["n"] < FEW_GROUPS:
        text += " So few groups make every interval a rough one."
    found = [Finding("Groups", count(facts["n"], "group"), text)]
    if facts["n_shared"]:
        named = ", ".join(facts["shared_with_train"])
        more = f" and {facts['n_shared'] - len(facts['shared_with_train'])} more"
        found.append(
            Finding(
                "Careful",
                f"Train has {facts['n_shared']:,} of these groups too",
                f"The model has learnt from images of {named}{more if facts['n_shared'] > 5 else ''}: numbers on new "
                "groups will be worse.",
                True,
            )
        )
    return found


def _boxes(metrics: DetectionMetrics) -> Finding:
    ap, ap50 = (measured(metrics, ("all", key)) for key in ("AP", "AP50"))
    if ap.reason or ap50.reason:
        return Finding("The boxes", "Cannot be judged", f"AP is undefined: {metrics.reasons['AP']}.")
    counts = metrics.counts
    text = (
        f"Average precision (AP) is {number(ap.value)}{between(ap.interval)}; where half an overlap is enough, AP50 is "
        f"{number(ap50.value)}{between(ap50.interval)}. Both count all boxes, whatever their score. "
        f"Measured on {count(counts['images'], 'image')} with {count(counts['objects'], 'object')} of "
        f"{count(counts['classes_with_ground_truth'], 'class', 'classes')}."
    )
    return Finding("The boxes", f"AP {number(ap.value)}", text)


def _operating_point(metrics: DetectionMetrics, protocol: Mapping[str, Any]) -> Finding:
    point = chosen(metrics, protocol)
    lead = {"there is none": "There is none", "one a class": "One threshold a class"}.get(point.typed, point.typed)
    return Finding("The operating point", lead, point.text)


def _confidence(metrics: DetectionMetrics) -> Finding:
    gap, topic = measured(metrics, ("kept", "signed_gap")), "The scores of the kept boxes"
    if gap.value is None:
        return Finding(topic, "Cannot be judged", f"Their distance from the precision is undefined: {gap.reason}.")
    boxes = count(metrics.kept.counts["boxes"], "box", "boxes")
    mean, precision = (metrics.kept.values[key] for key in ("mean_score", "precision"))
    means = (
        f"They average {number(mean)} and {percent(precision)} of the {boxes} "
        f"are right, a gap of {number(gap.value, signed=True)}{between(gap.interval, signed=True)}. "
    )
    if gap.interval is None:
        lead = "On average too high" if gap.value > 0 else "On average too low" if gap.value < 0 else "Right on average"
        means += "Without an interval it cannot be said whether that is more than chance. "
    elif gap.interval.low > 0:
        lead = f"Over-confident by {number(gap.value)}"
    elif gap.interval.high < 0:
        lead = f"Under-confident by {number(-gap.value)}"
    else:
        lead = "Neither over- nor under-confident, as far as can be shown"
        means += "The interval includes zero; errors of opposite sign can hide behind that, see the diagram. "
    iou = measured(metrics, ("kept", "signed_gap_iou"))
    if iou.value is not None:
        gap_iou = f"{number(iou.value, signed=True)}{between(iou.interval, signed=True)}"
        means += f"Against the IoU of the boxes the gap is {gap_iou}."
    return Finding(topic, lead, means.strip())


def _calibration(metrics: DetectionMetrics) -> list[Finding]:
    found: list[Finding] = []
    if no_threshold(metrics) and not metrics.kept.counts["boxes"]:
        return found
    for key, topic in UNDERSTOOD.items():
        one = measured(metrics, ("kept", key))
        if one.value is None:
            found.append(Finding(topic, "Cannot be judged", f"{key} of the kept boxes is undefined: {one.reason}."))
        elif one.floor is None:
            text = (
                f"{key} of the kept boxes is {number(one.value)}, but what a perfectly calibrated detector would read "
                "was not simulated."
            )
            found.append(Finding(topic, "Cannot be judged", text))
        else:
            below = not one.floor.exceeded_by(one.value)
            text = (
                f"{key} of the kept boxes is {number(one.value)}. With the same scores, a perfectly calibrated "
                f"detector would read {number(one.floor.median)} (median), and more than {number(one.floor.p95)} one "
                "time in twenty. "
            )
            text += (
                "A value within that range says nothing against calibration, nor does it prove it."
                if below
                else "The part above that range is not explained by chance."
            )
            found.append(Finding(topic, CALIBRATED.capitalize() if below else "Not calibrated", text))
    return found
