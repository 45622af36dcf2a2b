# SPDX-License-Identifier: AGPL-3.0-or-later
"""Ways in which Ultralytics takes a training step otherwise than usual leave the smoothed targets as asked."""

from __future__ import annotations

import inspect
import os

import pytest
import torch
import ultralytics
from probe import watch_training
from ultralytics.engine import trainer as engine
from ultralytics.models.yolo.detect import DetectionTrainer

import det_ls


def test_a_batch_that_is_halved_when_memory_runs_out_is_smoothed(tiny, quick, monkeypatch):
    stock, calls = DetectionTrainer.preprocess_batch, []

    def runs_out_once(self, batch):
        calls.append(len(batch["img"]))
        if len(calls) == 1:
            raise RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB")
        return stock(self, batch)

    if "_oom_retries" not in inspect.getsource(engine.BaseTrainer):
        pytest.skip(f"ultralytics {ultralytics.__version__} does not halve batches")
    monkeypatch.setattr(DetectionTrainer, "preprocess_batch", runs_out_once)
    model = det_ls.YOLO("yolo26n.yaml")
    with watch_training() as records:
        model.train(data=str(tiny), label_smoothing=0.2, **quick)
    assert model.trainer.batch_size == 2
    found = records.epsilons()
    assert found, "no foreground was seen"
    assert found == pytest.approx([0.2] * len(found), abs=5e-3)


def test_mixed_precision_is_smoothed(tiny, quick, monkeypatch):
    """In bfloat16, whose autocast a CPU has but Ultralytics reserves for GPUs; targets are read to its 8 bits."""
    monkeypatch.setattr(engine, "autocast", lambda *args, **kwargs: torch.autocast("cpu", torch.bfloat16))
    types = set()
    model = det_ls.YOLO("yolo11n.yaml")
    model.add_callback("on_train_batch_end", lambda t: types.update(s.dtype for s in t.captured_scores.values()))
    with watch_training() as records:
        model.train(data=str(tiny), label_smoothing=0.3, **quick)
    assert types == {torch.bfloat16}
    found = records.epsilons()
    assert found, "no foreground was seen"
    assert found == pytest.approx([0.3] * len(found), abs=5e-2)


class Compiled(torch.nn.Module):
    """What ``torch.compile`` returns, as far as Ultralytics looks, without compiling."""

    def __init__(self, model):
        super().__init__()
        self._orig_mod = model

    def __getattr__(self, name):
        return super().__getattr__(name) if name == "_orig_mod" else getattr(self._orig_mod, name)

    def forward(self, *args, **kwargs):
        return self._orig_mod(*args, **kwargs)


def test_the_step_of_a_compiled_model_is_smoothed(tiny, quick, monkeypatch):
    """With compile=True the outputs are computed apart from the loss."""
    monkeypatch.setattr(engine, "attempt_compile", lambda model, device, mode: Compiled(model) if mode else model)
    with watch_training() as records:
        det_ls.YOLO("yolo26n.yaml").train(data=str(tiny), label_smoothing=0.2, compile=True, **quick)
    found = records.epsilons()
    assert found, "no foreground was seen"
    assert found == pytest.approx([0.2] * len(found), abs=5e-3)


TINY_MODEL = """
nc: 3
scales: {n: [1.0, 1.0, 64]}
backbone:
  - [-1, 1, Conv, [8, 3, 2]]
  - [-1, 1, Conv, [8, 3, 2]]
head:
  - [[1], 1, Detect, [nc]]
"""


@pytest.mark.parametrize(("backend", "halves"), [("aot_eager", 1), ("aot_eager", 2), ("inductor", 1)])
def test_a_compiled_model_is_smoothed(backend, halves, tiny, quick, tmp_path, monkeypatch):
    """A model of two layers: inductor compiles minutes for a real one on a CPU; aot_eager makes no machine code."""
    if backend == "inductor" and not os.environ.get("DET_LS_INDUCTOR"):
        pytest.skip("inductor compiles for a minute or two: DET_LS_INDUCTOR=1 runs it")
    if backend != "inductor":
        stock = torch.compile
        monkeypatch.setattr("torch.compile", lambda model, *args, **kwargs: stock(model, backend=backend))
    torch._dynamo.reset()
    file = tmp_path / "tiny-yolo.yaml"
    file.write_text(("end2end: True\n" if halves == 2 else "") + TINY_MODEL)
    seen = []
    model = det_ls.YOLO(str(file), task="detect")
    model.add_callback("on_train_batch_end", lambda trainer: seen.append(type(trainer.model).__name__))
    with watch_training() as records:
        model.train(data=str(tiny), label_smoothing=0.2, compile=True, **{**quick, "val": False})
    assert set(seen) == {"OptimizedModule"}
    found = records.epsilons()
    assert len(found) >= halves, "no foreground was seen"
    assert found == pytest.approx([0.2] * len(found), abs=5e-3)
