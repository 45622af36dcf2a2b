# SPDX-License-Identifier: AGPL-3.0-or-later
"""Several runs an arm: find their files, and pair those of two arms by seed."""

from __future__ import annotations

import glob
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath

from det_ls.base.arguments import examples
from det_ls.base.errors import ArgumentError, ArgumentTypeError, MissingFileError
from det_ls.evaluation.training_record import run_args


@dataclass(frozen=True)
class Pairing:
    """The runs of two arms, paired.

    Attributes:
        pairs: One pair a seed, or a place in the lists.
        by: ``seed``, or ``order`` where the seeds are unknown, repeat, or differ between the arms.
        seeds: The seed of each pair; empty if paired by order.
    """

    pairs: tuple[tuple[Path, Path], ...]
    by: str
    seeds: tuple[int, ...] = ()


def expand(spec: object, what: str = "a") -> list[Path]:
    """List the files that an argument names.

    Args:
        spec: A path, a pattern such as ``runs/stock*/weights/best.pt``, or a list of these; on the command line a
            list is ``[one.pt,two.pt]``.
        what: The argument's name for error messages.

    Returns:
        The files, those of a pattern in natural order (``train2`` before ``train10``). A path without a pattern is
        not looked up: it may name an official checkpoint.

    Raises:
        FileNotFoundError: If no file fits a pattern.
        TypeError: If the argument is none of these.
        ValueError: If the list is empty, or a file is named twice.

    Examples:
        >>> [str(path) for path in expand("[one.pt, two.pt]")]
        ['one.pt', 'two.pt']
    """
    if isinstance(spec, str) and re.fullmatch(r"[\[(].*,.*[\])]", spec) and not Path(spec).exists():
        spec = [word.strip().strip("'\"") for word in spec[1:-1].split(",") if word.strip()]
    entries = list(spec) if isinstance(spec, Sequence) and not isinstance(spec, str) else [spec]
    if not entries:
        raise ArgumentError(f"{what}: expected at least one file, got an empty list.")
    files: list[Path] = []
    for entry in entries:
        if not isinstance(entry, (str, PurePath)):
            raise ArgumentTypeError(f"{what}: expected a path, a pattern or a list of these, got {entry!r}.")
        if Path(entry).exists() or not glob.has_magic(str(entry)):
            files.append(Path(entry))
            continue
        found = sorted(glob.glob(str(entry), recursive=True), key=_natural)
        if not found:
            raise MissingFileError(f"{what}: expected files that fit '{entry}', got none.")
        files += [Path(path) for path in found]
    if repeated := sorted({str(path) for path in files if files.count(path) > 1}):
        raise ArgumentError(f"{what}: expected each file once, got {examples(repeated)} repeatedly.")
    return files


def pair_by_seed(a: Sequence[Path], b: Sequence[Path]) -> Pairing:
    """Pair the runs of two arms, by the seed in their args.yaml where both arms have the same, different seeds.

    Args:
        a: The files of one arm's runs.
        b: The files of the other's.

    Returns:
        The pairs, by rising seed or in the order of the lists.

    Raises:
        ValueError: If the arms differ in their number of runs, or share a file.
    """
    if len(a) != len(b):
        raise ArgumentError(f"b: expected as many runs as a has ({len(a)}), got {len(b)}.")
    if shared := sorted({str(path) for path in a} & {str(path) for path in b}):
        raise ArgumentError(f"b: expected other files than a, got {examples(shared)} in both.")
    seeds = [[_seed(path) for path in arm] for arm in (a, b)]
    known = [[seed for seed in arm if seed is not None] for arm in seeds]
    if all(len(set(arm)) == len(a) for arm in known) and set(known[0]) == set(known[1]):
        by_seed = [dict(zip(arm, files, strict=True)) for arm, files in zip(known, (a, b), strict=True)]
        order = tuple(sorted(by_seed[0]))
        return Pairing(tuple((by_seed[0][s], by_seed[1][s]) for s in order), "seed", order)
    return Pairing(tuple(zip(a, b, strict=True)), "order")


def _seed(file: Path) -> int | None:
    """Return the seed of the run that a file belongs to."""
    seed = (run_args(file) or {}).get("seed")
    return seed if isinstance(seed, int) and not isinstance(seed, bool) else None


def _natural(path: str) -> list[tuple[int, int, str]]:
    """Order numbers in a path by their size."""
    return [(1, int(part), "") if part.isdecimal() else (0, 0, part) for part in re.split(r"(\d+)", path)]
