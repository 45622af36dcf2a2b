# SPDX-License-Identifier: AGPL-3.0-or-later
"""Estimate what a training on COCO takes on this machine, from a short training on images like COCO's.

    python scripts/estimate_coco.py cfg=cfg/coco.yaml device=0 [images=2048]
    python scripts/estimate_coco.py cfg=cfg/coco.yaml device=0,1,2,3 batch=512

Draws images of 640 x 480 pixels with 7 boxes of 80 classes in the mean, trains three epochs on them with the keys that
are given (loading, augmentation, AMP and logging included, validation not), and scales the time of the last two to
COCO's 118,287 images. Every key of ``det-ls train`` is taken; ``data`` and ``epochs`` only say what is estimated. The
images and the run go to a temporary folder.
"""

from __future__ import annotations

import csv
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

COCO_IMAGES, CLASSES, BOXES, EPOCHS = 118_287, 80, 7.2, 3


def draw(folder: Path, images: int, seed: int = 0) -> Path:
    """Write images with boxes in YOLO's layout.

    Args:
        folder: Where to.
        images: How many.
        seed: Which.

    Returns:
        The data YAML.
    """
    import cv2

    draws = np.random.default_rng(seed)
    for kind in ("images", "labels"):
        (folder / kind / "train").mkdir(parents=True)
    for i in range(images):
        blocks = draws.integers(0, 256, (15, 20, 3), dtype=np.uint8)
        image = cv2.resize(blocks, (640, 480), interpolation=cv2.INTER_CUBIC)
        cv2.imwrite(str(folder / "images" / "train" / f"{i:06d}.jpg"), image)
        n = int(draws.poisson(BOXES))
        size = draws.lognormal(-2, 0.8, (n, 2)).clip(0.01, 0.9)
        centre = draws.uniform(size / 2, 1 - size / 2)
        classes = draws.integers(0, CLASSES, n)
        lines = [
            f"{c} " + " ".join(f"{v:.6f}" for v in (*xy, *wh)) for c, xy, wh in zip(classes, centre, size, strict=True)
        ]
        (folder / "labels" / "train" / f"{i:06d}.txt").write_text("\n".join(lines))
    names = "\n".join(f"  {c}: class {c}" for c in range(CLASSES))
    data = folder / "data.yaml"
    data.write_text(f"path: {folder}\ntrain: images/train\nval: images/train\nnames:\n{names}\n")
    return data


def throughput(keys: Mapping[str, Any], images: int) -> tuple[float, float]:
    """Train for three epochs and time the last two.

    Args:
        keys: Training keys.
        images: How many images to train on.

    Returns:
        Images a second, and seconds that the first epoch took longer than the others (starting, warming up).
    """
    from det_ls import YOLO

    with tempfile.TemporaryDirectory() as place:
        data = draw(Path(place) / "data", images)
        ours: dict[str, Any] = {"data": str(data), "epochs": EPOCHS, "project": place, "name": "run", "exist_ok": True}
        ours |= {"val": False, "plots": False, "verbose": False}
        ours |= {"close_mosaic": 0}  # mosaic throughout, as in all but the last epochs of a long run
        model: Any = YOLO(str(keys["model"]))
        model.train(**{k: v for k, v in keys.items() if k not in {"model", "task", "mode", "cfg"}}, **ours)
        with (Path(place) / "run" / "results.csv").open(newline="") as table:
            times = [float(row["time"]) for row in csv.DictReader(table)]
    first, *rest = np.diff([0.0, *times])
    second = float(np.mean(rest))
    return images / second, float(first - second)


def estimate(words: list[str]) -> str:
    """Estimate what the training takes.

    Args:
        words: ``key=value`` words.

    Returns:
        A few lines.
    """
    from det_ls.base.errors import ArgumentError
    from det_ls.cli.grammar import key_values, read_cfg

    given = key_values(words)
    keys = {**(read_cfg(str(given.pop("cfg"))) if "cfg" in given else {}), **given}
    images = keys.pop("images", 2048)
    epochs = keys.pop("epochs", 100)
    if not isinstance(images, int) or images < 1:
        raise ArgumentError(f"images: expected a number of images above 0, got {images!r}.")
    if "model" not in keys:
        raise ArgumentError("model: expected a model YAML or checkpoint, got none.")
    keys.pop("data", None)
    speed, start = throughput(keys, images)
    hours = epochs * COCO_IMAGES / speed / 3600
    gpus = len(str(keys.get("device", "0")).split(","))
    unit = "hours" if str(keys.get("device")) == "cpu" else f"hours on {gpus} GPU{'s' * (gpus > 1)}"
    return (
        f"{keys['model']}, imgsz {keys.get('imgsz', 640)}, batch {keys.get('batch', 16)}: {speed:.1f} images/s in "
        f"training (the first epoch took {max(start, 0):.0f} s more).\n"
        f"{epochs} epochs of COCO (118,287 images): about {hours:,.0f} {unit}, validation not counted."
    )


def main() -> int:
    from det_ls.cli.main import run

    if {"-h", "--help", "help"} & set(sys.argv[1:2]) or len(sys.argv) == 1:
        print(__doc__)
        return 0
    return run(lambda: print(estimate(sys.argv[1:])))


if __name__ == "__main__":
    sys.exit(main())
