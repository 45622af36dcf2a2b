# SPDX-License-Identifier: AGPL-3.0-or-later
from __future__ import annotations

import math

import pytest
import torch

from det_ls.smoothing.policy import POLICIES, EpochFacts, register_policy
from det_ls.smoothing.request import Request
from det_ls.smoothing.settings import LabelSmoothing

NAMES = ["negative", "positive"]


def policy(epsilon=0.1, schedule="constant", **keys):
    return Request.of_keys({"label_smoothing": epsilon, "label_smoothing_schedule": schedule, **keys}).policy(NAMES)


@pytest.mark.parametrize(
    ("schedule", "expected"), [("constant", [1, 1, 1]), ("linear", [1, 0.5, 0]), ("cosine", [1, 0.5, 0])]
)
def test_schedules_run_from_one_to_zero(schedule, expected):
    scheduled = policy(0.1, schedule)
    assert [scheduled.logged(e, 3)["label_smoothing"] / 0.1 for e in range(3)] == pytest.approx(expected)
    assert [scheduled.matrix(e, 3)[0, 1].item() / 0.1 for e in range(3)] == pytest.approx(expected)
    assert scheduled.scale(0, 1) == 1.0
    assert 0.0 <= scheduled.scale(7, 3) <= 1.0  # `time=` may shorten a run below its epoch


def test_cosine_is_the_cosine():
    assert policy(schedule="cosine").scale(1, 5) == pytest.approx((1 + math.cos(math.pi / 4)) / 2)


def test_a_mapping_scales_as_a_whole():
    scheduled = policy({"default": 0.1, "positive": 0.4}, "linear", label_smoothing_mode="background")
    assert scheduled.matrix(1, 3).diagonal().tolist() == pytest.approx([0.95, 0.8])
    assert scheduled.logged(1, 3) == {"label_smoothing/default": 0.05, "label_smoothing/positive": 0.2}


def test_without_smoothing_there_is_no_policy():
    assert policy(0.0, "linear") is None


def test_schedules_have_no_state_and_do_not_learn():
    scheduled = policy(schedule="linear")
    before = scheduled.matrix(1, 3)
    scheduled.observe(EpochFacts(0, 3, {"fitness": 0.5}))
    assert scheduled.state_dict() == {}
    assert torch.equal(scheduled.matrix(1, 3), before)
    with pytest.raises(ValueError, match="state: expected none for ScheduledPolicy, got epsilon"):
        scheduled.load_state_dict({"epsilon": 0.1})


def test_a_registered_policy_is_known_by_its_name_and_a_name_is_taken_once(monkeypatch):
    with pytest.raises(ValueError, match="got 'linear', which is taken"):
        register_policy("linear")(POLICIES["linear"])
    with pytest.raises(ValueError, match="expected one of constant, linear, cosine, got 'mine'"):
        LabelSmoothing(0.1, label_smoothing_schedule="mine")
    register_policy("mine")(POLICIES["linear"])
    try:
        assert policy(schedule="mine").scale(1, 3) == 0.5
    finally:
        del POLICIES["mine"]
