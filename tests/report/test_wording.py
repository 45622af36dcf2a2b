# SPDX-License-Identifier: AGPL-3.0-or-later
"""Numbers are written so that a row has one precision, and nothing small reads as zero unless its interval says so."""

from __future__ import annotations

import pytest

from det_ls.metrics.catalogue import KEPT, NUMBERS
from det_ls.report.words import interval_note, number, row_decimals, span_text, unjudged_text
from det_ls.uncertainty.intervals import Interval


def test_small_numbers_do_not_read_as_zero() -> None:
    assert [number(v, signed=True) for v in (0.00049, -0.000012, 0.0, 1.0)] == [
        "+0.00049",
        "\N{MINUS SIGN}0.000012",
        "0.000",
        "+1.000",
    ]


@pytest.mark.parametrize(
    ("value", "low", "high", "decimals"),
    [
        (0.2, 0.1, 0.3, 3),
        (0.00031, -0.01, 0.01, 3),  # its interval says that it is about zero
        (-0.0012, -0.0025, -0.0001, 4),
        (0.5, None, None, 3),
        (12.5, 11.0, 14.0, 1),
        (0.0, 0.0, 0.0, 3),
        (1e-9, None, None, 6),
    ],
)
def test_a_row_has_the_decimals_of_its_interval(
    value: float, low: float | None, high: float | None, decimals: int
) -> None:
    assert row_decimals(value, low, high) == decimals
    if low is not None and high is not None:
        parts = [number(value, decimals=decimals), *span_text(low, high, decimals=decimals).split(" to ")]
        assert {len(part.split(".")[1]) for part in parts} == {decimals}


def test_zero_has_no_sign() -> None:
    assert number(-0.0001, signed=True, decimals=3) == number(0.0001, signed=True, decimals=3) == "0.000"


def test_the_note_names_the_level_the_samples_and_what_was_drawn() -> None:
    made = [Interval(0.1, 0.2, 0.9, 499, 1, "value"), Interval(0.1, 0.2, 0.9, 500, 0, "value")]
    note = interval_note(made, 12)
    for words in ("90%", "500 samples", "12 groups of images"):
        assert words in note
    assert "There are no intervals" in interval_note([])


def test_every_number_without_a_verdict_has_a_reason() -> None:
    for about in (*NUMBERS.values(), *KEPT.values()):
        if not about.verdict:
            assert unjudged_text(about)
    assert "sharp" in unjudged_text(KEPT["DECE"])
    assert "spread" in unjudged_text(NUMBERS["LaACE0"])
