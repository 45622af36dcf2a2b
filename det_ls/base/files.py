# SPDX-License-Identifier: AGPL-3.0-or-later
"""Files that appear complete or not at all."""

from __future__ import annotations

import json
import os
from pathlib import Path


def write_json(path: Path, content: object, indent: int | None = None) -> None:
    """Write JSON that appears complete or not at all.

    Args:
        path: The file, in a folder that exists.
        content: What JSON can hold.
        indent: Spaces a level; None for one line.
    """
    text = json.dumps(content, indent=indent, allow_nan=False, ensure_ascii=False)
    write_atomically(path, text.encode("utf-8", "backslashreplace"))  # half a surrogate pair, as JSON escapes it


def write_atomically(path: Path, content: bytes) -> None:
    """Write a file that appears complete or not at all.

    Args:
        path: The file, in a folder that exists.
        content: What it shall hold.
    """
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        partial.write_bytes(content)
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)
