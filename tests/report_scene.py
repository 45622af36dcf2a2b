# SPDX-License-Identifier: AGPL-3.0-or-later
"""Two images in which every kind of error happens once, and a reader of pages."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from html import unescape
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

EVIL = "<script>alert('x')</script> & \"co\" $x_{<b>"
VOID = {"meta", "link", "img", "br", "input", "hr", "rect"}


class Page(HTMLParser):
    """Checks that tags are balanced, and collects what a test asks for."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.said: list[str] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open, f"</{tag}> closes nothing"
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if not {"style", "script"} & set(self.open):
            self.said.append(data)

    @property
    def text(self) -> str:
        return re.sub(r"\s+", " ", " ".join(self.said))


def scene(tmp_path: Path) -> tuple[dict[str, Any], list[dict[str, Any]], dict[int, Path]]:
    """Two images in which every kind of error happens once, with a class and a file of difficult names."""
    rng = np.random.default_rng(0)
    files = {1: tmp_path / "a <&>.png", 2: tmp_path / "b.png"}
    for file in files.values():
        cv2.imwrite(str(file), rng.integers(0, 255, (240, 320, 3), dtype=np.uint8))

    def thing(i: int, image: int, cls: int, x: float, y: float, side: float, crowd: int = 0) -> dict[str, Any]:
        return {"id": i, "image_id": image, "category_id": cls, "bbox": [x, y, side, side], "iscrowd": crowd}

    def found(image: int, cls: int, x: float, y: float, side: float, score: float) -> dict[str, Any]:
        return {"image_id": image, "category_id": cls, "bbox": [x, y, side, side], "score": score}

    gt = {
        "images": [{"id": i, "file_name": f.name, "width": 320, "height": 240} for i, f in files.items()],
        "categories": [{"id": 5, "name": EVIL}, {"id": 9, "name": "dog"}, {"id": 11, "name": "no objects"}],
        "annotations": [
            thing(1, 1, 5, 10, 10, 50),  # found
            thing(2, 1, 9, 100, 10, 80),  # missed: nothing near
            thing(3, 1, 9, 200, 100, 40),  # missed: score below the threshold
            thing(4, 2, 5, 0, 0, 60, crowd=1),
            thing(5, 2, 9, 100, 100, 60),  # found
            thing(6, 2, 5, 200, 150, 30),  # taken for a dog
        ],
    }
    detections = [
        found(1, 5, 10, 10, 50, 0.9),
        found(1, 5, 11, 10, 50, 0.88),  # second box on a found object
        found(1, 9, 0, 150, 40, 0.95),  # nothing there: the worst
        found(1, 9, 2, 151, 40, 0.85),  # the same spot again
        found(1, 9, 200, 100, 40, 0.1),
        found(2, 5, 5, 5, 20, 0.97),  # in the crowd: ignored
        found(2, 9, 100, 100, 60, 0.99),
        found(2, 9, 200, 150, 30, 0.8),
        found(2, 11, 250, 10, 20, 0.98),  # a class without objects: takes no part
        *(found(2, 9, 10 + 30 * i, 200, 20, 0.3) for i in range(6)),  # make a low threshold not pay off
    ]
    return gt, detections, files


PROBE = """<script>addEventListener("load", () => {
  const page = document.querySelector("iframe").contentDocument, images = [...page.images];
  const loaded = images.filter(image => image.naturalWidth > 0).length;
  const cut = [...page.querySelectorAll(".scroll")].filter(one => one.scrollWidth > one.clientWidth + 1)
    .map(one => one.ariaLabel);
  const ends = label => Math.max(0, ...[...page.querySelectorAll(`td[data-label="${label}"]`)]
    .map(one => one.getBoundingClientRect().right));
  const view = page.defaultView, pen = document.createElement("canvas").getContext("2d", {willReadFrequently: true});
  const rgba = colour => {
    pen.clearRect(0, 0, 1, 1); pen.fillStyle = colour; pen.fillRect(0, 0, 1, 1);
    return [...pen.getImageData(0, 0, 1, 1).data];
  };
  const light = ([r, g, b]) => [r, g, b].map(v => v / 255)
    .map(v => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)
    .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
  const behind = one => {
    for (let at = one; at; at = at.parentElement) {
      const colour = rgba(view.getComputedStyle(at).backgroundColor);
      if (colour[3] > 250) return colour;
    }
    return [255, 255, 255];
  };
  const written = [...page.body.querySelectorAll("*:not(svg *)")].filter(one => one.offsetParent
    && [...one.childNodes].some(node => node.nodeType === 3 && node.data.trim()));
  const faint = written.filter(one => {
    const [a, b] = [rgba(view.getComputedStyle(one).color), behind(one)].map(light).sort((x, y) => y - x);
    return (a + 0.05) / (b + 0.05) < 4.5;
  }).map(one => one.textContent.trim().slice(0, 60));
  const ground = light(behind(page.body));
  document.title = JSON.stringify({faint, ground, written: written.length, images: images.length, loaded, cut, wide: page.documentElement.scrollWidth,
    difference: ends("Difference"), result: ends("Result")});
});</script>"""


def seen_by_browser(page: Path, folder: Path, width: int, dark: bool = False) -> dict[str, Any]:
    """Show a page in a window of some width.

    Found are its images, tables that are cut off, how far some columns reach, the luminance of its ground, and texts
    that are ``faint``: of a contrast below the 4.5 that WCAG 2 asks for (level AA).
    """
    browser = next((b for b in ("chromium", "chromium-browser", "google-chrome") if shutil.which(b)), None)
    if browser is None:
        pytest.skip("no Chromium is installed")
    source = page.read_text(encoding="utf-8").replace("&", "&amp;").replace('"', "&quot;")
    around = folder / f"{width}.html"
    head = '<!DOCTYPE html><meta name="color-scheme" content="light dark">'
    around.write_text(f'{head}<body>{PROBE}<iframe width="{width}" height="900" srcdoc="{source}"></iframe>')
    command = [browser, "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"]
    command += ["--disable-background-networking", "--disable-component-update", "--disable-sync", "--dump-dom"]
    command += [f"--blink-settings=preferredColorScheme={0 if dark else 1}"]
    command += ["--enable-logging=stderr", f"--user-data-dir={folder / f'profile{width}'}", around.as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    assert "CONSOLE" not in done.stderr
    title = re.search(r"<title>(\{.*?\})</title>", done.stdout)
    assert title is not None
    found: dict[str, Any] = json.loads(unescape(title[1]))
    return found
