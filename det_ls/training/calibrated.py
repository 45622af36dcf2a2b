# SPDX-License-Identifier: AGPL-3.0-or-later
"""The key ``calibrate``: at the end of a run, best_calibrated.pt beside best.pt."""

from __future__ import annotations

import math
import shlex
from pathlib import Path
from typing import Any

from ultralytics.utils import LOGGER, RANK, YAML

from det_ls.base.errors import ArgumentError, DetLsError
from det_ls.base.folders import claim_folder
from det_ls.calibration.fold import load_checkpoint, read_record
from det_ls.calibration.judge import Change
from det_ls.calibration.results import MAP_FILE, NUMBERS_FILE
from det_ls.data.locate import local_data_file
from det_ls.smoothing.settings import LabelSmoothing

TASKS = ("detect", "segment", "pose")
CALIBRATED = "The weights are calibrated; training changes the scores, and what it saves will not be calibrated."


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


class CalibrationInterrupted(KeyboardInterrupt):
    """Ctrl-C during the calibration at the end of a run; the message says how to calibrate it."""


def forget_calibration(trainer: Any) -> None:
    """Remove the calibration of an earlier best.pt once another one is in its place.

    A calibrated file beside a best.pt that it was not made of would be taken for that one's. With ``exist_ok`` a run
    replaces the best.pt of an earlier run, and on resume its own.

    Args:
        trainer: The trainer, whose ``save_model`` has just run.
    """
    if RANK not in {-1, 0} or trainer.best_fitness != trainer.fitness:  # best.pt was not written
        return
    removed = [file for file in _calibration_of(trainer) if file.exists()]
    for file in removed:
        file.unlink(missing_ok=True)
    if removed:
        names = ", ".join(file.name for file in removed)
        LOGGER.warning(f"calibrate: removed {names}, made of an earlier best.pt than the one that was just written.")


def warn_if_calibrated(weights: Any) -> None:
    """Say that the calibration of the weights that training starts from will not survive.

    Args:
        weights: The loaded module, which Ultralytics tells its file; None or anything else is not calibrated.
    """
    file = getattr(weights, "pt_path", None)
    if RANK != -1 or not file or not Path(str(file)).is_file():
        return
    try:
        record = read_record(load_checkpoint(Path(str(file))))
    except (ValueError, OSError):
        return
    if record is not None:
        LOGGER.warning(CALIBRATED)


def _calibration_of(trainer: Any) -> tuple[Path, Path, Path]:
    """Name the files of a run that belong to its best.pt: the calibrated checkpoint, the map and the numbers."""
    best, folder = Path(trainer.best), Path(trainer.save_dir)
    return best.with_name(f"{best.stem}_calibrated.pt"), folder / MAP_FILE, folder / NUMBERS_FILE


def calibrate_run(trainer: Any, split: str | None) -> None:
    """Calibrate the best weights of a run that has ended; a run is worth more than its calibration, which may fail.

    Args:
        trainer: The trainer.
        split: The split to calibrate on; None for not.
    """
    if split is None or RANK != -1:  # under DDP the process that launched the others does it
        return
    from det_ls.calibration.calibrate import calibrate

    best, args = Path(trainer.best), trainer.args
    calibrated, *_ = of_best = _calibration_of(trainer)
    settings: dict[str, Any] = {"imgsz": args.imgsz, "iou": args.iou, "max_det": args.max_det}
    try:
        with claim_folder(trainer.save_dir, results=(MAP_FILE, NUMBERS_FILE), exist_ok=True) as place:
            for stale in of_best:  # of another best.pt than the one that is calibrated now
                stale.unlink(missing_ok=True)
            found = calibrate(
                best,
                str(args.data),
                split=split,
                save=calibrated,
                save_dir=place,
                batch=trainer.batch_size,
                device=str(trainer.device),
                workers=args.workers,
                bootstrap=0,
                **settings,
            )
    except KeyboardInterrupt as interrupt:
        words = {"model": best, "data": args.data, "split": split, **settings}
        command = shlex.join(["det-ls", "calibrate", *(f"{key}={value}" for key, value in words.items())])
        raise CalibrationInterrupted(f"the run is finished, {best} is its result, calibrate it with: {command}") from (
            interrupt
        )
    except Exception as error:  # whatever fails here, the run is finished and its weights are safe
        reason = str(error) if isinstance(error, DetLsError) else f"{type(error).__name__}: {error}"
        LOGGER.warning(f"calibrate: {calibrated.name} was not written, {best.name} is as it was: {reason}")
        return
    LOGGER.info(written(calibrated, split, found.numbers["kept"]["LaECE0"]))


def written(file: Path, split: str, change: Change) -> str:
    """Say that a calibrated checkpoint was written, and what that did to the kept boxes.

    Args:
        file: The checkpoint.
        split: The split it was calibrated on.
        change: The kept boxes' LaECE0, which is nan without such boxes.

    Returns:
        The line.

    Examples:
        >>> written(Path("best.pt"), "val", Change(0.2, 0.05))
        'calibrate: best.pt written, LaECE0 of the kept boxes of val 0.2000 before, 0.0500 after (cross-fitted)'
        >>> written(Path("best.pt"), "val", Change(float("nan"), float("nan")))
        'calibrate: best.pt written; no box of val is kept by which it could be judged'
    """
    if math.isnan(change.before) or math.isnan(change.after):
        return f"calibrate: {file} written; no box of {split} is kept by which it could be judged"
    numbers = f"LaECE0 of the kept boxes of {split} {change.before:.4f} before, {change.after:.4f} after"
    return f"calibrate: {file} written, {numbers} (cross-fitted)"
