# SPDX-License-Identifier: AGPL-3.0-or-later
"""Pictures of an evaluation, one function each: they draw into the caller's axes or into a new figure.

New figures are 3.5 inches wide, one column of a paper, with text of at least 7 points. Bins and classes with fewer than
`FEW` detections are drawn lighter, as chance alone moves them far.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, NullLocator, StrMethodFormatter

from det_ls.evaluation.measure import DetectionMetrics
from det_ls.evaluation.operating_point import operating_point
from det_ls.metrics.calibration import Reliability
from det_ls.metrics.curves import FROC_RATES, MISS_RATE_POINTS, free_response, reliability_intervals
from det_ls.metrics.curves import threshold_curve as compute_threshold_curve
from det_ls.report.plot_names import draw_names, draw_tick_names, short
from det_ls.report.plot_parts import (
    FEW,
    around_zero,
    class_gap_intervals,
    class_gaps_of_kept,
    clipped_rates,
    diagonal,
    has_points,
    histogram,
    log_rates,
    mark_operating_point,
    no_curve,
    points,
    reliability_curve,
    shade_operating_point,
    shown_classes,
)
from det_ls.report.plot_style import (
    BLUE,
    INK,
    LOOKS,
    MINUS,
    MUTED,
    PAPER_WIDTH,
    TEXT,
    VERMILLION,
    diagram_axes,
    dress,
    figure_of,
    legend,
    new_axes,
    nothing,
)
from det_ls.report.plot_style import save as save
from det_ls.report.plots_forest import forest as forest
from det_ls.uncertainty.samples import image_weights

TP_LABEL, IOU_LABEL = "precision (IoU ≥ 0.5)", "mean IoU"


def reliability(
    metrics: DetectionMetrics,
    *,
    replicates: int = 200,
    seed: int = 0,
    level: float = 0.95,
    title: str | None = None,
    axes: Sequence[Axes] | None = None,
) -> Figure:
    """Draw the reliability diagram: what scores promise against what detections deliver, and how many there are.

    Args:
        metrics: The numbers of a detector.
        replicates: Image-level bootstrap samples for the interval of each bin; 0 for none.
        seed: Seed of the samples.
        level: Nominal coverage of the intervals.
        title: Name of the detector.
        axes: Two axes, for the diagram and for the counts.

    Returns:
        The figure.
    """
    upper, lower = diagram_axes(axes)
    curves: dict[Any, tuple[Reliability, str]] = {
        "tp": (metrics.reliability["tp"], TP_LABEL),
        "iou": (metrics.reliability["iou"], IOU_LABEL),
    }
    weights = None
    if replicates and metrics.table.n_images > 1 and metrics.table.n_detections:
        weights = image_weights(metrics.table.n_images, replicates, seed, metrics.kept.plan.group)
    diagonal(upper)
    shade_operating_point(upper, operating_point(metrics))
    for look, (target, (data, label)) in zip(LOOKS, curves.items(), strict=False):
        span = None
        if weights is not None:
            span = reliability_intervals(
                metrics.table, weights, target, protocol=metrics.protocol, bins=len(data.count), level=level
            )
        reliability_curve(upper, data, label, look, span)
    counts = curves["tp"][0]
    if not counts.count.any():
        nothing(upper, metrics.reasons.get("DECE", "no detections"))
    dress(upper, "", "Precision or mean IoU")
    legend(upper)
    if title is not None:
        upper.set_title("", fontsize=TEXT, color=INK, pad=32)
        draw_names([upper.title], [short(title, 60)])
    histogram(lower, counts)
    return figure_of(upper)


def compare_reliability(
    a: DetectionMetrics,
    b: DetectionMetrics,
    *,
    names: tuple[str, str] = ("a", "b"),
    replicates: int = 200,
    seed: int = 0,
    axes: Sequence[Sequence[Axes]] | None = None,
) -> Figure:
    """Draw the reliability diagrams of two detectors side by side.

    Args:
        a: The numbers of the first detector.
        b: The numbers of the second detector.
        names: What to call them.
        replicates: Bootstrap samples for the intervals; 0 for none.
        seed: Seed of the samples.
        axes: Two pairs of axes, for diagram and counts of each detector.

    Returns:
        The figure, two columns of a paper wide.
    """
    if axes is None:
        figure = Figure(figsize=(2 * PAPER_WIDTH, 4.1), layout="constrained")
        grid = figure.subplots(2, 2, sharex=True, sharey="row", height_ratios=(3.4, 1))
        axes = [grid[:, 0], grid[:, 1]]
    for metrics, name, pair in zip((a, b), names, axes, strict=True):
        reliability(metrics, replicates=replicates, seed=seed, title=name, axes=pair)
    return figure_of(axes[0][0])


def reliability_by_size(metrics: DetectionMetrics, *, ax: Axes | None = None) -> Figure:
    """Draw precision against score for small, medium and large objects (COCO's sizes).

    Args:
        metrics: The numbers of a detector.
        ax: Where to draw.

    Returns:
        The figure.
    """
    ax = new_axes(ax, 3.2)
    diagonal(ax)
    limits = metrics.table.area_ranges
    some = False
    for look, size in zip(LOOKS, ("small", "medium", "large"), strict=False):
        data = metrics.reliability.get(f"tp_{size}")
        if data is None or not data.count.any():
            continue
        some = True
        low, high = (round(float(np.sqrt(limits[size][i]))) for i in (0, 1))
        wide = f"< {high}²" if size == "small" else f"≥ {low}²" if size == "large" else f"{low}²-{high}²"
        reliability_curve(ax, data, f"{size}, {wide} px ({data.count.sum():,})", look, None)
    if not some:
        nothing(ax, metrics.reasons.get("DECE", "no detections"))
    dress(ax, "Score (mean of the bin)", "Precision (IoU ≥ 0.5)")
    legend(ax)
    return figure_of(ax)


def threshold_curve(metrics: DetectionMetrics, *, ax: Axes | None = None) -> Figure:
    """Draw calibration error and LRP error of the detections at or above each score threshold.

    Args:
        metrics: The numbers of a detector.
        ax: Where to draw.

    Returns:
        The figure.
    """
    ax = new_axes(ax, 2.9)
    curve = compute_threshold_curve(metrics.table, protocol=metrics.protocol)
    few = curve.n < FEW
    lines = {
        "LRP (all errors)": (curve.lrp, curve.lrp),
        "LaECE0 (against IoU)": (curve.laece0, np.where(few, np.nan, curve.laece0)),
        "D-ECE (against precision)": (curve.dece, np.where(few, np.nan, curve.dece)),
    }
    shade_operating_point(ax, operating_point(metrics))
    for look, (label, (values, drawn)) in zip(LOOKS, lines.items(), strict=False):
        if not np.isnan(values).all():
            ax.plot(curve.threshold, drawn, ls=look.line, color=look.colour, lw=1.2, label=label)
            points(ax, curve.threshold, values, few, look)
    if not ax.has_data() or all(np.isnan(v).all() for v, _ in lines.values()):
        nothing(ax, metrics.reasons.get("LRP", metrics.reasons.get("DECE", "no detections")))
    ax.set(xlim=(-0.02, 1), ylim=(0, 1.02))
    dress(ax, "Score threshold: detections below it are dropped", "Error (0 is best)")
    legend(ax)
    return figure_of(ax)


def class_gaps(
    metrics: DetectionMetrics,
    *,
    limit: int = 20,
    replicates: int = 200,
    seed: int = 0,
    level: float = 0.95,
    ax: Axes | None = None,
) -> Figure:
    """Draw mean score minus precision of each class's kept boxes, the most over-confident on top.

    Args:
        metrics: The numbers of a detector.
        limit: Classes to show at most: half of them the most over-confident, half the most under-confident, chosen
            among those with at least `FEW` kept boxes where there are enough.
        replicates: Bootstrap samples for the intervals; 0 for none.
        seed: Seed of the samples.
        level: Nominal coverage of the intervals.
        ax: Where to draw.

    Returns:
        The figure.
    """
    gaps = class_gaps_of_kept(metrics)
    shown = shown_classes(metrics, gaps, limit)
    ax = new_axes(ax, max(1.5, 0.9 + 0.165 * len(shown)))
    ax.axvline(0, color=MUTED, lw=0.8, ls="--", zorder=1)
    rows = np.arange(len(shown), dtype=np.float64)[::-1]
    span = class_gap_intervals(metrics, replicates, seed, level)
    gap, gap_iou, count = gaps.precision[shown], gaps.iou[shown], gaps.count[shown]
    few = count < FEW
    if span is not None:
        for row, c, is_few in zip(rows, shown, few, strict=True):
            ax.plot(span[:, c], [row, row], color=BLUE, lw=1.0, alpha=0.35 if is_few else 0.9, zorder=2)
    if len(shown):
        points(ax, gap_iou, rows, few, LOOKS[1], size=16, label=f"score {MINUS} IoU")
        points(ax, gap, rows, few, LOOKS[0], size=18, label=f"score {MINUS} precision")
        ends = [gap, gap_iou] if span is None else [gap, gap_iou, *span[:, shown]]
        ax.set_xlim(*around_zero(np.concatenate(ends)))
        ax.set_ylim(-0.7, len(shown) - 0.3)
    else:
        nothing(ax, metrics.reasons.get("signed_gap", "no box is kept"))
    dress(ax, "← under-confident        over-confident →", "", grid="x")
    ax.xaxis.label.set(ha="right", x=1.0)  # long names leave the axes too narrow for it
    numbers = [f" ({n:.0f})" for n in count]
    draw_tick_names(
        ax.yaxis,
        rows.tolist(),
        [short(metrics.per_class[c]["name"]) + n for c, n in zip(shown, numbers, strict=True)],
        [f"class {c}{n}" for c, n in zip(shown, numbers, strict=True)],
    )
    legend(ax)
    return figure_of(ax)


def froc(metrics: DetectionMetrics, *, ax: Axes | None = None) -> Figure:
    """Draw the free-response curve (FROC): objects found against false positives per image.

    Args:
        metrics: The numbers of a detector.
        ax: Where to draw.

    Returns:
        The figure.
    """
    ax = new_axes(ax, 2.9)
    curve = free_response(metrics.table, protocol=metrics.protocol)
    if has_points(curve):
        x, left = clipped_rates(curve)
        label = f"FROC (score {curve.froc_score:.3f})"
        ax.plot(x, np.append(0.0, curve.sensitivity), drawstyle="steps-post", color=BLUE, lw=1.3, label=label)
        rates = [r for r in FROC_RATES if left <= r <= x[-1]]
        ax.plot(rates, [curve.sensitivity_at(r) for r in rates], "o", color=BLUE, ms=3.2)
        mark_operating_point(ax, operating_point(metrics), left)
        log_rates(ax, left, x[-1])
    else:
        nothing(ax, no_curve(curve))
    ax.set_ylim(0, 1.02)
    dress(ax, "False positives per image", "Sensitivity (objects found)")
    legend(ax)
    return figure_of(ax)


def miss_rate(metrics: DetectionMetrics, *, ax: Axes | None = None) -> Figure:
    """Draw objects missed against false positives per image, both axes logarithmic.

    Args:
        metrics: The numbers of a detector.
        ax: Where to draw.

    Returns:
        The figure.
    """
    ax = new_axes(ax, 2.9)
    curve = free_response(metrics.table, protocol=metrics.protocol)
    if has_points(curve):
        x, left = clipped_rates(curve)
        lowest = min(0.05, 0.8 / curve.n_objects) if curve.miss_rate.min() <= 0 else 0.8 * float(curve.miss_rate.min())
        label = f"miss rate (log-average {curve.log_average_miss_rate:.3f})"
        missed = np.maximum(np.append(1.0, curve.miss_rate), lowest)
        ax.plot(x, missed, drawstyle="steps-post", color=VERMILLION, lw=1.3, label=label)
        rates = [r for r in MISS_RATE_POINTS if left <= r <= x[-1]]
        ax.plot(rates, [max(1 - curve.sensitivity_at(r), lowest) for r in rates], "s", color=VERMILLION, ms=3.2)
        mark_operating_point(ax, operating_point(metrics), left, missed=True)
        log_rates(ax, left, x[-1])
        ax.set_yscale("log")
        ax.set_ylim(lowest, 1.1)
        ticks = [t for t in (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.5, 0.7, 1) if t >= lowest]
        ax.yaxis.set_major_locator(FixedLocator(ticks))
        ax.yaxis.set_minor_locator(NullLocator())
        ax.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
    else:
        nothing(ax, no_curve(curve))
    dress(ax, "False positives per image", "Miss rate (objects missed)")
    legend(ax)
    return figure_of(ax)
