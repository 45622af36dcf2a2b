# SPDX-License-Identifier: AGPL-3.0-or-later
"""Turns a study into the rows that its page's template shows, all of them plain text."""

from __future__ import annotations

from collections.abc import Sequence

from det_ls.metrics.number import Number
from det_ls.report.rows import Row, flat
from det_ls.report.study_words import (
    STATUS,
    arm_lead,
    claim_status,
    condition_text,
    decision_lead,
    decision_text,
    requirement_text,
)
from det_ls.report.words import DASH, better_text, count, number, row_decimals, span_text, unjudged_text
from det_ls.studies.decision import ArmDecision, Claim, Decision, Outcome, Status
from det_ls.studies.records import CellResult, State
from det_ls.studies.statistics import (
    AP,
    GAP,
    Against,
    ArmNumbers,
    ConditionNumbers,
    SeedDifference,
    SeedMean,
    number_of_key,
)
from det_ls.uncertainty.paired import Verdict

_TONES = {Outcome.USE: "good", Outcome.HARM: "bad", Outcome.TOO_FEW: "open", Outcome.NOTHING: "open"}
_STATUS_TAGS = {Status.SHOWN: "good", Status.OPEN: "none", Status.REFUTED: "bad"}
_VERDICTS = {
    Verdict.BETTER: ("better", "good"),
    Verdict.WORSE: ("worse", "bad"),
    Verdict.DIFFERS: ("differs", "other"),
    Verdict.NONE: ("none shown", "none"),
    Verdict.UNJUDGED: ("no verdict", "none"),
}


def decision_row(decision: Decision, alone: bool) -> Row:
    """Show a decision.

    Args:
        decision: The decision.
        alone: Whether it is the only one.

    Returns:
        Condition, decision, the numbers behind it, and what was asked of the arm that it is about.
    """
    asked = []
    if decision.arm is not None and decision.route is not None:
        claim = next(c for c in decision.arm.claims if c.route is decision.route)
        asked = _asked(claim)
    return {
        "condition": "" if alone else condition_text(decision.condition),
        "lead": decision_lead(decision),
        "text": decision_text(decision),
        "tone": _TONES.get(decision.outcome, "plain"),
        "asked": asked,
        "arm": "" if decision.arm is None else decision.arm.arm.name,
    }


def _asked(claim: Claim) -> list[Row]:
    """List what a route asks for, and how far that is settled: of what was not measured nothing is."""
    statuses = [Status.OPEN if r.difference is None else r.status for r in claim.requirements]
    return [
        {"text": requirement_text(r), "status": STATUS[status], "tag": _STATUS_TAGS[status]}
        for r, status in zip(claim.requirements, statuses, strict=True)
    ]


def arm_rows(numbers: ConditionNumbers, decision: Decision) -> list[Row]:
    """Show the arms of a condition: stock, stock + Platt, then the others.

    Args:
        numbers: Their numbers.
        decision: What is shown of them.

    Returns:
        One row an arm: declared numbers with differences to stock and to stock + Platt, and what it comes to.
    """
    rows: list[Row] = []
    stock, decimals = numbers.stock, _table_decimals(numbers)
    if stock is not None:
        rows.append(_plain_row("stock", stock, "val", decimals))
        if stock.platt:
            gains = [_spread(numbers.platt_gain.get(key), decimals, signed=True) for key in (AP, GAP)]
            rows.append(_plain_row("stock + Platt", stock, "platt", decimals) | {"differences": [*gains, None, None]})
    for a, shown in zip(numbers.arms, decision.arms, strict=True):
        if decision.outcome is Outcome.NOTHING:  # of runs that find nothing, equal is no verdict
            rows.append(_plain_row(a.arm.name, a, "val", decimals))
        else:
            rows.append(_arm_row(a, shown, decimals))
    return rows


def _plain_row(name: str, numbers: ArmNumbers, split: str, decimals: int) -> Row:
    found = getattr(numbers, split)
    return {
        "name": name,
        "n": _seeds(numbers),
        "ap": _spread(found.get(AP), decimals),
        "gap": _spread(found.get(GAP), decimals),
        "gap_platt": _spread(numbers.platt.get(GAP), decimals) if split == "val" else None,
        "differences": [None] * 4,
        "lead": "",
        "claims": [],
        "tag": "none",
    }


def _arm_row(numbers: ArmNumbers, shown: ArmDecision, decimals: int) -> Row:
    asked = (
        (Against.STOCK, AP, _tag(shown.ap_not_worse.status, "not worse")),
        (Against.STOCK, GAP, _tag(shown.calibration_better.status, "better")),
        (Against.RIVAL, GAP, _tag(shown.rival_calibration_better.status, "better")),
        (Against.CALIBRATED, AP, _tag(shown.claims[0].requirements[0].status, "better")),
    )
    differences = []
    for side, key, tag in asked:
        cell = _spread(numbers.against.get(side, {}).get(key), decimals, signed=True)
        differences.append(cell and {**cell, "tag": tag})
    return _plain_row(numbers.arm.name, numbers, "val", decimals) | {
        "differences": differences,
        "lead": arm_lead(shown),
        "tag": "good" if shown.recommended else "bad" if shown.harmed else "none",
        "claims": [(c.route.value, claim_status(c), _asked(c)) for c in shown.claims],
    }


def _spread(one: SeedMean | SeedDifference | None, decimals: int, *, signed: bool = False) -> Row | None:
    """Show a mean over its interval."""
    if one is None:
        return None
    ends = span_text(one.low, one.high, signed=signed, decimals=decimals) if one.n > 1 else "one seed"
    value = number(one.mean, signed=signed, decimals=decimals)
    return {"value": value, "interval": ends, "tag": None}


def _table_decimals(numbers: ConditionNumbers) -> int:
    """Choose the decimals of a table: three, or four where the narrowest interval of AP needs them."""
    arms = [a for a in (numbers.stock, *numbers.arms) if a is not None]
    halves = [(a.val[AP].high - a.val[AP].low) / 2 for a in arms if AP in a.val and a.val[AP].n > 1]
    return 4 if halves and min(halves) < 0.001 else 3


def _tag(status: Status, what: str) -> tuple[str, str]:
    said = {Status.SHOWN: what, Status.OPEN: "not settled", Status.REFUTED: f"not {what}"}[status]
    if status is Status.REFUTED and what == "not worse":
        said = "worse"
    return said, _STATUS_TAGS[status]


def other_rows(numbers: ConditionNumbers, side: Against) -> list[Row]:
    """Show all differences of the arms of a condition but those of numbers that have no verdict.

    Args:
        numbers: Their numbers.
        side: What the arms are compared with.

    Returns:
        One row a number and arm, in the order of the catalogue's keys as they were measured.
    """
    rows = []
    keys = dict.fromkeys(key for a in numbers.arms for key in a.against.get(side, {}))
    for key in keys:
        about = number_of_key(key)
        if about is None:
            continue
        for a in numbers.arms:
            one = a.against.get(side, {}).get(key)
            if one is not None:
                rows.append(_difference_row(a.arm.name, key, about, one))
    return rows


def _difference_row(arm: str, key: str, about: Number, one: SeedDifference) -> Row:
    decimals = row_decimals(one.mean, *((one.low, one.high) if one.n > 1 else (None, None)))
    verdict, tag = _VERDICTS[one.verdict]
    return {
        "key": about.key,
        "boxes": "kept" if key.startswith("kept.") else "all",
        "better": better_text(about),
        "arm": arm,
        "difference": number(one.mean, signed=True, decimals=decimals),
        "interval": span_text(one.low, one.high, signed=True, decimals=decimals) if one.n > 1 else "",
        "n": str(one.n),
        "p": _p(one.p) if one.n > 1 else "",
        "flip": _p(one.p_flip) if one.n > 1 else "",
        "adjusted": "declared" if one.declared else _p(one.adjusted) if one.adjusted is not None else "",
        "verdict": verdict,
        "tag": tag,
        "why": unjudged_text(about),
    }


def _p(p: float) -> str:
    return "< 0.001" if p < 0.001 else f"{p:.3f}"


def _seeds(numbers: ArmNumbers) -> str:
    failed = f", {len(numbers.failed)} failed" if numbers.failed else ""
    return f"{count(len(numbers.done), 'seed')}{failed}"


def cell_rows(results: Sequence[CellResult]) -> list[Row]:
    """Show every cell with its config and its error.

    Args:
        results: The cells.

    Returns:
        One row a cell.
    """
    rows = []
    for r in results:
        measured = r.measured
        rows.append(
            {
                "name": r.cell.arm.name,
                "condition": condition_text(r.cell.condition),
                "seed": str(r.cell.seed),
                "state": r.state.value,
                "tag": {State.DONE: "good", State.FAILED: "bad"}.get(r.state, "none"),
                "ap": DASH if measured is None else number(measured.val.get(AP)),
                "train": DASH if measured is None else number(measured.train.get(AP)),
                "gap": DASH if measured is None else number(measured.val.get(GAP)),
                "platt": DASH if measured is None else number(measured.platt.get(GAP)),
                "time": _time(r.seconds),
                "error": r.error or "",
                "config": flat(r.config),
            }
        )
    return rows


def _time(seconds: float) -> str:
    if not seconds:
        return DASH
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.1f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def state_tiles(results: Sequence[CellResult], decisions: Sequence[Decision]) -> list[Row]:
    """Count cells, arms and seeds.

    Args:
        results: The cells.
        decisions: The decisions.

    Returns:
        The tiles.
    """
    done = sum(r.state is State.DONE for r in results)
    failed = sum(r.state is State.FAILED for r in results)
    left = len(results) - done - failed
    more = ", ".join(t for t in (f"{failed} failed" if failed else "", f"{left} not run" if left else "") if t)
    seeds = [d.seeds for d in decisions]
    hours = sum(r.seconds for r in results)
    arms = {r.cell.arm for r in results if not r.cell.arm.stock}
    return [
        {"name": "Runs finished", "value": f"{done} of {len(results)}", "more": more or "none failed", "words": False},
        {"name": "Smoothed arms", "value": str(len(arms)), "more": "each against stock", "words": False},
        {
            "name": "Pairs of seeds an arm",
            "value": str(min(seeds, default=0)),
            "more": "in the arm that has the fewest",
            "words": False,
        },
        {"name": "Time of all runs", "value": _time(hours), "more": "training and evaluation", "words": False},
    ]
