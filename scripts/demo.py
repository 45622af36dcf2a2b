# SPDX-License-Identifier: AGPL-3.0-or-later
"""The demo: draw the phantom, run a small study of label smoothing on it, print its decision, save pictures.

    python scripts/demo.py [epochs=8] [seeds=2] [out=runs/demo]

Two seeds, each trained with and without smoothing. A run that is there is not repeated, and one that broke off goes on;
choose another `out` for another study.
"""

from __future__ import annotations

import shlex
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from det_ls.studies.records import CellResult

CFG = Path(__file__).resolve().parents[1] / "cfg" / "demo.yaml"
EPSILONS = "0,0.1"
COLUMNS = ("AP", "AP50", "AP75", "LaECE0", "DECE", "signed_gap")


def main() -> int:
    from det_ls.cli.grammar import check_known, key_values
    from det_ls.cli.main import run
    from det_ls.cli.train import Interrupted

    def command() -> None:
        arguments = key_values(sys.argv[1:])
        check_known(arguments, ("epochs", "seeds", "out"), (), "the demo")
        try:
            demo(**arguments)
        except KeyboardInterrupt as interrupt:  # not the study's command: it would draw no predictions
            raise Interrupted(f"go on with: {shlex.join([sys.executable, *sys.argv])}") from interrupt

    return run(command)


def demo(epochs: int | None = None, seeds: object = 2, out: object = "runs/demo") -> None:
    """Run the demo.

    Args:
        epochs: Epochs of each run; cfg/demo.yaml's if None.
        seeds: How many seeds each arm is trained with, or which.
        out: The folder for data, study and pictures.

    Raises:
        OSError: If `out` cannot be written to.
        ValueError: If a value does not fit; nothing is drawn or trained then.
    """
    from det_ls.base.arguments import check_integer
    from det_ls.base.folders import check_writable
    from det_ls.cli.grammar import read_cfg
    from det_ls.cli.study import study
    from det_ls.data.phantom import write_phantom
    from det_ls.report.study_page import PICTURES_FOLDER
    from det_ls.studies import read_study
    from det_ls.studies.grid import Grid, cell_name

    folder = Path(str(out)).resolve()
    Grid.from_words({"seeds": seeds})
    if epochs is not None:
        check_integer("epochs", epochs, 1)
    check_writable("out", folder)
    data, place, picture = folder / "phantom", folder / "study", folder / "predictions.png"
    if not data.is_dir():
        write_phantom(data)
    keys = {k: v for k, v in read_cfg(str(CFG)).items() if k not in {"label_smoothing", "seed"}}
    keys |= {"data": data / "data.yaml", "label_smoothing": EPSILONS, "save_dir": place, "exist_ok": True}
    keys |= {"seeds": ",".join(map(str, seeds)) if isinstance(seeds, (list, tuple)) else seeds}
    keys |= {} if epochs is None else {"epochs": epochs}
    study([f"{key}={value}" for key, value in keys.items()])
    found = read_study(place).results
    first = [r for r in found if r.cell.seed == found[0].cell.seed and r.measured is not None]
    runs = {r.cell.arm.label_smoothing: r for r in first}
    print(f"\n{table(runs)}")
    weights = {eps: place / cell_name(r.cell) / "train" / "weights" / "best.pt" for eps, r in runs.items()}
    draw_predictions({f"label_smoothing={eps}": file for eps, file in weights.items()}, data, picture)
    print(f"\nThese runs' predictions on validation images: {picture}")
    print(f"Reliability of the kept boxes, all runs: {place / PICTURES_FOLDER / 'reliability.png'}")
    print("The phantom is synthetic and these are short runs of few seeds: that everything works is all they show.")


def table(runs: Mapping[str, CellResult]) -> str:
    """Write the numbers of runs of one seed on the validation images side by side.

    Args:
        runs: The finished runs by epsilon.

    Returns:
        The lines, a dash where a number is not defined.
    """
    seeds = ", ".join(sorted({f"seed {result.cell.seed}" for result in runs.values()}))
    rows = [[seeds, *COLUMNS]]
    for epsilon, result in runs.items():
        values = {} if result.measured is None else result.measured.val
        rows.append([f"label_smoothing={epsilon}", *(f"{values[c]:.4f}" if c in values else "-" for c in COLUMNS)])
    return "\n".join(f"{name:<20}" + "".join(f"{cell:>12}" for cell in cells) for name, *cells in rows)


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
            result = model.predict(str(file), conf=0.1, max_det=5, verbose=False)[0]
            boxes = [(int(c), float(s), *b) for *b, s, c in result.boxes.data.tolist()]
            show(axes[row, column], result.orig_img, boxes, model.names, name if column == 0 else "")
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
