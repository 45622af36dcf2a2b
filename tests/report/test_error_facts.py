# SPDX-License-Identifier: AGPL-3.0-or-later
"""All facts about errors are of the same detections at the same thresholds."""

from __future__ import annotations

from typing import Any

import numpy as np
from boxed_sets import load

from det_ls.metrics.matching import build_table
from det_ls.report.error_facts import error_facts


def test_facts_agree_with_each_other() -> None:
    gt, detections = load("coco_tiny")
    table = build_table(gt, detections)
    thresholds = np.full(table.n_classes, 0.4)
    facts = error_facts(table, detections, gt, thresholds)
    n_wrong = sum(row.what == "false positive" for row in facts.rows)
    assert n_wrong == facts.breakdown.false_positives
    assert len(facts.rows) - n_wrong == facts.breakdown.false_negatives
    found = int(np.diag(facts.confusion.counts).sum())
    assert found == table.n_gt.sum() - facts.breakdown.false_negatives
    assert facts.confusion.counts[:-1].sum() == found + n_wrong
    at = int(np.flatnonzero(facts.curves.threshold >= 0.4 - 1e-9)[0])
    assert facts.curves.tp[:, at].sum() == found
    assert facts.breakdown.ap50 <= facts.precision_recall.ap[table.has_gt].mean()


def test_no_row_names_a_folder_of_this_machine() -> None:
    gt: dict[str, Any]
    gt, detections = load("coco_tiny")
    moved = {**gt, "images": [{**i, "file_name": f"/home/somebody/{i['id']}.jpg"} for i in gt["images"]]}
    rows = error_facts(build_table(moved, detections), detections, moved, 0.4).rows
    assert {row.image for row in rows} <= {f"{i['id']}.jpg" for i in gt["images"]}
