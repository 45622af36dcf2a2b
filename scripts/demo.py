# SPDX-License-Identifier: AGPL-3.0-or-later
"""The demo: draw the phantom, run a small study of label smoothing on it, print its decision, save pictures.

    python scripts/demo.py [epochs=12] [seeds=2] [out=runs/demo]

Two seeds, each trained with and without smoothing. A run that is there is not repeated, and one that broke off goes on;
choose another `out` for another study.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
CFG, DATA = ROOT / "cfg" / "demo.yaml", ROOT / "datasets" / "phantom.yaml"
ARMS = {"stock": "stock", "label_smoothing=0.1": "redistribute_0.1"}  # what is drawn of seed 0, and its cell's folder


def main() -> int:
    from det_ls.cli.grammar import check_known, key_values
    from det_ls.cli.main import run

    def command() -> None:
        arguments = key_values(sys.argv[1:])
        check_known(arguments, ("epochs", "seeds", "out"), (), "the demo")
        demo(**arguments)

    return run(command)


def demo(epochs: int | None = None, seeds: int = 2, out: str = "runs/demo") -> None:
    """Run the demo.

    Args:
        epochs: Epochs of each run; cfg/demo.yaml's if None.
        seeds: How many seeds each arm is trained with.
        out: The folder for data, study and pictures.
    """
    folder = Path(out).resolve()
    folder.mkdir(parents=True, exist_ok=True)
    os.environ["DET_LS_DATA"] = str(folder)
    from det_ls.cli.grammar import read_cfg
    from det_ls.cli.study import study
    from det_ls.data.phantom import write_phantom

    if not (folder / "phantom").is_dir():
        write_phantom(folder / "phantom")
    keys = {k: v for k, v in read_cfg(str(CFG)).items() if k not in {"label_smoothing", "seed"}}
    keys |= {"data": DATA, "label_smoothing": "0,0.1", "seeds": seeds, "save_dir": folder / "study", "exist_ok": True}
    keys |= {} if epochs is None else {"epochs": epochs}
    study([f"{key}={value}" for key, value in keys.items()])
    picture = folder / "predictions.png"
    cells = folder / "study" / "seed0"
    weights = {name: cells / cell / "train" / "weights" / "best.pt" for name, cell in ARMS.items()}
    if all(file.is_file() for file in weights.values()):
        draw_predictions(weights, folder / "phantom", picture)
        print(f"Predictions of the models of seed 0 on validation images: {picture}")
    print(f"The study's pictures, reliability of the kept boxes among them: {folder / 'study' / 'pictures'}")
    print("The phantom is synthetic and these are short runs of few seeds: that everything works is all they show.")


def draw_predictions(models: dict[str, Path], data: Path, picture: Path, images: int = 4) -> None:
    """Save ground truth and the predictions of each model, a row a model, side by side.

    Args:
        models: The checkpoint of each model, by its name.
        data: The phantom's folder.
        picture: The file to write.
        images: How many validation images to show.
    """
    import cv2
    import matplotlib
    from matplotlib.figure import Figure

    from det_ls import YOLO

    matplotlib.use("Agg")
    files = [f for f in sorted((data / "images" / "val").iterdir()) if labels_of(f)][:images]
    figure = Figure(figsize=(2.6 * images, 2.9 * (len(models) + 1)), layout="constrained")
    axes = figure.subplots(len(models) + 1, images)
    names = {0: "solid", 1: "rimmed"}
    for column, file in enumerate(files):
        image: Any = cv2.imread(str(file))
        boxes = [(c, None, *xyxy(b, image.shape)) for c, *b in labels_of(file)]
        show(axes[0, column], image, boxes, names, "ground truth" if column == 0 else "")
    for row, (name, checkpoint) in enumerate(models.items(), start=1):
        model = YOLO(checkpoint)
        for column, file in enumerate(files):
            result = model.predict(str(file), imgsz=160, conf=0.1, max_det=5, verbose=False)[0]
            boxes = [(int(c), float(s), *b) for *b, s, c in result.boxes.data.tolist()]
            show(
                axes[row, column],
                result.orig_img,
                boxes,
                model.names,
                name if column == 0 else "",
            )
    figure.savefig(picture, dpi=110)


def labels_of(image: Path) -> list[tuple[float, ...]]:
    """Read the YOLO labels beside an image."""
    file = image.parents[2] / "labels" / image.parent.name / f"{image.stem}.txt"
    return [tuple(map(float, line.split())) for line in file.read_text().splitlines()] if file.is_file() else []


def xyxy(box: list[float], shape: tuple[int, ...]) -> tuple[float, float, float, float]:
    """Turn a normalised centre box into pixel corners."""
    x, y, w, h = box
    return (x - w / 2) * shape[1], (y - h / 2) * shape[0], (x + w / 2) * shape[1], (y + h / 2) * shape[0]


def show(axis: Any, image: Any, boxes: list[Any], names: dict[int, str], title: str) -> None:
    """Draw boxes on an image; colours differ in lightness too."""
    from matplotlib.patches import Rectangle

    axis.imshow(image[..., ::-1])
    axis.set_axis_off()
    axis.set_title(title, fontsize=9, loc="left")
    for label, score, x1, y1, x2, y2 in boxes:
        colour = ("#56B4E9", "#E69F00")[int(label) % 2]
        axis.add_patch(Rectangle((x1, y1), x2 - x1, y2 - y1, fill=False, edgecolor=colour, linewidth=1.5))
        text = names[int(label)] + ("" if score is None else f" {score:.2f}")
        axis.text(x1, y1 - 2, text, color=colour, fontsize=7, va="bottom")


if __name__ == "__main__":
    sys.exit(main())
