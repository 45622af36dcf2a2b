# SPDX-License-Identifier: AGPL-3.0-or-later
"""An evaluation, or the comparison of two detectors, as one self-contained HTML page."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup
from matplotlib.figure import Figure

from det_ls.base.files import write_atomically
from det_ls.base.version import __version__
from det_ls.data.coco import read_ground_truth
from det_ls.evaluation.measure import DetectionMetrics
from det_ls.evaluation.operating_point import operating_point
from det_ls.metrics.catalogue import HEADLINE
from det_ls.report import plots
from det_ls.report.crops import CaseFinder
from det_ls.report.plot_style import inline_svg
from det_ls.report.rows import (
    Cropper,
    Row,
    class_rows,
    difference_row,
    difference_tile,
    flat,
    gap_rows,
    interval_note,
    number_row,
    ordered,
    tiles,
)
from det_ls.report.words import comparison_findings, findings
from det_ls.uncertainty.paired import Comparison

_FIGURES: tuple[tuple[str, Callable[..., Figure], str], ...] = (
    (
        "Can the scores be believed?",
        plots.reliability,
        "On the dashed diagonal, detections with score 0.8 are right 8 times in 10 (solid) or overlap their objects by "
        "0.8 on average, false positives counting 0 (dashed); below it scores promise too much. Vertical bars are 95% "
        "bootstrap intervals of each bin, hollow markers hold fewer than 10 detections, and the dotted line is the "
        "operating point (with several classes their median, shaded where the middle half lies).",
    ),
    (
        "Which classes are over-confident?",
        plots.class_gaps,
        "To the right of zero a class's scores are too high, to the left too low; bars are 95% bootstrap intervals of "
        "the gap to the precision, numbers in brackets are detections. Of many classes, the most over- and "
        "under-confident are shown, chosen because they are extreme: some of that is chance.",
    ),
    (
        "What does a score threshold change?",
        plots.threshold_curve,
        "Each point keeps only the detections at or above a threshold; where LRP is smallest, misses, false positives "
        "and loose boxes balance.",
    ),
    (
        "Does it depend on object size?",
        plots.reliability_by_size,
        "The solid curve of the first picture for small, medium and large objects; below the diagonal scores are too "
        "high for that size. Numbers in brackets are detections.",
    ),
    (
        "What is found, at what price?",
        plots.froc,
        "Each score threshold gives a point: more objects found for more false alarms. The FROC score is the mean "
        "sensitivity at 1/8, 1/4, 1/2, 1, 2, 4 and 8 false positives per image; the star has each class at its own "
        "threshold, so it can lie off the curve.",
    ),
    (
        "What is missed?",
        plots.miss_rate,
        "The same from the other side, on logarithmic axes: lower and further left is better. The log-average miss "
        "rate is the geometric mean over nine rates from 0.01 to 1 false positives per image.",
    ),
)


def write_report(
    path: str | Path,
    metrics: DetectionMetrics,
    *,
    title: str,
    protocol: Mapping[str, Any],
    images: Mapping[Any, str | Path] | None,
    detections: Sequence[Mapping[str, Any]],
    ground_truth: Mapping[str, Any],
    train: DetectionMetrics | None = None,
    exist_ok: bool = False,
) -> Path:
    """Write an evaluation as one HTML page that needs nothing else.

    Args:
        path: The file; its folder is made if need be.
        metrics: The numbers, with intervals and floors if those are to be shown.
        title: What the page is about, for example the names of model and data.
        protocol: Settings, versions and the weights' hash; mappings in it are flattened, absolute paths shortened.
        images: Image file by image id, for the crops; None for a page without crops' pictures.
        detections: The COCO results that were evaluated, in the same order.
        ground_truth: The COCO instances that they were evaluated against.
        train: The detector's numbers on (a sample of) the train split, to show the gap to them.
        exist_ok: Whether to replace a file that is there.

    Returns:
        The file.

    Raises:
        FileExistsError: The file is there and ``exist_ok`` is False.
        ValueError: The detections or the objects are not those that were evaluated.
    """
    target = _check_target(path, exist_ok)
    point = operating_point(metrics)
    finder = CaseFinder(metrics, detections, read_ground_truth(ground_truth, "ground_truth"), point)
    cropper, says = Cropper(images), findings(metrics, point)
    counts = metrics.counts
    rows = [number_row(metrics, key) for key in ordered(metrics.values)]
    if not counts["objects"]:
        none_missed = "There is no ground truth."
        none_wrong = "Without ground truth, right and wrong detections cannot be told apart."
    else:
        none_missed = "None: every object is found at the operating point."
        none_wrong = "There are no detections." if not counts["detections"] else "There are none."
    page = {
        **_common(title, protocol, {"counted": metrics}),
        "subtitle": f"{counts['images']:,} images, {counts['objects']:,} objects, {counts['detections']:,} detections, "
        f"{counts['classes_with_ground_truth']:,} of {counts['classes']:,} classes with ground truth; "
        f"protocol {metrics.protocol}",
        "tiles": tiles(metrics, point),
        "findings": says,
        "interval_note": interval_note(metrics.intervals.values()),
        "headline": [row for row in rows if row["key"] in HEADLINE],
        "others": [row for row in rows if row["key"] not in HEADLINE],
        "gap": [] if train is None else gap_rows(metrics, train),
        "train_images": 0 if train is None else train.counts["images"],
        "val_images": counts["images"],
        "figures": [
            _picture(draw(metrics), f"f{i}", heading, caption)
            for i, (heading, draw, caption) in enumerate(_FIGURES if counts["objects"] and counts["detections"] else ())
        ],
        "no_figures": "There is no ground truth." if not counts["objects"] else "There are no detections.",
        "classes": class_rows(metrics),
        "false_positives": [cropper(case) for case in finder.false_positives()],
        "missed": [cropper(case) for case in finder.missed_objects()],
        "no_false_positives": none_wrong,
        "no_missed": none_missed,
    }
    return _write(target, "report.html", page)


def write_comparison(
    path: str | Path,
    a: DetectionMetrics,
    b: DetectionMetrics,
    comparisons: Mapping[str, Comparison],
    *,
    names: tuple[str, str],
    title: str,
    protocol: Mapping[str, Any],
    exist_ok: bool = False,
) -> Path:
    """Write the paired comparison of two detectors as one HTML page that needs nothing else.

    Args:
        path: The file; its folder is made if need be.
        a: The numbers of the first detector.
        b: The numbers of the second detector, on the same images and under the same protocol.
        comparisons: Their paired comparison, from `det_ls.uncertainty.bootstrap.compare_tables`.
        names: What to call them.
        title: What the page is about.
        protocol: Settings, versions and the weights' hashes of both, as for `write_report`.
        exist_ok: Whether to replace a file that is there.

    Returns:
        The file.

    Raises:
        FileExistsError: The file is there and ``exist_ok`` is False.
        ValueError: The detectors were evaluated under different protocols.
    """
    target = _check_target(path, exist_ok)
    if a.protocol != b.protocol:
        raise ValueError(f"a, b: expected the same protocol in both, got {a.protocol} and {b.protocol}.")
    shown = [comparisons[k] for k in HEADLINE if k in comparisons]
    differing = sum(c.differs for c in shown)
    sides = [
        _picture(
            plots.reliability(metrics),
            f"side{i}",
            f"Can the scores of {name} be believed?",
            _FIGURES[0][2] if i == 0 else "The same for the second detector.",
        )
        for i, (metrics, name) in enumerate(zip((a, b), names, strict=True))
    ]
    forest = _picture(
        plots.forest(comparisons, names=names),
        "forest",
        "Which differences are real?",
        f"Each row is {names[1]} minus {names[0]} with its paired interval. Thick lines and filled markers exclude "
        "zero; thin lines with a hollow marker do not show a difference. Arrows point to where a number gets better.",
    )
    page = {
        **_common(title, protocol, {f"counted for {name}": m for name, m in zip(names, (a, b), strict=True)}),
        "subtitle": f"{names[1]} against {names[0]} on the same {a.counts['images']:,} images with "
        f"{a.counts['objects']:,} objects; protocol {a.protocol}",
        "tiles": [
            *(difference_tile(comparisons[k], names) for k in ("AP", "LaECE0", "signed_gap") if k in comparisons),
            {
                "name": "Headline numbers that differ",
                "value": f"{differing} of {len(shown)}",
                "more": "paired interval excludes zero",
                "words": False,
            },
        ],
        "names": names,
        "findings": comparison_findings(comparisons, names),
        "interval_note": interval_note([c.interval for c in comparisons.values()]),
        "headline": [difference_row(k, a, b, comparisons.get(k)) for k in HEADLINE],
        "others": [difference_row(k, a, b, comparisons[k]) for k in ordered(comparisons) if k not in HEADLINE],
        "figures": [{**forest, "wide": True}, *sides],
    }
    return _write(target, "comparison.html", page)


def _check_target(path: str | Path, exist_ok: bool) -> Path:
    target = Path(path)
    if target.exists() and not exist_ok:
        raise FileExistsError(f"path: expected a new file without exist_ok, got '{target}', which exists.")
    return target


def _write(target: Path, template: str, page: Mapping[str, Any]) -> Path:
    """Fill in a template; whatever is not markup of our own is escaped."""
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    content = environment.get_template(template).render(page)
    target.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(target, content.encode("utf-8"))
    return target


def _common(title: str, protocol: Mapping[str, Any], evaluated: Mapping[str, DetectionMetrics]) -> Row:
    """Collect what both kinds of page show: the title, and the protocol with the counts of each detector."""
    rows = flat(protocol)
    for label, one in evaluated.items():
        rows += flat({label: {name: f"{n:,}" for name, n in one.counts.items()}})
    metrics = next(iter(evaluated.values()))
    if metrics.left_out:
        rows += [("classes left out", ", ".join(f"{n} ({why})" for n, why in metrics.left_out.items()))]
    if metrics.floors:
        floor = next(iter(metrics.floors.values()))
        rows += [
            ("floors", f"{floor.simulations:,} simulations of a perfectly calibrated detector with the same scores")
        ]
    return {"title": title, "protocol": rows, "version": __version__}


def _picture(figure: Figure, name: str, title: str, caption: str) -> Row:
    svg = Markup(inline_svg(figure, name, f"{title} {caption}"))
    return {"title": title, "svg": svg, "caption": caption, "wide": False}
