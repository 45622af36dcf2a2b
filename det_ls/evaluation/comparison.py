# SPDX-License-Identifier: AGPL-3.0-or-later
"""Compare two detectors on the same images: two evaluations and the paired bootstrap of their differences."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from det_ls.base.files import write_json
from det_ls.evaluation.evaluate import check_arguments, evaluate, evaluate_detections
from det_ls.evaluation.results import Evaluation, check_save_dir
from det_ls.uncertainty.bootstrap import Comparison, compare_tables

COMPARISON_FILE = "comparison.json"


@dataclass(frozen=True)
class PairedEvaluation:
    """Two detectors on the same images.

    Attributes:
        a: The first detector's evaluation.
        b: The second detector's evaluation.
        names: What to call them.
        differences: ``b - a`` by key, each with its paired interval and verdict.
    """

    a: Evaluation
    b: Evaluation
    names: tuple[str, str]
    differences: dict[str, Comparison]

    def to_dict(self) -> dict[str, Any]:
        """Return what JSON can hold.

        Returns:
            The names, the differences, and both evaluations' numbers.
        """
        return {
            "names": list(self.names),
            "differences": {key: asdict(difference) for key, difference in self.differences.items()},
            "a": self.a.to_dict(),
            "b": self.b.to_dict(),
        }

    def save(self, folder: str | Path, exist_ok: bool = False) -> None:
        """Write ``comparison.json``, and each evaluation's files into the folders ``a`` and ``b``.

        Args:
            folder: Where to write; made if need be.
            exist_ok: Whether to replace files that are there.

        Raises:
            FileExistsError: If a file is there and ``exist_ok`` is False.
        """
        check_comparison_dir(folder, exist_ok)
        self.a.save(Path(folder) / "a", exist_ok)
        self.b.save(Path(folder) / "b", exist_ok)
        write_json(Path(folder) / COMPARISON_FILE, self.to_dict(), indent=2)


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
    **settings: Any,
) -> PairedEvaluation:
    """Evaluate two detectors on the same images and compare them by a paired bootstrap.

    Args:
        a: The first detector: a model as for :func:`det_ls.evaluate`, or without ``data`` COCO results.
        b: The second detector, likewise.
        data: The data set; None to compare COCO results on ``annotations``.
        annotations: COCO instances; needed without ``data``.
        names: What to call the two; by default the parts of their paths that differ, or ``a`` and ``b``.
        protocol: ``det_ls`` or ``reference``.
        bootstrap: Replicates, at least 1.
        seed: Seed of the bootstrap.
        **settings: Further arguments of :func:`det_ls.evaluate`.

    Returns:
        Both evaluations and their differences.

    Raises:
        TypeError: If neither ``data`` nor ``annotations`` is given, settings without ``data``, or an argument of the
            wrong type.
        ValueError: If ``bootstrap`` is below 1, the names are equal, or an argument of an evaluation is not valid.
    """
    check_arguments(protocol, bootstrap, seed, replicates=1)
    names = _names(a, b) if names is None else names
    _check_names(names)
    if given := [key for key in ("save_dir", "exist_ok") if key in settings]:
        raise TypeError(f"{given[0]}: expected as an argument of the comparison's save(), got it with the settings.")
    measured: dict[str, Any] = {"protocol": protocol, "bootstrap": bootstrap, "seed": seed}
    if data is not None:
        first, second = (evaluate(model, data, annotations=annotations, **measured, **settings) for model in (a, b))
    elif annotations is None:
        raise TypeError("data: expected a data set, or annotations to compare COCO results on, got neither.")
    elif settings:
        raise TypeError(f"{', '.join(settings)}: expected data=... with settings of the predictions, got none.")
    else:
        first, second = (evaluate_detections(annotations, results, **measured) for results in (a, b))
    differences = compare_tables(
        first.metrics.table, second.metrics.table, protocol=protocol, replicates=bootstrap, seed=seed
    )
    return PairedEvaluation(first, second, names, differences)


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


def _check_names(names: object) -> None:
    """Raise unless there are two different names."""
    if isinstance(names, str) or not isinstance(names, Sequence) or [type(name) for name in names] != [str, str]:
        raise TypeError(f"names: expected two names, got {names!r}.")
    if names[0] == names[1]:
        raise ValueError(f"names: expected two different names, got {names[0]!r} twice.")


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
