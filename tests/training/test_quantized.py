# SPDX-License-Identifier: AGPL-3.0-or-later
"""Quantisation-aware training, Ultralytics' ``quantize=8``, with the key."""

from __future__ import annotations

import importlib.util

import pytest
import ultralytics
from probe import watch_training
from ultralytics.utils import torch_utils

import det_ls

pytestmark = [
    pytest.mark.skipif(
        not hasattr(torch_utils, "prepare_qat"), reason=f"ultralytics {ultralytics.__version__} does not quantise"
    ),
    pytest.mark.skipif(importlib.util.find_spec("modelopt") is None, reason="nvidia-modelopt is not installed"),
]


def quantized(model) -> bool:
    return torch_utils.is_qat(torch_utils.unwrap_model(model))


@pytest.mark.parametrize(("name", "halves"), [("yolo11n.yaml", 1), ("yolo26n.yaml", 2)])
def test_quantisation_aware_training_is_smoothed(name, halves, tiny, quick):
    seen = []
    model = det_ls.YOLO(name)
    model.add_callback("on_train_batch_end", lambda trainer: seen.append(quantized(trainer.model)))
    with watch_training() as records:
        model.train(data=str(tiny), label_smoothing=0.2, quantize=8, **quick)
    assert seen
    assert all(seen)
    found = records.epsilons()
    assert len(found) >= halves, "no foreground was seen"
    assert found == pytest.approx([0.2] * len(found), abs=5e-3)
    assert quantized(ultralytics.YOLO(model.trainer.best).model)
