# SPDX-License-Identifier: AGPL-3.0-or-later
"""Trained with and without smoothing, calibrated or not: the kept boxes' numbers of several models, and one picture.

    python scripts/calibrate_arms.py stock=A/last.pt "redistribute 0.1=B/last.pt" --data data.yaml --imgsz 128

Each model is calibrated on the validation split (shared Platt), and its numbers after are cross-fitted by image.
Nothing is written but the picture.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from det_ls import calibrate
from det_ls.calibration.results import Calibration
from det_ls.report.plot_parts import diagonal, reliability_curve
from det_ls.report.plot_style import LOOKS, PAPER_WIDTH, dress, legend

KEYS = {
    "LaECE0": "LaECE0",
    "brier_iou": "squared distance from the IoU",
    "DECE": "D-ECE",
    "brier": "Brier",
    "nll": "NLL",
    "signed_gap": "score minus precision",
}
AXIS = {"tp": "Precision (IoU \N{GREATER-THAN OR EQUAL TO} 0.5)", "iou": "Mean IoU of the boxes"}


def table(results: dict[str, Calibration]) -> str:
    """Write the numbers of the kept boxes as a Markdown table.

    Args:
        results: The calibration of each model.

    Returns:
        A row a model before, and one after with the 95% interval of the difference.
    """
    rows = [
        "| trained with | | AP | " + " | ".join(KEYS.values()) + " |",
        "| --- | --- | --- | " + " | ".join("---" for _ in KEYS) + " |",
    ]
    for name, result in results.items():
        changes = [result.numbers["kept"][key] for key in KEYS]
        ap = result.pipeline["AP"]
        before = " | ".join(f"{change.before:.3f}" for change in changes)
        rows.append(f"| {name} | {result.counts['kept']} kept boxes | {ap.before:.3f} | {before} |")
        after = " | ".join(f"{c.after:.3f} ({c.difference_interval[0]:+.3f} to {c.difference_interval[1]:+.3f})"
                           if c.difference_interval else f"{c.after:.3f}" for c in changes)  # fmt: skip
        rows.append(f"| | + Platt | {ap.after:.3f} | {after} |")
    return "\n".join(rows)


def picture(results: dict[str, Calibration], target: str) -> Figure:
    """Draw the reliability of the kept boxes of all models, before and after side by side.

    Args:
        results: The calibration of each model.
        target: ``iou`` or ``tp``, what a score is compared with.

    Returns:
        The figure.
    """
    figure = Figure(figsize=(1.5 * PAPER_WIDTH, 3.9), layout="constrained")
    panels: list[Axes] = list(figure.subplots(1, 2, sharey=True))
    for place, (ax, scores) in enumerate(zip(panels, ("as trained", "calibrated (cross-fitted)"), strict=True)):
        diagonal(ax)
        for look, (name, result) in zip(LOOKS, results.items(), strict=False):
            reliability_curve(ax, result.reliability[f"{target}_kept"][place], name, look, None)
        dress(ax, f"Score, {scores}", AXIS[target] if place == 0 else "")
    legend(panels[0])
    return figure


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="+", metavar="NAME=WEIGHTS")
    parser.add_argument("--data", required=True)
    parser.add_argument("--imgsz", type=int, default=640)
    parser.add_argument("--target", choices=tuple(AXIS), default="tp")
    parser.add_argument("--picture", type=Path, help="where the picture goes, a PNG or SVG file")
    args = parser.parse_args()
    results = {}
    for model in args.models:
        name, _, weights = model.rpartition("=")
        results[name] = calibrate(
            weights, args.data, imgsz=args.imgsz, target=args.target, save=False, bootstrap=1000, workers=0
        )
    print(table(results))
    if args.picture:
        picture(results, args.target).savefig(args.picture, dpi=200)


if __name__ == "__main__":
    main()
