# SPDX-License-Identifier: AGPL-3.0-or-later
"""Compare two classifiers on the same images: the paired bootstrap of their numbers' differences."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from det_ls.base.errors import ArgumentError
from det_ls.evaluation.classification import Classification
from det_ls.evaluation.pair_files import over_seeds, save_pair
from det_ls.metrics.classification import CLASSIFICATION, classification_numbers
from det_ls.metrics.number import Number, Population
from det_ls.uncertainty.paired import Comparison, Which, compare_samples
from det_ls.uncertainty.samples import Draws, Sample, draw
from det_ls.uncertainty.seeds import SeedComparison, compare_seeds

DECLARED: tuple[Which, ...] = (("all", "accuracy"), ("all", "nll"))
"""What a comparison of classifiers declares in advance: the first guesses, and a proper score of all probabilities."""


@dataclass(frozen=True)
class ClassComparison:
    """Two classifiers, or two ways to train one with several runs each, on the same images.

    Attributes:
        a: The first classifier's numbers; of several runs the first's.
        b: The second classifier's numbers; of several runs the first's.
        names: What to call them.
        differences: By key, ``b - a`` with its paired interval over images and its verdict.
        groups: Groups of images that were drawn.
        runs_a: All runs of the first arm.
        runs_b: All runs of the second arm.
        seeds: By key, the comparison over training seeds; None with one run in an arm.
        paired: Whether the runs pair by seed.
    """

    a: Classification
    b: Classification
    names: tuple[str, str]
    differences: dict[str, Comparison]
    groups: int
    runs_a: tuple[Classification, ...]
    runs_b: tuple[Classification, ...]
    seeds: dict[str, SeedComparison] | None = None
    paired: bool = False

    def to_dict(self) -> dict[str, Any]:
        """Return what JSON can hold: the names, the differences, and both classifiers' numbers."""
        content: dict[str, Any] = {
            "names": list(self.names),
            "differences": {key: asdict(difference) for key, difference in self.differences.items()},
            "declared": [key for _, key in DECLARED],
            "a": self.a.to_dict(),
            "b": self.b.to_dict(),
        }
        seeds = None if self.seeds is None else self.seeds.values()
        return content | over_seeds(seeds, self.paired, {"runs_a": self.runs_a, "runs_b": self.runs_b})

    def save(self, folder: str | Path, exist_ok: bool = False) -> None:
        """Write ``comparison.json``, and each classifier's files into the folders ``a`` and ``b``.

        Args:
            folder: Where to write; made if need be.
            exist_ok: Whether to replace files that are there.

        Raises:
            FileExistsError: If a file is there and ``exist_ok`` is False.
        """
        save_pair(folder, self.a, self.b, self.to_dict(), exist_ok=exist_ok)


def compare_classes(
    arms: Sequence[Sequence[Classification]],
    names: tuple[str, str],
    *,
    bootstrap: int,
    seed: int,
    level: float,
    paired: bool | None = None,
) -> ClassComparison:
    """Compare what two classifiers, or two arms of several runs each, said of the same images.

    Args:
        arms: The numbers of the runs of both arms, measured with the same groups.
        names: What to call the arms.
        bootstrap: Replicates, at least 100.
        seed: Seed of the draws.
        level: Nominal coverage in (0, 1).
        paired: Whether the i-th runs of both arms have the same training seed; None to pair where there are as many.

    Returns:
        The comparison.

    Raises:
        ValueError: If the arms saw other images, or images of other classes.
    """
    _check_same_images(arms)
    first = arms[0][0]
    draws = draw(first.n_images, bootstrap, seed, first.group)
    samples = [[_samples(run, draws) for run in arm] for arm in arms]
    found = compare_samples(samples[0][0], samples[1][0], level, about=_about, declared=DECLARED)
    seeds, pairs = None, False
    if min(len(arm) for arm in arms) > 1:
        pairs = len(arms[0]) == len(arms[1]) if paired is None else paired
        over = compare_seeds(samples[0], samples[1], paired=pairs, level=level, about=_about, declared=DECLARED)
        seeds = {key: comparison for (_, key), comparison in over.items()}
    differences = {key: comparison for (_, key), comparison in found.items()}
    a, b = (tuple(arm) for arm in arms)
    return ClassComparison(a[0], b[0], names, differences, draws.groups, a, b, seeds, pairs)


def _samples(run: Classification, draws: Draws) -> dict[Which, Sample]:
    """Estimate a classifier's numbers on draws."""
    return {
        ("all", key): draws.split(values) for key, values in classification_numbers(run.table, draws.weights).items()
    }


def _about(population: Population, key: str) -> Number:
    """Look a number of a classifier up."""
    return CLASSIFICATION[key]


def _check_same_images(arms: Sequence[Sequence[Classification]]) -> None:
    """Raise unless all runs classified the same images into the same classes."""
    first = arms[0][0]
    for run in (run for arm in arms for run in arm):
        for what, one, other in (
            ("classes", first.table.class_names, run.table.class_names),
            ("images", first.file_names, run.file_names),
            ("classes of the images", first.table.label.tolist(), run.table.label.tolist()),
        ):
            if one != other:
                raise ArgumentError(f"a, b: expected the same {what} for both, got different ones.")
