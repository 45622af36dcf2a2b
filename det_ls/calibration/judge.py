# SPDX-License-Identifier: AGPL-3.0-or-later
"""What calibrating did: the numbers of the same detections with the scores before and after, and their intervals.

Two populations: all detections, and those that a user keeps, above a score threshold that was chosen on other images
(:mod:`det_ls.metrics.thresholds`). At conf=0.001 some 95% of the boxes score below 0.05, and an average over them says
little about those a user looks at. Both are the same boxes before and after, chosen by the scores before, so that a
difference is one of the scores alone.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from det_ls.calibration.maps import Floats, Ints
from det_ls.evaluation.kept import plan_kept
from det_ls.evaluation.settings import MeasureSettings
from det_ls.metrics import calibration as cal
from det_ls.metrics.binned import binned_error
from det_ls.metrics.protocols import TP_IOU
from det_ls.metrics.table import DetectionTable
from det_ls.metrics.thresholds import Thresholds

Bools = NDArray[np.bool_]
POPULATIONS = ("all", "kept")
NUMBERS = ("LaECE0", "DECE", "brier", "brier_iou", "nll", "signed_gap", "signed_gap_iou")


@dataclass(frozen=True)
class Change:
    """A number before and after calibrating, on the same detections.

    Attributes:
        before: Its value with the scores as they were; NaN where undefined.
        after: Its value with the calibrated scores.
        before_interval: 95% percentile interval over images (or their groups); None without a bootstrap.
        after_interval: The same of ``after``.
        difference_interval: The same of after minus before, of the same resampled images.
    """

    before: float
    after: float
    before_interval: tuple[float, float] | None = None
    after_interval: tuple[float, float] | None = None
    difference_interval: tuple[float, float] | None = None

    @property
    def difference(self) -> float:
        """After minus before."""
        return self.after - self.before


@dataclass(frozen=True)
class Judged:
    """The detections that the numbers count, N of them.

    Attributes:
        iou: (N,) IoU of a true positive at any overlap, else 0: what LaECE0 and ``brier_iou`` compare with.
        tp: (N,) true positives at IoU 0.5: what D-ECE, Brier and NLL compare with.
        in_iou: (N,) detections that count for the first: not ignored, of a class with objects.
        in_tp: (N,) detections that count for the second.
        kept: (N,) detections above the threshold that was chosen, by the scores before calibrating, on other images.
        cls: (N,) classes.
        group: (N,) groups of images from 0, which intervals resample.
        n_classes: Number of classes.
        n_groups: Number of groups, those without detections included.
    """

    iou: Floats
    tp: Bools
    in_iou: Bools
    in_tp: Bools
    kept: Bools
    cls: Ints
    group: Ints
    n_classes: int
    n_groups: int


def judged(table: DetectionTable, group: Ints, seed: int = 0) -> tuple[Judged, Thresholds]:
    """Take the targets of a table's detections, and choose those that are kept.

    Args:
        table: Matched detections with the scores before calibrating.
        group: (I,) group of each image, from 0.
        seed: Seed of the folds that thresholds are chosen on.

    Returns:
        What the numbers need, and the score thresholds to use on new images before calibrating.
    """
    overlap, half = table.matches(0.0), table.matches(TP_IOU)
    known = table.has_gt[table.cls]
    counted = half.kept & known
    plan, thresholds = plan_kept(table, MeasureSettings(seed=seed), group)
    of = Judged(
        overlap.tp_iou,
        half.tp,
        overlap.kept & known,
        counted,
        plan.kept(),
        table.cls.astype(np.int64),
        group[table.image],
        table.n_classes,
        int(group.max()) + 1 if len(group) else 0,
    )
    return of, thresholds


def score_numbers(score: Floats, of: Judged, rows: Ints | None = None, population: str = "all") -> dict[str, float]:
    """Compute the numbers of one set of scores.

    Args:
        score: (N,) scores.
        of: The detections.
        rows: Which of them, repeats included; all if None.
        population: ``all`` or ``kept``.

    Returns:
        Number by key, NaN where undefined.
    """
    take: Any = slice(None) if rows is None else rows
    s, kept = score[take], of.kept[take] if population == "kept" else True
    a, b = of.in_iou[take] & kept, of.in_tp[take] & kept
    iou, tp, cls = of.iou[take], of.tp[take].astype(np.float64), of.cls[take]
    by_class = class_errors(s[a], iou[a], cls[a], of.n_classes)
    known = by_class[~np.isnan(by_class)]
    return {
        "LaECE0": float(known.mean()) if len(known) else float("nan"),
        "DECE": cal.reliability(s[b], tp[b]).error,
        "brier": cal.brier_score(s[b], tp[b]),
        "brier_iou": cal.brier_score(s[a], iou[a]),
        "nll": cal.negative_log_likelihood(s[b], tp[b]),
        "signed_gap": cal.signed_gap(s[b], tp[b]),
        "signed_gap_iou": cal.signed_gap(s[a], iou[a]),
    }


def class_errors(score: Floats, target: Floats, cls: Ints, n_classes: int) -> Floats:
    """Compute the calibration error of each class: with IoU targets, LaECE before its mean (Kuzucu et al. 2024).

    Args:
        score: (N,) scores.
        target: (N,) targets.
        cls: (N,) classes.
        n_classes: Number of classes C.

    Returns:
        (C,) errors over 25 bins, NaN for a class without detections.
    """
    cells = cls * cal.LAECE_BINS + cal.bin_index(score, cal.LAECE_BINS)
    gaps = np.bincount(cells, weights=score - target, minlength=n_classes * cal.LAECE_BINS)
    counts = np.bincount(cls, minlength=n_classes).astype(np.float64)
    return binned_error(gaps.reshape(n_classes, cal.LAECE_BINS), counts)


def changes(
    before: Floats, after: Floats, of: Judged, *, bootstrap: int = 0, seed: int = 0
) -> dict[str, dict[str, Change]]:
    """Compare two sets of scores of the same detections.

    Args:
        before: (N,) scores.
        after: (N,) calibrated scores.
        of: The detections.
        bootstrap: Replicates over groups for the intervals; 0 for none.
        seed: Seed of the bootstrap.

    Returns:
        By population, then by key of :data:`NUMBERS`.
    """
    result = {}
    for population in POPULATIONS:
        ends = [score_numbers(s, of, population=population) for s in (before, after)]
        result[population] = {key: Change(ends[0][key], ends[1][key]) for key in NUMBERS}
    if not bootstrap:
        return result
    draw = _resampler(of, seed)
    values = np.empty((bootstrap, len(POPULATIONS), 2, len(NUMBERS)))
    for replicate in range(bootstrap):
        rows = draw()
        for p, population in enumerate(POPULATIONS):
            for which, scores in enumerate((before, after)):
                values[replicate, p, which] = list(score_numbers(scores, of, rows, population).values())
    for p, population in enumerate(POPULATIONS):
        for k, key in enumerate(NUMBERS):
            old, new = values[:, p, 0, k], values[:, p, 1, k]
            result[population][key] = replace(
                result[population][key],
                before_interval=_percentiles(old),
                after_interval=_percentiles(new),
                difference_interval=_percentiles(new - old),
            )
    return result


def reliability(score: Floats, of: Judged) -> dict[str, cal.Reliability]:
    """Give reliability diagrams of one set of scores.

    Args:
        score: (N,) scores.
        of: The detections.

    Returns:
        ``iou`` (25 bins, all detections), ``tp`` (20 bins) and both of the kept detections alone.
    """
    diagrams = {}
    for suffix, chosen in (("", np.ones(len(score), bool)), ("_kept", of.kept)):
        a, b = of.in_iou & chosen, of.in_tp & chosen
        diagrams[f"iou{suffix}"] = cal.reliability(score[a], of.iou[a], bins=cal.LAECE_BINS)
        diagrams[f"tp{suffix}"] = cal.reliability(score[b], of.tp[b].astype(np.float64))
    return diagrams


def _resampler(of: Judged, seed: int) -> Callable[[], Ints]:
    """Return a function that draws whole groups with replacement, as rows."""
    order = np.argsort(of.group, kind="stable")
    n_groups = of.n_groups
    size = np.bincount(of.group, minlength=n_groups)
    start = np.cumsum(size) - size
    rng = np.random.default_rng(seed)

    def draw() -> Ints:
        chosen = rng.integers(n_groups, size=n_groups)
        lengths = size[chosen]
        within = np.arange(lengths.sum()) - np.repeat(np.cumsum(lengths) - lengths, lengths)
        return np.asarray(order[np.repeat(start[chosen], lengths) + within])

    return draw


def _percentiles(values: Floats) -> tuple[float, float] | None:
    known = values[~np.isnan(values)]
    if not len(known):
        return None
    low, high = np.quantile(known, [0.025, 0.975])
    return float(low), float(high)
