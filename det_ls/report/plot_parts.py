# SPDX-License-Identifier: AGPL-3.0-or-later
"""What several pictures are made of: curves with light markers where data is scarce, operating points, log axes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import FixedLocator, NullLocator, StrMethodFormatter

from det_ls.evaluation.measure import DetectionMetrics
from det_ls.evaluation.operating_point import OperatingPoint
from det_ls.metrics.calibration import Reliability
from det_ls.metrics.curves import FreeResponse
from det_ls.metrics.protocols import TP_IOU, get_protocol
from det_ls.metrics.table import Bools, Floats
from det_ls.metrics.weighted import weighted_bins
from det_ls.report.plot_style import INK, MUTED, PAPER, SMALL, Look, dress
from det_ls.uncertainty.samples import image_weights

FEW = 10
FEW_THRESHOLDS = 3


def diagonal(ax: Axes) -> None:
    """Draw perfect calibration, and say what either side of it means.

    Args:
        ax: The axes.
    """
    ax.plot([0, 1], [0, 1], color=MUTED, lw=0.8, ls="--", zorder=1)
    ax.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02))
    style: dict[str, Any] = {"fontsize": SMALL, "color": MUTED, "style": "italic"}
    ax.text(0.98, 0.03, "over-confident", ha="right", **style)
    ax.text(0.02, 0.95, "under-confident", ha="left", **style)


def reliability_curve(ax: Axes, data: Reliability, label: str, look: Look, span: tuple[Floats, Floats] | None) -> None:
    """Draw one curve of a reliability diagram: a marker for each bin with detections, lines where they are many.

    No line leads to or through a bin with fewer than `FEW` detections, as chance would draw it.

    Args:
        ax: The axes.
        data: The bins.
        label: Name of the curve.
        look: How it is drawn.
        span: (B,) lower and upper ends of each bin's interval, or None.
    """
    some = data.count > 0
    if not some.any():
        return
    x, y, few = data.mean_score[some], data.mean_target[some], data.count[some] < FEW
    ax.plot(x, np.where(few, np.nan, y), ls=look.line, color=look.colour, lw=1.2, label=label, zorder=3)
    if span is not None:
        for place, low, high, is_few in zip(x, span[0][some], span[1][some], few, strict=True):
            ax.plot([place, place], [low, high], color=look.colour, lw=0.9, alpha=0.3 if is_few else 0.65, zorder=2)
    points(ax, x, y, few, look)


def points(
    ax: Axes, x: Floats, y: Floats, few: Bools, look: Look, *, size: float = 12, label: str | None = None
) -> None:
    """Draw markers: filled, or hollow where there is little behind them.

    Args:
        ax: The axes.
        x: (K,) horizontal places.
        y: (K,) vertical places.
        few: (K,) whether fewer than `FEW` detections are behind a marker.
        look: How they are drawn.
        size: Area of a marker in square points.
        label: Their name in the legend.
    """
    for chosen, face, edge in ((~few, look.colour, 1.0), (few, PAPER, 0.6)):
        if chosen.any():
            ax.scatter(
                x[chosen], y[chosen], s=size, marker=look.marker, c=face, edgecolors=look.colour, lw=0.8, alpha=edge,
                zorder=4, label=label,
            )  # fmt: skip
            label = None


def histogram(ax: Axes, data: Reliability) -> None:
    """Count the detections of each bin, on a logarithmic scale where the counts differ much.

    Args:
        ax: The axes.
        data: The bins.
    """
    width = np.diff(data.edges)
    few, some = data.count < FEW, data.count > 0
    for chosen, alpha in ((~few, 0.85), (few & some, 0.4)):
        if chosen.any():
            ax.bar(
                data.edges[:-1][chosen], data.count[chosen], width[chosen], align="edge", color=MUTED, alpha=alpha,
                edgecolor=PAPER, lw=0.4,
            )  # fmt: skip
    if some.any() and data.count.max() > 50 * data.count[some].min():
        ax.set_yscale("log")
        ax.set_ylim(bottom=0.7)
        ax.yaxis.set_minor_locator(NullLocator())
    ax.set_xlim(-0.02, 1.02)
    dress(ax, "Score", "Detections", grid="y")


def shade_operating_point(ax: Axes, point: OperatingPoint) -> None:
    """Mark the score threshold of the kept boxes: a line, or a band of the middle half of the classes.

    Args:
        ax: Axes with scores on the horizontal axis.
        point: The operating point.
    """
    if point.keep.any():
        mark_thresholds(ax, point.threshold)


def mark_thresholds(ax: Axes, thresholds: Floats | float | None) -> None:
    """Mark score thresholds on a horizontal axis of scores: up to three as lines, more as a band of their middle half.

    Args:
        ax: The axes.
        thresholds: A threshold or one a class, NaN for a class without; None marks nothing.
    """
    if thresholds is None:
        return
    values = np.atleast_1d(np.asarray(thresholds, np.float64))
    values = values[~np.isnan(values)]
    if not len(values):
        return
    each = np.unique(values)
    if len(each) <= FEW_THRESHOLDS:
        label = f"operating point{'s' * (len(each) > 1)} {', '.join(f'{t:g}' for t in each)}"
        for i, threshold in enumerate(each.tolist()):
            ax.axvline(threshold, color=INK, lw=0.9, ls=":", label=label if i == 0 else None, zorder=1)
        return
    low, high = np.quantile(values, [0.25, 0.75])
    ax.axvspan(low, high, color=MUTED, alpha=0.2, lw=0, label="operating points, middle half", zorder=0)


def mark_operating_point(ax: Axes, point: OperatingPoint, left: float, *, missed: bool = False) -> None:
    """Mark what is found at the operating point.

    Args:
        ax: Axes with false positives per image on the horizontal axis.
        point: The operating point.
        left: Left end of the axis.
        missed: Whether the vertical axis shows what is missed instead.
    """
    if not point.keep.any():
        return
    y = 1 - point.sensitivity if missed else point.sensitivity
    ax.plot(
        [max(point.fp_per_image, left)], [y], "*", color=INK, mec=PAPER, mew=0.5, ms=9, ls="none",
        label="operating point", zorder=5,
    )  # fmt: skip


def has_points(curve: FreeResponse) -> bool:
    """Say whether there is a curve to draw.

    Args:
        curve: The curve.

    Returns:
        Whether there are objects, images and detections.
    """
    return bool(curve.n_objects and curve.n_images and len(curve.threshold))


def no_curve(curve: FreeResponse) -> str:
    """Say why there is no curve.

    Args:
        curve: The curve.

    Returns:
        A few words.
    """
    return "no detections" if curve.n_objects else "no ground truth"


def clipped_rates(curve: FreeResponse) -> tuple[Floats, float]:
    """Start a curve at the left end of its logarithmic axis, where rates of 0 are drawn too.

    Args:
        curve: A curve of P points.

    Returns:
        (P + 1,) rates, the first one the axis' left end, and that end.
    """
    positive = curve.fp_per_image[curve.fp_per_image > 0]
    left = min(0.1, 0.5 / curve.n_images) if len(positive) else 0.01
    left = max(left, 1e-3)
    return np.append(left, np.maximum(curve.fp_per_image, left)), left


def around_zero(values: Floats) -> tuple[float, float]:
    """Choose limits that hold all values, and some room on either side of zero.

    Args:
        values: Values, not all NaN.

    Returns:
        The limits.
    """
    low, high = min(0.0, float(np.nanmin(values))), max(0.0, float(np.nanmax(values)))
    wide = max(high - low, 1e-3)
    return min(1.06 * low, -0.12 * wide), max(1.06 * high, 0.12 * wide)


def log_rates(ax: Axes, left: float, last: float) -> None:
    """Set up the logarithmic axis of false positives per image.

    Args:
        ax: The axes.
        left: Its left end.
        last: The largest rate.
    """
    right = max(1.0, 1.15 * last)
    ax.set_xscale("log")
    ax.set_xlim(left, right)
    ticks = [t for t in (0.001, 0.01, 0.03, 0.1, 0.3, 1, 3, 10, 30, 100, 300) if left <= t <= right]
    ax.xaxis.set_major_locator(FixedLocator(ticks))
    ax.xaxis.set_minor_locator(NullLocator())
    ax.xaxis.set_major_formatter(StrMethodFormatter("{x:g}"))


@dataclass(frozen=True)
class ClassGaps:
    """How far the scores of each class's kept boxes lie from what they deliver; NaN for a class without any.

    Attributes:
        precision: (C,) mean score minus precision.
        iou: (C,) mean score minus mean IoU.
        count: (C,) kept boxes.
    """

    precision: Floats
    iou: Floats
    count: Floats


def class_gaps_of_kept(metrics: DetectionMetrics) -> ClassGaps:
    """Compute the gaps of each class's kept boxes.

    Args:
        metrics: The numbers of a detector.

    Returns:
        The gaps.
    """
    table, rules, n = metrics.table, get_protocol(metrics.protocol), metrics.table.n_classes
    half, overlap = rules.matches(table, TP_IOU), rules.matches(table, 0.0)
    found = []
    for matches, target in ((half, half.tp.astype(np.float64)), (overlap, overlap.tp_iou)):
        rows = metrics.kept.keep & matches.kept
        count = np.bincount(table.cls[rows], minlength=n).astype(np.float64)
        total = np.bincount(table.cls[rows], weights=(table.score - target)[rows], minlength=n)
        found += [np.divide(total, count, out=np.full(n, np.nan), where=count > 0), count]
    return ClassGaps(found[0], found[2], found[1])


def class_gap_intervals(metrics: DetectionMetrics, replicates: int, seed: int, level: float) -> Floats | None:
    """Bootstrap mean score minus precision of each class's kept boxes.

    Args:
        metrics: The numbers of a detector.
        replicates: Bootstrap samples of the images, or of groups of them.
        seed: Seed of the samples.
        level: Nominal coverage of the intervals.

    Returns:
        (2, C) lower and upper ends, NaN for a class without kept boxes; None where there is nothing to draw from.
    """
    table, rules = metrics.table, get_protocol(metrics.protocol)
    matches = rules.matches(table, TP_IOU)
    rows = np.flatnonzero(matches.kept & metrics.kept.keep)
    if not replicates or table.n_images < 2 or not len(rows):
        return None
    gap = table.score[rows] - matches.tp[rows]
    weights = image_weights(table.n_images, replicates, seed, metrics.kept.plan.group)
    cls = table.cls[rows].astype(np.int64)
    count, total = weighted_bins(table.image[rows], cls, table.n_classes, [np.ones(len(rows)), gap], weights)
    means = np.divide(total, count, out=np.full(total.shape, np.nan), where=count > 0)
    ends = np.full((2, table.n_classes), np.nan)
    known = ~np.isnan(means).all(1)
    ends[:, known] = np.nanquantile(means[known], [(1 - level) / 2, (1 + level) / 2], axis=1)
    return ends


def shown_classes(metrics: DetectionMetrics, gaps: ClassGaps, limit: int) -> list[int]:
    """Choose the most over- and under-confident classes, among those with `FEW` kept boxes where there are enough.

    Args:
        metrics: The numbers of a detector.
        gaps: The gaps of its classes.
        limit: Classes at most.

    Returns:
        Places of the classes, the most over-confident first.
    """
    known = np.flatnonzero(metrics.table.has_gt & ~np.isnan(gaps.precision)).tolist()
    order = sorted(known, key=lambda i: (-gaps.precision[i], i))
    if len(order) <= limit:
        return order
    many = [i for i in order if gaps.count[i] >= FEW]
    chosen = many if len(many) >= limit else order
    return chosen[: limit - limit // 2] + chosen[len(chosen) - limit // 2 :]
