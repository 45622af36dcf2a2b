# SPDX-License-Identifier: AGPL-3.0-or-later
"""Ultralytics' default config, read without importing Ultralytics, which takes seconds."""

from __future__ import annotations

from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import yaml

from det_ls.base.errors import VersionError


@cache
def default_config() -> dict[str, Any]:
    """Read the keys of Ultralytics' config and their defaults, as its ``DEFAULT_CFG_DICT`` has them.

    Returns:
        Defaults by key.

    Raises:
        RuntimeError: If Ultralytics keeps them elsewhere.

    Examples:
        >>> default_config()["imgsz"]
        640
    """
    found = find_spec("ultralytics")
    folders = [] if found is None else found.submodule_search_locations or []
    for folder in folders:
        file = Path(folder) / "cfg" / "default.yaml"
        if file.is_file():
            content = yaml.safe_load(file.read_text(encoding="utf-8"))
            return {str(key): value for key, value in content.items()}
    raise VersionError("ultralytics: expected a version with cfg/default.yaml, got none.")
