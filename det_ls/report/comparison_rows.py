# SPDX-License-Identifier: AGPL-3.0-or-later
"""Turns a comparison into the rows and tiles that its page shows, all of them plain text."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from det_ls.evaluation.comparison import PairedEvaluation
from det_ls.metrics.number import Number
from det_ls.report.comparison_words import label, p_text, runs_text
from det_ls.report.differences import Difference, Pair
from det_ls.report.measured import Which, measured
from det_ls.report.words import better_text, interval_text, number, span_text, unjudged_text, verdict_text
from det_ls.uncertainty.floor import Floor
from det_ls.uncertainty.paired import Verdict

Row = dict[str, Any]
_TAGS = {
    Verdict.BETTER: "good",
    Verdict.WORSE: "bad",
    Verdict.DIFFERS: "other",
    Verdict.NONE: "none",
    Verdict.UNJUDGED: "none",
}


def difference_row(pair: PairedEvaluation, which: Which, found: Difference | None) -> Row:
    """Show a number of two detectors with its difference, all to the same decimal.

    Args:
        pair: The comparison.
        which: What the number counts, and its key.
        found: Its difference; None where there is none.

    Returns:
        The row.
    """
    one, other = (measured(e.metrics, which) for e in (pair.a, pair.b))
    about = one.about
    counts = "kept boxes" if about.population == "kept" else "all boxes"
    if found is None:
        reason = one.reason or other.reason or "no bootstrap sample defines it for both"
        return {**_about(about, counts), "reason": reason}
    return shown_row(found, counts, (one.floor, other.floor))


def shown_row(found: Difference, counts: str, floors: tuple[Floor | None, Floor | None]) -> Row:
    """Show a difference with the numbers of both, all to the same decimal.

    Args:
        found: The difference.
        counts: What the number counts, in words.
        floors: What each would read if it were calibrated; None for a number without floors.

    Returns:
        The row.
    """
    decimals, signed = found.decimals, found.about.signed
    ends = ["" if floor is None else number(floor.p95, decimals=decimals) for floor in floors]
    several = len(found.a) > 1 or len(found.b) > 1

    def runs(values: tuple[float, ...]) -> str:
        return ", ".join(number(v, signed=signed, decimals=decimals) for v in values) if several else ""

    return {
        **_about(found.about, counts),
        "a": number(found.mean_a, signed=signed, decimals=decimals),
        "b": number(found.mean_b, signed=signed, decimals=decimals),
        "runs_a": runs(found.a),
        "runs_b": runs(found.b),
        "floor_a": ends[0],
        "floor_b": ends[1],
        "difference": number(found.difference, signed=True, decimals=decimals),
        "interval": span_text(found.low, found.high, signed=True, decimals=decimals),
        "images": interval_text(found.images, signed=True, decimals=decimals),
        "p": "" if found.adjusted is None else p_text(found),
        "verdict": verdict_text(found.verdict, ""),
        "why": unjudged_text(found.about) if found.verdict is Verdict.UNJUDGED else "",
        "tag": _TAGS[found.verdict],
    }


def _about(about: Number, counts: str) -> Row:
    """Say what a number is."""
    return {
        "key": about.key,
        "name": about.name,
        "what": about.what,
        "better": better_text(about),
        "population": counts,
        "reason": "",
    }


def difference_tiles(pair: Pair, found: Mapping[Which, Difference]) -> list[Row]:
    """Show the declared differences, what else differs, and whether seeds were measured.

    Args:
        pair: The comparison.
        found: Its differences.

    Returns:
        The tiles.
    """
    tiles: list[Row] = [
        {
            "name": f"{label(d)}, difference",
            "value": number(d.difference, signed=True, decimals=d.decimals),
            "more": f"{span_text(d.low, d.high, signed=True, decimals=d.decimals)}: "
            f"{verdict_text(d.verdict, pair.names[1])}",
            "words": False,
        }
        for d in found.values()
        if d.declared
    ]
    judged = [d for d in found.values() if not d.declared and d.verdict is not Verdict.UNJUDGED]
    tiles.append(
        {
            "name": "Other numbers that differ",
            "value": f"{sum(d.differs for d in judged)} of {len(judged)}",
            "more": "p-values adjusted for being many (Holm)",
            "words": False,
        }
    )
    seeds = pair.seeds is not None
    tiles.append(
        {
            "name": "Training seeds",
            "value": runs_text(pair) if seeds else "not measured",
            "more": ("paired by seed" if pair.paired else "not paired") if seeds else "no verdict on the method",
            "words": True,
        }
    )
    return tiles
