# SPDX-License-Identifier: AGPL-3.0-or-later
"""Turns false positives and missed objects into the pictures that the templates of a report show."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from det_ls.report.crops import SIDE, Case, cut, read_image
from det_ls.report.thumbnails import whole_row

Row = dict[str, Any]


class Cropper:
    """Turns cases into what the template shows, reading an image once for cases that follow each other.

    Args:
        images: Image file by image id; None for cases without pictures.
    """

    def __init__(self, images: Mapping[Any, str | Path] | None) -> None:
        self._images = images
        self._last: tuple[Any, NDArray[np.uint8] | None] = (None, None)

    def __call__(self, case: Case) -> Row:
        """Cut a case out.

        Args:
            case: The case.

        Returns:
            What the template shows: without ``src`` where there is no image that can be read.
        """
        focus = case.boxes[0]
        label = case.name if case.score is None else f"{case.name} {case.score:.2f}"
        row: Row = {
            "heading": label,
            "label": label if len(label) <= 30 else f"{label[:18]}… {label[-4:]}",
            "remark": case.remark,
            "file_name": case.file_name,
            "src": "",
            "no_picture": "no image files were given",
        }
        if self._images is None:
            return row
        file = self._images.get(case.image_id)
        image = None if file is None else self._read(file)
        if image is None:
            return {**row, "no_picture": "the image file is not there or cannot be read"}
        crop = cut(image, case)
        kind = "Missed object" if case.score is None else "False positive"
        x, y, _, h = crop.boxes[0].xywh
        above = y - 7 if y > 24 else min(y + h + 18, crop.height - 6)
        return {
            **row,
            "src": "data:image/jpeg;base64," + base64.b64encode(crop.jpeg).decode("ascii"),
            "alt": f"{kind}: {label} in {case.file_name}, {case.remark}",
            "width": crop.width,
            "height": crop.height,
            "share_x": round(100 * crop.width / max(crop.width, crop.height), 2),
            "share_y": round(100 * crop.height / max(crop.width, crop.height), 2),
            "boxes": [
                {
                    "kind": box.kind,
                    "focus": box.focus,
                    "turn": box.turn,
                    **{k: round(v, 1) for k, v in zip("xywh", box.xywh, strict=True)},
                }
                for box in sorted(crop.boxes, key=lambda box: box.focus)
            ],
            "label_x": round(min(max(x, 6.0), max(6.0, SIDE - 8.5 * len(label))), 1),
            "label_y": round(above, 1),
            "focus": focus.kind,
            "whole": whole_row(image, case),
        }

    def _read(self, file: str | Path) -> NDArray[np.uint8] | None:
        if self._last[0] != file:
            self._last = (file, read_image(file))
        return self._last[1]


def crop_rows(cases: Sequence[Case], cropper: Cropper) -> tuple[list[Row], str]:
    """Cut cases out.

    Args:
        cases: The cases.
        cropper: What cuts them out.

    Returns:
        The pictures; or, where there is not one of them, nothing, and why in a sentence.
    """
    rows = [cropper(case) for case in cases]
    if not rows or any(row["src"] for row in rows):
        return rows, ""
    reasons = list(dict.fromkeys(row["no_picture"] for row in rows))
    return [], f"There would be {len(rows)} to show, but {reasons[0]}."
