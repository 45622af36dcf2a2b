# SPDX-License-Identifier: AGPL-3.0-or-later
"""What a calibration does and shows, in sentences that follow from its numbers by fixed rules."""

from __future__ import annotations

import math

from det_ls.calibration.judge import Change
from det_ls.calibration.results import Calibration, Estimate
from det_ls.report.findings import Finding
from det_ls.report.words import count, number, row_decimals, span_text

METHODS = {
    "platt": "Platt scaling",
    "temperature": "Temperature scaling",
    "beta": "Beta calibration",
    "isotonic": "Isotonic regression",
    "desmooth": "Exact de-smoothing",
}
PROPER = ("brier_iou", "brier", "nll")
_AIM = {
    "iou": "the IoU that a box has with its object, 0 for a false positive",
    "tp": "how often a box is right at IoU 0.5",
    "": "the scores of a model that was trained on unsmoothed targets",
}
_WEIGHED = {
    "score": "each weighed by its score",
    "above": "those that score at least 0.05",
    "all": "all of the same weight",
}
_SAMPLES = (0.25, 0.5, 0.75, 0.9)
_MANY_MORE = 1.1


def calibration_findings(result: Calibration) -> list[Finding]:
    """Say what a calibration does, whether it helps, and what changes for a user.

    Args:
        result: The calibration.

    Returns:
        The map, the verdict on the kept boxes, the threshold to type, what its target means for the gap to the
        precision, and the pipeline with the folded model.
    """
    found = [_map(result), _verdict(result), _threshold(result)]
    if result.target == "iou" and result.iou_minus_precision < 0:
        found.append(_aims_at_iou(result))
    found.append(_pipeline(result))
    if result.record.get("split") == "train":
        text = (
            "It was fitted and judged on images that the model was trained on, where scores look better than they are."
        )
        found.append(Finding("Careful", "The model knows these images", text, True))
    return found


def judgement(change: Change) -> str:
    """Read the difference of a number whose lower values are better by its interval.

    Args:
        change: The number before and after.

    Returns:
        ``better``, ``worse`` or ``no difference shown``; ``no interval`` without one.

    Example:
        >>> judgement(Change(0.2, 0.1, difference_interval=(-0.15, -0.05)))
        'better'
    """
    span = change.difference_interval
    if span is None:
        return "no interval"
    return "better" if span[1] < 0 else "worse" if span[0] > 0 else "no difference shown"


def change_text(change: Change, *, signed: bool = False) -> str:
    """Write a number before and after, with the interval of the difference.

    Args:
        change: The number.
        signed: Whether to write a plus.

    Returns:
        For example ``0.186 to 0.059 (difference −0.127, 95% interval −0.141 to −0.071)``.
    """
    span = change.difference_interval
    decimals = row_decimals(change.difference, *(span or (None, None)))
    ends = "" if span is None else f", 95% interval {span_text(*span, signed=True, decimals=decimals)}"
    first, last = (number(v, signed=signed, decimals=decimals) for v in (change.before, change.after))
    return f"{first} to {last} (difference {number(change.difference, signed=True, decimals=decimals)}{ends})"


def conf_text(value: float) -> str:
    """Write a threshold as it is typed, rounded down to four digits so that it loses no box.

    Args:
        value: The threshold.

    Returns:
        The number.

    Example:
        >>> conf_text(0.34567), conf_text(0.31), conf_text(0.00081239)
        ('0.3456', '0.31', '0.0008123')
    """
    if not 0 < value < 1:
        return f"{value:g}"
    scale = 10.0 ** (3 - math.floor(math.log10(value)))
    return f"{math.floor(value * scale + 1e-6) / scale:.4g}"


def typed_before_after(result: Calibration) -> tuple[str, str] | None:
    """Write what to type as ``conf=`` before and after.

    Args:
        result: The calibration.

    Returns:
        Both; None where classes have thresholds of their own, or there is none.
    """
    ends = [{getattr(t, end) for t in result.thresholds} for end in ("before", "after")]
    if [len(end) for end in ends] != [1, 1]:
        return None
    before, after = (conf_text(end.pop()) for end in ends)
    return f"conf={before}", f"conf={after}"


def parameters_text(estimate: Estimate, *, offset: bool = True) -> str:
    """Write slope and offset with their intervals.

    Args:
        estimate: The estimate.
        offset: Whether there is an offset.

    Returns:
        For example ``a = 0.460 (0.400 to 0.520), b' = −0.85 (−0.93 to −0.77)``.
    """
    named = [("a", estimate.a, estimate.a_interval)]
    if offset:
        named.append(("b\N{PRIME}", estimate.b, estimate.b_interval))
    parts = []
    for name, value, span in named:
        decimals = row_decimals(value, *(span or (None, None)))
        ends = "" if span is None else f" ({span_text(*span, decimals=decimals)})"
        parts.append(f"{name} = {number(value, decimals=decimals)}{ends}")
    return ", ".join(parts)


def _pull(result: Calibration) -> str:
    """Say how far the shared map was pulled towards no change; nothing where that is under one percent."""
    kept = result.estimates[0].kept
    if result.map.classes or kept >= 0.99:
        return ""
    if kept == 0:
        return "These detections cannot tell the scores from calibrated ones, so scores stay as they are. "
    return (
        f"That is the fit, drawn {number(100 * (1 - kept), decimals=0)}% of the way towards no change, as far as these "
        "detections cannot tell the two apart; the intervals are those of the fit. "
    )


def _map(result: Calibration) -> Finding:
    """Say what the map does."""
    counts, classes = result.counts, result.map.classes
    whose = f"one map for each of {len(classes)} classes" if classes else "one map for all classes"
    text = ""
    if result.folds and result.estimates:
        shared = parameters_text(result.estimates[0], offset=result.method == "platt")
        formula = "a z + b\N{PRIME}" if result.method == "platt" else "a z"
        text = f"A score's logit z becomes {formula}, {'shared ' if classes else ''}{shared}. {_pull(result)}"
    if not classes:
        moved = ", ".join(f"{s:g} becomes {number(result.carried(s)[0], decimals=2)}" for s in _SAMPLES)
        text += f"A score of {moved}. "
    else:
        text += "Maps of classes with few boxes are drawn towards the shared one. "
    text += f"It aims at {_AIM[result.target]}. "
    if counts["fitted"]:
        text += (
            f"Fitted on {count(counts['fitted'], 'box', 'boxes')} of {count(counts['images'], 'image')}, "
            f"{counts['matched']:,} of them matched, {_WEIGHED[result.weighting]}. "
        )
    if not result.folds:
        text += "It does not fold into a model: it needs det-ls at inference."
    elif result.pipeline:
        text += "It is folded into the class convolutions: an ordinary checkpoint, which needs no other code."
    else:
        text += "Such a map can be folded into a model (det-ls calibrate model=...)."
    return Finding("The map", f"{METHODS[result.method]}, {whose}", text)


def _verdict(result: Calibration) -> Finding:
    """Say whether the kept boxes' scores are better, by the proper score of what the map aims at."""
    kept = result.numbers["kept"]
    change = kept[result.judged_by]
    what = "IoU" if result.judged_by == "brier_iou" else "right (1) or wrong (0)"
    if math.isnan(change.before):
        return Finding("Kept boxes", "Not judged", "No box is kept at the operating point.", True)
    read = judgement(change)
    meant, other = ("IoUs", "brier") if result.judged_by == "brier_iou" else ("the chance to be right", "brier_iou")
    leads = {
        "better": f"Better as {meant}",
        "worse": f"Worse as {meant}: keep the old scores",
        "no difference shown": "No difference shown",
        "no interval": "Not judged: no intervals were asked for",
    }
    if judgement(kept[other]) == "worse":
        leads["better"] += f", worse as {'IoUs' if other == 'brier_iou' else 'the chance to be right'}"
    binned = "LaECE0" if result.judged_by == "brier_iou" else "DECE"
    text = (
        f"Squared distance of scores from {what}, of the {result.counts['kept']:,} kept boxes: {change_text(change)}. "
        f"{binned}: {change_text(kept[binned])}. {cross_fitted_text(result)}"
    )
    return Finding("Kept boxes", leads[read], text, read == "worse")


def cross_fitted_text(result: Calibration) -> str:
    """Say on which images the numbers were measured.

    Args:
        result: The calibration.

    Returns:
        One sentence or two.
    """
    counts = result.counts
    if not counts["folds"]:
        return "Nothing was fitted, so the numbers are of all images."
    of = "" if counts["groups"] == counts["images"] else f" in {counts['groups']:,} groups that were kept together"
    return (
        f"Cross-fitted: the {count(counts['images'], 'image')}{of} fall into {counts['folds']} folds, and each box was "
        "calibrated by a map of the other folds. The shipped map is fitted on all of them."
    )


def _threshold(result: Calibration) -> Finding:
    """Say what to type."""
    typed = typed_before_after(result)
    if typed is None:
        if not result.thresholds:
            return Finding("Operating point", "There is none", "No class has objects.", True)
        ends = [conf_text(min(getattr(t, end) for t in result.thresholds)) for end in ("before", "after")]
        text = (
            "Classes have thresholds of their own; the table shows each before and after, rounded down so that no box "
            "is lost. Where only one can be typed, the smallest loses none of them: "
            f"conf={ends[0]} becomes conf={ends[1]}."
        )
        return Finding("Operating point", "One a class, before and after", text)
    n_tp, n_fp = (sum(getattr(t, key) for t in result.thresholds) for key in ("n_tp", "n_fp"))
    text = (
        f"The one before keeps {n_tp:,} right and {n_fp:,} wrong boxes of these images, which it was fitted to; the "
        "one after keeps them too. A threshold that was chosen for the old scores has to be exchanged."
    )
    return Finding("Operating point", f"{typed[0]} becomes {typed[1]}", text)


def _aims_at_iou(result: Calibration) -> Finding:
    """Say that scores which meet the IoU lie below the precision."""
    gap = result.numbers["kept"]["signed_gap"]
    where = "below 0" if gap.after < 0 else "down"
    text = (
        f"A right box has an IoU below 1: the kept boxes' mean IoU is {number(-result.iou_minus_precision)} below "
        "their precision, and scores that meet the IoU are that much below the precision too. So target=iou moves the "
        f"signed gap to the precision {where}: here {change_text(gap, signed=True)}. Where a score shall be the chance "
        "that a box is right, use target=tp."
    )
    return Finding("Score minus precision", "Scores aim at the IoU, not at the precision", text)


def _pipeline(result: Calibration) -> Finding:
    """Say what became of AP and the number of boxes."""
    if not result.pipeline:
        text = (
            "Within a class the ranking of the boxes stays, and so does its AP; nothing else of the detections changes."
            if result.folds
            else "Within a class the map turns no ranking, but scores that become equal can change AP."
        )
        return Finding("Average precision", "Not measured again: the boxes are the same", text)
    ap, boxes = result.pipeline["AP"], result.pipeline["detections"]
    text = (
        "Predicted again with the folded model, on the images it was fitted on: AP "
        f"{number(ap.before, decimals=4)} and {number(ap.after, decimals=4)}, {boxes.before:,.0f} and "
        f"{boxes.after:,.0f} boxes. "
    )
    more = boxes.after > _MANY_MORE * boxes.before or boxes.after < boxes.before / _MANY_MORE
    conf = result.record.get("settings", {}).get("conf")
    if more and conf:
        new = min(result.carried(float(conf)))
        text += (
            f"The boxes differ because conf={conf:g} cuts elsewhere: conf={conf_text(new)} keeps what it kept before."
        )
    lead = f"AP {number(ap.before)} before, {number(ap.after)} after"
    return Finding("The pipeline", lead + (", with other boxes" if more else ""), text, more)
