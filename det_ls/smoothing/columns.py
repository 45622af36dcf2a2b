# SPDX-License-Identifier: AGPL-3.0-or-later
"""Names of the columns that a run's log gives a mapping's classes, whatever the classes are called."""

from __future__ import annotations

import re
from collections.abc import Iterable

PREFIX = "label_smoothing/"


def column_names(keys: Iterable[str | int]) -> dict[str | int, str]:
    """Name a column for each key of a mapping, in results.csv and in whatever else logs a run.

    Args:
        keys: Class names, class indices or ``default``.

    Returns:
        Different names by key, of letters, digits, spaces and ``_ . - /``: what each logger that Ultralytics knows
        takes, and no spreadsheet takes for a formula.

    Examples:
        >>> for key, name in column_names(["cat", "=a,b", "+a,b", 1, "1"]).items():
        ...     print(repr(key), "is", name)
        'cat' is label_smoothing/cat
        '=a,b' is label_smoothing/_a_b
        '+a,b' is label_smoothing/_a_b 2
        1 is label_smoothing/1
        '1' is label_smoothing/1 2
    """
    names: dict[str | int, str] = {}
    for key in keys:
        plain = PREFIX + " ".join(re.sub(r"[^\w\s.\-/]", "_", str(key)).split())
        name, count = plain, 1
        while name in names.values():
            count += 1
            name = f"{plain} {count}"
        names[key] = name
    return names


def csv_cell(text: str) -> str:
    """Quote a text that a CSV file would take for several cells, such as a name that a policy made up.

    Args:
        text: A text of one line.

    Returns:
        The cell, by RFC 4180.

    Examples:
        >>> csv_cell("lr/pg0"), csv_cell("easy, hard")
        ('lr/pg0', '"easy, hard"')
    """
    return '"' + text.replace('"', '""') + '"' if any(c in text for c in ',"') else text
