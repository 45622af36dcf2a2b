# SPDX-License-Identifier: AGPL-3.0-or-later
"""One number of an evaluation with all that is known of it, whichever boxes it counts; and the order they come in."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from det_ls.evaluation.measure import DetectionMetrics
from det_ls.metrics.catalogue import HEADLINE, KEPT, NUMBERS
from det_ls.metrics.number import Number, Population
from det_ls.report.words import count, percent
from det_ls.uncertainty.bootstrap import number_of
from det_ls.uncertainty.floor import Floor
from det_ls.uncertainty.intervals import Interval

Which = tuple[Population, str]
LOW_SCORE = 0.05

FIRST: tuple[Which, ...] = (("all", "AP"), ("all", "AP50"))
LEADING: tuple[Which, ...] = (*FIRST, *(("kept", key) for key, about in KEPT.items() if about.headline))
"""What a page leads with: average precision of all boxes, then the boxes that a user keeps."""
OTHER_KEPT: tuple[Which, ...] = tuple(("kept", key) for key, about in KEPT.items() if not about.headline)
OF_ALL: tuple[Which, ...] = tuple(("all", key) for key in HEADLINE if ("all", key) not in FIRST)
"""Of all boxes what the literature prints."""
OTHERS: tuple[Which, ...] = tuple(("all", key) for key in NUMBERS if key not in HEADLINE)


@dataclass(frozen=True)
class Measured:
    """One number of an evaluation.

    Attributes:
        about: What it is.
        value: Its value; None where undefined.
        reason: Why it is undefined, else empty.
        interval: Its interval, if there is one.
        floor: Its floor, if there is one.
        definition: How it was counted.
    """

    about: Number
    value: float | None
    reason: str
    interval: Interval | None
    floor: Floor | None
    definition: Mapping[str, Any]


def measured(metrics: DetectionMetrics, which: Which) -> Measured:
    """Look a number up.

    Args:
        metrics: The numbers of a detector.
        which: What it counts, and its key.

    Returns:
        The number.
    """
    population, key = which
    about = number_of(population, key)
    if population == "all":
        reason = metrics.reasons.get(key, "")
        value = metrics.values[key]
        if reason and value is not None:
            reason += f" (shown as {value:g} by the reference tools)"
        of = (metrics.intervals.get(key), metrics.floors.get(key), metrics.definitions[key])
        return Measured(about, value, reason, *of)
    kept = metrics.kept
    value = kept.values[key]
    return Measured(
        about,
        value,
        "" if value is not None else _why_kept(metrics),
        kept.intervals.get(key),
        kept.floors.get(key),
        kept.definitions[key],
    )


def _why_kept(metrics: DetectionMetrics) -> str:
    counts = metrics.kept.counts
    if not counts["objects"]:
        return "no ground truth"
    if not metrics.table.n_detections:
        return "no detections"
    return "too few boxes are kept" if counts["boxes"] else "no box is kept"


def population_text(metrics: DetectionMetrics, population: Population, protocol: Mapping[str, Any]) -> str:
    """Say which boxes a number counts, and how many there are.

    Args:
        metrics: The numbers of a detector.
        population: What is counted.
        protocol: How the predictions came about.

    Returns:
        A few words.
    """
    if population == "kept":
        return f"kept boxes ({metrics.kept.counts['boxes']:,})"
    conf = protocol.get("conf")
    least = f"with a score of at least {conf:g}" if isinstance(conf, float) else "that were given"
    score = metrics.table.score
    low = f", {percent(float(np.mean(score < LOW_SCORE)))} of them score below {LOW_SCORE}" if len(score) else ""
    return f"all {count(metrics.table.n_detections, 'box', 'boxes')} {least}{low}"
