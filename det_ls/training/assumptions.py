# SPDX-License-Identifier: AGPL-3.0-or-later
"""What the trainer assumes of Ultralytics; :func:`check_trainer` checks the names and signatures.

1. ``BaseTrainer.__init__`` calls ``check_resume(overrides)`` after it made ``self.args`` and before it writes
   args.yaml, and ``get_dataset()`` last of what can fail.
2. ``resume_training(ckpt)`` is the last step of the set-up of model, class weights, EMA and end-to-end state.
3. ``run_callbacks("on_train_epoch_start")`` follows the assignment of ``self.epoch``; ``save_metrics(metrics)`` comes
   before ``save_model()``, both in the first process only.
4. ``get_validator`` and nothing else makes a config from ``self.args`` again, and ``_load_checkpoint_state(ckpt)``
   (resume and NaN recovery) and nothing else copies the live model.
5. ``save_model()`` saves ``vars(self.args)`` as ``train_args``, unknown keys included.
6. ``save_model()`` writes checkpoints with ``Path.write_bytes``, and ``final_eval()`` strips them with
   ``engine.trainer.strip_optimizer(f, s, updates)`` (:mod:`det_ls.stock.patches`).
7. ``self.lr`` is made before ``run_callbacks("on_train_epoch_end")``, in which loggers log what is in it.
8. ``engine.trainer.generate_ddp_command`` is called before DDP workers start (:mod:`det_ls.stock.patches`).
"""

from __future__ import annotations

from ultralytics.engine import trainer as engine
from ultralytics.models.yolo.detect import DetectionTrainer

from det_ls.stock.expect import Attribute, Method, Source, expect

ASSUMPTIONS = (
    Method(DetectionTrainer, "check_resume", ("overrides",)),
    Method(DetectionTrainer, "get_dataset"),
    Method(DetectionTrainer, "train"),
    Method(DetectionTrainer, "resume_training", ("ckpt",)),
    Method(DetectionTrainer, "run_callbacks", ("event",)),
    Method(DetectionTrainer, "save_metrics", ("metrics",)),
    Method(DetectionTrainer, "save_model"),
    Method(DetectionTrainer, "get_validator"),
    Method(DetectionTrainer, "_load_checkpoint_state", ("ckpt",)),
    Method(DetectionTrainer, "final_eval"),
    Source(engine.BaseTrainer, "self.last.write_bytes("),
    Attribute(engine, "strip_optimizer"),
    Attribute(engine, "generate_ddp_command"),
)


def check_trainer() -> None:
    """Check the names and signatures that the trainer assumes of Ultralytics.

    Raises:
        RuntimeError: If one does not hold; it names the version and what is missing.
    """
    expect("trainer", *ASSUMPTIONS)
