# SPDX-License-Identifier: AGPL-3.0-or-later
"""Names of the columns that a run's log gives a mapping's classes, whatever the classes are called."""

from __future__ import annotations

from collections.abc import Iterable

PREFIX = "label_smoothing/"  # also what keeps a name such as =1+1 from being read as a formula


def column_names(keys: Iterable[str | int]) -> dict[str | int, str]:
    r"""Name a column for each key of a mapping.

    Args:
        keys: Class names, class indices or ``default``.

    Returns:
        Different names of one line each, by key; quotes are single ones, as readers differ about doubled ones.

    Examples:
        >>> for key, name in column_names(["cat", "a\nb", "a b", 1, "1"]).items():
        ...     print(repr(key), "is", name)
        'cat' is label_smoothing/cat
        'a\nb' is label_smoothing/a b
        'a b' is label_smoothing/a b (2)
        1 is label_smoothing/1
        '1' is label_smoothing/1 (2)
    """
    names: dict[str | int, str] = {}
    for key in keys:
        plain = PREFIX + " ".join("".join(c if c.isprintable() else " " for c in str(key)).replace('"', "'").split())
        name, count = plain, 1
        while name in names.values():
            count += 1
            name = f"{plain} ({count})"
        names[key] = name
    return names


def csv_cell(text: str) -> str:
    """Quote a text that a CSV file would take for several cells.

    Args:
        text: A text of one line.

    Returns:
        The cell, by RFC 4180.

    Examples:
        >>> csv_cell("lr/pg0"), csv_cell("label_smoothing/nut, bolt")
        ('lr/pg0', '"label_smoothing/nut, bolt"')
    """
    return '"' + text.replace('"', '""') + '"' if any(c in text for c in ',"') else text
