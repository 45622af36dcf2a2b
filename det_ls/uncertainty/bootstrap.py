# SPDX-License-Identifier: AGPL-3.0-or-later
"""Image-level bootstrap: percentile intervals of one detector's numbers, and the paired comparison of two detectors.

Images are drawn with replacement, since detections of one image are not independent of each other. Percentile
intervals: Efron and Tibshirani, "An introduction to the bootstrap", 1993. Two detectors are compared on the same draws.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum

import numpy as np
from numpy.typing import NDArray

from det_ls.base.arguments import check_fraction, check_integer
from det_ls.metrics.average_precision import average_precision_numbers
from det_ls.metrics.catalogue import BESIDES_AP, NUMBERS, estimate
from det_ls.metrics.number import Number
from det_ls.metrics.protocols import get_protocol
from det_ls.metrics.table import DetectionTable, Floats
from det_ls.metrics.weighted import Progress, Weights, once


@dataclass(frozen=True)
class Interval:
    """A percentile bootstrap interval.

    Attributes:
        low: Lower end.
        high: Upper end.
        level: Nominal coverage in (0, 1).
        replicates: Replicates in which the number was defined.
        undefined: Replicates in which it was not.
        of: ``value``, or ``estimator`` for a binned error, which is biased upwards: the interval then says how much the
            estimate varies, not where the detector's true error lies.
    """

    low: float
    high: float
    level: float
    replicates: int
    undefined: int
    of: str


class Verdict(str, Enum):
    """What the interval of a difference says of the second detector."""

    BETTER = "better"
    WORSE = "worse"
    DIFFERS = "differs"  # of which neither direction is better
    NONE = "none"  # the interval includes zero, which does not show that the detectors are equal


@dataclass(frozen=True)
class Comparison:
    """One number of two detectors on the same images.

    Attributes:
        key: Name of the number.
        a: Value of the first detector.
        b: Value of the second detector.
        difference: ``b - a``.
        interval: Paired bootstrap interval of the difference.
        verdict: Whether the interval excludes zero, and for the better or not.
    """

    key: str
    a: float
    b: float
    difference: float
    interval: Interval
    verdict: Verdict

    @property
    def differs(self) -> bool:
        """Whether the interval excludes zero."""
        return self.verdict is not Verdict.NONE


def image_weights(n_images: int, replicates: int, seed: int) -> NDArray[np.uint16]:
    """Draw bootstrap samples of images.

    Args:
        n_images: Number of images I.
        replicates: Number of samples R.
        seed: Seed of the draws.

    Returns:
        (I, R) how often each image is in each sample; every column sums to I.

    Example:
        >>> image_weights(5, 3, seed=0).sum(0).tolist()
        [5, 5, 5]
    """
    rng = np.random.default_rng(seed)
    weights = np.zeros((n_images, replicates), np.uint16)
    for r in range(replicates if n_images else 0):
        weights[:, r] = np.bincount(rng.integers(n_images, size=n_images), minlength=n_images)
    return weights


def bootstrap_intervals(
    table: DetectionTable,
    *,
    protocol: str = "det_ls",
    replicates: int = 1000,
    ap_replicates: int | None = None,
    seed: int = 0,
    level: float = 0.95,
    progress: Progress = iter,
) -> dict[str, Interval]:
    """Compute image-level bootstrap intervals of a detector's numbers.

    Args:
        table: Matched detections.
        protocol: ``det_ls`` or ``reference``.
        replicates: Bootstrap samples for everything but AP.
        ap_replicates: Bootstrap samples for AP, which costs more; by default 200, or ``replicates`` if that is less;
            0 for none.
        seed: Seed of the draws.
        level: Nominal coverage in (0, 1).
        progress: Wraps the replicates' numbers, for example in a progress bar.

    Returns:
        Interval by key; a number that no replicate defines is left out.

    Raises:
        ValueError: There are no replicates, or the level is not in (0, 1).
    """
    found = _replicates([table], protocol, replicates, ap_replicates, seed, level, progress)[0]
    return {k: i for k, v in found.items() if (i := percentile_interval(v, level, _estimates(k))) is not None}


def compare_tables(
    a: DetectionTable,
    b: DetectionTable,
    *,
    protocol: str = "det_ls",
    replicates: int = 1000,
    ap_replicates: int | None = None,
    seed: int = 0,
    level: float = 0.95,
    progress: Progress = iter,
) -> dict[str, Comparison]:
    """Compare two detectors on the same images by a paired bootstrap.

    Args:
        a: Matched detections of the first detector.
        b: Matched detections of the second detector, against the same ground truth.
        protocol: ``det_ls`` or ``reference``.
        replicates: Bootstrap samples for everything but AP.
        ap_replicates: Bootstrap samples for AP; by default 200, or ``replicates`` if that is less; 0 for none.
        seed: Seed of the draws.
        level: Nominal coverage in (0, 1).
        progress: Wraps the replicates' numbers, for example in a progress bar.

    Returns:
        Comparison by key; a number that is undefined for either detector is left out.

    Raises:
        ValueError: The tables differ in images, classes or objects, there are no replicates, or the level is not in
            (0, 1).
    """
    _check_same_ground_truth(a, b)
    found_a, found_b = _replicates([a, b], protocol, replicates, ap_replicates, seed, level, progress)
    point_a, point_b = (_replicates_of(t, protocol, once(t), once(t), iter) for t in (a, b))
    compared: dict[str, Comparison] = {}
    for key in found_a:
        value_a, value_b = float(point_a[key][0]), float(point_b[key][0])
        interval = percentile_interval(found_b[key] - found_a[key], level, "value")
        if interval is None or np.isnan(value_a) or np.isnan(value_b):
            continue
        compared[key] = Comparison(key, value_a, value_b, value_b - value_a, interval, _verdict(NUMBERS[key], interval))
    return compared


def percentile_interval(values: Floats, level: float, of: str = "value") -> Interval | None:
    """Take the central percentiles of replicates.

    Args:
        values: (R,) replicates; NaN where undefined.
        level: Nominal coverage in (0, 1).
        of: What the interval describes, see `Interval`.

    Returns:
        The interval, or None where no replicate is defined.
    """
    known = values[~np.isnan(values)]
    if not len(known):
        return None
    low, high = np.quantile(known, [(1 - level) / 2, (1 + level) / 2])
    return Interval(float(low), float(high), level, len(known), len(values) - len(known), of)


def _estimates(key: str) -> str:
    return "estimator" if NUMBERS[key].biased else "value"


def _replicates_of(
    table: DetectionTable, protocol: str, weights: Weights, ap_weights: Weights, progress: Progress
) -> dict[str, Floats]:
    rules = get_protocol(protocol)
    return {
        **average_precision_numbers(table, ap_weights, rules, progress=progress).overall,
        **estimate(table, weights, rules, families=BESIDES_AP, progress=progress),
    }


def _replicates(
    tables: Iterable[DetectionTable],
    protocol: str,
    replicates: int,
    ap_replicates: int | None,
    seed: int,
    level: float,
    progress: Progress,
) -> list[dict[str, Floats]]:
    """Check the arguments and compute the replicates of each table on the same draws."""
    get_protocol(protocol)
    n_ap = min(200, replicates) if ap_replicates is None else ap_replicates
    check_integer("replicates", replicates, 1)
    check_integer("ap_replicates", n_ap)
    check_fraction("level", level)
    found: list[dict[str, Floats]] = []
    for table in tables:
        weights = image_weights(table.n_images, max(replicates, n_ap), seed)
        found.append(_replicates_of(table, protocol, weights[:, :replicates], weights[:, :n_ap], progress))
    return found


def _check_same_ground_truth(a: DetectionTable, b: DetectionTable) -> None:
    """Raise unless two tables were matched against the same ground truth."""
    for what, of_a, of_b in (
        ("images", a.image_ids, b.image_ids),
        ("classes", a.class_ids, b.class_ids),
        ("objects", list(a.gt_ids), list(b.gt_ids)),
        ("objects' places", [*a.gt_image, *a.gt_cls, *a.gt_area], [*b.gt_image, *b.gt_cls, *b.gt_area]),
    ):
        if list(of_a) != list(of_b):
            raise ValueError(f"a, b: expected the same ground truth, got different {what}.")


def _verdict(number: Number, interval: Interval) -> Verdict:
    """Read the interval of a difference."""
    if interval.low <= 0 <= interval.high:
        return Verdict.NONE
    improves = number.improves(interval.low + interval.high)
    return Verdict.DIFFERS if improves is None else Verdict.BETTER if improves else Verdict.WORSE
