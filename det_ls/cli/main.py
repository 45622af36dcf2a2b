# SPDX-License-Identifier: AGPL-3.0-or-later
"""The ``det-ls`` command: the grammar of ``yolo``, with the label-smoothing keys."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence

from det_ls.cli.train import passthrough

HELP = """det-ls: Ultralytics YOLO with label smoothing, and its measurement.

    det-ls train model=yolo26n.yaml data=datasets/brain-tumor.yaml label_smoothing=0.1 epochs=100
    det-ls train cfg=cfg/brain_tumor.yaml
    det-ls train resume model=runs/detect/train/weights/last.pt
    det-ls val model=runs/detect/train/weights/best.pt data=datasets/brain-tumor.yaml
    det-ls compare a=runs/detect/train/weights/best.pt b=runs/detect/train2/weights/best.pt data=coco8.yaml
    det-ls compare a='runs/detect/stock*/weights/best.pt' b='runs/detect/smooth*/weights/best.pt' data=coco8.yaml
    det-ls metrics annotations=gt.json predictions=detections.json images=datasets/brain-tumor/images/val
    det-ls metrics data=datasets/brain-tumor.yaml predictions=runs/detect/predict/labels

train takes every key of `yolo train` and
    label_smoothing=0.1                   epsilon, or "{'default': 0.05, 'positive': 0.2}"; 0 is stock training
    label_smoothing_mode=redistribute     redistribute, uniform, binary or background
    label_smoothing_similarity=table.csv  where each class's share goes instead of evenly
    label_smoothing_schedule=constant     constant, linear or cosine
val, compare and metrics measure COCO AP and calibration, and write numbers, tables, pictures and report.html. They take
    model, data (val); a, b, data or annotations (compare); predictions, annotations or data (metrics)
    split=val annotations=gt.json imgsz=640 batch=16 conf=0.001 iou=0.7 max_det=300 device= workers=8 end2end=
    protocol=det_ls                       or reference: as the reference tools count, quirks included
    single_cls=                           all classes as one; unset: as the model was trained
    images=folder-or-data.yaml            metrics: where the images are, for the report
    evaluator=pycocotools                 or hotcoco: the same numbers, faster (pip install 'det-ls[fast]')
    bootstrap=1000 level=0.95 seed=0      replicates of the images for intervals, at least 100 (0: none), and coverage
    simulations=100                       of a perfectly calibrated detector, for the floors; 0 for none
    threshold=lrp                         or a number: the score threshold of the boxes that are kept
    miss_cost=1                           what a miss costs in choosing it, where a false alarm costs 1
    split_thresholds=                     val, compare: another split to choose it on
    groups=                               images that belong together: a CSV (image, group) or an expression: '^\\d+'
    a, b                                  compare: a run, a pattern or [a list]; several runs an arm measure seeds
    train_images=0                        val: images of the train split to measure too, for the train/val gap
    save_dir= exist_ok=False              where to write; nothing is overwritten without exist_ok=True
Every other mode is passed on to `yolo` as it is.
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line.

    Args:
        argv: The words after the program's name; ``sys.argv[1:]`` if None.

    Returns:
        The exit status: 0, or 2 after a one-sentence error.
    """
    words = list(sys.argv[1:] if argv is None else argv)
    if not words or words[0] in {"help", "-h", "--help"}:
        print(HELP)
        return 0
    for mode, command in COMMANDS.items():
        if words[:1] == [mode] or words[:2] == ["detect", mode] or f"mode={mode}" in words:
            rest = [word for word in words if word not in {mode, "detect", f"mode={mode}"}]
            return run(lambda command=command, rest=rest: command(rest))  # type: ignore[misc]
    return run(lambda: passthrough(words))


def run(command: Callable[[], object]) -> int:
    """Run a command and turn our own errors into one sentence on stderr.

    Args:
        command: What to run.

    Returns:
        The exit status: 0, or 2 after a one-sentence error.
    """
    try:
        command()
    except (ValueError, TypeError, RuntimeError, OSError, ImportError) as error:
        if not _raised_by_det_ls(error):
            raise
        print(f"det-ls: error: {error}", file=sys.stderr)
        return 2
    return 0


def _raised_by_det_ls(error: BaseException) -> bool:
    """Tell our own one-sentence errors from failures elsewhere, whose traceback a user needs."""
    frames = []
    trace = error.__traceback__
    while trace is not None:
        frames.append(trace.tb_frame.f_globals.get("__name__", ""))
        trace = trace.tb_next
    return bool(frames) and frames[-1].startswith("det_ls.")


def _evaluating(mode: str) -> Callable[[Sequence[str]], None]:
    """Import an evaluating mode only when it is asked for."""

    def command(words: Sequence[str]) -> None:
        from det_ls.cli import evaluate as cli_evaluation

        getattr(cli_evaluation, mode)(words)

    return command


COMMANDS = {mode: _evaluating(mode) for mode in ("val", "metrics", "compare")}
