# SPDX-License-Identifier: AGPL-3.0-or-later
"""The catalogue: every number of an evaluation, once.

Value, replicate, floor, definition, direction, words and order all come from here. To add a number, add an entry and
the function that estimates it.
"""

from __future__ import annotations

import math
from functools import partial
from typing import Any

from det_ls.metrics.average_precision import average_precision_numbers
from det_ls.metrics.calibration import DECE_BINS, LAECE_BINS
from det_ls.metrics.class_errors import CLASS_ERRORS, ClassErrors, class_error_numbers
from det_ls.metrics.lrp import lrp_numbers, optimal_lrp_numbers
from det_ls.metrics.number import Family, Number, Population, Undefined, Unjudged
from det_ls.metrics.protocols import TP_IOU, Protocol
from det_ls.metrics.scores import ranking_numbers, score_numbers
from det_ls.metrics.table import DetectionTable, Floats
from det_ls.metrics.unbiased import BINS as UNBIASED_BINS
from det_ls.metrics.weighted import Progress, Weights, once

_AP = partial(
    Number, better="higher", family=average_precision_numbers, iou="0.50:0.95", counts="objects", optimistic=True
)
_AR = partial(Number, better="higher", family=None, iou="0.50:0.95", counts="objects")
_SCORES = partial(Number, family=score_numbers, unjudged=Unjudged.ALL_BOXES)
_LRP = partial(Number, better="lower", family=lrp_numbers, counts="objects", unjudged=Unjudged.ALL_BOXES)
_OLRP = partial(
    Number,
    better="lower",
    family=optimal_lrp_numbers,
    counts="objects",
    score_threshold="LRP-optimal for each class",
    optimistic=True,
)
_OF_SIZE = {
    "small": "Below 32² square pixels.",
    "medium": "32² to 96² square pixels.",
    "large": "Above 96² square pixels.",
}
_NO_SIZE = {
    "small": Undefined.NO_SMALL_OBJECTS,
    "medium": Undefined.NO_MEDIUM_OBJECTS,
    "large": Undefined.NO_LARGE_OBJECTS,
}
_LRP_PARTS = {
    "Loc": ("Part of LRP: looseness of the right boxes.", Undefined.NO_TRUE_POSITIVE),
    "FP": ("Part of LRP: false positives among the detections.", Undefined.NO_TRUE_POSITIVE),
    "FN": ("Part of LRP: objects missed.", Undefined.NO_GROUND_TRUTH),
}


def _class_error_pair(pair: ClassErrors) -> tuple[Number, Number]:
    """List LaECE and LaACE of one IoU threshold."""
    headline = pair.tau == 0 and not pair.lrp_optimal
    where, what = f", true positives from IoU {pair.tau:g}", ""
    if pair.lrp_optimal:
        where, what = ", at LRP-optimal thresholds", "Only detections at or above their class's threshold."
    common = partial(
        Number,
        better="lower",
        family=class_error_numbers,
        iou=pair.tau,
        score_threshold="LRP-optimal for each class at IoU 0" if pair.lrp_optimal else 0.0,
        needs=Undefined.NO_THRESHOLD if pair.lrp_optimal else Undefined.ALL_ZERO,
        headline=headline,
    )
    binned = common(
        pair.laece,
        "Calibration error against IoU" + ("" if headline else where),
        "How far scores are from the IoU that the boxes have, in bins, averaged over classes (Kuzucu et al. 2024)."
        if headline
        else what,
        bins=f"{LAECE_BINS} equal-width",
        biased=True,
        floor=True,
        unjudged=Unjudged.BINNED,
        rows=lambda table, protocol: pair.rows(table, protocol)[0],
    )
    absolute = common(
        pair.laace,
        "The same without bins" if headline else "Absolute error against IoU" + where,
        "Mean distance of a detection's score from its IoU." if headline else what,
        unjudged=Unjudged.SPREAD,
        rows=lambda table, protocol: pair.rows(table, protocol)[1],
    )
    return binned, absolute


_PAIRS = [_class_error_pair(pair) for pair in CLASS_ERRORS]

_ALL: tuple[Number, ...] = (
    _AP(
        "AP", "Average precision", "How well boxes are found and ranked, averaged over IoU 0.50 to 0.95.", headline=True
    ),
    _AP(
        "AP50",
        "Average precision, loose",
        "The same where a box needs to overlap its object by half.",
        iou=0.5,
        headline=True,
    ),
    _AP("AP75", "Average precision, strict", "The same where a box needs to fit closely.", iou=0.75, headline=True),
    *(
        _AR(f"AP_{size}", f"Average precision, {size} objects", what, area=size, needs=_NO_SIZE[size])
        for size, what in _OF_SIZE.items()
    ),
    _AR("AR1", "Average recall, 1 detection", "Objects found with one detection an image and class.", max_detections=1),
    _AR("AR10", "Average recall, 10 detections", "The same with ten.", max_detections=10),
    _AR("AR100", "Average recall, 100 detections", "The same with a hundred."),
    *(
        _AR(f"AR_{size}", f"Average recall, {size} objects", what, area=size, needs=_NO_SIZE[size])
        for size, what in _OF_SIZE.items()
    ),
    *_PAIRS[0],
    _LRP(
        "LRP",
        "Localisation recall precision error",
        "Misses, false positives and loose boxes in one error, all detections kept.",
        headline=True,
    ),
    _OLRP(
        "oLRP", "LRP at its best threshold", "The same error at the best score threshold of each class.", headline=True
    ),
    _SCORES(
        "DECE",
        "Calibration error against precision",
        "How far scores are from the fraction of right detections, in bins (Küppers et al. 2020).",
        "lower",
        bins=f"{DECE_BINS} equal-width",
        biased=True,
        floor=True,
        unjudged=Unjudged.BINNED,
        headline=True,
    ),
    _SCORES(
        "signed_gap",
        "Mean score minus precision",
        "Above 0: over-confident. Below 0: under-confident.",
        "zero",
        signed=True,
        headline=True,
    ),
    _SCORES(
        "brier", "Brier score", "Mean squared distance of scores from right (1) or wrong (0).", "lower", headline=True
    ),
    _SCORES(
        "nll",
        "Negative log-likelihood",
        "As the Brier score, but hard on scores that are surely wrong.",
        "lower",
        most=math.inf,
        headline=True,
    ),
    Number(
        "auroc",
        "Ranking (AUROC)",
        "Probability that a right detection outscores a wrong one; calibration does not change it.",
        "higher",
        ranking_numbers,
        headline=True,
        needs=Undefined.NO_TRUE_POSITIVE,
        unjudged=Unjudged.ALL_BOXES,
    ),
    Number(
        "DECE_equal_mass",
        "Calibration error, equal-mass bins",
        "As DECE, with equally many detections a bin.",
        "lower",
        ranking_numbers,
        bins=f"{DECE_BINS} equal-mass",
        biased=True,
        floor=True,
        unjudged=Unjudged.BINNED,
    ),
    _SCORES("mean_score", "Mean score", "", "neither", unjudged=Unjudged.NEITHER),
    _SCORES("precision", "Precision", "Right detections as a fraction of all.", "higher"),
    _SCORES(
        "signed_gap_iou",
        "Mean score minus mean IoU",
        "Above 0: over-confident about the boxes.",
        "zero",
        iou=0.0,
        signed=True,
    ),
    *(number for pair in _PAIRS[1:] for number in pair),
    *(
        _LRP(f"LRP_{part}", f"LRP, {part}", what, needs=needs, unjudged=Unjudged.PART)
        for part, (what, needs) in _LRP_PARTS.items()
    ),
    *(
        _OLRP(f"oLRP_{part}", f"oLRP, {part}, at the best thresholds", what, needs=needs, unjudged=Unjudged.PART)
        for part, (what, needs) in _LRP_PARTS.items()
    ),
)

_KEPT = partial(Number, family=None, population="kept", score_threshold="chosen on other images", headline=True)
_OF_KEPT: tuple[Number, ...] = (
    _KEPT("precision", "Precision", "Kept boxes that are right.", "higher"),
    _KEPT("recall", "Recall", "Objects that a kept box finds.", "higher", counts="objects"),
    _KEPT(
        "fp_per_image",
        "False positives an image",
        "Kept boxes that are wrong.",
        "lower",
        counts="images",
        most=math.inf,
    ),
    _KEPT(
        "LaECE0",
        "Calibration error against IoU",
        "How far scores are from the IoU of the boxes, in bins, averaged over classes (Kuzucu et al. 2024).",
        "lower",
        iou=0.0,
        bins=f"{LAECE_BINS} equal-width",
        biased=True,
        floor=True,
        unjudged=Unjudged.BINNED,
    ),
    _KEPT(
        "DECE",
        "Calibration error against precision",
        "How far scores are from the fraction of right boxes, in bins (Küppers et al. 2020).",
        "lower",
        bins=f"{DECE_BINS} equal-width",
        biased=True,
        floor=True,
        unjudged=Unjudged.BINNED,
    ),
    _KEPT(
        "signed_gap",
        "Mean score minus precision",
        "Above 0: over-confident. Below 0: under-confident.",
        "zero",
        signed=True,
    ),
    _KEPT(
        "signed_gap_iou",
        "Mean score minus mean IoU",
        "Above 0: over-confident about the boxes; wrong boxes count IoU 0.",
        "zero",
        iou=0.0,
        signed=True,
    ),
    _KEPT(
        "absolute_gap",
        "Distance of the mean score from the precision",
        "The gap without its sign: errors that cancel each other do not show.",
        "lower",
        size_of="signed_gap",
    ),
    _KEPT(
        "squared_error",
        "Squared calibration error, without bias",
        "Squared distance of scores from the fraction of right boxes: about 0 if calibrated, however sharp.",
        "lower",
        bins=f"{UNBIASED_BINS} equal-mass",
        signed=True,
    ),
    _KEPT(
        "recoverable",
        "Recoverable miscalibration",
        "What a free recalibration would gain: Brier score minus that after a cross-fitted Platt map.",
        "lower",
        signed=True,
        headline=False,
    ),
    _KEPT(
        "recoverable_nll",
        "Recoverable miscalibration, log-likelihood",
        "The same for the negative log-likelihood.",
        "lower",
        most=math.inf,
        signed=True,
        headline=False,
    ),
    _KEPT("LRP", "LRP error of the kept boxes", "Misses, false positives and loose boxes.", "lower", counts="objects"),
    _KEPT(
        "brier", "Brier score", "Mean squared distance of scores from right (1) or wrong (0).", "lower", headline=False
    ),
    _KEPT(
        "nll",
        "Negative log-likelihood",
        "As the Brier score, but hard on sure errors.",
        "lower",
        headline=False,
        most=math.inf,
    ),
    _KEPT("mean_score", "Mean score", "", "neither", headline=False, unjudged=Unjudged.NEITHER),
)

KEPT: dict[str, Number] = {number.key: number for number in _OF_KEPT}
"""The numbers of the boxes that a user keeps; :func:`det_ls.metrics.kept.kept_numbers` estimates them together."""
DECLARED: tuple[tuple[Population, str], ...] = (("all", "AP"), ("kept", "absolute_gap"))
"""The two numbers whose comparison is declared in advance; all others are adjusted for being many."""
NUMBERS: dict[str, Number] = {number.key: number for number in _ALL}
HEADLINE: tuple[str, ...] = tuple(number.key for number in _ALL if number.headline)
COCO_STATS: tuple[str, ...] = tuple(n.key for n in _ALL if n.family in (None, average_precision_numbers))
"""pycocotools' twelve numbers, in its order."""
FAMILIES: tuple[Family, ...] = tuple(dict.fromkeys(number.family for number in _ALL if number.family is not None))
BESIDES_AP = tuple(family for family in FAMILIES if family is not average_precision_numbers)
"""AP costs the most, and is computed apart."""


def estimate(
    table: DetectionTable,
    weights: Weights,
    protocol: Protocol,
    *,
    families: tuple[Family, ...] = FAMILIES,
    progress: Progress = iter,
) -> dict[str, Floats]:
    """Estimate numbers for R vectors of image weights.

    Args:
        table: Matched detections, or a subset of them by score.
        weights: (I, R) whole numbers, how often each image counts in each replicate.
        protocol: What is counted.
        families: Which numbers; by default all that need nothing but the table.
        progress: Wraps the replicates' numbers, for example in a progress bar.

    Returns:
        By key, (R,) values, NaN where a number is undefined.
    """
    found: dict[str, Floats] = {}
    for family in families:
        found |= family(table, weights, protocol, progress=progress).overall
    return found


def table_numbers(table: DetectionTable, protocol: Protocol) -> dict[str, float]:
    """Compute every number but COCO's average precision and recall.

    Args:
        table: Matched detections, or a subset of them by score.
        protocol: What is counted.

    Returns:
        Number by key, NaN where undefined.
    """
    return {
        key: float(values[0]) for key, values in estimate(table, once(table), protocol, families=BESIDES_AP).items()
    }


def definition(number: Number, table: DetectionTable, protocol: Protocol) -> dict[str, Any]:
    """Say how a number was counted: what is printed beside it.

    Args:
        number: The number.
        table: Matched detections.
        protocol: The protocol.

    Returns:
        ``protocol``, ``matching``, ``iou`` threshold, ``score_threshold``, ``bins`` (None without), and ``n`` with what
        it counts, ``n_counts``.
    """
    most = number.max_detections or table.max_detections
    n = int(table.n_gt.sum())
    if number.counts == "detections":
        iou = number.iou if isinstance(number.iou, float) else TP_IOU
        rows = protocol.matches(table, iou).kept if number.rows is None else number.rows(table, protocol)
        n = int((rows & table.has_gt[table.cls]).sum())
    return {
        "protocol": protocol.name,
        "matching": f"COCO greedy, at most {most} detection{'s' * (most > 1)} an image and class",
        "score_threshold": number.score_threshold,
        "bins": number.bins,
        "iou": number.iou,
        "n": n,
        "n_counts": number.counts,
    }


def reason_undefined(number: Number, table: DetectionTable, protocol: Protocol) -> Undefined:
    """Say why a number is undefined.

    Args:
        number: A number that is undefined.
        table: Matched detections.
        protocol: The protocol.

    Returns:
        The reason.
    """
    if not table.has_gt.any():
        return Undefined.NO_GROUND_TRUTH
    if number.key in COCO_STATS:
        return number.needs if number.area != "all" else Undefined.NO_GROUND_TRUTH
    if not table.n_detections:
        return Undefined.NO_DETECTIONS
    matches = protocol.matches(table, TP_IOU)
    if not protocol.counted(table, matches).any():
        return Undefined.NONE_COUNTS
    if number.family is ranking_numbers and matches.tp.any():
        return Undefined.NO_FALSE_POSITIVE
    return number.needs
