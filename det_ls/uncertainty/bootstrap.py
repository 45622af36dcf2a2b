# SPDX-License-Identifier: AGPL-3.0-or-later
"""Intervals of a detector's numbers over the choice of images."""

from __future__ import annotations

from dataclasses import replace

from det_ls.base.arguments import check_fraction, check_integer
from det_ls.metrics.catalogue import KEPT, NUMBERS
from det_ls.metrics.kept import KeptPlan
from det_ls.metrics.number import Number, Population
from det_ls.metrics.weighted import Progress
from det_ls.uncertainty.intervals import LEAST_REPLICATES, Interval, bootstrap_interval
from det_ls.uncertainty.samples import Sample, draw, sample_numbers


def bootstrap_intervals(
    plan: KeptPlan, *, replicates: int = 1000, seed: int = 0, level: float = 0.95, progress: Progress = iter
) -> dict[Population, dict[str, Interval]]:
    """Compute intervals of a detector's numbers, of all boxes and of those that a user keeps.

    Args:
        plan: The matched detections, and how the kept ones are chosen.
        replicates: Bootstrap samples, at least 100.
        seed: Seed of the draws.
        level: Nominal coverage in (0, 1).
        progress: Wraps the replicates' numbers, for example in a progress bar.

    Returns:
        Interval by population and key; a number that no replicate defines is left out.

    Raises:
        TypeError: An argument has the wrong type.
        ValueError: There are too few replicates, or the level is not in (0, 1).
    """
    check_integer("replicates", replicates, LEAST_REPLICATES)
    check_fraction("level", level)
    draws = draw(plan.grid.table.n_images, replicates, seed, plan.group)
    found: dict[Population, dict[str, Interval]] = {"all": {}, "kept": {}}
    for (population, key), sample in sample_numbers(plan, draws, progress=progress).items():
        interval = interval_of(sample, number_of(population, key), level)
        if interval is not None:
            found[population][key] = interval
    for population, intervals in found.items():
        for key in intervals:
            signed = number_of(population, key).size_of
            if signed is not None:
                intervals[key] = size_interval(intervals[signed])
    return found


def size_interval(signed: Interval) -> Interval:
    """Turn the interval of a signed number into that of its size.

    The replicates of a size are all too large where the number is near 0, so they are not used.

    Args:
        signed: The interval of the signed number.

    Returns:
        The interval of its absolute value, from 0 where the sign is not known.

    Example:
        >>> found = size_interval(Interval(-0.02, 0.05, 0.95, 1000, 0, "value"))
        >>> found.low, found.high
        (0.0, 0.05)
    """
    ends = abs(signed.low), abs(signed.high)
    return replace(signed, low=0.0 if signed.low <= 0 <= signed.high else min(ends), high=max(ends))


def interval_of(sample: Sample, number: Number, level: float) -> Interval | None:
    """Compute the interval of one number.

    Args:
        sample: The number with its replicates.
        number: What it is.
        level: Nominal coverage in (0, 1).

    Returns:
        The interval, within what the number can be; None where nothing is defined.
    """
    of = "estimator" if number.biased else "value"
    found = bootstrap_interval(sample.value, sample.replicates, level, of, remove_bias=number.optimistic)
    if found is None:
        return None
    low = found.low if number.signed else max(found.low, 0.0)
    return replace(found, low=low, high=min(found.high, max(number.most, sample.value)))


def number_of(population: Population, key: str) -> Number:
    """Look a number up.

    Args:
        population: What it counts.
        key: Its key.

    Returns:
        The number.
    """
    return (KEPT if population == "kept" else NUMBERS)[key]
