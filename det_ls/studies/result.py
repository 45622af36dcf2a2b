# SPDX-License-Identifier: AGPL-3.0-or-later
"""The result of a study: its cells, as typed facts, as rows of a table, and as files."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from det_ls.base.errors import ArgumentError, MissingPackageError
from det_ls.base.files import write_atomically, write_json
from det_ls.studies.grid import Grid, cell_name
from det_ls.studies.records import Cell, CellResult, State

STUDY_FILE, TABLE_FILE, CELLS_FILE = "study.json", "cells.csv", "cells.json"
PARTS = ("val", "train", "platt")
_LIBRARIES = ("pandas", "polars")


@dataclass(frozen=True)
class StudyResult:
    """What a study has found so far.

    Attributes:
        folder: Its folder.
        grid: What it varies.
        results: One for each cell of the grid, in the order in which they are run.
        train: The training keys that all cells share.
        cut: Whether the budget ended it before the grid was done.
    """

    folder: Path
    grid: Grid
    results: tuple[CellResult, ...]
    train: Mapping[str, Any] = field(default_factory=dict)
    cut: bool = False

    def of(self, *states: State) -> tuple[Cell, ...]:
        """List the cells in some states.

        Args:
            *states: The states.

        Returns:
            The cells, in order.
        """
        return tuple(result.cell for result in self.results if result.state in states)

    @property
    def done(self) -> tuple[Cell, ...]:
        """The finished cells."""
        return self.of(State.DONE)

    @property
    def failed(self) -> tuple[CellResult, ...]:
        """The cells that failed, with their errors."""
        return tuple(result for result in self.results if result.state == State.FAILED)

    @property
    def missing(self) -> tuple[Cell, ...]:
        """The cells that have no numbers and no error yet."""
        return self.of(State.WAITING, State.RUNNING)

    def rows(self) -> list[dict[str, Any]]:
        """List the cells as flat rows: what they are, how far they came, then every number by split.

        Returns:
            A dictionary for each cell, all of the same keys; what is undefined is None. Numbers are named by what they
            were measured on: ``val.AP``, ``val.kept.absolute_gap``, ``train.AP``, ``platt.kept.brier``.
        """
        return rows_of(self.results)

    def to_dataframe(self, library: str | None = None) -> Any:
        """Return the cells as a data frame.

        Args:
            library: ``pandas`` or ``polars``; None takes the first that is installed.

        Returns:
            A data frame of that library, with the columns of :meth:`rows`.

        Raises:
            ImportError: If the library is not installed, or none is.
            ValueError: If there is no such library.
        """
        if library is not None and library not in _LIBRARIES:
            raise ArgumentError(f"library: expected one of {', '.join(_LIBRARIES)}, got {library!r}.")
        wanted = _LIBRARIES if library is None else (library,)
        found = next((name for name in wanted if find_spec(name) is not None), None)
        if found is None:
            raise MissingPackageError(
                f"library: expected {' or '.join(wanted)} to be installed for a data frame, got none."
            )
        rows = self.rows()
        frame: Callable[[Mapping[str, Any]], Any] = import_module(found).DataFrame
        return frame({key: [row[key] for row in rows] for key in (rows[0] if rows else {})})

    def __repr__(self) -> str:
        """Write the study in one line."""
        states = {state: len(self.of(state)) for state in State}
        parts = ", ".join(f"{count} {state.value}" for state, count in states.items() if count)
        return f"StudyResult({str(self.folder)!r}, {len(self.results)} cells: {parts or 'none'})"


def rows_of(results: Sequence[CellResult]) -> list[dict[str, Any]]:
    """List results as flat rows.

    Args:
        results: The results.

    Returns:
        As :meth:`StudyResult.rows`.
    """
    names: dict[str, None] = {}
    for result in results:
        if result.measured is not None:
            names |= {f"{part}.{key}": None for part in PARTS for key in getattr(result.measured, part)}
    columns = sorted(names, key=lambda name: PARTS.index(name.split(".")[0]))
    rows = []
    for result in results:
        cell, found = result.cell, result.measured
        row: dict[str, Any] = {
            **asdict(cell.condition),
            "arm": cell.arm.name,
            "label_smoothing": cell.arm.label_smoothing,
            "mode": None if cell.arm.stock else cell.arm.mode,
            "seed": cell.seed,
            "state": result.state.value,
            "seconds": result.seconds,
            "error": result.error,
        }
        for name in columns:
            part, key = name.split(".", 1)
            row[name] = None if found is None else getattr(found, part).get(key)
        rows.append(row)
    return rows


def write_tables(folder: Path, results: Sequence[CellResult]) -> None:
    """Write cells.csv and cells.json, each whole or not at all.

    Args:
        folder: The study's folder.
        results: Its results.
    """
    rows = rows_of(results)
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, fieldnames=list(rows[0]) if rows else [], lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_atomically(folder / TABLE_FILE, text.getvalue().encode("utf-8"))
    content = [{**asdict(result), "state": result.state.value, "name": cell_name(result.cell)} for result in results]
    write_json(folder / CELLS_FILE, content, indent=1)
