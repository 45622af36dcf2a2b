# SPDX-License-Identifier: AGPL-3.0-or-later
"""Tables as files: CSV for a spreadsheet or a script, Markdown for a paper's draft or a pull request."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence
from pathlib import Path

from det_ls.base.errors import ArgumentError, ExistingFileError
from det_ls.base.files import write_atomically
from det_ls.metrics.confusion import Confusion
from det_ls.metrics.error_rows import ErrorRow
from det_ls.metrics.errors import ErrorBreakdown

Cell = str | int | float | bool | None
ERROR_HEADER = (
    "image", "what", "class", "score", "iou", "error", "other_class", "object_id", "x", "y", "width", "height",
)  # fmt: skip
# What spreadsheets take for the beginning of a formula, and the blanks that they skip before it.
_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n")


def to_csv(header: Sequence[str], rows: Iterable[Sequence[Cell]]) -> str:
    r"""Write a table as CSV.

    A text that a spreadsheet would take for a formula is preceded by an apostrophe; numbers are left as they are. None
    is an empty cell.

    Args:
        header: Names of the K columns.
        rows: Rows of K cells.

    Returns:
        The table, lines ended by ``\n``.

    Raises:
        ValueError: A row has another number of cells.

    Example:
        >>> print(to_csv(["class", "gap"], [["=A1", -0.5], ["a, b", None]]), end="")
        class,gap
        '=A1,-0.5
        "a, b",
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([_safe(name) for name in header])
    writer.writerows([_safe(cell) for cell in row] for row in _checked(header, rows))
    return text.getvalue()


def to_markdown(header: Sequence[str], rows: Iterable[Sequence[Cell]]) -> str:
    r"""Write a table as Markdown (GitHub's), its columns padded; columns of numbers are aligned to the right.

    Args:
        header: Names of the K columns.
        rows: Rows of K cells; None is an empty cell.

    Returns:
        The table, lines ended by ``\n``.

    Raises:
        ValueError: A row has another number of cells.

    Example:
        >>> print(to_markdown(["class", "AP"], [["cat|dog", 0.5], ["bird", None]]), end="")
        | class    |  AP |
        | -------- | --: |
        | cat\|dog | 0.5 |
        | bird     |     |
    """
    cells = _checked(header, rows)
    columns = [[row[k] for row in cells] for k in range(len(header))]
    right = [any(c is not None for c in col) and all(_is_number(c) or c is None for c in col) for col in columns]
    lines = [[_plain(cell) for cell in row] for row in (header, *cells)]
    widths = [max(3, *(len(line[k]) for line in lines)) for k in range(len(header))]
    rule = ["-" * (w - 1) + ":" if r else "-" * w for w, r in zip(widths, right, strict=True)]

    def joined(line: Sequence[str]) -> str:
        padded = (c.rjust(w) if r else c.ljust(w) for c, w, r in zip(line, widths, right, strict=True))
        return f"| {' | '.join(padded)} |\n"

    return joined(lines[0]) + joined(rule) + "".join(joined(line) for line in lines[1:])


def write_table(
    path: str | Path, header: Sequence[str], rows: Iterable[Sequence[Cell]], *, exist_ok: bool = False
) -> Path:
    """Write a table to a file, complete or not at all.

    Args:
        path: The file, ``.csv`` or ``.md``; its folder is made if need be.
        header: Names of the K columns.
        rows: Rows of K cells; None is an empty cell.
        exist_ok: Whether to replace a file that is there.

    Returns:
        The file.

    Raises:
        FileExistsError: The file is there and ``exist_ok`` is False.
        ValueError: The name ends otherwise, or a row has another number of cells.
    """
    target = Path(path)
    forms = {".csv": to_csv, ".md": to_markdown}
    if target.suffix not in forms:
        raise ArgumentError(f"path: expected a name that ends in .csv or .md, got '{target.name}'.")
    if target.exists() and not exist_ok:
        raise ExistingFileError(f"path: expected a new file without exist_ok, got '{target}', which exists.")
    content = forms[target.suffix](header, rows)
    target.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(target, content.encode("utf-8", "replace"))
    return target


def write_errors(path: str | Path, rows: Iterable[ErrorRow], *, exist_ok: bool = False) -> Path:
    """Write errors to a file, one a row.

    Args:
        path: The file, ``.csv`` or ``.md``; its folder is made if need be.
        rows: The errors, from `det_ls.metrics.error_rows.error_rows`.
        exist_ok: Whether to replace a file that is there.

    Returns:
        The file, with the columns `ERROR_HEADER`; boxes are in pixels.

    Raises:
        FileExistsError: The file is there and ``exist_ok`` is False.
        ValueError: The name ends otherwise.
    """
    return write_table(path, ERROR_HEADER, (_error_cells(row) for row in rows), exist_ok=exist_ok)


def breakdown_table(breakdown: ErrorBreakdown) -> tuple[list[str], list[list[Cell]]]:
    """Lay out errors by type with their costs.

    Args:
        breakdown: The counts and costs.

    Returns:
        The columns' names, and one row a type, then all false positives and all objects that are not found; costs are
        fractions of AP50, None where AP50 is undefined.
    """
    rows = [(name, n, breakdown.cost[name]) for name, n in breakdown.counts.items()]
    rows.append(("all false positives", breakdown.false_positives, breakdown.false_positive_cost))
    rows.append(("all objects not found", breakdown.false_negatives, breakdown.false_negative_cost))
    undefined = breakdown.ap50 != breakdown.ap50
    return ["error", "count", "AP50 cost"], [[name, n, None if undefined else round(c, 4)] for name, n, c in rows]


def confusion_table(confusion: Confusion) -> tuple[list[str], list[list[Cell]]]:
    """Lay out a confusion matrix.

    Args:
        confusion: The counts.

    Returns:
        The columns' names, and one row a class detected with the counts of each class that is there, then the objects
        that are not detected.
    """
    names = list(confusion.class_names)
    counts = [[*row] for row in confusion.counts.tolist()]
    labels = [*names, "not detected"]
    return ["detected", *names, "no object left"], [[label, *row] for label, row in zip(labels, counts, strict=True)]


def _error_cells(row: ErrorRow) -> list[Cell]:
    score = None if row.score is None else round(row.score, 6)
    box = [round(v, 3) for v in row.xywh]
    return [row.image, row.what, row.name, score, round(row.iou, 6), row.error, row.other, row.object_id, *box]


def _checked(header: Sequence[str], rows: Iterable[Sequence[Cell]]) -> list[Sequence[Cell]]:
    found = list(rows)
    for row in found:
        if len(row) != len(header):
            raise ArgumentError(f"rows: expected {len(header)} cells in each, got {len(row)}.")
    return found


def _is_number(cell: Cell) -> bool:
    return isinstance(cell, (int, float)) and not isinstance(cell, bool)


def _safe(cell: Cell) -> Cell:
    """Keep a text from being taken for a formula."""
    return f"'{cell}" if isinstance(cell, str) and cell.lstrip(" ").startswith(_FORMULA) else cell


def _plain(cell: Cell) -> str:
    """Write a cell in one line of Markdown."""
    text = "" if cell is None else str(cell)
    for sign in "\\`*_|<":  # what Markdown would read as more than text
        text = text.replace(sign, "\\" + sign) if not _is_number(cell) else text
    return " ".join(text.split())
