# SPDX-License-Identifier: AGPL-3.0-or-later
"""A run that is killed and resumed ends with the very weights of one that nothing disturbed."""

from __future__ import annotations

import pytest
from ultralytics.utils.patches import torch_load

from det_ls.training.exact import ExactDetectionTrainer, state_file
from det_ls.training.model import YOLO


class Killed(Exception):
    """Stands for the end of a process."""


def weights_of(run):
    checkpoint = torch_load(run / "weights" / "last.pt", map_location="cpu")
    return (checkpoint.get("ema") or checkpoint["model"]).float().state_dict()


def rows_of(run):
    """Return results.csv but for the time."""
    return [[c for i, c in enumerate(line.split(",")) if i != 1] for line in (run / "results.csv").open()]


@pytest.mark.parametrize(
    ("steps", "amid"),
    [
        ({"nbs": 9, "warmup_epochs": 1}, 0),
        ({"nbs": 12, "warmup_epochs": 0}, 2),  # four batches a step, of which the second epoch ends with two
    ],
)
def test_resumed_is_undisturbed(steps, amid, tiny, quick, tmp_path):
    # Mosaics from a buffer of images until the last epoch, AdamW, and a warm-up or several batches a step of the
    # optimizer: all of it has a state that stock's last.pt does not hold.
    words = {
        **quick,
        **{"data": str(tiny), "imgsz": 32, "epochs": 3, "batch": 3, "mosaic": 1.0, "close_mosaic": 1},
        **{"optimizer": "AdamW", "lr0": 1e-3, **steps, "label_smoothing": 0.1, "exist_ok": True},
    }
    runs = tmp_path / "runs"
    # With new settings the first run of a process draws random numbers that later ones do not, as stock's runs do.
    YOLO("yolo11n.yaml").train(trainer=ExactDetectionTrainer, **{**words, "epochs": 1}, name="first")
    YOLO("yolo11n.yaml").train(trainer=ExactDetectionTrainer, **words, name="undisturbed")

    def kill(trainer):
        if trainer.epoch == 1:
            raise Killed

    model = YOLO("yolo11n.yaml")
    model.add_callback("on_model_save", kill)
    with pytest.raises(Killed):
        model.train(trainer=ExactDetectionTrainer, **words, name="killed")
    last = runs / "killed" / "weights" / "last.pt"
    assert [f.name for f in last.parent.glob("state-*")] == [state_file(last, 1).name]
    state = torch_load(state_file(last, 1), map_location="cpu")
    assert state["since_step"] == amid
    assert any(bool(gradient.any()) for gradient in state["gradients"].values()) == (amid > 0)
    YOLO(last).train(trainer=ExactDetectionTrainer, resume=True)

    wanted, found = weights_of(runs / "undisturbed"), weights_of(runs / "killed")
    assert max(float((wanted[key] - found[key]).abs().max()) for key in wanted) == 0
    assert rows_of(runs / "killed") == rows_of(runs / "undisturbed")
    assert sorted(f.name for f in last.parent.iterdir()) == ["best.pt", "last.pt"]
