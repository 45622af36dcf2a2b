# SPDX-License-Identifier: AGPL-3.0-or-later
"""Arrays behind the pictures: reliability, errors against the score threshold, and free-response curves."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from det_ls.base.errors import ArgumentError
from det_ls.metrics import calibration as cal
from det_ls.metrics.class_errors import class_errors
from det_ls.metrics.lrp import lrp
from det_ls.metrics.protocols import TP_IOU, Protocol, get_protocol
from det_ls.metrics.table import DetectionTable, Floats, Ints, Matches
from det_ls.metrics.weighted import weighted_bins

Target = Literal["tp", "iou"]
THRESHOLDS = np.linspace(0.0, 0.95, 20)
FROC_RATES = (1 / 8, 1 / 4, 1 / 2, 1.0, 2.0, 4.0, 8.0)
MISS_RATE_POINTS = tuple(float(r) for r in np.logspace(-2, 0, 9))


@dataclass(frozen=True)
class ThresholdCurve:
    """Errors of the detections at or above each of T score thresholds; NaN where undefined.

    Attributes:
        threshold: (T,) score thresholds.
        n: (T,) detections that count.
        laece0: (T,) LaECE at IoU 0.
        dece: (T,) D-ECE at IoU 0.5.
        lrp: (T,) LRP error at IoU 0.5.
    """

    threshold: Floats
    n: Ints
    laece0: Floats
    dece: Floats
    lrp: Floats


@dataclass(frozen=True)
class FreeResponse:
    """What is found, and at the price of how many false alarms; one point for each distinct score, falling.

    Attributes:
        threshold: (P,) score thresholds.
        fp_per_image: (P,) false positives per image, rising.
        sensitivity: (P,) objects found, as a fraction; the miss rate is 1 minus it.
        iou: Smallest IoU of a true positive.
        n_objects: Objects that could be found.
        n_images: Images, those without objects included.
    """

    threshold: Floats
    fp_per_image: Floats
    sensitivity: Floats
    iou: float
    n_objects: int
    n_images: int

    @property
    def miss_rate(self) -> Floats:
        """(P,) objects missed, as a fraction."""
        return 1 - self.sensitivity

    def sensitivity_at(self, fp_per_image: float) -> float:
        """Read the curve.

        Args:
            fp_per_image: Allowed false positives per image.

        Returns:
            The highest sensitivity at no more false positives than that; 0 if every threshold gives more.
        """
        place = int(np.searchsorted(self.fp_per_image, fp_per_image, side="right"))
        if not self.n_objects:
            return float("nan")
        return float(self.sensitivity[place - 1]) if place else 0.0

    @property
    def froc_score(self) -> float:
        """Mean sensitivity at 1/8, 1/4, 1/2, 1, 2, 4 and 8 false positives per image (LUNA16, Setio et al. 2017)."""
        return float(np.mean([self.sensitivity_at(rate) for rate in FROC_RATES]))

    @property
    def log_average_miss_rate(self) -> float:
        """Geometric mean of the miss rate at nine rates from 0.01 to 1 false positives per image (Dollar et al. 2012).

        A miss rate of 0 counts as 1e-10, since its logarithm does not exist.
        """
        rates = [max(1 - self.sensitivity_at(rate), 1e-10) for rate in MISS_RATE_POINTS]
        return float(np.exp(np.mean(np.log(rates)))) if self.n_objects else float("nan")


def reliability_data(
    table: DetectionTable,
    target: Target = "tp",
    *,
    protocol: str = "det_ls",
    bins: int = cal.DECE_BINS,
    cls: int | None = None,
    area: str = "all",
) -> cal.Reliability:
    """Bin scores against what they should predict.

    Args:
        table: Matched detections.
        target: ``tp`` for true positives at IoU 0.5; ``iou`` for the IoU of true positives, 0 for false ones, matched
            at IoU 0, or at 0.5 where ``area`` is a size.
        protocol: ``det_ls`` or ``reference``.
        bins: Number of equal-width bins.
        cls: Position of the only class to count; by default all classes with ground truth.
        area: Object size: ``all``, ``small``, ``medium`` or ``large``, with COCO's rules for what is ignored then.

    Returns:
        The diagram's data.
    """
    rows, y = _targets(table, target, get_protocol(protocol), area)
    if cls is not None:
        rows = rows & (table.cls == cls)
    return cal.reliability(table.score[rows], y[rows], bins=bins)


def reliability_by_class(
    table: DetectionTable, target: Target = "tp", *, protocol: str = "det_ls", bins: int = cal.DECE_BINS
) -> list[cal.Reliability]:
    """Bin scores against what they should predict, for each class.

    Args:
        table: Matched detections.
        target: ``tp`` or ``iou``, see `reliability_data`.
        protocol: ``det_ls`` or ``reference``.
        bins: Number of equal-width bins.

    Returns:
        C diagrams; empty bins for a class without ground truth.
    """
    rows, y = _targets(table, target, get_protocol(protocol), "all")
    chosen = np.flatnonzero(rows)
    chosen = chosen[np.argsort(table.cls[chosen], kind="stable")]
    starts = np.searchsorted(table.cls[chosen], np.arange(table.n_classes + 1))
    groups = (chosen[a:b] for a, b in pairwise(starts))
    return [cal.reliability(table.score[g], y[g], bins=bins) for g in groups]


def reliability_by_size(
    table: DetectionTable, target: Target = "tp", *, protocol: str = "det_ls", bins: int = cal.DECE_BINS
) -> dict[str, cal.Reliability]:
    """Bin scores against what they should predict, for each of COCO's object sizes.

    A true positive belongs to the size of its object, a false positive to that of its box.

    Args:
        table: Matched detections.
        target: ``tp`` or ``iou``, both matched at IoU 0.5.
        protocol: ``det_ls`` or ``reference``.
        bins: Number of equal-width bins.

    Returns:
        Diagrams by size, for those that the table was matched for.
    """
    return {
        area: reliability_data(table, target, protocol=protocol, bins=bins, area=area)
        for _, area in table.matchings
        if area != "all"
    }


def reliability_intervals(
    table: DetectionTable,
    weights: NDArray[np.integer],
    target: Target = "tp",
    *,
    protocol: str = "det_ls",
    bins: int = cal.DECE_BINS,
    level: float = 0.95,
) -> tuple[Floats, Floats]:
    """Compute a bootstrap interval of the mean target of each bin.

    Args:
        table: Matched detections.
        weights: (I, R) how often each image is in each replicate, see `det_ls.uncertainty.bootstrap.image_weights`.
        target: ``tp`` or ``iou``, see `reliability_data`.
        protocol: ``det_ls`` or ``reference``.
        bins: Number of equal-width bins.
        level: Nominal coverage in (0, 1).

    Returns:
        (B,) lower and upper ends; NaN for a bin without detections.
    """
    rows, y = _targets(table, target, get_protocol(protocol), "all")
    place = cal.bin_index(table.score[rows], bins)
    count, total = weighted_bins(table.image[rows], place, bins, [np.ones(int(rows.sum())), y[rows]], weights)
    means = np.divide(total, count, out=np.full(total.shape, np.nan), where=count > 0)
    low, high = np.full(bins, np.nan), np.full(bins, np.nan)
    for b in np.flatnonzero((~np.isnan(means)).any(1)):
        low[b], high[b] = np.nanquantile(means[b], [(1 - level) / 2, (1 + level) / 2])
    return low, high


def threshold_curve(
    table: DetectionTable, thresholds: Floats = THRESHOLDS, *, protocol: str = "det_ls"
) -> ThresholdCurve:
    """Compute calibration error and LRP over the detections at or above each score threshold.

    Args:
        table: Matched detections.
        thresholds: (T,) score thresholds.
        protocol: ``det_ls`` or ``reference``.

    Returns:
        The curve.
    """
    rules = get_protocol(protocol)
    found = np.full((3, len(thresholds)), np.nan)
    counts = np.zeros(len(thresholds), np.int64)
    for i, threshold in enumerate(thresholds):
        kept = table.filter(table.score >= threshold)
        half = rules.matches(kept, TP_IOU)
        rows, errors = rules.counted(kept, half), class_errors(kept, 0.0, rules)[0]
        if (~np.isnan(errors)).any():
            found[0, i] = np.nanmean(errors)
        found[1, i] = cal.reliability(kept.score[rows], half.tp[rows]).error
        found[2, i] = lrp(kept, half).mean()["LRP"]
        counts[i] = rows.sum()
    return ThresholdCurve(np.asarray(thresholds), counts, *found)


def free_response(table: DetectionTable, *, iou: float = TP_IOU, protocol: str = "det_ls") -> FreeResponse:
    """Compute sensitivity against false positives per image, over all classes with ground truth together.

    Args:
        table: Matched detections.
        iou: Smallest IoU of a true positive.
        protocol: ``det_ls`` or ``reference``.

    Returns:
        The curve: FROC (medicine), or miss rate against false positives per image (driving).
    """
    rules = get_protocol(protocol)
    matches = rules.matches(table, iou)
    rows = rules.counted(table, matches)
    order = np.argsort(-table.score[rows], kind="stable")
    score, tp = table.score[rows][order], matches.tp[rows][order]
    last = np.append(np.diff(score) != 0, True) if len(score) else np.zeros(0, bool)
    n_objects = int(table.n_gt.sum())
    return FreeResponse(
        score[last],
        np.cumsum(~tp)[last] / max(table.n_images, 1),
        np.cumsum(tp)[last] / max(n_objects, 1),
        iou,
        n_objects,
        table.n_images,
    )


def _targets(table: DetectionTable, target: Target, rules: Protocol, area: str) -> tuple[NDArray[np.bool_], Floats]:
    """Choose the detections that count and what their scores should predict."""
    if target not in ("tp", "iou"):
        raise ArgumentError(f"target: expected 'tp' or 'iou', got {target!r}.")
    iou = 0.0 if target == "iou" and area == "all" else TP_IOU
    matches: Matches = rules.matches(table, iou, area=area)
    rows = matches.kept & (table.gt_count(area) > 0)[table.cls]
    return rows, matches.tp_iou if target == "iou" else matches.tp.astype(np.float64)
