# SPDX-License-Identifier: AGPL-3.0-or-later
"""Places on the disk: whether a file is there, and a folder that one run claims, to fill it wholly or not at all."""

from __future__ import annotations

import errno
import os
import shutil
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from det_ls.base.arguments import check_flag, shown
from det_ls.base.errors import DetLsError, ExistingFileError, UnwritableError

CLAIM = ".det-ls-claim"
_NO_LOCKS = {errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP}  # file systems without locks: nothing is claimed there
_WHY = {
    errno.EROFS: "which is on a read-only file system",
    errno.ENOSPC: "where the disk is full",
    errno.EDQUOT: "where the quota is used up",
    errno.ENOTDIR: "a part of which is a file",
    errno.ENAMETOOLONG: "which is too long a name",
    errno.EACCES: "where this user may not write",
    errno.EPERM: "where this user may not write",
    errno.ELOOP: "whose links lead in a circle",
}


def is_file(path: str | Path) -> bool:
    """Tell whether there is a file; a name that no file can have is none.

    Args:
        path: The path.

    Returns:
        False too where a name is too long or holds a null character, for which Python raises.
    """
    try:
        return Path(path).is_file()
    except (OSError, ValueError):
        return False


@contextmanager
def one_sentence(name: str, path: str | Path) -> Iterator[None]:
    """Turn what the operating system says about a place into one sentence.

    Args:
        name: The argument that named it.
        path: The place.

    Raises:
        OSError: :class:`det_ls.base.errors.UnwritableError` for any error of writing there.
    """
    try:
        yield
    except DetLsError:
        raise
    except OSError as error:
        why = _WHY.get(error.errno or 0, f"where it failed ({error.strerror or error})")
        raise UnwritableError(
            f"{name}: expected a folder that can be written to, got {shown(str(path), 200)}, {why}."
        ) from error
    except ValueError as error:  # a null character
        raise UnwritableError(f"{name}: expected the name of a folder, got {shown(str(path), 200)}.") from error


def check_free(folder: str | Path, results: Sequence[str], exist_ok: bool = False, name: str = "save_dir") -> None:
    """Raise if a folder holds a result that may not be replaced, or is none.

    Args:
        folder: The folder, which need not exist.
        results: Files, relative to it, whose presence means a result.
        exist_ok: Whether they may be replaced.
        name: The argument that named it.

    Raises:
        FileExistsError: If they may not and there are any, or the folder is a file.
    """
    path = Path(folder)
    if path.exists() and not path.is_dir():
        raise ExistingFileError(f"{name}: expected a folder, got '{path}', which is a file.")
    there = [part for part in results if (path / part).exists()]
    if there and not exist_ok:
        more = f" and {len(there) - 3} more" if len(there) > 3 else ""
        shown_parts = ", ".join(map(repr, there[:3])) + more
        raise ExistingFileError(
            f"{name}: expected a folder without results unless exist_ok, got {shown_parts} in '{path}'."
        )


def check_writable(name: str, folder: Path) -> None:
    """Raise before any work unless a folder can be written to; it is made if need be.

    Args:
        name: The argument that named it, for errors.
        folder: The folder.

    Raises:
        OSError: If it cannot be written to; the error is one sentence.
    """
    with one_sentence(name, folder):
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass


@contextmanager
def claim_folder(
    folder: str | Path, name: str = "save_dir", *, results: Sequence[str] = (), exist_ok: bool = False
) -> Iterator[Path]:
    """Claim a folder for one run before the work, and fill it when the work is done: with the whole result or none.

    On entry the folder is made, tried by writing, and claimed by a file that only one process can lock, so two runs
    never share one. What is written goes to the place that is yielded, beside the folder's files; on success it is
    moved over them. After an error, Ctrl-C included, the folder is as it was before, and gone if it was not there.

    Args:
        folder: The folder; made if need be, parents included.
        name: The argument that named it, for errors.
        results: Files, relative to it, that the run may write and whose presence means a result.
        exist_ok: Whether a result that is there may be replaced: all of ``results``, also where the new one has no
            such file. Other files stay.

    Yields:
        The place to write to.

    Raises:
        FileExistsError: If there is a result and ``exist_ok`` is False, if another run is at work there, or if the
            folder is a file.
        OSError: If it cannot be written to; the error is one sentence.
    """
    check_flag("exist_ok", exist_ok)
    target = Path(folder)
    with one_sentence(name, target):
        check_free(target, results, exist_ok, name)
        made = _make(target)
        try:
            handle = _claim(target, name)
        except OSError:
            _remove(made)
            raise
    done = False
    place = Path()
    try:
        with one_sentence(name, target):
            place = Path(tempfile.mkdtemp(prefix=".", suffix=".partial", dir=target))
            (place / "test").write_bytes(b"\0" * 4096)
            (place / "test").unlink()
        yield place
        with one_sentence(name, target):
            _move(place, target, results)
        done = True
    finally:
        if place != Path():
            shutil.rmtree(place, ignore_errors=True)
        _let_go(target, handle)
        if not done:
            _remove(made)


@contextmanager
def held_folder(folder: str | Path, name: str = "save_dir", *, patience: float = 0.0) -> Iterator[Path]:
    """Hold a folder that one process at a time works in, bit by bit; a process that is killed does not hold it.

    Args:
        folder: A folder that exists.
        name: The argument that named it, for errors.
        patience: Seconds to wait for another process to let it go.

    Yields:
        The folder.

    Raises:
        FileExistsError: If another process holds it.
        OSError: If it cannot be written to; the error is one sentence.
    """
    target = Path(folder)
    end = time.monotonic() + patience
    with one_sentence(name, target):
        while True:
            try:
                handle = _claim(target, name)
                break
            except ExistingFileError:
                if time.monotonic() >= end:
                    raise
                time.sleep(0.2)
    try:
        yield target
    finally:
        _let_go(target, handle)


def _make(folder: Path) -> list[Path]:
    """Make a folder and its parents, and return those that were not there, innermost first."""
    missing = []
    for part in (folder, *folder.parents):
        if part.exists():
            break
        missing.append(part)
    made: list[Path] = []
    try:
        for part in reversed(missing):
            part.mkdir(exist_ok=True)
            made.insert(0, part)
    except OSError:
        _remove(made)
        raise
    return made


def _claim(folder: Path, name: str) -> int:
    """Open the file that only one process can hold, and return its handle; the system lets go of it at a process's end.

    A process's number would not do: after a kill another process may bear it, and on another machine it says nothing.
    """
    file = folder / CLAIM
    while True:
        handle = _held(file)
        if handle is None:
            raise ExistingFileError(
                f"{name}: expected a folder of its own, got {str(folder)!r}, where another run is at work."
            )
        with suppress(OSError):
            if os.path.samestat(os.fstat(handle), os.stat(file)):
                return handle
        os.close(handle)  # whoever held it has just removed the file


def _held(file: Path) -> int | None:
    """Open a file and lock it; None where another holds it."""
    if os.name == "nt":  # a file that is gone with its handle, whatever ends the process
        with suppress(FileExistsError, PermissionError):
            return os.open(file, os.O_CREAT | os.O_EXCL | os.O_RDWR | getattr(os, "O_TEMPORARY", 0))
        return None
    import fcntl

    handle = os.open(file, os.O_CREAT | os.O_RDWR, 0o644)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in _NO_LOCKS:
            return handle
        os.close(handle)
        if error.errno in (errno.EWOULDBLOCK, errno.EACCES):
            return None
        raise
    return handle


def _let_go(folder: Path, handle: int) -> None:
    """Remove the file of a claim while it is held, then let go of it."""
    with suppress(OSError):
        (folder / CLAIM).unlink()
    with suppress(OSError):
        os.close(handle)


def _move(place: Path, target: Path, results: Sequence[str]) -> None:
    """Replace the old result by the new one, file by file, and put it back if that fails midway."""
    new = sorted(path.relative_to(place) for path in place.rglob("*") if not path.is_dir())
    old = [part for part in dict.fromkeys([*map(Path, results), *new]) if os.path.lexists(target / part)]
    store = Path(tempfile.mkdtemp(prefix=".", suffix=".old", dir=target))
    done: list[tuple[Path, Path]] = []
    try:
        for source, goal in [*((target / p, store / p) for p in old), *((place / p, target / p) for p in new)]:
            goal.parent.mkdir(parents=True, exist_ok=True)
            os.replace(source, goal)
            done.append((source, goal))
    except BaseException:  # Ctrl-C too: the old result is put back, and whatever happened goes on its way
        for source, goal in reversed(done):
            os.replace(goal, source)
        shutil.rmtree(store, ignore_errors=True)  # empty folders
        raise
    shutil.rmtree(store, ignore_errors=True)


def _remove(folders: Sequence[Path]) -> None:
    """Remove folders that are empty, innermost first."""
    for folder in folders:
        with suppress(OSError):
            folder.rmdir()
