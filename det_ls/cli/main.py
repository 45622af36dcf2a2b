# SPDX-License-Identifier: AGPL-3.0-or-later
"""The ``det-ls`` command: the grammar of ``yolo``, with the label-smoothing keys."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from det_ls.base.arguments import called_as
from det_ls.base.errors import DetLsError
from det_ls.cli.grammar import MODES, check_words, find_mode, merge_words, task_word
from det_ls.cli.help import CALLED_AS, MORE, mode_help
from det_ls.cli.other import OTHER_COMMANDS
from det_ls.cli.train import Interrupted, passthrough

HELP = """det-ls: Ultralytics YOLO with label smoothing, and its measurement.

    det-ls train model=yolo26n.yaml data=datasets/brain-tumor.yaml label_smoothing=0.1 epochs=100
    det-ls train cfg=cfg/brain_tumor.yaml
    det-ls train resume model=runs/detect/train/weights/last.pt
    det-ls val model=runs/detect/train/weights/best.pt data=datasets/brain-tumor.yaml
    det-ls compare a=runs/detect/train/weights/best.pt b=runs/detect/train2/weights/best.pt data=coco8.yaml
    det-ls compare a='runs/detect/stock*/weights/best.pt' b='runs/detect/smooth*/weights/best.pt' data=coco8.yaml
    det-ls metrics annotations=gt.json predictions=detections.json images=datasets/brain-tumor/images/val
    det-ls metrics data=datasets/brain-tumor.yaml predictions=runs/detect/predict/labels
    det-ls calibrate model=runs/detect/train/weights/best.pt data=datasets/brain-tumor.yaml
    det-ls calibrate model=runs/classify/train/weights/best.pt data=datasets/flowers
    det-ls calibrate annotations=gt.json predictions=detections.json out=calibrated.json
    det-ls calibrate map=map.json annotations=gt.json predictions=other.json out=calibrated.json
    det-ls study data=datasets/brain-tumor.yaml model=yolo26n.yaml epochs=100 label_smoothing=0,0.1 seeds=5

train takes every key of `yolo train` and
    label_smoothing=0.1                   epsilon, or "{'default': 0.05, 'positive': 0.2}"; 0 is stock
    label_smoothing_mode=redistribute     redistribute, uniform, binary or background
    label_smoothing_similarity=table.csv  where each class's share goes instead of evenly
    label_smoothing_schedule=constant     constant, linear or cosine
    calibrate=val                         best_calibrated.pt beside best.pt when the run ends
val, compare and metrics measure COCO AP and calibration, and write numbers, tables, pictures and report.html. val takes
detect, segment, pose (boxes only), obb (rotated boxes) and classify models (accuracy and calibration). They take
    model, data (val); a, b, data or annotations (compare); predictions, annotations or data (metrics)
    split=val annotations=gt.json imgsz=640 batch=16 conf=0.001 iou=0.7 max_det=300 device= workers=8 end2end=
    protocol=det_ls                       or reference: as the reference tools count, quirks included
    single_cls=                           all classes as one; unset: as the model was trained
    images=folder-or-data.yaml            metrics: where the images are, for the report
    evaluator=pycocotools                 or hotcoco: the same numbers, faster (pip install 'det-ls[fast]')
    bootstrap=1000 level=0.95 seed=0      replicates of the images for intervals, at least 100 (0: none), and coverage
    simulations=100                       of a perfectly calibrated detector, for the floors; 0 for none
    threshold=lrp                         or a multiple of 0.01: the score threshold of the boxes that are kept
    miss_cost=1                           what a miss costs in choosing it, where a false alarm costs 1
    split_thresholds=                     val, compare: another split to choose it on
    groups=                               images that belong together: a CSV (image, group) or an expression: '^\\d+'
    a, b                                  compare: a run, a pattern or [a list]; several runs an arm measure seeds
    train_images=0                        val: images of the train split to measure too, for the train/val gap
    save_dir= exist_ok=False              where to write; nothing is overwritten without exist_ok=True
calibrate fits a map of the scores and writes a calibrated checkpoint (or COCO results), map.json and calibration.json.
It takes the keys of val (model, data), or annotations, predictions and out (and map to apply one), and
    method=platt                          or temperature, beta, isotonic, desmooth (the last three do not fold)
    target=iou weighting=score            or tp; above, all: what scores are fitted to, and how boxes weigh
    per_class=False groups=               a map a class, partially pooled; a pattern of the group in file names
    shrink=True                           towards no change, as far as the data cannot tell; False: as it was fitted
    save= recalibrate=False allow_train=False folds=5
study trains and measures a grid, each cell in a folder of its own. It takes every key of train and
    label_smoothing=0,0.05,0.1 label_smoothing_mode=redistribute,background       the arms; 0 is stock training
    seeds=5                               or 10,11,12: equal seeds share initial weights, order of the data and noise
    label_noise=0,0.3 label_drop= label_jitter= fraction=     noise in the training labels, share of the images
    weights=best train_images=200 groups= which checkpoint is measured, and on what
    device=0,1 jobs= cores= memory= budget=3h                 what it may take; one cell a GPU
    executor=local address=               or ray, on a cluster (pip install 'det-ls[ray]')
    resume=FOLDER                         go on with a study; report=FOLDER: read it, without running anything
    save_dir= exist_ok=False
Every other mode is passed on to `yolo` as it is.
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line.

    Args:
        argv: The words after the program's name; ``sys.argv[1:]`` if None.

    Returns:
        The exit status: 0, 2 after a one-sentence error, or 130 after Ctrl-C.
    """
    words = list(sys.argv[1:] if argv is None else argv)
    return run(lambda: _run(words), ["det-ls", *words])


def run(command: Callable[[], object], again: Sequence[str] | None = None) -> int:
    """Run a command and turn our own errors into one sentence on stderr.

    Args:
        command: What to run.
        again: The words that run it again; None for those of this process.

    Returns:
        The exit status: 0, 2 after a one-sentence error, or 130 after Ctrl-C.
    """
    try:
        command()
    except KeyboardInterrupt as interrupt:
        repeat = again or [Path(sys.argv[0]).name, *sys.argv[1:]]
        hint = str(interrupt) if isinstance(interrupt, Interrupted) else f"repeat with: {shlex.join(repeat)}"
        print(f"det-ls: interrupted; {hint}", file=sys.stderr)
        return 130
    except DetLsError as error:
        print(f"det-ls: error: {error}", file=sys.stderr)
        return 2
    return 0


def _run(words: Sequence[str]) -> None:
    """Run the command that the words name."""
    asked = [word for word in words if word in {"-h", "--help"} or words[:1] == [word] == ["help"]]
    if not words or words[0] in {"-V", "--version"}:
        print(_version() if words else HELP + MORE)
        return
    if words[0] in OTHER_COMMANDS and not asked:
        OTHER_COMMANDS[words[0]](words[1:])
        return
    named = [word for word in words if word not in asked]
    mode, rest = find_mode(named, COMMANDS, MEASURED_TASKS, [command for command in COMMANDS if command not in MODES])
    if asked:
        print(mode_help(mode or ("train" if "train" in words else "")) or HELP + MORE)
    elif mode is not None:
        with called_as(CALLED_AS.get(mode, {})):
            COMMANDS[mode]([*rest, *task_word(named)] if mode in {"val", "study"} else rest)
    else:
        check_words(words, [*COMMANDS, *OTHER_COMMANDS])
        passthrough(merge_words(words) if words[0] != "settings" else words)


def _version() -> str:
    """Name our version and those of what the numbers depend on."""
    from importlib.metadata import PackageNotFoundError, version

    from det_ls.base.version import __version__

    parts = []
    for package in ("ultralytics", "torch"):
        try:
            parts.append(f"{package} {version(package)}")
        except PackageNotFoundError:
            parts.append(f"no {package}")
    return f"det-ls {__version__} ({', '.join(parts)})"


def _evaluating(mode: str) -> Callable[[Sequence[str]], None]:
    """Import an evaluating mode only when it is asked for."""

    def command(words: Sequence[str]) -> None:
        from det_ls.cli import evaluate as cli_evaluation

        getattr(cli_evaluation, mode)(words)

    return command


def _calibrating(words: Sequence[str]) -> None:
    """Import the calibrating mode only when it is asked for."""
    from det_ls.cli.calibrate import calibrate

    calibrate(words)


def _studying(words: Sequence[str]) -> None:
    """Import the studying mode only when it is asked for."""
    from det_ls.cli.study import study

    study(words)


COMMANDS = {
    **{mode: _evaluating(mode) for mode in ("val", "metrics", "compare")},
    "calibrate": _calibrating,
    "study": _studying,
}
MEASURED_TASKS = ("detect", "segment", "pose", "obb", "classify")  # a word for another task leaves `val` to Ultralytics
