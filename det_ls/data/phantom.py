# SPDX-License-Identifier: AGPL-3.0-or-later
"""The phantom: a small detection dataset of synthetic head scans, drawn from a seed.

It exists so that everything can be tried with nothing to download, and so that label noise can be studied against a
known truth. The images imitate a contrast-enhanced axial MR slice well enough to look like one; they model no
physics and no anatomy, and nothing measured on them says anything about medicine.

Two classes of lesions share size, place, contrast and outline, and differ in one cue: a `solid` lesion is evenly
bright, a `rimmed` one has a darker core. How much darker is drawn from two overlapping normal distributions
(`RIM_DEPTH`), so some lesions cannot be told apart by anybody. Training labels carry noise, validation labels do not,
and `truth.json` next to the images records the clean truth of both.
"""

from __future__ import annotations

import json
import math
import os
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from det_ls.base.errors import ArgumentError, ExistingFileError

NAMES = {0: "solid", 1: "rimmed"}
RIM_DEPTH = {0: (0.12, 0.12), 1: (0.45, 0.12)}
"""By class, mean and standard deviation of the share of brightness that a lesion's core lacks, clipped to 0-0.9."""

_SPLITS = ("train", "val")
_TRUTH = "truth.json"

Image = npt.NDArray[np.uint8]
Field = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Lesion:
    """One lesion as drawn.

    Attributes:
        class_index: Key of `NAMES`.
        box: Corners x1, y1, x2, y2 in pixels, tight around the lesion and inside the image.
        rim_depth: How much darker the core is than the rim, 0 (evenly bright) to 0.9.
    """

    class_index: int
    box: tuple[float, float, float, float]
    rim_depth: float


def write_phantom(
    root: str | Path,
    *,
    train: int = 200,
    val: int = 80,
    seed: int = 0,
    flip: float = 0.1,
    jitter: float = 0.2,
    exist_ok: bool = False,
) -> Path:
    """Write the phantom as a YOLO dataset with `images/`, `labels/`, `data.yaml` and `truth.json`.

    The same arguments give the same files, as long as NumPy and OpenCV stay the same. Each image has its own stream of
    random numbers: it depends on the seed, its split and its number, and neither on how many images there are nor on
    the noise. Of the images without lesions some have an empty label file and some have none, which means the same.

    Args:
        root: Folder to write. It is built next to its final place and renamed, so it is there whole or not at all.
        train: Number of training images, at least 1.
        val: Number of validation images, at least 1.
        seed: Any integer from 0.
        flip: Probability that a training label names the other class, 0 to 1.
        jitter: Probability that a training box is displaced and rescaled, by up to a quarter of its size, 0 to 1.
        exist_ok: Replace `root`, with everything in it, if it is a phantom; no other folder with files is replaced.

    Returns:
        The folder, as an absolute path.

    Raises:
        ValueError: If a number is out of its range.
        FileExistsError: If `root` is not empty and may not be replaced.
    """
    for name, count in (("train", train), ("val", val)):
        if count < 1:
            raise ArgumentError(f"{name}: expected at least 1 image, got {count}.")
    for name, share in (("flip", flip), ("jitter", jitter)):
        if not 0 <= share <= 1:
            raise ArgumentError(f"{name}: expected a probability from 0 to 1, got {share}.")
    if seed < 0:
        raise ArgumentError(f"seed: expected an integer of at least 0, got {seed}.")
    root = Path(root).expanduser().resolve()
    _check_replaceable(root, exist_ok)
    parameters = {"train": train, "val": val, "seed": seed, "flip": flip, "jitter": jitter}

    root.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{root.name}-", dir=root.parent) as folder:
        built = Path(folder, "new")
        _build(built, parameters)
        if root.exists():
            if not exist_ok and _parameters(root) == parameters:
                return root  # another process, such as a second training run, made the same one meanwhile
            _check_replaceable(root, exist_ok)
            os.replace(root, Path(folder, "old"))
        os.replace(built, root)
    return root


def draw_slice(rng: np.random.Generator) -> tuple[Image, list[Lesion]]:
    """Draw one head scan.

    Args:
        rng: The only source of randomness.

    Returns:
        The grey image of shape (height, width), each side 160 to 320, and its lesions, none to three.
    """
    height, width = (int(x) for x in rng.integers(160, 321, 2))
    ratio = rng.uniform(0.76, 0.88)  # a head is longer than wide
    length = min(0.48 * height, 0.48 * width / ratio) * rng.uniform(0.9, 1.0)  # half of it, in pixels
    shift_x, shift_y = rng.uniform(-0.02, 0.02, 2).tolist()
    centre = (width / 2 + shift_x * length, height / 2 + shift_y * length)
    u, v = _head_coordinates((height, width), centre, length, rng.uniform(-0.2, 0.2))
    pixel = 1 / length

    anatomy = _draw_anatomy(rng, u / ratio, v, pixel)
    scan, lesions = _add_lesions(rng, anatomy, u, v, ratio, pixel)
    return _acquire(rng, scan, length), lesions


def _build(root: Path, parameters: dict[str, Any]) -> None:
    """Write all files of the dataset into the new folder `root`."""
    from ultralytics.utils import TQDM

    numbers = [(split, i) for split in _SPLITS for i in range(parameters[split])]
    for kind in ("images", "labels"):
        for split in _SPLITS:
            (root / kind / split).mkdir(parents=True)
    records = []
    for split, i in TQDM(numbers, desc="Drawing the phantom dataset"):
        rng, noise_rng = (_generator(parameters["seed"], split, i, stream) for stream in (0, 1))
        image, lesions = draw_slice(rng)
        height, width = image.shape
        if split == "train":
            labels = [_add_label_noise(noise_rng, x, (width, height), parameters) for x in lesions]
        else:
            labels = [(x.class_index, x.box) for x in lesions]
        file = root / "images" / split / f"{split}_{i:04d}.png"
        file.write_bytes(cv2.imencode(".png", image)[1].tobytes())
        if labels or noise_rng.random() < 0.5:  # no file and an empty file are both legal for a background image
            lines = [_yolo_line(class_index, box, (width, height)) for class_index, box in labels]
            (root / "labels" / split / f"{file.stem}.txt").write_text("".join(lines), encoding="utf-8")
        objects = [
            {"class": x.class_index, "box": x.box, "rim_depth": x.rim_depth, "label_class": label, "label_box": box}
            for x, (label, box) in zip(lesions, labels, strict=True)
        ]
        records.append({"file": file.name, "split": split, "width": width, "height": height, "objects": objects})
    truth = {"parameters": parameters, "names": NAMES, "images": records}
    (root / _TRUTH).write_text(json.dumps(truth, indent=1) + "\n", encoding="utf-8")
    names = "".join(f"  {i}: {name}\n" for i, name in NAMES.items())
    (root / "data.yaml").write_text(f"train: images/train\nval: images/val\nnames:\n{names}", encoding="utf-8")


def _generator(seed: int, split: str, number: int, stream: int) -> np.random.Generator:
    """Return the random generator of one image: stream 0 draws it, stream 1 adds noise to its labels."""
    return np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(_SPLITS.index(split), number, stream)))


def _check_replaceable(root: Path, exist_ok: bool) -> None:
    """Raise FileExistsError unless `root` is free, empty, or a phantom that may be replaced."""
    if not root.exists() or (root.is_dir() and not any(root.iterdir())):
        return
    if not exist_ok:
        raise ExistingFileError(
            f"root: expected a new or empty folder without exist_ok, got '{root}', which holds files."
        )
    if _parameters(root) is None:
        raise ExistingFileError(f"root: expected a phantom to replace, got '{root}', which has no {_TRUTH}.")


def _parameters(root: Path) -> dict[str, Any] | None:
    """Return the arguments that a phantom was written with, or None if `root` is not one."""
    file = root / _TRUTH
    if not file.is_file():
        return None
    parameters = json.loads(file.read_text(encoding="utf-8")).get("parameters")
    return parameters if isinstance(parameters, dict) else None


def _add_label_noise(
    rng: np.random.Generator, lesion: Lesion, size: tuple[int, int], parameters: dict[str, Any]
) -> tuple[int, tuple[float, float, float, float]]:
    """Return the class and the box that the training label of a lesion states."""
    flipped, jittered = rng.random(2) < (parameters["flip"], parameters["jitter"])
    shift, scale = rng.uniform(-0.25, 0.25, 2), rng.uniform(0.75, 1.25, 2)
    class_index = 1 - lesion.class_index if flipped else lesion.class_index
    if not jittered:
        return class_index, lesion.box
    low, high = np.array(lesion.box[:2]), np.array(lesion.box[2:])
    centre, half = (low + high) / 2 + shift * (high - low), scale * (high - low) / 2
    x1, y1, x2, y2 = np.clip([*(centre - half), *(centre + half)], 0, [*size, *size]).round(2).tolist()
    return class_index, (x1, y1, x2, y2)


def _yolo_line(class_index: int, box: Iterable[float], size: tuple[int, int]) -> str:
    """Return `class xc yc w h`, normalised by the image's width and height."""
    x1, y1, x2, y2 = box
    width, height = size
    numbers = ((x1 + x2) / 2 / width, (y1 + y2) / 2 / height, (x2 - x1) / width, (y2 - y1) / height)
    return f"{class_index} " + " ".join(f"{x:.6f}" for x in numbers) + "\n"


# Drawing. Lengths are in units of half the head's length, u to the right and v to the back of the head, so that a
# picture looks the same at every size; `pixel` is the length of one pixel in these units. Brightness is 0 to about 1.


def _head_coordinates(
    shape: tuple[int, int], centre: tuple[float, float], length: float, angle: float
) -> tuple[Field, Field]:
    """Return u and v of every pixel for a head at `centre` (x, y in pixels) turned by `angle` (radians)."""
    y, x = np.mgrid[: shape[0], : shape[1]].astype(np.float32)
    x, y = (x + 0.5 - centre[0]) / length, (y + 0.5 - centre[1]) / length
    cos, sin = math.cos(angle), math.sin(angle)
    return x * cos + y * sin, y * cos - x * sin


def _field(rng: np.random.Generator, shape: tuple[int, int], sigma: float) -> Field:
    """Return smooth noise of mean 0 and standard deviation 1; `sigma` is its scale in pixels."""
    # Coarse noise is drawn on a coarse grid: blurring at full size would take most of the time.
    step = max(1, int(sigma // 2))
    small = rng.standard_normal([-(-x // step) + 2 for x in shape], dtype=np.float32)
    blurred = cv2.GaussianBlur(small, (0, 0), sigma / step)
    field: Field = cv2.resize(blurred, shape[::-1], interpolation=cv2.INTER_CUBIC).astype(np.float32)
    return (field - field.mean()) / field.std()


def _inside(distance: Field, width: float) -> Field:
    """Return 1 where `distance` is negative, 0 where it is positive, with a linear edge of the given width."""
    return np.clip(0.5 - distance / width, 0, 1)


def _ellipse(u: Field, v: Field, centre: tuple[float, float], axes: tuple[float, float], angle: float = 0.0) -> Field:
    """Return the distance from an ellipse's centre in units of its radius: 1 on the outline."""
    cos, sin = math.cos(angle), math.sin(angle)
    du, dv = u - centre[0], v - centre[1]
    return np.sqrt(((du * cos + dv * sin) / axes[0]) ** 2 + ((dv * cos - du * sin) / axes[1]) ** 2)


def _ripple(rng: np.random.Generator, u: Field, v: Field, strength: float) -> Field:
    """Return a factor around 1 that varies with the direction from the origin, to make outlines irregular."""
    angle = np.linspace(0, 2 * np.pi, 1024)
    table = np.ones_like(angle)  # looked up, as cosines per pixel would take most of the time
    for k in (2, 3, 4, 5):
        table += rng.normal(0, strength / k) * np.cos(k * angle + rng.uniform(0, 2 * np.pi))
    nearest = (cv2.phase(u, v) * (1023 / (2 * np.pi))).astype(np.int32)
    factor: Field = table.astype(np.float32)[nearest]
    return factor


def _draw_anatomy(rng: np.random.Generator, u: Field, v: Field, pixel: float) -> Field:
    """Draw scalp, skull, brain tissue and ventricles; `u` is scaled so that the head is a circle of radius 1."""
    shape, length = u.shape, 1 / pixel
    edge = 2 * pixel
    weight = rng.uniform()  # between two common kinds of contrast, in which white and grey matter change places
    scalp, skull, fluid = rng.normal([0.62, 0.07, 0.13], [0.08, 0.02, 0.03]).tolist()
    white = weight * 0.50 + (1 - weight) * 0.32 + rng.normal(0, 0.02)
    grey = weight * 0.35 + (1 - weight) * 0.46 + rng.normal(0, 0.02)

    radius = np.hypot(u * (1 - 0.08 * v), v) * _ripple(rng, u, v, 0.02)
    scan = np.full(shape, 0.01, np.float32)

    def paint(mask: Field, brightness: float) -> None:
        scan[:] += mask * (brightness - scan)

    bone, inner = (1 - np.cumsum(rng.uniform(0.035, 0.07, 2))).tolist()
    paint(_inside(radius - 1, edge), scalp)
    paint(_inside(radius - bone, edge), skull)
    paint(_inside(radius - inner, edge), fluid)

    # Folds: the outlines of two noise fields bend the border between grey and white matter and open dark furrows.
    folds, furrows = _field(rng, shape, 0.035 * length), _field(rng, shape, 0.05 * length)
    depth = inner - 0.02 - radius
    paint(_inside(-depth, edge), grey)
    paint(_inside(0.13 + 0.06 * folds - depth, 0.05), white)
    near_surface: Field = np.clip(1 - depth / rng.uniform(0.16, 0.3), 0, 1) * (depth > 0)
    paint(_inside(np.abs(furrows) - 0.35 * near_surface, 0.2) * (near_surface > 0), 0.7 * fluid + 0.3 * grey)
    midline: Field = np.abs(u + 0.02 * np.sin(4 * v + rng.uniform(0, 6)))
    ends: Field = np.clip(5 * np.abs(v) - 1, 0, 1)  # the furrow between the hemispheres is seen in front and behind
    paint(_inside(midline - 0.012, edge) * ends * (depth > 0), fluid)

    size, ripple = rng.uniform(0.75, 1.25), _ripple(rng, u, v, 0.04)
    for side in (-1, 1):
        lean = side * rng.uniform(0.15, 0.3)
        paint(_inside(_ellipse(u, v, (side * 0.33, 0.03), (0.12, 0.24), -lean) - 1, 0.25), grey)
        spread = size * rng.uniform(0.9, 1.1)
        horn = _ellipse(u, v, (side * 0.12 * spread, -0.17), (0.06 * spread, 0.2 * spread), 1.5 * lean)
        tail = _ellipse(u, v, (side * 0.17 * spread, 0.25), (0.06 * spread, 0.26 * spread), -1.5 * lean)
        paint(_inside(np.minimum(horn, tail) * ripple - 1, 0.2), fluid)
    scan += 0.03 * _field(rng, shape, 0.02 * length) * (depth > 0)
    for _ in range(rng.integers(0, 6)):  # vessels: small, bright and no lesions
        angle, distance = rng.uniform(0, 2 * np.pi), rng.uniform(0.2, inner - 0.05)
        place = (distance * math.cos(angle), distance * math.sin(angle))
        axes = (rng.uniform(0.012, 0.035), rng.uniform(0.012, 0.035))
        paint(_inside(_ellipse(u, v, place, axes, angle) - 1, 1.0), rng.uniform(0.6, 0.9))
    return scan


def _add_lesions(
    rng: np.random.Generator, scan: Field, u: Field, v: Field, ratio: float, pixel: float
) -> tuple[Field, list[Lesion]]:
    """Draw the lesions into a copy of `scan` and return them with it."""
    scan = scan.copy()
    lesions: list[Lesion] = []
    placed: list[tuple[float, float, float]] = []
    count = rng.choice(4, p=[0.15, 0.40, 0.30, 0.15])
    while len(lesions) < count:
        radius = rng.uniform(0.09, 0.21)
        angle, distance = rng.uniform(0, 2 * np.pi), 0.66 * math.sqrt(rng.uniform())
        x, y = ratio * distance * math.cos(angle), distance * math.sin(angle)
        if any(math.hypot(x - a, y - b) < 1.4 * (radius + r) for a, b, r in placed):
            continue
        placed.append((x, y, radius))
        class_index = int(rng.integers(2))
        rim_depth = float(np.clip(rng.normal(*RIM_DEPTH[class_index]), 0, 0.9).round(3))
        stretch = math.exp(rng.uniform(-0.2, 0.2))
        axes = (radius * stretch, radius / stretch)
        outline = _ellipse(u, v, (x, y), axes, rng.uniform(0, np.pi)) * _ripple(rng, u - x, v - y, 0.1)
        core = _inside(outline - rng.uniform(0.5, 0.65), 0.25)
        texture = 1 + 0.08 * _field(rng, scan.shape, 0.03 / pixel)
        brightness = rng.uniform(0.15, 0.32) * (1 - rim_depth * core) * texture
        halo = rng.uniform(0, 0.08) * np.exp(-np.maximum(outline - 1, 0) / 0.25)
        solid = _inside(outline - 1, 2 * pixel / radius)
        tissue = float(scan[solid > 0.5].mean())
        scan += np.where(scan > 0.2, halo, 0) * (1 - solid) + solid * (0.7 * (tissue - scan) + brightness)
        rows, columns = np.nonzero(solid > 0.5)
        x1, x2, y1, y2 = (float(e) for e in (columns.min(), columns.max() + 1, rows.min(), rows.max() + 1))
        lesions.append(Lesion(class_index, (x1, y1, x2, y2), rim_depth))
    return scan, lesions


def _acquire(rng: np.random.Generator, scan: Field, length: float) -> Image:
    """Turn ideal brightness into a grey image: blur, uneven coil sensitivity, noise, and the window of a viewer."""
    blurred = cv2.GaussianBlur(scan, (0, 0), rng.uniform(0.5, 1.0))
    signal = blurred * np.exp(rng.uniform(0.05, 0.2) * _field(rng, scan.shape, 0.8 * length))
    # The magnitude of a complex signal with Gaussian noise: Rician, as in magnitude MR images.
    real, imaginary = rng.uniform(0.015, 0.045) * rng.standard_normal((2, *scan.shape), dtype=np.float32)
    magnitude = np.hypot(signal + real, imaginary)
    window = np.quantile(magnitude, rng.uniform(0.99, 0.999))
    return np.clip(255 * (magnitude / window) ** rng.uniform(0.85, 1.15), 0, 255).round().astype(np.uint8)
