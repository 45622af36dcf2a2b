# SPDX-License-Identifier: AGPL-3.0-or-later
"""Pictures of a study: numbers against the epsilon, their trade-off, reliability of the arms, training curves."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedFormatter, FixedLocator, NullLocator

from det_ls.metrics.calibration import Reliability
from det_ls.report.plot_parts import diagonal, reliability_curve
from det_ls.report.plot_style import (
    INK,
    LOOKS,
    MUTED,
    PAPER,
    PAPER_WIDTH,
    SMALL,
    TEXT,
    Look,
    dress,
    legend,
    nothing,
)
from det_ls.report.study_words import condition_text, first_up
from det_ls.studies.records import Arm, CellResult, Condition, State
from det_ls.studies.statistics import AP, GAP, ArmNumbers, ConditionNumbers, SeedMean

BINS = 10
STOCK = Look(INK, "-", "o")
CURVES = (
    ("metrics/mAP50-95(B)", "AP on the validation split"),
    ("val/cls_loss", "classification loss, validation"),
    ("train/cls_loss", "classification loss, training"),
)
_COLUMNS = 2


def against_epsilon(
    numbers: Sequence[ConditionNumbers], key: str, split: str, label: str, *, rival: bool = True
) -> Figure:
    """Draw a number against the epsilon with its interval over seeds: a line a mode, a panel a condition.

    Args:
        numbers: The numbers of each condition.
        key: The number.
        split: Which of an arm's numbers to draw: ``val``, ``train``, ``platt`` or ``overfit``.
        label: What the vertical axis shows.
        rival: Whether to draw stock + Platt as a line, with its interval as a band.

    Returns:
        The figure.
    """
    modes = _modes(numbers)
    figure, panels = _panels(numbers, share_y=True)
    for ax, one in zip(panels, numbers, strict=True):
        places = _places(one)
        stock = one.stock
        if rival and stock is not None and key in stock.platt:
            mean = stock.platt[key]
            ax.axhline(mean.mean, color=MUTED, lw=1.2, ls=(0, (6, 2)), label="stock + Platt", zorder=1)
            if mean.n > 1:
                ax.axhspan(mean.low, mean.high, color=MUTED, alpha=0.14, lw=0, zorder=0)
        drawn = False
        for shift, (mode, look) in enumerate(modes.items()):
            smoothed = [a for a in one.arms if a.arm.mode == mode and key in getattr(a, split)]
            arms = ([stock] if stock is not None and key in getattr(stock, split) else []) + smoothed
            if smoothed:
                drawn = True
                found = [(places[a.arm.label_smoothing], getattr(a, split)[key]) for a in arms]
                _line(ax, found, look, mode, 0.06 * (shift - (len(modes) - 1) / 2), len(arms) - _policies(smoothed))
        if not modes and stock is not None and key in getattr(stock, split):
            drawn = True
            _line(ax, [(0.0, getattr(stock, split)[key])], STOCK, "stock", 0.0, 1)
        if not drawn:
            nothing(ax, "no finished cell")
        ax.xaxis.set_major_locator(FixedLocator(list(places.values())))
        ax.xaxis.set_major_formatter(FixedFormatter(["stock" if e == "0" else e for e in places]))
        ax.xaxis.set_minor_locator(NullLocator())
        ax.set_xlim(-0.35, max(places.values(), default=0.0) + 0.35)
        dress(ax, "Label smoothing (epsilon)", label if ax in panels[::_COLUMNS] else "", grid="y")
    _legend(figure, panels)
    return figure


def trade_off(numbers: Sequence[ConditionNumbers]) -> Figure:
    """Draw AP against the calibration of the kept boxes: small markers are seeds, large ones arms, hollow with Platt.

    Args:
        numbers: The numbers of each condition.

    Returns:
        The figure.
    """
    modes = _modes(numbers)
    figure, panels = _panels(numbers, height=3.0)
    for ax, one in zip(panels, numbers, strict=True):
        arms = ([one.stock] if one.stock is not None else []) + list(one.arms)
        labelled: set[str] = set()
        for a in arms:
            look = STOCK if a.arm.stock else modes[a.arm.mode]
            for split, face in (("val", look.colour), ("platt", PAPER)):
                found = getattr(a, split)
                if AP not in found or GAP not in found:
                    continue
                name = ("stock" if a.arm.stock else a.arm.mode) + (" + Platt" if split == "platt" else "")
                _cloud(ax, found[GAP], found[AP], look, face, None if name in labelled else name)
                labelled.add(name)
                if not a.arm.stock and split == "val":
                    ax.annotate(
                        a.arm.label_smoothing, (found[GAP].mean, found[AP].mean), xytext=(5, 4),
                        textcoords="offset points", fontsize=SMALL, color=INK, zorder=6,
                    )  # fmt: skip
        if not labelled:
            nothing(ax, "no finished cell")
        ax.set_xlim(left=min(0.0, ax.get_xlim()[0]))
        ax.margins(y=0.12)
        dress(ax, "|mean score \N{MINUS SIGN} precision|, kept boxes", "AP" if ax in panels[::_COLUMNS] else "")
    _legend(figure, panels)
    return figure


def reliability_of_arms(
    numbers: Sequence[ConditionNumbers],
    results: Sequence[CellResult],
    shown: Mapping[Condition, Sequence[Arm]],
    columns: int = _COLUMNS,
) -> Figure:
    """Overlay the reliability diagrams of kept boxes: stock, stock + Platt, and some arms; the boxes of all seeds.

    Args:
        numbers: The numbers of each condition.
        results: The cells.
        shown: The smoothed arms to draw of each condition, at most two.
        columns: Panels side by side at most.

    Returns:
        The figure.
    """
    figure, panels = _panels(numbers, height=3.0, columns=columns)
    for ax, one in zip(panels, numbers, strict=True):
        diagonal(ax)
        wanted = [(Arm(), "val", STOCK), (Arm(), "platt", Look(MUTED, (0, (4, 1.5)), "s"))]
        wanted += [(arm, "val", LOOKS[i]) for i, arm in enumerate(shown.get(one.condition, ())[:2])]
        drawn = False
        for arm, side, look in wanted:
            data = pooled(results, one.condition, arm, side)
            if data.count.any():
                drawn = True
                reliability_curve(ax, data, arm.name + (" + Platt" if side == "platt" else ""), look, None)
        if not drawn:
            nothing(ax, "no diagram was kept")
        dress(ax, "Mean score of the kept boxes", "Precision" if ax in panels[::columns] else "")
    _legend(figure, panels)
    return figure


def pooled(results: Iterable[CellResult], condition: Condition, arm: Arm, side: str) -> Reliability:
    """Pool the bins of all seeds of an arm into ten of equal width.

    Args:
        results: The cells.
        condition: The condition.
        arm: The arm.
        side: ``val`` or ``platt``.

    Returns:
        The bins; means are weighed by the boxes behind them.
    """
    count, score, right = (np.zeros(BINS) for _ in range(3))
    for r in results:
        same = r.cell.condition == condition and (r.cell.arm == arm or (arm.stock and r.cell.arm.stock))
        if r.state is not State.DONE or r.measured is None or not same:
            continue
        for found in r.measured.reliability.get(side) or ():
            n = float(found["count"])
            if n > 0:
                place = min(BINS - 1, int(float(found["score"]) * BINS))
                count[place] += n
                score[place] += n * float(found["score"])
                right[place] += n * float(found["precision"])
    some = np.maximum(count, 1)
    return Reliability(np.linspace(0, 1, BINS + 1), count.astype(np.int64), score / some, right / some)


def training_curves(numbers: Sequence[ConditionNumbers], results: Sequence[CellResult], column: str) -> Figure | None:
    """Draw a column of the runs' ``results.csv`` over the epochs: the mean over the seeds of each arm.

    Args:
        numbers: The numbers of each condition.
        results: The cells.
        column: The column.

    Returns:
        The figure; None where no run has the column, or it is 0 throughout, as it is without validation.
    """
    label = dict(CURVES).get(column, column)
    curves = {
        one.condition: {
            a.arm: found
            for a in (([one.stock] if one.stock is not None else []) + list(one.arms))
            if (found := _curve(results, one.condition, a.arm, column)) is not None
        }
        for one in numbers
    }
    if not any(curves.values()):
        return None
    modes = _modes(numbers)
    figure, panels = _panels(numbers)
    for ax, one in zip(panels, numbers, strict=True):
        seen: dict[str, int] = {}
        for arm, (epochs, mean) in curves[one.condition].items():
            look = STOCK if arm.stock else modes[arm.mode]
            rank = seen[arm.mode] = seen.get(arm.mode, -1) + (0 if arm.stock else 1)
            dashes = "-" if arm.stock else ("-", (0, (4, 1.5)), (0, (1, 1.2)), (0, (5, 1.5, 1, 1.5)))[rank % 4]
            ax.plot(epochs, mean, color=look.colour, ls=dashes, lw=1.4 if arm.stock else 1.0, label=arm.name)
        if not curves[one.condition]:
            nothing(ax, "no finished cell")
        dress(ax, "Epoch", first_up(label) if ax in panels[::_COLUMNS] else "")
    _legend(figure, panels)
    return figure


def _curve(
    results: Sequence[CellResult], condition: Condition, arm: Arm, column: str
) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]] | None:
    found = []
    for r in results:
        same = r.cell.condition == condition and (r.cell.arm == arm or (arm.stock and r.cell.arm.stock))
        values = np.array(r.curves.get(column) or (), np.float64)
        if same and r.state is State.DONE and len(values) and np.isfinite(values).any() and np.nanmax(np.abs(values)):
            found.append(values)
    if not found:
        return None
    length = max(map(len, found))
    table = np.full((len(found), length), np.nan)
    for row, values in zip(table, found, strict=True):
        row[: len(values)] = values
    mean, known = np.full(length, np.nan), ~np.isnan(table).all(0)
    mean[known] = np.nanmean(table[:, known], axis=0)
    return np.arange(1, length + 1), mean  # a line is not drawn where its mean is NaN


def _modes(numbers: Sequence[ConditionNumbers]) -> dict[str, Look]:
    """Choose how each mode is drawn, the same in all pictures."""
    modes = dict.fromkeys(a.arm.mode for one in numbers for a in one.arms)
    return {mode: LOOKS[i % len(LOOKS)] for i, mode in enumerate(modes)}


def _places(one: ConditionNumbers) -> dict[str, float]:
    """Place each epsilon on the axis, equally far apart: numbers in their order, then what is no number."""
    values = dict.fromkeys(a.arm.label_smoothing for a in one.arms)

    def order(text: str) -> tuple[bool, float, str]:
        epsilon = _epsilon(text)
        return epsilon is None, epsilon or 0.0, text

    return {text: float(i) for i, text in enumerate(["0", *sorted(values, key=order)])}


def _panels(
    numbers: Sequence[ConditionNumbers], *, height: float = 2.6, share_y: bool = False, columns: int = _COLUMNS
) -> tuple[Figure, list[Axes]]:
    """Make a panel for each condition, some side by side."""
    n = max(1, len(numbers))
    columns = min(columns, n)
    rows = -(-n // columns)
    figure = Figure(figsize=(PAPER_WIDTH * (0.1 + 0.9 * columns), height * rows + 0.45), layout="constrained")
    axes = list(figure.subplots(rows, columns, squeeze=False, sharey=share_y).flat)
    for ax in axes[n:]:
        ax.set_axis_off()
    for ax, one in zip(axes, numbers, strict=False):
        if n > 1:
            ax.set_title(condition_text(one.condition), fontsize=TEXT, color=MUTED, loc="left", pad=4)
    return figure, axes[: len(numbers)]


def _legend(figure: Figure, panels: Sequence[Axes]) -> None:
    """Explain the curves once: above one panel, or above all of them."""
    if len(panels) == 1:
        title = panels[0].get_title(loc="left")
        if not title:
            legend(panels[0])
            return
    named: dict[str, Any] = {}
    for ax in panels:
        for handle, label in zip(*ax.get_legend_handles_labels(), strict=True):
            named.setdefault(label, handle)
    if named:
        figure.legend(
            list(named.values()), list(named), loc="outside upper left", ncols=min(4, len(named)), fontsize=SMALL,
            labelcolor=INK, frameon=False, handlelength=2.2, columnspacing=1.2,
        )  # fmt: skip


def _line(ax: Axes, found: Sequence[tuple[float, SeedMean]], look: Look, label: str, shift: float, joined: int) -> None:
    """Draw one mode: means with intervals, moved a little so that modes do not hide each other; policies unjoined."""
    found = sorted(found, key=lambda f: f[0])
    x = np.array([place for place, _ in found]) + shift
    y = np.array([mean.mean for _, mean in found])
    style: dict[str, Any] = {"color": look.colour, "marker": look.marker, "ms": 4}
    ax.plot(x[:joined], y[:joined], ls=look.line, lw=1.2, label=label, **style)
    ax.plot(x[joined:], y[joined:], ls="none", **style)
    for place, (_, mean) in zip(x, found, strict=True):
        if mean.n > 1:
            ax.plot([place, place], [mean.low, mean.high], color=look.colour, lw=1.0, alpha=0.7, zorder=2)


def _epsilon(text: str) -> float | None:
    """Read an epsilon; None of what is no number, such as a policy."""
    try:
        return float(text)
    except ValueError:
        return None


def _policies(arms: Sequence[ArmNumbers]) -> int:
    return sum(_epsilon(a.arm.label_smoothing) is None for a in arms)


def _cloud(ax: Axes, x: SeedMean, y: SeedMean, look: Look, face: str, label: str | None) -> None:
    both = [seed for seed in x.values if seed in y.values]
    style = {"marker": look.marker, "edgecolors": look.colour, "c": face}
    ax.scatter([x.values[s] for s in both], [y.values[s] for s in both], s=7, lw=0.5, alpha=0.45, zorder=3, **style)  # type: ignore[arg-type]
    ax.scatter([x.mean], [y.mean], s=42, lw=1.1, zorder=5, label=label, **style)  # type: ignore[arg-type]


def best_arms(one: ConditionNumbers, first: Arm | None) -> list[ArmNumbers]:
    """Choose the smoothed arms to show in full: the one of the decision, or the one with the highest AP.

    Args:
        one: The numbers of a condition.
        first: The arm of its decision, if there is one.

    Returns:
        At most one arm.
    """
    known = [a for a in one.arms if AP in a.val]
    chosen = [a for a in known if a.arm == first] or sorted(known, key=lambda a: -a.val[AP].mean)
    return chosen[:1]
