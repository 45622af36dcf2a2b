# SPDX-License-Identifier: AGPL-3.0-or-later
"""The differences of a comparison in one shape, whether they are over training seeds or over images alone."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from det_ls.evaluation.class_comparison import ClassComparison
from det_ls.evaluation.comparison import PairedEvaluation
from det_ls.metrics.classification import CLASSIFICATION
from det_ls.metrics.number import Number
from det_ls.report.measured import LEADING, OF_ALL, OTHER_KEPT, OTHERS, Which
from det_ls.report.words import row_decimals
from det_ls.uncertainty.bootstrap import number_of
from det_ls.uncertainty.intervals import Interval
from det_ls.uncertainty.paired import Comparison, Verdict
from det_ls.uncertainty.seeds import SeedComparison

Pair = PairedEvaluation | ClassComparison
ORDER: tuple[Which, ...] = (*LEADING, *OTHER_KEPT, *OF_ALL, *OTHERS)


@dataclass(frozen=True)
class Difference:
    """One number of two detectors, or of two ways to train.

    Attributes:
        about: What the number is.
        a: Its values in the first arm's runs.
        b: Its values in the second arm's runs.
        difference: Mean of ``b`` minus mean of ``a``.
        low: Lower end of its interval, over seeds where there are several runs in both arms, else over images.
        high: Upper end.
        level: Nominal coverage in (0, 1).
        images: Where the interval is over seeds, that over images.
        p: P-value for this number alone.
        adjusted: P-value that counts, None for a number that is not judged.
        declared: Whether the comparison was declared in advance.
        verdict: What it shows.
    """

    about: Number
    a: tuple[float, ...]
    b: tuple[float, ...]
    difference: float
    low: float
    high: float
    level: float
    images: Interval | None
    p: float
    adjusted: float | None
    declared: bool
    verdict: Verdict

    @property
    def which(self) -> Which:
        """What the number counts, and its key."""
        return self.about.population, self.about.key

    @property
    def mean_a(self) -> float:
        """Mean of the first arm."""
        return sum(self.a) / len(self.a)

    @property
    def mean_b(self) -> float:
        """Mean of the second arm."""
        return sum(self.b) / len(self.b)

    @property
    def differs(self) -> bool:
        """Whether a difference is shown."""
        return self.verdict not in (Verdict.NONE, Verdict.UNJUDGED)

    @property
    def decimals(self) -> int:
        """Decimals of the whole row."""
        return row_decimals(self.difference, self.low, self.high)


def differences(pair: PairedEvaluation) -> dict[Which, Difference]:
    """List the differences of a comparison.

    Args:
        pair: The comparison.

    Returns:
        By population and key, what was declared in advance first, then the kept boxes, then all boxes.
    """
    both = (*pair.comparisons.all.values(), *pair.comparisons.kept.values())
    found = [of_images(c) for c in both]
    if pair.seeds is not None:
        level = both[0].interval.level if both else 0.95
        found = [of_seeds(c, level) for c in pair.seeds.values()]
    place = {which: i for i, which in enumerate(ORDER)}
    return {d.which: d for d in sorted(found, key=lambda d: (not d.declared, place[d.which]))}


def class_differences(pair: ClassComparison) -> dict[Which, Difference]:
    """List the differences of a comparison of classifiers.

    Args:
        pair: The comparison.

    Returns:
        By population and key, what was declared in advance first, then in the order of the numbers.
    """
    if pair.seeds is None:
        found = [of_images(c, CLASSIFICATION[key]) for key, c in pair.differences.items()]
    else:
        level = next((c.interval.level for c in pair.differences.values()), 0.95)
        found = [of_seeds(c, level, CLASSIFICATION[key]) for key, c in pair.seeds.items()]
    return {d.which: d for d in sorted(found, key=lambda d: not d.declared)}


def of_images(found: Comparison, about: Number | None = None) -> Difference:
    """Take the difference of two detectors.

    Args:
        found: The comparison.
        about: What the number is; None to look it up among those of detectors.

    Returns:
        The difference.
    """
    interval = found.interval
    return Difference(
        number_of(found.population, found.key) if about is None else about,
        (found.a,),
        (found.b,),
        found.difference,
        interval.low,
        interval.high,
        interval.level,
        None,
        found.p,
        found.adjusted,
        found.declared,
        found.verdict,
    )


def of_seeds(found: SeedComparison, level: float, about: Number | None = None) -> Difference:
    """Take the difference of two ways to train.

    Args:
        found: The comparison.
        level: Nominal coverage in (0, 1).
        about: What the number is; None to look it up among those of detectors.

    Returns:
        The difference.
    """
    return Difference(
        number_of(found.population, found.key) if about is None else about,
        found.a,
        found.b,
        found.difference,
        found.low,
        found.high,
        level,
        found.images,
        found.p,
        found.adjusted,
        found.declared,
        found.verdict,
    )


def panels(found: Iterable[Difference]) -> dict[str, list[Difference]]:
    """Sort differences for a picture.

    Args:
        found: The differences.

    Returns:
        By heading, those that were declared in advance, then the leading ones of the kept boxes and of all boxes.
    """
    listed = list(found)
    leading = (*LEADING, *OF_ALL)
    sorts = {
        "Declared in advance": [d for d in listed if d.declared],
        "Kept boxes": [d for d in listed if not d.declared and d.about.population == "kept" and d.which in leading],
        "All boxes": [d for d in listed if not d.declared and d.about.population == "all" and d.which in leading],
    }
    return {title: rows for title, rows in sorts.items() if rows}
