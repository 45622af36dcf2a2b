# SPDX-License-Identifier: AGPL-3.0-or-later
"""The key ``calibrate``: at the end of a run, best_calibrated.pt beside best.pt."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ultralytics.utils import LOGGER, RANK, YAML

from det_ls.base.errors import ArgumentError
from det_ls.data.locate import local_data_file
from det_ls.smoothing.settings import LabelSmoothing

TASKS = ("detect", "segment", "pose")


def check_calibrate(keys: LabelSmoothing, task: str | None, family: str, data: object, single_cls: object) -> None:
    """Raise if a run cannot be calibrated when it ends.

    Args:
        keys: The keys in force.
        task: The task of the run; None if it is not known yet.
        family: The family of its model, "" for the usual ones.
        data: Its data set.
        single_cls: Whether it takes all classes for one.

    Raises:
        ValueError: If it cannot.
    """
    if keys.calibrate is None:
        return
    wrong = ""
    if task is not None and task not in TASKS:
        wrong = f"a task among {', '.join(TASKS)}, got {task!r}"
    elif family:
        wrong = f"a model whose class branch ends in a convolution, got one of the family {family}"
    elif single_cls:
        wrong = "classes that the data set knows, got single_cls=True"
    elif data is not None and not isinstance(data, (str, Path)):
        wrong = f"one data set, named by its data YAML, got {type(data).__name__}"
    elif data is not None and (file := local_data_file(data)) is not None:
        known = YAML.load(file)
        if not known.get(keys.calibrate):
            wrong = f"a split of the data set, got {keys.calibrate!r}, which '{file.name}' does not have"
    if wrong:
        raise ArgumentError(f"calibrate: expected {wrong}.")


def calibrate_run(trainer: Any, split: str | None) -> None:
    """Calibrate the best weights of a run that has ended; a run is worth more than its calibration, which may fail.

    Args:
        trainer: The trainer.
        split: The split to calibrate on; None for not.
    """
    if split is None or RANK != -1:  # under DDP the process that launched the others does it
        return
    from det_ls.calibration.calibrate import calibrate
    from det_ls.calibration.results import MAP_FILE, NUMBERS_FILE

    best, args = Path(trainer.best), trainer.args
    calibrated = best.with_name(f"{best.stem}_calibrated.pt")
    for stale in (calibrated, trainer.save_dir / MAP_FILE, trainer.save_dir / NUMBERS_FILE):  # of a run replaced here
        stale.unlink(missing_ok=True)
    try:
        found = calibrate(
            best,
            str(args.data),
            split=split,
            save_dir=trainer.save_dir,
            imgsz=args.imgsz,
            batch=trainer.batch_size,
            iou=args.iou,
            max_det=args.max_det,
            device=str(trainer.device),
            workers=args.workers,
            bootstrap=0,
        )
    except (ValueError, OSError, RuntimeError) as error:
        LOGGER.warning(f"calibrate: {calibrated.name} was not written, {best.name} is as it was: {error}")
        return
    change = found.numbers["kept"]["LaECE0"]
    LOGGER.info(
        f"calibrate: {calibrated} written, LaECE0 of the kept boxes of {split} {change.before:.4f} before, "
        f"{change.after:.4f} after (cross-fitted)"
    )
