# SPDX-License-Identifier: AGPL-3.0-or-later
"""On a GPU the targets in use are as asked too: in float32, under AMP, compiled, of every task, and on two GPUs.

They run where there is a CUDA device; ``DET_LS_TEST_DEVICE=cpu`` rehearses those that a CPU can run.
"""

from __future__ import annotations

import contextlib
import copy
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import ultralytics
from loss_scene import (
    OBJECTS,
    assert_same,
    decided,
    error,
    forms,
    get_model,
    make_batch,
    make_preds,
    oracle,
    outcome,
)
from precision import ulps
from probe import watch_training
from ultralytics.engine import trainer as engine

import det_ls
from det_ls import smoothing_matrix
from det_ls.phantom import write_phantom

pytestmark = pytest.mark.usefixtures("gpu")
DEVICE = os.environ.get("DET_LS_TEST_DEVICE", "0")
PLACE = torch.device("cpu" if DEVICE == "cpu" else f"cuda:{DEVICE}")
HALF = {torch.float16: 5e-3, torch.bfloat16: 5e-2}
"""How well targets can be read from gradients of each precision."""
only_cuda = pytest.mark.skipif(DEVICE == "cpu", reason="needs CUDA itself")


@pytest.fixture
def on_gpu(quick, monkeypatch):
    """Quick training on the GPU; the check of AMP, which downloads a model, is left out."""
    monkeypatch.setattr(engine, "check_amp", lambda model: True)
    return {**quick, "device": DEVICE}


@pytest.fixture
def autocast(request, monkeypatch):
    """Let Ultralytics cast to a type; its own is float16 on a GPU."""
    kind = PLACE.type
    monkeypatch.setattr(engine, "autocast", lambda *args, **kwargs: torch.autocast(kind, request.param))
    return request.param


def assert_epsilon(records, wanted, halves, tolerance=5e-3):
    found = records.epsilons()
    assert len(found) >= halves, "no foreground was seen"
    assert {len(r["halves"]) for r in records} - {0} == {halves}
    assert found == pytest.approx([wanted] * len(found), abs=tolerance)


def moved(value, dtype=None):
    """Move a batch, or a head's outputs, to the GPU; the outputs to a type as well."""
    if isinstance(value, dict):
        return {key: moved(one, dtype) for key, one in value.items()}
    if isinstance(value, list):
        return [moved(one, dtype) for one in value]
    return value.to(PLACE, dtype)


@pytest.mark.parametrize(("model", "halves"), [("yolo11n.yaml", 1), ("yolo26n.yaml", 2)])
def test_targets_are_smoothed(model, halves, tiny, on_gpu):
    with watch_training() as records:
        det_ls.YOLO(model).train(data=str(tiny), label_smoothing=0.2, **on_gpu)
    assert_epsilon(records, 0.2, halves, 2e-3)


@pytest.mark.parametrize("autocast", [torch.float16, torch.bfloat16], indirect=True, ids=["fp16", "bf16"])
@pytest.mark.parametrize(("model", "halves"), [("yolo11n.yaml", 1), ("yolo26n.yaml", 2)])
def test_targets_are_smoothed_under_amp(model, halves, autocast, tiny, on_gpu):
    types = set()
    yolo = det_ls.YOLO(model)
    yolo.add_callback("on_train_batch_end", lambda t: types.update(s.dtype for s in t.captured_scores.values()))
    with watch_training() as records:
        yolo.train(data=str(tiny), label_smoothing=0.3, **{**on_gpu, "amp": True})
    assert types == {autocast}
    assert_epsilon(records, 0.3, halves, HALF[autocast])


@pytest.mark.parametrize("task", ["segment", "pose", "obb"])
def test_every_task_is_smoothed_under_amp(task, task_data, on_gpu):
    suffix = {"segment": "seg"}.get(task, task)
    with watch_training() as records:
        det_ls.YOLO(f"yolo11n-{suffix}.yaml").train(
            data=str(task_data(task)), label_smoothing=0.3, **{**on_gpu, "amp": True}
        )
    assert_epsilon(records, 0.3, 1, HALF[torch.float16])


def test_a_classifier_is_smoothed_under_amp(task_data, on_gpu):
    keys = {"label_smoothing": 0.3, "label_smoothing_mode": "uniform"}
    with watch_training() as records:
        det_ls.YOLO("yolo11n-cls.yaml").train(data=str(task_data("classify")), **keys, **{**on_gpu, "amp": True})
    rows = torch.tensor([row for record in records for row in record["halves"]["only"]])
    assert rows.sort(1).values[:, :2] == pytest.approx(torch.full((len(rows), 2), 0.1 / 0.8), abs=2e-2)


@only_cuda
@pytest.mark.parametrize(("model", "halves"), [("yolo11n.yaml", 1), ("yolo26n.yaml", 2)])
def test_targets_are_smoothed_when_the_model_is_compiled(model, halves, tiny, on_gpu):
    torch._dynamo.reset()
    kinds = set()
    yolo = det_ls.YOLO(model)
    yolo.add_callback("on_train_batch_end", lambda trainer: kinds.add(type(trainer.model).__name__))
    with watch_training() as records:
        yolo.train(data=str(tiny), label_smoothing=0.2, compile=True, **{**on_gpu, "amp": True, "val": False})
    assert kinds == {"OptimizedModule"}
    assert_epsilon(records, 0.2, halves, HALF[torch.float16])


@pytest.mark.parametrize("name", ["yolo11n", "yolo26n"])
@pytest.mark.parametrize("nc", [5, 80, 1203])
def test_the_criterion_gives_the_oracles_loss_and_gradients(name, nc):
    model = copy.deepcopy(get_model(name, nc))
    batch = make_batch(OBJECTS, nc)
    preds = make_preds(model, batch)
    model, batch, preds = model.to(PLACE), moved(batch), moved(preds)
    criterion = decided(model, preds, batch, label_smoothing=0.1)
    assert set(forms(criterion)) == {"lean"}
    wanted = outcome(oracle(model, smoothing_matrix(nc, 0.1).to(PLACE)), preds, batch)
    assert_same(outcome(criterion, preds, batch), wanted, 1e-5)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=["fp16", "bf16"])
@pytest.mark.parametrize("name", ["yolo11n", "yolo26n"])
def test_half_precision_is_the_float64_result_rounded(name, dtype):
    model = copy.deepcopy(get_model(name))
    batch = make_batch(OBJECTS, 5)
    preds = make_preds(model, batch)
    model, batch, preds = model.to(PLACE), moved(batch), moved(preds, dtype)
    criterion = decided(model, preds, batch, label_smoothing=0.1)
    assert set(forms(criterion)) == {"lean"}
    got = outcome(criterion, preds, batch)
    wanted = outcome(oracle(model, smoothing_matrix(5, 0.1).to(PLACE)), preds, batch)
    assert error(got[0], wanted[0]) <= 1e-3
    assert all(ulps(a.cpu(), b.cpu()) <= 2 for a, b in zip(got[1:], wanted[1:], strict=True))


def test_epsilon_0_trains_as_stock_does(tiny, on_gpu, tmp_path):
    """To the bit where stock repeats itself to the bit, else as near as two of stock's runs are."""

    def trained(yolo, name, **keys):
        model = yolo("yolo11n.yaml")
        model.train(data=str(tiny), **keys, **{**on_gpu, "amp": True, "name": name, "epochs": 2})
        return torch.cat([p.detach().double().cpu().flatten() for p in model.trainer.model.parameters()])

    stock, again = (trained(ultralytics.YOLO, f"stock{i}") for i in range(2))
    ours = trained(det_ls.YOLO, "ours", label_smoothing=0)
    apart = (stock - again).norm()
    assert (stock - ours).norm() <= 10 * apart


@pytest.fixture(scope="module")
def learned(tmp_path_factory):
    """A model that was trained on the GPU until it finds something, and its data."""
    place = tmp_path_factory.mktemp("learned")
    write_phantom(place / "data", train=96, val=48, seed=0)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(engine, "check_amp", lambda model: True)
        model = det_ls.YOLO("yolo11n.yaml")
        keys = {"imgsz": 128, "epochs": 60, "batch": 16, "nbs": 16, "optimizer": "AdamW", "lr0": 2e-3, "mosaic": 0.0}
        keys |= {"device": DEVICE, "workers": 0, "plots": False, "val": False, "project": str(place), "name": "run"}
        model.train(data=str(place / "data" / "data.yaml"), label_smoothing=0.1, **keys)
    return Path(model.trainer.last), place / "data" / "data.yaml"


@only_cuda
def test_a_checkpoint_of_the_gpu_reads_the_same_on_the_cpu(learned):
    weights, data = learned
    there, here = (det_ls.evaluate(weights, data, imgsz=128, device=d, workers=0) for d in (DEVICE, "cpu"))
    assert here.metrics.values["AP"] > 0.05
    for key in ("AP", "AP50", "LRP"):
        assert there.metrics.values[key] == pytest.approx(here.metrics.values[key], abs=5e-3)
    assert there.metrics.kept.values["signed_gap"] == pytest.approx(here.metrics.kept.values["signed_gap"], abs=1e-2)


@only_cuda
def test_a_checkpoint_of_the_gpu_loads_without_det_ls_and_without_a_gpu(learned):
    weights, _ = learned
    code = (
        "import sys; sys.modules['det_ls'] = None\n"
        "from ultralytics import YOLO; import numpy as np\n"
        f"print(len(YOLO({str(weights)!r})(np.zeros((64, 64, 3), np.uint8), verbose=False)))"
    )
    env = {**os.environ, "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=env, check=False)
    assert done.stdout.split()[-1:] == ["1"], done.stderr


@only_cuda
def test_a_run_goes_on_with_its_epsilon(tiny, on_gpu):
    class Stop(Exception):
        pass

    def stop(trainer):
        raise Stop

    model = det_ls.YOLO("yolo11n.yaml")
    model.add_callback("on_model_save", stop)
    with contextlib.suppress(Stop):
        model.train(data=str(tiny), label_smoothing=0.25, **{**on_gpu, "amp": True, "epochs": 2})
    with watch_training() as records:
        det_ls.YOLO(model.trainer.last).train(resume=True)
    assert_epsilon(records, 0.25, 1)


@only_cuda
@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two GPUs")
def test_two_gpus_smooth(tiny, on_gpu, tmp_path):
    """Each of Ultralytics' processes writes the targets of its steps to a file of its own."""
    words = [f"{key}={value}" for key, value in {**on_gpu, "device": "0,1", "amp": True, "epochs": 1}.items()]
    code = (
        "import sys; from det_ls.cli.main import main\n"
        f"sys.exit(main(['train', 'model=yolo11n.yaml', 'data={tiny}', 'label_smoothing=0.2', *{words!r}]))"
    )
    site = tmp_path / "site"
    site.mkdir()
    (site / "sitecustomize.py").write_text(
        "import os, sys\n"
        f"sys.path.insert(0, {str(Path(__file__).parents[1])!r})\n"
        "if 'LOCAL_RANK' in os.environ:\n"
        "    from pathlib import Path; from probe import watch_training\n"
        f"    watch = watch_training(Path({str(tmp_path)!r}) / ('rank' + os.environ['LOCAL_RANK'] + '.json'))\n"
        "    watch.__enter__()\n"
    )
    path = os.pathsep.join(filter(None, [str(site), os.environ.get("PYTHONPATH", "")]))
    subprocess.run([sys.executable, "-c", code], check=True, env={**os.environ, "PYTHONPATH": path})
    for rank in (0, 1):
        rows = [
            r for record in json.loads((tmp_path / f"rank{rank}.json").read_text()) for r in record["halves"].values()
        ]
        assert rows, f"process {rank} saw no foreground"
        for found in rows:
            assert torch.tensor(found).sort(1).values[:, :2] == pytest.approx(
                torch.full((len(found), 2), 0.1 / 0.8), abs=2e-2
            )
