# SPDX-License-Identifier: AGPL-3.0-or-later
"""A first batch that says nothing of the fast form leaves the choice to the next one, without a warning."""

from __future__ import annotations

import pytest
import torch
from ultralytics.cfg import get_cfg
from ultralytics.nn.tasks import DetectionModel

import det_ls

BATCH = {
    "batch_idx": torch.tensor([0.0, 0.0, 1.0]),
    "cls": torch.tensor([[0.0], [1.0], [2.0]]),
    "bboxes": torch.tensor([[0.5, 0.5, 0.5, 0.5], [0.3, 0.3, 0.3, 0.3], [0.5, 0.5, 0.6, 0.6]]),
}


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("output", ["scores", "boxes"])
def test_one_number_that_is_not_finite_leaves_the_choice_to_the_next_batch(output, value, log):
    model = DetectionModel("yolo11n.yaml", nc=3, verbose=False)
    model.args = get_cfg()
    criterion = det_ls.LabelSmoothingDetectionLoss(model.train(), label_smoothing=0.1)
    batch = {**BATCH, "img": torch.rand(2, 3, 64, 64)}
    outputs = model(batch["img"])
    broken = {**outputs, output: outputs[output].detach().clone()}
    broken[output][0, 0, 20] = value
    criterion.loss(broken, batch)
    criterion.loss(outputs, batch)
    assert criterion.form == "lean"
    assert not [line for line in log if "label_smoothing" in line]
