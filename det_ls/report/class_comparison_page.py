# SPDX-License-Identifier: AGPL-3.0-or-later
"""What is shown of two classifiers on the same images: a page, its picture and tables, and what is printed."""

from __future__ import annotations

from datetime import datetime, timezone
from pathlib import Path

from det_ls.base.version import __version__
from det_ls.evaluation.class_comparison import ClassComparison
from det_ls.report import plots
from det_ls.report.comparison_rows import difference_tiles, shown_row
from det_ls.report.comparison_words import (
    adjusted_note,
    evaluated,
    p_text,
    seeds_sentence,
    training_findings,
    verdicts,
)
from det_ls.report.differences import Difference, class_differences
from det_ls.report.figures import inlined
from det_ls.report.findings import group_findings
from det_ls.report.outputs import PICTURES_FOLDER, REPORT_FILE, write_differences
from det_ls.report.page_parts import check_target, write_page
from det_ls.report.plots_classification import top_reliability
from det_ls.report.plots_forest import forest
from det_ls.report.rows import Row, flat
from det_ls.report.training import columns, training_row
from det_ls.report.words import ascii_text, count, interval_note, number, span_text, unjudged_text, verdict_text
from det_ls.uncertainty.paired import Verdict

_CAPTION = (
    "The probability of the first guess, of {name}. Below the dashed diagonal the probabilities promise too much."
)


def write_class_pair(folder: str | Path, pair: ClassComparison, *, title: str, exist_ok: bool = False) -> None:
    """Write the page of a comparison of classifiers, its picture and its tables, `COMPARISON_FILES`.

    Args:
        folder: Where to write; made if need be.
        pair: The comparison.
        title: What the page is about.
        exist_ok: Whether to replace files that are there.

    Raises:
        FileExistsError: A file is there and ``exist_ok`` is False.
    """
    target, found, names = Path(folder), class_differences(pair), pair.names
    rows = list(found.values())
    declared, others = [d for d in rows if d.declared], [d for d in rows if not d.declared]
    panels = {"Declared in advance": declared, "Others": [d for d in others if d.about.headline]}
    picture = forest({heading: some for heading, some in panels.items() if some}, names=names)
    plots.save(picture, target / PICTURES_FOLDER / "forest", exist_ok=exist_ok)
    write_differences(target, found, exist_ok=exist_ok)
    sides = [
        inlined(
            top_reliability(one),
            f"side{i}",
            f"Can the probabilities of {name} be believed?",
            _CAPTION.format(name=name),
        )
        for i, (one, name) in enumerate(zip((pair.a, pair.b), names, strict=True))
    ]
    caption = (
        f"Each row is {names[1]} minus {names[0]} with its interval, both divided by half the interval's width. Filled "
        "markers are differences that hold (adjusted, unless declared in advance), hollow ones show none, and crosses "
        "are numbers that are not judged. Arrows point to where a number gets better."
    )
    judged = [d for d in rows if d.verdict is not Verdict.UNJUDGED]
    heading = f"{sum(d.differs for d in judged)} of {len(judged)} judged differences hold"
    trained = [(name, training_row(one.protocol.get("training"))) for name, one in evaluated(pair)]
    page: Row = {
        "title": title,
        "first": seeds_sentence(pair),
        "subtitle": f"{names[1]} against {names[0]} on the same {count(pair.a.n_images, 'image')} of "
        f"{count(pair.a.table.n_classes, 'class', 'classes')}",
        "date": datetime.now(timezone.utc).strftime("%Y-%m-%d %H:%M UTC"),
        "version": __version__,
        "tiles": difference_tiles(pair, found),
        "findings": [*verdicts(found, names), *training_findings(pair), *group_findings(pair.a.protocol.get("groups"))],
        "training_columns": columns(),
        "trainings": [(name, row) for name, row in trained if row is not None],
        "protocol": [
            row
            for name, one in evaluated(pair)
            for row in flat({k: v for k, v in one.protocol.items() if k != "training"}, f"{name} · ")
        ],
        "names": names,
        "over_seeds": pair.seeds is not None,
        "interval_note": _interval_note(pair),
        "adjusted_note": adjusted_note(found),
        "declared": [_row(pair, d) for d in declared],
        "others": [_row(pair, d) for d in others],
        "figures": [inlined(picture, "forest", heading, caption, wide=True), *sides],
    }
    write_page(check_target(target / REPORT_FILE, exist_ok), "class_comparison.html", page)


def class_comparison_text(pair: ClassComparison) -> str:
    """Write the differences of two classifiers, one a line.

    Args:
        pair: The comparison.

    Returns:
        Whether seeds were measured, the differences that were declared in advance, the others, and how p-values are
        adjusted.
    """
    found = class_differences(pair)
    over = "intervals over seeds" if pair.seeds is not None else f"intervals over {count(pair.groups, _drawn(pair))}"
    lines = [
        seeds_sentence(pair),
        f"b - a with a = {pair.names[0]}, b = {pair.names[1]}; {over}",
        f"{'':>15}  {'a':>9}  {'b':>9}  {'b - a':>9}  {'interval':>20}  result",
        "declared in advance",
        *(_line(d, pair) for d in found.values() if d.declared),
        "others, adjusted for being many",
        *(_line(d, pair) for d in found.values() if not d.declared),
        adjusted_note(found),
    ]
    return ascii_text("\n".join(line for line in lines if line))


def _row(pair: ClassComparison, found: Difference) -> Row:
    key = found.about.key
    counts = f"{found.about.bins} bins of all images" if found.about.bins else "all images"
    return shown_row(found, counts, (pair.a.floors.get(key), pair.b.floors.get(key)))


def _line(found: Difference, pair: ClassComparison) -> str:
    decimals, signed = 4, found.about.signed
    result = verdict_text(found.verdict, pair.names[1])
    result += f", {unjudged_text(found.about)}" if found.verdict is Verdict.UNJUDGED else f", {p_text(found)}"
    return (
        f"{found.about.key:>15}  {number(found.mean_a, signed=signed, decimals=decimals):>9}  "
        f"{number(found.mean_b, signed=signed, decimals=decimals):>9}  "
        f"{number(found.difference, signed=True, decimals=decimals):>9}  "
        f"{span_text(found.low, found.high, signed=True, decimals=decimals):>20}  {result}"
    )


def _drawn(pair: ClassComparison) -> str:
    return "image" if pair.groups == pair.a.n_images else "group"


def _interval_note(pair: ClassComparison) -> str:
    note = interval_note(
        [c.interval for c in pair.differences.values()], None if pair.groups == pair.a.n_images else pair.groups
    )
    if pair.seeds is None:
        return f"{note} Both classifiers are measured on the same samples."
    how = ", paired by seed" if pair.paired else " (Welch)"
    return f"Intervals over seeds are t-intervals of the runs' values{how}. {note}"
