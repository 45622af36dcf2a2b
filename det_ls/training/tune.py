# SPDX-License-Identifier: AGPL-3.0-or-later
"""Ultralytics' tuner with the label-smoothing keys: in force in each of its runs, and searched when asked.

The tuner starts each run as a process of its own, ``yolo train``, which would drop the keys; here it starts
``det-ls train`` (:func:`det_ls.stock.patches.tuner_runs`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from det_ls.base.errors import ArgumentError
from det_ls.smoothing.request import Request
from det_ls.smoothing.settings import PREFIX, LabelSmoothing, split_keys


def searched_bounds(space: object) -> tuple[float, float] | None:
    """Return the bounds between which a search space lets the tuner search epsilon.

    Args:
        space: The value of ``space=``: a mapping from key to (lowest, highest) or (lowest, highest, gain), or None.

    Returns:
        The bounds; None if epsilon is not searched.

    Raises:
        ValueError: If they are no two numbers in order, or another label-smoothing key is to be searched.

    Examples:
        >>> searched_bounds({"lr0": (1e-5, 1e-2), "label_smoothing": (0.0, 0.2)})
        (0.0, 0.2)
    """
    if not isinstance(space, Mapping):
        return None
    searched = split_keys(space)[0]
    others = [key for key in searched if key != PREFIX]
    if others:
        raise ArgumentError(f"space: expected {PREFIX} as the only one of its keys, got {', '.join(others)}.")
    if not searched:
        return None
    bounds = searched[PREFIX]
    try:
        low, high = (float(bound) for bound in bounds[:2])
    except (TypeError, ValueError):
        low, high = 1.0, 0.0
    if not low <= high:
        raise ArgumentError(f"space: expected (lowest, highest) for {PREFIX}, got {bounds!r}.")
    return low, high


def keys_of_runs(keys: Mapping[str, Any], bounds: tuple[float, float] | None) -> dict[str, Any]:
    """Return the keys that each of the tuner's runs is started with; the tuner replaces a searched epsilon.

    Args:
        keys: The label-smoothing keys that the tuner was called with.
        bounds: What :func:`searched_bounds` returned.

    Returns:
        The keys; a searched epsilon starts from the one that was given, or else from its lower bound.

    Raises:
        TypeError: If a key is unknown or has the wrong type.
        ValueError: If a key or bound is out of range, or epsilon is both searched and given for each class.
    """
    request = Request.of_keys(keys)
    for bound in bounds or ():
        LabelSmoothing(bound)
    given: dict[str, Any] = {key: request.value(key) for key in request.given}
    if bounds is None:
        request.check_epsilon()
        return given
    if isinstance(given.get(PREFIX), (Mapping, str)):
        got = "an epsilon for each class" if isinstance(given[PREFIX], Mapping) else repr(given[PREFIX])
        raise ArgumentError(f"{PREFIX}: expected one number where space= searches it, got {got}.")
    return {PREFIX: bounds[0], **given}
