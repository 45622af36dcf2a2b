# SPDX-License-Identifier: AGPL-3.0-or-later
"""The whole image beside a crop: a thumbnail that shows where the crop is from, and fills the window when clicked.

It is one picture for both sizes, enlarged by the page's style sheet alone: see the macro ``whole`` of the templates.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from det_ls.report.crops import WHOLE_SIDE, Case, crop_window, whole


def whole_row(image: NDArray[np.uint8], case: Case, side: int = WHOLE_SIDE) -> dict[str, Any]:
    """Collect what the macro ``whole`` shows of a case.

    Args:
        image: (H, W, 3) image, BGR and upright: the one that the crop was cut from.
        case: The case.
        side: Longer side of the picture in pixels at most.

    Returns:
        The picture as a data address, its size, the window of the crop and the boxes in its pixels.
    """
    taken = whole(image, case, side)
    scale = taken.width / image.shape[1]
    focus = case.boxes[0]
    named = focus.name if focus.score is None else f"{focus.name} {focus.score:.2f}"
    return {
        "src": "data:image/jpeg;base64," + base64.b64encode(taken.jpeg).decode("ascii"),
        "alt": f"The whole of {case.file_name}, around {named}",
        "width": taken.width,
        "height": taken.height,
        "ratio": round(taken.width / taken.height, 4),
        "window": _rounded([v * scale for v in crop_window(image, case)]),
        "boxes": [
            {"kind": box.kind, "focus": box.focus, "turn": box.turn, **_rounded(box.xywh)}
            for box in sorted(taken.boxes, key=lambda box: box.focus)
        ],
    }


def _rounded(xywh: Any) -> Mapping[str, float]:
    return {k: round(float(v), 1) for k, v in zip("xywh", xywh, strict=True)}
