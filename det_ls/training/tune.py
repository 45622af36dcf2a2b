# SPDX-License-Identifier: AGPL-3.0-or-later
"""Ultralytics' tuner with the label-smoothing keys: in force in each of its runs, and searched when asked.

The tuner starts each run as a process of its own, ``yolo train``, which would drop the keys; here it starts
``det-ls train`` (:func:`det_ls.stock.patches.tuner_runs`). With Ray each run calls ``train`` of a copy of our model
(:func:`det_ls.stock.patches.ray_runs`), and any of the keys can be searched.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from det_ls.base.errors import ArgumentError, MissingPackageError
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


def keys_of_ray_runs(keys: Mapping[str, Any], space: object) -> tuple[dict[str, Any], list[Request]]:
    """Return the keys that each of Ray's runs is called with, and what the search may come to.

    Args:
        keys: The label-smoothing keys that the tuner was called with.
        space: The search space: a mapping from key to one of ``ray.tune``'s distributions, or None.

    Returns:
        The keys, the similarity table by its absolute path, because Ray's runs have folders of their own; and the
        requests at the ends of what is searched.

    Raises:
        ImportError: If Ray Tune is not installed.
        TypeError: If a key is unknown or has the wrong type.
        ValueError: If a value is out of range, or a key is both searched and given.
    """
    searched = split_keys(space)[0] if isinstance(space, Mapping) else {}
    both = [key for key in searched if keys.get(key) is not None]
    if both:
        raise ArgumentError(f"{', '.join(both)}: expected in space= or as a keyword with Ray, got both.")
    if find_spec("ray") is None:
        raise MissingPackageError("use_ray: expected Ray Tune, got none: install it with pip install 'det-ls[ray]'.")
    request = Request.of_keys(keys)
    given = {key: request.value(key) for key in request.given}
    if f"{PREFIX}_similarity" in given:
        given[f"{PREFIX}_similarity"] = str(Path(given[f"{PREFIX}_similarity"]).resolve())
    ends = {key: ends_of(domain) for key, domain in searched.items()}
    if ends.get(PREFIX) == []:  # drawn by a function: each run checks what it gets
        ends[PREFIX] = [0.0]
    first = {key: values[0] for key, values in ends.items() if values}
    requests = [Request.of_keys({**given, **first, key: value}) for key, values in ends.items() for value in values]
    requests = requests or [Request.of_keys(given)]
    if PREFIX not in searched:
        for found in requests:
            found.check_epsilon()
    return given, requests


def ends_of(domain: Any) -> list[Any]:
    """Return the ends of one of Ray's distributions, or its choices.

    Args:
        domain: A distribution of ``ray.tune``, or a plain value, which stands for itself.

    Returns:
        The values; empty where a function draws them.

    Examples:
        >>> ends_of({"grid_search": [0.0, 0.1]}), ends_of(0.2)
        ([0.0, 0.1], [0.2])
    """
    ends = [getattr(domain, name, None) for name in ("lower", "upper")]
    if all(isinstance(end, (int, float)) for end in ends):
        return ends
    if hasattr(domain, "categories"):
        return list(domain.categories)
    if isinstance(domain, Mapping) and set(domain) == {"grid_search"}:
        return list(domain["grid_search"])
    return [] if hasattr(domain, "sample") else [domain]
