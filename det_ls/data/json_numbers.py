# SPDX-License-Identifier: AGPL-3.0-or-later
"""Numbers of loaded JSON, among which True is none, though Python and numpy take it for 1."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import chain
from typing import Any

import numpy as np
from numpy.typing import NDArray

from det_ls.base.arguments import examples
from det_ls.base.errors import DataError

_BOOLS = {bool, np.bool_}


def numbers(values: list[Any]) -> NDArray[np.float64] | None:
    """Return numbers, or equally long rows of them, as an array.

    Args:
        values: Anything that JSON can hold.

    Returns:
        The numbers; None if there is anything else among them, such as a boolean.

    Examples:
        >>> numbers([1, 2.5]).tolist()
        [1.0, 2.5]
        >>> numbers([[1, True]]) is None
        True
    """
    try:
        array = np.asarray(values)
    except (ValueError, OverflowError, RecursionError):  # rows of different lengths, or too many levels of them
        return None
    if not values:
        return np.zeros(0)
    if array.dtype.kind not in "iuf" or not _BOOLS.isdisjoint(_types(values)):
        return None
    return array.astype(np.float64)


def refuse_booleans(entries: Sequence[Any], keys: Sequence[str], what: str) -> None:
    """Raise if a boolean stands where an id or a number should.

    Args:
        entries: Images, annotations or detections; what is no mapping is left to other checks.
        keys: The keys to look at, each of which may be missing.
        what: The argument's name for the message.

    Raises:
        ValueError: If there is one.
    """
    mappings = [entry for entry in entries if isinstance(entry, Mapping)]
    for key in keys:
        values = [entry.get(key) for entry in mappings]
        if not _BOOLS.isdisjoint(map(type, values)):
            bad = [value for value in values if type(value) in _BOOLS]
            raise DataError(f"{what}: expected no boolean as {key}, got {examples(bad)}.")


def _types(values: list[Any]) -> set[type]:
    """Return the types of numbers, or of the numbers in rows of them."""
    kinds = set(map(type, values))
    if kinds & {list, tuple}:
        kinds = set(map(type, chain.from_iterable(v for v in values if isinstance(v, (list, tuple)))))
    return kinds
