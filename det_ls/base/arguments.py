# SPDX-License-Identifier: AGPL-3.0-or-later
"""Checks of arguments that several functions share; each error is one sentence that names the argument."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar

from det_ls.base.errors import ArgumentError, ArgumentTypeError

_UNSHOWN = re.compile("[\x00-\x1f\x7f-\x9f\ud800-\udfff\ufdd0-\ufdef\ufffe\uffff]")
_NAMES: ContextVar[Mapping[str, str]] = ContextVar("names of arguments")


@contextmanager
def called_as(names: Mapping[str, str]) -> Iterator[None]:
    """Let errors name arguments as the user typed them, where that differs from a function's own names.

    Args:
        names: What the user calls an argument, by its name.
    """
    token = _NAMES.set(names)
    try:
        yield
    finally:
        _NAMES.reset(token)


def called(name: str) -> str:
    """Return what the user calls an argument.

    Args:
        name: The argument.

    Returns:
        Its name, or what :func:`called_as` says.

    Examples:
        >>> with called_as({"gt": "annotations"}):
        ...     called("gt"), called("data")
        ('annotations', 'data')
    """
    return _NAMES.get({}).get(name, name)


def shown(value: object, limit: int = 80) -> str:
    r"""Write a value for an error message: as Python writes it, cut where it is long, without control characters.

    Args:
        value: Any value.
        limit: The most characters.

    Returns:
        One line.

    Examples:
        >>> shown("a\x00b")
        "'a\\x00b'"
        >>> shown(10**400, 20)
        '1000000000000000 ...'
    """
    try:
        text = repr(value)
    except (ValueError, RecursionError):  # an integer beyond Python's limit of digits; a structure without end
        text = f"a very large {type(value).__name__}"
    text = text.encode("utf-8", "backslashreplace").decode("utf-8")
    return text if len(text) <= limit else text[: limit - 4] + " ..."


def printable(text: str) -> str:
    r"""Replace what no file or picture can show: control characters, halves of surrogate pairs, non-characters.

    Args:
        text: Any text, such as a class name from a JSON file.

    Returns:
        The text with U+FFFD in their places; text without any is returned as it is.

    Examples:
        >>> printable("a\x00b\ud800")
        'a\ufffdb\ufffd'
        >>> printable("né")
        'né'
    """
    return _UNSHOWN.sub("\ufffd", text)


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
        det_ls.base.errors.ArgumentError: bootstrap: expected an integer of at least 0, got -1.
    """
    message = f"{name}: expected an integer of at least {least}, got {shown(value)}."
    if isinstance(value, bool) or not isinstance(value, int):
        raise ArgumentTypeError(message)
    if value < least:
        raise ArgumentError(message)


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
        det_ls.base.errors.ArgumentTypeError: exist_ok: expected True or False, got 'no'.
    """
    if not isinstance(value, bool):
        raise ArgumentTypeError(f"{name}: expected True or False, got {shown(value)}.")


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
        det_ls.base.errors.ArgumentError: level: expected a number between 0 and 1, got 95.
    """
    message = f"{name}: expected a number between 0 and 1, got {shown(value)}."
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise ArgumentTypeError(message)
    if not 0 < value < 1:
        raise ArgumentError(message)


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
        det_ls.base.errors.ArgumentError: conf: expected a number from 0 to 1, got 1.5.
    """
    message = f"{name}: expected a number from {least:g} to {most:g}, got {shown(value)}."
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise ArgumentTypeError(message)
    if not least <= value <= most:
        raise ArgumentError(message)


def examples(items: Iterable[object], limit: int = 3) -> str:
    """Show a few of many items in an error message.

    Args:
        items: At least one item.
        limit: How many to show.

    Returns:
        The items and how many more there are.

    Examples:
        >>> examples(["a", "b", "c", "d", "e"])
        "'a', 'b', 'c' and 2 more"
        >>> examples([7])
        '7'
    """
    shown = [repr(item) for item in items]
    more = f" and {len(shown) - limit} more" if len(shown) > limit else ""
    return ", ".join(shown[:limit]) + more
