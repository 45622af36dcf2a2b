# SPDX-License-Identifier: AGPL-3.0-or-later
"""Pictures of what goes wrong: which classes are taken for which, and what each type of error costs."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from det_ls.metrics.confusion import Confusion
from det_ls.metrics.errors import ErrorBreakdown
from det_ls.metrics.table import Ints
from det_ls.report.plot_names import draw_tick_names, short
from det_ls.report.plot_style import (
    BLUE,
    INK,
    MUTED,
    PAPER,
    PAPER_WIDTH,
    SMALL,
    TEXT,
    VERMILLION,
    dress,
    figure_of,
    new_axes,
    nothing,
)

SHOWN_CLASSES = 15
ERROR_LABELS = {
    "classification": "wrong class",
    "localisation": "loose box",
    "both": "wrong class and loose box",
    "duplicate": "second box on an object",
    "background": "nothing there",
    "missed": "missed object",
}


def confusion_matrix(matrix: Confusion, *, limit: int = SHOWN_CLASSES, ax: Axes | None = None) -> Figure:
    """Draw which class is detected (rows) where which class is (columns), with what is missed and what is not there.

    Args:
        matrix: The counts.
        limit: Classes to show at most, those that are confused most; the others are counted together.
        ax: Where to draw.

    Returns:
        The figure, two columns of a paper wide if there are more than 6 classes. A cell holds boxes, and is the darker
        the larger its share of its column.
    """
    chosen = matrix.most_confused(limit)
    counts, names, numbers = _collapsed(matrix, chosen)
    n = len(counts)
    if ax is None:
        width = PAPER_WIDTH if n <= 7 else 2 * PAPER_WIDTH
        ax = new_axes(None, min(width, 0.24 * n + 1.6), width)
    if not counts.any():
        nothing(ax, "no objects and no detections")
    total = np.maximum(counts.sum(0), 1)
    for row, column in zip(*np.nonzero(counts), strict=True):
        share = float(counts[row, column] / total[column])
        colour = BLUE if row == column else VERMILLION
        ax.add_patch(Rectangle((column - 0.5, row - 0.5), 1, 1, color=colour, alpha=0.08 + 0.87 * share, lw=0))
        ax.text(
            column, row, _brief(int(counts[row, column])), ha="center", va="center", fontsize=SMALL,
            color=PAPER if share > 0.65 else INK,
        )  # fmt: skip
    dress(ax, "What is there (annotated)", "What was detected")
    ax.grid(False)
    edges = np.arange(n + 1) - 0.5
    ax.hlines(edges, -0.5, n - 0.5, color=MUTED, lw=0.3, alpha=0.5)
    ax.vlines(edges, -0.5, n - 0.5, color=MUTED, lw=0.3, alpha=0.5)
    ax.set(xlim=(-0.5, n - 0.5), ylim=(n - 0.5, -0.5))
    ax.tick_params(length=0)
    draw_tick_names(ax.xaxis, range(n), [*names, "no object left"], [*numbers, "no object left"])
    draw_tick_names(ax.yaxis, range(n), [*names, "not detected"], [*numbers, "not detected"])
    for text in ax.get_xticklabels():
        text.set(rotation=45, ha="right", rotation_mode="anchor")
    if len(chosen) < len(matrix.class_names) and counts.any():
        title = f"The {len(chosen)} classes of {len(matrix.class_names)} that are confused most"
        ax.set_title(title, fontsize=TEXT, color=MUTED, loc="left")
    return figure_of(ax)


def error_costs(breakdown: ErrorBreakdown, *, ax: Axes | None = None) -> Figure:
    """Draw what each type of error costs in AP50, with how many there are.

    Args:
        breakdown: The counts and costs.
        ax: Where to draw.

    Returns:
        The figure: the six types, then all false positives and all missed objects.
    """
    ax = new_axes(ax, 2.3)
    rows = [(ERROR_LABELS[name], breakdown.cost[name], n) for name, n in breakdown.counts.items()]
    rows += [
        ("all false positives", breakdown.false_positive_cost, breakdown.false_positives),
        ("all objects not found", breakdown.false_negative_cost, breakdown.false_negatives),
    ]
    places = [*range(len(rows) - 2), len(rows) - 1.6, len(rows) - 0.6]
    if np.isnan(breakdown.ap50):
        nothing(ax, "no ground truth")
        rows = [(label, 0.0, n) for label, _, n in rows]
    for place, (_, cost, n) in zip(places, rows, strict=True):
        ax.barh(place, cost, 0.62, color=BLUE if place < 6 else MUTED, alpha=0.9 if place < 6 else 0.6)
        ax.annotate(
            f"{cost:.3f} · {n:,}", (cost, place), (3, 0), textcoords="offset points", va="center", fontsize=SMALL,
            color=INK,
        )  # fmt: skip
    widest = max(cost for _, cost, _ in rows)
    ax.set(xlim=(0, max(1.45 * widest, 1e-3)), ylim=(places[-1] + 0.6, -0.6))
    dress(ax, "AP50 gained if put right · how many", "", grid="x")
    ax.set_yticks(places, [label for label, _, _ in rows])
    ax.set_axisbelow(True)
    return figure_of(ax)


def _collapsed(matrix: Confusion, chosen: Ints) -> tuple[Ints, list[str], list[str]]:
    """Add up the classes that are not shown: counts with the background last, names, and numbers for names."""
    n = len(matrix.class_names)
    rest = np.setdiff1d(np.arange(n), chosen)
    rest = rest[(matrix.counts[rest].sum(1) + matrix.counts[:, rest].sum(0)) > 0]
    groups = [np.array([c]) for c in chosen.tolist()] + ([rest] if len(rest) else []) + [np.array([n])]
    counts = np.array([[matrix.counts[np.ix_(a, b)].sum() for b in groups] for a in groups], np.int64)
    names = [short(matrix.class_names[c], 18) for c in chosen.tolist()]
    numbers = [f"class {c}" for c in chosen.tolist()]
    others = [f"{len(rest)} others"] if len(rest) else []
    return counts, names + others, numbers + others


def _brief(n: int) -> str:
    """Write a count in at most four signs."""
    return str(n) if n < 10_000 else f"{n / 1000:.0f}k" if n < 1_000_000 else f"{n / 1e6:.0f}M"
