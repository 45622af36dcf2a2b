# SPDX-License-Identifier: AGPL-3.0-or-later
"""Find the dataset that a `data=` argument names, by the rules of Ultralytics plus one environment variable.

Ultralytics looks for a relative `path:` of a data YAML in the working directory and then in its datasets folder, which
is a setting of the user's account. `DET_LS_DATA` names another folder for one process: a dataset that is there is used
from there, and everything else behaves as without the variable, the download included.
"""

from __future__ import annotations

import inspect
import os
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePath
from typing import Any

import yaml

from det_ls.base.arguments import examples
from det_ls.base.errors import DataError, DownloadError, MissingFileError
from det_ls.stock.patches import datasets_folder

ENVIRONMENT_VARIABLE = "DET_LS_DATA"
MAX_CLASSES = 100_000  # of a data set; ImageNet-21k has 21841
_YAML_SUFFIXES = (".yaml", ".yml")


def local_data_file(data: object) -> Path | None:
    """Return the data YAML on this machine that a `data=` argument names.

    It is found as Ultralytics finds it: as a path, as a file name or a bare dataset name (`coco8`) among the YAMLs that
    Ultralytics ships, or as the one YAML in a folder. Nothing is downloaded.

    Args:
        data: Whatever a user may give as `data=`.

    Returns:
        The YAML's path, or None for URLs, archives, NDJSON files, lists, None, and names that are not found.
    """
    if not isinstance(data, (str, PurePath)) or not str(data).strip() or "://" in str(data):
        return None
    from ultralytics.data.utils import find_dataset_yaml
    from ultralytics.utils.checks import check_file

    name = str(data).strip()
    names = [name]
    if not Path(name).exists() and not name.lower().endswith(_YAML_SUFFIXES):
        names = [name + suffix for suffix in _YAML_SUFFIXES]
    found = next((match for x in names if (match := check_file(x, download=False, hard=False))), None)
    if found is None:
        return None
    file = Path(found)
    if file.is_dir():
        try:
            file = find_dataset_yaml(file)
        except AssertionError:  # Ultralytics' way of saying "none, or more than one"
            return None
    return file if file.name.lower().endswith(_YAML_SUFFIXES) else None


def class_names(data_file: str | Path) -> dict[int, str]:
    """Read the class names of a data YAML by Ultralytics' rules, without looking for its images.

    Args:
        data_file: A data YAML with `names` (a list or a mapping from index to name), or with `nc` alone.

    Returns:
        Names by class index, 0 to K - 1. Without `names` they are `class_0`, `class_1`, ...

    Raises:
        FileNotFoundError: If the file does not exist.
        ValueError: If it is no YAML mapping, or gives no usable classes.
    """
    from ultralytics.nn.autobackend import check_class_names

    content = _read_yaml(Path(data_file))
    names, count = content.get("names"), content.get("nc")
    if count is not None:
        try:
            number = float(count)
        except (TypeError, ValueError):
            number = float("nan")
        if not number.is_integer() or number < 1:  # a count such as '10' or 10.0 is fine with Ultralytics
            raise DataError(f"data: expected nc in '{data_file}' to be a positive integer, got {count!r}.")
        if number > MAX_CLASSES:  # before a name is made for each
            raise DataError(f"data: expected nc in '{data_file}' to be at most {MAX_CLASSES}, got {count!r}.")
        count = int(number)
    if names is None:
        if count is None:
            raise DataError(
                f"data: expected class names under 'names' (or a count under 'nc') in '{data_file}', got neither."
            )
        names = [f"class_{i}" for i in range(count)]
    if not isinstance(names, (list, dict)) or not names:
        raise DataError(f"data: expected names in '{data_file}' to be a list or mapping of class names, got {names!r}.")
    if count is not None and len(names) != count:
        raise DataError(f"data: expected as many names as nc in '{data_file}', got {len(names)} names and nc {count}.")
    try:
        checked = dict(sorted(check_class_names(names).items()))
    except (KeyError, TypeError, ValueError):
        checked = {}
    if repeated := [name for name, times in Counter(map(str, checked.values())).items() if times > 1]:
        raise DataError(f"data: expected different names in '{data_file}', got {examples(repeated)} repeatedly.")
    if list(checked) != list(range(len(names))):
        raise DataError(
            f"data: expected names in '{data_file}' to have the indices 0 to {len(names) - 1}, got {list(names)}."
        )
    return checked


@contextmanager
def dataset_root(data: object) -> Iterator[None]:
    """Let Ultralytics resolve the dataset of `data` in the folder that `DET_LS_DATA` names, if it is there.

    Within the context, a relative `path:` resolves to `$DET_LS_DATA/<path>` when that exists. Without the variable,
    without the dataset in that folder, and for anything but a local data YAML nothing changes: Ultralytics looks in
    its own datasets folder, and downloads to it. The user's settings file is not touched. As in stock Ultralytics, a
    folder of that name in the working directory comes before either, and a warning says so.

    Contexts may be nested, each for its own dataset. The folder is a global of Ultralytics, so a context holds for the
    whole process: do not open contexts of different datasets in several threads at once.

    Args:
        data: Whatever a user may give as `data=`.
    """
    if not os.environ.get(ENVIRONMENT_VARIABLE):
        yield
        return
    with datasets_folder(_root_of(data)):
        yield


def check_dataset(data: str | Path, split: str = "val") -> dict[str, Any]:
    """Resolve (and download, if need be) a detection dataset, as stock `check_det_dataset` does.

    Args:
        data: A data YAML, the name of one that Ultralytics ships, a folder with one, an archive, or a URL.
        split: The split whose images have to exist: "train", "val" or "test".

    Returns:
        The content of the data YAML with absolute image paths, `names` by class index and `nc`.

    Raises:
        FileNotFoundError: If the YAML, the split or its images do not exist.
        ConnectionError: If a download fails.
        ValueError: If the YAML is not a valid description of a detection dataset.
    """
    from ultralytics.data.utils import check_det_dataset

    # Older releases only look at the val images, whatever split the caller needs.
    options: dict[str, Any] = {"split": split} if "split" in inspect.signature(check_det_dataset).parameters else {}
    try:
        with dataset_root(data):
            resolved: dict[str, Any] = check_det_dataset(str(local_data_file(data) or data), **options)
    except FileNotFoundError as error:
        raise MissingFileError(
            f"data: expected a data set, got '{data}', which was not found ({_first_line(error)})."
        ) from error
    except ConnectionError as error:
        raise DownloadError(
            f"data: expected a data set, got '{data}', which could not be downloaded ({_first_line(error)})."
        ) from error
    except (
        SyntaxError,
        AssertionError,
        AttributeError,
        IndexError,
        KeyError,
        OSError,
        OverflowError,
        RecursionError,
        TypeError,
        ValueError,
        yaml.YAMLError,
    ) as error:
        raise DataError(f"data: expected a valid data set, got '{data}' ({_first_line(error)}).") from error
    images = resolved.get(split)
    if not images:
        raise MissingFileError(f"data: expected '{split}' images in '{data}', got none: its YAML has no such key.")
    for path in [images] if isinstance(images, str) else images:
        if not os.path.exists(str(path)):
            raise MissingFileError(f"data: expected '{split}' images of '{data}' at '{path}', got none.")
    return resolved


def _root_of(data: object) -> Path | None:
    """Return the folder of `DET_LS_DATA` when it holds the dataset of `data`, else None."""
    from ultralytics.utils import LOGGER

    root = Path(os.environ[ENVIRONMENT_VARIABLE]).expanduser().resolve()
    if not root.is_dir():
        LOGGER.warning(f"{ENVIRONMENT_VARIABLE}='{root}' is not a folder and is ignored.")
        return None
    file = local_data_file(data)
    if file is None:
        return None
    try:
        name = _read_yaml(file).get("path")
    except ValueError:
        return None  # the caller is about to read the same file, and will say what is wrong with it
    # '.' and '..' are meant relative to where the user stands, not to a collection of datasets.
    if not isinstance(name, str) or Path(name).is_absolute() or not Path(name).parts or ".." in Path(name).parts:
        return None
    if not (root / name).exists():
        return None
    if Path(name).exists() and not Path(name).samefile(root / name):
        LOGGER.warning(f"'{Path(name).resolve()}' in the working directory is used, not '{root / name}'.")
    return root


def _read_yaml(file: Path) -> dict[str, Any]:
    """Read a YAML mapping, raising ValueError with one sentence for anything else."""
    from ultralytics.utils import YAML

    if not file.is_file():
        raise MissingFileError(f"data: expected a data YAML, got '{file}', which does not exist.")
    try:
        return dict(YAML.load(file))
    except (AssertionError, AttributeError, OSError, RecursionError, TypeError, ValueError) as error:
        raise DataError(f"data: expected a YAML mapping, got '{file}' ({_first_line(error)}).") from error


def _first_line(error: Exception) -> str:
    """Return the first line of an Ultralytics error without its emoji and closing period."""
    text = str(error.args[0]) if error.args else ""
    line = next((line for line in text.splitlines() if line.strip()), type(error).__name__)
    return " ".join(line.replace("❌", "").split()).rstrip(" .")
