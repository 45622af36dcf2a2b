# SPDX-License-Identifier: AGPL-3.0-or-later
"""What a study allows to be decided: typed facts from fixed rules, which docs/studies.md gives in words.

An arm is recommended by one of two routes, each of them a list of requirements that must all hold:

- ``BOXES``, for what it finds: with a Platt map on both sides its AP is higher than that of stock, its kept-box
  calibration not worse.
- ``SCORES``, for what its scores promise: without any map its kept-box calibration is better than that of stock and not
  worse than that of stock + Platt, its AP not worse than that of stock.

*Better* is decided by a one-sided paired t-test at 5%, Holm-adjusted for all arms and both routes, so that of arms
without effect hardly one study in twenty recommends any. A route needs all of its requirements at once, which only
lowers that share (an intersection-union test: Berger, "Multiparameter hypothesis testing and acceptance sampling",
1982). Five seeds would leave little power in a grid of several arms if each arm had to estimate its own spread; so the
arms of a condition share one (`det_ls.studies.statistics.common_sd`), and an arm that varies more than the others is
judged by its own.

*Not worse* is a non-inferiority test: the lower end of the 99% t-interval of AP above -0.01, that is, one-sided at
0.5%, since an arm that ruins AP unnoticed is the worst that can happen; and the upper end of the 95% interval of the
gap below 0.02. `scripts/check_decisions.py` counts how often the rules are wrong.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum

import numpy as np

from det_ls.studies.mean_tests import MOST_SEEDS, POWER, above, seeds_needed
from det_ls.studies.records import Arm, Condition
from det_ls.studies.statistics import (
    AP,
    GAP,
    SQUARED,
    Against,
    ArmNumbers,
    ConditionNumbers,
    SeedDifference,
)
from det_ls.uncertainty.multiplicity import holm

ALPHA = 0.05
MARGINS: Mapping[str, float] = {AP: 0.01, GAP: 0.02}
"""The largest loss that still counts as not worse, and the smallest gain worth waiting for."""
LOSS_ALPHA: Mapping[str, float] = {AP: 0.005, GAP: 0.025}
"""One-sided level at which a loss of the margin is excluded."""


class Outcome(str, Enum):
    """What is decided under one condition."""

    USE = "use it"
    CALIBRATE = "do not smooth, calibrate"
    TOO_FEW = "too few seeds to tell"
    HARM = "smoothing harms"
    KEEP_STOCK = "keep stock"
    NOTHING = "nothing was found"


class Route(str, Enum):
    """Why an arm is recommended."""

    BOXES = "boxes"
    SCORES = "scores"


class Status(str, Enum):
    """How far a requirement is settled."""

    SHOWN = "shown"
    OPEN = "open"
    REFUTED = "refuted"


class Kind(str, Enum):
    """What a requirement asks for."""

    BETTER = "better"
    NOT_WORSE = "not worse"
    NOT_SHOWN_WORSE = "not shown worse"


@dataclass(frozen=True)
class Requirement:
    """One thing that a route asks for.

    Attributes:
        key: Name of the number.
        kind: What is asked of it.
        against: What the arm is compared with.
        margin: Of ``NOT_WORSE``, the loss that is excluded; of ``BETTER``, the gain below which an arm is not waited
            for; 0 of the rest.
        difference: The difference it is about; None where no pair defines it.
        p: One-sided p-value, Holm-adjusted of ``BETTER``; NaN where there is none.
        status: Whether it holds; it is refuted where the 95% interval leaves no room for it.
        needed: Seeds that show it 4 times in 5 if the difference that was found is the true one (of ``BETTER``, or the
            margin where that is larger); None where it is settled or no number of up to 200 seeds would do.
    """

    key: str
    kind: Kind
    against: Against
    margin: float
    difference: SeedDifference | None
    p: float
    status: Status
    needed: int | None


@dataclass(frozen=True)
class Claim:
    """One route of one arm.

    Attributes:
        route: The route.
        requirements: What it asks for.
    """

    route: Route
    requirements: tuple[Requirement, ...]

    @property
    def status(self) -> Status:
        """Shown where all requirements are, refuted where one is."""
        found = {r.status for r in self.requirements}
        return next((s for s in (Status.REFUTED, Status.OPEN) if s in found), Status.SHOWN)

    @property
    def needed(self) -> int | None:
        """Seeds that show each open requirement 4 times in 5; None where that is unknown or more than 200."""
        needs = [r.needed for r in self.requirements if r.status is Status.OPEN]
        return max((n for n in needs if n is not None), default=None) if None not in needs else None


@dataclass(frozen=True)
class ArmDecision:
    """What is shown of one arm.

    Attributes:
        arm: The arm.
        ap_not_worse: The first verdict that was declared: AP not worse than that of stock, neither with a map.
        calibration_better: The second one: kept-box calibration better than that of stock, neither with a map.
        rival_ap_not_worse: AP not worse than that of stock + Platt.
        rival_calibration_better: Kept-box calibration better than that of stock + Platt.
        claims: Both routes.
        harmed: Numbers in which the arm is shown to be worse than stock (one-sided at 5%, Holm-adjusted for all arms).
    """

    arm: Arm
    ap_not_worse: Requirement
    calibration_better: Requirement
    rival_ap_not_worse: Requirement
    rival_calibration_better: Requirement
    claims: tuple[Claim, ...]
    harmed: tuple[str, ...]

    @property
    def recommended(self) -> Route | None:
        """The route by which it is recommended, what it finds before what its scores promise."""
        return next((c.route for c in self.claims if c.status is Status.SHOWN), None)

    @property
    def open(self) -> bool:
        """Whether more seeds could recommend it."""
        return self.recommended is None and any(c.status is Status.OPEN for c in self.claims)


@dataclass(frozen=True)
class Decision:
    """What is decided under one condition.

    Attributes:
        condition: The condition.
        outcome: The decision.
        arm: The recommended arm; of ``TOO_FEW`` the most promising one.
        route: Why it is recommended, or could be.
        seeds: Pairs of the arm that has the fewest.
        more_seeds: Of ``TOO_FEW``, about how many more would settle the most promising arm; None of more than 200.
        platt: Whether a Platt map betters the kept-box calibration of stock; None where it was not measured.
        detectable: The gain of AP that this study would have found 4 times in 5; None where that is unknown.
        arms: What is shown of each arm.
    """

    condition: Condition
    outcome: Outcome
    arm: ArmDecision | None
    route: Route | None
    seeds: int
    more_seeds: int | None
    platt: Requirement | None
    detectable: float | None
    arms: tuple[ArmDecision, ...]

    @property
    def platt_helps(self) -> bool:
        """Whether a Platt map betters the kept-box calibration of stock."""
        return self.platt is not None and self.platt.status is Status.SHOWN


def decide(numbers: ConditionNumbers) -> Decision:
    """Decide what to do under one condition.

    The first that holds is decided: no run finds any object; an arm is recommended; more seeds could recommend one; the
    Platt map betters stock; every arm is shown to be worse than stock; none of these.

    Args:
        numbers: The numbers of the condition.

    Returns:
        The decision.
    """
    arms = _arms(numbers.arms)
    seeds = min((_pairs(a, Against.STOCK) for a in numbers.arms), default=0)
    platt, first = _platt(numbers), 1 / (2 * max(1, len(arms)))
    detectable = _detectable(numbers.arms, ALPHA * first)
    used = [(a, a.recommended) for a in arms if a.recommended is not None]
    more: int | None = None
    arm: ArmDecision | None = None
    route: Route | None = None
    if _nothing(numbers):
        outcome = Outcome.NOTHING
    elif used:
        outcome = Outcome.USE
        arm, route = max(used, key=lambda one: (one[1] is Route.BOXES, _gain(one[0], one[1])))
    elif not arms or any(a.open for a in arms):
        outcome = Outcome.TOO_FEW
        claims = [(a, c) for a in arms for c in a.claims if c.status is Status.OPEN]
        if claims:
            arm, claim = min(claims, key=lambda one: (one[1].needed or MOST_SEEDS + 1, _worst_p(one[1])))
            route = claim.route
            more = None if claim.needed is None else max(1, claim.needed - _pairs_of(claim))
    elif platt is not None and platt.status is Status.SHOWN:
        outcome = Outcome.CALIBRATE
    elif all(a.harmed for a in arms):
        outcome = Outcome.HARM
    else:
        outcome = Outcome.KEEP_STOCK
    return Decision(numbers.condition, outcome, arm, route, seeds, more, platt, detectable, arms)


def _nothing(numbers: ConditionNumbers) -> bool:
    """Say whether there are finished runs, none of which finds an object."""
    arms = [a for a in (numbers.stock, *numbers.arms) if a is not None]
    found = [value for a in arms if AP in a.val for value in a.val[AP].values.values()]
    return bool(found) and max(found) == 0


def _arms(numbers: Sequence[ArmNumbers]) -> tuple[ArmDecision, ...]:
    """Judge all arms of a condition together."""
    asked = {
        (i, route): _one_sided(a, key, against)
        for i, a in enumerate(numbers)
        for route, key, against in ((Route.BOXES, AP, Against.CALIBRATED), (Route.SCORES, GAP, Against.STOCK))
    }
    gains = holm(asked)
    losses = holm({(i, key): _one_sided(a, key, Against.STOCK, -1) for i, a in enumerate(numbers) for key in (AP, GAP)})
    rival = holm({i: _one_sided(a, GAP, Against.RIVAL) for i, a in enumerate(numbers)})
    found = []
    for i, a in enumerate(numbers):
        each = 1 / (2 * len(numbers))
        ap_not_worse = _not_worse(a, AP, Against.STOCK)
        better = _better(a, GAP, Against.STOCK, gains[i, Route.SCORES], each)
        boxes = (
            _better(a, AP, Against.CALIBRATED, gains[i, Route.BOXES], each),
            _not_worse(a, GAP, Against.CALIBRATED),
            _not_shown_worse(a, SQUARED, Against.CALIBRATED),
        )
        scores = (
            better,
            _not_worse(a, GAP, Against.RIVAL),
            ap_not_worse,
            _not_shown_worse(a, SQUARED, Against.STOCK),
        )
        found.append(
            ArmDecision(
                a.arm,
                ap_not_worse,
                better,
                _not_worse(a, AP, Against.RIVAL),
                _better(a, GAP, Against.RIVAL, rival[i], 1 / len(numbers)),
                (Claim(Route.BOXES, boxes), Claim(Route.SCORES, scores)),
                tuple(key for key in (AP, GAP) if losses[i, key] <= ALPHA),
            )
        )
    return tuple(found)


def _sign(key: str) -> int:
    """Say which way a number gets better."""
    return 1 if key == AP else -1


def _difference(numbers: ArmNumbers, key: str, against: Against) -> SeedDifference | None:
    return numbers.against.get(against, {}).get(key)


def _spread(one: SeedDifference) -> tuple[float, int]:
    """Choose the standard deviation that decides, with its degrees of freedom.

    The larger of the arms' common one and an arm's own; of an arm that is unlike the others only its own n - 1 degrees
    of freedom count.
    """
    if one.n < 2:
        return np.nan, 1
    return float(np.nanmax([one.sd, one.common_sd])), one.n - 1 if one.unlike else one.df


def _beyond(one: SeedDifference | None, from_: float, sign: int) -> float:
    """Compute the one-sided p-value of a gain of at most ``from_``."""
    if one is None or one.n < 2:
        return 1.0
    sd, df = _spread(one)
    return above(sign * one.mean - from_, sd, one.n, df)


def _one_sided(numbers: ArmNumbers, key: str, against: Against, way: int = 1) -> float:
    return _beyond(_difference(numbers, key, against), 0.0, way * _sign(key))


def _better(numbers: ArmNumbers, key: str, against: Against, p: float, each: float) -> Requirement:
    """Ask for a gain; ``p`` is adjusted, and ``each`` is the share of the level that the first of all tests has."""
    one, margin = _difference(numbers, key, against), MARGINS[key]
    status = Status.SHOWN if p <= ALPHA else _left(one, margin, _sign(key))
    needed = _needed(one, max(margin, _mean(one, key)), ALPHA * each) if status is Status.OPEN else None
    return Requirement(key, Kind.BETTER, against, margin, one, p, status, needed)


def _not_worse(numbers: ArmNumbers, key: str, against: Against) -> Requirement:
    """Ask that a loss of the margin is excluded."""
    one, margin, alpha = _difference(numbers, key, against), MARGINS[key], LOSS_ALPHA[key]
    p = _beyond(one, -margin, _sign(key))
    status = Status.SHOWN if p <= alpha else _left(one, -margin, _sign(key))
    needed = _needed(one, margin + _mean(one, key), alpha) if status is Status.OPEN else None
    return Requirement(key, Kind.NOT_WORSE, against, margin, one, p, status, needed)


def _not_shown_worse(numbers: ArmNumbers, key: str, against: Against) -> Requirement:
    """Ask that a number is not shown to be worse, by a two-sided test at 5%; where it was not measured, it is not."""
    one = _difference(numbers, key, against)
    worse = one is not None and one.n > 1 and one.p <= ALPHA and _sign(key) * one.mean < 0
    p = np.nan if one is None else one.p
    return Requirement(key, Kind.NOT_SHOWN_WORSE, against, 0.0, one, p, Status.REFUTED if worse else Status.SHOWN, None)


def _left(one: SeedDifference | None, least: float, sign: int) -> Status:
    """Say whether the 95% interval leaves room for a gain of at least ``least``."""
    if one is None or one.n < 2:
        return Status.OPEN
    best = one.high if sign > 0 else -one.low
    return Status.OPEN if best >= least else Status.REFUTED


def _mean(one: SeedDifference | None, key: str) -> float:
    """Return by how much an arm is better in the mean."""
    return 0.0 if one is None else _sign(key) * one.mean


def _needed(one: SeedDifference | None, distance: float, alpha: float) -> int | None:
    """Count seeds that show a true difference at a distance from what is to be excluded; None where no number does."""
    if one is None or one.n < 2 or distance <= 0:
        return None
    sd, df = _spread(one)
    return seeds_needed(distance, sd, alpha, max(1, round(df / (one.n - 1))), one.n + 1)


def _pairs(numbers: ArmNumbers, against: Against) -> int:
    return min((one.n for key in (AP, GAP) if (one := _difference(numbers, key, against)) is not None), default=0)


def _pairs_of(claim: Claim) -> int:
    return min((r.difference.n for r in claim.requirements if r.difference is not None), default=0)


def _worst_p(claim: Claim) -> float:
    return max(r.p for r in claim.requirements if r.kind is not Kind.NOT_SHOWN_WORSE)


def _gain(arm: ArmDecision, route: Route | None) -> float:
    first = next(c for c in arm.claims if c.route is route).requirements[0]
    return 0.0 if first.difference is None else _sign(first.key) * first.difference.mean


def _platt(numbers: ConditionNumbers) -> Requirement | None:
    """Judge whether a Platt map betters the calibration of stock."""
    one = numbers.platt_gain.get(GAP)
    if one is None:
        return None
    p = _beyond(one, 0.0, _sign(GAP))
    status = Status.SHOWN if p <= ALPHA else _left(one, MARGINS[GAP], _sign(GAP))
    needed = _needed(one, max(MARGINS[GAP], _mean(one, GAP)), ALPHA) if status is Status.OPEN else None
    return Requirement(GAP, Kind.BETTER, Against.STOCK, MARGINS[GAP], one, p, status, needed)


def _detectable(numbers: Sequence[ArmNumbers], alpha: float) -> float | None:
    """Find the gain of AP that is found 4 times in 5, of the arm that varies most."""
    from scipy.optimize import brentq
    from scipy.stats import nct, t

    found = [one for a in numbers if (one := _difference(a, AP, Against.CALIBRATED)) is not None and one.n > 1]
    if not found:
        return None
    one = max(found, key=lambda d: _spread(d)[0] / np.sqrt(d.n))
    sd, df = _spread(one)
    least = t.isf(alpha, df)
    upper = 4 * least + 4
    shift = brentq(lambda x: float(nct.sf(least, df, x)) - POWER, 0.0, min(upper, 30.0)) if least < 25 else np.nan
    return None if np.isnan(shift) else float(shift * sd / np.sqrt(one.n))
