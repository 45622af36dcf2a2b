# SPDX-License-Identifier: AGPL-3.0-or-later
"""The grammar of ``yolo``: words into values by key."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from det_ls.smoothing.settings import split_keys


@dataclass(frozen=True)
class Command:
    """A ``yolo`` command, parsed.

    Attributes:
        words: The words but for the label-smoothing keys and ``cfg=``, as they were given.
        arguments: Values by key; words win over the file that ``cfg=`` names.
        cfg: The content of that file, or None.
    """

    words: tuple[str, ...]
    arguments: dict[str, Any]
    cfg: dict[str, Any] | None


def parse_command(words: Sequence[str]) -> Command:
    """Parse a ``yolo`` command.

    Args:
        words: The command's words.

    Returns:
        The command.

    Raises:
        FileNotFoundError: If the file that ``cfg=`` names was not found.
        TypeError: If a label-smoothing key has no value.
    """
    from ultralytics.cfg import MODES, merge_equals_args, parse_key_value_pair
    from ultralytics.utils import YAML

    kept: list[str] = []
    arguments: dict[str, Any] = {}
    cfg: dict[str, Any] | None = None
    for word in merge_equals_args(list(words)):
        bare = word.removeprefix("--").removesuffix(",")
        key, separator, value = bare.partition("=")
        key = key.strip()
        if separator and value.strip() and key == "cfg" and value.strip().lower() != "none":
            cfg = {k: v for k, v in YAML.load(_cfg_file(value.strip())).items() if k != "cfg"}
            continue
        if separator and (value.strip() or split_keys({key: None})[0]):
            if not value.strip():
                raise TypeError(f"{word!r}: expected {key}=value.")
            arguments.update([parse_key_value_pair(f"{key}={value}")])
        elif bare in MODES:
            arguments["mode"] = bare
        elif split_keys({bare: None})[0]:
            raise TypeError(f"{word!r}: expected {bare}=value.")
        if not split_keys({key: None})[0]:
            kept.append(word)
    return Command(tuple(kept), {**(cfg or {}), **arguments}, cfg)


def arguments_of(words: Sequence[str]) -> dict[str, Any]:
    """Return what a ``yolo`` command sets, the file that ``cfg=`` names included.

    Args:
        words: The command's words.

    Returns:
        Values by key; words win over the file.

    Raises:
        FileNotFoundError: If the file was not found.
        TypeError: If a label-smoothing key has no value.
    """
    return parse_command(words).arguments


def key_values(words: Sequence[str]) -> dict[str, Any]:
    """Parse ``key=value`` words as ``yolo`` does.

    Args:
        words: The words.

    Returns:
        Values as Python literals where they are literals.

    Raises:
        TypeError: If a word has no ``=`` or no value.
    """
    from ultralytics.cfg import merge_equals_args, parse_key_value_pair

    arguments: dict[str, Any] = {}
    for word in merge_equals_args(list(words)):
        key, separator, value = word.removeprefix("--").removesuffix(",").partition("=")
        if not separator or not value.strip():
            raise TypeError(f"{word!r}: expected key=value.")
        arguments.update([parse_key_value_pair(f"{key}={value}")])
    return arguments


def check_known(arguments: Mapping[str, Any], known: Iterable[str], required: Iterable[str], what: str) -> None:
    """Raise unless arguments are known and complete.

    Args:
        arguments: The arguments.
        known: The keys that are known.
        required: The keys that must be there.
        what: What takes them, for the error.

    Raises:
        TypeError: If a key is unknown or missing.
    """
    known = list(known)
    for key in arguments:
        if key not in known:
            raise TypeError(f"{key}: expected one of the keys of {what} ({', '.join(known)}), got an unknown key.")
    for key in required:
        if key not in arguments:
            raise TypeError(f"{key}: expected {key}=... for {what}, got none.")


def _cfg_file(name: str) -> str:
    """Find the file that ``cfg=`` names, as Ultralytics does."""
    from ultralytics.utils import checks

    found = checks.check_file(name, hard=False)
    if not found:
        raise FileNotFoundError(f"cfg: expected a YAML file, got {name!r}, which was not found.")
    return str(found)
