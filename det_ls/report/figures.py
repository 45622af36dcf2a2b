# SPDX-License-Identifier: AGPL-3.0-or-later
"""The pictures of an evaluation: their titles and captions, and the files that they become."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup
from matplotlib.figure import Figure

from det_ls.data.coco import read_ground_truth
from det_ls.evaluation.results import Evaluation
from det_ls.report import plots
from det_ls.report.error_facts import ErrorFacts, error_facts
from det_ls.report.plot_style import PAPER_WIDTH, inline_svg
from det_ls.report.plots_curves import f1_curve, precision_recall
from det_ls.report.plots_errors import confusion_matrix, error_costs


@dataclass(frozen=True)
class Picture:
    """A picture of an evaluation.

    Attributes:
        name: Name of its files.
        title: Its title.
        caption: How to read it.
        draw: Draws it from the evaluation and what goes wrong.
    """

    name: str
    title: str
    caption: str
    draw: Callable[[Evaluation, ErrorFacts], Figure]


RELIABILITY = (
    "All boxes, by score. On the dashed diagonal, boxes with score 0.8 are right 8 times in 10 (solid) or overlap "
    "their objects by 0.8 on average, false positives counting 0 (dashed); below it scores promise too much. Boxes to "
    "the right of the operating point are the kept ones. Vertical bars are 95% bootstrap intervals of each bin; hollow "
    "markers hold fewer than 10 boxes, and no line leads through them."
)


def _of_metrics(draw: Callable[..., Figure]) -> Callable[[Evaluation, ErrorFacts], Figure]:
    return lambda evaluation, _: draw(evaluation.metrics)


def _f1(evaluation: Evaluation, facts: ErrorFacts) -> Figure:
    kept = evaluation.metrics.kept
    return f1_curve(facts.curves, thresholds=kept.thresholds.used if kept.keep.any() else None)


PICTURES: tuple[Picture, ...] = (
    Picture("reliability", "Can the scores be believed?", RELIABILITY, _of_metrics(plots.reliability)),
    Picture(
        "class_gaps",
        "Which classes are over-confident?",
        "Kept boxes. To the right of zero a class's scores are too high, to the left too low; bars are 95% bootstrap "
        "intervals of the gap to the precision, numbers in brackets are boxes. Of many classes, the most over- and "
        "under-confident are shown, chosen because they are extreme: some of that is chance.",
        _of_metrics(plots.class_gaps),
    ),
    Picture(
        "error_costs",
        "What kind of errors are there, and what do they cost?",
        "Kept boxes, sorted by TIDE's definitions (Bolya et al. 2020). A bar is by how much AP50 of the kept boxes "
        "would rise if these errors alone were put right; the costs do not add up.",
        lambda _, facts: error_costs(facts.breakdown),
    ),
    Picture(
        "confusion_matrix",
        "Which classes are taken for which?",
        "Kept boxes at IoU 0.5. The last column holds boxes with no object left to match, as nothing is annotated "
        "there or another kept box has matched it; the last row objects that no kept box finds. A cell is the darker "
        "the larger its share of its column.",
        lambda _, facts: confusion_matrix(facts.confusion),
    ),
    Picture(
        "f1_curve",
        "What does a score threshold keep and lose?",
        "Precision, recall and F1 at each threshold. The threshold of the best F1 is fitted to these images.",
        _f1,
    ),
    Picture(
        "precision_recall",
        "What precision does a recall cost?",
        "All boxes at IoU 0.5, interpolated as COCO does; the area under a curve is its AP50.",
        lambda _, facts: precision_recall(facts.precision_recall),
    ),
    Picture(
        "threshold_curve",
        "What does a score threshold change in the errors?",
        "Each point keeps only the boxes at or above a threshold; where LRP is smallest, misses, false positives "
        "and loose boxes balance.",
        _of_metrics(plots.threshold_curve),
    ),
    Picture(
        "reliability_by_size",
        "Does it depend on object size?",
        "The solid curve of the first picture for small, medium and large objects; below the diagonal scores are too "
        "high for that size. Numbers in brackets are boxes.",
        _of_metrics(plots.reliability_by_size),
    ),
    Picture(
        "froc",
        "What is found, at what price?",
        "Each score threshold gives a point: more objects found for more false alarms. The FROC score is the mean "
        "sensitivity at 1/8, 1/4, 1/2, 1, 2, 4 and 8 false positives per image. The star is the operating point, "
        "its thresholds chosen on other images: it can lie off the curve.",
        _of_metrics(plots.froc),
    ),
    Picture(
        "miss_rate",
        "What is missed?",
        "The same from the other side, on logarithmic axes: lower and further left is better. The log-average miss "
        "rate is the geometric mean over nine rates from 0.01 to 1 false positives per image.",
        _of_metrics(plots.miss_rate),
    ),
)


def facts_of(evaluation: Evaluation) -> ErrorFacts:
    """Collect what goes wrong among the kept boxes of an evaluation.

    Args:
        evaluation: The evaluation.

    Returns:
        The facts.

    Raises:
        ValueError: The detections or the objects are not those that were evaluated.
    """
    truth = read_ground_truth(evaluation.ground_truth, "ground_truth")
    metrics = evaluation.metrics
    return error_facts(metrics.table, evaluation.detections, truth, metrics.kept.keep)


def drawn(evaluation: Evaluation, facts: ErrorFacts) -> Iterator[tuple[Picture, Figure]]:
    """Draw the pictures of an evaluation, one after another.

    Args:
        evaluation: The evaluation.
        facts: What goes wrong.

    Yields:
        A picture, and what was drawn.
    """
    for picture in PICTURES:
        yield picture, picture.draw(evaluation, facts)


def inlined(figure: Figure, name: str, title: str, caption: str, *, wide: bool = False) -> dict[str, Any]:
    """Put a picture into a page.

    Args:
        figure: What was drawn.
        name: Its name within the page.
        title: Its title.
        caption: How to read it.
        wide: Whether it takes the whole width, as one of two columns does anyway.

    Returns:
        What the template shows.
    """
    svg = Markup(inline_svg(figure, name, f"{title} {caption}"))
    wide = wide or figure.get_figwidth() > 1.5 * PAPER_WIDTH
    return {"title": title, "svg": svg, "caption": caption, "wide": wide}
