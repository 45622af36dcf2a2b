# SPDX-License-Identifier: AGPL-3.0-or-later
"""Compare two detectors on the same images: two evaluations and the paired bootstrap of their differences."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Any

from det_ls.base.arguments import check_integer
from det_ls.base.errors import ArgumentError, ArgumentTypeError, MissingFileError
from det_ls.base.folders import is_file
from det_ls.evaluation.class_comparison import ClassComparison, compare_classes
from det_ls.evaluation.classification import Classification
from det_ls.evaluation.evaluate import DETECTION_SETTINGS, evaluate, evaluate_detections
from det_ls.evaluation.pair_files import COMPARISON_FILE, over_seeds, save_pair
from det_ls.evaluation.results import Evaluation, check_save_dir
from det_ls.evaluation.settings import MeasureSettings
from det_ls.metrics.catalogue import DECLARED
from det_ls.uncertainty.intervals import LEAST_REPLICATES
from det_ls.uncertainty.paired import (
    Comparison,
    Comparisons,
    Which,
    by_population,
    check_same_ground_truth,
    compare_samples,
)
from det_ls.uncertainty.samples import draw, sample_numbers
from det_ls.uncertainty.seeds import SeedComparison, compare_seeds

if TYPE_CHECKING:
    from det_ls.evaluation.detector import Detector


@dataclass(frozen=True)
class PairedEvaluation:
    """Two detectors, or two ways to train with several runs each, on the same images.

    Attributes:
        a: The first detector's evaluation; of several runs the first.
        b: The second detector's evaluation; of several runs the first.
        names: What to call them.
        comparisons: ``b - a`` of every number, each with its paired interval and verdict.
        runs_a: The evaluations of all runs of the first arm.
        runs_b: The evaluations of all runs of the second arm.
        seeds: By population and key, the comparison over training seeds; None with one run in an arm.
        paired: Whether the runs pair by seed.
    """

    a: Evaluation
    b: Evaluation
    names: tuple[str, str]
    comparisons: Comparisons
    runs_a: tuple[Evaluation, ...] = ()
    runs_b: tuple[Evaluation, ...] = ()
    seeds: dict[Which, SeedComparison] | None = None
    paired: bool = False

    @property
    def differences(self) -> dict[str, Comparison]:
        """The comparisons of all boxes, by key."""
        return self.comparisons.all

    def to_dict(self) -> dict[str, Any]:
        """Return what JSON can hold.

        Returns:
            The names, the differences, and both evaluations' numbers.
        """
        content: dict[str, Any] = {
            "names": list(self.names),
            "differences": {key: asdict(difference) for key, difference in self.comparisons.all.items()},
            "kept_differences": {key: asdict(difference) for key, difference in self.comparisons.kept.items()},
            "declared": [[population, key] for population, key in DECLARED],
            "a": self.a.to_dict(),
            "b": self.b.to_dict(),
        }
        seeds = None if self.seeds is None else self.seeds.values()
        return content | over_seeds(seeds, self.paired, {"runs_a": self.runs_a, "runs_b": self.runs_b})

    def save(self, folder: str | Path, exist_ok: bool = False) -> None:
        """Write ``comparison.json``, and each evaluation's files into the folders ``a`` and ``b``.

        Args:
            folder: Where to write; made if need be.
            exist_ok: Whether to replace files that are there.

        Raises:
            FileExistsError: If a file is there and ``exist_ok`` is False.
        """
        save_pair(folder, self.a, self.b, self.to_dict(), exist_ok=exist_ok)


def compare(
    a: object,
    b: object,
    data: str | Path | None = None,
    *,
    annotations: str | Path | Mapping[str, Any] | None = None,
    names: tuple[str, str] | None = None,
    protocol: str = "det_ls",
    bootstrap: int = 1000,
    seed: int = 0,
    paired: bool | None = None,
    **settings: Any,
) -> PairedEvaluation | ClassComparison:
    """Evaluate two detectors, or two ways to train, on the same images and compare them by a paired bootstrap.

    Two classifiers are compared too, by their numbers; settings that are about boxes are refused for them.

    Args:
        a: The first detector: a model as for :func:`det_ls.evaluate`, or without ``data`` COCO results. Several
            runs make an arm: a tuple of them.
        b: The second detector, likewise.
        data: The data set; None to compare COCO results on ``annotations``.
        annotations: COCO instances; needed without ``data``.
        names: What to call the two; by default the parts of their paths that differ, or ``a`` and ``b``.
        protocol: ``det_ls`` or ``reference``.
        bootstrap: Replicates, at least 100.
        seed: Seed of the bootstrap.
        paired: Whether the i-th runs of two arms have the same training seed; None to pair where there are as many.
        **settings: Further arguments of :func:`det_ls.evaluate`, or of :func:`det_ls.evaluate_detections`.

    Returns:
        Both evaluations and their differences.

    Raises:
        TypeError: If neither ``data`` nor ``annotations`` is given, settings without ``data``, or an argument of the
            wrong type.
        ValueError: If ``bootstrap`` is too small, the names are equal, or an argument of an evaluation is not valid.
    """
    check_integer("bootstrap", bootstrap, LEAST_REPLICATES)
    arms = [tuple(arm) if isinstance(arm, tuple) else (arm,) for arm in (a, b)]
    names = _names(arms[0][0], arms[1][0]) if names is None else names
    _check_names(names)
    if given := [key for key in ("save_dir", "exist_ok") if key in settings]:
        raise ArgumentTypeError(
            f"{given[0]}: expected as an argument of the comparison's save(), got it with the settings."
        )
    measured: dict[str, Any] = {"protocol": protocol, "bootstrap": bootstrap, "seed": seed}
    level = settings.get("level", 0.95)
    if data is not None:
        from det_ls.evaluation.detector import load_detector

        known = {f.name for f in fields(MeasureSettings)}
        MeasureSettings(**{k: v for k, v in {**measured, **settings}.items() if k in known})  # before a model is loaded
        detectors = [[load_detector(m) for m in arm] for arm in arms]
        _check_kinds(detectors)
        found = [[evaluate(m, data, annotations=annotations, **measured, **settings) for m in arm] for arm in detectors]
        classes = [[one for one in arm if isinstance(one, Classification)] for arm in found]
        if classes[0]:
            return compare_classes(classes, names, bootstrap=bootstrap, seed=seed, level=level, paired=paired)
        runs = [[one for one in arm if isinstance(one, Evaluation)] for arm in found]
    elif annotations is None:
        raise ArgumentTypeError("data: expected a data set, or annotations to compare COCO results on, got neither.")
    elif other := [key for key in settings if key not in DETECTION_SETTINGS]:
        raise ArgumentTypeError(f"{', '.join(other)}: expected data=... with settings of the predictions, got none.")
    else:
        _check_files(arms)
        runs = [[evaluate_detections(annotations, d, **measured, **settings) for d in arm] for arm in arms]
    plans = [[run.metrics.kept.plan for run in arm] for arm in runs]
    check_same_ground_truth(plans[0][0].grid.table, plans[1][0].grid.table)
    draws = draw(plans[0][0].grid.table.n_images, bootstrap, seed, plans[0][0].group)
    samples = [[sample_numbers(plan, draws) for plan in arm] for arm in plans]
    comparisons = by_population(compare_samples(samples[0][0], samples[1][0], level), draws.groups)
    seeds, pairs = None, False
    if min(len(arm) for arm in arms) > 1:
        pairs = len(arms[0]) == len(arms[1]) if paired is None else paired
        seeds = compare_seeds(samples[0], samples[1], paired=pairs, level=level)
    first, second = (tuple(arm) for arm in runs)
    return PairedEvaluation(first[0], second[0], names, comparisons, first, second, seeds, pairs)


def check_comparison_dir(folder: str | Path, exist_ok: bool) -> None:
    """Raise unless a comparison can be written to a folder.

    Args:
        folder: The folder, which need not exist.
        exist_ok: Whether results that are there may be replaced.

    Raises:
        FileExistsError: If they may not and there are any, or the folder is a file.
        TypeError: If ``exist_ok`` is neither True nor False.
    """
    check_save_dir(folder, exist_ok, (COMPARISON_FILE,))
    for part in ("a", "b"):
        check_save_dir(Path(folder) / part, exist_ok)


def _check_kinds(arms: Sequence[Sequence[Detector]]) -> None:
    """Raise unless all models predict the same: upright boxes, oriented ones, or classes."""
    words = {"classify": "classes", "obb": "oriented boxes"}
    kinds = {words.get(model.task, "upright boxes"): model.weights for arm in arms for model in arm}
    if len(kinds) > 1:
        found = " and ".join(f"{kind} of '{weights}'" for kind, weights in kinds.items())
        raise ArgumentError(f"b: expected models that predict the same as those of a, got {found}.")


def _check_files(arms: Sequence[Sequence[object]]) -> None:
    """Raise unless all files of detections are there, before any is measured."""
    for name, arm in zip("ab", arms, strict=True):
        for source in arm:
            if isinstance(source, (str, PurePath)) and not is_file(str(source)) and not Path(source).is_dir():
                raise MissingFileError(f"{name}: expected a COCO JSON file, got '{source}', which does not exist.")


def _check_names(names: object) -> None:
    """Raise unless there are two different names."""
    if isinstance(names, str) or not isinstance(names, Sequence) or [type(name) for name in names] != [str, str]:
        raise ArgumentTypeError(f"names: expected two names, got {names!r}.")
    if names[0] == names[1]:
        raise ArgumentError(f"names: expected two different names, got {names[0]!r} twice.")


def _names(a: object, b: object) -> tuple[str, str]:
    """Name two detectors by the last parts of their paths that differ, files without suffixes where those still do."""
    if not isinstance(a, (str, Path)) or not isinstance(b, (str, Path)):
        return "a", "b"
    files = Path(a), Path(b)
    if files[0].stem != files[1].stem:
        return files[0].stem, files[1].stem
    for one, other in zip(reversed(files[0].parts), reversed(files[1].parts), strict=False):
        if one != other:
            return one, other
    return "a", "b"  # the same file, or one path is the end of the other
