# SPDX-License-Identifier: AGPL-3.0-or-later
"""An evaluation as text, as a notebook's table and as a data frame: numbers and labels, no sentences.

Each row says which boxes it counts: ``all`` that were given, or those ``kept`` at thresholds chosen on other images.
"""

from __future__ import annotations

import html
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, Protocol

from det_ls.base.errors import ArgumentError, MissingPackageError
from det_ls.metrics.catalogue import HEADLINE, KEPT

if TYPE_CHECKING:
    from det_ls.evaluation.measure import DetectionMetrics

LIBRARIES = ("pandas", "polars")
TABLES: tuple[str, ...] = ("numbers", "classes")
Row = tuple[str, str]  # which boxes, and the number's key
BRIEF: tuple[Row, ...] = (
    ("all", "AP"),
    ("all", "AP50"),
    *(("kept", key) for key in ("precision", "recall", "fp_per_image", "LaECE0", "DECE", "signed_gap")),
)
FULL: tuple[Row, ...] = (
    *(("kept", key) for key, number in KEPT.items() if number.headline),
    *(("all", key) for key in HEADLINE),
)


class Measured(Protocol):
    """What is shown of an evaluation (`det_ls.evaluation.results.Evaluation`)."""

    @property
    def metrics(self) -> DetectionMetrics:
        """The numbers."""
        ...

    @property
    def protocol(self) -> dict[str, Any]:
        """How they came about."""
        ...

    @property
    def n_images(self) -> int:
        """Images."""
        ...

    @property
    def n_gt(self) -> int:
        """Objects."""
        ...

    @property
    def n_detections(self) -> int:
        """Detections."""
        ...


def summary(evaluation: Measured, rows: Sequence[Row] = FULL) -> str:
    """Write an evaluation's numbers, one a line, with interval and floor where there are any.

    Args:
        evaluation: The evaluation.
        rows: Which numbers: ``all`` or ``kept``, and a key of ``metrics.values`` or ``metrics.kept.values``.

    Returns:
        Lines of ASCII text.

    Raises:
        KeyError: If there is no such number.
    """
    cells = [_heads(evaluation.metrics), *(_cells(evaluation.metrics, row) for row in rows)]
    widths = [max(len(row[i]) for row in cells) for i in range(len(cells[0]))]
    lines = ["  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in cells]
    return "\n".join([_head(evaluation), *lines])


def brief(evaluation: Measured) -> str:
    """Write an evaluation in about ten lines, for its ``repr``.

    Args:
        evaluation: The evaluation.

    Returns:
        Lines of ASCII text.
    """
    return summary(evaluation, BRIEF)


def as_html(evaluation: Measured) -> str:
    """Write an evaluation's headline numbers as a table for notebooks.

    Args:
        evaluation: The evaluation.

    Returns:
        An HTML table without styles of its own.
    """
    head = "".join(f"<th>{html.escape(cell)}</th>" for cell in _heads(evaluation.metrics))
    body = "".join(
        "<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in _cells(evaluation.metrics, row)) + "</tr>"
        for row in FULL
    )
    caption = html.escape(_head(evaluation))
    return f"<table><caption>{caption}</caption><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def to_dataframe(evaluation: Measured, table: str = "numbers", library: str | None = None) -> Any:
    """Return an evaluation's numbers as a data frame.

    Args:
        evaluation: The evaluation.
        table: ``numbers``, one row a number with ``boxes`` (``all`` or ``kept``), ``key``, ``value``, ``low`` and
            ``high`` of its interval and ``floor_p95``; or ``classes``, one row a class with its numbers on all boxes.
        library: ``pandas`` or ``polars``; None takes the first that is installed.

    Returns:
        A data frame of that library; what is undefined is missing.

    Raises:
        ImportError: If the library is not installed, or none is.
        ValueError: If there is no such table or library.
    """
    if table not in TABLES:
        raise ArgumentError(f"table: expected one of {', '.join(TABLES)}, got {table!r}.")
    if library is not None and library not in LIBRARIES:
        raise ArgumentError(f"library: expected one of {', '.join(LIBRARIES)}, got {library!r}.")
    wanted = LIBRARIES if library is None else (library,)
    found = next((name for name in wanted if find_spec(name) is not None), None)
    if found is None:
        raise MissingPackageError(
            f"library: expected {' or '.join(wanted)} to be installed for a data frame, got none."
        )
    rows = [dict(row) for row in evaluation.metrics.per_class] if table == "classes" else _rows(evaluation.metrics)
    columns = {key: [row[key] for row in rows] for key in rows[0]}
    frame: Callable[[Mapping[str, Any]], Any] = import_module(found).DataFrame
    return frame(columns)


def _rows(metrics: DetectionMetrics) -> list[dict[str, Any]]:
    """List every number with its interval and floor."""
    rows = []
    for boxes, found in (("all", metrics), ("kept", metrics.kept)):
        for key, value in found.values.items():
            interval, floor = found.intervals.get(key), found.floors.get(key)
            ends = (None, None) if interval is None else (interval.low, interval.high)
            p95 = None if floor is None else floor.p95
            rows.append({"boxes": boxes, "key": key, "value": value, "low": ends[0], "high": ends[1], "floor_p95": p95})
    return rows


def _head(evaluation: Measured) -> str:
    """Name what was evaluated, and on how much."""
    counts = {"images": evaluation.n_images, "objects": evaluation.n_gt, "detections": evaluation.n_detections}
    parts = [f"{value:,} {name}" for name, value in counts.items()]
    source = evaluation.protocol.get("weights") or evaluation.protocol.get("detections")
    return " | ".join(["Evaluation", *([str(source)] if source else []), *parts, evaluation.metrics.protocol])


def _heads(metrics: DetectionMetrics) -> tuple[str, ...]:
    """Name the columns."""
    levels = {interval.level for interval in (*metrics.intervals.values(), *metrics.kept.intervals.values())}
    interval = f"{100 * levels.pop():g}% interval" if len(levels) == 1 else "interval"
    return "boxes", "number", "value", interval, "floor p95"


def _cells(metrics: DetectionMetrics, row: Row) -> tuple[str, ...]:
    """Write one number, its interval and its floor; a dash where it is undefined, nothing where there is none."""
    boxes, key = row
    found = metrics if boxes == "all" else metrics.kept
    value, interval, floor = found.values[key], found.intervals.get(key), found.floors.get(key)
    return (
        boxes,
        key,
        "-" if value is None else f"{value:.4f}",
        "" if interval is None else f"{interval.low:.4f} to {interval.high:.4f}",
        "" if floor is None else f"{floor.p95:.4f}",
    )
