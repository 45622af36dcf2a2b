# SPDX-License-Identifier: AGPL-3.0-or-later
"""Checks of arguments that several functions share; each error is one sentence that names the argument."""

from __future__ import annotations


def check_integer(name: str, value: object, least: int = 0) -> None:
    """Raise unless an argument is an integer of at least a size; a bool is none.

    Args:
        name: The argument.
        value: What it came as.
        least: Smallest value.

    Raises:
        TypeError: If it is no integer.
        ValueError: If it is too small.

    Examples:
        >>> check_integer("bootstrap", -1)
        Traceback (most recent call last):
        ValueError: bootstrap: expected an integer of at least 0, got -1.
    """
    message = f"{name}: expected an integer of at least {least}, got {value!r}."
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(message)
    if value < least:
        raise ValueError(message)


def check_flag(name: str, value: object) -> None:
    """Raise unless an argument is True or False; any other word counts as true, so that ``no`` would mean yes.

    Args:
        name: The argument.
        value: What it came as.

    Raises:
        TypeError: If it is neither.

    Examples:
        >>> check_flag("exist_ok", "no")
        Traceback (most recent call last):
        TypeError: exist_ok: expected True or False, got 'no'.
    """
    if not isinstance(value, bool):
        raise TypeError(f"{name}: expected True or False, got {value!r}.")


def check_fraction(name: str, value: object) -> None:
    """Raise unless an argument is a number strictly between 0 and 1.

    Args:
        name: The argument.
        value: What it came as.

    Raises:
        TypeError: If it is no number.
        ValueError: If it is out of range.

    Examples:
        >>> check_fraction("level", 95)
        Traceback (most recent call last):
        ValueError: level: expected a number between 0 and 1, got 95.
    """
    message = f"{name}: expected a number between 0 and 1, got {value!r}."
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError(message)
    if not 0 < value < 1:
        raise ValueError(message)


def check_number(name: str, value: object, least: float, most: float) -> None:
    """Raise unless an argument is a number within bounds, both included.

    Args:
        name: The argument.
        value: What it came as.
        least: Smallest value.
        most: Largest value.

    Raises:
        TypeError: If it is no number.
        ValueError: If it is out of range.

    Examples:
        >>> check_number("conf", 1.5, 0, 1)
        Traceback (most recent call last):
        ValueError: conf: expected a number from 0 to 1, got 1.5.
    """
    message = f"{name}: expected a number from {least:g} to {most:g}, got {value!r}."
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError(message)
    if not least <= value <= most:
        raise ValueError(message)
