# SPDX-License-Identifier: AGPL-3.0-or-later
"""The paired differences of two detectors, in panels and in units of their own intervals."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from det_ls.metrics.catalogue import HEADLINE
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
from det_ls.uncertainty.bootstrap import HIGHER_IS_BETTER, NEITHER_IS_BETTER, Comparison

FARTHEST = 6.0  # half-widths of an interval; what lies beyond is drawn there, as an arrow
_LOOKS = {
    "better": (BLUE, "o", BLUE),
    "worse": (VERMILLION, "s", VERMILLION),
    "differs": (GREEN, "D", GREEN),
    "no difference shown": (MUTED, "o", PAPER),
}


def forest(
    comparisons: Mapping[str, Comparison],
    *,
    names: tuple[str, str] = ("a", "b"),
    keys: Sequence[str] = HEADLINE,
    panels: Mapping[str, Sequence[str]] | None = None,
) -> Figure:
    """Draw the paired differences of two detectors with their intervals; those that exclude zero stand out.

    Each difference is divided by half the width of its interval, so that numbers of different size can be compared by
    eye and none flattens the others; the differences themselves stand beside them.

    Args:
        comparisons: Comparison by key.
        names: What to call the detectors.
        keys: Numbers to show, from top to bottom; those without a comparison, or of which the difference
            or its interval is undefined, are left out.
        panels: Keys by the panel's heading, instead of ``keys``. By default there is a panel for the numbers of which
            higher is better, one for those of which lower is, and one for those of which neither is.

    Returns:
        The figure, two columns of a paper wide.
    """
    shown = {title: [comparisons[k] for k in listed if k in comparisons] for title, listed in
             (by_direction(keys) if panels is None else panels).items()}  # fmt: skip
    shown = {title: [c for c in rows if _is_known(c)] for title, rows in shown.items()}
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
    labelled: set[str] = set()
    for ax, (title, rows) in zip(axes, shown.items(), strict=False):
        ax.axvline(0, color=MUTED, lw=0.9, ls="--", zorder=1)
        for row, found in enumerate(reversed(rows)):
            ends += _draw(ax, row, found, second, labelled, axes[0])
        dress(ax, "", "", grid="x")
        ax.set_title(title, fontsize=TEXT, color=MUTED, loc="left", pad=3, parse_math=False)
        ax.set_ylim(-0.7, len(rows) - 0.3)
        ax.set_yticks(range(len(rows)), [f"{found.key} {_arrow(found.key)}" for found in reversed(rows)])
        ax.tick_params(axis="x", labelbottom=ax is axes[-1])
    axes[0].set_xlim(min(-1.0, *ends) - 0.3, max(1.0, *ends) + 0.3)
    axes[0].xaxis.set_major_locator(MaxNLocator(integer=True))
    axes[-1].set_xlabel("", fontsize=TEXT, color=INK)
    what = f"Difference ({second} {MINUS} {first}) in half-widths of its interval"
    draw_names([axes[-1].xaxis.label], [what])
    if shown:
        handles, labels = axes[0].get_legend_handles_labels()
        box = figure.legend(
            handles, [""] * len(labels), loc="outside upper left", ncols=4, fontsize=SMALL, labelcolor=INK,
            frameon=False, handletextpad=0.3, columnspacing=1.2,
        )  # fmt: skip
        draw_names(box.get_texts(), labels)
    return figure


def by_direction(keys: Sequence[str]) -> dict[str, list[str]]:
    """Sort numbers by the direction in which they get better.

    Args:
        keys: Names of numbers.

    Returns:
        Keys by what there is to say of them.
    """
    panels: dict[str, list[str]] = {"Higher is better": [], "Lower is better": [], "Neither is better": []}
    for key in keys:
        neither, higher = key in NEITHER_IS_BETTER, key in HIGHER_IS_BETTER
        panels["Neither is better" if neither else "Higher is better" if higher else "Lower is better"].append(key)
    return panels


def verdict_of(comparison: Comparison) -> str:
    """Read a paired comparison of a second detector with a first.

    Args:
        comparison: The comparison.

    Returns:
        ``better``, ``worse``, ``differs`` (for a number of which neither direction is better) or ``no difference
        shown``.
    """
    if not comparison.differs:
        return "no difference shown"
    if comparison.key in NEITHER_IS_BETTER:
        return "differs"
    return "better" if (comparison.interval.low > 0) == (comparison.key in HIGHER_IS_BETTER) else "worse"


def _draw(ax: Axes, row: int, found: Comparison, second: str, labelled: set[str], first_ax: Axes) -> list[float]:
    """Draw one row and return the ends of what was drawn."""
    verdict = verdict_of(found)
    colour, marker, face = _LOOKS[verdict]
    interval = found.interval
    half = (interval.high - interval.low) / 2 or abs(found.difference)
    low, high, middle = np.array([interval.low, interval.high, found.difference]) / (half or 1.0)
    drawn = np.clip([low, high], -FARTHEST, FARTHEST)
    ax.plot(drawn, [row, row], color=colour, lw=2.2 if found.differs else 1.0, zorder=2)
    beyond = abs(middle) > FARTHEST
    shape = (">" if middle > 0 else "<") if beyond else marker
    ax.plot([np.clip(middle, -FARTHEST, FARTHEST)], [row], shape, color=colour, mfc=face, ms=5, ls="none", zorder=3)
    if verdict not in labelled:
        labelled.add(verdict)
        label = f"{second} {verdict}" if verdict in ("better", "worse") else verdict
        first_ax.plot([], [], marker, color=colour, mfc=face, ms=5, label=label, ls="none")
    decimals = int(np.clip(1 - np.floor(np.log10(half)), 1, 6)) if half > 0 else 3
    numbers = [f"{v:+.{decimals}f}".replace("-", MINUS) for v in (found.difference, interval.low, interval.high)]
    ax.text(
        1.01, row, f"{numbers[0]} ({numbers[1]} to {numbers[2]})", transform=ax.get_yaxis_transform(), va="center",
        fontsize=SMALL, color=INK if found.differs else MUTED,
    )  # fmt: skip
    return [float(v) for v in drawn]


def _is_known(found: Comparison) -> bool:
    """Whether a difference and its interval are numbers."""
    return bool(np.isfinite([found.difference, found.interval.low, found.interval.high]).all())


def _arrow(key: str) -> str:
    """Point to where a number gets better."""
    return "" if key in NEITHER_IS_BETTER else "(↑)" if key in HIGHER_IS_BETTER else "(↓)"
