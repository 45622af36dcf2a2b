# SPDX-License-Identifier: AGPL-3.0-or-later
"""Make a YOLO data set of COCO instances, so that it can be trained and evaluated.

The source is only read: the new folder gets links to its images and annotations, the labels, and a ``data.yaml`` whose
``annotations:`` name the JSONs for evaluation by pycocotools. Every image of a JSON is used under its own file name,
every category becomes a class in the order of the category ids, and crowds, which are regions and no objects, get no
label.

Ultralytics' own ``convert_coco`` knows the ids of COCO's 80 classes, or ids without gaps; here any ids will do.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections import defaultdict
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from det_ls.base.errors import ArgumentError, DataError, ExistingFileError, MissingFileError

TASKS = ("detect", "segment", "pose")
ROBOFLOW = "_annotations.coco.json"
_FOLDERS = {"train": ("train",), "val": ("valid", "val"), "test": ("test",)}
SPLITS = ("train", "val", "test")
REQUIRED = {
    "images": ("id", "file_name", "width", "height"),
    "annotations": ("image_id", "category_id", "bbox"),
    "categories": ("id", "name"),
}


def convert(source: str | Path, out: str | Path, task: str = "detect", images: str | Path | None = None) -> Path:
    """Write the YOLO dataset `out` of the COCO-format folder or JSON `source`.

    Args:
        source: Folder with the images and one JSON of instances a split, ``train`` and ``val`` and maybe ``test``:
            ``annotations/instances_<split>*.json`` with images in ``<name>/`` or ``images/<name>/``, as COCO has them;
            ``<split>/_annotations.coco.json`` beside the images, as Roboflow exports them; or ``<split>.json``, also
            in ``annotations/``, with images in ``<split>/``, ``images/<split>/``, ``images/`` or the folder itself.
            Or a single JSON of instances, which becomes both ``train`` and ``val``: Ultralytics trains with no less.
        out: Folder to write, new or empty. It is built next to its final place and renamed when complete.
        task: What the labels hold: ``detect`` boxes, ``segment`` polygons, ``pose`` boxes and keypoints.
        images: The folder of a single JSON's images; by default they are looked for beside it as above.

    Returns:
        The data YAML.

    Raises:
        FileNotFoundError: If the source, a split that is required or an image is missing.
        FileExistsError: If `out` is not empty.
        ValueError: If a JSON is not a valid set of instance annotations, or the splits' categories differ.
    """
    from ultralytics.utils import YAML

    if task not in TASKS:
        raise ArgumentError(f"task: expected one of {', '.join(TASKS)}, got {task!r}.")
    source, out = Path(source).expanduser().resolve(), Path(out).expanduser().resolve()
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ExistingFileError(f"out: expected a new or empty folder, got '{out}', which holds files.")
    if source.is_file():
        files = dict.fromkeys(("train", "val"), source)
    elif images is None:
        files = find_annotations(source)
    else:
        raise ArgumentError(f"images: expected none with a folder as source, got {str(images)!r}.")
    folder_of_images = None if images is None else Path(images).expanduser().resolve()
    contents = {split: read_annotations(file) for split, file in files.items()}
    categories = {split: {c["id"]: str(c["name"]) for c in x["categories"]} for split, x in contents.items()}
    for split in files:
        if categories[split] != categories["train"]:
            raise DataError(
                f"source: expected the same categories in '{files[split]}' as in '{files['train']}', got others."
            )
    index = {category: i for i, category in enumerate(sorted(categories["train"]))}

    data: dict[str, Any] = {split: f"images/{_name(file)}" for split, file in files.items()}
    data["annotations"] = {split: f"annotations/{_link(file)}" for split, file in files.items()}
    if task == "pose":
        data["kpt_shape"] = [_keypoints(contents["train"], files["train"]), 3]
    data["names"] = {i: categories["train"][category] for category, i in index.items()}
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{out.name}-", dir=out.parent) as folder:
        built = Path(folder, "new")
        (built / "annotations").mkdir(parents=True)
        for file, split in {file: split for split, file in files.items()}.items():
            (built / "annotations" / _link(file)).symlink_to(file)
            write_split(contents[split], file, built, index, task, folder_of_images)
        YAML.save(built / "data.yaml", data)
        if out.exists():
            out.rmdir()
        os.replace(built, out)
    return out / "data.yaml"


def find_annotations(source: Path) -> dict[str, Path]:
    """Return the instances JSON of each split."""
    found: dict[str, list[Path]] = {split: [] for split in SPLITS}
    for file in sorted((source / "annotations").glob("instances_*.json")):
        for split in SPLITS:
            if _name(file).startswith(split):
                found[split].append(file)
    for split, names in _FOLDERS.items():
        others = [
            *(source / name / ROBOFLOW for name in names),
            *(folder / f"{name}.json" for folder in (source, source / "annotations") for name in names),
        ]
        if not found[split]:
            found[split] = [file for file in others if file.is_file()][:1]
    for split, files in found.items():
        if len(files) > 1:
            raise DataError(
                f"source: expected one instances_{split}*.json in '{source / 'annotations'}', got {len(files)}."
            )
        if not files and split != "test":
            raise MissingFileError(
                f"source: expected annotations/instances_{split}*.json, {_FOLDERS[split][0]}/{ROBOFLOW} or "
                f"{split}.json, got none in '{source}'."
            )
    return {split: files[0] for split, files in found.items() if files}


def read_annotations(file: Path) -> dict[str, Any]:
    """Read an instances JSON and check that its parts belong together."""
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise DataError(f"source: expected valid JSON, got '{file}' ({error}).") from error
    if not isinstance(content, dict) or not all(isinstance(content.get(x), list) for x in REQUIRED):
        raise DataError(f"source: expected images, annotations and categories in '{file}', got something else.")
    for part, keys in REQUIRED.items():
        if not all(isinstance(x, dict) and all(k in x for k in keys) for x in content[part]):
            raise DataError(
                f"source: expected the keys {keys} in each of the {part} of '{file}', got an entry without."
            )
    images, categories = ({x["id"] for x in content[key]} for key in ("images", "categories"))
    for key, known in (("image_id", images), ("category_id", categories)):
        unknown = sorted({x[key] for x in content["annotations"]} - known)
        if unknown:
            raise DataError(f"source: expected a known {key} in each annotation of '{file}', got {unknown[:3]}.")
    return content


def write_split(
    content: dict[str, Any],
    file: Path,
    root: Path,
    index: dict[int, int],
    task: str = "detect",
    images: Path | None = None,
) -> None:
    """Link the images of one split and write their labels.

    Args:
        content: The instances JSON.
        file: Where it was read from.
        root: The dataset that is being built.
        index: Class index by category id.
        task: What the labels hold.
        images: The folder of its images; None to look for it.
    """
    from ultralytics.data.utils import img2label_paths
    from ultralytics.utils import TQDM

    name = _name(file)
    points = _keypoints(content, file) if task == "pose" else 0
    folder = images_of(file, [x["file_name"] for x in content["images"]]) if images is None else images
    if not folder.is_dir():
        raise MissingFileError(f"images: expected a folder, got '{folder}', which is none.")
    names = [x["file_name"] for x in content["images"]]
    for file_name in names:
        if PurePosixPath(file_name).is_absolute() or ".." in PurePosixPath(file_name).parts:
            raise DataError(f"source: expected file names in '{file}' to stay inside the folder, got '{file_name}'.")
    missing = [x for x in names if not (folder / x).is_file()]
    if missing:
        raise MissingFileError(
            f"source: expected the images of '{file}' in '{folder}', got {len(missing)} missing, such as {missing[:3]}."
        )

    annotations = defaultdict(list)
    for annotation in content["annotations"]:
        annotations[annotation["image_id"]].append(annotation)
    (root / "labels" / name).mkdir(parents=True)
    labelled: dict[Path, str] = {}
    for image in TQDM(content["images"], desc=f"Linking {name}"):
        link = root / "images" / name / image["file_name"]
        label = Path(img2label_paths([str(link)])[0])
        if label in labelled:
            raise DataError(
                f"source: expected a label file of its own for each image of '{file}', got one for "
                f"'{labelled[label]}' and '{image['file_name']}'."
            )
        labelled[label] = image["file_name"]
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(folder / image["file_name"])
        lines = label_lines(annotations[image["id"]], image["width"], image["height"], index, task, points)
        if lines:
            label.parent.mkdir(parents=True, exist_ok=True)
            label.write_text("\n".join(lines) + "\n", encoding="utf-8")


def images_of(file: Path, names: list[str]) -> Path:
    """Find the folder of a JSON's images, where COCO, Roboflow and others put it.

    Args:
        file: The JSON.
        names: The images' file names.

    Returns:
        The first folder there is; beside a JSON that is called after no split, the first that has the first image.

    Raises:
        FileNotFoundError: If there is none.
    """
    name = _name(file)
    source = file.parent.parent if file.parent.name == "annotations" or file.name == ROBOFLOW else file.parent
    places = [source / name, source / "images" / name]
    if file.name == f"{name}.json":
        places += [source / "images", source]
    found = [place for place in places if place.is_dir()]
    if not found:
        raise MissingFileError(
            f"source: expected the images of '{file.name}' in '{source / name}' or 'images/{name}', got none."
        )
    return next((place for place in found if names and (place / str(names[0])).is_file()), found[0])


def label_lines(
    annotations: list[dict[str, Any]],
    width: int,
    height: int,
    index: dict[int, int],
    task: str = "detect",
    points: int = 0,
) -> list[str]:
    """Return a line for each object that is no crowd: `class xc yc w h`, normalised, or as the task wants it.

    Boxes are clipped to the image; one that has no area left is dropped. Several polygons of one object become one, as
    Ultralytics joins them; an object without a polygon gets its box as one.

    Args:
        annotations: The image's annotations.
        width: The image's width.
        height: The image's height.
        index: Class index by category id.
        task: What the labels hold.
        points: Keypoints an object, for ``pose``.

    Returns:
        The lines.

    Raises:
        ValueError: If a mask is no polygon, or an object has another number of keypoints.

    Examples:
        >>> label_lines([{"bbox": [10, 20, 40, 60], "category_id": 90}], 100, 200, {90: 1})
        ['1 0.3 0.25 0.4 0.3']
        >>> square = {"bbox": [0, 0, 50, 50], "category_id": 90, "segmentation": [[0, 0, 50, 0, 50, 50, 0, 50]]}
        >>> label_lines([square], 100, 100, {90: 1}, "segment")
        ['1 0 0 0.5 0 0.5 0.5 0 0.5']
        >>> label_lines([{**square, "keypoints": [25, 50, 2]}], 100, 100, {90: 1}, "pose", 1)
        ['1 0.25 0.25 0.5 0.5 0.25 0.5 2']
    """
    lines = []
    for annotation in annotations:
        if annotation.get("iscrowd"):
            continue
        x, y, w, h = annotation["bbox"]
        x1, y1, x2, y2 = max(x, 0), max(y, 0), min(x + w, width), min(y + h, height)
        if x2 <= x1 or y2 <= y1:
            continue
        values = [(x1 + x2) / 2 / width, (y1 + y2) / 2 / height, (x2 - x1) / width, (y2 - y1) / height]
        if task == "segment":
            polygon = _polygon(annotation.get("segmentation") or [[x1, y1, x2, y1, x2, y2, x1, y2]])
            values = (polygon / [width, height]).clip(0, 1).ravel().tolist()
        elif task == "pose":
            values += _normalised(annotation.get("keypoints") or [0.0] * 3 * points, points, width, height)
        lines.append(f"{index[annotation['category_id']]} " + " ".join(f"{v:.8g}" for v in values))
    return lines


def _polygon(segmentation: Any) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Return the corners (N, 2) of one polygon for all of an object's."""
    from ultralytics.data.converter import merge_multi_segment

    if not isinstance(segmentation, list) or not all(isinstance(p, list) and len(p) >= 6 for p in segmentation):
        raise DataError("source: expected polygons of at least 3 points as segmentation, got a mask or fewer.")
    parts = [np.asarray(part, np.float64).reshape(-1, 2) for part in segmentation]
    if len(parts) > 1:
        parts = [np.concatenate(merge_multi_segment([part.ravel().tolist() for part in parts]), axis=0)]
    return parts[0]


def _normalised(keypoints: list[float], points: int, width: int, height: int) -> list[float]:
    """Return keypoints (x, y, visible) as fractions of the image; what is not labelled is 0."""
    if len(keypoints) != 3 * points:
        raise DataError(f"source: expected {points} keypoints of 3 numbers an object, got {len(keypoints)} numbers.")
    rows = np.asarray(keypoints, np.float64).reshape(-1, 3)
    rows[:, :2] = np.where(rows[:, 2:] > 0, rows[:, :2] / [width, height], 0).clip(0, 1)
    return [float(value) for value in rows.ravel()]


def _keypoints(content: dict[str, Any], file: Path) -> int:
    """Return how many keypoints an object has."""
    found = {len(a["keypoints"]) // 3 for a in content["annotations"] if a.get("keypoints")}
    found |= {len(c["keypoints"]) for c in content["categories"] if c.get("keypoints")}
    if len(found) != 1:
        raise DataError(f"source: expected objects with one number of keypoints in '{file}', got {sorted(found)}.")
    return found.pop()


def _link(file: Path) -> str:
    """Return the name of the link to a JSON, which Roboflow calls the same in every split."""
    return f"{_name(file)}.json" if file.name == ROBOFLOW else file.name


def _name(file: Path) -> str:
    """Return the name of a split's folder: `train2017` for `instances_train2017.json`, `train` for Roboflow's."""
    return file.parent.name if file.name == ROBOFLOW else file.stem.removeprefix("instances_")
