# SPDX-License-Identifier: AGPL-3.0-or-later
from __future__ import annotations

import csv
import io

from det_ls.smoothing.columns import column_names, csv_cell


def test_names_hold_nothing_that_a_logger_or_a_spreadsheet_reads_as_something_else():
    keys = [
        "cat",
        "=SUM(A1)",
        "+1",
        "-1",
        "@x",
        "two  words",
        "line\nbreak",
        "tab\there",
        "a,b",
        'say "a"',
        "Ä/é_1.5",
        "",
        7,
    ]
    assert list(column_names(keys).values()) == [
        "label_smoothing/cat",
        "label_smoothing/_SUM_A1_",
        "label_smoothing/_1",
        "label_smoothing/-1",  # no formula: the prefix comes first
        "label_smoothing/_x",
        "label_smoothing/two words",
        "label_smoothing/line break",
        "label_smoothing/tab here",
        "label_smoothing/a_b",
        "label_smoothing/say _a_",
        "label_smoothing/Ä/é_1.5",
        "label_smoothing/",
        "label_smoothing/7",
    ]


def test_keys_that_would_have_the_same_name_are_counted():
    names = column_names(["a,b", "a;b", "a:b", "a_b 2", 1, "1", "default"])
    assert names == {
        "a,b": "label_smoothing/a_b",
        "a;b": "label_smoothing/a_b 2",
        "a:b": "label_smoothing/a_b 3",
        "a_b 2": "label_smoothing/a_b 2 2",
        1: "label_smoothing/1",
        "1": "label_smoothing/1 2",
        "default": "label_smoothing/default",
    }


def test_a_row_of_cells_is_read_back_as_it_was():
    texts = ["lr/pg0", "easy, hard", 'the "easy" ones', "", "plain text"]
    line = ",".join(map(csv_cell, texts))
    assert next(csv.reader(io.StringIO(line))) == texts
    assert line.startswith('lr/pg0,"easy, hard",')
    assert line.endswith(",,plain text")
