# SPDX-License-Identifier: AGPL-3.0-or-later
"""Pictures of precision and recall: against each other, and against the score threshold."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from det_ls.metrics.curves_pr import PrecisionRecall, ScoreCurves
from det_ls.metrics.table import Floats
from det_ls.report.plot_names import short
from det_ls.report.plot_parts import FEW, mark_thresholds
from det_ls.report.plot_style import (
    BLUE,
    LOOKS,
    MUTED,
    PAPER,
    dress,
    figure_of,
    legend,
    new_axes,
    nothing,
)

EACH_CLASS = 10  # up to so many classes each have a line of their own
NAMED = 3  # and up to so many have a name


def precision_recall(curve: PrecisionRecall, *, ax: Axes | None = None) -> Figure:
    """Draw interpolated precision against recall: the mean of the classes, and the classes or their spread.

    Args:
        curve: The curves.
        ax: Where to draw.

    Returns:
        The figure. Up to `NAMED` classes are named, up to `EACH_CLASS` are drawn as thin lines; of more classes the
        range of the middle half is shaded.
    """
    ax = new_axes(ax, 3.2)
    known = np.flatnonzero(curve.n_gt > 0)
    ap = curve.ap
    if 1 < len(known) <= NAMED:
        for look, c in zip(LOOKS[1:], known.tolist(), strict=False):
            label = f"{short(curve.class_names[c])} (AP {ap[c]:.3f})"
            ax.plot(curve.recall, curve.precision[c], ls=look.line, color=look.colour, lw=1.0, label=label)
    elif 1 < len(known) <= EACH_CLASS:
        for place, c in enumerate(known.tolist()):
            each = None if place else f"each of {len(known)} classes"
            ax.plot(curve.recall, curve.precision[c], color=MUTED, lw=0.7, alpha=0.6, label=each)
    elif len(known):
        if len(known) > 1:
            low, high = np.quantile(curve.precision[known], [0.25, 0.75], axis=0)
            label = f"middle half of {len(known)} classes"
            ax.fill_between(curve.recall, low, high, color=MUTED, alpha=0.22, lw=0, label=label)
    else:
        nothing(ax, "no ground truth")
    if len(known):
        label = f"mean (AP {float(ap[known].mean()):.3f})" if len(known) > 1 else f"AP {float(ap[known[0]]):.3f}"
        ax.plot(curve.recall, curve.mean, color=BLUE, lw=1.8, label=label, zorder=4)
    ax.set(xlim=(-0.01, 1.01), ylim=(-0.01, 1.02))
    dress(ax, "Recall (objects found)", f"Precision (IoU ≥ {curve.iou_threshold:g})")
    legend(ax)
    return figure_of(ax)


def f1_curve(
    curves: ScoreCurves, *, thresholds: Floats | float | None = None, macro: bool = False, ax: Axes | None = None
) -> Figure:
    """Draw precision, recall and F1 of the boxes at or above each score threshold.

    Args:
        curves: The counts.
        thresholds: Operating point, a threshold or (C,) of them, to be marked: a line, with a band of the middle half
            of the classes if they differ. NaN for a class that has none.
        macro: Draw means of the classes, not all boxes together.
        ax: Where to draw.

    Returns:
        The figure. Precision ends where fewer than `FEW` detections are kept.
    """
    ax = new_axes(ax, 3.0)
    kind = "Macro" if macro else "Micro"
    lines = {
        "F1": curves.macro_f1 if macro else curves.micro_f1,
        "precision": curves.macro_precision if macro else curves.micro_precision,
        "recall": curves.macro_recall if macro else curves.micro_recall,
    }
    kept = (curves.tp + curves.fp)[curves.n_gt > 0].sum(0)
    lines["precision"] = np.where(kept < FEW, np.nan, lines["precision"])
    mark_thresholds(ax, thresholds)
    best, value = curves.best(lines["F1"])
    if np.isnan(value):
        nothing(ax, "no ground truth")
    else:
        for look, (name, values) in zip(LOOKS, lines.items(), strict=False):
            width = 1.8 if name == "F1" else 1.1
            ax.plot(curves.threshold, values, ls=look.line, color=look.colour, lw=width, label=name)
        label = f"best F1 here {value:.2f} at {best:.2f}"
        ax.plot([best], [value], "o", color=BLUE, mec=PAPER, mew=0.6, ms=6, label=label, zorder=5)
    ax.set(xlim=(-0.01, 1.01), ylim=(-0.01, 1.02))
    counted = "mean of the classes" if macro else "all boxes together"
    dress(ax, "Score threshold: detections below it are dropped", f"{kind} ({counted})")
    legend(ax)
    return figure_of(ax)
