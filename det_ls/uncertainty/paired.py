# SPDX-License-Identifier: AGPL-3.0-or-later
"""The paired comparison of two detectors on the same images."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from enum import Enum

import numpy as np

from det_ls.base.arguments import check_fraction, check_integer
from det_ls.base.errors import ArgumentError
from det_ls.metrics.catalogue import DECLARED
from det_ls.metrics.kept import KeptPlan
from det_ls.metrics.number import Number, Population
from det_ls.metrics.table import DetectionTable
from det_ls.metrics.weighted import Progress
from det_ls.uncertainty.bootstrap import number_of
from det_ls.uncertainty.intervals import LEAST_REPLICATES, Interval, bootstrap_interval, p_value
from det_ls.uncertainty.multiplicity import holm
from det_ls.uncertainty.samples import Sample, draw, sample_numbers

Which = tuple[Population, str]


class Verdict(str, Enum):
    """What a comparison shows of the second detector."""

    BETTER = "better"
    WORSE = "worse"
    DIFFERS = "differs"  # of which neither direction is better
    NONE = "none"  # no difference shown, which does not show that the detectors are equal
    UNJUDGED = "unjudged"  # a number whose differences do not say which detector is better


@dataclass(frozen=True)
class Comparison:
    """One number of two detectors on the same images.

    Attributes:
        key: Name of the number.
        population: What it counts.
        a: Value of the first detector.
        b: Value of the second detector.
        difference: ``b - a``.
        interval: Paired bootstrap interval of the difference.
        p: Two-sided p-value of no difference, for this number alone.
        adjusted: The same, adjusted for all numbers that were not declared in advance (Holm 1979); of a declared number
            ``p`` itself, None for one that is not judged.
        declared: Whether the comparison was declared in advance.
        verdict: Whether there is a difference, and for the better or not.
    """

    key: str
    population: Population
    a: float
    b: float
    difference: float
    interval: Interval
    p: float
    adjusted: float | None
    declared: bool
    verdict: Verdict

    @property
    def differs(self) -> bool:
        """Whether a difference is shown."""
        return self.verdict not in (Verdict.NONE, Verdict.UNJUDGED)


@dataclass(frozen=True)
class Comparisons:
    """All numbers of two detectors on the same images.

    Attributes:
        all: By key, the numbers of all boxes.
        kept: By key, the numbers of the boxes that a user keeps.
        groups: Number of groups of images that were drawn.
    """

    all: dict[str, Comparison]
    kept: dict[str, Comparison]
    groups: int

    @property
    def declared(self) -> list[Comparison]:
        """The comparisons that were declared in advance."""
        return [c for c in (*self.all.values(), *self.kept.values()) if c.declared]


def compare_plans(
    a: KeptPlan,
    b: KeptPlan,
    *,
    replicates: int = 1000,
    seed: int = 0,
    level: float = 0.95,
    progress: Progress = iter,
) -> Comparisons:
    """Compare two detectors on the same images by a paired bootstrap.

    Args:
        a: Matched detections of the first detector, and how its kept ones are chosen.
        b: The same of the second detector, against the same ground truth and with the same groups.
        replicates: Bootstrap samples, at least 100.
        seed: Seed of the draws.
        level: Nominal coverage in (0, 1).
        progress: Wraps the replicates' numbers, for example in a progress bar.

    Returns:
        The comparisons; a number that is undefined for either detector is left out.

    Raises:
        TypeError: An argument has the wrong type.
        ValueError: The detectors differ in images, classes or objects, there are too few replicates, or the level is
            not in (0, 1).
    """
    check_integer("replicates", replicates, LEAST_REPLICATES)
    check_fraction("level", level)
    check_same_ground_truth(a.grid.table, b.grid.table)
    draws = draw(a.grid.table.n_images, replicates, seed, a.group)
    of_a, of_b = (sample_numbers(plan, draws, progress=progress) for plan in (a, b))
    return by_population(compare_samples(of_a, of_b, level), draws.groups)


def by_population(found: Mapping[tuple[Population, str], Comparison], groups: int) -> Comparisons:
    """Sort comparisons by what they count.

    Args:
        found: Comparison by population and key.
        groups: Number of groups of images that were drawn.

    Returns:
        The comparisons.
    """
    return Comparisons(
        {key: c for (population, key), c in found.items() if population == "all"},
        {key: c for (population, key), c in found.items() if population == "kept"},
        groups,
    )


def compare_samples(
    a: Mapping[Which, Sample],
    b: Mapping[Which, Sample],
    level: float,
    *,
    about: Callable[[Population, str], Number] = number_of,
    declared: Collection[Which] = DECLARED,
) -> dict[Which, Comparison]:
    """Compare samples on the same draws.

    Args:
        a: The first detector's numbers.
        b: The second detector's numbers.
        level: Nominal coverage in (0, 1).
        about: Says what a number is, by population and key; by default those of detectors.
        declared: The comparisons that were declared in advance.

    Returns:
        Comparison by population and key.
    """
    differences: dict[Which, tuple[Sample, Interval, float]] = {}
    for which in a:
        change = b[which] - a[which]
        remove_bias = about(*which).optimistic
        interval = bootstrap_interval(change.value, change.replicates, level, remove_bias=remove_bias)
        if interval is not None:
            p = p_value(change.value, change.replicates, remove_bias=remove_bias)
            differences[which] = change, interval, p
    judged = {which: p for which, (_, _, p) in differences.items() if about(*which).verdict}
    others = holm({which: p for which, p in judged.items() if which not in declared})
    found = {}
    for which, (change, interval, p) in differences.items():
        number = about(*which)
        adjusted = p if which in declared else others.get(which)
        found[which] = Comparison(
            number.key,
            number.population,
            a[which].value,
            b[which].value,
            change.value,
            interval,
            p,
            adjusted,
            which in declared,
            judge(number, change.value, adjusted, 1 - level),
        )
    return found


def judge(number: Number, difference: float, adjusted: float | None, alpha: float) -> Verdict:
    """Judge a difference.

    Args:
        number: The number.
        difference: The second detector's minus the first's.
        adjusted: P-value, adjusted if need be; None where the number is not judged.
        alpha: Largest p-value that shows a difference.

    Returns:
        The verdict.
    """
    if adjusted is None:
        return Verdict.UNJUDGED
    if adjusted > alpha:
        return Verdict.NONE
    improves = number.improves(difference)
    return Verdict.DIFFERS if improves is None else Verdict.BETTER if improves else Verdict.WORSE


def check_same_ground_truth(a: DetectionTable, b: DetectionTable) -> None:
    """Raise unless two tables were matched against the same ground truth.

    Args:
        a: One table.
        b: The other.

    Raises:
        ValueError: They differ in images, classes or objects.
    """
    for what, of_a, of_b in (
        ("images", list(a.image_ids), list(b.image_ids)),
        ("classes", list(a.class_ids), list(b.class_ids)),
        ("objects", a.gt_ids, b.gt_ids),
        ("objects' images", a.gt_image, b.gt_image),
        ("objects' classes", a.gt_cls, b.gt_cls),
        ("objects' areas", a.gt_area, b.gt_area),
    ):
        if not np.array_equal(np.asarray(of_a, object), np.asarray(of_b, object)):
            raise ArgumentError(f"a, b: expected the same ground truth, got different {what}.")
