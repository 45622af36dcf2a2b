# SPDX-License-Identifier: AGPL-3.0-or-later
"""Training options that change the batch, the schedule or the weights of the loss leave the smoothed targets as asked."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import ultralytics
from probe import watch_training
from ultralytics.engine import trainer as engine
from ultralytics.engine.trainer import BaseTrainer

import det_ls

OPTIONS = {
    "multi_scale": {"multi_scale": 0.5},
    "class weights": {"cls_pw": 0.5},
    "freeze": {"freeze": 10},
    "fraction": {"fraction": 0.5},
    "close_mosaic": {"mosaic": 1.0, "close_mosaic": 1, "epochs": 2},
    "accumulation": {"nbs": 8},
    "rectangles": {"rect": True},
    "another optimizer": {"optimizer": "AdamW"},
    "masks of objects": {"overlap_mask": False},
}


@pytest.mark.parametrize("option", OPTIONS)
def test_an_option_leaves_the_targets_as_asked(option, task_data, quick):
    arguments = OPTIONS[option]
    unknown = set(arguments) - set(vars(ultralytics.cfg.get_cfg()))
    if unknown:
        pytest.skip(f"ultralytics {ultralytics.__version__} has no {', '.join(unknown)}")
    with watch_training() as records:
        det_ls.YOLO("yolo11n-seg.yaml").train(
            data=str(task_data("segment")), label_smoothing=0.2, **{**quick, **arguments}
        )
    found = records.epsilons()
    assert found, "no foreground was seen"
    assert found == pytest.approx([0.2] * len(found), abs=5e-3)


def test_a_time_limit_moves_the_schedule_with_the_number_of_epochs(tiny, quick, monkeypatch):
    clock = SimpleNamespace(now=0.0, time=lambda: clock.now)  # the trainer's, whose epochs take 20 s each
    monkeypatch.setattr(engine, "time", clock)
    epochs = {}
    model = det_ls.YOLO("yolo11n.yaml")
    model.add_callback("on_train_epoch_start", lambda t: epochs.setdefault(t.epoch, t.epochs))
    model.add_callback("on_train_epoch_end", lambda t: setattr(clock, "now", clock.now + 20))
    keys = {"label_smoothing": 0.3, "label_smoothing_schedule": "linear"}
    with watch_training() as records:
        model.train(data=str(tiny), time=70 / 3600, **keys, **{**quick, "epochs": 3})
    assert epochs == {0: 3, 1: 4, 2: 4, 3: 4}  # three as asked, until stock has timed an epoch
    for epoch, total in epochs.items():
        found = records.epsilons(epoch)
        assert found, f"no foreground was seen in epoch {epoch}"
        assert found == pytest.approx([0.3 * (1 - epoch / (total - 1))] * len(found), abs=5e-3)


def test_an_early_stop_leaves_the_schedule_as_asked(tiny, quick, monkeypatch):
    stock = BaseTrainer.validate

    def validate(self):
        metrics, _ = stock(self)
        return metrics, 1 / (self.epoch + 1)  # the first epoch is the best

    monkeypatch.setattr(BaseTrainer, "validate", validate)
    keys = {"label_smoothing": 0.3, "label_smoothing_schedule": "linear"}
    with watch_training() as records:
        det_ls.YOLO("yolo11n.yaml").train(data=str(tiny), **keys, **{**quick, "epochs": 5, "patience": 2})
    assert {r["epoch"] for r in records} == {0, 1, 2}  # stopped in the third of five
    for epoch in range(3):
        found = records.epsilons(epoch)
        assert found, "no foreground was seen"
        assert found == pytest.approx([0.3 * (1 - epoch / 4)] * len(found), abs=5e-3)
