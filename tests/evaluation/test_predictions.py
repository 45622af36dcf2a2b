# SPDX-License-Identifier: AGPL-3.0-or-later
"""Promises of det_ls.evaluation.predictions: the boxes of `yolo val save_json=True`, unrounded, with nothing written."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
import yaml
from conftest import NAMES
from ultralytics import YOLO
from ultralytics.nn.tasks import DetectionModel, WorldModel
from ultralytics.utils import DEFAULT_CFG_DICT
from ultralytics.utils.patches import torch_load

from det_ls.evaluation.detector import load_detector
from det_ls.evaluation.predictions import Predictions, predict

HAS_END2END_KEY = "end2end" in DEFAULT_CFG_DICT  # recent versions choose the head with nms=False instead
SIZES = {"a.png": (64, 64), "b (2).png": (40, 100), "c.jpg": (97, 33), "deep/d.png": (51, 64), "e.png": (20, 200)}


def untrained(name: str, names: tuple[str, ...] = NAMES) -> YOLO:
    """A model with random weights whose scores are spread over (0, 1)."""
    torch.manual_seed(4)
    model = YOLO(f"{name}.yaml")
    model.model = DetectionModel(f"{name}.yaml", nc=len(names), verbose=False)
    model.model.names = dict(enumerate(names))
    model.model.args = {"task": "detect"}
    head = model.model.model[-1]
    for branch in (head.cv3, getattr(head, "one2one_cv3", None) or []):
        for level in branch:
            torch.nn.init.normal_(level[-1].weight, std=1.0)
            torch.nn.init.constant_(level[-1].bias, -3.0)
    return model


@pytest.fixture(scope="module", params=["yolo11n", "yolo26n"])
def weights(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint of a v8-type and of an end-to-end model, which remembers settings of its training."""
    model = untrained(request.param)
    file = tmp_path_factory.mktemp("weights") / f"{request.param}.pt"
    model.save(file)
    checkpoint = torch_load(file)
    checkpoint["train_args"] = {
        "imgsz": 32,
        "single_cls": True,
        "conf": 0.9,
        "iou": 0.1,
        "max_det": 1,
        "task": "detect",
    }
    torch.save(checkpoint, file)
    return file


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data YAML whose val images vary in size; one has more objects than max_det."""
    root = tmp_path_factory.mktemp("sizes")
    rng = np.random.default_rng(1)
    (root / "images" / "deep").mkdir(parents=True)
    for name, (height, width) in SIZES.items():
        path = root / "images" / name
        cv2.imwrite(str(path), cv2.resize(rng.integers(0, 255, (8, 8, 3), dtype=np.uint8), (width, height)))
    label = root / "labels" / "a.txt"
    label.parent.mkdir()
    label.write_text("\n".join(f"0 0.5 0.5 {i / 400} 0.5" for i in range(1, 310)))
    file = root / "data.yaml"
    names = dict(enumerate(NAMES))
    file.write_text(yaml.safe_dump({"path": str(root), "train": "images", "val": "images", "names": names}))
    return file


def tree(root: Path) -> dict[str, bytes]:
    return {str(p.relative_to(root)): p.read_bytes() for p in root.rglob("*") if p.is_file()}


def rounded(predictions: Predictions) -> list[dict[str, Any]]:
    """Predictions as stock writes them."""
    return [
        {
            "file_name": Path(image.path).name,
            "category_id": index + 1,
            "bbox": [round(x, 3) for x in box],
            "score": round(score, 5),
        }
        for image in predictions.images
        for index, box, score in zip(image.classes.tolist(), image.boxes.tolist(), image.scores.tolist(), strict=True)
    ]


def stock(weights: Path, data: Path, folder: Path, **settings: Any) -> list[dict[str, Any]]:
    """The predictions of `yolo val save_json=True`."""
    YOLO(weights).val(
        data=str(data),
        save_json=True,
        plots=False,
        verbose=False,
        device="cpu",
        project=str(folder),
        name="v",
        **settings,
    )
    for cache in data.parent.rglob("*.cache"):
        cache.unlink()
    keys = ("file_name", "category_id", "bbox", "score")
    return [{key: d[key] for key in keys} for d in json.loads((folder / "v" / "predictions.json").read_text())]


@pytest.mark.parametrize("nms", [False, True], ids=["default", "with NMS"])
def test_rounded_predictions_are_those_of_yolo_val(weights: Path, images: Path, tmp_path: Path, nms: bool) -> None:
    head: dict[str, Any] = {"end2end": not nms} if HAS_END2END_KEY else {"nms": None if nms else False}
    if "11" in weights.name:
        head = {}
    settings = {"imgsz": 64, "batch": 2, "single_cls": False, "max_det": 299}
    expected = stock(weights, images, tmp_path, **settings, **head)
    ours = predict(weights, images, imgsz=64, batch=2, max_det=299, device="cpu", end2end=False if nms else None)
    assert len(expected) > 100
    assert rounded(ours) == expected
    assert ours.settings["end2end"] is ("26" in weights.name and not nms)
    assert ours.settings["iou"] is (None if ours.settings["end2end"] else 0.7) or ours.settings["iou"] == 0.7
    assert {Path(image.path).name: image.shape for image in ours.images} == {Path(n).name: s for n, s in SIZES.items()}
    assert ours.names == dict(enumerate(NAMES))


def test_boxes_are_not_rounded_and_lie_in_the_image(weights: Path, images: Path) -> None:
    for image in predict(weights, images, imgsz=64, device="cpu").images:
        assert image.boxes.dtype == image.scores.dtype == np.float32
        assert (np.round(image.scores, 5) != image.scores).any()
        height, width = image.shape
        assert (image.boxes >= -1e-4).all()
        assert (image.boxes[:, 0] + image.boxes[:, 2] <= width + 1e-3).all()
        assert (image.boxes[:, 1] + image.boxes[:, 3] <= height + 1e-3).all()


def test_nothing_is_written_and_only_a_progress_bar_is_shown(
    weights: Path, images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    jpeg = images.parent / "images" / "c.jpg"
    whole = jpeg.read_bytes()
    jpeg.write_bytes(whole + b"more")  # stock's label scan would write a repaired file
    monkeypatch.chdir(tmp_path)
    before = tree(images.parent), tree(weights.parent)
    try:
        predict(weights, images, imgsz=64, device="cpu")
        assert (tree(images.parent), tree(weights.parent), tree(tmp_path)) == (*before, {})
    finally:
        jpeg.write_bytes(whole)
    output = "".join(capfd.readouterr())
    assert "Predicting" in output
    assert "Ultralytics" not in output
    assert "summary" not in output


def test_settings_of_the_training_do_not_leak_and_max_det_stays(weights: Path, images: Path) -> None:
    settings = predict(weights, images, imgsz=64, device="cpu").settings
    expected = {"imgsz": 64, "batch": 16, "conf": 0.001, "max_det": 300, "device": "cpu"}
    assert {key: settings[key] for key in expected} == expected
    fewer = predict(weights, images, imgsz=64, device="cpu", max_det=3, conf=0.01)
    assert max(len(image.scores) for image in fewer.images) == 3
    assert min(image.scores.min() for image in fewer.images if len(image.scores)) > 0.01


def test_path_yolo_and_module_predict_the_same_and_stay_as_they_are(weights: Path, images: Path) -> None:
    expected = rounded(predict(weights, images, imgsz=64, device="cpu"))
    model = YOLO(weights)
    model.model.train()
    before = {k: v.clone() for k, v in model.model.state_dict().items()}
    for candidate in (model, model.model, load_detector(model)):
        assert rounded(predict(candidate, images, imgsz=64, device="cpu")) == expected
    assert model.model.training
    assert before.keys() == model.model.state_dict().keys()
    assert all(torch.equal(v, before[k]) for k, v in model.model.state_dict().items())
    assert all(parameter.requires_grad for parameter in list(model.model.parameters())[:3])


def test_a_resolved_dataset_and_any_split_can_be_predicted(weights: Path, images: Path) -> None:
    from det_ls.data.locate import check_dataset

    resolved = check_dataset(images)
    del resolved["names"]  # the pipeline needs the images only
    assert rounded(predict(weights, resolved, "train", imgsz=64, device="cpu")) == rounded(
        predict(weights, images, "val", imgsz=64, device="cpu")
    )


def test_weights_are_identified(weights: Path) -> None:
    import hashlib

    assert load_detector(weights).sha256 == hashlib.sha256(weights.read_bytes()).hexdigest()
    model = YOLO(weights)
    first = load_detector(model)
    assert first.sha256_of == "state_dict"
    assert first.weights == weights.name
    assert load_detector(model.model).sha256 == first.sha256
    with torch.no_grad():
        next(model.model.parameters()).view(-1)[0] += 1
    assert load_detector(model).sha256 != first.sha256


def test_an_exported_model_can_be_predicted(images: Path, tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    onnx = pytest.importorskip("onnx")
    assert onnx
    untrained("yolo11n").save(tmp_path / "m.pt")
    exported = YOLO(tmp_path / "m.pt").export(format="onnx", imgsz=64, dynamic=True, simplify=False)
    ours = predict(exported, images, imgsz=64, batch=1, device="cpu")
    native = predict(tmp_path / "m.pt", images, imgsz=64, batch=1, device="cpu")
    assert ours.names == native.names
    for a, b in zip(ours.images, native.images, strict=True):
        np.testing.assert_allclose(a.scores[:5], b.scores[:5], atol=1e-4)
    with pytest.raises(ValueError, match="end2end: expected a model with an NMS-free head for True"):
        predict(exported, images, end2end=True)


def test_a_missing_or_damaged_checkpoint_is_named(weights: Path, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"a file with weights, got 'none\.pt', which does not exist"):
        load_detector("none.pt")
    damaged = tmp_path / "damaged.pt"
    whole = weights.read_bytes()
    for content in (whole[: len(whole) // 2], b"", b"not a checkpoint", whole[100:]):
        damaged.write_bytes(content)
        with pytest.raises(ValueError, match=r"readable Ultralytics checkpoint, got '.*damaged\.pt', which cannot"):
            load_detector(damaged)
    torch.save({"something": "else"}, damaged)
    with pytest.raises(ValueError, match="readable Ultralytics checkpoint"):
        load_detector(damaged)
    with pytest.raises(ValueError, match=r"trained weights, got 'yolo11n\.yaml', which only describes a network"):
        load_detector("yolo11n.yaml")
    (tmp_path / "notes.txt").write_text("")
    with pytest.raises(ValueError, match=r"a checkpoint \(\.pt\) or an exported model, got '.*notes\.txt'"):
        load_detector(tmp_path / "notes.txt")


def test_other_models_are_refused() -> None:
    with pytest.raises(TypeError, match="a path, a YOLO or a module, got int"):
        load_detector(3)
    with pytest.raises(ValueError, match="a YOLO model for detect, segment, pose, obb or classify, got Linear"):
        load_detector(torch.nn.Linear(1, 1))
    with pytest.raises(ValueError, match="obb or classify, got WorldModel with a WorldDetect head"):
        load_detector(WorldModel("yolov8s-worldv2.yaml", nc=3, verbose=False))


def test_an_image_that_cannot_be_decoded_is_named(weights: Path, images: Path, tmp_path: Path) -> None:
    cut = tmp_path / "cut.png"
    cut.write_bytes((images.parent / "images" / "a.png").read_bytes()[:60])
    data = {"path": tmp_path, "val": str(tmp_path)}
    with pytest.raises(ValueError, match=r"images: expected an image, got '.*cut\.png', which cannot be decoded"):
        predict(weights, data, imgsz=64, device="cpu")


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        ({"imgsz": 0}, ValueError, "imgsz: expected an integer of at least 1, got 0"),
        ({"imgsz": "640"}, TypeError, "imgsz: expected an integer of at least 1, got '640'"),
        ({"batch": 1.5}, TypeError, "batch: expected an integer of at least 1, got 1.5"),
        ({"max_det": True}, TypeError, "max_det: expected an integer of at least 1, got True"),
        ({"conf": 1.5}, ValueError, "conf: expected a number from 0 to 1, got 1.5"),
        ({"conf": float("nan")}, ValueError, "conf: expected a number from 0 to 1, got nan"),
        ({"iou": "0.7"}, TypeError, "iou: expected a number from 0 to 1, got '0.7'"),
        ({"workers": -1}, ValueError, "workers: expected an integer of at least 0"),
        ({"end2end": "yes"}, TypeError, "end2end: expected True or False, got 'yes'"),
    ],
)
def test_bad_settings_are_explained(
    settings: dict[str, Any], error: type[Exception], message: str, weights: Path, images: Path
) -> None:
    with pytest.raises(error, match=message):
        predict(weights, images, **settings)


def test_a_head_that_the_model_lacks_is_refused(weights: Path, images: Path) -> None:
    model = YOLO(weights)
    if "11" in weights.name:
        with pytest.raises(ValueError, match="end2end: expected a model with an NMS-free head for True"):
            predict(model, images, end2end=True)
    else:
        model.model.model[-1].cv2 = model.model.model[-1].cv3 = None  # as fused for deployment
        with pytest.raises(ValueError, match="end2end: expected a model with its one-to-many head for False"):
            predict(model, images, end2end=False)


@pytest.mark.parametrize(
    ("method", "supported"),
    [
        ("def scale_preds(self, predn, pbatch, padded=False, **more): ...", True),
        ("def scale_preds(self, predn, pbatch, padded): ...", False),
        ("def scale_preds(self, pbatch, predn): ...", False),
    ],
)
def test_a_version_whose_methods_take_more_is_supported_if_that_is_optional(method: str, supported: bool) -> None:
    code = (
        f"{method}\n"
        "from ultralytics.models.yolo.detect import DetectionValidator as V\n"
        "V.scale_preds = scale_preds\n"
        "from det_ls.evaluation.predictions import predict\n"
        "predict('none.pt', 'none.yaml')\n"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=Path(__file__).parents[2])
    assert ("expected a version whose validator" not in run.stderr) == supported
    assert ("got 'none.pt', which does not exist" in run.stderr) == supported


def test_a_version_with_another_validator_is_named() -> None:
    code = (
        "from ultralytics.models.yolo.detect import DetectionValidator as V\n"
        "del V.scale_preds\n"
        "from det_ls.evaluation.predictions import predict\n"
        "predict('none.pt', 'none.yaml')\n"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=Path(__file__).parents[2])
    assert run.returncode == 1
    assert "expected a version whose validator has DetectionValidator.scale_preds(predn, pbatch)" in run.stderr
