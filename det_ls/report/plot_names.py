# SPDX-License-Identifier: AGPL-3.0-or-later
"""Names in any script: shortened by the room they take, and drawn with a font that has their characters.

Where no installed font has them, a file shows the number of the class in place of its name, and a page leaves the
drawing of the name to the browser.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache

from matplotlib import font_manager
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.text import Text
from matplotlib.ticker import FixedFormatter, FixedLocator

NAME_GID = "name-"  # begins the id of a text whose characters no installed font has


def display_width(text: str) -> int:
    """Count the columns that a text takes where a wide character, as those of Chinese are, takes two.

    Args:
        text: The text.

    Returns:
        The columns.

    Example:
        >>> display_width("cat"), display_width("猫")
        (3, 2)
    """
    return sum(_columns(sign) for sign in text)


def short(name: str, limit: int = 22) -> str:
    """Shorten a name to one line of limited width.

    Args:
        name: The name.
        limit: Columns to take at most, see `display_width`.

    Returns:
        The name, or its beginning and an ellipsis.

    Example:
        >>> short("a very long name indeed", 12), short("とても長い名前", 8)
        ('a very long…', 'とても…')
    """
    line = " ".join("".join(c if c.isprintable() else " " for c in name).split())
    if display_width(line) <= limit:
        return line
    kept = ""
    for sign in line:
        if display_width(kept + sign) > limit - 1:
            break
        kept += sign
    return kept.rstrip() + "…"


def draw_names(texts: Sequence[Text], names: Sequence[str], stand_ins: Iterable[str] | None = None) -> None:
    """Write names into texts, as they are and not as formulas.

    Args:
        texts: The texts.
        names: Their names, short enough to be drawn.
        stand_ins: What to show instead of a name that no installed font can draw, in letters of any font; by default
            the name with question marks for what cannot be drawn.
    """
    stand_ins = [""] * len(names) if stand_ins is None else stand_ins
    for text, name, stand_in in zip(texts, names, stand_ins, strict=True):
        text.set_parse_math(False)
        usual = text.get_fontfamily()
        extra, left = _families(frozenset(name))
        if left:
            text.set_text(stand_in or "".join("?" if sign in left else sign for sign in name))
            text.set_gid(NAME_GID + name.encode("utf-8").hex())
            continue
        text.set_text(name)
        if extra:
            text.set_fontfamily([*usual, *extra])


def draw_tick_names(axis: Axis, places: Sequence[float], names: Sequence[str], stand_ins: Sequence[str]) -> None:
    """Write names beside the ticks of an axis, as `draw_names` writes them.

    Args:
        axis: The axis.
        places: Where the ticks are.
        names: Their names, short enough to be drawn.
        stand_ins: What to show instead of names that no installed font can draw.
    """
    shown = [
        stand_in if _families(frozenset(name))[1] else name for name, stand_in in zip(names, stand_ins, strict=True)
    ]
    axis.set_major_locator(FixedLocator(list(places)))
    axis.set_major_formatter(FixedFormatter(shown))  # which writes the texts anew whenever they are drawn
    draw_names(axis.get_ticklabels(), names, stand_ins)


def names_left_to_browser(figure: Figure) -> list[str]:
    """List the names of a figure that no installed font can draw.

    Args:
        figure: The figure.

    Returns:
        The names.
    """
    return [name for text in figure.findobj(Text) if (name := _name_of(text)) is not None]


@contextmanager
def room_for_names(figure: Figure) -> Iterator[None]:
    """While this lasts, texts that stand in for a name take as much room as the name would.

    Args:
        figure: The figure.

    Yields:
        Nothing.
    """
    texts = [(text, text.get_text(), name) for text in figure.findobj(Text) if (name := _name_of(text)) is not None]
    formatters = []
    for ax in figure.axes:
        for axis in (ax.xaxis, ax.yaxis):
            formatter, names = axis.get_major_formatter(), [_name_of(text) for text in axis.get_ticklabels()]
            if isinstance(formatter, FixedFormatter) and any(name is not None for name in names):
                wide = [old if n is None else as_wide(n) for old, n in zip(formatter.seq, names, strict=True)]
                formatters.append((axis, formatter))
                axis.set_major_formatter(FixedFormatter(wide))
    try:
        for text, _, name in texts:
            text.set_text(as_wide(name))
        yield
    finally:
        for text, before, _ in texts:
            text.set_text(before)
        for axis, formatter in formatters:
            axis.set_major_formatter(formatter)


def as_wide(name: str) -> str:
    """Find letters of any font that take about as much room as a name.

    Args:
        name: The name.

    Returns:
        As many letters: ``W`` for a wide character, ``n`` for a narrow one.
    """
    return "".join(("", "n", "W")[_columns(sign)] for sign in name)


def _name_of(text: Text) -> str | None:
    """Read the name that a text stands in for, None where the text is drawn as it is."""
    gid = text.get_gid()
    return bytes.fromhex(gid[len(NAME_GID) :]).decode("utf-8") if gid and gid.startswith(NAME_GID) else None


def _columns(sign: str) -> int:
    if unicodedata.combining(sign):
        return 0
    return 2 if unicodedata.east_asian_width(sign) in "WF" else 1


@lru_cache(maxsize=4096)
def _families(signs: frozenset[str]) -> tuple[tuple[str, ...], frozenset[str]]:
    """Find installed fonts for what the usual font lacks, and what none of them has."""
    left = {ord(s) for s in signs} - _characters(font_manager.findfont(font_manager.FontProperties()))
    extra: list[str] = []
    for family, path in _fonts() if left else ():
        if more := left & _characters(path):
            extra.append(family)
            left -= more
        if not left:
            break
    return tuple(extra), frozenset(map(chr, left))


@lru_cache(maxsize=1)
def _fonts() -> tuple[tuple[str, str], ...]:
    """List the upright fonts of normal weight, those with many scripts first."""
    broad = ("CJK", "Noto Sans", "WenQuanYi", "Unifont", "Arial Unicode", "YaHei", "PingFang", "Hiragino", "Malgun")
    usable = [f for f in font_manager.fontManager.ttflist if f.style == "normal" and _weight(f.weight)]
    # Those that matplotlib brings along are for formulas, or draw a box for any character at all.
    found = {f.name: f.fname for f in usable if "mpl-data" not in f.fname and "Last Resort" not in f.name}
    return tuple(sorted(found.items(), key=lambda f: (not any(b in f[0] for b in broad), f[0])))


def _weight(weight: int | str) -> bool:
    """Whether a font is neither light nor bold."""
    return weight in ("normal", "regular", "medium") or (isinstance(weight, int) and 350 <= weight <= 500)


@lru_cache(maxsize=256)
def _characters(path: str) -> frozenset[int]:
    try:
        return frozenset(font_manager.get_font(path).get_charmap())
    except (OSError, RuntimeError):  # a broken font file has no characters
        return frozenset()
