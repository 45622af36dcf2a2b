# SPDX-License-Identifier: AGPL-3.0-or-later
"""Folding is exact, leaves an ordinary checkpoint, and is refused where it cannot be."""

from __future__ import annotations

import copy
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from ultralytics import RTDETR, YOLO
from ultralytics.utils.patches import torch_load
from ultralytics.utils.torch_utils import strip_optimizer

from det_ls.calibration import fold
from det_ls.calibration.maps import AffineMap, BetaMap

SHARED = AffineMap((0.6,), (-0.3,))
MODELS = [
    "yolov8n.yaml",
    "yolo11n.yaml",
    "yolo26n.yaml",
    "yolov10n.yaml",
    "yolo11n-seg.yaml",
    "yolo26n-pose.yaml",
    "yolo11n-obb.yaml",
]


def lively(name: str, seed: int = 0) -> nn.Module:
    """A model whose scores spread over (0, 1), as a trained one's do."""
    torch.manual_seed(seed)
    module = YOLO(name).model.eval()
    for layer in fold.class_layers(module):
        nn.init.normal_(layer.weight, std=1.0 if isinstance(layer, nn.Conv2d) else 0.1)
        nn.init.normal_(layer.bias, std=2.0)
    return module


def by_class(module: nn.Module) -> AffineMap:
    names = tuple(module.names.values())
    rng = np.random.default_rng(0)
    return AffineMap(tuple(rng.uniform(0.3, 1.8, len(names))), tuple(rng.normal(0, 0.5, len(names))), names)


def raw(module: nn.Module, image: torch.Tensor) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Boxes and logits of each head before any filter."""
    with torch.no_grad():
        heads = module(image)[1]
    heads = [heads[k] for k in ("one2many", "one2one")] if "one2one" in heads else [heads]
    return [(head["boxes"], head["scores"]) for head in heads]


IMAGE = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("shared", [True, False])
def test_the_folded_scores_are_the_map_of_the_original_ones(name, shared):
    module = lively(name)
    one = SHARED if shared else by_class(module)
    folded = copy.deepcopy(module)
    fold.fold_map(folded, one)
    before, after = raw(module, IMAGE), raw(folded, IMAGE)
    assert len(before) == (2 if name in {"yolo26n.yaml", "yolov10n.yaml", "yolo26n-pose.yaml"} else 1)
    for (boxes, z), (new_boxes, new_z) in zip(before, after, strict=True):
        assert torch.equal(boxes, new_boxes)
        cls = np.broadcast_to(np.arange(z.shape[1])[None, :, None], z.shape)
        expected = one(z.double().numpy(), cls)
        assert np.abs(new_z.sigmoid().numpy() - expected).max() < 1e-6
    assert float(before[0][1].sigmoid().max()) > 0.9  # the scores are no trivial ones


@pytest.mark.parametrize("name", ["yolov8n.yaml", "yolo26n.yaml"])
def test_in_half_precision_they_agree_to_its_resolution(name):
    module = lively(name)
    folded = copy.deepcopy(module)
    fold.fold_map(folded, SHARED)
    for (_, z), (_, new_z) in zip(
        raw(copy.deepcopy(module).half(), IMAGE.half()), raw(folded.half(), IMAGE.half()), strict=True
    ):
        assert np.abs(new_z.float().sigmoid().numpy() - SHARED(z.double().numpy())).max() < 2e-3


def test_a_classifier_takes_a_temperature():
    module = lively("yolo11n-cls.yaml")
    hot = AffineMap((0.5,), (0.0,), kind="temperature")
    folded = copy.deepcopy(module)
    fold.fold_map(folded, hot)
    with torch.no_grad():
        z, p = module(IMAGE)[1], folded(IMAGE)[0]
    assert (p - (0.5 * z).softmax(1)).abs().max() < 1e-6
    with pytest.raises(ValueError, match="one temperature for a classification model"):
        fold.fold_map(folded, SHARED)


@pytest.mark.parametrize("name", ["yolo11n.yaml", "yolo26n.yaml"])
def test_a_fused_model_is_folded_too(name):
    module = lively(name).fuse(verbose=False)
    folded = copy.deepcopy(module)
    fold.fold_map(folded, SHARED)
    with torch.no_grad():
        z, new = (m(IMAGE)[1] for m in (module, folded))
    head = "one2one" if z.get("one2one") else None
    z, new = (part[head] if head else part.get("one2many", part) for part in (z, new))
    assert np.abs(new["scores"].sigmoid().numpy() - SHARED(z["scores"].double().numpy())).max() < 1e-6


def checkpoint(module: nn.Module, path: Path, key: str = "model") -> Path:
    """Write a checkpoint as a finished (or with ``ema`` unfinished) run does."""
    other = {"model": "ema", "ema": "model"}[key]
    content = {key: copy.deepcopy(module).half(), other: None, "train_args": {"imgsz": 64}, "epoch": 3}
    torch.save({**content, "optimizer": {"state": {}}, "date": "", "version": "8.4.0"}, path)
    return path


@pytest.fixture(scope="module")
def calibrated(tmp_path_factory) -> tuple[Path, Path]:
    """A checkpoint in half precision, and the calibrated one beside it."""
    folder = tmp_path_factory.mktemp("fold")
    source = checkpoint(lively("yolo11n.yaml"), folder / "best.pt")
    fold.fold_checkpoint(fold.load_checkpoint(source), SHARED, {"map": {"a": [0.6]}, "n": 7}, folder / "new.pt")
    return source, folder / "new.pt"


def test_a_checkpoint_in_half_precision_is_folded_to_single_precision(calibrated):
    before, after = (YOLO(file).model for file in calibrated)
    (boxes, z), (new_boxes, new_z) = (raw(m, IMAGE)[0] for m in (before, after))
    assert torch.equal(boxes, new_boxes)
    assert np.abs(new_z.sigmoid().numpy() - SHARED(z.double().numpy())).max() < 1e-6


def test_the_source_is_left_as_it_was(tmp_path):
    source = checkpoint(lively("yolo11n.yaml"), tmp_path / "best.pt")
    content = source.read_bytes()
    loaded = fold.load_checkpoint(source)
    state = copy.deepcopy(loaded["model"].state_dict())
    fold.fold_checkpoint(loaded, SHARED, {}, tmp_path / "new.pt")
    assert source.read_bytes() == content
    assert all(torch.equal(v, state[k]) for k, v in loaded["model"].state_dict().items())


def test_the_ema_and_the_live_weights_of_an_unfinished_run_are_both_folded(tmp_path):
    ema, live = lively("yolo11n.yaml"), lively("yolo11n.yaml", seed=1)
    fold.fold_checkpoint({"ema": ema, "model": live, "optimizer": {}, "epoch": 3}, SHARED, {}, tmp_path / "new.pt")
    content = torch_load(tmp_path / "new.pt", map_location="cpu")
    for key, module in (("ema", ema), ("model", live)):
        z, new_z = raw(module, IMAGE)[0][1], raw(content[key], IMAGE)[0][1]
        assert np.abs(new_z.sigmoid().numpy() - SHARED(z.double().numpy())).max() < 1e-6
    assert content["epoch"] == -1
    assert content["optimizer"] is None


def test_the_record_outlives_stock_loading_saving_and_stripping(calibrated, tmp_path):
    copied = tmp_path / "copy.pt"
    copied.write_bytes(calibrated[1].read_bytes())
    record = {"map": {"a": [0.6]}, "n": 7}
    assert fold.read_record(YOLO(copied)) == record
    strip_optimizer(copied)
    assert fold.read_record(torch_load(copied, map_location="cpu")) == record
    YOLO(copied).save(tmp_path / "again.pt")
    assert fold.read_record(YOLO(tmp_path / "again.pt")) == record
    assert fold.read_record(YOLO(calibrated[0])) is None


def test_models_without_a_last_convolution_are_refused_by_what_was_found():
    for model, found in (
        (RTDETR("yolov8-rtdetr.yaml"), "RTDETRDecoder"),
        (YOLO("yolov8s-worldv2.yaml"), "WorldDetect"),
    ):
        with pytest.raises(ValueError, match=f"got a {found} head"):
            fold.class_layers(model.model)
    other = YOLO("yolo11n.yaml").model
    other.model[-1].cv3[1] = nn.Sequential(nn.Conv2d(64, 80, 3))
    with pytest.raises(
        ValueError, match=r"end in a 1 x 1 convolution to 80 classes, got cv3 that ends in Conv2d.*\(3, 3\)"
    ):
        fold.class_layers(other)


def test_maps_that_do_not_fold_are_refused(calibrated):
    module = YOLO(calibrated[0]).model
    with pytest.raises(ValueError, match="expected platt or temperature to fold, got beta"):
        fold.fold_map(module, BetaMap(1, 1, 0))
    with pytest.raises(ValueError, match="expected a map for class '0'"):
        fold.fold_map(module, AffineMap((1.0,), (0.0,), ("cat",)))


def test_a_folded_model_that_is_not_the_map_is_noticed(calibrated):
    module = YOLO(calibrated[0]).model
    with pytest.raises(RuntimeError, match="apart"):
        fold.check_fold(module, module, SHARED)


@pytest.mark.parametrize(
    ("name", "content", "error", "words"),
    [
        ("none.pt", None, FileNotFoundError, "does not exist"),
        ("m.onnx", b"x", ValueError, "exported model: calibrate before the export"),
        ("m.txt", b"x", ValueError, "expected a checkpoint"),
        ("m.pt", b"x", ValueError, "readable checkpoint"),
        ("j.pt", json, ValueError, "with a model"),
    ],
)
def test_what_is_no_checkpoint_is_refused_in_one_sentence(name, content, error, words, tmp_path):
    file = tmp_path / name
    if content is json:
        torch.save({"model": 3}, file)
    elif content is not None:
        file.write_bytes(content)
    with pytest.raises(error, match=words):
        fold.load_checkpoint(file)
