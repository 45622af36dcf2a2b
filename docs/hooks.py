# SPDX-License-Identifier: AGPL-3.0-or-later
"""Links from the documentation to files of the repository, which the site does not hold: their text is kept."""

from __future__ import annotations

import re
from typing import Any

OUTSIDE = re.compile(r"\[([^\]]*)\]\(\.\./[^)]*\)")


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Replace each link that leaves docs/ by its text.

    Args:
        markdown: A page.

    Returns:
        The page.
    """
    return OUTSIDE.sub(r"\1", markdown)
