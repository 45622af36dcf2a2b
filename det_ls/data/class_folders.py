# SPDX-License-Identifier: AGPL-3.0-or-later
"""The images of a classification data set: a folder a split, in it a folder a class."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from det_ls.base.arguments import examples
from det_ls.base.errors import ArgumentError, DataError, DownloadError, MissingFileError

SPLITS = {"train": ("train",), "val": ("val", "validation", "valid"), "test": ("test",)}


@dataclass(frozen=True)
class LabelledImages:
    """The images of one split.

    Attributes:
        root: The split's folder.
        files: I image files, in sorted order.
        labels: I class indices.
    """

    root: Path
    files: tuple[str, ...]
    labels: tuple[int, ...]

    @property
    def names(self) -> list[str]:
        """The files' names within the split's folder."""
        return [Path(file).relative_to(self.root).as_posix() for file in self.files]


def find_folder(data: str | Path, split: str) -> Path:
    """Find the folder of a split, and download the data set if it is one of Ultralytics' that is not there.

    Args:
        data: A folder, or the name, archive or address of a data set, as for ``yolo classify``.
        split: ``train``, ``val`` or ``test``.

    Returns:
        The folder, which holds a folder a class.

    Raises:
        ConnectionError: If a download fails.
        FileNotFoundError: If there is no such data set or split; no other split is taken instead.
        ValueError: If the split has another name, or the data set is no folder.
    """
    from ultralytics.data.utils import DATASETS_DIR, check_cls_dataset

    if split not in SPLITS:
        raise ArgumentError(f"split: expected one of {', '.join(SPLITS)}, got {split!r}.")
    places = (Path(data), Path(DATASETS_DIR) / str(data))
    root = next((place.resolve() for place in places if place.is_dir()), None)
    if root is None and Path(data).is_file() and Path(data).suffix.lower() in (".yaml", ".yml", ".txt", ".json"):
        raise DataError(f"data: expected a folder with a folder a class for a classifier, got the file '{data}'.")
    if root is None and Path(data).is_absolute():
        raise MissingFileError(f"data: expected a folder of classes, got '{data}', which was not found.")
    if root is None:
        try:
            root = Path(check_cls_dataset(str(data), split="train")["train"]).parent
        except ConnectionError as error:
            raise DownloadError(f"data: expected a data set, got '{data}', which could not be downloaded.") from error
        except Exception as error:  # stock looks, downloads, unpacks: it raises whatever these raise
            raise MissingFileError(
                f"data: expected a folder of classes, got '{data}', which was not found ({type(error).__name__})."
            ) from error
    found = next((root / name for name in SPLITS[split] if (root / name).is_dir()), None)
    if found is None:
        raise MissingFileError(
            f"data: expected a folder '{SPLITS[split][0]}' with a folder a class in '{root}', got none."
        )
    return found


def labelled_images(folder: Path, names: Mapping[int, str]) -> LabelledImages:
    """List the images of a split with the model's class indices, found by the folders' names.

    Args:
        folder: The split's folder.
        names: The model's class names by index.

    Returns:
        The images.

    Raises:
        FileNotFoundError: If there is no image.
        ValueError: If a folder with images is none of the model's classes.
    """
    from ultralytics.data.utils import IMG_FORMATS
    from ultralytics.nn.autobackend import check_class_names

    folders = sorted(entry.name for entry in os.scandir(folder) if entry.is_dir())
    images = {
        name: sorted(str(p) for p in (folder / name).rglob("*.*") if p.suffix[1:].lower() in IMG_FORMATS)
        for name in folders
    }
    folders = [name for name in folders if images[name]]
    if not folders:
        raise MissingFileError(f"data: expected images in folders of classes in '{folder}', got none.")
    try:  # ImageNet's folders have codes, which stock turns into words in the names of a model
        words = dict(zip(folders, check_class_names(folders).values(), strict=True))
        index = {name: i for i, name in check_class_names(dict(names)).items()}
    except KeyError as error:
        raise DataError(f"data: expected ImageNet's codes as folders in '{folder}', got another, {error}.") from None
    if unknown := [name for name in folders if words[name] not in index]:
        raise DataError(
            f"data: expected folders of classes that the model knows, got {examples(unknown)} besides in '{folder}'."
        )
    pairs = [(file, index[words[name]]) for name in folders for file in images[name]]
    return LabelledImages(folder, tuple(file for file, _ in pairs), tuple(label for _, label in pairs))
