# SPDX-License-Identifier: AGPL-3.0-or-later
"""What the keys of an evaluation mean: how each number was counted, and why one is undefined."""

from __future__ import annotations

from typing import Any

from det_ls.metrics.calibration import DECE_BINS, LAECE_BINS
from det_ls.metrics.lrp import optimal_lrp
from det_ls.metrics.protocols import Protocol, lrp_optimal_mask
from det_ls.metrics.table import DetectionTable
from det_ls.uncertainty.replicates import TP_IOU

HEADLINE = (
    "AP",
    "AP50",
    "AP75",
    "LaECE0",
    "LaACE0",
    "LRP",
    "oLRP",
    "DECE",
    "signed_gap",
    "brier",
    "nll",
    "auroc",
)
COCO_STATS = (
    "AP",
    "AP50",
    "AP75",
    "AP_small",
    "AP_medium",
    "AP_large",
    "AR1",
    "AR10",
    "AR100",
    "AR_small",
    "AR_medium",
    "AR_large",
)


def definition(key: str, table: DetectionTable, rules: Protocol) -> dict[str, Any]:
    """Say how a number was counted: what is printed beside it.

    Args:
        key: Name of the number.
        table: Matched detections.
        rules: The protocol.

    Returns:
        ``protocol``, ``matching``, ``iou`` threshold, ``score_threshold``, ``bins`` (None without), and ``n`` with what
        it counts, ``n_counts``.
    """
    most = {"AR1": 1, "AR10": 10}.get(key, table.max_detections)
    matching = f"COCO greedy, at most {most} detection{'s' * (most > 1)} an image and class"
    base: dict[str, Any] = {"protocol": rules.name, "matching": matching, "score_threshold": 0.0, "bins": None}
    n_objects = int(table.n_gt.sum())
    if key in COCO_STATS:
        iou: float | str = {"AP50": 0.5, "AP75": 0.75}.get(key, "0.50:0.95")
        return {**base, "iou": iou, "n": n_objects, "n_counts": "objects"}
    if "LRP" in key:
        threshold = "LRP-optimal for each class" if key.startswith("o") else 0.0
        return {**base, "iou": TP_IOU, "score_threshold": threshold, "n": n_objects, "n_counts": "objects"}
    tau = 0.0 if key == "signed_gap_iou" else TP_IOU
    if key.startswith("La"):
        tau = float(key[5:].split("_")[0]) / 100
        base["bins"] = f"{LAECE_BINS} equal-width" if key.startswith("LaECE") else None
    elif key.startswith("DECE"):
        base["bins"] = f"{DECE_BINS} {'equal-mass' if key.endswith('mass') else 'equal-width'}"
    matches = rules.matches(table, tau)
    chosen = rules.counted(table, matches)
    if key.startswith("LaACE") and rules.laace_ignored:
        chosen = table.has_gt[table.cls]
    if key.endswith("lrpopt"):
        base["score_threshold"] = "LRP-optimal for each class at IoU 0"
        thresholds = optimal_lrp(table, matches, split_ties=rules.split_ties).threshold
        chosen = chosen & lrp_optimal_mask(table, thresholds, rules)
    return {**base, "iou": tau, "n": int(chosen.sum()), "n_counts": "detections"}


def reason_undefined(key: str, table: DetectionTable, rules: Protocol) -> str:
    """Say why a number is undefined.

    Args:
        key: Name of a number that is undefined.
        table: Matched detections.
        rules: The protocol.

    Returns:
        A few words.
    """
    if not table.has_gt.any():
        return "no ground truth"
    if key in COCO_STATS:
        return f"no {key.split('_')[-1]} objects" if "_" in key else "no ground truth"
    if not table.n_detections:
        return "no detections"
    matches = rules.matches(table, TP_IOU)
    if not rules.counted(table, matches).any():
        return "every detection is ignored or of a class without ground truth"
    if key == "auroc" and matches.tp.any():
        return "no false positive"
    if key.endswith("lrpopt"):
        return "no class has an LRP-optimal threshold"
    if key in ("auroc", "LRP_Loc", "LRP_FP", "oLRP_Loc", "oLRP_FP"):
        return "no true positive"
    return "every class's error is exactly 0, and this protocol leaves those out"
