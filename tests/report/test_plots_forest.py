# SPDX-License-Identifier: AGPL-3.0-or-later
"""The forest plot sets differences of any size side by side, and tells those that hold from the rest."""

from __future__ import annotations

import numpy as np
import pytest
from matplotlib.figure import Figure

from det_ls.report.differences import Difference, panels
from det_ls.report.plot_style import render
from det_ls.report.plots_forest import forest
from det_ls.uncertainty.bootstrap import number_of
from det_ls.uncertainty.paired import Verdict


def compared(
    population: str, key: str, low: float, high: float, verdict: Verdict, declared: bool = False
) -> Difference:
    about = number_of(population, key)  # type: ignore[arg-type]
    return Difference(about, (0.0,), (0.1,), (low + high) / 2, low, high, 0.95, None, 0.1, 0.1, declared, verdict)


MADE = [
    compared("all", "AP", 0.1, 0.3, Verdict.BETTER, declared=True),
    compared("all", "LRP", 0.1, 0.3, Verdict.WORSE),
    compared("all", "nll", -10, 20, Verdict.NONE),
    compared("kept", "signed_gap", 0.0001, 0.0002, Verdict.DIFFERS),
    compared("kept", "DECE", 0.1, 0.2, Verdict.UNJUDGED),
]


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
    found = rows(forest(panels(MADE), names=("old", "new")))
    assert found["AP"][0] == pytest.approx([1, 3])
    assert found["signed_gap"][0] == pytest.approx([2, 4])
    assert found["nll"][0] == pytest.approx([-10 / 15, 20 / 15])
    assert found["AP"][1] == pytest.approx(2)


def test_differences_stand_out_and_unjudged_ones_do_not() -> None:
    figure = forest(panels(MADE), names=("old", "new"))
    said = [t.get_text() for t in figure.legends[0].get_texts()]
    assert sorted(said) == ["differs", "new better", "new worse", "no difference shown", "no verdict"]
    found = rows(figure)
    thick = {key for key, one in found.items() if one[2][0].get_linewidth() > 2}
    assert thick == {"AP", "LRP", "signed_gap"}  # though the interval of DECE excludes zero
    hollow = found["nll"][2][1]
    assert hollow.get_markerfacecolor() != hollow.get_color()
    assert found["AP"][2][1].get_markerfacecolor() == found["AP"][2][1].get_color()


def test_what_was_declared_comes_first_and_each_panel_counts_the_same_boxes() -> None:
    figure = forest(panels(MADE))
    assert [ax.get_title(loc="left") for ax in figure.axes] == ["Declared in advance", "Kept boxes", "All boxes"]
    assert [len(ax.get_yticks()) for ax in figure.axes] == [1, 2, 2]


def test_a_very_clear_difference_flattens_no_other() -> None:
    clear = compared("all", "AP", 0.2000, 0.2001, Verdict.BETTER)
    figure = forest({"All": [clear, compared("all", "AP50", -0.1, 0.1, Verdict.NONE)]})
    low, high = figure.axes[0].get_xlim()
    assert high - low < 20
    assert any("+0.200050 (+0.200000 to +0.200100)" in t.get_text() for t in figure.axes[0].texts)
    marks = [one for one in figure.axes[0].lines if len(one.get_xdata()) == 1]
    assert ">" in {one.get_marker() for one in marks}


def test_nothing_is_clipped_and_nothing_fails_without_intervals() -> None:
    long = ("a baseline with a very long name that never ends", "猫" * 40)
    one, unknown = (compared("all", "AP", low, high, Verdict.NONE) for low, high in ((0.0, 0.0), (0.1, np.nan)))
    for made in (MADE, [], [one], [unknown]):
        figure = forest(panels(made), names=long)
        figure.draw_without_rendering()
        width, height = figure.canvas.get_width_height()
        for artist in (*figure.axes, *figure.legends):
            box = artist.get_tightbbox()
            assert np.all([box.x0 >= -1, box.y0 >= -1, box.x1 <= width + 1, box.y1 <= height + 1])
        assert render(figure, "svg")
