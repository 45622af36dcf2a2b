# SPDX-License-Identifier: AGPL-3.0-or-later
"""Filters of Ultralytics' log, as context managers.

They assume that Ultralytics logs through ``ultralytics.utils.LOGGER``, a logger of the standard library.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def quiet() -> Iterator[None]:
    """Drop Ultralytics' log lines below warnings. Raising the log level instead would hide progress bars too."""
    with _filtered(lambda record: record.levelno >= logging.WARNING):
        yield


@contextmanager
def without_lines(text: str) -> Iterator[None]:
    """Drop Ultralytics' log lines that contain a text.

    Args:
        text: The text.
    """
    with _filtered(lambda record: text not in record.getMessage()):
        yield


@contextmanager
def _filtered(keep: Callable[[logging.LogRecord], bool]) -> Iterator[None]:
    from ultralytics.utils import LOGGER

    LOGGER.addFilter(keep)
    try:
        yield
    finally:
        LOGGER.removeFilter(keep)
