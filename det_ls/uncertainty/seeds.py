# SPDX-License-Identifier: AGPL-3.0-or-later
"""Two ways to train, several runs each: the difference over training seeds, with that over images beside it."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from det_ls.base.errors import ArgumentError
from det_ls.metrics.catalogue import DECLARED
from det_ls.metrics.number import Number, Population
from det_ls.metrics.table import Floats
from det_ls.uncertainty.bootstrap import number_of
from det_ls.uncertainty.intervals import Interval, bootstrap_interval
from det_ls.uncertainty.multiplicity import holm
from det_ls.uncertainty.paired import Verdict, Which, judge
from det_ls.uncertainty.samples import Sample


@dataclass(frozen=True)
class SeedComparison:
    """One number of two ways to train.

    Attributes:
        key: Name of the number.
        population: What it counts.
        a: Its values in the runs of the first arm.
        b: Its values in the runs of the second arm.
        difference: Mean of ``b`` minus mean of ``a``.
        low: Lower end of the t-interval over seeds.
        high: Upper end.
        images: Interval of the same difference over the choice of images, with these runs.
        paired: Whether the runs pair by seed.
        p: Two-sided p-value of no difference over seeds, for this number alone.
        adjusted: As in `det_ls.uncertainty.paired.Comparison`.
        declared: Whether the comparison was declared in advance.
        verdict: Whether there is a difference over seeds, and for the better or not.
    """

    key: str
    population: Population
    a: tuple[float, ...]
    b: tuple[float, ...]
    difference: float
    low: float
    high: float
    images: Interval | None
    paired: bool
    p: float
    adjusted: float | None
    declared: bool
    verdict: Verdict


def compare_seeds(
    a: Sequence[Mapping[Which, Sample]],
    b: Sequence[Mapping[Which, Sample]],
    *,
    paired: bool,
    level: float = 0.95,
    about: Callable[[Population, str], Number] = number_of,
    declared: Collection[Which] = DECLARED,
) -> dict[Which, SeedComparison]:
    """Compare two arms of training runs.

    Args:
        a: The numbers of each run of the first arm, all on the same draws.
        b: Those of the second arm; where the arms pair, the i-th run has the seed of the i-th run of ``a``.
        paired: Whether they pair.
        level: Nominal coverage in (0, 1).
        about: Says what a number is, by population and key; by default those of detectors.
        declared: The comparisons that were declared in advance.

    Returns:
        Comparison by population and key, of the numbers that every run defines.

    Raises:
        ValueError: An arm has fewer than two runs, or paired arms differ in their number of runs.
    """
    for name, arm in (("a", a), ("b", b)):
        if len(arm) < 2:
            raise ArgumentError(f"{name}: expected at least 2 runs to compare over seeds, got {len(arm)}.")
    if paired and len(a) != len(b):
        raise ArgumentError(f"a, b: expected as many runs in both to pair them, got {len(a)} and {len(b)}.")
    spans: dict[Which, tuple[float, float, float, float]] = {}
    for which in a[0]:
        values_a, values_b = (np.array([run[which].value for run in arm]) for arm in (a, b))
        if not np.isnan([*values_a, *values_b]).any():
            spans[which] = t_interval(values_a, values_b, paired=paired, level=level)
    others = holm({k: p for k, (*_, p) in spans.items() if k not in declared and about(*k).verdict})
    found = {}
    for which, (difference, low, high, p) in spans.items():
        number = about(*which)
        change = _mean([run[which] for run in b]) - _mean([run[which] for run in a])
        images = bootstrap_interval(change.value, change.replicates, level, remove_bias=number.optimistic)
        adjusted = p if which in declared else others.get(which)
        found[which] = SeedComparison(
            number.key,
            number.population,
            tuple(run[which].value for run in a),
            tuple(run[which].value for run in b),
            difference,
            low,
            high,
            images,
            paired,
            p,
            adjusted,
            which in declared,
            judge(number, difference, adjusted, 1 - level),
        )
    return found


def t_interval(a: Floats, b: Floats, *, paired: bool, level: float = 0.95) -> tuple[float, float, float, float]:
    """Compute Student's t-interval of a difference of means; Welch's where the values do not pair.

    Args:
        a: Values of the first arm, at least two.
        b: Values of the second arm, at least two.
        paired: Whether the i-th values belong together.
        level: Nominal coverage in (0, 1).

    Returns:
        Difference of the means, b minus a; lower and upper end; two-sided p-value.

    Example:
        >>> import numpy as np
        >>> found = t_interval(np.array([1.0, 2.0, 3.0]), np.array([1.5, 2.4, 3.6]), paired=True)
        >>> [round(v, 3) for v in found]
        [0.5, 0.252, 0.748, 0.013]
    """
    from scipy import stats

    difference = float(b.mean() - a.mean())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # of nearly equal values, whose interval is nearly a point
        test = stats.ttest_rel(b, a) if paired else stats.ttest_ind(b, a, equal_var=False)
    if np.isnan(test.pvalue):  # every difference is the same
        return difference, difference, difference, float(difference == 0)
    span = test.confidence_interval(level)
    return difference, float(span.low), float(span.high), float(test.pvalue)


def _mean(samples: Sequence[Sample]) -> Sample:
    """Average samples on the same draws."""
    return Sample(
        float(np.mean([s.value for s in samples])),
        np.mean([s.replicates for s in samples], axis=0),
    )
