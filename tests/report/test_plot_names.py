# SPDX-License-Identifier: AGPL-3.0-or-later
"""Names of any length and script are drawn without a warning, and a page shows them as they are."""

from __future__ import annotations

import re
import warnings
from xml.etree import ElementTree

import pytest
from matplotlib.figure import Figure

from det_ls.report import plot_names
from det_ls.report.plot_names import display_width, draw_names, draw_tick_names, short
from det_ls.report.plot_style import BLUE, dress, inline_svg, legend, render

CJK = "猫がとても長い<名前>"


@pytest.fixture
def _usual_font_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine without a font for Chinese and Japanese, whatever is installed on this one."""
    monkeypatch.setattr(plot_names, "_fonts", lambda: ())
    plot_names._families.cache_clear()
    yield
    plot_names._families.cache_clear()


def picture() -> Figure:
    ax = Figure(layout="constrained").add_subplot()
    ax.plot([0, 1], [0, 1], label="a 猫", color=BLUE)
    dress(ax, "x", "y")
    draw_tick_names(ax.yaxis, [0, 1], [CJK, "$dog_{"], ["class 7", "class 8"])
    legend(ax)
    return ax.figure


@pytest.mark.parametrize("limit", [4, 8, 22])
@pytest.mark.parametrize("name", ["cat", "x" * 80, "猫" * 40, "e\u0301" * 30, "two\nlines\tand more of them", ""])
def test_short_names_fit(name: str, limit: int) -> None:
    cut = short(name, limit)
    assert display_width(cut) <= limit
    assert cut.isprintable()
    if display_width(name) <= limit and name.isprintable():
        assert cut == name
    else:
        assert cut.endswith("…") or "\n" in name


@pytest.mark.usefixtures("_usual_font_only")
def test_a_file_shows_the_class_number_and_a_page_the_name() -> None:
    figure = picture()
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # of a missing glyph
        render(figure, "png", dpi=40)
        svg = inline_svg(figure, "f", "what it shows")
        render(figure, "svg")
    shown = [t.get_text() for t in figure.axes[0].get_yticklabels()]
    assert shown == ["class 7", "$dog_{"]
    assert [t.get_text() for t in figure.axes[0].get_legend().get_texts()] == ["a ?"]
    said = {"".join(e.itertext()) for e in ElementTree.fromstring(svg).iter() if e.tag.endswith("text")}
    assert {CJK, "a 猫", "$dog_{"} <= said
    assert "class 7" not in said
    assert "WWW" not in svg
    assert not re.findall(r"#[0-9a-f]{6}\b", svg)  # the page exchanges the colours of text too


@pytest.mark.usefixtures("_usual_font_only")
def test_room_is_made_for_wide_names() -> None:
    lefts = []
    for name in ("猫" * 3, "猫" * 10):
        ax = Figure(layout="constrained").add_subplot()
        draw_tick_names(ax.yaxis, [0], [name], ["class 0"])
        found = re.search(r'<g id="f-patch_2">.*?d="M ([\d.]+)', inline_svg(ax.figure, "f", "x"), re.DOTALL)
        lefts.append(float(found[1]))
    assert lefts[1] - lefts[0] > 60


def test_names_that_the_usual_font_has_stay_outlines() -> None:
    ax = Figure().add_subplot()
    draw_names([ax.title], ["Müller & Söhne $x_{"])
    assert ax.get_title() == "Müller & Söhne $x_{"
    assert "<text" not in inline_svg(ax.figure, "f", "x")


def test_an_installed_font_is_used_where_the_usual_one_lacks_a_character(monkeypatch: pytest.MonkeyPatch) -> None:
    usual = plot_names._characters
    monkeypatch.setattr(plot_names, "_fonts", lambda: (("Other", "other.ttf"), ("Serif of Cats", "cats.ttf")))
    monkeypatch.setattr(
        plot_names, "_characters", lambda path: frozenset({ord("猫")}) if path == "cats.ttf" else usual(path)
    )
    plot_names._families.cache_clear()
    ax = Figure().add_subplot()
    draw_names([ax.title], ["猫"], ["class 1"])
    plot_names._families.cache_clear()
    assert ax.get_title() == "猫"
    assert ax.title.get_fontfamily()[-1] == "Serif of Cats"
    assert ax.title.get_gid() is None


def test_boxes_that_stand_for_any_character_are_no_font() -> None:
    assert not [name for name, _ in plot_names._fonts() if "Last Resort" in name]
