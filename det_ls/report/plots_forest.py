# SPDX-License-Identifier: AGPL-3.0-or-later
"""The paired differences of two detectors, in panels and in units of their own intervals."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from det_ls.report.differences import Difference
from det_ls.report.plot_names import draw_names, short
from det_ls.report.plot_style import (
    BLUE,
    GREEN,
    INK,
    MINUS,
    MUTED,
    PAPER,
    PAPER_WIDTH,
    SMALL,
    TEXT,
    VERMILLION,
    dress,
    nothing,
)
from det_ls.report.rows import arrow
from det_ls.report.words import number, verdict_text
from det_ls.uncertainty.paired import Verdict

FARTHEST = 6.0  # half-widths of an interval; what lies beyond is drawn there, as an arrow
_LOOKS = {
    Verdict.BETTER: (BLUE, "o", BLUE),
    Verdict.WORSE: (VERMILLION, "s", VERMILLION),
    Verdict.DIFFERS: (GREEN, "D", GREEN),
    Verdict.NONE: (MUTED, "o", PAPER),
    Verdict.UNJUDGED: (MUTED, "x", MUTED),
}


def forest(panels: Mapping[str, Sequence[Difference]], *, names: tuple[str, str] = ("a", "b")) -> Figure:
    """Draw differences with their intervals; those that are shown to differ stand out.

    Each difference is divided by half the width of its interval, so that numbers of different size can be compared by
    eye and none flattens the others; the differences themselves stand beside them.

    Args:
        panels: Differences by the panel's heading, see `det_ls.report.differences.panels`.
        names: What to call the detectors.

    Returns:
        The figure, two columns of a paper wide.
    """
    shown = {title: [d for d in rows if _is_known(d)] for title, rows in panels.items()}
    shown = {title: rows for title, rows in shown.items() if rows}
    counts = [len(rows) for rows in shown.values()] or [2]
    figure = Figure(figsize=(2 * PAPER_WIDTH, 0.75 + 0.2 * sum(counts) + 0.36 * len(counts)), layout="constrained")
    axes = list(
        figure.subplots(len(counts), 1, sharex=True, squeeze=False, height_ratios=[n + 0.4 for n in counts])[:, 0]
    )
    if not shown:
        nothing(axes[0], "no number is defined for both")
    second, first = (short(name, 24) for name in reversed(names))
    ends = [0.0]
    labelled: set[Verdict] = set()
    for ax, (title, rows) in zip(axes, shown.items(), strict=False):
        ax.axvline(0, color=MUTED, lw=0.9, ls="--", zorder=1)
        for row, found in enumerate(reversed(rows)):
            ends += _draw(ax, row, found, second, labelled, axes[0])
        dress(ax, "", "", grid="x")
        ax.set_title(title, fontsize=TEXT, color=MUTED, loc="left", pad=3, parse_math=False)
        ax.set_ylim(-0.7, len(rows) - 0.3)
        ax.set_yticks(range(len(rows)), [f"{found.about.key} {arrow(found.about)}" for found in reversed(rows)])
        ax.tick_params(axis="x", labelbottom=ax is axes[-1])
    axes[0].set_xlim(min(-1.0, *ends) - 0.3, max(1.0, *ends) + 0.3)
    axes[0].xaxis.set_major_locator(MaxNLocator(integer=True))
    axes[-1].set_xlabel("", fontsize=TEXT, color=INK)
    what = f"Difference ({second} {MINUS} {first}) in half-widths of its interval"
    draw_names([axes[-1].xaxis.label], [what])
    if shown:
        handles, labels = axes[0].get_legend_handles_labels()
        box = figure.legend(
            handles, [""] * len(labels), loc="outside upper left", ncols=5, fontsize=SMALL, labelcolor=INK,
            frameon=False, handletextpad=0.3, columnspacing=1.2,
        )  # fmt: skip
        draw_names(box.get_texts(), labels)
    return figure


def _draw(ax: Axes, row: int, found: Difference, second: str, labelled: set[Verdict], first_ax: Axes) -> list[float]:
    """Draw one row and return the ends of what was drawn."""
    verdict = found.verdict
    colour, marker, face = _LOOKS[verdict]
    half = (found.high - found.low) / 2 or abs(found.difference)
    low, high, middle = np.array([found.low, found.high, found.difference]) / (half or 1.0)
    drawn = np.clip([low, high], -FARTHEST, FARTHEST)
    ax.plot(drawn, [row, row], color=colour, lw=2.2 if found.differs else 1.0, zorder=2)
    beyond = abs(middle) > FARTHEST
    shape = (">" if middle > 0 else "<") if beyond else marker
    ax.plot([np.clip(middle, -FARTHEST, FARTHEST)], [row], shape, color=colour, mfc=face, ms=5, ls="none", zorder=3)
    if verdict not in labelled:
        labelled.add(verdict)
        label = verdict_text(verdict, second)
        first_ax.plot([], [], marker, color=colour, mfc=face, ms=5, label=label, ls="none")
    numbers = [number(v, signed=True, decimals=found.decimals) for v in (found.difference, found.low, found.high)]
    ax.text(
        1.01, row, f"{numbers[0]} ({numbers[1]} to {numbers[2]})", transform=ax.get_yaxis_transform(), va="center",
        fontsize=SMALL, color=INK if found.differs else MUTED,
    )  # fmt: skip
    return [float(v) for v in drawn]


def _is_known(found: Difference) -> bool:
    """Whether a difference and its interval are numbers."""
    return bool(np.isfinite([found.difference, found.low, found.high]).all())
