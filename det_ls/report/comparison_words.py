# SPDX-License-Identifier: AGPL-3.0-or-later
"""What a comparison shows, in sentences that follow from its numbers by fixed rules."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from det_ls.evaluation.comparison import PairedEvaluation
from det_ls.metrics.classification import CLASSIFICATION
from det_ls.report.differences import Difference, Pair
from det_ls.report.findings import Finding, group_findings
from det_ls.report.measured import Which
from det_ls.report.operating import differ, no_threshold, typed
from det_ls.report.training import cautions, differing_settings
from det_ls.report.words import MINUS, count, interval_text, number, span_text, unjudged_text, verdict_text
from det_ls.uncertainty.paired import Verdict

Found = Mapping[Which, Difference]


def seeds_sentence(pair: Pair) -> str:
    """Say whether training seeds were measured: what a comparison begins with.

    Args:
        pair: The comparison.

    Returns:
        One sentence.
    """
    runs = len(pair.runs_a) or 1, len(pair.runs_b) or 1
    if pair.seeds is None:
        arms = "one run of each" if runs == (1, 1) else f"{runs[0]} and {runs[1]} runs, of which each arm needs two"
        return (
            f"Training seeds were not measured ({arms}), so no verdict on the method is possible: what follows is "
            f"about {'these two models' if runs == (1, 1) else 'the first run of each'} only."
        )
    how = "paired by seed" if pair.paired else "not paired"
    many = str(runs[0]) if runs[0] == runs[1] else f"{runs[0]} and {runs[1]}"
    return f"Training seeds were measured: {many} runs an arm, {how}; verdicts are over seeds, not over images alone."


def adjusted_note(found: Found) -> str:
    """Say how many comparisons were declared, and how the others are adjusted.

    Args:
        found: The differences.

    Returns:
        Sentences; empty where nothing can be compared.
    """
    if not found:
        return ""
    judged = [d for d in found.values() if not d.declared and d.verdict is not Verdict.UNJUDGED]
    declared = [label(d) for d in found.values() if d.declared]
    alpha = 1 - next(iter(found.values())).level
    return (
        f"Declared in advance: {' and '.join(declared) or 'none'}, each judged by itself at {alpha:.0%}. The p-values "
        f"of the other {len(judged)} numbers that are judged are adjusted for being many (Holm 1979), so that the "
        f"chance of any false claim among them is at most {alpha:.0%}. Intervals are of one number each, not adjusted."
    )


def label(found: Difference) -> str:
    """Name a number with the boxes that it counts.

    Args:
        found: The difference.

    Returns:
        For example ``DECE of the kept boxes``, and ``accuracy`` of a classifier.
    """
    if CLASSIFICATION.get(found.about.key) is found.about:
        return found.about.key
    return f"{found.about.key} of {'the kept' if found.about.population == 'kept' else 'all'} boxes"


def difference_text(found: Difference, names: tuple[str, str]) -> str:
    """Say in a sentence or two whether two detectors differ in a number.

    Args:
        found: The difference.
        names: What the detectors are called.

    Returns:
        The sentences.
    """
    decimals, signed = found.decimals, found.about.signed
    values = (found.mean_a, found.mean_b)
    one, other = (
        f"{name} ({number(value, signed=signed, decimals=decimals)})" for name, value in zip(names, values, strict=True)
    )
    seeds = len(found.a) > 1
    over = " over seeds" if seeds else ""
    span = span_text(found.low, found.high, signed=True, decimals=decimals)
    numbers = (
        f"{names[1]} {MINUS} {names[0]} = {number(found.difference, signed=True, decimals=decimals)}, "
        f"{found.level:.0%} interval{over} {span}"
    )
    if found.adjusted is not None:
        numbers += f", {p_text(found)}"
    if seeds and found.images is not None:
        numbers += f"; over images {interval_text(found.images, signed=True, decimals=decimals)}"
    if found.verdict is Verdict.UNJUDGED:
        return f"No verdict, as this number is {unjudged_text(found.about)}: {numbers}."
    if not found.differs:
        return f"No difference shown between {one} and {other}: {numbers}. That does not show that they are equal."
    judged = {Verdict.BETTER: " (better)", Verdict.WORSE: " (worse)"}.get(found.verdict, "")
    direction = "higher" if found.difference > 0 else "lower"
    return f"{other} is {direction}{judged} than {one}: {numbers}."


def p_text(found: Difference) -> str:
    """Write the p-value that counts.

    Args:
        found: A difference that is judged.

    Returns:
        For example ``p = 0.030, adjusted``.
    """
    assert found.adjusted is not None
    small = found.adjusted < 0.001
    text = "p < 0.001" if small else f"p = {found.adjusted:.3f}"
    return text if found.declared else f"{text}, adjusted"


def comparison_findings(pair: PairedEvaluation, found: Found) -> list[Finding]:
    """Say what a comparison shows, and what it does not.

    Args:
        pair: The comparison.
        found: Its differences.

    Returns:
        The declared verdicts, what else differs, each detector's threshold, and what to be careful about.
    """
    if not found:
        return [Finding("Differences", "Nothing can be compared", "No number is defined for both detectors.")]
    groups = group_findings(pair.a.protocol.get("groups"))
    return [*verdicts(found, pair.names), _thresholds(pair), *training_findings(pair), *groups]


def verdicts(found: Found, names: tuple[str, str]) -> list[Finding]:
    """Say which differences are shown.

    Args:
        found: The differences.
        names: What the two are called.

    Returns:
        A finding for each difference that was declared in advance, and one for all others.
    """
    says = [
        Finding(
            f"Declared in advance: {label(d)}",
            verdict_text(d.verdict, names[1]).capitalize()
            if d.verdict in (Verdict.NONE, Verdict.UNJUDGED, Verdict.DIFFERS)
            else verdict_text(d.verdict, names[1]),
            difference_text(d, names),
        )
        for d in found.values()
        if d.declared
    ]
    judged = [d for d in found.values() if not d.declared and d.verdict is not Verdict.UNJUDGED]
    differing = [d for d in judged if d.differs]
    listed = ", ".join(f"{label(d)} ({verdict_text(d.verdict, names[1])})" for d in differing)
    says.append(
        Finding(
            "Everything else",
            f"{len(differing)} of {len(judged)} other numbers differ" if differing else "No other difference shown",
            f"{listed}. {adjusted_note(found)}" if listed else adjusted_note(found),
        )
    )
    return says


def _thresholds(pair: PairedEvaluation) -> Finding:
    arms = [e.metrics for e in (pair.a, pair.b)]
    lead = " and ".join(typed(metrics) for metrics in arms)
    fixed = all(metrics.kept.thresholds.kind == "fixed" for metrics in arms)
    text = "The kept boxes of each detector are those above its own threshold"
    text += (
        ", which was given."
        if fixed
        else ". The one to type was chosen on all images; each image is judged at one that was chosen without it."
    )
    if len(pair.runs_a) > 1 or len(pair.runs_b) > 1:
        text += " These are of the first run of each arm; every run has its own."
    if any(differ(metrics) and not no_threshold(metrics) for metrics in arms):
        text += " Where it is one a class, the detector's own report lists them."
    return Finding("The operating points", lead, text)


def training_findings(pair: Pair) -> list[Finding]:
    """Say in what the trainings differ, and what to be careful about.

    Args:
        pair: The comparison.

    Returns:
        The findings; none where nothing is known of the trainings.
    """
    arms: list[list[object]] = [
        [run.protocol.get("training") for run in runs] for runs in (pair.runs_a or (pair.a,), pair.runs_b or (pair.b,))
    ]
    found = []
    if settings := differing_settings(*arms):
        lead = f"The arms differ in {' and '.join(', '.join(key for key, *_ in settings).rsplit(', ', 1))}"
        more = [key for key, *_ in settings if key != "label_smoothing"]
        text = "; ".join(f"{key}: {one} against {other}" for key, one, other in settings) + "."
        if more and len(settings) > 1:
            text += " A difference between them cannot be put down to one of these settings alone."
        found.append(Finding("Training", lead, text, bool(more)))
    careful: dict[tuple[str, str], list[str]] = {}
    for name, records in zip(pair.names, arms, strict=True):
        for caution in dict.fromkeys(c for record in records for c in cautions(record)):
            careful.setdefault(caution, []).append(name)
    for (lead, text), of in careful.items():
        found.append(Finding(f"Careful, {' and '.join(of)}", lead, text, True))
    return found


def runs_text(pair: Pair) -> str:
    """Count the runs of both arms.

    Args:
        pair: The comparison.

    Returns:
        For example ``3 runs an arm``; empty with one each.
    """
    runs = len(pair.runs_a) or 1, len(pair.runs_b) or 1
    if runs == (1, 1):
        return ""
    return f"{count(runs[0], 'run')} an arm" if runs[0] == runs[1] else f"{runs[0]} and {runs[1]} runs"


def evaluated(pair: Pair) -> list[tuple[str, Any]]:
    """List every run with a name.

    Args:
        pair: The comparison.

    Returns:
        Pairs of name and evaluation, the first arm's first.
    """
    named = []
    for name, runs in ((pair.names[0], pair.runs_a or (pair.a,)), (pair.names[1], pair.runs_b or (pair.b,))):
        named += [(name if len(runs) == 1 else f"{name}, run {i}", run) for i, run in enumerate(runs, 1)]
    return named
