# SPDX-License-Identifier: AGPL-3.0-or-later
"""The pictures show the table's numbers, are readable at paper size, and need no pyplot."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from matplotlib.figure import Figure
from matplotlib.text import Text

from det_ls.evaluation.measure import DetectionMetrics, detection_metrics, metrics_from_coco
from det_ls.evaluation.operating_point import operating_point
from det_ls.evaluation.settings import MeasureSettings
from det_ls.metrics.curves import free_response, reliability_intervals
from det_ls.metrics.curves import threshold_curve as compute_threshold_curve
from det_ls.metrics.matching import evaluate_checked
from det_ls.report import plots
from det_ls.report.plot_style import CSS_NAMES, inline_svg
from det_ls.uncertainty.samples import image_weights

DRAW = (
    plots.reliability,
    plots.reliability_by_size,
    plots.threshold_curve,
    plots.class_gaps,
    plots.froc,
    plots.miss_rate,
)


def simulated(
    seed: int = 0,
    names: tuple[str, ...] = ("cat", "$do<g>_{", "c & d"),
    power: float = 0.6,
    threshold: object = None,
) -> DetectionMetrics:
    """Objects on a grid of 30 images, jittered detections of most, false positives, scores that promise too much."""
    rng = np.random.default_rng(seed)
    gt, detections = [], []
    for image in range(1, 31):
        for cell in range(4):
            c, x, y, side = int(rng.integers(len(names))), 120 * cell, 40, float(rng.uniform(20, 100))
            gt.append({"id": len(gt) + 1, "image_id": image, "category_id": c + 1, "bbox": [x, y, side, side]})
            if rng.random() < 0.8:
                shift = float(rng.uniform(0, 0.4)) * side
                box = {"image_id": image, "category_id": c + 1, "bbox": [x + shift, y, side, side]}
                detections.append({**box, "score": float(rng.beta(4, 2)) ** power})
        for _ in range(3):
            box = {"image_id": image, "category_id": int(rng.integers(len(names))) + 1, "bbox": [500, 300, 40, 40]}
            detections.append({**box, "score": float(rng.beta(1.5, 4)) ** power})
    coco = {
        "images": [{"id": i} for i in range(1, 31)],
        "annotations": gt,
        "categories": [{"id": i, "name": n} for i, n in enumerate(names, 1)],
    }
    if threshold is None:
        return detection_metrics(coco, detections, simulations=0)
    given = np.broadcast_to(threshold, len(names))
    return metrics_from_coco(evaluate_checked(coco, detections), MeasureSettings(simulations=0), thresholds=given)


@pytest.fixture(scope="module")
def metrics() -> DetectionMetrics:
    return simulated()


def line(figure: Figure, start: str, axis: int = 0):
    """The only line whose name starts like this."""
    (found,) = [one for one in figure.axes[axis].lines if str(one.get_label()).startswith(start)]
    return found


def texts(figure: Figure) -> list[str]:
    return [t.get_text() for t in figure.findobj(Text) if t.get_text()]


def test_reliability_draws_both_targets_counts_and_intervals(metrics: DetectionMetrics) -> None:
    figure = plots.reliability(metrics, replicates=50, seed=3)
    for label, key, target in (("precision", "tp", "tp"), ("mean IoU", "iou", "iou")):
        data, drawn = metrics.reliability[key], line(figure, label)
        some = data.count > 0
        np.testing.assert_array_equal(drawn.get_xdata(), data.mean_score[some])
        through = np.where(data.count >= 10, data.mean_target, np.nan)  # no line to a bin that chance moves
        np.testing.assert_array_equal(drawn.get_ydata(), through[some])
        low, high = reliability_intervals(metrics.table, image_weights(30, 50, 3), target, bins=len(data.count))
        spans = [tuple(x.get_ydata()) for x in figure.axes[0].lines if x.get_color() == drawn.get_color()]
        for ends in zip(low[some], high[some], strict=True):
            assert ends in spans
    bars = sorted((p.get_x(), p.get_height()) for p in figure.axes[1].patches)
    counts = metrics.reliability["tp"].count
    assert [h for _, h in bars] == counts[counts > 0].tolist()


def test_every_bin_with_detections_has_a_marker(metrics: DetectionMetrics) -> None:
    data = metrics.reliability["tp"]
    drawn = {
        tuple(p)
        for points in plots.reliability(metrics, replicates=0).axes[0].collections
        for p in points.get_offsets().tolist()
    }
    some = data.count > 0
    assert set(zip(data.mean_score[some], data.mean_target[some], strict=True)) <= drawn


def test_bins_with_few_detections_are_drawn_lighter(metrics: DetectionMetrics) -> None:
    figure = plots.reliability(metrics, replicates=0)
    few = metrics.reliability["tp"].count
    light = [p for p in figure.axes[1].patches if p.get_alpha() < 0.5]
    assert sorted(p.get_height() for p in light) == sorted(few[(few > 0) & (few < 10)].tolist())
    assert len(light) > 0


def test_operating_point_is_marked_at_the_threshold_to_type_or_over_those_of_the_classes() -> None:
    one, few = (simulated(threshold=t) for t in (0.3, np.array([0.2, 0.3, 0.3])))
    several = simulated(names=tuple("abcde"), threshold=np.array([0.1, 0.2, 0.3, 0.4, 0.5]))
    for draw in (plots.reliability, plots.threshold_curve):
        assert line(draw(one), "operating point 0.3").get_xdata()[0] == 0.3
        assert line(draw(few), "operating points 0.2, 0.3").get_xdata()[0] == 0.2
        ax = draw(several).axes[0]
        assert not [x for x in ax.lines if "operating point" in str(x.get_label())]  # no single number stands for them
        (band,) = [p for p in ax.patches if "operating points" in str(p.get_label())]
        assert band.get_extents().transformed(ax.transData.inverted()).intervalx == pytest.approx([0.2, 0.4])


def test_operating_point_is_a_star_on_the_curve_of_all_errors(metrics: DetectionMetrics) -> None:
    point = operating_point(metrics)
    drawn = line(plots.froc(metrics), "operating point")
    assert (drawn.get_xdata()[0], drawn.get_ydata()[0]) == (point.n_fp / 30, point.n_tp / 120)


def test_operating_point_counts_agree_with_a_new_evaluation(metrics: DetectionMetrics) -> None:
    table, point = metrics.table, operating_point(metrics)
    kept = table.filter(point.keep).matches(0.5)
    assert (point.n_tp, point.n_fp) == (int(kept.tp.sum()), int((~kept.tp & ~kept.ignored).sum()))
    assert metrics.kept.counts["found"] == point.n_tp


def test_threshold_curve_draws_the_three_errors(metrics: DetectionMetrics) -> None:
    figure, curve = plots.threshold_curve(metrics), compute_threshold_curve(metrics.table)
    for label, values in (("LRP", curve.lrp), ("LaECE0", curve.laece0), ("D-ECE", curve.dece)):
        drawn = values if label == "LRP" else np.where(curve.n < 10, np.nan, values)
        np.testing.assert_array_equal(line(figure, label).get_ydata(), drawn)
    assert line(figure, "LRP").get_ydata()[0] == metrics.values["LRP"]
    assert line(figure, "LaECE0").get_ydata()[0] == metrics.values["LaECE0"]


def test_sizes_are_drawn_with_their_counts(metrics: DetectionMetrics) -> None:
    figure = plots.reliability_by_size(metrics)
    for size in ("small", "medium", "large"):
        data = metrics.reliability[f"tp_{size}"]
        if data.count.any():
            drawn = line(figure, size)
            through = np.where(data.count >= 10, data.mean_target, np.nan)
            np.testing.assert_array_equal(drawn.get_ydata(), through[data.count > 0])
            assert f"({data.count.sum()})" in drawn.get_label()


def kept_gaps(metrics: DetectionMetrics) -> list[tuple[str, int, float]]:
    """Name, kept boxes and gap of each class, the most over-confident first."""
    kept = [c for c in metrics.kept.per_class if c["n"]]
    return sorted(((c["name"], int(c["n"]), c["signed_gap"]) for c in kept), key=lambda c: -c[2])


def test_class_gaps_are_of_kept_boxes_sorted_and_named(metrics: DetectionMetrics) -> None:
    figure, order = plots.class_gaps(metrics), kept_gaps(metrics)
    assert sum(n for _, n, _ in order) == metrics.kept.counts["boxes"] < metrics.table.n_detections
    ax = figure.axes[0]
    labels = {tick: t.get_text() for tick, t in zip(ax.get_yticks(), ax.get_yticklabels(), strict=True)}
    from_top = [labels[y] for y in sorted(labels, reverse=True)]
    assert from_top == [f"{name} ({n})" for name, n, _ in order]
    (points,) = [c for c in ax.collections if "precision" in c.get_label()]
    shown = sorted(points.get_offsets().tolist(), key=lambda p: -p[1])
    assert [x for x, _ in shown] == pytest.approx([gap for *_, gap in order])


def test_of_many_classes_the_extremes_are_shown() -> None:
    many = simulated(names=tuple(f"class {i}" for i in range(30)), threshold=0.3)
    ranked = kept_gaps(many)
    enough = [c for c in ranked if c[1] >= plots.FEW]
    for limit, among in ((2, enough), (26, ranked)):  # with too few classes of 10 boxes, any class is shown
        assert (len(enough) >= limit) == (among is enough)
        gaps = sorted(gap for *_, gap in among)
        figure = plots.class_gaps(many, limit=limit, replicates=0)
        assert len(figure.axes[0].get_yticks()) == limit
        offsets = [c.get_offsets() for c in figure.axes[0].collections]
        drawn = {round(x, 9) for points in offsets for x, _ in points.tolist()}
        assert {round(gap, 9) for gap in gaps[: limit // 2] + gaps[-limit // 2 :]} <= drawn


def test_free_response_curves_are_complements(metrics: DetectionMetrics) -> None:
    curve = free_response(metrics.table)
    found, missed = plots.froc(metrics), plots.miss_rate(metrics)
    np.testing.assert_array_equal(line(found, "FROC").get_ydata()[1:], curve.sensitivity)
    np.testing.assert_allclose(line(missed, "miss rate").get_ydata()[1:], 1 - curve.sensitivity)
    seen = curve.fp_per_image > 0
    np.testing.assert_array_equal(line(found, "FROC").get_xdata()[1:][seen], curve.fp_per_image[seen])
    assert found.axes[0].get_xscale() == missed.axes[0].get_yscale() == "log"
    assert f"{curve.froc_score:.3f}" in line(found, "FROC").get_label()


def test_two_detectors_stand_side_by_side(metrics: DetectionMetrics) -> None:
    other = simulated(power=1.0)
    figure = plots.compare_reliability(metrics, other, names=("old", "new"), replicates=0)
    titles = [ax.get_title() for ax in figure.axes if ax.get_title()]
    assert titles == ["old", "new"]


@pytest.mark.parametrize("draw", DRAW, ids=lambda d: d.__name__)
def test_text_is_readable_in_one_column_of_a_paper(metrics: DetectionMetrics, draw) -> None:
    figure = draw(metrics)
    assert figure.get_figwidth() == 3.5
    assert min(t.get_fontsize() for t in figure.findobj(Text) if t.get_text()) >= 7
    figure.draw_without_rendering()
    width, height = figure.canvas.get_width_height()
    for ax in figure.axes:
        box = ax.get_tightbbox()
        assert box.x0 >= -1
        assert box.x1 <= width + 1
        assert box.y0 >= -1
        assert box.y1 <= height + 1


@pytest.mark.parametrize("draw", DRAW[1:], ids=lambda d: d.__name__)
def test_draws_into_the_callers_axes(metrics: DetectionMetrics, draw) -> None:
    figure = Figure()
    left, right = figure.subplots(1, 2)
    assert draw(metrics, ax=left) is figure
    assert left.has_data()
    assert not right.has_data()


def test_curves_differ_without_colour(metrics: DetectionMetrics) -> None:
    for draw in (plots.reliability, plots.reliability_by_size, plots.threshold_curve):
        named = [one for one in draw(metrics).axes[0].lines if not str(one.get_label()).startswith("_")]
        assert len({str(one._dash_pattern) for one in named}) == len(named)


@pytest.mark.parametrize("draw", DRAW, ids=lambda d: d.__name__)
@pytest.mark.parametrize("objects", [True, False], ids=["no detections", "no ground truth"])
def test_what_is_undefined_is_said_in_the_picture(draw, objects: bool) -> None:
    coco = {"images": [{"id": 1}], "categories": [{"id": 1, "name": "a"}], "annotations": []}
    box = {"image_id": 1, "category_id": 1, "bbox": [0, 0, 9, 9]}
    if objects:
        coco["annotations"] = [{**box, "id": 1}]
    empty = detection_metrics(coco, [] if objects else [{**box, "score": 0.5}], bootstrap=0, simulations=0)
    reason = "no detections" if objects else "no ground truth"
    if objects and draw is plots.threshold_curve:
        assert line(draw(empty), "LRP").get_ydata().tolist() == [1.0] * 20  # missing everything is an error of 1
    else:
        assert f"Undefined: {reason}" in texts(draw(empty))


def test_pyplot_is_not_needed() -> None:
    code = "import sys, det_ls.report; sys.exit('matplotlib.pyplot' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_saves_png_and_svg_once_and_completely(metrics: DetectionMetrics, tmp_path: Path) -> None:
    figure = plots.froc(metrics)
    png, svg = plots.save(figure, tmp_path / "new" / "froc")
    assert png.read_bytes().startswith(b"\x89PNG")
    assert ElementTree.fromstring(svg.read_text()).tag.endswith("svg")
    before = svg.read_bytes()
    with pytest.raises(FileExistsError, match="froc"):
        plots.save(figure, tmp_path / "new" / "froc")
    plots.save(plots.froc(metrics), tmp_path / "new" / "froc", exist_ok=True)
    assert svg.read_bytes() == before  # the same numbers give the same file
    assert sorted(p.name for p in svg.parent.iterdir()) == ["froc.png", "froc.svg"]
    with pytest.raises(ValueError, match="jpg"):
        plots.save(figure, tmp_path / "x", formats=("jpg",))


def test_page_can_exchange_every_colour(metrics: DetectionMetrics) -> None:
    for i, draw in enumerate(DRAW):
        text = inline_svg(draw(metrics), f"f{i}", 'what "it" shows')
        ElementTree.fromstring(text)
        assert not re.findall(r"#[0-9a-f]{6}\b", text), draw.__name__
        assert set(re.findall(r"var\((--\w+)\)", text)) <= set(CSS_NAMES.values())
        ids = re.findall(r'\bid="([^"]*)"', text)
        assert all(name.startswith(f"f{i}-") for name in ids)
        assert set(re.findall(r'href="#([^"]*)"|url\(#([^)]*)\)', text)) <= {(n, "") for n in ids} | {
            ("", n) for n in ids
        }
