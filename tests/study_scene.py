# SPDX-License-Identifier: AGPL-3.0-or-later
"""Made-up results of a study, as plausible as need be, for the tests of its statistics, decision and page."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from det_ls.studies.records import Arm, Cell, CellResult, Condition, Measured, State

STOCK = Arm()
ARMS = (STOCK, Arm("0.1"), Arm("0.3"), Arm("0.1", "background"))
CONDITIONS = (Condition(), Condition(flip=0.3))
# AP, AP of the training images, score minus precision, the same after Platt: without and with noise.
TRUTH = {
    "stock": ((0.545, 0.74, 0.09), (0.402, 0.74, 0.157)),
    "redistribute 0.1": ((0.552, 0.735, 0.05), (0.432, 0.71, 0.093)),
    "redistribute 0.3": ((0.535, 0.62, -0.05), (0.396, 0.52, -0.035)),
    "background 0.1": ((0.543, 0.73, 0.06), (0.405, 0.72, 0.11)),
}


def made_up(
    *,
    arms: Sequence[Arm] = ARMS,
    conditions: Sequence[Condition] = CONDITIONS,
    seeds: Sequence[int] = range(5),
    failed: Sequence[tuple[str, int]] = (("redistribute 0.3", 3),),
    sd: float = 0.008,
    rng: int = 0,
) -> list[CellResult]:
    """Make up the results; cells of `failed` (arm, seed) fail under the last condition."""
    draw = np.random.default_rng(rng)
    results = []
    for place, condition in enumerate(conditions):
        for seed in seeds:
            common = draw.normal(size=3) * sd
            for arm in arms:
                ap, train, gap = TRUTH.get(arm.name, TRUTH["redistribute 0.1"])[min(place, 1)] + common
                ap, train, gap = (v + draw.normal() * sd for v in (ap, train, gap))
                left = draw.normal() * 0.01
                cell = Cell(condition, arm, seed)
                config = {"model": "yolo11n.yaml", "data": "phantom.yaml", "epochs": 240, "imgsz": 128}
                config |= {"seed": seed, "label_smoothing": arm.label_smoothing, "label_smoothing_mode": arm.mode}
                if condition == conditions[-1] and (arm.name, seed) in failed:
                    error = "train: expected a finite loss, got nan in epoch 17."
                    results.append(CellResult(cell, State.FAILED, None, error, config, 61.0))
                    continue
                val, platt = values(ap, gap, draw), values(ap, left, draw)
                measured = Measured(
                    val, values(train, gap - 0.1, draw), platt, {"val": bins(gap, draw), "platt": bins(left, draw)}
                )
                results.append(CellResult(cell, State.DONE, measured, None, config, 900.0, curves(ap, draw)))
    return results


def values(ap: float, gap: float, draw: np.random.Generator) -> dict[str, float]:
    """Make up the numbers of one split."""
    return {
        "AP": ap,
        "AP50": ap + 0.2,
        "oLRP": 1 - 0.8 * ap,
        "kept.absolute_gap": abs(gap),
        "kept.signed_gap": gap,
        "kept.squared_error": gap**2 + draw.normal() * 0.001,
        "kept.brier": 0.18 + gap**2 + draw.normal() * 0.002,
        "kept.precision": 0.7 + draw.normal() * 0.01,
        "kept.recall": 0.6 + draw.normal() * 0.01,
        "kept.DECE": abs(gap) + 0.03,
    }


def bins(gap: float, draw: np.random.Generator) -> list[dict[str, float]]:
    """Make up a reliability diagram."""
    score = np.linspace(0.28, 0.95, 10)
    right = np.clip(score - gap * 1.4 * score + draw.normal(size=10) * 0.03, 0, 1)
    count = [60, 70, 60, 50, 40, 40, 40, 40, 30, 8]
    return [{"score": float(s), "precision": float(p), "count": n} for s, p, n in zip(score, right, count, strict=True)]


def curves(ap: float, draw: np.random.Generator) -> dict[str, list[float]]:
    """Make up what a training logs."""
    epoch = np.arange(1, 61)
    rise = 1 - np.exp(-epoch / 12)
    return {
        "epoch": [float(e) for e in epoch],
        "metrics/mAP50-95(B)": [float(v) for v in ap * rise + draw.normal(size=60) * 0.004],
        "train/cls_loss": [float(v) for v in 2.5 * np.exp(-epoch / 20) + 0.5],
        "val/cls_loss": [float(v) for v in 2.2 * np.exp(-epoch / 15) + 0.9 + 0.006 * epoch],
    }
