# SPDX-License-Identifier: AGPL-3.0-or-later
"""How every picture looks and how it is saved: one palette, one paper width, no state of pyplot.

Colours are those of Okabe and Ito (2008), which people with a colour vision deficiency can tell apart. Nothing rests on
colour alone: lines also differ in dashes and markers.
"""

from __future__ import annotations

import io
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import matplotlib
from markupsafe import escape
from matplotlib.axes import Axes
from matplotlib.figure import Figure, SubFigure
from matplotlib.font_manager import FontProperties
from matplotlib.text import Text
from matplotlib.textpath import text_to_path
from matplotlib.ticker import FixedFormatter

from det_ls.base.arguments import printable
from det_ls.base.errors import ArgumentError, ExistingFileError
from det_ls.base.files import write_atomically
from det_ls.report.plot_names import NAME_GID, as_wide, draw_names, names_left_to_browser, room_for_names, short

PAPER_WIDTH = 3.5  # inches, one column of a two-column paper
TEXT, SMALL = 8.0, 7.0  # points
MINUS = "\N{MINUS SIGN}"

# Every colour of a picture is one of these, so that a page can exchange them for its own in dark mode.
INK, MUTED, GRID, PAPER = "#1a1a1a", "#5c5c5c", "#dcdcdc", "#fefefe"
BLUE, VERMILLION, GREEN, PURPLE = "#0072b2", "#d55e00", "#009e73", "#cc79a7"
CSS_NAMES = {
    INK: "--ink",
    MUTED: "--muted",
    GRID: "--grid",
    PAPER: "--card",
    BLUE: "--blue",
    VERMILLION: "--vermillion",
    GREEN: "--green",
    PURPLE: "--purple",
}


@dataclass(frozen=True)
class Look:
    """How one curve is told from the others.

    Attributes:
        colour: Colour of line and marker.
        line: Dashes of the line, as in matplotlib.
        marker: Marker, as in matplotlib.
    """

    colour: str
    line: str | tuple[int, tuple[float, ...]]
    marker: str


LOOKS = (
    Look(BLUE, "-", "o"),
    Look(VERMILLION, (0, (4, 1.5)), "s"),
    Look(GREEN, (0, (1, 1.2)), "^"),
    Look(PURPLE, (0, (5, 1.5, 1, 1.5)), "D"),
)


def new_axes(ax: Axes | None, height: float, width: float = PAPER_WIDTH) -> Axes:
    """Take the caller's axes, or make a figure with one.

    Args:
        ax: Axes, or None.
        height: Height of a new figure, in inches.
        width: Width of a new figure, in inches.

    Returns:
        The axes.
    """
    if ax is not None:
        return ax
    return Figure(figsize=(width, height), layout="constrained").add_subplot()


def diagram_axes(axes: Sequence[Axes] | None) -> tuple[Axes, Axes]:
    """Give the axes of a diagram with counts beneath it.

    Args:
        axes: Two axes to draw on, or None for a new figure of paper width.

    Returns:
        The axes of the diagram, and those of the counts.
    """
    if axes is None:
        figure = Figure(figsize=(PAPER_WIDTH, 4.1), layout="constrained")
        axes = list(figure.subplots(2, 1, sharex=True, height_ratios=(3.4, 1)))
    upper, lower = axes
    return upper, lower


def figure_of(ax: Axes) -> Figure:
    """Find the figure that axes belong to.

    Args:
        ax: Axes of a figure or of a subfigure.

    Returns:
        The figure.
    """
    figure = ax.figure
    return figure.figure if isinstance(figure, SubFigure) else figure  # type: ignore[return-value]


def dress(ax: Axes, x: str, y: str, *, grid: str = "both") -> None:
    """Give axes their labels, and the common look.

    Args:
        ax: The axes.
        x: What the horizontal axis shows.
        y: What the vertical axis shows.
        grid: Which grid lines to draw: ``both``, ``x`` or ``y``.
    """
    ax.set_xlabel(x, fontsize=TEXT, color=INK)
    ax.set_ylabel(y, fontsize=TEXT, color=INK)
    ax.tick_params(which="both", labelsize=SMALL, colors=INK, labelcolor=INK, length=2.5, width=0.6)
    ax.spines[["top", "right"]].set_visible(False)
    for spine in ax.spines.values():
        spine.set_color(MUTED)
        spine.set_linewidth(0.6)
    ax.set_axisbelow(True)
    ax.grid(True, axis=grid, color=GRID, linewidth=0.5)  # type: ignore[arg-type]


def legend(ax: Axes) -> None:
    """Explain the curves of axes, above them, where no curve can be hidden.

    They stand in two columns if those fit the picture, and end where the axes end if they would stick out otherwise.

    Args:
        ax: The axes.
    """
    handles, labels = ax.get_legend_handles_labels()
    if not handles:
        return
    labels = [short(label, 60) for label in labels]
    widths = [_text_width(label) for label in labels]
    half = (len(labels) + 1) // 2
    # In points: the picture without its margins, and a legend with what stands before and between its columns.
    place = ax.get_subplotspec()
    room = 72 * figure_of(ax).get_figwidth() / (place.get_gridspec().ncols if place else 1) - 12
    wide = max(widths[:half]) + max(widths[half:], default=0.0) + 58
    columns = 2 if len(labels) > 1 and wide <= room else 1
    ticks = ax.yaxis.get_major_formatter()
    left = max(map(_text_width, ticks.seq), default=0.0) if isinstance(ticks, FixedFormatter) else 24.0
    begins = (wide if columns == 2 else max(widths) + 28) <= room - left
    box = ax.legend(
        handles,
        [""] * len(labels),
        loc="lower left" if begins else "lower right",
        bbox_to_anchor=(0, 1) if begins else (1, 1),
        ncols=columns,
        fontsize=SMALL,
        labelcolor=INK,
        frameon=False,
        borderpad=0.2,
        handlelength=2.2,
        handletextpad=0.5,
        columnspacing=1.2,
    )
    draw_names(box.get_texts(), labels)


def _text_width(label: str) -> float:
    """Width of a small text, in points."""
    plain = label if label.isascii() else as_wide(label)
    width, _, _ = text_to_path.get_text_width_height_descent(plain, FontProperties(size=SMALL), ismath=False)
    return float(width)


def nothing(ax: Axes, reason: str) -> None:
    """Say in an empty picture why it is empty.

    Args:
        ax: The axes.
        reason: A few words.
    """
    box = {"facecolor": PAPER, "edgecolor": "none"}
    text = ax.text(0.5, 0.5, f"Undefined: {reason}", fontsize=TEXT, color=MUTED, parse_math=False, bbox=box)
    text.set(transform=ax.transAxes, ha="center", va="center")


def save(
    figure: Figure,
    stem: str | Path,
    *,
    formats: Sequence[str] = ("png", "svg"),
    dpi: int = 300,
    exist_ok: bool = False,
) -> list[Path]:
    """Save a figure, each file complete or not at all.

    Args:
        figure: The figure.
        stem: Path without its suffix; the folder is made if need be.
        formats: ``png``, ``svg`` or ``pdf``.
        dpi: Pixels an inch of a PNG.
        exist_ok: Whether to replace files that are there.

    Returns:
        The files.

    Raises:
        FileExistsError: A file is there and ``exist_ok`` is False.
        ValueError: A format is none of the three.
    """
    if unknown := [f for f in formats if f not in ("png", "svg", "pdf")]:
        raise ArgumentError(f"formats: expected png, svg or pdf, got {unknown[0]!r}.")
    paths = [Path(f"{stem}.{suffix}") for suffix in formats]
    for path in paths:
        if path.exists() and not exist_ok:
            raise ExistingFileError(f"stem: expected new files without exist_ok, got '{path}', which exists.")
    contents = [render(figure, suffix, dpi=dpi) for suffix in formats]
    for path, content in zip(paths, contents, strict=True):
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, content)
    return paths


def render(
    figure: Figure, suffix: str, *, dpi: int = 300, transparent: bool = False, text_as_paths: bool = True
) -> bytes:
    """Draw a figure; the same figure gives the same bytes.

    Args:
        figure: The figure.
        suffix: ``png``, ``svg`` or ``pdf``.
        dpi: Pixels an inch of a PNG.
        transparent: Whether to leave out the background.
        text_as_paths: Whether an SVG holds the outlines of its letters, not text for which the reader needs the font.

    Returns:
        The content of a file.
    """
    for text in figure.findobj(Text):
        text.set_text("\n".join(map(printable, text.get_text().split("\n"))))
    buffer = io.BytesIO()
    dateless = {"svg": dict.fromkeys(("Date", "Creator", "Format", "Type")), "pdf": {"CreationDate": None}}
    with matplotlib.rc_context({"svg.fonttype": "path" if text_as_paths else "none", "svg.hashsalt": "det-ls"}):
        figure.savefig(buffer, format=suffix, dpi=dpi, transparent=transparent, metadata=dateless.get(suffix))
    return buffer.getvalue()


def inline_svg(figure: Figure, name: str, description: str) -> str:
    """Draw a figure as an SVG element for an HTML page, coloured by the page's CSS variables.

    Args:
        figure: The figure.
        name: Prefix that keeps the element's ids apart from those of the page's other figures.
        description: What the picture shows, for those who cannot see it.

    Returns:
        The element. Its colours are the variables of `CSS_NAMES`.
    """
    text = _svg_text(figure)
    text = text[text.index("<svg") :]
    for colour, variable in CSS_NAMES.items():
        text = text.replace(colour, f"var({variable})")
    text = re.sub(r'\bid="', f'id="{name}-', text)
    text = re.sub(r'xlink:href="#', f'href="#{name}-', text)
    text = text.replace("url(#", f"url(#{name}-")
    text = re.sub(r"<!--.*?-->\n?", "", text, flags=re.DOTALL)
    size = re.search(r'viewBox="([^"]*)"', text)
    assert size is not None, "matplotlib writes a viewBox"
    width = float(size[1].split()[2])
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="{size[1]}" role="img" aria-label="{escape(description)}" '
        f'style="max-width: {2 * width:.0f}px">'
    )
    return head + text[text.index(">") + 1 :].strip()


def _svg_text(figure: Figure) -> str:
    """Draw a figure as SVG; where a name needs a font that is not installed, all text is left to the browser."""
    names = names_left_to_browser(figure)
    if not names:
        return render(figure, "svg", transparent=True).decode("utf-8")
    with room_for_names(figure):
        text = render(figure, "svg", transparent=True, text_as_paths=False).decode("utf-8")
    for name in set(names):
        place = re.escape(NAME_GID + name.encode("utf-8").hex())
        text = re.sub(
            rf'(<g id="{place}">.*?<text [^>]*>)[^<]*(</text>)',
            lambda found, name=name: f"{found[1]}{escape(name)}{found[2]}",  # type: ignore[misc]
            text,
            flags=re.DOTALL,
        )
    return text
