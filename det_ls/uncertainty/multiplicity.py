# SPDX-License-Identifier: AGPL-3.0-or-later
"""Several tests at once."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import TypeVar

Key = TypeVar("Key", bound=Hashable)


def holm(p_values: Mapping[Key, float]) -> dict[Key, float]:
    """Adjust p-values so that the chance of any false claim among them stays at the level of one.

    Holm, "A simple sequentially rejective multiple test procedure", 1979; it holds however the tests depend on each
    other.

    Args:
        p_values: P-value by key, in [0, 1].

    Returns:
        Adjusted p-value by key, in the same order.

    Example:
        >>> {key: round(p, 6) for key, p in holm({"a": 0.01, "b": 0.04, "c": 0.03}).items()}
        {'a': 0.03, 'b': 0.06, 'c': 0.06}
    """
    adjusted: dict[Key, float] = {}
    highest = 0.0
    for rank, key in enumerate(sorted(p_values, key=lambda k: p_values[k])):
        highest = max(highest, min(1.0, (len(p_values) - rank) * p_values[key]))
        adjusted[key] = highest
    return {key: adjusted[key] for key in p_values}
