# SPDX-License-Identifier: AGPL-3.0-or-later
"""The slice of the training images that ``label_smoothing=adaptive`` is steered by, and that is not trained on.

A tenth of the images that the run would train on, at least 20, is drawn with the run's seed. Both parts are listed in
the run folder, so that everybody can see them, and a resumed run and each process of a distributed one have the same.
Nobody knows which images belong together: slices of one patient may be on both sides, and the gap is then too small.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path

from ultralytics.utils import LOGGER

from det_ls.base.errors import ArgumentError, MissingFileError
from det_ls.base.files import write_atomically
from det_ls.data.ground_truth import list_images
from det_ls.smoothing.settings import ADAPTIVE, PREFIX, LabelSmoothing

TASKS = ("detect", "segment", "pose", "obb")
TRAIN_LIST, HELD_OUT_LIST = f"{PREFIX}_train.txt", f"{PREFIX}_held_out.txt"
SHARE, LEAST = 0.1, 20  # images


def check_adaptive(keys: LabelSmoothing, task: str | None, family: str) -> None:
    """Raise if a run's epsilon cannot be steered.

    Args:
        keys: The keys in force.
        task: The task of the run; None if it is not known yet.
        family: The family of its model, "" for the usual ones.

    Raises:
        ValueError: If it cannot.
    """
    wrong = ""
    if task is not None and task not in TASKS:
        wrong = f"a task among {', '.join(TASKS)}, got {task!r}"
    elif family:
        wrong = f"a usual YOLO model, got one of the family {family}, whose classes are prompts"
    if keys.adaptive and wrong:
        raise ArgumentError(f"{PREFIX}={ADAPTIVE}: expected {wrong}.")


def hold_out(
    source: str | Sequence[str], folder: Path, *, fraction: object, seed: int, resumed: Path | None = None
) -> None:
    """Divide the training images, and list both parts in the run folder; a resumed run keeps its lists.

    Args:
        source: The training split: a folder, a list of images, or several of these.
        folder: The run folder.
        fraction: The run's ``fraction=``: what is left out of the run is in neither part.
        seed: The run's seed.
        resumed: The folder that a run which goes on had until now; None for a new run.

    Raises:
        FileNotFoundError: If a list of a resumed run, or an image, is gone.
        ValueError: If there are too few images, or one is listed twice.
    """
    files = [folder / TRAIN_LIST, folder / HELD_OUT_LIST]
    if resumed is not None:
        for file in files:
            known = resumed / file.name
            if not known.is_file():
                raise MissingFileError(
                    f"{PREFIX}={ADAPTIVE}: expected the run's list of images '{known}', got no file."
                )
            list_images(str(known))  # each image is there
            if not (file.is_file() and file.samefile(known)):
                file.parent.mkdir(parents=True, exist_ok=True)
                write_atomically(file, known.read_bytes())
        return
    train, held_out = divide(list_images(source), fraction, seed)
    for file, images in zip(files, (train, held_out), strict=True):
        file.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(file, "".join(f"{image}\n" for image in images).encode("utf-8"))
    LOGGER.info(
        f"label smoothing: {len(held_out)} of {len(train) + len(held_out)} training images are held out to steer "
        f"epsilon by ({files[1]}); images that belong together are not known, and may be on both sides"
    )


def divide(images: Sequence[str], fraction: object, seed: int) -> tuple[list[str], list[str]]:
    """Draw the slice.

    Args:
        images: The training images in stock's order, each once.
        fraction: As in :func:`hold_out`: a share, a number of images, or a list that begins with the training split's.
        seed: The seed.

    Returns:
        The images to train on, and those that are held out, both in order.

    Raises:
        ValueError: If fewer than half of the images would be left to train on.

    Examples:
        >>> train, held_out = divide([f"{i}.png" for i in range(300)], 1.0, seed=0)
        >>> len(train), len(held_out), set(train) & set(held_out)
        (270, 30, set())
    """
    if isinstance(fraction, (list, tuple)):
        fraction = fraction[0] if fraction else 1.0
    of_all = isinstance(fraction, int) and fraction > 1
    count = int(str(fraction)) if of_all else max(1, round(len(images) * float(str(fraction))))  # as stock does
    images = list(images)[:count]
    size = max(LEAST, round(SHARE * len(images)))
    if 2 * size > len(images):
        raise ArgumentError(
            f"{PREFIX}={ADAPTIVE}: expected at least {2 * LEAST} training images, {LEAST} of which are held out, "
            f"got {len(images)}."
        )
    chosen = set(random.Random(seed).sample(range(len(images)), size))
    return [p for i, p in enumerate(images) if i not in chosen], [images[i] for i in sorted(chosen)]
