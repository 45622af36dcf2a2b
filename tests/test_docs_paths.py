# SPDX-License-Identifier: AGPL-3.0-or-later
"""docs/paths.md names tests that exist."""

from __future__ import annotations

import re
from pathlib import Path

TESTS = Path(__file__).parent


def test_every_test_that_the_page_names_exists():
    page = (TESTS.parent / "docs" / "paths.md").read_text(encoding="utf-8")
    named = set(re.findall(r"`(test_\w+)`", page))
    written = set(re.findall(r"^def (test_\w+)", "\n".join(f.read_text() for f in TESTS.rglob("test_*.py")), re.M))
    assert len(named) > 30
    assert named - written == set()
