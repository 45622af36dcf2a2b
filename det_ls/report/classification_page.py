# SPDX-License-Identifier: AGPL-3.0-or-later
"""What is shown of a classifier: a page, its pictures and tables, and what the command line prints."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import numpy as np

from det_ls.base.version import __version__
from det_ls.evaluation.classification import Classification
from det_ls.metrics.classification import BINS, CLASSIFICATION
from det_ls.report import plots
from det_ls.report.crops import base_name
from det_ls.report.figures import inlined
from det_ls.report.findings import Finding
from det_ls.report.outputs import PICTURES_FOLDER, REPORT_FILE, TABLES_FOLDER
from det_ls.report.page_parts import check_target, write_page
from det_ls.report.plots_classification import top_reliability
from det_ls.report.rows import Row, flat
from det_ls.report.tables import Cell, write_table
from det_ls.report.training import cautions, columns, training_row
from det_ls.report.words import (
    CALIBRATED,
    DASH,
    ascii_text,
    better_text,
    between,
    count,
    floor_text,
    interval_note,
    interval_text,
    number,
    row_decimals,
)

MOST_CLASSES, MOST_MISTAKES = 200, 20
_TILES = ("accuracy", "accuracy_top5", "signed_gap", "ECE", "nll")
_WITHOUT_SPREAD = (
    " Where all samples read the same, as when every image is classified right, an accuracy has Wilson's interval and "
    "another number has none."
)
_CAPTION = (
    "The probability of the first guess. On the dashed diagonal, images with probability 0.8 are classified rightly 8 "
    "times in 10; below it the probabilities promise too much. Vertical bars are 95% bootstrap intervals of each bin; "
    "hollow markers hold fewer than 10 images, and no line leads through them."
)


def write_classification(folder: str | Path, result: Classification, *, title: str, exist_ok: bool = False) -> None:
    """Write the page of a classifier, its picture and its tables, under the names that those of detectors have.

    Args:
        folder: Where to write; made if need be.
        result: The classifier's numbers.
        title: What the page is about.
        exist_ok: Whether to replace files that are there.

    Raises:
        FileExistsError: A file is there and ``exist_ok`` is False.
    """
    target = Path(folder)
    figure = top_reliability(result)
    plots.save(figure, target / PICTURES_FOLDER / "reliability", exist_ok=exist_ok)
    for name, (header, rows) in {"numbers": numbers_table(result), "classes": classes_table(result)}.items():
        for form in ("csv", "md"):
            write_table(target / TABLES_FOLDER / f"{name}.{form}", header, rows, exist_ok=exist_ok)
    trained = training_row(result.protocol.get("training"))
    intervals = list(result.intervals.values())
    page: Row = {
        "title": title,
        "first": "",
        "subtitle": f"{count(result.n_images, 'image')}, {count(result.table.n_classes, 'class', 'classes')}",
        "date": datetime.now(timezone.utc).strftime("%Y-%m-%d %H:%M UTC"),
        "version": __version__,
        "tiles": _tiles(result),
        "findings": findings(result),
        "training_columns": columns(),
        "trainings": [] if trained is None else [("This model", trained)],
        "protocol": flat({k: v for k, v in result.protocol.items() if k != "training"}),
        "interval_note": interval_note(intervals, None if result.groups == result.n_images else result.groups)
        + (_WITHOUT_SPREAD if intervals else ""),
        "numbers": [number_row(result, key) for key in result.values],
        "figures": [inlined(figure, "f-reliability", "Can the probabilities be believed?", _CAPTION)],
        "gap": _gap_rows(result),
        "train_images": 0 if result.train is None else result.train.n_images,
        "val_images": result.n_images,
        "classes": _class_rows(result),
        "left_out": max(0, len(result.per_class) - MOST_CLASSES),
        "mistakes": mistakes(result),
    }
    write_page(check_target(target / REPORT_FILE, exist_ok), "classification.html", page)


def classification_text(result: Classification) -> str:
    """Write a classifier's numbers with intervals and floors, one a line.

    Args:
        result: The numbers.

    Returns:
        Lines of ASCII text; an interval that does not say where the true error lies has an asterisk, which a line
        explains.
    """
    lines = [
        f"classify; ECE of the first guess, {BINS} bins; {count(result.n_images, 'image')}, "
        f"{count(result.table.n_classes, 'class', 'classes')}",
        f"{'':>15}  {'value':>9}  {'interval':>20}  a calibrated classifier's 95th percentile",
    ]
    for key, value in result.values.items():
        interval, floor = result.intervals.get(key), result.floors.get(key)
        span = interval_text(interval, decimals=4)
        span += "" if not span else "*" if interval is not None and interval.of == "estimator" else " "
        line = f"{key:>15}  {number(value, decimals=4):>9}  {span:>20}"
        if floor is not None:
            line += f"  {number(floor.p95, decimals=4)}, {floor_text(value, floor)}"
        lines.append(line.rstrip())
    if result.train is not None:
        parts = [f"{key} {number(gap, signed=True, decimals=4)}" for key, gap in result.gap.items()]
        lines.append(f"train minus val: {', '.join(parts)}")
    if any("*" in line for line in lines):
        lines.append("* uncertainty of the estimator, which is biased upwards; not where the true error lies")
    lines += [f"careful: {lead}. {text}" for lead, text in cautions(result.protocol.get("training"))]
    return ascii_text("\n".join(lines))


def findings(result: Classification) -> list[Finding]:
    """Say what a classifier's numbers show.

    Args:
        result: The numbers.

    Returns:
        The findings, cautions last.
    """
    gap, interval = result.values["signed_gap"], result.intervals.get("signed_gap")
    text = f"Mean confidence minus accuracy: {number(gap, signed=True)}{between(interval, signed=True)}."
    if interval is None:
        lead = "Over-confident" if gap > 0 else "Under-confident" if gap < 0 else "Neither over- nor under-confident"
        lead += " by the estimate, which has no interval"
    elif interval.low > 0:
        lead = "Over-confident: the classifier is right less often than it says"
    elif interval.high < 0:
        lead = "Under-confident: the classifier is right more often than it says"
    else:
        lead = "Neither over- nor under-confidence is shown"
    found = [Finding("Confidence", lead, text)]
    if (floor := result.floors.get("ECE")) is not None:
        error = result.values["ECE"]
        words = "Above what calibration alone would read" if floor.exceeded_by(error) else CALIBRATED.capitalize()
        found.append(
            Finding(
                "Calibration",
                words,
                f"ECE {number(error)}; a calibrated classifier with the same confidences reads up to "
                f"{number(floor.p95)} in 95 of 100 samples of this size.",
            )
        )
    for lead, text in cautions(result.protocol.get("training")):
        found.append(Finding("Careful", lead, text, caution=True))
    return found


def number_row(result: Classification, key: str) -> Row:
    """Show a number with its interval and its floor, all to the same decimal.

    Args:
        result: The numbers.
        key: The number.

    Returns:
        The row, as those of a detector.
    """
    about, value = CLASSIFICATION[key], result.values[key]
    interval, floor = result.intervals.get(key), result.floors.get(key)
    decimals = row_decimals(value, *((None, None) if interval is None else (interval.low, interval.high)))
    return {
        "key": key,
        "name": about.name,
        "what": about.what,
        "better": better_text(about),
        "population": about.bins + " bins" if about.bins else "all images",
        "n": count(result.n_images, "image"),
        "value": number(value, signed=about.signed, decimals=decimals),
        "reason": "",
        "interval": interval_text(interval, signed=about.signed, decimals=decimals),
        "of_estimator": interval is not None and interval.of == "estimator",
        "floor": ""
        if floor is None
        else f"{number(floor.median, decimals=decimals)}, 95% below {number(floor.p95, decimals=decimals)}",
        "verdict": floor_text(value, floor),
        "calibrated": floor is not None and not floor.exceeded_by(value),
    }


def numbers_table(result: Classification) -> tuple[list[str], list[list[Cell]]]:
    """List every number.

    Args:
        result: The numbers.

    Returns:
        Header and rows.
    """
    rows: list[list[Cell]] = []
    for key, value in result.values.items():
        interval, floor = result.intervals.get(key), result.floors.get(key)
        ends = (None, None) if interval is None else (interval.low, interval.high)
        beside = (None, None) if floor is None else (floor.median, floor.p95)
        rows.append([key, *_rounded(value, *ends, *beside), result.n_images])
    return ["number", "value", "low", "high", "floor_median", "floor_p95", "n"], rows


def classes_table(result: Classification) -> tuple[list[str], list[list[Cell]]]:
    """List the numbers of each class.

    Args:
        result: The numbers.

    Returns:
        Header and rows, in the order of the classes.
    """
    keys = ("n", "recall", "n_predicted", "precision", "mean_confidence", "signed_gap")
    return ["class", *keys], [[c["name"], *_rounded(*(c[key] for key in keys))] for c in result.per_class]


def mistakes(result: Classification, limit: int = MOST_MISTAKES) -> list[Row]:
    """List the wrong first guesses with the highest probabilities.

    Args:
        result: The numbers.
        limit: How many at most.

    Returns:
        Rows of text, the surest mistake first.
    """
    table = result.table
    wrong = np.flatnonzero(~table.correct)
    order = wrong[np.argsort(-table.confidence[wrong], kind="stable")][:limit]
    return [
        {
            "file_name": base_name(result.file_names[i]),
            "class": table.class_names[table.label[i]],
            "predicted": table.class_names[table.predicted[i]],
            "confidence": number(float(table.confidence[i])),
            "own": number(float(np.exp(-table.nll[i]))),
        }
        for i in order.tolist()
    ]


def _tiles(result: Classification) -> list[Row]:
    """Show the few numbers that come first."""
    rows = [number_row(result, key) for key in _TILES if key in result.values]
    return [{"name": row["name"], "value": row["value"], "more": row["interval"], "words": False} for row in rows]


def _gap_rows(result: Classification) -> list[Row]:
    """Show the numbers of the train and val split beside each other."""
    rows = []
    for key, gap in result.gap.items():
        about, row = CLASSIFICATION[key], number_row(result, key)
        train = 0.0 if result.train is None else result.train.values[key]
        written = {"train": number(train, signed=about.signed), "gap": number(gap, signed=True)}
        rows.append({"key": key, "name": about.name, "better": row["better"], "val": row["value"], **written})
    return rows


def _class_rows(result: Classification) -> list[Row]:
    """Show the numbers of each class, those with the most images first where they are many."""
    shown = sorted(result.per_class, key=lambda c: -c["n"])[:MOST_CLASSES] if result.per_class else []
    shown = sorted(shown, key=lambda c: int(c["id"]))
    return [_class_row(c) for c in shown]


def _class_row(numbers: Mapping[str, Any]) -> Row:
    """Show the numbers of one class."""
    return {
        "name": numbers["name"],
        "images": f"{numbers['n']:,}",
        "guessed": f"{numbers['n_predicted']:,}",
        **{key: number(numbers[key]) for key in ("recall", "precision", "mean_confidence")},
        "gap": DASH if numbers["signed_gap"] is None else number(numbers["signed_gap"], signed=True),
    }


def _rounded(*values: float | None) -> list[Cell]:
    return [None if v is None else float(f"{v:.6g}") if isinstance(v, float) else v for v in values]
