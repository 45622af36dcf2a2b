# SPDX-License-Identifier: AGPL-3.0-or-later
"""After a smoothed training every other mode works: on the same object, and from best.pt where there is no det-ls."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import det_ls

MODES = ("predict", "track", "val", "torchscript", "onnx", "benchmark")


def use(model, mode: str, data: str, images: str):
    """Use a model in a mode; return what can be compared: scores, or a number."""
    from ultralytics import YOLO

    small = {"imgsz": 64, "device": "cpu", "verbose": False}
    if mode in {"predict", "track"}:
        results = getattr(model, mode)(images, conf=1e-4, **small)
        assert len(results) == 4
        return [float(score) for r in results for score in sorted(r.boxes.conf.tolist(), reverse=True)[:5]]
    if mode == "val":
        return [model.val(data=data, workers=0, plots=False, **small).fitness]
    if mode == "benchmark":
        table = model.benchmark(data=data, imgsz=64, device="cpu", format="torchscript")
        assert "\u2705" in str(table)  # a failure is a cross in the table, not an error
        return [len(table)]
    exported = model.export(format=mode, imgsz=64, device="cpu", **({"simplify": False} if mode == "onnx" else {}))
    return use(YOLO(exported, task="detect"), "predict", data, images)


@pytest.fixture(scope="module")
def trained(tiny, tmp_path_factory):
    folder = tmp_path_factory.mktemp("trained")
    model = det_ls.YOLO("yolo26n.yaml")
    model.train(
        data=str(tiny), label_smoothing=0.2, imgsz=64, batch=4, epochs=1, device="cpu", workers=0, plots=False,
        amp=False, project=str(folder), seed=3,
    )  # fmt: skip
    return model, str(model.trainer.best), str(tiny), str(tiny.parent / "images" / "val")


@pytest.fixture(scope="module")
def elsewhere(trained, tmp_path_factory):
    """What each mode gives in a fresh process that cannot import det-ls."""
    _, best, data, images = trained
    code = (
        "import sys, json, runpy\n"
        "class Absent:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name.split('.')[0] == 'det_ls': raise ModuleNotFoundError(name)\n"
        "sys.meta_path.insert(0, Absent())\n"
        "source, best, data, images, out, *modes = sys.argv[1:]\n"
        "text = open(source).read().replace('import det_ls\\n', '')\n"
        "names = {}; exec(compile(text, source, 'exec'), names)\n"
        "from ultralytics import YOLO\n"
        "found = {mode: names['use'](YOLO(best), mode, data, images) for mode in modes}\n"
        "assert 'det_ls' not in sys.modules\n"
        "open(out, 'w').write(json.dumps(found))\n"
    )
    folder = tmp_path_factory.mktemp("elsewhere")
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    out = folder / "found.json"
    words = [__file__, best, data, images, str(out), *(mode for mode in MODES if usable(mode))]
    done = subprocess.run(
        [sys.executable, "-c", code, *words], cwd=folder, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return json.loads(out.read_text())


def usable(mode: str) -> bool:
    needs = {"track": ("lap",), "onnx": ("onnx", "onnxruntime"), "benchmark": ("polars",)}
    return all(importlib.util.find_spec(package) for package in needs.get(mode, ()))


@pytest.mark.parametrize("mode", MODES)
def test_a_smoothed_model_is_used_as_any_other(mode, trained, elsewhere, tmp_path, monkeypatch):
    if not usable(mode):
        pytest.skip(f"a package that {mode} needs is not installed")
    monkeypatch.chdir(tmp_path)
    model, best, data, images = trained
    same_object = use(model, mode, data, images)
    np.testing.assert_allclose(same_object, elsewhere[mode], atol=1e-4)
    assert Path(best).is_file()
    assert all(np.isfinite(same_object))
    assert same_object or mode == "track"  # whose scores are too low after one epoch
