# SPDX-License-Identifier: AGPL-3.0-or-later
"""The confusion matrix and the costs of errors show the counts, of any number of classes."""

from __future__ import annotations

import numpy as np
import pytest
from boxed_sets import prepared
from matplotlib.figure import Figure
from matplotlib.text import Text

from det_ls.metrics.confusion import Confusion, confusion
from det_ls.metrics.errors import ErrorBreakdown, classify_errors, error_breakdown
from det_ls.report.plot_style import CSS_NAMES, inline_svg
from det_ls.report.plots_errors import confusion_matrix, error_costs


def cells(figure: Figure) -> dict[tuple[int, int], str]:
    return {(round(t.get_position()[1]), round(t.get_position()[0])): t.get_text() for t in figure.axes[0].texts}


def assert_within(figure: Figure) -> None:
    figure.draw_without_rendering()
    width, height = figure.canvas.get_width_height()
    box = figure.axes[0].get_tightbbox()
    assert np.all([box.x0 >= -1, box.y0 >= -1, box.x1 <= width + 1, box.y1 <= height + 1])
    assert min(t.get_fontsize() for t in figure.findobj(Text) if t.get_text()) >= 7


def test_every_count_has_its_cell() -> None:
    counts = np.array([[5, 1, 2], [0, 123_456, 0], [3, 0, 0]])
    figure = confusion_matrix(Confusion(("cat", "a very long name of a class"), counts, True))
    assert cells(figure) == {(0, 0): "5", (0, 1): "1", (0, 2): "2", (1, 1): "123k", (2, 0): "3"}
    ax = figure.axes[0]
    assert [t.get_text() for t in ax.get_xticklabels()] == ["cat", "a very long name…", "no object left"]
    assert [t.get_text() for t in ax.get_yticklabels()][-1] == "not detected"
    darkness = {(round(p.get_y() + 0.5), round(p.get_x() + 0.5)): p.get_alpha() for p in ax.patches}
    assert darkness[1, 1] > darkness[0, 0] > darkness[2, 0] > darkness[0, 1]  # shares of a column
    assert ax.get_title(loc="left") == ""
    assert_within(figure)


def test_of_many_classes_the_most_confused_are_shown_and_the_others_added_up() -> None:
    table, boxes = prepared("coco_tiny")
    matrix = confusion(table, boxes, 0.3)
    figure = confusion_matrix(matrix, limit=15)
    ax = figure.axes[0]
    assert len(ax.get_xticks()) == 17
    assert "15 classes of 80" in ax.get_title(loc="left")
    assert [t.get_text() for t in ax.get_xticklabels()][15].endswith(" others")
    assert sum(int(n) for n in cells(figure).values()) == matrix.counts.sum()
    inner = matrix.counts[:-1, :-1]
    mixed = inner.sum(0) + inner.sum(1) - 2 * np.diag(inner)
    shown = matrix.most_confused(15)
    assert mixed[shown].min() >= np.delete(mixed, shown).max()
    assert_within(figure)


def test_costs_are_drawn_with_their_counts() -> None:
    table, boxes = prepared("coco_tiny")
    found = error_breakdown(table, classify_errors(table, boxes, 0.3))
    figure = error_costs(found)
    bars = [p.get_width() for p in figure.axes[0].patches]
    assert bars == [*found.cost.values(), found.false_positive_cost, found.false_negative_cost]
    said = [t.get_text() for t in figure.axes[0].texts]
    assert said[:6] == [f"{found.cost[k]:.3f} · {n:,}" for k, n in found.counts.items()]
    assert_within(figure)


@pytest.mark.parametrize("ap50", [float("nan"), 0.0])
def test_empty_pictures_are_drawn(ap50: float) -> None:
    kinds = ("classification", "localisation", "both", "duplicate", "background", "missed")
    empty = ErrorBreakdown(ap50, dict.fromkeys(kinds, 0), dict.fromkeys(kinds, 0.0), 0, 0, 0.0, 0.0)
    for figure in (error_costs(empty), confusion_matrix(Confusion(("cat",), np.zeros((2, 2), np.int64), True))):
        assert_within(figure)
    undefined = [t.get_text() for t in error_costs(empty).axes[0].texts if "Undefined" in t.get_text()]
    assert len(undefined) == np.isnan(ap50)


def test_page_can_exchange_every_colour() -> None:
    table, boxes = prepared("coco_tiny")
    for figure in (
        confusion_matrix(confusion(table, boxes, 0.3)),
        error_costs(error_breakdown(table, classify_errors(table, boxes, 0.3))),
    ):
        text = inline_svg(figure, "f", "x")
        assert not [c for c in CSS_NAMES if c in text]
        assert "#" not in text.replace('href="#', "").replace("url(#", "")
