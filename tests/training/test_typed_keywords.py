# SPDX-License-Identifier: AGPL-3.0-or-later
"""An editor completes the keys of ``YOLO.train``, and a type checker checks them."""

from __future__ import annotations

import inspect
import typing
from dataclasses import fields
from pathlib import Path

import pytest

import det_ls
from det_ls.smoothing.matrix import MODES
from det_ls.smoothing.policy import POLICIES
from det_ls.smoothing.settings import CALIBRATION_SPLITS, LabelSmoothing

ROOT = Path(__file__).parents[2]
CALLS = """from pathlib import Path
from det_ls.training.model import YOLO
from det_ls.training.tasks import DetectionTrainer

model = YOLO("yolo11n.yaml")
model.train(data="a.yaml", epochs=3, label_smoothing=0.1, label_smoothing_mode="binary")
model.train(DetectionTrainer, label_smoothing={"default": 0.05, "car": 0.2}, calibrate="val")
model.train(label_smoothing={0: 0.1}, label_smoothing_similarity=Path("t.csv"), label_smoothing_schedule="linear")
"""
WRONG = (
    'label_smoothing="much"',
    'label_smoothing_mode="unifrm"',
    'label_smoothing_schedule="linaer"',
    "label_smoothing_similarity=3",
    'calibrate="train"',
)


def test_the_keywords_are_the_keys_and_their_values():
    train = det_ls.YOLO.train
    keywords = {k: p for k, p in inspect.signature(train).parameters.items() if p.kind is p.KEYWORD_ONLY}
    assert list(keywords) == [field.name for field in fields(LabelSmoothing)]
    assert all(f"{key}: " in (inspect.getdoc(train) or "") for key in keywords)
    hints = typing.get_type_hints(train)

    def choices(key):
        return {value for part in typing.get_args(hints[key]) for value in typing.get_args(part)}

    assert choices("label_smoothing_mode") == set(MODES)
    assert choices("label_smoothing_schedule") == set(POLICIES)
    assert choices("calibrate") == set(CALIBRATION_SPLITS)


def test_mypy_takes_what_fits_and_nothing_else(tmp_path):
    api = pytest.importorskip("mypy.api", reason="mypy is not installed")
    file = tmp_path / "calls.py"
    wrong = "\n".join(f"model.train({word})" for word in WRONG)
    file.write_text(CALLS + wrong + "\n")
    ours = [str(ROOT / "det_ls" / part) for part in ("training/model.py", "training/trainer.py", "training/tasks.py")]
    options = ["--follow-imports=skip", "--ignore-missing-imports", "--cache-dir", str(tmp_path), "--config-file="]
    out, _, _ = api.run([*options, str(file), *ours])
    found = {int(line.split(":")[1]) for line in out.splitlines() if line.startswith(str(file)) and ": error:" in line}
    first = CALLS.count("\n") + 1
    assert found == set(range(first, first + len(WRONG))), out
