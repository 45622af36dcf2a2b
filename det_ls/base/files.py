# SPDX-License-Identifier: AGPL-3.0-or-later
"""Files that appear complete or not at all."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

PARTIAL = ".partial"


def write_json(path: Path, content: object, indent: int | None = None) -> None:
    """Write JSON that appears complete or not at all.

    Args:
        path: The file, in a folder that exists.
        content: What JSON can hold.
        indent: Spaces a level; None for one line.
    """
    text = json.dumps(content, indent=indent, allow_nan=False, ensure_ascii=False)
    write_atomically(path, text.encode("utf-8", "backslashreplace"))  # half a surrogate pair, as JSON escapes it


def write_atomically(path: Path, content: bytes, durable: bool = False) -> None:
    """Write a file that appears complete or not at all.

    A link at the file's place is replaced, not followed.

    Args:
        path: The file, in a folder that exists.
        content: What it shall hold.
        durable: Whether it shall outlast a crash of the machine too, at the price of waiting for the disk.

    Raises:
        OSError: If there is no room or no permission; then the file is as it was.
    """
    partial = partial_of(path)
    try:
        partial.unlink(missing_ok=True)
        with open(partial, "xb") as file:  # exclusive: never through a link that somebody put there
            file.write(content)
        if durable:
            move_durably(partial, path)
        else:
            os.replace(partial, path)
    finally:
        with suppress(OSError):
            partial.unlink(missing_ok=True)


def sha256_of(path: str | Path) -> str:
    """Return the SHA-256 of a file.

    Args:
        path: The file, which is read piece by piece.

    Returns:
        64 hexadecimal digits.
    """
    digest = hashlib.sha256()
    with Path(path).open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def partial_of(path: Path) -> Path:
    """Return where a file is written before it is moved into place.

    Args:
        path: The file.

    Returns:
        A hidden file in the same folder; a process that is killed may leave it behind.
    """
    return path.with_name(f".{path.name}.{os.getpid()}{PARTIAL}")


def remove_partial(folder: Path) -> None:
    """Remove what killed processes left half-written in a folder.

    Args:
        folder: A folder that no other process writes to.
    """
    for file in folder.glob(f".*{PARTIAL}"):
        if file.is_dir():
            shutil.rmtree(file, ignore_errors=True)
        else:
            file.unlink(missing_ok=True)


def move_durably(partial: Path, path: Path) -> None:
    """Move a complete file into place once it is on the disk.

    Args:
        partial: The file, in the folder of ``path``.
        path: Where it belongs.

    Raises:
        OSError: If there is no room; then nothing is moved.
    """
    with open(partial, "rb+") as file:
        os.fsync(file.fileno())
    os.replace(partial, path)
    with suppress(OSError):  # folders cannot be opened on Windows
        handle = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


@contextmanager
def working_directory(path: str | Path | None) -> Iterator[None]:
    """Work in another folder, so that relative paths start there; a folder that is not there changes nothing.

    The working directory is the whole process's: do not use it in several threads at once.

    Args:
        path: The folder; None for the one that is.
    """
    before = Path.cwd()
    if path is not None and Path(path).is_dir():
        os.chdir(path)
    try:
        yield
    finally:
        os.chdir(before)
