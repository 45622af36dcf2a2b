# SPDX-License-Identifier: AGPL-3.0-or-later
"""Every kind of model folds exactly: both precisions, both heads, where det_ls is absent, exported, and in yolo val."""

from __future__ import annotations

import copy
import functools
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from ultralytics import YOLO
from ultralytics.utils import DEFAULT_CFG_DICT

from det_ls.calibration import fold
from det_ls.calibration.maps import AffineMap, logit

SHARED, HOT = AffineMap((0.6,), (-0.3,)), AffineMap((0.6,), (0.0,), kind="temperature")
END_TO_END = ("yolo26n", "yolov10n")
DETECTORS = ("yolov8n", "yolo11n", *END_TO_END, "yolo11n-seg", "yolo11n-pose", "yolo11n-obb")
MODELS = (*DETECTORS, "yolo11n-cls")
EXPORTED = ("yolov8n", "yolo26n", "yolo11n-cls")
NAMES = ("red", "green", "blue")
# How a version of Ultralytics is asked for the NMS-free head.
NMS_FREE: dict[str, bool] = {"end2end": True} if "end2end" in DEFAULT_CFG_DICT else {"nms": False}


def scenes(n: int, seed: int, pad: int = 0) -> torch.Tensor:
    """Images like those of the tests' data sets: a bright rectangle on noise, letterboxed."""
    generator = torch.Generator().manual_seed(seed)
    images = torch.rand(n, 3, 64, 64, generator=generator) * 60 / 255
    for image in images:
        x, y, c = torch.randint(0, 40, (3,), generator=generator).tolist()
        image[c % 3, y : y + 24, x : x + 24] = 230 / 255
    return nn.functional.pad(images, [pad] * 4, value=114 / 255)


IMAGE = scenes(1, seed=1)


@functools.cache
def model(name: str) -> nn.Module:
    """A model of three classes with boxes of three strides, and scores of all sizes that differ from place to place."""
    torch.manual_seed(0)
    wrapper = YOLO(f"{name}.yaml")
    keypoints = {"data_kpt_shape": (2, 3)} if wrapper.task == "pose" else {}
    module: Any = wrapper._smart_load("model")(f"{name}.yaml", nc=3, verbose=False, **keypoints)
    module.names, module.task = dict(enumerate(NAMES)), wrapper.task
    head = module.model[-1]
    for branch in (b for key in ("cv2", "one2one_cv2") for b in getattr(head, key, None) or ()):
        bins = head.reg_max
        branch[-1].weight.data *= 0.1
        branch[-1].bias.data = (-2 * (torch.arange(bins) - 1.5).abs()).repeat(4) if bins > 1 else torch.full((4,), 1.5)
    for norm in (m for m in module.modules() if isinstance(m, nn.BatchNorm2d)):
        norm.momentum = None  # statistics are those of what it sees, as in a trained model
    seen = scenes(16, seed=0, pad=0 if name.endswith("-cls") else 16)
    with torch.no_grad():
        module.train()(seen)
    layers, logits = fold.class_layers(module), [fold.class_logits(module, images) for images in (seen, IMAGE)]
    per_head = len(layers) // len(logits[0])
    for i, layer in enumerate(layers):
        z = torch.cat([of_head[i // per_head].transpose(0, 1).flatten(1) for of_head in logits], 1)
        slope = (
            4 / (z - z.mean(1, keepdim=True)).abs().max(1).values
        )  # none near 0 or 1, where scores lose their logits
        layer.weight.data *= slope.view(-1, *[1] * (layer.weight.ndim - 1))
        layer.bias.data = slope * (layer.bias.data - z.mean(1)) - 0.5
    if name in END_TO_END and not head.end2end:
        head.end2end = True
    return module.eval()


def map_for(name: str) -> AffineMap:
    return HOT if name.endswith("-cls") else SHARED


def by_class() -> AffineMap:
    return AffineMap((0.5, 1.3, 0.9), (0.4, -0.2, -0.6), NAMES)


def folded(name: str, one: AffineMap) -> nn.Module:
    module = copy.deepcopy(model(name))
    fold.fold_map(module, one)
    return module


def heads(module: nn.Module, image: torch.Tensor) -> Iterator[dict[str, torch.Tensor]]:
    """What each head computes before any filter: boxes, scores as logits, and the task's own."""
    with torch.no_grad():
        output = module(image)[1]
    output = output[-1] if isinstance(output, tuple) else output
    yield from [output[k] for k in ("one2many", "one2one")] if "one2one" in output else [output]


@pytest.mark.parametrize("name", DETECTORS)
@pytest.mark.parametrize("precision", [torch.float32, torch.float16], ids=["single", "half"])
@pytest.mark.parametrize("one", [SHARED, by_class()], ids=["shared", "by class"])
def test_scores_are_the_map_of_the_original_ones_and_nothing_else_changes(name, precision, one):
    image = IMAGE.to(precision)
    before = list(heads(copy.deepcopy(model(name)).to(precision), image))
    after = list(heads(folded(name, one).to(precision), image))
    assert len(before) == len(after) == (2 if name in END_TO_END else 1)
    for old, new in zip(before, after, strict=True):
        z = old["scores"].double().numpy()
        cls = np.broadcast_to(np.arange(3)[None, :, None], z.shape)
        tolerance = 1e-6 if precision is torch.float32 else 2e-3
        assert np.abs(new["scores"].double().sigmoid().numpy() - one(z, cls)).max() < tolerance
        assert z.max() - z.min() > 2  # the scores are no trivial ones
        same = {k: v for k, v in old.items() if isinstance(v, torch.Tensor) and k != "scores"}
        assert "boxes" in same
        for key, value in same.items():  # boxes; mask coefficients, keypoints and angles too
            assert torch.equal(value, new[key]), key


@pytest.mark.parametrize(("precision", "tolerance"), [(torch.float32, 1e-6), (torch.float16, 2e-3)])
def test_a_classifier_gives_the_softmax_at_the_temperature(precision, tolerance):
    before, after = copy.deepcopy(model("yolo11n-cls")).to(precision), folded("yolo11n-cls", HOT).to(precision)
    with torch.no_grad():
        z, p = before(IMAGE.to(precision))[1], after(IMAGE.to(precision))[0]
    assert (p.double() - (0.6 * z.double()).softmax(1)).abs().max() < tolerance


@pytest.fixture(scope="module")
def files(tmp_path_factory) -> dict[str, tuple[Path, Path]]:
    """Each model's checkpoint, and the calibrated one beside it."""
    folder, found = tmp_path_factory.mktemp("models"), {}
    for name in MODELS:
        source = folder / f"{name}.pt"
        torch.save({"model": copy.deepcopy(model(name)), "ema": None, "train_args": {"imgsz": 64}}, source)
        calibrated = folder / f"{name}_calibrated.pt"
        fold.fold_checkpoint(fold.load_checkpoint(source), map_for(name), {}, calibrated)
        found[name] = (source, calibrated)
    return found


WITHOUT = """
import json, sys
sys.modules["det_ls"] = None  # any import of it, also by an unpickler, fails
import numpy as np, torch
from pathlib import Path
from ultralytics import YOLO
image = torch.from_numpy(np.load(Path(sys.argv[1]) / "image.npy"))
found, exported = {}, json.loads(sys.argv[2])
for file in sorted(Path(sys.argv[1]).glob("*_calibrated.pt")):
    model = YOLO(file)
    with torch.no_grad():
        output = model.model(image)[0]
    found[file.stem] = (output[0] if isinstance(output, tuple) else output).numpy()
    result = model.predict(np.zeros((64, 64, 3), np.uint8), imgsz=64, conf=0.0, verbose=False)[0]
    assert result.probs is not None or len(result.boxes if result.obb is None else result.obb), file
    if (head := exported.get(file.stem.removesuffix("_calibrated"))) is not None:
        YOLO(file).export(format="onnx", imgsz=64, simplify=False, **head)
np.savez(Path(sys.argv[1]) / "found.npz", **found)
"""


@pytest.fixture(scope="module")
def elsewhere(files, tmp_path_factory) -> Path:
    """The calibrated checkpoints used, and some exported, by stock in a process where det_ls cannot be imported."""
    pytest.importorskip("onnx")
    folder = tmp_path_factory.mktemp("elsewhere")
    for _, calibrated in files.values():
        (folder / calibrated.name).write_bytes(calibrated.read_bytes())
    np.save(folder / "image.npy", IMAGE.numpy())
    exported = {name: NMS_FREE if name in END_TO_END else {} for name in EXPORTED}
    words = [sys.executable, "-c", WITHOUT, str(folder), json.dumps(exported)]
    done = subprocess.run(words, capture_output=True, text=True, cwd=folder)
    assert done.returncode == 0, done.stderr
    return folder


def output_of(name: str) -> np.ndarray:
    """The original's output: (1, 4 + 3 + others, anchors), (1, k, 6) of an end-to-end model, (1, 3) of a classifier."""
    with torch.no_grad():
        output = model(name)(IMAGE)
    return (output[0][0] if isinstance(output[0], tuple) else output[0]).numpy()


def assert_is_the_map_of(output: np.ndarray, name: str, tolerance: float, pixels: float) -> None:
    """Compare a calibrated model's output with the map of the original's."""
    original = output_of(name)
    assert output.shape == original.shape
    if name.endswith("-cls"):
        with torch.no_grad():
            expected = (0.6 * model(name)(IMAGE)[1].double()).softmax(1).numpy()
        assert np.abs(output - expected).max() < tolerance
    elif name in END_TO_END:  # rows by falling score, which a map for all classes leaves in order but for rounding
        assert np.abs(output[0, :, 4] - SHARED(logit(original[0, :, 4]))).max() < tolerance
        for row in output[0]:
            alike = (np.abs(original[0, :, :4] - row[:4]).max(1) < pixels) & (original[0, :, 5] == row[5])
            assert np.abs(SHARED(logit(original[0, alike, 4])) - row[4]).min() < tolerance
    else:
        assert np.abs(output[:, 4:7] - SHARED(logit(original[:, 4:7]))).max() < tolerance
        assert np.abs(output[:, :4] - original[:, :4]).max() <= pixels
        assert np.abs(output[:, 7:] - original[:, 7:]).max(initial=0) <= pixels


@pytest.mark.parametrize("name", MODELS)
def test_it_loads_and_predicts_where_det_ls_cannot_be_imported(name, elsewhere):
    assert_is_the_map_of(np.load(elsewhere / "found.npz")[f"{name}_calibrated"], name, 1e-6, 1e-4)


@pytest.mark.parametrize("name", EXPORTED)
def test_the_export_gives_the_same_under_onnxruntime(name, elsewhere):
    runtime = pytest.importorskip("onnxruntime")
    file = str(elsewhere / f"{name}_calibrated.onnx")
    session = runtime.InferenceSession(file, providers=["CPUExecutionProvider"])
    output = session.run(None, {session.get_inputs()[0].name: IMAGE.numpy()})[0]
    assert_is_the_map_of(output, name, 1e-5, 1e-2)  # onnxruntime's own arithmetic; pixels


@pytest.mark.parametrize("name", MODELS)
def test_yolo_val_gives_the_same_numbers_where_boxes_do_not_compete(name, files, task_data):
    """One map for all classes, every box kept: the ranking is all that counts, also in an end-to-end head's top-k."""
    task = str(model(name).task)
    data = task_data(task)
    common = {"imgsz": 64, "batch": 4, "workers": 0, "plots": False, "device": "cpu", "verbose": False}
    common |= {} if task == "classify" else {"conf": 0.0, "max_det": 10_000}
    common |= NMS_FREE if name in END_TO_END else {}
    before, after = (YOLO(file).val(data=str(data), **common).results_dict for file in files[name])
    judged = [key for key in before if "mAP" in key or "accuracy" in key]
    assert len(judged) == {"detect": 2, "segment": 4, "pose": 4, "obb": 2, "classify": 2}[task]
    assert max(before[key] for key in judged) > 0
    for key in judged:
        assert abs(before[key] - after[key]) < 1e-6, key
