# SPDX-License-Identifier: AGPL-3.0-or-later
"""Pictures of a calibration: reliability before and after, and the map itself."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator

from det_ls.calibration.maps import logit
from det_ls.calibration.results import Calibration
from det_ls.metrics.calibration import Reliability
from det_ls.report.plot_parts import diagonal, reliability_curve
from det_ls.report.plot_style import INK, LOOKS, MUTED, Look, diagram_axes, dress, figure_of, legend, new_axes, nothing

TARGETS = {"iou": "Mean IoU of the boxes", "tp": "Precision (IoU \N{GREATER-THAN OR EQUAL TO} 0.5)"}
FEWEST, MANY_CLASSES = 0.5, 20


def reliability_before_after(
    result: Calibration, target: str | None = None, *, axes: Sequence[Axes] | None = None
) -> Figure:
    """Draw the reliability of the kept boxes before and after calibrating in one diagram, with their counts.

    Args:
        result: The calibration; its diagrams are cross-fitted.
        target: ``iou`` or ``tp``; None for what the map aims at.
        axes: Two axes, for the diagram and for the counts.

    Returns:
        The figure.
    """
    target = target or result.target or "tp"
    upper, lower = diagram_axes(axes)
    diagonal(upper)
    pair = result.reliability[f"{target}_kept"]
    for look, label, data in zip(LOOKS, ("before", "after (cross-fitted)"), pair, strict=False):
        reliability_curve(upper, data, label, look, None)
        _counts(lower, data, look)
    if not any(data.count.any() for data in pair):
        nothing(upper, "no box is kept")
    lower.set_xlim(-0.02, 1.02)
    largest = max(data.count.max(initial=0) for data in pair)
    if largest > 50:
        lower.set_yscale("log")
        lower.set_ylim(FEWEST, 2 * largest)
        lower.yaxis.set_minor_locator(NullLocator())
    dress(upper, "", TARGETS[target])
    dress(lower, "Score", "Kept boxes", grid="y")
    legend(upper)
    return figure_of(upper)


def score_map(result: Calibration, *, ax: Axes | None = None) -> Figure:
    """Draw what the map makes of a score: the shared map, and thin lines for those of up to 20 classes.

    Args:
        result: The calibration.
        ax: Where to draw.

    Returns:
        The figure.
    """
    ax = new_axes(ax, 3.4)
    s = np.concatenate([np.logspace(-4, -2, 40, endpoint=False), np.linspace(0.01, 0.99, 197), 1 - 1e-3 * np.ones(1)])
    ax.plot([0, 1], [0, 1], color=MUTED, lw=0.8, ls="--", zorder=1)
    classes = result.map.classes
    shown = list(range(len(classes)))[:MANY_CLASSES]
    for place in shown:
        label = "maps of the classes" if place == 0 else None
        y = result.map(logit(s), np.full(len(s), place))
        ax.plot(s, y, color=MUTED, lw=0.7, alpha=0.7, label=label, zorder=2)
    shared = result.estimates[0] if result.estimates else None
    if not classes:
        ax.plot(s, result.map(logit(s)), color=LOOKS[0].colour, lw=1.4, label="the map", zorder=3)
    elif shared is not None:
        y = 1 / (1 + np.exp(-(shared.a * logit(s) + shared.b)))
        ax.plot(s, y, color=LOOKS[0].colour, lw=1.4, label="shared map", zorder=3)
    befores = {point.before for point in result.thresholds}
    afters = {point.after for point in result.thresholds}
    if len(befores) == len(afters) == 1 and (before := befores.pop()) <= 1:
        after = afters.pop()
        ax.plot([before, before, 0], [0, after, after], color=INK, lw=0.8, ls=":", label="operating point", zorder=2)
    ax.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02))
    dress(ax, "Score before", "Score after")
    legend(ax)
    return figure_of(ax)


def _counts(ax: Axes, data: Reliability, look: Look) -> None:
    """Draw the boxes of each bin as an outline, in which two sets can be told apart."""
    height = np.where(data.count > 0, data.count, np.nan)
    ax.stairs(np.nan_to_num(height, nan=FEWEST), data.edges, color=look.colour, ls=look.line, lw=1.0, baseline=None)
