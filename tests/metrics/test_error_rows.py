# SPDX-License-Identifier: AGPL-3.0-or-later
"""Every false positive and every object that is not found has one row, with what is known about it."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from boxed_sets import SETS, prepared
from test_error_types import GT, SCENE, found

from det_ls.metrics.boxes import table_boxes
from det_ls.metrics.error_rows import error_rows
from det_ls.metrics.errors import classify_errors
from det_ls.metrics.matching import build_table


def test_rows_say_what_is_wrong() -> None:
    detections = [found(cls, x, score) for cls, x, score, _, _ in SCENE]
    table = build_table(GT, detections)
    boxes = table_boxes(table, detections, GT)
    rows = error_rows(table, boxes, classify_errors(table, boxes, 0.3), {1: "a.jpg"})
    wrong = [r for r in rows if r.what == "false positive"]
    assert [r.score for r in wrong] == [score for _, _, score, kind, _ in SCENE if kind]
    assert [r.error for r in wrong] == [kind for *_, kind, _ in SCENE if kind]
    assert [r.other for r in wrong] == [None, None, None, "dog", "cat", None, None, None]
    assert [r.object_id for r in wrong] == [11, 12, 12, 13, 14, 14, None, None]
    assert {r.image for r in wrong} == {"a.jpg"}
    assert wrong[1].iou == pytest.approx(4 / 16)
    assert wrong[1].xywh == (106, 0, 10, 10)
    missed = {r.object_id: r for r in rows if r.what == "missed object"}
    assert {i: (r.name, r.error, r.other) for i, r in missed.items()} == {
        12: ("cat", "localisation", None),
        13: ("dog", "classification", "cat"),
        14: ("cat", "missed", "dog"),
        15: ("cat", "missed", None),
        17: ("dog", "missed", None),
    }
    assert missed[17].image == "2"  # no name is known: its id
    assert missed[13].iou == pytest.approx(1)
    assert missed[12].score is None


@pytest.mark.parametrize("name", SETS)
def test_rows_add_up(name: str) -> None:
    table, boxes = prepared(name)
    errors = classify_errors(table, boxes, 0.2)
    rows = error_rows(table, boxes, errors)
    kinds = Counter(r.error for r in rows if r.what == "false positive")
    missed = Counter(r.error for r in rows if r.what == "missed object")
    assert {**dict.fromkeys(errors.counts, 0), **kinds, "missed": missed["missed"]} == errors.counts
    kept = table.filter(table.score >= 0.2).matches(0.5)
    assert sum(kinds.values()) == (kept.kept & ~kept.tp).sum()
    assert sum(missed.values()) == table.n_gt.sum() - kept.tp.sum()
    scores = [r.score for r in rows if r.score is not None]
    assert (np.diff(scores) <= 0).all()
