# SPDX-License-Identifier: AGPL-3.0-or-later
"""Read the class-similarity table that says where a class's smoothed mass goes."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from det_ls.base.arguments import shown
from det_ls.base.errors import ArgumentError, MissingFileError
from det_ls.base.folders import is_file


@dataclass(frozen=True)
class SimilarityTable:
    """A square CSV table with class names as header and first column, held as it was read.

    Attributes:
        source: Where it came from, for error messages.
        text: The file's text, kept so that a run folder can hold an identical copy.
        names: The class names in the table's order.
        rows: One row of finite, non-negative numbers for each class; the diagonal means nothing.
    """

    source: str
    text: str
    names: tuple[str, ...]
    rows: tuple[tuple[float, ...], ...]

    @classmethod
    def read(cls, path: str | Path) -> SimilarityTable:
        """Read and check a table.

        Args:
            path: The CSV file.

        Returns:
            The table.

        Raises:
            FileNotFoundError: If there is no such file.
            ValueError: If it is not a square table of finite, non-negative numbers with matching names.
        """
        file = Path(path)
        if not is_file(file):
            raise MissingFileError(f"label_smoothing_similarity: expected a CSV file, got {str(path)!r}, not a file.")
        try:
            text = file.read_text(encoding="utf-8-sig")
        except (OSError, UnicodeDecodeError):
            raise ArgumentError(f"label_smoothing_similarity: expected a UTF-8 text file, got {str(path)!r}.") from None
        return cls.parse(text, str(path))

    @classmethod
    def parse(cls, text: str, source: str) -> SimilarityTable:
        r"""Check the text of a table.

        Args:
            text: The CSV text.
            source: Where it came from, for error messages.

        Returns:
            The table.

        Raises:
            ValueError: If it is not a square table of finite, non-negative numbers with matching names.

        Examples:
            >>> SimilarityTable.parse(",cat,dog\ncat,1,2\ndog,0,1\n", "table.csv").for_classes(["dog", "cat"])
            [[1.0, 0.0], [2.0, 1.0]]
        """
        what = f"label_smoothing_similarity: {source}"
        try:
            lines = [[cell.strip() for cell in line] for line in csv.reader(io.StringIO(text)) if any(line)]
        except csv.Error as error:  # a field beyond csv's limit, say
            raise ArgumentError(f"{what}: expected a CSV file, got one that cannot be read ({error}).") from None
        if len(lines) < 2:
            raise ArgumentError(f"{what}: expected a header and one row for each class, got {len(lines)} lines.")
        names, first_column = lines[0][1:], [line[0] for line in lines[1:]]
        if names != first_column:
            raise ArgumentError(
                f"{what}: expected the same class names in header and first column, got {shown(names)} and "
                f"{shown(first_column)}."
            )
        if len(set(names)) != len(names):
            raise ArgumentError(f"{what}: expected each class name once, got {shown(names)}.")
        rows = []
        for name, line in zip(names, lines[1:], strict=True):
            if len(line) != len(names) + 1:
                raise ArgumentError(f"{what}: expected {len(names)} numbers in row {shown(name)}, got {len(line) - 1}.")
            rows.append(tuple(_number(cell, f"{what}: row {shown(name)}") for cell in line[1:]))
        return cls(source, text, tuple(names), tuple(rows))

    def for_classes(self, names: Sequence[str]) -> list[list[float]]:
        """Return the table in a data set's class order.

        Args:
            names: The data set's class names.

        Returns:
            K rows of K numbers.

        Raises:
            ValueError: If the table's classes are not the data set's.
        """
        if sorted(names) != sorted(self.names):
            missing = [n for n in names if n not in self.names]
            unknown = [n for n in self.names if n not in names]
            raise ArgumentError(
                f"label_smoothing_similarity: {self.source}: expected the data's {len(names)} class names, got "
                f"{len(self.names)}, missing {missing[:3]}, unknown {unknown[:3]}."
            )
        order = [self.names.index(n) for n in names]
        return [[self.rows[i][j] for j in order] for i in order]


def _number(cell: str, what: str) -> float:
    """Parse a finite, non-negative number."""
    try:
        value = float(cell)
    except ValueError:
        raise ArgumentError(f"{what}: expected a number, got {shown(cell)}.") from None
    if not math.isfinite(value) or value < 0:
        raise ArgumentError(f"{what}: expected finite, non-negative numbers, got {shown(cell)}.")
    return value
