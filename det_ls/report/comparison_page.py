# SPDX-License-Identifier: AGPL-3.0-or-later
"""The comparison of two detectors, or of two ways to train, as one self-contained HTML page."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from det_ls.base.errors import ArgumentError
from det_ls.evaluation.comparison import PairedEvaluation
from det_ls.metrics.catalogue import DECLARED
from det_ls.report import plots
from det_ls.report.comparison_rows import difference_row, difference_tiles
from det_ls.report.comparison_words import adjusted_note, comparison_findings, evaluated, seeds_sentence
from det_ls.report.differences import differences, panels
from det_ls.report.figures import RELIABILITY, inlined
from det_ls.report.measured import LEADING, OF_ALL, OTHER_KEPT, OTHERS, Which, population_text
from det_ls.report.page_parts import check_target, common, write_page
from det_ls.report.plots_forest import forest
from det_ls.report.rows import Row, how_rows
from det_ls.report.words import interval_note
from det_ls.uncertainty.paired import Verdict


def write_comparison(path: str | Path, pair: PairedEvaluation, *, title: str, exist_ok: bool = False) -> Path:
    """Write a comparison as one HTML page that needs nothing else.

    Args:
        path: The file; its folder is made if need be.
        pair: The comparison.
        title: What the page is about.
        exist_ok: Whether to replace a file that is there.

    Returns:
        The file.

    Raises:
        FileExistsError: The file is there and ``exist_ok`` is False.
        ValueError: The detectors were evaluated under different protocols.
    """
    target = check_target(path, exist_ok)
    a, b, names = pair.a.metrics, pair.b.metrics, pair.names
    if a.protocol != b.protocol:
        raise ArgumentError(f"a, b: expected the same protocol in both, got {a.protocol} and {b.protocol}.")
    found = differences(pair)
    several = len(pair.runs_a) > 1 or len(pair.runs_b) > 1
    sides = [
        inlined(
            plots.reliability(metrics),
            f"side{i}",
            f"Can the scores of {name} be believed?",
            ("The first run. " if several else "") + (RELIABILITY if i == 0 else "The same for the second detector."),
        )
        for i, (metrics, name) in enumerate(zip((a, b), names, strict=True))
    ]
    shown = panels(found.values())
    caption = (
        f"Each row is {names[1]} minus {names[0]} with its interval, both divided by half the interval's width. Thick "
        "lines with filled markers are differences that hold (adjusted, unless declared in advance); thin lines with a "
        "hollow marker show no difference; crosses are numbers that are not judged. Arrows point to where "
        "a number gets better."
    )
    differing = sum(d.differs for rows in shown.values() for d in rows)
    total = sum(d.verdict is not Verdict.UNJUDGED for rows in shown.values() for d in rows)
    picture = inlined(
        forest(shown, names=names), "forest", f"{differing} of {total} judged differences hold", caption, wide=True
    )

    def rows(wanted: Iterable[Which]) -> list[Row]:
        return [difference_row(pair, which, found.get(which)) for which in wanted]

    page = {
        **common(title, evaluated(pair)),
        "first": seeds_sentence(pair),
        "subtitle": f"{names[1]} against {names[0]} on the same {a.counts['images']:,} images with "
        f"{a.counts['objects']:,} objects; protocol {a.protocol}",
        "tiles": difference_tiles(pair, found),
        "names": names,
        "over_seeds": pair.seeds is not None,
        "findings": comparison_findings(pair, found),
        "adjusted_note": adjusted_note(found),
        "interval_note": _interval_note(pair),
        "of_all": " against ".join(population_text(e.metrics, "all", e.protocol) for e in (pair.b, pair.a)),
        "kept_boxes": [f"{e.metrics.kept.counts['boxes']:,}" for e in (pair.a, pair.b)],
        "declared": rows(DECLARED),
        "headline": rows(which for which in LEADING if which not in DECLARED),
        "all_boxes": rows(which for which in OF_ALL if which not in DECLARED),
        "others": rows(which for which in (*OTHER_KEPT, *OTHERS) if which in found and which not in DECLARED),
        "how": how_rows(a, (*LEADING, *OTHER_KEPT, *OF_ALL, *OTHERS), b),
        "figures": [picture, *sides],
    }
    return write_page(target, "comparison.html", page)


def _interval_note(pair: PairedEvaluation) -> str:
    intervals = [c.interval for c in (*pair.comparisons.all.values(), *pair.comparisons.kept.values())]
    metrics = pair.a.metrics
    grouped = metrics.groups if metrics.groups != metrics.counts["images"] else None
    note = interval_note(intervals, grouped).replace("Intervals are", "Intervals over images are")
    if pair.seeds is None:
        return f"{note} Both detectors are measured on the same samples."
    how = ", paired by seed" if pair.paired else " (Welch)"
    return f"Intervals over seeds are t-intervals of the runs' values{how}. {note}"
