# SPDX-License-Identifier: AGPL-3.0-or-later
"""docs/paths.md and docs/robustness.md name tests that exist."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

TESTS = Path(__file__).parent


@pytest.mark.parametrize(("name", "least"), [("paths.md", 30), ("robustness.md", 15)])
def test_every_test_that_the_page_names_exists(name, least):
    page = (TESTS.parent / "docs" / name).read_text(encoding="utf-8")
    named = set(re.findall(r"`(test_\w+)`", page))
    written = set(re.findall(r"^def (test_\w+)", "\n".join(f.read_text() for f in TESTS.rglob("test_*.py")), re.M))
    assert len(named) > least
    assert named - written == set()
