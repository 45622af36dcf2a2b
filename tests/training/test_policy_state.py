# SPDX-License-Identifier: AGPL-3.0-or-later
"""A policy that learns: its state is in last.pt as plain values, and a resumed run goes on with it."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import ultralytics
import yaml
from probe import watch_training
from ultralytics.utils.patches import torch_load

import det_ls
from det_ls.smoothing.matrix import smoothing_matrix
from det_ls.smoothing.policy import POLICIES, Policy, register_policy
from det_ls.training.policy_state import STATE_KEY, restore, saved_with


class Rising(Policy):
    """Raises epsilon by a tenth of the configured one with every epoch that it has seen, and keeps the losses."""

    def __init__(self, epsilon, classes):
        self.epsilon, self.classes, self.seen = epsilon, classes, []

    def current(self):
        return self.epsilon * (1 + len(self.seen) / 2)

    def matrix(self, epoch, epochs):
        return smoothing_matrix(self.classes, self.current())

    def logged(self, epoch, epochs):
        return {"label_smoothing": self.current()}

    def observe(self, facts):
        self.seen.append(facts.metrics["train/cls_loss"])

    def state_dict(self):
        return {"seen": list(self.seen)}

    def load_state_dict(self, state):
        self.seen = list(state["seen"])


@pytest.fixture
def rising():
    register_policy("rising")(lambda keys, names, table: Rising(keys.label_smoothing, len(names)))
    yield {"label_smoothing": 0.2, "label_smoothing_schedule": "rising"}
    del POLICIES["rising"]


class Killed(BaseException):
    pass


def test_a_killed_run_resumes_with_the_policys_state(rising, tiny, quick):
    def kill(trainer) -> None:
        if trainer.epoch == 2:
            raise Killed

    model = det_ls.YOLO("yolo11n.yaml")
    model.add_callback("on_train_batch_start", kill)
    with watch_training() as records, pytest.raises(Killed):
        model.train(data=str(tiny), **rising, **{**quick, "epochs": 4})
    for epoch, epsilon in enumerate((0.2, 0.3)):
        assert records.epsilons(epoch) == pytest.approx([epsilon] * len(records.epsilons(epoch)), abs=2e-3)

    last = model.trainer.last
    state = torch_load(last, map_location="cpu")["train_args"][STATE_KEY]
    assert state == {"seen": model.trainer.policy.seen}
    assert len(state["seen"]) == 2
    assert STATE_KEY not in yaml.safe_load((model.trainer.save_dir / "args.yaml").read_text())
    ultralytics.YOLO(last)  # stock loads it

    again = det_ls.YOLO(last)
    with watch_training() as records:
        again.train(resume=True)
    assert again.trainer.policy.seen[:2] == state["seen"]
    assert len(again.trainer.policy.seen) == 4
    for epoch, epsilon in ((2, 0.4), (3, 0.5)):
        assert records.epsilons(epoch) == pytest.approx([epsilon] * len(records.epsilons(epoch)), abs=2e-3)
    rows = [line.split(",") for line in (again.trainer.save_dir / "results.csv").read_text().splitlines()]
    column = [h.strip() for h in rows[0]].index("label_smoothing")
    assert [float(r[column]) for r in rows[1:]] == pytest.approx([0.2, 0.3, 0.4, 0.5])
    for file in (again.trainer.last, again.trainer.best):  # a finished run has nothing to resume
        assert STATE_KEY not in torch_load(file, map_location="cpu")["train_args"]


def test_a_state_of_other_than_plain_values_is_refused():
    policy = Rising(0.1, 3)
    policy.seen = [smoothing_matrix(3, 0.1)]
    with pytest.raises(TypeError, match=r"label_smoothing_state\['seen'\]: expected numbers, .* got Tensor"):
        saved_with(SimpleNamespace(), policy)


def test_a_policy_with_state_does_not_start_again_in_silence():
    with pytest.raises(ValueError, match="expected the state of Rising in the checkpoint, got none"):
        restore(Rising(0.1, 3), {"train_args": {"label_smoothing": 0.1}})
