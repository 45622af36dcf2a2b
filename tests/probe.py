# SPDX-License-Identifier: AGPL-3.0-or-later
"""Read, from the gradient of a real training step, the classification targets that the criterion used.

For binary cross-entropy with logits x and target t, d loss / d x = scale * (sigmoid(x) - t). Background anchors (t = 0)
give the scale, foreground anchors then give their targets: nothing here knows how the criterion is written. For a
classifier the sigmoid is a softmax and there is no background.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from ultralytics.engine.trainer import BaseTrainer
from ultralytics.utils.torch_utils import unwrap_model


def recover_targets(logits: torch.Tensor, gradient: torch.Tensor) -> torch.Tensor:
    """Return the foreground rows' targets, (N, K), from the head's (B, K, A) logits and their gradient."""
    x = logits.detach().double().permute(0, 2, 1).flatten(0, 1)
    g = gradient.detach().double().permute(0, 2, 1).flatten(0, 1)
    scale = (g / x.sigmoid()).median(0).values  # of each class: they may be weighted
    targets = x.sigmoid() - g / scale
    return targets[targets.abs().sum(1) > 1e-3]


def recover_class_targets(logits: torch.Tensor, gradient: torch.Tensor, processes: int = 1) -> torch.Tensor:
    """Return a classifier's targets, (N, K): for mean cross-entropy d loss / d x = (softmax(x) - t) / N.

    Ultralytics multiplies the loss by the number of processes.
    """
    return logits.detach().double().softmax(1) - len(logits) / processes * gradient.detach().double()


class Records(list):
    """One dict a training step: epoch, and of each half of the head the foreground rows over their largest, and that."""

    def epsilons(self, epoch: int | None = None) -> list[float]:
        """Recover eps of `redistribute` from every half of every step: off-diagonal / diagonal = eps/(K-1)/(1-eps)."""
        found = []
        for record in self:
            if epoch is not None and record["epoch"] != epoch:
                continue
            for rows in record["halves"].values():
                ratio = torch.tensor(rows).sort(descending=True).values[:, 1:].mean().item()
                others = len(rows[0]) - 1
                found.append(others * ratio / (1 + others * ratio))
        return found


@contextmanager
def watch_training(file: Path | None = None) -> Iterator[Records]:
    """Record the targets of every training step of every trainer of this process."""
    records = Records()

    def on_train_start(trainer) -> None:
        captured: dict[str, torch.Tensor] = {}

        def keep(module, inputs, output) -> None:
            if module.training:
                if isinstance(output, torch.Tensor):  # a classifier's
                    output = {"scores": output}
                parts = output if "one2many" in output else {"only": output}
                captured.clear()
                for name, part in parts.items():
                    if part is not None and isinstance(part, dict):
                        part["scores"].retain_grad()
                        captured[name] = part["scores"]

        model = unwrap_model(trainer.model)
        model = getattr(model, "student_model", model)
        model.model[-1].register_forward_hook(keep)
        trainer.captured_scores = captured

    def on_train_batch_end(trainer) -> None:
        halves, largest = {}, {}
        for name, scores in trainer.captured_scores.items():
            if scores.ndim == 2:
                rows = recover_class_targets(scores, scores.grad, max(1, trainer.world_size))
            else:
                rows = recover_targets(scores, scores.grad)
            if len(rows):
                halves[name] = (rows / rows.amax(1, keepdim=True)).tolist()
                largest[name] = rows.amax().item()
        records.append({"epoch": trainer.epoch, "run": str(trainer.save_dir), "halves": halves, "largest": largest})
        if file is not None:
            file.write_text(json.dumps(records))

    hooks = {"on_train_start": on_train_start, "on_train_batch_end": on_train_batch_end}
    stock = BaseTrainer.run_callbacks

    def run_callbacks(self, event: str) -> None:
        if event in hooks:
            hooks[event](self)
        stock(self, event)

    BaseTrainer.run_callbacks = run_callbacks
    try:
        yield records
    finally:
        BaseTrainer.run_callbacks = stock
