# SPDX-License-Identifier: AGPL-3.0-or-later
"""The folder that a study's relative paths start from, so that it is gone on with, and read, from anywhere.

The words of a study stay as they were typed: they are part of what a cell's hash is made of. Beside them ``study.json``
notes where they were typed, as seen from the study's folder where that lies within: such a note names no machine, and
holds when both are moved together.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from det_ls.base.errors import MissingFileError
from det_ls.base.files import working_directory

Found = TypeVar("Found")


def noted_start(folder: Path) -> str:
    """Note the working directory for a study.

    Args:
        folder: The study's folder, which need not exist.

    Returns:
        The way from the study's folder up to it, such as ``../../..``; an absolute path where it lies elsewhere.
    """
    here, place = Path.cwd().resolve(), folder.resolve()
    return Path(os.path.relpath(here, place)).as_posix() if place.is_relative_to(here) else str(here)


def from_start(
    where: str | None, folder: Path, name: str, words: Mapping[str, Any], work: Callable[[], Found]
) -> tuple[Path, Found]:
    """Do what reads the files that a study names, where its relative paths start, or else here.

    Args:
        where: What :func:`noted_start` returned; None of a study that did not note it.
        folder: The study's folder.
        name: The argument that named it.
        words: The values by key that may be paths.
        work: What to do there.

    Returns:
        The folder that paths start from, and what the work returned.

    Raises:
        FileNotFoundError: If neither there nor here a file is found that is named by a relative path.
    """
    here, noted = Path.cwd(), None if where is None else Path(os.path.normpath(folder.resolve() / where))
    first: MissingFileError | None = None
    for start in dict.fromkeys([here] if noted is None or not noted.is_dir() else [noted, here]):
        try:
            with working_directory(start):
                return start, work()
        except MissingFileError as error:
            if noted == here or os.path.isabs(str(words.get(str(error).split(":")[0], ""))):
                raise
            first = first or error
    said = "it was begun, which its study.json does not say" if noted is None else f"its study.json says, '{noted}'"
    reason = str(first).rstrip(".")
    raise MissingFileError(
        f"{name}: expected to find what the study names from where {said}, or from here, got neither ({reason})."
    ) from first
