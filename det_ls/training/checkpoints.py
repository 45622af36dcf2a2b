# SPDX-License-Identifier: AGPL-3.0-or-later
"""Checkpoints and results.csv that outlast a kill and a full disk, and the repair of what a kill left behind."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from ultralytics.utils import LOGGER

from det_ls.base.errors import UnwritableError
from det_ls.base.files import remove_partial, write_atomically
from det_ls.stock.patches import checkpoints_written


def kept_whole() -> AbstractContextManager[None]:
    """Let every checkpoint that Ultralytics writes within the context appear complete or not at all.

    Returns:
        The context.
    """
    return checkpoints_written(write_checkpoint, _not_stripped)


def write_checkpoint(file: Path, content: bytes) -> None:
    """Write a checkpoint; the one before it is there until the new one is complete on the disk.

    Args:
        file: The checkpoint, ``last.pt`` for example.
        content: Its bytes.

    Raises:
        OSError: If it cannot be written; it says that the one before it is kept, and how to go on.
    """
    try:
        write_atomically(file, content, durable=True)
    except OSError as error:
        size, reason = len(content) / 1e6, error.strerror or error
        raise UnwritableError(
            f"{file}: expected to write {size:.1f} MB, got '{reason}'; {_what_is_left(file)}"
        ) from error


def unwritten_row(csv: Path, error: OSError) -> UnwritableError:
    """Say that the row of an epoch could not be written.

    Args:
        csv: The run's results.csv.
        error: What the system said.

    Returns:
        An error of one sentence.
    """
    left = _what_is_left(csv.parent / "weights" / "last.pt")
    return UnwritableError(f"{csv}: expected to write a row, got '{error.strerror or error}'; {left}")


def repair_run(folder: Path, last: Path, checkpoint: Mapping[str, Any]) -> None:
    """Undo what a kill left half done, before a run goes on.

    A kill after the epoch's row of results.csv and before its checkpoint leaves a row of an epoch that is trained
    again; one between last.pt and best.pt leaves a best.pt that is not the best. Both are put right, and half-written
    files removed.

    Args:
        folder: The run folder.
        last: The checkpoint that the run goes on from.
        checkpoint: Its content.
    """
    remove_partial(folder / "weights")
    csv = folder / "results.csv"
    if csv.is_file():
        trim_results(csv, int(checkpoint["epoch"]) + 1)
    best = folder / "weights" / "best.pt"
    metrics = checkpoint.get("train_metrics") or {}
    if "fitness" in metrics and metrics["fitness"] == checkpoint.get("best_fitness"):  # as stock writes best.pt
        content = last.read_bytes()
        if best.parent.is_dir() and not (best.is_file() and best.read_bytes() == content):
            write_checkpoint(best, content)


def trim_results(csv: Path, epochs: int) -> None:
    """Keep the header of a results.csv and the last complete row of each of the first epochs.

    Args:
        csv: The file.
        epochs: The number of epochs that the checkpoint holds.
    """
    content = csv.read_bytes()
    lines = content.splitlines(keepends=True)
    if not lines:
        csv.unlink()  # stock writes the header where there is no file
        return
    rows: dict[int, bytes] = {}
    for line in lines[1:]:
        number = line.split(b",", 1)[0].strip()
        if line.endswith(b"\n") and number.isdigit() and 1 <= int(number) <= epochs:
            rows[int(number)] = line
    wanted = b"".join([lines[0], *(rows[epoch] for epoch in sorted(rows))])
    if wanted != content:
        write_atomically(csv, wanted, durable=True)


def _what_is_left(file: Path) -> str:
    """Say which checkpoint there is, and how to go on."""
    last = file.with_name("last.pt")
    if not last.is_file():
        return "there is no checkpoint before it: make room and start again."
    kept = "the one before it is kept" if file.is_file() else "the last complete checkpoint is kept"
    return f"{kept}: make room and go on with `det-ls train resume model={last}`."


def _not_stripped(file: Path, error: Exception) -> None:
    """Say that a checkpoint of a finished run still holds its optimizer."""
    reason = getattr(error, "strerror", None) or str(error).strip().splitlines()[0]
    LOGGER.warning(f"{file}: the smaller copy without the optimizer could not be written ({reason}); it is kept whole.")
