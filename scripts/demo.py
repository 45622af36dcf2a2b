# SPDX-License-Identifier: AGPL-3.0-or-later
"""The demo: draw the phantom, train with and without label smoothing, evaluate both, print a table, save a picture.

    python scripts/demo.py [epochs=12] [out=runs/demo]

A run that is already there is not repeated, and one that broke off goes on; choose another `out` for another run.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
EPSILONS = (0.0, 0.1)
COLUMNS = ("AP", "AP50", "AP75", "LaECE0", "DECE", "signed_gap")


def main() -> int:
    from det_ls.cli.grammar import check_known, key_values
    from det_ls.cli.main import run

    def command() -> None:
        arguments = key_values(sys.argv[1:])
        check_known(arguments, ("epochs", "out"), (), "the demo")
        demo(**arguments)

    return run(command)


def demo(epochs: int | None = None, out: str = "runs/demo") -> None:
    """Run the demo.

    Args:
        epochs: Epochs for each of the two runs; cfg/demo.yaml's if None.
        out: The folder for data, runs and picture.
    """
    folder = Path(out).resolve()
    folder.mkdir(parents=True, exist_ok=True)
    os.environ["DET_LS_DATA"] = str(folder)
    from det_ls.data.phantom import write_phantom

    if not (folder / "phantom").is_dir():
        write_phantom(folder / "phantom")
    rows = {epsilon: one_run(epsilon, epochs, folder) for epsilon in EPSILONS}
    picture = folder / "predictions.png"
    draw_predictions({epsilon: weights(folder, epsilon) for epsilon in EPSILONS}, folder / "phantom", picture)
    print(table(rows))
    print(f"\nPredictions of both models on validation images: {picture}")
    print("The phantom is synthetic and this is one seed of a short run: it shows that everything works, nothing more.")


def weights(folder: Path, epsilon: float) -> Path:
    """Return the best checkpoint of a run."""
    return folder / f"eps{epsilon}" / "weights" / "best.pt"


def one_run(epsilon: float, epochs: int | None, folder: Path) -> dict[str, Any]:
    """Train (unless that was done before) and evaluate (likewise) one model."""
    from det_ls import YOLO, evaluate

    run = folder / f"eps{epsilon}"
    metrics = run / "coco" / "metrics.json"
    if metrics.is_file():
        content: dict[str, Any] = json.loads(metrics.read_text())
        return content
    last = run / "weights" / "last.pt"
    overrides: dict[str, Any] = {} if epochs is None else {"epochs": epochs}
    data = str(ROOT / "datasets" / "phantom.yaml")
    if unfinished(last):
        YOLO(last).train(resume=True)
    elif not last.is_file():
        YOLO("yolo11n.yaml").train(
            cfg=str(ROOT / "cfg" / "demo.yaml"),
            data=data,
            label_smoothing=epsilon,
            project=str(folder),
            name=run.name,
            exist_ok=True,
            **overrides,
        )
    return evaluate(
        str(weights(folder, epsilon)), data, imgsz=160, batch=8, save_dir=run / "coco", exist_ok=True
    ).to_dict()


def unfinished(last: Path) -> bool:
    """Tell whether a run broke off: a finished run's last checkpoint has no optimizer state."""
    if not last.is_file():
        return False
    from ultralytics.utils.patches import torch_load

    return torch_load(last, map_location="cpu").get("optimizer") is not None


def table(rows: dict[float, dict[str, Any]]) -> str:
    """Format the runs' numbers side by side."""
    columns = [c for c in COLUMNS if all(c in row for row in rows.values())]
    lines = ["  ".join(["label_smoothing", *(f"{c:>10}" for c in columns)])]
    for epsilon, row in rows.items():
        numbers = ("undefined" if row[c] is None else f"{row[c]:.4f}" for c in columns)
        lines.append("  ".join([f"{epsilon:>15}", *(f"{n:>10}" for n in numbers)]))
    return "\n".join(lines)


def draw_predictions(models: dict[float, Path], data: Path, picture: Path, images: int = 4) -> None:
    """Save ground truth and the predictions of each model, a row a model, side by side.

    Args:
        models: The checkpoint for each epsilon.
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
    for row, (epsilon, checkpoint) in enumerate(models.items(), start=1):
        model = YOLO(checkpoint)
        for column, file in enumerate(files):
            result = model.predict(str(file), imgsz=160, conf=0.1, max_det=5, verbose=False)[0]
            boxes = [(int(c), float(s), *b) for *b, s, c in result.boxes.data.tolist()]
            show(
                axes[row, column],
                result.orig_img,
                boxes,
                model.names,
                f"label_smoothing={epsilon}" if column == 0 else "",
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
