# SPDX-License-Identifier: AGPL-3.0-or-later
"""Precision-recall and F1 pictures draw the curves that were computed, for few classes and for many."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from boxed_sets import load, prepared
from matplotlib.figure import Figure

from det_ls.metrics.curves_pr import precision_recall as compute
from det_ls.metrics.curves_pr import score_curves
from det_ls.metrics.matching import build_table
from det_ls.report.plot_style import inline_svg
from det_ls.report.plots_curves import f1_curve, precision_recall


def line(figure: Figure, start: str):
    (found,) = [one for one in figure.axes[0].lines if str(one.get_label()).startswith(start)]
    return found


@pytest.mark.parametrize("n_classes", [1, 3, 10, 80])
def test_classes_are_named_drawn_or_summed_up(n_classes: int) -> None:
    curve = compute(prepared("coco_tiny")[0])
    parts = {k: getattr(curve, k)[:n_classes] for k in ("class_names", "n_gt", "precision", "score")}
    curve = replace(curve, **parts)
    figure = precision_recall(curve)
    start = "mean" if n_classes > 1 else "AP"
    np.testing.assert_array_equal(line(figure, start).get_ydata(), curve.precision.mean(0))
    assert f"{curve.ap.mean():.3f}" in line(figure, start).get_label()
    lines = figure.axes[0].lines
    assert len(lines) == {1: 1, 3: 4, 10: 11, 80: 1}[n_classes]
    assert len(figure.axes[0].collections) == (n_classes == 80)
    if n_classes == 3:
        for c, name in enumerate(curve.class_names):
            np.testing.assert_array_equal(line(figure, name).get_ydata(), curve.precision[c])


@pytest.mark.parametrize("macro", [False, True])
def test_f1_is_drawn_with_its_best_threshold_and_the_operating_point(macro: bool) -> None:
    table, _ = prepared("coco_tiny")
    curves = score_curves(table)
    figure = f1_curve(curves, thresholds=0.31, macro=macro)
    values = curves.macro_f1 if macro else curves.micro_f1
    drawn = line(figure, "F1")
    np.testing.assert_array_equal(drawn.get_ydata(), values)
    best = line(figure, "best F1")
    assert (best.get_xdata()[0], best.get_ydata()[0]) == curves.best(values)
    assert line(figure, "operating point").get_xdata()[0] == 0.31
    assert not figure.axes[0].patches  # one threshold has no band
    spread = f1_curve(curves, thresholds=np.append(np.linspace(0.2, 0.6, table.n_classes - 1), np.nan))
    (band,) = spread.axes[0].patches
    assert band.get_extents().transformed(spread.axes[0].transData.inverted()).intervalx.mean() == pytest.approx(0.4)
    kept = (curves.tp + curves.fp).sum(0)
    drawn = line(figure, "precision").get_ydata()
    assert np.isnan(drawn[kept < 10]).all()
    assert not np.isnan(drawn[kept >= 10]).any()


def test_pictures_without_objects_say_so() -> None:
    gt, _ = load("hard")
    table = build_table({**gt, "annotations": []}, [])
    for figure in (precision_recall(compute(table)), f1_curve(score_curves(table), thresholds=float("nan"))):
        assert "Undefined: no ground truth" in [t.get_text() for t in figure.axes[0].texts]
        assert inline_svg(figure, "f", "x")


def test_text_is_readable_and_nothing_is_clipped() -> None:
    table, _ = prepared("synth_edge")
    for figure in (precision_recall(compute(table)), f1_curve(score_curves(table), thresholds=0.4)):
        assert figure.get_figwidth() == 3.5
        figure.draw_without_rendering()
        width, height = figure.canvas.get_width_height()
        box = figure.axes[0].get_tightbbox()
        assert np.all([box.x0 >= -1, box.y0 >= -1, box.x1 <= width + 1, box.y1 <= height + 1])
