# SPDX-License-Identifier: AGPL-3.0-or-later
"""A data set with noise of a known kind in its training labels, made of links to the images of another.

The source is not touched. The new folder holds links to images, new label files for the training split, the
validation split's own labels behind links, a data YAML, and ``manifest.json``, which says what was changed and of which
labels. Links within the working directory are relative, so that both can be moved with it. Noise depends on the seed,
the image's name and the object's place in its file, on nothing else: of two rates the objects that the lower one flips
are among those that the higher one flips.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from det_ls.base.errors import ArgumentError, DataError, RunError
from det_ls.base.files import write_json
from det_ls.base.folders import held_folder
from det_ls.base.types import Json
from det_ls.data.ground_truth import list_images
from det_ls.data.groups import GroupSpec, groups_for
from det_ls.data.locate import check_dataset
from det_ls.studies.records import Condition

MANIFEST, DATA = "manifest.json", "data.yaml"
_VERSION = 2
_PATIENCE = 3600.0  # seconds for another cell to make its data set


@dataclass(frozen=True)
class Noisy:
    """One object's label, changed.

    Attributes:
        line: The label's line; None where the object was dropped.
        what: What was done: ``flip``, ``drop`` and ``jitter``, joined by ``+``; empty for nothing.
    """

    line: str | None
    what: str = ""


def noisy_data(
    data: str | Path, folder: str | Path, condition: Condition, seed: int, groups: GroupSpec | None = None
) -> Path:
    """Write a data set whose training split is as a condition says, or take the one that is there.

    Args:
        data: The source, as for ``yolo``; YOLO labels of boxes.
        folder: Where to write. It is built beside its place and renamed: it is there whole or not at all.
        condition: The noise, and the share of the images in use.
        seed: Of what is drawn.
        groups: Which images belong together, as in :func:`det_ls.evaluate`: a fraction takes whole groups.

    Returns:
        The data YAML.

    Raises:
        FileNotFoundError: If the source does not exist.
        RuntimeError: If the folder holds another data set, such as one of labels that have changed since.
        ValueError: If a label cannot be read, or there is one class only to flip.
    """
    target = Path(folder).absolute()
    resolved = check_dataset(data, "train")
    names = {int(index): str(name) for index, name in resolved["names"].items()}
    if condition.flip and len(names) < 2:
        raise ArgumentError(f"label_noise: expected data with at least 2 classes to flip, got {len(names)}.")
    wanted = {
        "version": _VERSION,
        "labels": _digest(resolved),
        "seed": seed,
        "groups": None if groups is None else str(groups),
        **asdict(condition),
    }
    target.parent.mkdir(parents=True, exist_ok=True)
    with held_folder(target.parent, "folder", patience=_PATIENCE):  # other cells of a study may want the same
        if _same(target, wanted):
            if all(image.exists() for image in target.glob("images/*/*")):
                return target / DATA
            shutil.rmtree(target)  # the source was moved away from under its links
        if target.exists():
            raise RunError(
                f"folder: expected the place of a new data set, got '{target}', which holds something else, such as "
                "one of labels that have changed since; remove it to have it made anew."
            )
        place = Path(tempfile.mkdtemp(prefix=f".{target.name}-", suffix=".partial", dir=target.parent))
        try:
            changed, counts = _build(place, resolved, names, condition, seed, groups)
            content = {"source": str(data), **wanted, "counts": counts, "changed": changed}
            write_json(place / MANIFEST, content, indent=1)
            os.replace(place, target)
        finally:
            shutil.rmtree(place, ignore_errors=True)
    return target / DATA


def noisy_label(line: str, names: int, condition: Condition, rng: np.random.Generator) -> Noisy:
    """Change one object's label.

    The same numbers are drawn whatever the condition, so that noise of one kind does not move that of another.

    Args:
        line: ``class x y w h``, normalised.
        names: Number of classes.
        condition: The noise.
        rng: Random numbers of this object alone.

    Returns:
        The label.

    Examples:
        >>> noisy_label("0 0.5 0.5 0.2 0.2", 2, Condition(flip=0.999), np.random.default_rng(0)).what
        'flip'
    """
    flips, drops = rng.random(2)
    other = int(rng.integers(max(1, names - 1)))
    shifts = rng.standard_normal(4)
    cls, *box = line.split()[:5]
    index, (x, y, w, h) = int(float(cls)), (float(value) for value in box)
    if drops < condition.drop:
        return Noisy(None, "drop")
    done = []
    if flips < condition.flip:
        index = other if other < index else other + 1  # any other class, each equally likely
        done.append("flip")
    if condition.jitter:
        left, top, right, bottom = x - w / 2, y - h / 2, x + w / 2, y + h / 2
        moves = condition.jitter * shifts * np.array([w, h, w, h])
        ends = np.array([left, top, right, bottom]) + moves
        (left, right), (top, bottom) = (np.clip(sorted(pair), 0, 1).tolist() for pair in (ends[::2], ends[1::2]))
        if right - left > 1e-3 and bottom - top > 1e-3:  # a box of no size would be dropped by the loader
            x, y, w, h = (left + right) / 2, (top + bottom) / 2, right - left, bottom - top
            done.append("jitter")
    if not done:
        return Noisy(line)
    return Noisy(f"{index} {x:.6f} {y:.6f} {w:.6f} {h:.6f}", "+".join(done))


def _build(
    place: Path,
    resolved: dict[str, Any],
    names: dict[int, str],
    condition: Condition,
    seed: int,
    groups: GroupSpec | None,
) -> tuple[list[Json], dict[str, int]]:
    """Write the data set; return the changed objects and the counts."""
    images = list_images(resolved["train"])
    chosen = _chosen(images, condition.fraction, seed, groups)
    changed: list[Json] = []
    counts = {"images": len(chosen), "of_images": len(images), "objects": 0, "flip": 0, "drop": 0, "jitter": 0}
    for path, name in zip(chosen, _names(chosen, resolved.get("path")), strict=True):
        lines = []
        for number, line in enumerate(_label_lines(path)):
            code = hashlib.sha256(f"{seed} {name} {number}".encode()).digest()[:8]
            noisy = noisy_label(line, len(names), condition, np.random.default_rng(int.from_bytes(code, "little")))
            counts["objects"] += 1
            for what in filter(None, noisy.what.split("+")):
                counts[what] += 1
            if noisy.what:
                changed.append({"image": name, "object": number, "what": noisy.what, "was": line, "is": noisy.line})
            if noisy.line is not None:
                lines.append(noisy.line)
        _link(path, place / "images" / "train" / name)
        label = (place / "labels" / "train" / name).with_suffix(".txt")
        label.parent.mkdir(parents=True, exist_ok=True)
        label.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    content: dict[str, Any] = {"train": "images/train", "names": names}  # relative to the data YAML
    for split in ("val", "test"):
        if resolved.get(split):
            found = list_images(resolved[split])
            for path, name in zip(found, _names(found, resolved.get("path")), strict=True):
                _link(path, place / "images" / split / name)
                label_file = _label_file(path)
                if label_file.is_file():
                    _link(str(label_file), (place / "labels" / split / name).with_suffix(".txt"))
            content[split] = f"images/{split}"
    if declared := _annotations(resolved):
        content["annotations"] = declared
    (place / DATA).write_text(yaml.safe_dump(content, sort_keys=False, allow_unicode=True), encoding="utf-8")
    return changed, counts


def _annotations(resolved: dict[str, Any]) -> dict[str, str]:
    """Name the official instances JSON of the splits that stay as they are."""
    declared = resolved.get("annotations")
    by_split = declared if isinstance(declared, dict) else {"val": declared} if declared else {}
    root = Path(str(resolved.get("path") or "."))
    return {split: str((root / str(file)).absolute()) for split, file in by_split.items() if split != "train"}


def _digest(resolved: dict[str, Any]) -> str:
    """Tell by one word which images there are, in which order, and what the training labels say."""
    code = hashlib.sha256(json.dumps({str(k): v for k, v in resolved["names"].items()}).encode())
    for split in ("train", "val", "test"):
        if not resolved.get(split):
            continue
        images = list_images(resolved[split])
        for path, name in zip(images, _names(images, resolved.get("path")), strict=True):
            code.update(f"{split} {name}\n".encode())
            file = _label_file(path)
            if split == "train" and file.is_file():
                code.update(file.read_bytes())
    return code.hexdigest()


def _same(folder: Path, wanted: Json) -> bool:
    """Tell whether a folder holds the data set that is wanted."""
    try:
        found = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return all(found.get(key) == value for key, value in wanted.items())


def _chosen(images: list[str], fraction: float, seed: int, groups: GroupSpec | None) -> list[str]:
    """Take a share of the images, whole groups where there are any; of two shares the smaller is in the larger."""
    if fraction >= 1:
        return images
    codes = np.arange(len(images))
    if groups is not None:
        codes = groups_for(groups, {path: path for path in images}).codes_for(images)
    order = np.random.default_rng(seed).permutation(int(codes.max()) + 1)
    sizes = np.bincount(codes)[order]
    enough = int(np.searchsorted(np.cumsum(sizes), max(1, round(fraction * len(images))))) + 1
    taken = set(order[:enough].tolist())
    return [path for path, code in zip(images, codes.tolist(), strict=True) if code in taken]


def _names(paths: list[str], root: object) -> list[str]:
    """Name images within a split: by their file names, with their folders where those repeat."""
    names = [Path(path).name for path in paths]
    if len({Path(name).stem for name in names}) == len(names):
        return names
    base = Path(os.path.commonpath([str(Path(path).parent) for path in paths]) or str(root or "."))
    return [Path(path).relative_to(base).as_posix().replace("/", "__") for path in paths]


def _label_file(image: str) -> Path:
    """Say where Ultralytics looks for an image's labels."""
    from ultralytics.data.utils import img2label_paths

    return Path(img2label_paths([image])[0])


def _label_lines(image: str) -> list[str]:
    """Read the labels of an image, which are boxes."""
    file = _label_file(image)
    if not file.is_file():
        return []
    lines = [line.strip() for line in file.read_text(encoding="utf-8-sig").splitlines() if line.strip()]
    for line in lines:
        try:
            fits = len([float(part) for part in line.split()]) == 5
        except ValueError:
            fits = False
        if not fits:
            raise DataError(f"data: expected labels of boxes (class x y w h), got {line[:80]!r} in '{file}'.")
    return lines


def _link(source: str, place: Path) -> None:
    """Link a file, or copy it where links are not to be had."""
    place.parent.mkdir(parents=True, exist_ok=True)
    target, here = os.path.abspath(source), Path.cwd()
    if Path(target).is_relative_to(here) and place.is_relative_to(here):
        target = os.path.relpath(Path(target).resolve(), place.parent.resolve())
    try:
        os.symlink(target, place)
    except OSError:
        shutil.copy2(source, place)
