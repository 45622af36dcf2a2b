# SPDX-License-Identifier: AGPL-3.0-or-later
"""Tables can be read back as they were, are safe in a spreadsheet, and never replace a file unasked."""

from __future__ import annotations

import csv
import io
from pathlib import Path

import numpy as np
import pytest

from det_ls.metrics.confusion import Confusion
from det_ls.metrics.error_rows import ErrorRow
from det_ls.metrics.errors import ErrorBreakdown
from det_ls.report.tables import (
    ERROR_HEADER,
    breakdown_table,
    confusion_table,
    to_csv,
    to_markdown,
    write_errors,
    write_table,
)

NAMES = ["猫, 犬", 'a "b"', "two\nlines", "été", "plain"]


def test_csv_is_read_back_as_it_was() -> None:
    text = to_csv(["class", "AP", "n"], [[name, -0.125, None] for name in NAMES])
    read = list(csv.reader(io.StringIO(text)))
    assert read == [["class", "AP", "n"], *([name, "-0.125", ""] for name in NAMES)]


@pytest.mark.parametrize("name", ["=1+1", "+1", "-1", "@A1", "\t=1", "  =1", '=HYPERLINK("http://x")'])
def test_no_name_is_a_formula(name: str) -> None:
    (read,) = csv.reader(io.StringIO(to_csv([name], [])))
    assert read == [f"'{name}"]
    ((cell,),) = list(csv.reader(io.StringIO(to_csv(["x"], [[name]]))))[1:]
    assert cell == f"'{name}"


def test_markdown_stays_one_table() -> None:
    text = to_markdown(["class", "AP"], [["a|b", 0.5], ["two\nlines", None], ["<i>*x*`", 1]])
    lines = text.splitlines()
    assert len(lines) == 5
    assert len({len(line) for line in lines}) == 1
    assert lines[1].endswith("-: |")
    assert "a\\|b" in lines[2]
    assert "\\<i>\\*x\\*\\`" in lines[4]


def test_files_are_complete_and_never_replaced_unasked(tmp_path: Path) -> None:
    file = write_table(tmp_path / "new" / "t.csv", ["a"], [[1]])
    assert file.read_bytes() == b"a\n1\n"
    with pytest.raises(FileExistsError, match="exist_ok"):
        write_table(file, ["a"], [[2]])
    with pytest.raises(ValueError, match="expected 1 cells in each, got 2"):
        write_table(file, ["a"], [[1, 2]], exist_ok=True)
    assert file.read_bytes() == b"a\n1\n"
    write_table(file, ["a"], [[2]], exist_ok=True)
    assert file.read_bytes() == b"a\n2\n"
    assert [f.name for f in file.parent.iterdir()] == ["t.csv"]
    assert write_table(tmp_path / "t.md", ["a"], [[1]]).read_text().startswith("|   a |")
    with pytest.raises(ValueError, match=r"\.csv or \.md, got 't\.xlsx'"):
        write_table(tmp_path / "t.xlsx", ["a"], [])


def test_errors_become_rows(tmp_path: Path) -> None:
    rows = [
        ErrorRow(1, "=a.jpg", "false positive", "cat", 0.9, 1 / 3, "classification", "dog", 7, (0.5, 1, 2, 3)),
        ErrorRow(1, "a.jpg", "missed object", "dog", None, 0.0, "missed", None, 7, (-1.0, 1, 2, 3)),
    ]
    with write_errors(tmp_path / "errors.csv", rows).open(newline="") as file:
        first, second = csv.DictReader(file)
    assert tuple(first) == ERROR_HEADER
    assert first["image"] == "'=a.jpg"
    assert (first["class"], first["other_class"], first["score"], first["iou"]) == ("cat", "dog", "0.9", "0.333333")
    assert (second["score"], second["other_class"], second["x"]) == ("", "", "-1.0")


def test_tables_of_errors_and_confusions_can_be_written() -> None:
    kinds = ("classification", "localisation", "both", "duplicate", "background", "missed")
    found = ErrorBreakdown(0.5, dict.fromkeys(kinds, 2), dict.fromkeys(kinds, 0.01236), 10, 3, 0.2, 0.1)
    text = to_markdown(*breakdown_table(found))
    assert "| localisation          |     2 |    0.0124 |" in text
    assert text.splitlines()[-1].startswith("| all objects not found |     3 |       0.1 |")
    undefined = ErrorBreakdown(float("nan"), found.counts, found.cost, 10, 3, 0.0, 0.0)
    assert to_csv(*breakdown_table(undefined)).splitlines()[1] == "classification,2,"
    matrix = Confusion(("cat", "=dog"), np.array([[5, 1, 2], [0, 7, 0], [3, 0, 0]]), True)
    assert to_csv(*confusion_table(matrix)).splitlines() == [
        "detected,cat,'=dog,no object left",
        "cat,5,1,2",
        "'=dog,0,7,0",
        "not detected,3,0,0",
    ]
