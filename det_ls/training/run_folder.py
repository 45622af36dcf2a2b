# SPDX-License-Identifier: AGPL-3.0-or-later
"""What det-ls does to run folders: it adds the table's copy, and removes the folder of a run that never started."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Any

from ultralytics.cfg import get_save_dir
from ultralytics.utils import RANK, YAML

from det_ls.base.errors import ArgumentError, ExistingFileError
from det_ls.base.files import write_atomically
from det_ls.smoothing.similarity import SimilarityTable

TABLE_COPY = "label_smoothing_similarity.csv"


def copy_table(table: SimilarityTable | None, folder: Path, args: Any) -> None:
    """Put a copy of the similarity table into the run folder and make the run's args name the copy.

    Args:
        table: The table, or None.
        folder: The run folder.
        args: The trainer's ``args``, which are written to args.yaml again.
    """
    if table is None:
        return
    copy = folder / TABLE_COPY
    args.label_smoothing_similarity = str(copy)
    if RANK in {-1, 0}:
        copy.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(copy, table.text.encode("utf-8"))
        YAML.save(folder / "args.yaml", vars(args))


def check_epochs(epochs: object) -> None:
    """Raise if there is no epoch to train; what is no number is left to Ultralytics.

    Args:
        epochs: The number of epochs.

    Raises:
        ValueError: If it is below 1.
    """
    if isinstance(epochs, (int, float)) and epochs < 1:
        raise ArgumentError(f"epochs: expected at least 1, got {epochs}.")


def check_no_file(args: Any) -> None:
    """Raise if a file is where a run folder, or one above it, is about to be made.

    Args:
        args: The trainer's ``args``.

    Raises:
        FileExistsError: If there is one.
    """
    folder = Path(get_save_dir(args))
    found = next((path for path in (folder, *folder.parents) if path.exists()), None)
    if found is not None and not found.is_dir():
        raise ExistingFileError(f"project: expected a folder, got the file '{found}'.")


def new_folders(args: Any) -> list[Path]:
    """Return the folders that a run is about to make: its own first, then those above it.

    Args:
        args: The trainer's ``args``.

    Returns:
        The folders; none in a DDP worker other than the first.
    """
    folder = Path(get_save_dir(args))
    return [path for path in (folder, *folder.parents) if not path.exists()] if RANK in {-1, 0} else []


def remove_empty(folders: list[Path]) -> None:
    """Remove the run folder of a run that never started, unless it holds more than args.

    Args:
        folders: What :func:`new_folders` returned before the run.
    """
    if not folders:
        return
    (folders[0] / "args.yaml").unlink(missing_ok=True)
    with suppress(OSError):  # a folder with somebody's files stays
        (folders[0] / "weights").rmdir()
        for path in folders:
            path.rmdir()
