# SPDX-License-Identifier: AGPL-3.0-or-later
"""Matched detections with their boxes, of the golden sets and of a set made to hurt."""

from __future__ import annotations

from typing import Any

import numpy as np
from hard_set import GOLDEN, hard_set

from det_ls.data.coco import read_detections, read_ground_truth
from det_ls.metrics.boxes import TableBoxes, table_boxes
from det_ls.metrics.matching import build_table
from det_ls.metrics.table import DetectionTable

SETS = ("coco_tiny", "synth_edge", "hard")


def load(name: str) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Ground truth and detections; equal scores are told apart, because other tools break ties by orders of their own."""
    if name == "hard":
        gt, detections = hard_set(3)
    else:
        gt = read_ground_truth(GOLDEN / name / "gt.json", "gt")
        detections = read_detections(GOLDEN / name / "detections.json", gt)
    rng = np.random.default_rng(0)
    detections = [{**d, "score": 0.001 + 0.998 * d["score"] + rng.uniform(0, 1e-4)} for d in detections]
    return read_ground_truth(gt, "gt"), detections


def prepared(name: str) -> tuple[DetectionTable, TableBoxes]:
    gt, detections = load(name)
    table = build_table(gt, detections)
    return table, table_boxes(table, detections, gt)
