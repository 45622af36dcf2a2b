# SPDX-License-Identifier: AGPL-3.0-or-later
"""Which images belong together: slices of one patient, frames of one video.

Such images are not independent, so whatever draws images (bootstrap, folds, simulations) has to draw groups.
"""

from __future__ import annotations

import csv
import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePath, PurePosixPath

import numpy as np
from numpy.typing import NDArray

from det_ls.base.arguments import examples
from det_ls.base.errors import ArgumentTypeError, DataError, MissingFileError
from det_ls.base.types import ImageId

GroupSpec = str | PurePath | Mapping[str, str]


@dataclass(frozen=True, eq=False)
class Groups:
    """The groups of a set of I images.

    Attributes:
        image_ids: I image ids, in the order of ``codes``.
        codes: (I,) group of each image, a position in ``names``.
        names: The groups' names, sorted; each has at least one image.
    """

    image_ids: tuple[ImageId, ...]
    codes: NDArray[np.int64]
    names: tuple[str, ...]

    @property
    def n(self) -> int:
        """Number of groups."""
        return len(self.names)

    def codes_for(self, image_ids: Iterable[ImageId]) -> NDArray[np.int64]:
        """Return the groups of images in another order, such as that of a table of detections.

        Args:
            image_ids: Some or all of the images.

        Returns:
            (I,) group of each image.

        Raises:
            KeyError: If an image is not among those that were grouped.
        """
        by_id = dict(zip(self.image_ids, self.codes.tolist(), strict=True))
        return np.array([by_id[i] for i in image_ids], np.int64)


def groups_for(spec: GroupSpec, file_names: Mapping[ImageId, str | None]) -> Groups:
    r"""Group images by a CSV file or by a regular expression on their file names.

    Every image needs a group. To let images without a match be groups of their own, say so in the expression:
    ``^\d+|.+`` takes the leading number where there is one and the whole name elsewhere.

    Args:
        spec: A CSV file (a path, or a string that ends in ``.csv``) with the columns image and group: with a header
            that has these names, in any order and among others, or else the first two columns. Images are named by
            ``file_name``, by its last part or by that without suffix; rows of other images are passed over. Or a
            regular expression, searched in the last part of the file name, or in the whole if it has a slash: the
            group is what it matches, or its first parenthesis if it has one. Or a mapping from image to group.
        file_names: ``file_name`` by image id.

    Returns:
        The groups, in the order of ``file_names``.

    Raises:
        FileNotFoundError: If there is no such CSV file.
        TypeError: If ``spec`` is none of these.
        ValueError: If the file cannot be read, the expression is not valid, an image has no group or no file name, or
            an entry of the file fits several images.

    Examples:
        >>> names = {1: "train/00054_145.jpg", 2: "train/00054_164.jpg", 3: "train/00056_110.jpg"}
        >>> groups = groups_for(r"^\d+", names)
        >>> groups.codes.tolist(), groups.names
        ([0, 0, 1], ('00054', '00056'))
        >>> groups_for(r"patient(\d+)", names)
        Traceback (most recent call last):
        det_ls.base.errors.DataError: groups: expected 'patient(\\d+)' to match every image's file name, got no match in
        'train/00054_145.jpg', 'train/00054_164.jpg', 'train/00056_110.jpg'.
    """
    names: dict[ImageId, str] = {}
    for image_id, name in file_names.items():
        if not isinstance(name, str) or not name:
            raise DataError(f"groups: expected every image to have a file_name, got none for image {image_id!r}.")
        names[image_id] = name.replace("\\", "/")
    if isinstance(spec, Mapping):
        found = _by_table({str(k): str(v) for k, v in spec.items()}, names, "the mapping")
    elif isinstance(spec, PurePath) or (isinstance(spec, str) and spec.lower().endswith(".csv")):
        found = _by_table(_read_csv(Path(spec)), names, f"'{spec}'")
    elif isinstance(spec, str):
        found = _by_expression(spec, names)
    else:
        raise ArgumentTypeError(f"groups: expected a CSV file or a regular expression, got {spec!r}.")
    unique, codes = np.unique(np.array(found, dtype=np.str_), return_inverse=True)
    return Groups(tuple(names), codes.astype(np.int64).reshape(-1), tuple(unique.tolist()))


def shared_groups(a: Groups, b: Groups) -> tuple[str, ...]:
    r"""Return the groups that two splits share: a model that learnt from the one has an easy time on the other.

    Args:
        a: The groups of one split.
        b: The groups of the other.

    Returns:
        Their names, sorted.

    Examples:
        >>> train = groups_for(r"^\d+", {1: "07_1.jpg", 2: "08_1.jpg"})
        >>> val = groups_for(r"^\d+", {1: "08_2.jpg"})
        >>> shared_groups(train, val)
        ('08',)
    """
    return tuple(sorted(set(a.names) & set(b.names)))


def _by_expression(pattern: str, names: Mapping[ImageId, str]) -> list[str]:
    """Return what an expression finds in each file name."""
    try:
        expression = re.compile(pattern)
    except re.error as error:
        raise DataError(f"groups: expected a CSV file or a regular expression, got {pattern!r} ({error}).") from error
    matches = [expression.search(name if "/" in pattern else PurePosixPath(name).name) for name in names.values()]
    found = [(m.group(1) if expression.groups else m.group()) if m else None for m in matches]
    if missing := [name for name, group in zip(names.values(), found, strict=True) if not group]:
        raise DataError(
            f"groups: expected {pattern!r} to match every image's file name, got no match in {examples(missing)}."
        )
    return [str(group) for group in found]


def _by_table(table: Mapping[str, str], names: Mapping[ImageId, str], what: str) -> list[str]:
    """Look each file name up: as it is, then its last part, then without suffix; the first that is there counts."""
    forms: tuple[Callable[[str], str], ...] = (
        str,
        lambda name: str(PurePosixPath(name).with_suffix("")),
        lambda name: PurePosixPath(name).name,
        lambda name: PurePosixPath(name).stem,
    )
    used: dict[str, list[str]] = defaultdict(list)
    found, missing = [], []
    for name in names.values():
        key = next((key for form in forms if (key := form(name)) in table), None)
        if key is None:
            missing.append(name)
            continue
        used[key].append(name)
        found.append(table[key])
    if missing:
        raise DataError(f"groups: expected a group of every image in {what}, got none for {examples(missing)}.")
    if several := [key for key, images in used.items() if len(images) > 1]:
        raise DataError(
            f"groups: expected each entry of {what} to name one image, got {several[0]!r}, which fits "
            f"{examples(used[several[0]])}."
        )
    return found


def _read_csv(path: Path) -> dict[str, str]:
    """Read the group of each image; the names of a header's columns decide, else the first two columns."""
    if not path.is_file():
        raise MissingFileError(f"groups: expected a CSV file, got '{path}', which does not exist.")
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            rows = [[cell.strip() for cell in row] for row in csv.reader(file) if any(cell.strip() for cell in row)]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"groups: expected '{path}' to be a CSV file in UTF-8, got one that cannot be read.") from error
    header = [cell.lower() for cell in rows[0]] if rows else []
    image, group = 0, 1
    if "image" in header and "group" in header:
        image, group = header.index("image"), header.index("group")
        rows = rows[1:]
    table: dict[str, str] = {}
    for row in rows:
        if len(row) <= max(image, group) or not row[image] or not row[group]:
            raise DataError(f"groups: expected an image and its group in each row of '{path}', got {row!r}.")
        name = row[image].replace("\\", "/")
        if table.setdefault(name, row[group]) != row[group]:
            raise DataError(
                f"groups: expected one group an image in '{path}', got {table[name]!r} and {row[group]!r} for {name!r}."
            )
    return table
