# SPDX-License-Identifier: AGPL-3.0-or-later
"""The errors that det-ls raises, each one sentence for the user: ``name: expected X, got Y`` and a full stop.

Every one is also the builtin that fits, so ``except ValueError`` catches what it always did; ``except DetLsError``
catches whatever is ours, and nothing that is not.
"""

from __future__ import annotations


class DetLsError(Exception):
    """What det-ls refuses, or cannot do, with a sentence that says why."""

    def __init__(self, message: str = "") -> None:
        """Keep the sentence on one line: what a file or a user put into it is written as Python writes it.

        Args:
            message: The sentence.
        """
        super().__init__("".join(sign if sign.isprintable() else repr(sign)[1:-1] for sign in message))


class ArgumentError(DetLsError, ValueError):
    """An argument has a value that does not fit."""


class DataError(ArgumentError):
    """A file or data set holds something that does not fit."""


class ArgumentTypeError(DetLsError, TypeError):
    """An argument has the wrong type, is unknown, or is missing."""


class MissingFileError(DetLsError, FileNotFoundError):
    """A file or folder does not exist."""


class ExistingFileError(DetLsError, FileExistsError):
    """A file or folder is there and may not be replaced."""


class UnwritableError(DetLsError, OSError):
    """A file or folder cannot be written: no right, no space, no such place."""


class DownloadError(DetLsError, ConnectionError):
    """A download failed."""


class MissingPackageError(DetLsError, ImportError):
    """An optional package is not installed."""


class VersionError(DetLsError, RuntimeError):
    """A library is not of a version that det-ls knows."""


class RunError(DetLsError, RuntimeError):
    """A run cannot go on."""
