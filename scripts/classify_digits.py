# SPDX-License-Identifier: AGPL-3.0-or-later
"""Classify scikit-learn's digits with and without label smoothing, over several seeds, and print what it changed.

    python scripts/classify_digits.py --out runs/digits --seeds 0 1 2
    python scripts/classify_digits.py --out runs/flip --seeds 0 1 2 3 4 --epsilons 0 0.1 0.3 --flip 0.2 --plain

The 1,797 digits are written as image folders, half to train and half to validate, and trained through
``det-ls train task=classify``. Accuracy, ECE and NLL are those of the last checkpoint, so that no arm chooses its epoch
on the images that it is measured on. A run that is finished is not repeated; its numbers are in ``numbers.json``.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np

from det_ls.base.files import write_json

Array = np.ndarray[Any, Any]
BINS = 15
PLAIN = ("auto_augment=None", "scale=0", "hsv_h=0", "hsv_s=0", "hsv_v=0")


def write_folders(out: Path, flip: float = 0.0, seed: int = 0) -> Path:
    """Write the digits as images of 32 x 32 pixels in a folder a class.

    Args:
        out: Where to write; what is there already is used.
        flip: Share of the training images that get the label of another class, 0 to 1.
        seed: Which images these are, and their labels.

    Returns:
        The folder with ``train`` and ``val``.
    """
    import cv2
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    folder = out / (f"digits-flip{flip:g}-seed{seed}" if flip else "digits")
    if folder.is_dir():
        return folder
    digits = load_digits()
    train, _ = train_test_split(np.arange(len(digits.target)), test_size=0.5, stratify=digits.target, random_state=0)
    labels, trained = digits.target.copy(), set(train.tolist())
    generator = np.random.default_rng(seed)
    wrong = generator.permutation(train)[: round(flip * len(train))]
    labels[wrong] = (labels[wrong] + generator.integers(1, 10, len(wrong))) % 10
    for i, (image, label) in enumerate(zip(digits.images, labels, strict=True)):
        place = folder / ("train" if i in trained else "val") / str(label)
        place.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(place / f"{i:04d}.png"), np.kron(image / 16 * 255, np.ones((4, 4))).astype(np.uint8))
    return folder


def probabilities(weights: Path, folder: Path) -> tuple[Array, Array]:
    """Predict the validation images.

    Args:
        weights: A checkpoint.
        folder: What :func:`write_folders` returned.

    Returns:
        Probabilities of shape (N, 10), and the N true classes.
    """
    from ultralytics import YOLO

    files = sorted((folder / "val").rglob("*.png"))
    model: Any = YOLO(weights)
    results: Any = model.predict([str(file) for file in files], imgsz=32, batch=64, verbose=False, stream=True)
    found = np.stack([result.probs.data.cpu().double().numpy() for result in results])
    index = {name: i for i, name in model.names.items()}
    return found, np.array([index[file.parent.name] for file in files])


def measures(probability: Array, true: Array) -> dict[str, float]:
    """Measure accuracy and calibration.

    Args:
        probability: Probabilities of shape (N, K).
        true: The N true classes.

    Returns:
        Accuracy, ECE (Guo et al. 2017: 15 bins of equal width of the largest probability, 0 to 1), the signed gap
        (mean largest probability minus accuracy: below 0 the classifier is under-confident), and NLL in nats.

    Examples:
        >>> measures(np.array([[0.8, 0.2], [0.6, 0.4]]), np.array([0, 1]))
        {'accuracy': 0.5, 'ECE': 0.4, 'signed gap': 0.2, 'NLL': 0.5697}
    """
    confidence, right = probability.max(1), probability.argmax(1) == true
    bins = np.minimum((confidence * BINS).astype(int), BINS - 1)
    gaps = [abs(float((right[bins == b] - confidence[bins == b]).sum())) for b in np.unique(bins)]
    nll = -np.log(probability[np.arange(len(true)), true].clip(1e-12)).mean()
    return {
        "accuracy": float(right.mean()),
        "ECE": round(sum(gaps) / len(true), 4),
        "signed gap": round(float(confidence.mean() - right.mean()), 4),
        "NLL": round(float(nll), 4),
    }


def train(folder: Path, out: Path, epsilon: float, seed: int, epochs: int, plain: bool = False) -> Path:
    """Train one classifier through the command line.

    Args:
        folder: What :func:`write_folders` returned.
        out: Where the run's folder goes.
        epsilon: The key ``label_smoothing``, in mode ``uniform``.
        seed: The run's seed.
        epochs: How long to train.
        plain: Whether to do without Ultralytics' augmentation, so that the classifier over-fits.

    Returns:
        The last checkpoint.
    """
    from det_ls.cli.main import main as det_ls

    name = f"epsilon{epsilon}-seed{seed}"
    words = ["train", "task=classify", "model=yolo11n-cls.yaml", f"data={folder}", "imgsz=32", f"epochs={epochs}"]
    words += [
        f"seed={seed}",
        "batch=64",
        "workers=0",
        "plots=False",
        "fliplr=0",
        "erasing=0",
        f"project={out}",
        f"name={name}",
    ]
    words += ["exist_ok=True", f"label_smoothing={epsilon}"]
    words += ["label_smoothing_mode=uniform"] * (epsilon > 0)
    words += list(PLAIN) * plain
    if det_ls(words):
        raise SystemExit(f"training of {name} failed")
    return out / name / "weights" / "last.pt"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--out", type=Path, default=Path("runs/digits"))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--epsilons", type=float, nargs="+", default=[0.0, 0.1])
    parser.add_argument("--epochs", type=int, default=15)
    parser.add_argument("--flip", type=float, default=0.0, help="share of wrong training labels")
    parser.add_argument("--plain", action="store_true", help="without augmentation, so that the classifier over-fits")
    given = parser.parse_args()
    out = given.out.resolve()
    rows = ["| epsilon | seed | accuracy | ECE | signed gap | NLL |", "| --- | --- | --- | --- | --- | --- |"]
    for seed in given.seeds:
        folder = write_folders(out, given.flip, seed)
        for epsilon in given.epsilons:
            numbers = out / f"epsilon{epsilon}-seed{seed}" / "numbers.json"
            if not numbers.is_file():
                last = train(folder, out, epsilon, seed, given.epochs, given.plain)
                write_json(numbers, measures(*probabilities(last, folder)))
            found = json.loads(numbers.read_text())
            rows.append(f"| {epsilon} | {seed} | " + " | ".join(f"{value:.4f}" for value in found.values()) + " |")
    print("\n".join(rows))
    return 0


if __name__ == "__main__":
    sys.exit(main())
