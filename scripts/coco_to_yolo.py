# SPDX-License-Identifier: AGPL-3.0-or-later
"""Make a YOLO dataset of a COCO-format folder, so that it can be trained and evaluated.

    python scripts/coco_to_yolo.py source=path/to/coco out=path/to/new/folder

`source` holds `annotations/instances_<name>.json`, one whose name starts with `train` and one with `val` (`test` is
optional), and the images in `<name>/` or `images/<name>/`. It is only read: `out` gets links to its images and
annotations, the labels, and a `data.yaml` whose `annotations:` name the official JSONs for evaluation by pycocotools.
Every image of a JSON is used under its own file name, every category becomes a class in the order of the category ids,
and crowds, which are regions and no objects, get no label.

Ultralytics' own `convert_coco` knows the ids of COCO's 80 classes, or ids without gaps; here any ids will do.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
from collections import defaultdict
from pathlib import Path, PurePosixPath
from typing import Any

from ultralytics.data.utils import img2label_paths
from ultralytics.utils import TQDM, YAML

SPLITS = ("train", "val", "test")
REQUIRED = {
    "images": ("id", "file_name", "width", "height"),
    "annotations": ("image_id", "category_id", "bbox"),
    "categories": ("id", "name"),
}


def convert(source: str | Path, out: str | Path) -> Path:
    """Write the YOLO dataset `out` of the COCO-format folder `source`.

    Args:
        source: Folder with `annotations/instances_*.json` and the images.
        out: Folder to write, new or empty. It is built next to its final place and renamed when complete.

    Returns:
        The data YAML.

    Raises:
        FileNotFoundError: If the source, a split that is required or an image is missing.
        FileExistsError: If `out` is not empty.
        ValueError: If a JSON is not a valid set of instance annotations, or the splits' categories differ.
    """
    source, out = Path(source).expanduser().resolve(), Path(out).expanduser().resolve()
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise FileExistsError(f"out: expected a new or empty folder, got '{out}', which holds files.")
    files = find_annotations(source)
    contents = {split: read_annotations(file) for split, file in files.items()}
    categories = {split: {c["id"]: str(c["name"]) for c in x["categories"]} for split, x in contents.items()}
    for split in files:
        if categories[split] != categories["train"]:
            raise ValueError(
                f"source: expected the same categories in '{files[split]}' as in '{files['train']}', got others."
            )
    index = {category: i for i, category in enumerate(sorted(categories["train"]))}

    data: dict[str, Any] = {split: f"images/{_name(file)}" for split, file in files.items()}
    data["annotations"] = {split: f"annotations/{file.name}" for split, file in files.items()}
    data["names"] = {i: categories["train"][category] for category, i in index.items()}
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{out.name}-", dir=out.parent) as folder:
        built = Path(folder, "new")
        (built / "annotations").mkdir(parents=True)
        for split, file in files.items():
            (built / "annotations" / file.name).symlink_to(file)
            write_split(contents[split], file, built, index)
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
    for split, files in found.items():
        if len(files) > 1:
            raise ValueError(
                f"source: expected one instances_{split}*.json in '{source / 'annotations'}', got {len(files)}."
            )
        if not files and split != "test":
            raise FileNotFoundError(f"source: expected annotations/instances_{split}*.json, got none in '{source}'.")
    return {split: files[0] for split, files in found.items() if files}


def read_annotations(file: Path) -> dict[str, Any]:
    """Read an instances JSON and check that its parts belong together."""
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"source: expected valid JSON, got '{file}' ({error}).") from error
    if not isinstance(content, dict) or not all(isinstance(content.get(x), list) for x in REQUIRED):
        raise ValueError(f"source: expected images, annotations and categories in '{file}', got something else.")
    for part, keys in REQUIRED.items():
        if not all(isinstance(x, dict) and all(k in x for k in keys) for x in content[part]):
            raise ValueError(
                f"source: expected the keys {keys} in each of the {part} of '{file}', got an entry without."
            )
    images, categories = ({x["id"] for x in content[key]} for key in ("images", "categories"))
    for key, known in (("image_id", images), ("category_id", categories)):
        unknown = sorted({x[key] for x in content["annotations"]} - known)
        if unknown:
            raise ValueError(f"source: expected a known {key} in each annotation of '{file}', got {unknown[:3]}.")
    return content


def write_split(content: dict[str, Any], file: Path, root: Path, index: dict[int, int]) -> None:
    """Link the images of one split and write their labels.

    Args:
        content: The instances JSON.
        file: Where it was read from.
        root: The dataset that is being built.
        index: Class index by category id.
    """
    name = _name(file)
    source = file.parent.parent
    folder = next((x for x in (source / name, source / "images" / name) if x.is_dir()), None)
    if folder is None:
        raise FileNotFoundError(
            f"source: expected the images of '{file.name}' in '{source / name}' or 'images/{name}', got none."
        )
    names = [x["file_name"] for x in content["images"]]
    for file_name in names:
        if PurePosixPath(file_name).is_absolute() or ".." in PurePosixPath(file_name).parts:
            raise ValueError(f"source: expected file names in '{file}' to stay inside the folder, got '{file_name}'.")
    missing = [x for x in names if not (folder / x).is_file()]
    if missing:
        raise FileNotFoundError(
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
            raise ValueError(
                f"source: expected a label file of its own for each image of '{file}', got one for "
                f"'{labelled[label]}' and '{image['file_name']}'."
            )
        labelled[label] = image["file_name"]
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(folder / image["file_name"])
        lines = label_lines(annotations[image["id"]], image["width"], image["height"], index)
        if lines:
            label.parent.mkdir(parents=True, exist_ok=True)
            label.write_text("\n".join(lines) + "\n", encoding="utf-8")


def label_lines(annotations: list[dict[str, Any]], width: int, height: int, index: dict[int, int]) -> list[str]:
    """Return `class xc yc w h` lines, normalised, of all objects that are no crowds.

    Boxes are clipped to the image; one that has no area left is dropped.

    >>> label_lines([{"bbox": [10, 20, 40, 60], "category_id": 90}], 100, 200, {90: 1})
    ['1 0.3 0.25 0.4 0.3']
    """
    lines = []
    for annotation in annotations:
        if annotation.get("iscrowd"):
            continue
        x, y, w, h = annotation["bbox"]
        x1, y1, x2, y2 = max(x, 0), max(y, 0), min(x + w, width), min(y + h, height)
        if x2 > x1 and y2 > y1:
            box = ((x1 + x2) / 2 / width, (y1 + y2) / 2 / height, (x2 - x1) / width, (y2 - y1) / height)
            lines.append(f"{index[annotation['category_id']]} " + " ".join(f"{v:.8g}" for v in box))
    return lines


def _name(file: Path) -> str:
    """Return the name of a split's folder: `train2017` for `instances_train2017.json`."""
    return file.stem.removeprefix("instances_")


def main(arguments: list[str]) -> None:
    """Run the command line, `source=... out=...`."""
    options = dict(x.split("=", 1) for x in arguments if "=" in x)
    if len(options) != len(arguments) or set(options) != {"source", "out"}:
        raise SystemExit("arguments: expected source=<COCO-format folder> out=<new folder>, got " + " ".join(arguments))
    try:
        data_file = convert(options["source"], options["out"])
    except (OSError, ValueError) as error:
        raise SystemExit(f"error: {error}") from error
    print(f"Wrote {data_file}, for example for: python scripts/train_coco.py data={data_file}")


if __name__ == "__main__":
    main(sys.argv[1:])
