# SPDX-License-Identifier: AGPL-3.0-or-later
"""The forest plot sets differences of any size side by side, and tells those that exclude zero from the rest."""

from __future__ import annotations

import numpy as np
import pytest
from matplotlib.figure import Figure

from det_ls.report import plots
from det_ls.report.plot_style import render
from det_ls.uncertainty.bootstrap import Comparison, Interval


def compared(key: str, low: float, high: float) -> Comparison:
    differs = low > 0 or high < 0
    return Comparison(key, 0.0, 0.1, (low + high) / 2, Interval(low, high, 0.95, 9, 0, "value"), differs, "")


MADE = {
    c.key: c
    for c in (
        compared("AP", 0.1, 0.3),
        compared("LRP", 0.1, 0.3),
        compared("nll", -10, 20),
        compared("signed_gap", 0.0001, 0.0002),
    )
}


def rows(figure: Figure) -> dict[str, tuple[list[float], float, object]]:
    """What is drawn of each number: the ends of its interval, the difference, and its marker."""
    found = {}
    for ax in figure.axes:
        names = {y: t.get_text().split(" ")[0] for y, t in zip(ax.get_yticks(), ax.get_yticklabels(), strict=True)}
        spans = [one for one in ax.lines if len(one.get_xdata()) == 2 and len(set(one.get_xdata())) == 2]
        marks = [one for one in ax.lines if len(one.get_xdata()) == 1]
        for span, mark in zip(spans, marks, strict=True):
            found[names[mark.get_ydata()[0]]] = (list(span.get_xdata()), mark.get_xdata()[0], (span, mark))
    return found


def test_each_difference_is_measured_by_its_own_interval() -> None:
    found = rows(plots.forest(MADE, names=("old", "new")))
    assert found["AP"][0] == pytest.approx([1, 3])
    assert found["signed_gap"][0] == pytest.approx([2, 4])
    assert found["nll"][0] == pytest.approx([-10 / 15, 20 / 15])
    assert found["AP"][1] == pytest.approx(2)


def test_differences_stand_out() -> None:
    assert [plots.verdict_of(c) for c in MADE.values()] == ["better", "worse", "no difference shown", "differs"]
    figure = plots.forest(MADE, names=("old", "new"))
    said = [t.get_text() for t in figure.legends[0].get_texts()]
    assert sorted(said) == ["differs", "new better", "new worse", "no difference shown"]
    found = rows(figure)
    assert len({one[2][0].get_linewidth() for one in found.values()}) == 2
    hollow = found["nll"][2][1]
    assert hollow.get_markerfacecolor() != hollow.get_color()
    assert found["AP"][2][1].get_markerfacecolor() == found["AP"][2][1].get_color()


def test_panels_are_by_direction_or_as_asked() -> None:
    figure = plots.forest(MADE)
    assert [ax.get_title(loc="left") for ax in figure.axes] == [
        "Higher is better",
        "Lower is better",
        "Neither is better",
    ]
    asked = plots.forest(MADE, panels={"Boxes": ["AP", "nll"], "Nothing": ["AP75"]})
    assert [ax.get_title(loc="left") for ax in asked.axes] == ["Boxes"]
    assert set(rows(asked)) == {"AP", "nll"}


def test_a_very_clear_difference_flattens_no_other() -> None:
    figure = plots.forest({"AP": compared("AP", 0.2000, 0.2001), "AP50": compared("AP50", -0.1, 0.1)})
    low, high = figure.axes[0].get_xlim()
    assert high - low < 20
    assert any("+0.200050 (+0.200000 to +0.200100)" in t.get_text() for t in figure.axes[0].texts)
    marks = [one for one in figure.axes[0].lines if len(one.get_xdata()) == 1]
    assert ">" in {one.get_marker() for one in marks}


def test_nothing_is_clipped_and_nothing_fails_without_intervals() -> None:
    long = ("a baseline with a very long name that never ends", "猫" * 40)
    for made in (MADE, {}, {"AP": compared("AP", 0.0, 0.0)}, {"AP": compared("AP", 0.1, np.nan)}):
        figure = plots.forest(made, names=long)
        figure.draw_without_rendering()
        width, height = figure.canvas.get_width_height()
        for artist in (*figure.axes, *figure.legends):
            box = artist.get_tightbbox()
            assert np.all([box.x0 >= -1, box.y0 >= -1, box.x1 <= width + 1, box.y1 <= height + 1])
        assert render(figure, "svg")
