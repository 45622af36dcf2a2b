# SPDX-License-Identifier: AGPL-3.0-or-later
"""What is shown while a study runs."""

from __future__ import annotations

import io
from dataclasses import replace

from det_ls.report.study_display import StudyDisplay, arm_rows, counts_line
from det_ls.studies.grid import Grid
from det_ls.studies.records import CellResult, Measured, State
from det_ls.studies.run import Progress

CELLS = Grid.from_words({"label_smoothing": "0,0.1", "seeds": 2}).cells
WAITING = tuple(CellResult(cell, State.WAITING) for cell in CELLS)


def done(result, ap):
    measured = Measured({"AP": ap, "kept.absolute_gap": 0.2}, {}, {"kept.absolute_gap": 0.05})
    return replace(result, state=State.DONE, measured=measured, seconds=65.0)


def test_a_line_for_each_event_and_no_other():
    stream = io.StringIO()
    states = [WAITING, (replace(WAITING[0], state=State.RUNNING), *WAITING[1:])]
    states.append((done(WAITING[0], 0.25), *WAITING[1:]))
    states.append((states[-1][0], replace(WAITING[1], state=State.FAILED, error="data: broken."), *WAITING[2:]))
    with StudyDisplay(stream) as display:
        for results in states:
            display(Progress(results, 130.0))
            display(Progress(results, 130.0))
    assert stream.getvalue().splitlines() == [
        "0/4 done, 1 running, 3 left, about 2m 10s to go | seed0/stock: started",
        "1/4 done, 3 left, about 2m 10s to go | seed0/stock: done in 1m 05s, AP 0.250, kept.absolute_gap 0.200",
        "1/4 done, 1 failed, 2 left, about 2m 10s to go | seed0/redistribute_0.1: failed: data: broken.",
    ]


def test_the_arms_so_far():
    results = (done(WAITING[0], 0.25), WAITING[1], done(WAITING[2], 0.35), WAITING[3])
    assert arm_rows(results) == [
        ("stock", "-", "2/2", "0.300", "0.200", "0.050"),
        ("redistribute 0.1", "-", "0/2", "-", "-", "-"),
    ]
    assert counts_line(Progress(results)) == "2/4 done, 2 left"


def test_a_live_table_holds_the_same():
    stream = io.StringIO()
    with StudyDisplay(stream, live=True) as display:
        display(Progress((done(WAITING[0], 0.25), *WAITING[1:]), 130.0, waits=True))
    text = stream.getvalue()
    assert "1/4 done, 3 left" in text
    assert "0.250" in text
    assert "waiting for memory" in text
