# SPDX-License-Identifier: AGPL-3.0-or-later
"""What a study decides, in sentences that follow from its numbers by fixed rules, and those rules."""

from __future__ import annotations

import math
from collections.abc import Sequence

from det_ls.report.words import MINUS, number, row_decimals, span_text
from det_ls.studies.decision import (
    ALPHA,
    LOSS_ALPHA,
    MARGINS,
    ArmDecision,
    Claim,
    Decision,
    Kind,
    Outcome,
    Requirement,
    Route,
    Status,
)
from det_ls.studies.mean_tests import MOST_SEEDS
from det_ls.studies.records import Condition
from det_ls.studies.statistics import AP, GAP, SQUARED, Against, ConditionNumbers, SeedDifference

NAMES = {AP: "AP", GAP: "score-precision gap of the kept boxes", SQUARED: "squared calibration error of the kept boxes"}
STATUS = {Status.SHOWN: "shown", Status.OPEN: "not settled", Status.REFUTED: "ruled out"}
_SIDES = {
    Against.STOCK: "stock",
    Against.RIVAL: "stock + Platt",
    Against.CALIBRATED: "stock, both with Platt",
}


def condition_text(condition: Condition) -> str:
    """Name a condition.

    Args:
        condition: The condition.

    Returns:
        What differs from clean labels on all images.

    Example:
        >>> condition_text(Condition()), condition_text(Condition(flip=0.3, fraction=0.5))
        ('labels as they are', '30% of classes flipped, 50% of the images')
    """
    parts = [
        f"{condition.flip:.0%} of classes flipped" if condition.flip else "",
        f"{condition.drop:.0%} of boxes dropped" if condition.drop else "",
        f"boxes jittered by {condition.jitter:g}" if condition.jitter else "",
    ]
    labels = ", ".join(p for p in parts if p) or "labels as they are"
    return labels if condition.fraction == 1 else f"{labels}, {condition.fraction:.0%} of the images"


def decision_lead(decision: Decision) -> str:
    """Say what is decided, in a line.

    Args:
        decision: The decision.

    Returns:
        For example ``redistribute 0.1, then calibrate: use it``.
    """
    arm = decision.arm.arm.name if decision.arm is not None else ""
    if decision.outcome is Outcome.USE:
        return f"{arm}{', then calibrate' if decision.route is Route.BOXES and decision.platt_helps else ''}: use it"
    if decision.outcome is Outcome.CALIBRATE:
        return "No arm beats Platt: do not smooth, calibrate"
    if decision.outcome is Outcome.TOO_FEW:
        return f"Too few seeds to tell: {more_text(decision)}"
    if decision.outcome is Outcome.NOTHING:
        return "No run finds any object: there is nothing to compare"
    if decision.outcome is Outcome.HARM:
        return "Every arm is worse than stock: do not smooth"
    return "No arm is better by enough to matter: keep stock"


def more_text(decision: Decision) -> str:
    """Say how many more seeds are needed.

    Args:
        decision: A decision for which there are too few.

    Returns:
        For example ``about 4 more``.
    """
    if decision.more_seeds is not None:
        return f"about {decision.more_seeds:,} more"
    if unmeasured := _unmeasured(decision):
        return f"too few runs have {' and '.join(unmeasured)} to compare"
    if decision.seeds < 2:
        return "at least 2 a condition and arm are needed"
    return f"not even {MOST_SEEDS} would do"


def _unmeasured(decision: Decision) -> list[str]:
    """Name what is open of the arm that a decision is about although runs pair, as fewer than two pairs define it."""
    arm = decision.arm
    if arm is None or arm.ap_not_worse.difference is None or arm.ap_not_worse.difference.n < 2:
        return []
    asked = [r for c in arm.claims if c.route is decision.route for r in c.requirements if r.status is Status.OPEN]
    left = [r for r in asked if r.difference is None or r.difference.n < 2]
    return list(dict.fromkeys(f"{_SHORT[r.key]}{' with Platt' * (r.against is Against.CALIBRATED)}" for r in left))


def decision_text(decision: Decision) -> str:
    """Give the numbers behind a decision.

    Args:
        decision: The decision.

    Returns:
        A few sentences.
    """
    if decision.outcome is Outcome.NOTHING:
        return "AP is 0 in all finished runs. Train longer, or look at the data set and its labels."
    parts = [_behind(decision)]
    if _unmeasured(decision):
        parts.append(
            "A run that finds no object has neither a gap nor a Platt map: train longer, or look at the data set and "
            "its labels."
        )
    platt = decision.platt
    if platt is not None and platt.difference is not None and decision.outcome is not Outcome.USE:
        what = {
            Status.SHOWN: "A Platt map betters stock for free",
            Status.OPEN: "Whether a Platt map betters stock is not settled",
            Status.REFUTED: "A Platt map does not better stock by enough to matter",
        }[platt.status]
        p = f", one-sided {_p(platt.p)}" if platt.difference.n > 1 else ""
        parts.append(f"{what}: gap {difference_text(platt.difference, level=p)}.")
        if decision.outcome is Outcome.TOO_FEW:
            parts.append(f"Until then {'calibrate stock' if decision.platt_helps else 'keep stock'}.")
    if decision.detectable is not None and decision.outcome is not Outcome.USE:
        parts.append(
            f"With {decision.seeds} seeds this study finds a gain of {number(decision.detectable)} in AP 4 times in 5."
        )
    return " ".join(p for p in parts if p)


def _behind(decision: Decision) -> str:
    arm, route = decision.arm, decision.route
    if not decision.arms:
        return "There is no smoothed arm with a stock to compare it with."
    if arm is None or route is None:
        return _best(decision.arms)
    claim = next(c for c in arm.claims if c.route is route)
    if decision.outcome is Outcome.TOO_FEW:
        left = [requirement_text(r) for r in claim.requirements if r.status is Status.OPEN]
        return f"The most promising arm is {arm.arm.name}. Not settled of it: {'; '.join(left)}."
    text = "; ".join(requirement_text(r) for r in claim.requirements if r.kind is not Kind.NOT_SHOWN_WORSE)
    parts = [f"{first_up(text)}."]
    if route is Route.BOXES:
        declared = (arm.ap_not_worse, arm.calibration_better)
        said = ", ".join(f"{_SHORT[r.key]} {r.kind.value}: {STATUS[r.status]}" for r in declared)
        parts.append(
            f"As trained, against stock: AP {difference_text(declared[0].difference)}, "
            f"gap {difference_text(declared[1].difference)}. Declared in advance: {said}."
        )
    others = [a.arm.name for a in decision.arms if a.recommended is not None and a is not arm]
    return " ".join([*parts, *([f"Also shown: {', '.join(others)}."] if others else [])])


def _best(arms: Sequence[ArmDecision]) -> str:
    """Say how far the arm with the highest AP comes, and which arms are worse than stock."""
    known = [(a, d) for a in arms if (d := a.claims[0].requirements[0].difference) is not None]
    parts = []
    if known:
        best, difference = max(known, key=lambda one: one[1].mean)
        parts.append(
            f"With Platt on both sides, the arm that finds most is {best.arm.name}: AP against stock "
            f"{difference_text(difference)}."
        )
    if worse := [f"{a.arm.name} ({' and '.join(_SHORT[k] for k in a.harmed)})" for a in arms if a.harmed]:
        parts.append(f"Shown to be worse than stock: {', '.join(worse)}.")
    return " ".join(parts)


def requirement_text(requirement: Requirement) -> str:
    """Say what is asked of an arm, with the numbers.

    Args:
        requirement: The requirement.

    Returns:
        For example ``AP better than stock, both with Platt: +0.020 (+0.010 to +0.030, n = 5)``.
    """
    asked = {
        Kind.BETTER: "better than",
        Kind.NOT_WORSE: f"not worse by {requirement.margin:g} than",
        Kind.NOT_SHOWN_WORSE: "not shown worse than",
    }[requirement.kind]
    what = f"{NAMES[requirement.key]} {asked} {_SIDES[requirement.against]}"
    return f"{what}: {difference_text(requirement.difference, level=_level(requirement))}"


def _level(requirement: Requirement) -> str:
    if requirement.kind is Kind.BETTER and not math.isnan(requirement.p) and requirement.p < 1:
        return f", {_p(requirement.p)} adjusted"
    return ""


def _p(p: float) -> str:
    return f"p = {p:.3f}" if p >= 0.001 else "p < 0.001"


def difference_text(one: SeedDifference | None, *, level: str = "") -> str:
    """Write a difference with its 95% interval and its number of pairs.

    Args:
        one: The difference.
        level: What to add within the brackets.

    Returns:
        For example ``+0.020 (+0.010 to +0.030, n = 5)``.
    """
    if one is None:
        return "not measured"
    if one.n < 2:
        return f"{number(one.mean, signed=True)} (one pair of seeds, no interval)"
    decimals = row_decimals(one.mean, one.low, one.high)
    ends = span_text(one.low, one.high, signed=True, decimals=decimals)
    return f"{number(one.mean, signed=True, decimals=decimals)} ({ends}, n = {one.n}{level})"


def uneven_text(numbers: Sequence[ConditionNumbers]) -> str:
    """Warn of arms whose finished seeds are not the same: their means are of different runs.

    Args:
        numbers: The numbers of each condition.

    Returns:
        A sentence, or nothing where all arms of each condition have the same seeds.
    """
    where = [
        condition_text(one.condition)
        for one in numbers
        if len({a.done for a in [*([one.stock] if one.stock is not None else []), *one.arms] if a.done}) > 1
    ]
    if not where:
        return ""
    place = f" ({'; '.join(where)})" if len(numbers) > 1 else ""
    return (
        f"Not all arms have finished the same seeds{place}: their means are of different runs, as are the points "
        "of the pictures; compare the differences, which are paired by seed."
    )


def claim_status(claim: Claim) -> str:
    """Say how far a route of an arm is settled.

    Args:
        claim: The route.

    Returns:
        ``shown``, or what stands in its way.
    """
    if claim.status is Status.SHOWN:
        return "shown"
    wanted = [r for r in claim.requirements if r.status is claim.status]
    asked = [f"{_SHORT[r.key]} {r.kind.value}" for r in wanted]
    return f"{STATUS[claim.status]}: {', '.join(asked)}"


_SHORT = {AP: "AP", GAP: "gap", SQUARED: "squared error"}


def arm_lead(arm: ArmDecision) -> str:
    """Say of one arm what it comes to.

    Args:
        arm: What is shown of it.

    Returns:
        A few words.
    """
    if arm.recommended is not None:
        return "use it"
    if arm.harmed:
        return f"worse than stock in {' and '.join(_SHORT[k] for k in arm.harmed)}"
    return "not settled" if arm.open else "do not use"


def rules() -> list[tuple[str, str]]:
    """Write the rules of the decision, as `det_ls.studies.decision` applies them.

    Returns:
        Pairs of a few words and a sentence.
    """
    ap, gap = MARGINS[AP], MARGINS[GAP]
    return [
        ("Nothing to compare", "if AP is 0 in all finished runs."),
        (
            "Use an arm for its boxes",
            "if, with a Platt map on both sides, its AP is better than that of stock and the gap of its kept boxes not "
            f"worse by {gap:g}.",
        ),
        (
            "Use an arm for its scores",
            "if, without any map, the gap of its kept boxes is better than that of stock and not worse by "
            f"{gap:g} than that of stock + Platt, and its AP not worse by {ap:g} than that of stock.",
        ),
        (
            "Neither",
            "if the squared calibration error of its kept boxes, which sees errors that cancel each other in the gap, "
            "is shown to be worse in that comparison.",
        ),
        (
            "Better",
            f"is a one-sided paired t-test over seeds at {ALPHA:.0%}, Holm-adjusted for all arms and both ways to be "
            "recommended: of arms without effect, at most one study in twenty recommends any. The arms share one "
            "standard deviation of their differences; an arm that varies more is judged by its own.",
        ),
        (
            "Not worse",
            f"excludes a loss: in AP of {ap:g} by the lower end of the {1 - 2 * LOSS_ALPHA[AP]:.0%} t-interval, in the "
            f"gap of {gap:g} by the end of the {1 - 2 * LOSS_ALPHA[GAP]:.0%} one.",
        ),
        (
            "Too few seeds",
            "if no arm is to be used and one is not settled: no requirement of it is ruled out, as its 95% interval "
            f"still holds a gain of {ap:g} in AP or {gap:g} in the gap. The seeds to add would show what is open "
            "4 times in 5, each thing by itself, if the difference that was found is the true one (of a gain: or the "
            "margin, if larger).",
        ),
        (
            "Else",
            "calibrate if a Platt map betters the gap of stock (one-sided paired t-test at 5%); do not smooth if every "
            f"arm is worse than stock; keep stock otherwise. The gap is |mean score {MINUS} precision| of the kept "
            "boxes.",
        ),
    ]


def first_up(text: str) -> str:
    """Begin a text with a capital.

    Args:
        text: The text.

    Returns:
        The same with its first letter raised.
    """
    return text[:1].upper() + text[1:]
