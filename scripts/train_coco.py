# SPDX-License-Identifier: AGPL-3.0-or-later
"""Train a model as ``det-ls train`` does, then evaluate its best checkpoint: boxes with pycocotools, or a classifier.

    python scripts/train_coco.py cfg=cfg/coco.yaml device=0

Takes every key of ``det-ls train``; ``annotations=instances_val2017.json`` names the official ground truth when the
data YAML has no ``annotations:`` key. Predictions and metrics are written to the run folder's ``coco/``.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any


def train_and_evaluate(words: Sequence[str]) -> Any:
    """Train, then evaluate the best checkpoint at the training image size.

    Args:
        words: The words of the command line, without ``train``.

    Returns:
        The :class:`det_ls.Evaluation`, or that of a classifier.
    """
    from det_ls import evaluate
    from det_ls.base.errors import ArgumentError
    from det_ls.cli.grammar import arguments_of, key_values
    from det_ls.cli.train import passthrough
    from det_ls.data.coco import read_ground_truth

    words = list(words)
    own = key_values([word for word in words if word.startswith("annotations=")])
    words = ["train", *(word for word in words if not word.startswith("annotations="))]
    if "annotations" in own:
        read_ground_truth(own["annotations"], "annotations")  # before the training, which takes long
    if isinstance(arguments_of(words).get("data"), (list, tuple)):
        raise ArgumentError("data: expected one data set, got several.")
    model = passthrough(words)
    if model is None:
        raise ArgumentError("model: expected a YOLO detection model, got one that det-ls does not train.")
    trainer = model.trainer
    return evaluate(
        str(trainer.best if trainer.best.exists() else trainer.last),
        trainer.args.data,
        split=trainer.args.split,
        annotations=own.get("annotations"),
        imgsz=trainer.args.imgsz,
        batch=trainer.args.batch,
        device=trainer.args.device,
        save_dir=trainer.save_dir / "coco",
        exist_ok=bool(trainer.args.exist_ok or trainer.args.resume),
    )


def main() -> int:
    from det_ls.cli.help import mode_help
    from det_ls.cli.main import run
    from det_ls.evaluation.results import Evaluation
    from det_ls.report.classification_page import classification_text
    from det_ls.report.printed import evaluation_text

    def command() -> None:
        found = train_and_evaluate(sys.argv[1:])
        print(evaluation_text(found) if isinstance(found, Evaluation) else classification_text(found))

    if {"-h", "--help", "help"} & set(sys.argv[1:2]) or len(sys.argv) == 1:
        print(__doc__, mode_help("train"), sep="\n")
        return 0
    return run(command)


if __name__ == "__main__":
    sys.exit(main())
