# SPDX-License-Identifier: AGPL-3.0-or-later
"""The files beside a page: pictures for a paper, tables as CSV and Markdown, and a row for every error."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from det_ls.evaluation.comparison import PairedEvaluation
from det_ls.evaluation.results import Evaluation
from det_ls.report import plots
from det_ls.report.comparison_page import write_comparison
from det_ls.report.differences import Difference, differences, panels
from det_ls.report.evaluation_page import write_report
from det_ls.report.figures import PICTURES, drawn, facts_of
from det_ls.report.measured import LEADING, OF_ALL, OTHER_KEPT, OTHERS, Which, measured
from det_ls.report.plots_forest import forest
from det_ls.report.tables import Cell, breakdown_table, confusion_table, write_errors, write_table

REPORT_FILE, ERRORS_FILE = "report.html", "errors.csv"
PICTURES_FOLDER, TABLES_FOLDER = "pictures", "tables"
_IMAGES, _FORMS = ("png", "svg"), ("csv", "md")
TABLES = ("numbers", "classes", "errors", "confusion")
EVALUATION_FILES: tuple[str, ...] = (
    REPORT_FILE,
    ERRORS_FILE,
    *(f"{PICTURES_FOLDER}/{picture.name}.{form}" for picture in PICTURES for form in _IMAGES),
    *(f"{TABLES_FOLDER}/{name}.{form}" for name in TABLES for form in _FORMS),
)
COMPARISON_FILES: tuple[str, ...] = (
    REPORT_FILE,
    *(f"{PICTURES_FOLDER}/forest.{form}" for form in _IMAGES),
    *(f"{TABLES_FOLDER}/differences.{form}" for form in _FORMS),
)


def write_evaluation(folder: str | Path, evaluation: Evaluation, *, title: str, exist_ok: bool = False) -> None:
    """Write the page of an evaluation and what belongs to it, `EVALUATION_FILES`.

    Args:
        folder: Where to write; made if need be.
        evaluation: The evaluation.
        title: What the page is about.
        exist_ok: Whether to replace files that are there.

    Raises:
        FileExistsError: A file is there and ``exist_ok`` is False.
    """
    target = Path(folder)
    facts = facts_of(evaluation)
    pictures = list(drawn(evaluation, facts))
    for picture, figure in pictures:
        plots.save(figure, target / PICTURES_FOLDER / picture.name, exist_ok=exist_ok)
    write_errors(target / ERRORS_FILE, facts.rows, exist_ok=exist_ok)
    made = {
        "numbers": numbers_table(evaluation),
        "classes": classes_table(evaluation),
        "errors": breakdown_table(facts.breakdown),
        "confusion": confusion_table(facts.confusion),
    }
    for name in TABLES:
        _tables(target, name, *made[name], exist_ok=exist_ok)
    write_report(target / REPORT_FILE, evaluation, title=title, pictures=pictures, exist_ok=exist_ok)


def write_pair(folder: str | Path, pair: PairedEvaluation, *, title: str, exist_ok: bool = False) -> None:
    """Write the page of a comparison and what belongs to it, `COMPARISON_FILES`.

    Args:
        folder: Where to write; made if need be.
        pair: The comparison.
        title: What the page is about.
        exist_ok: Whether to replace files that are there.

    Raises:
        FileExistsError: A file is there and ``exist_ok`` is False.
    """
    target = Path(folder)
    picture = forest(panels(differences(pair).values()), names=pair.names)
    plots.save(picture, target / PICTURES_FOLDER / "forest", exist_ok=exist_ok)
    write_differences(target, differences(pair), exist_ok=exist_ok)
    write_comparison(target / REPORT_FILE, pair, title=title, exist_ok=exist_ok)


def numbers_table(evaluation: Evaluation) -> tuple[list[str], list[list[Cell]]]:
    """List every number.

    Args:
        evaluation: The evaluation.

    Returns:
        Header and rows, in the order of the page.
    """
    rows: list[list[Cell]] = []
    for which in (*LEADING, *OTHER_KEPT, *OF_ALL, *OTHERS):
        one = measured(evaluation.metrics, which)
        ends = (None, None) if one.interval is None else (one.interval.low, one.interval.high)
        floor = (None, None) if one.floor is None else (one.floor.median, one.floor.p95)
        n = one.definition["n"]
        rows.append(
            [which[0], which[1], *_rounded(one.value, *ends, *floor), n, one.definition["n_counts"], one.reason]
        )
    header = ["boxes", "number", "value", "low", "high", "floor_median", "floor_p95", "n", "n_counts", "undefined"]
    return header, rows


def classes_table(evaluation: Evaluation) -> tuple[list[str], list[list[Cell]]]:
    """List the numbers of each class.

    Args:
        evaluation: The evaluation.

    Returns:
        Header and rows, in the order of the classes; AP counts all boxes, the rest those that are kept.
    """
    of_all = ("n_gt", "AP", "AP50", "AP75")
    of_kept = ("threshold", "n", "precision", "recall", "LRP", "LaECE0", "signed_gap")
    rows: list[list[Cell]] = []
    for whole, kept in zip(evaluation.metrics.per_class, evaluation.metrics.kept.per_class, strict=True):
        rows.append([whole["name"], *_rounded(*(whole[k] for k in of_all), *(kept[k] for k in of_kept))])
    return ["class", "objects", *of_all[1:], "threshold", "kept", *of_kept[2:]], rows


def write_differences(folder: Path, found: Mapping[Which, Difference], *, exist_ok: bool) -> None:
    """Write the tables of a comparison.

    Args:
        folder: The folder of its page.
        found: The differences.
        exist_ok: Whether to replace files that are there.

    Raises:
        FileExistsError: A file is there and ``exist_ok`` is False.
    """
    _tables(folder, "differences", *differences_table(found), exist_ok=exist_ok)


def differences_table(found: Mapping[Which, Difference]) -> tuple[list[str], list[list[Cell]]]:
    """List every difference.

    Args:
        found: The differences.

    Returns:
        Header and rows, in the order of the page; ``low`` and ``high`` are over seeds where those were measured.
    """
    rows: list[list[Cell]] = []
    for d in found.values():
        ends = (d.low, d.high) if d.images is None else (d.images.low, d.images.high)
        rows.append(
            [
                d.about.population,
                d.about.key,
                *_rounded(d.mean_a, d.mean_b, d.difference, d.low, d.high, *ends, d.p, d.adjusted),
                "yes" if d.declared else "no",
                d.verdict.value,
                " ".join(f"{v:.6g}" for v in d.a),
                " ".join(f"{v:.6g}" for v in d.b),
            ]
        )
    header = ["boxes", "number", "a", "b", "difference", "low", "high", "low_images", "high_images", "p", "p_adjusted"]
    return [*header, "declared", "verdict", "runs_a", "runs_b"], rows


def _rounded(*values: float | None) -> list[Cell]:
    return [None if v is None else float(f"{v:.6g}") if isinstance(v, float) else v for v in values]


def _tables(folder: Path, name: str, header: Sequence[str], rows: Iterable[Sequence[Cell]], *, exist_ok: bool) -> None:
    listed = list(rows)
    for form in _FORMS:
        write_table(folder / TABLES_FOLDER / f"{name}.{form}", header, listed, exist_ok=exist_ok)
