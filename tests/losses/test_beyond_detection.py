# SPDX-License-Identifier: AGPL-3.0-or-later
"""The Transformer of docs/beyond_detection.md learns its toy translation with the smoothed loss, as printed there."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

PAGE = Path(__file__).parents[2] / "docs" / "beyond_detection.md"


def test_the_transformer_of_the_page_translates_and_is_as_sure_as_epsilon_allows() -> None:
    (code,) = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    names: dict[str, Any] = {}
    exec(compile(code, str(PAGE), "exec"), names)
    assert names["accuracy"] > 0.95
    assert 0.8 < names["confidence"] < 0.95  # 1 - epsilon, and not 1
