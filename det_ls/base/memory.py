# SPDX-License-Identifier: AGPL-3.0-or-later
"""Make many small objects without Python's cycle collector looking through all of them again and again."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def paused_collection() -> Iterator[None]:
    """Pause the collector of reference cycles, for code that makes hundreds of thousands of objects and no cycle.

    The collector runs whenever enough new containers have piled up, and is no use to lists of plain dictionaries,
    where it takes half of the time. Objects without cycles are freed as ever. Works as a decorator too, and nested.
    """
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()
