# SPDX-License-Identifier: AGPL-3.0-or-later
"""The grammar of ``yolo``: words into values by key."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any

import yaml

from det_ls.base.arguments import shown
from det_ls.base.errors import ArgumentError, ArgumentTypeError, DataError, MissingFileError
from det_ls.smoothing.settings import split_keys
from det_ls.stock.config import default_config
from det_ls.stock.logs import without_lines

# As in ultralytics.cfg, whose import takes seconds: help and a mistyped word should not.
MODES = ("train", "val", "predict", "export", "track", "benchmark")
TASKS = ("detect", "segment", "semantic", "depth", "classify", "pose", "obb")
# Words of `yolo` that are no mode, and whose own words are not ours to read.
SPECIAL = ("settings", "solutions", "login", "logout", "copy-cfg", "checks", "version", "cfg", "help")
BARE_FLAGS = ("half", "int8", "end2end", "nms")  # words that stock takes without a value, whatever their default


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
    kept: list[str] = []
    arguments: dict[str, Any] = {}
    cfg: dict[str, Any] | None = None
    for word in merge_words(words):
        bare = word.removeprefix("--").removesuffix(",")
        key, separator, value = bare.partition("=")
        key = key.strip()
        if separator and value.strip() and key == "cfg" and value.strip().lower() != "none":
            cfg = read_cfg(value.strip())
            continue
        if separator and (value.strip() or split_keys({key: None})[0]):
            if not value.strip():
                raise ArgumentTypeError(f"{word!r}: expected {key}=value, got no value.")
            arguments[key] = parse_value(key, value)
        elif bare in MODES:
            arguments["mode"] = bare
        elif split_keys({bare: None})[0]:
            raise ArgumentTypeError(f"{word!r}: expected {bare}=value, got no value.")
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
    arguments: dict[str, Any] = {}
    for word in merge_words(words):
        key, separator, value = word.removeprefix("--").removesuffix(",").partition("=")
        if not separator or not value.strip():
            raise ArgumentTypeError(f"{shown(word)}: expected key=value, got no value.")
        arguments[key.strip()] = parse_value(key.strip(), value)
    return arguments


def merge_words(words: Sequence[str]) -> list[str]:
    """Join words that belong together: those around a lone ``=``, and the parts of a list or mapping.

    Args:
        words: The words, as the shell split them.

    Returns:
        The words, each ``key=value`` or a word of its own.

    Raises:
        ValueError: If a bracket is not closed, or an ``=`` has no key before it.

    Examples:
        >>> merge_words(["val", "split", "=", "test", "imgsz=[64,", "32]", "label_smoothing={default:", "0.05}"])
        ['val', 'split=test', 'imgsz=[64,32]', 'label_smoothing={default: 0.05}']
    """
    if not any(word.startswith("=") or word.endswith("=") or set(word) & set("[]{}") for word in words):
        return list(words)
    from ultralytics.cfg import merge_equals_args

    joined: list[str] = []
    open_braces = 0
    for word in words:
        joined = [*joined[:-1], f"{joined[-1]} {word}"] if open_braces > 0 else [*joined, word]
        open_braces += word.count("{") - word.count("}")
    try:
        merged = list(merge_equals_args(joined))
    except (SyntaxError, IndexError):
        raise ArgumentError(
            f"words: expected closed brackets and a key before '=', got {shown(' '.join(words))}."
        ) from None
    if any(word.startswith("=") for word in merged):
        raise ArgumentError(f"words: expected a key before '=', got {shown(' '.join(words))}.")
    if len("".join(merged)) < len("".join(joined).replace("=", "")):  # older versions drop what an open bracket begins
        raise ArgumentError(f"words: expected closed brackets, got {shown(' '.join(words))}.")
    return merged


def parse_value(key: str, value: str) -> Any:
    """Read a value as ``yolo`` does; a mapping of ours may also be written as in YAML, names without quotes.

    Args:
        key: The key.
        value: The value, not empty.

    Returns:
        A Python value where it is a literal or a mapping, else the word.

    Examples:
        >>> parse_value("label_smoothing", "{default: 0.05, traffic light: 0.2}")
        {'default': 0.05, 'traffic light': 0.2}
        >>> parse_value("imgsz", "[64, 32]")
        [64, 32]
    """
    from ultralytics.cfg import parse_key_value_pair, smart_value

    parsed = parse_key_value_pair(f"{key}={value}")[1]
    if not (isinstance(parsed, str) and parsed.startswith("{") and split_keys({key: None})[0]):
        return parsed
    for text in (parsed, re.sub(r":(?=[\d.])", ": ", parsed)):  # {default:0.1} is one word to YAML
        try:
            content = yaml.load(text, yaml.BaseLoader)  # words only: a class may be called "no"
        except (yaml.YAMLError, RecursionError):
            continue
        if isinstance(content, dict) and all(isinstance(v, str) and v for v in content.values()):
            return {int(k) if k.isdecimal() else k: smart_value(v) for k, v in content.items()}
    return parsed


def find_mode(
    words: Sequence[str], modes: Collection[str], tasks: Collection[str], own: Collection[str] = ()
) -> tuple[str | None, list[str]]:
    """Find a mode of ours among words in any order.

    Args:
        words: The words.
        modes: Our modes.
        tasks: The tasks that they know; words for another task are left to Ultralytics.
        own: Modes that Ultralytics does not know: they are ours whatever the task.

    Returns:
        The mode and the other words, ``task`` and ``mode`` left out; None and the words if it is no mode of ours.

    Raises:
        ValueError: If there is another mode besides.

    Examples:
        >>> find_mode(["model=a.pt", "task=detect", "split", "=", "val", "val"], ["val"], ["detect"])
        ('val', ['model=a.pt', 'split=val'])
    """
    merged = merge_words(words)
    if not merged or (merged[0] in SPECIAL and merged[0] not in modes):
        return None, list(words)
    found: list[str] = []
    rest: list[str] = []
    known = True
    for word in merged:
        key, _, value = (part.strip() for part in word.removeprefix("--").removesuffix(",").partition("="))
        if (mode := value if key == "mode" else key if "=" not in word else "") in {*MODES, *modes}:
            found.append(mode)
        elif (task := value if key == "task" else key if "=" not in word else "") in {*TASKS, *tasks}:
            known = known and task in tasks
        else:
            rest.append(word)
    if not (known or set(found) & set(own)) or not set(found) & set(modes):
        return None, list(words)
    if len(set(found)) > 1:
        raise ArgumentError(f"mode: expected one mode, got {' and '.join(dict.fromkeys(found))}.")
    return found[0], rest


def task_word(words: Sequence[str]) -> list[str]:
    """Find the task among words in any order.

    Args:
        words: The words.

    Returns:
        ``task=...`` as one word; nothing where none is.

    Raises:
        ValueError: If two are named.

    Examples:
        >>> task_word(["obb", "val", "model=a.pt"]), task_word(["val", "task", "=", "detect"]), task_word(["val"])
        (['task=obb'], ['task=detect'], [])
    """
    found = []
    for word in merge_words(words):
        key, sign, value = (part.strip() for part in word.removeprefix("--").removesuffix(",").partition("="))
        found.append(value if key == "task" else "" if sign else key)
    tasks = [task for task in dict.fromkeys(found) if task in TASKS]
    if len(tasks) > 1:
        raise ArgumentError(f"task: expected one task, got {' and '.join(tasks)}.")
    return [f"task={task}" for task in tasks]


def check_words(words: Sequence[str], modes: Collection[str]) -> None:
    """Raise for a word or key that neither Ultralytics nor we know, and suggest the one that was meant.

    Args:
        words: The words of a command that is left to Ultralytics.
        modes: Our modes, for the suggestion.

    Raises:
        TypeError: If a word is unknown.
    """
    merged = merge_words(words)
    if not merged or merged[0].lstrip("-") in SPECIAL:
        return
    defaults = default_config()
    flags = [key for key, value in defaults.items() if isinstance(value, bool)]
    verbs = {*MODES, *TASKS, *modes, *SPECIAL}
    for word in merged:
        key, separator, value = (part.strip() for part in word.removeprefix("--").removesuffix(",").partition("="))
        if split_keys({key: None})[0]:
            continue
        if not separator and key in defaults and key not in {*flags, *BARE_FLAGS}:
            raise ArgumentTypeError(f"{shown(word)}: expected {key}=value, got no value.")
        if not separator and key not in {*verbs, *flags, *BARE_FLAGS}:
            close = suggestion(key, verbs)
            raise ArgumentTypeError(f"{shown(word)}: expected a mode, a task or key=value, got an unknown word{close}")
        if key in {"mode", "task"} and value not in (
            choices := {"mode": [*dict.fromkeys((*MODES, *modes))], "task": TASKS}[key]
        ):
            close = suggestion(value, choices)
            raise ArgumentError(f"{key}: expected one of {', '.join(choices)}, got {shown(value)}{close}")
        if separator and key not in {"mode", "task", *defaults}:
            _check_key(key, defaults)


def _check_key(key: str, defaults: Mapping[str, Any]) -> None:
    """Raise for a key that is not in Ultralytics' config, unless it is one that was, and that stock still takes."""
    from ultralytics.cfg import check_dict_alignment

    try:
        with without_lines(""):  # of the help that stock prints
            check_dict_alignment({**defaults}, {key: ""})
    except TypeError:  # a deprecated key, whose value stock looks at
        pass
    except SyntaxError:
        close = suggestion(key, [*defaults, *split_names()])
        name = key if key.isprintable() else shown(key)
        raise ArgumentTypeError(f"{name}: expected a key of det-ls or yolo, got an unknown one{close}") from None


def suggestion(word: str, known: Iterable[str]) -> str:
    """End a sentence with the known word that was meant, if one is close.

    Args:
        word: What was typed.
        known: The words there are.

    Returns:
        The end of the sentence.

    Examples:
        >>> suggestion("vall", ["train", "val"])
        "; did you mean 'val'?"
        >>> suggestion("xyz", ["train", "val"])
        '.'
    """
    close = get_close_matches(str(word), list(dict.fromkeys(known)), 2)
    return f"; did you mean {' or '.join(map(repr, close))}?" if close else "."


def split_names() -> list[str]:
    """Return the label-smoothing keys."""
    from dataclasses import fields

    from det_ls.smoothing.settings import LabelSmoothing

    return [field.name for field in fields(LabelSmoothing)]


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
            raise ArgumentTypeError(
                f"{key}: expected one of the keys of {what} ({', '.join(known)}), got an unknown key"
                f"{suggestion(key, known)}"
            )
    for key in required:
        if key not in arguments:
            raise ArgumentTypeError(f"{key}: expected {key}=... for {what}, got none.")


def read_cfg(name: str) -> dict[str, Any]:
    """Read the file that ``cfg=`` names, which Ultralytics' rules find.

    Args:
        name: A path, or the name of a YAML that Ultralytics ships.

    Returns:
        Its content but for the key ``cfg``.

    Raises:
        FileNotFoundError: If there is none.
        ValueError: If it is no YAML mapping.
    """
    from ultralytics.utils import YAML, checks

    try:
        found = checks.check_file(name, hard=False)
    except (OSError, ValueError):  # a name that is too long, or has a null character
        found = None
    if not found:
        raise MissingFileError(f"cfg: expected a YAML file, got {shown(name)}, which was not found.")
    try:
        return {str(key): value for key, value in YAML.load(str(found)).items() if key != "cfg"}
    except (AssertionError, AttributeError, OSError, RecursionError, ValueError):
        raise DataError(f"cfg: expected a YAML mapping in a .yaml file, got {shown(name)}, which is none.") from None
