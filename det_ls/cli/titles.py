# SPDX-License-Identifier: AGPL-3.0-or-later
"""What pages are called."""

from __future__ import annotations

from pathlib import Path


def name_of(path: object) -> str:
    """Name a file in a title: a checkpoint by its run.

    Args:
        path: Its path.

    Returns:
        The name.
    """
    parts = Path(str(path)).parts
    return parts[-3] if len(parts) >= 3 and parts[-2] == "weights" else Path(str(path)).stem
