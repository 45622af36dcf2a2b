# SPDX-License-Identifier: AGPL-3.0-or-later
"""Tables and lines of docs/results.md and README.md, made from the cells of published studies by scripts/results.py."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from statistics import fmean
from typing import Any

from det_ls.report.study_words import condition_text, decision_lead, decision_text, difference_text, first_up
from det_ls.report.tables import to_markdown
from det_ls.report.words import number, row_decimals, span_text
from det_ls.studies.decision import decide
from det_ls.studies.records import CellResult, Condition, State
from det_ls.studies.statistics import (
    AP,
    GAP,
    Against,
    ArmNumbers,
    ConditionNumbers,
    SeedDifference,
    SeedMean,
    seed_difference,
    seed_mean,
    study_numbers,
)

TITLES = {"phantom": "phantom, 200 images", "brain_tumor": "brain-tumor, 250 images"}
"""How a study is named where it stands beside others, in the order of the rows."""
MAIN_ARM = "redistribute 0.1"
MEASURED_AND_LEFT = ("redistribute adaptive", "background adaptive", "online 0.1")
"""Arms of policies that were declared to leave the release where they are worse than the best fixed epsilon."""
AP_WORSE, GAP_WORSE = 0.01, 0.02
"""By how much, in the mean over seeds: AP lower, or the gap as trained greater."""
KEYS = {
    AP: "AP",
    "kept.signed_gap": "score minus precision",
    GAP: "its size",
    "kept.DECE": "D-ECE",
    "kept.brier": "Brier",
}
DIGITS = {"accuracy": "accuracy", "ECE": "ECE", "signed gap": "confidence minus accuracy", "NLL": "NLL"}


def in_common(results: Sequence[CellResult]) -> list[CellResult]:
    """Keep of each condition the seeds that all its arms have finished: means over other seeds cannot be compared.

    Args:
        results: The cells of a study.

    Returns:
        Finished cells; arms of which no cell is finished are left out and leave out nothing.
    """
    done = [r for r in results if r.state is State.DONE]
    shared: dict[Condition, set[int]] = {}
    for condition, arm in {(r.cell.condition, r.cell.arm) for r in done}:
        found = {r.cell.seed for r in done if (r.cell.condition, r.cell.arm) == (condition, arm)}
        shared[condition] = shared.get(condition, found) & found
    return [r for r in done if r.cell.seed in shared[r.cell.condition]]


def released(results: Sequence[CellResult]) -> list[CellResult]:
    """Leave out the arms that have left the release: nobody is advised to train with them."""
    return [r for r in results if r.cell.arm.name not in MEASURED_AND_LEFT]


def arms(results: Sequence[CellResult]) -> str:
    """Tabulate the means over the seeds that all arms have, each arm as trained and with a Platt map."""
    rows: list[list[str | float | None]] = []
    for one in study_numbers(in_common(results)):
        for a in _all_arms(one):
            for split, name in (("val", a.arm.name), ("platt", f"{a.arm.name} + Platt")):
                found = getattr(a, split)
                train = _mean(a.train.get(AP)) if split == "val" else ""
                values = [_mean(found.get(key)) if split == "val" or key != AP else "" for key in KEYS]
                count = f"{len(a.done)}" if split == "val" else ""
                rows.append([condition_text(one.condition), name, count, values[0], train, *values[1:]])
    header = ["labels", "trained with", "seeds", "AP", "AP of training images", *list(KEYS.values())[1:]]
    return to_markdown(header, rows)


def differences(results: Sequence[CellResult]) -> str:
    """Tabulate the differences of each arm to stock, all seeds that both have: 95% t-interval, in how many it is up."""
    asked = {
        "AP, Platt on both sides (declared)": (Against.CALIBRATED, AP),
        "gap, Platt on both sides (declared)": (Against.CALIBRATED, GAP),
        "gap, as trained": (Against.STOCK, GAP),
        "gap, against stock + Platt": (Against.RIVAL, GAP),
        "D-ECE, Platt on both sides": (Against.CALIBRATED, "kept.DECE"),
        "oLRP (lower is better)": (Against.STOCK, "oLRP"),
    }
    rows: list[list[str | float | None]] = []
    for one in study_numbers(results):
        for a in one.arms:
            if a.done:
                found = [a.against.get(side, {}).get(key) for side, key in asked.values()]
                values = [_paired(d) for d in [*found, _overfit_difference(one, a)]]
                rows.append([condition_text(one.condition), a.arm.name, *values])
    return to_markdown(["labels", "arm", *asked, "AP of training above validation images"], rows)


def policies(results: Sequence[CellResult]) -> str:
    """Compare the policies with the best fixed epsilon, and apply the rule that was declared for them.

    The best is the fixed arm with the highest mean AP of those whose mean gap is below stock's, over the seeds in
    common.
    """
    keys = {"AP": AP, "gap, as trained": GAP, "D-ECE": "kept.DECE"}
    rows: list[list[str | float | None]] = []
    for one in study_numbers(in_common(results)):
        judged = [a for a in one.arms if a.arm.name in MEASURED_AND_LEFT and a.done]
        fixed = [a for a in one.arms if a.arm.name not in MEASURED_AND_LEFT and a.done]
        if not judged or one.stock is None:
            continue
        most = one.stock.val[GAP].mean
        best = max((a for a in fixed if a.val[GAP].mean < most), key=lambda a: a.val[AP].mean)
        for a in judged:
            d = {name: seed_difference(key, best.val[key].values, a.val[key].values) for name, key in keys.items()}
            said = [f"AP lower by more than {AP_WORSE}"] if d["AP"].mean < -AP_WORSE else []
            said += [f"gap greater by more than {GAP_WORSE}"] if d["gap, as trained"].mean > GAP_WORSE else []
            left = f"leaves: {', '.join(said)}" if said else "stays"
            rows.append([a.arm.name, best.arm.name, *map(_paired, d.values()), left])
    return to_markdown(["policy", "best fixed epsilon", *(f"{name}: policy minus best" for name in keys), "rule"], rows)


def seeds(results: Sequence[CellResult]) -> str:
    """Tabulate every run."""
    rows: list[list[str | float | None]] = []
    for r in results:
        m = r.measured
        about: list[str | float | None] = [condition_text(r.cell.condition), r.cell.arm.name, str(r.cell.seed)]
        if m is None:
            rows.append([*about, f"{r.state.value}: {r.error}", *[""] * 4])
        else:
            numbers = [m.val.get(AP), m.train.get(AP), m.val.get("kept.signed_gap"), m.val.get("kept.DECE"),
                       m.platt.get("kept.DECE")]  # fmt: skip
            rows.append([*about, *(number(v, decimals=3) for v in numbers)])
    header = ["labels", "trained with", "seed", "AP", "AP of training images", "score minus precision", "D-ECE"]
    return to_markdown([*header, "D-ECE after Platt"], rows)


def decisions(results: Sequence[CellResult]) -> str:
    """Write what `det-ls study` decides of the arms that the release has."""
    return "\n".join(
        f"- **{first_up(condition_text(d.condition))}: {decision_lead(d)}.** {decision_text(d)}"
        for d in map(decide, study_numbers(released(results)))
    )


def summary(named: Mapping[str, Sequence[CellResult]]) -> str:
    """Set the studies beside each other: stock, and what MAIN_ARM changes, in the numbers that answer the questions.

    Args:
        named: The cells of each study by the name of its raw file.

    Returns:
        A table with a row for each study and condition that has the arm.
    """
    rows: list[list[str | float | None]] = []
    for name, results in named.items():
        for one in study_numbers(released(results)):
            arm = next((a for a in one.arms if a.arm.name == MAIN_ARM and a.done), None)
            if one.stock is None or arm is None:
                continue
            stock, decision = one.stock, decide(one)
            rows.append([
                f"{TITLES[name]}; {condition_text(one.condition).split(',')[0]}",
                f"{len(arm.done)}",
                _change(stock.val.get(AP), arm.val.get(AP), arm.against[Against.STOCK].get(AP)),
                _change(stock.overfit.get(AP), arm.overfit.get(AP), _overfit_difference(one, arm)),
                _change(stock.val.get(GAP), arm.val.get(GAP), arm.against[Against.STOCK].get(GAP)),
                _change(stock.platt.get(GAP), arm.platt.get(GAP), arm.against[Against.CALIBRATED].get(GAP)),
                decision_lead(decision),
            ])  # fmt: skip
    header = ["training set", "seeds", "AP", "AP of training above validation images", "score and precision apart",
              "the same, with Platt maps", "by the rules"]  # fmt: skip
    return to_markdown(header, rows)


def digits_table(runs: Sequence[dict[str, Any]]) -> str:
    """Tabulate the digits: means over seeds, and the differences to epsilon 0 paired by seed."""
    by_epsilon: dict[float, dict[int, dict[str, float]]] = {}
    for run in runs:
        by_epsilon.setdefault(run["epsilon"], {})[run["seed"]] = run
    rows: list[list[str | float | None]] = []
    for epsilon in sorted(by_epsilon):
        found = by_epsilon[epsilon]
        values = [_mean(seed_mean({seed: run[key] for seed, run in found.items()})) for key in DIGITS]
        rows.append([f"{epsilon:g}", str(len(found)), *values])
    stock = by_epsilon.get(0.0, {})
    for epsilon in sorted(by_epsilon):
        if epsilon and stock:
            pairs = [
                seed_difference(key, {s: r[key] for s, r in stock.items()},
                                {s: r[key] for s, r in by_epsilon[epsilon].items()}) for key in DIGITS
            ]  # fmt: skip
            rows.append([f"{epsilon:g} minus 0", str(pairs[0].n), *map(difference_text, pairs)])
    return to_markdown(["epsilon", "seeds", *DIGITS.values()], rows)


def cost(results: Sequence[CellResult]) -> str:
    """Say what the runs took."""
    done = [r for r in results if r.state is State.DONE]
    if not done:
        return "No run is finished."
    minutes = fmean(r.seconds for r in done) / 60
    return f"{len(done)} runs, {minutes:.0f} minutes each in the mean."


def _all_arms(one: ConditionNumbers) -> list[ArmNumbers]:
    return [a for a in ([one.stock] if one.stock is not None else []) + list(one.arms) if a.done]


def _mean(one: SeedMean | None) -> str:
    if one is None:
        return ""
    ends = f" ({span_text(one.low, one.high, decimals=3)})" if len(one.values) > 1 else ""
    return f"{number(one.mean, decimals=3)}{ends}"


def _paired(d: SeedDifference | None) -> str:
    """Write a paired difference and in how many of its seeds it is above 0."""
    if d is None:
        return ""
    return f"{difference_text(d)}; {sum(v > 0 for v in d.values.values())} up"


def _change(stock: SeedMean | None, arm: SeedMean | None, d: SeedDifference | None) -> str:
    """Write stock's mean, the arm's, and the paired difference with its 95% t-interval."""
    if stock is None or arm is None or d is None:
        return "not measured"
    decimals = row_decimals(d.mean, d.low, d.high) if d.n > 1 else 3
    mean = number(d.mean, signed=True, decimals=decimals)
    ends = f" ({span_text(d.low, d.high, signed=True, decimals=decimals)})" if d.n > 1 else " (one pair)"
    return f"{number(stock.mean, decimals=3)} → {number(arm.mean, decimals=3)}: {mean}{ends}"


def _overfit_difference(one: ConditionNumbers, arm: ArmNumbers) -> SeedDifference | None:
    """Compare the gap between training and validation AP with stock's."""
    if one.stock is None or AP not in one.stock.overfit or AP not in arm.overfit:
        return None
    a, b = one.stock.overfit[AP].values, arm.overfit[AP].values
    return seed_difference(AP, a, b) if a.keys() & b.keys() else None


STUDY_PARTS: dict[str, Callable[[Sequence[CellResult]], str]] = {
    "arms": arms, "cost": cost, "decisions": decisions, "differences": differences, "policies": policies,
    "seeds": seeds,
}  # fmt: skip
