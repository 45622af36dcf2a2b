# SPDX-License-Identifier: AGPL-3.0-or-later
"""The whole chain on a model and labels with a known map: predict, fit, fold, and what the calibrated checkpoint then does."""

from __future__ import annotations

import hashlib
import json
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from conftest import make_dataset
from test_fold import checkpoint, lively
from torch import nn
from ultralytics import YOLO
from ultralytics.engine.trainer import BaseTrainer
from ultralytics.models.yolo.detect import DetectionTrainer
from ultralytics.nn.tasks import DetectionModel, SegmentationModel
from ultralytics.utils.patches import torch_load

import det_ls
from det_ls.base.folders import claim_folder
from det_ls.calibration import fold
from det_ls.calibration.calibrate import calibrate
from det_ls.calibration.maps import AffineMap, IsotonicMap, logit, map_from_dict, map_to_dict, sigmoid
from det_ls.calibration.sidecar import Calibrator, load_calibrator
from det_ls.cli import main as cli
from det_ls.cli.calibrate import calibration_line
from det_ls.cli.train import passthrough
from det_ls.evaluation.predictions import predict

calibrate_module = sys.modules["det_ls.calibration.calibrate"]  # whose name its function has too
TRUE = AffineMap((0.8,), (0.5,))
SETTINGS = {"imgsz": 64, "batch": 4, "workers": 0, "device": "cpu", "bootstrap": 0, "folds": 3}


@pytest.fixture(scope="module")
def images(tmp_path_factory) -> Path:
    return make_dataset(tmp_path_factory.mktemp("calibrate"), train=1, val=16)


@pytest.fixture(scope="module")
def best(images, tmp_path_factory) -> Path:
    """A checkpoint of a model with small boxes and scores of all sizes."""
    torch.manual_seed(0)
    module = DetectionModel("yolo11n.yaml", nc=3, verbose=False)
    module.names = {0: "red", 1: "green", 2: "blue"}
    for branch in module.model[-1].cv2:
        branch[-1].bias.data = (-2 * (torch.arange(16) - 1.5).abs()).repeat(4)
    files = sorted((images.parent / "images" / "val").iterdir())
    pixels = torch.stack([torch.from_numpy(cv2.imread(str(file))[..., ::-1].copy()).permute(2, 0, 1) for file in files])
    for norm in (m for m in module.modules() if isinstance(m, nn.BatchNorm2d)):
        norm.momentum = None  # statistics are the average of what it sees
    pixels = nn.functional.pad(pixels.float(), [16] * 4, value=114)  # as the pipeline letterboxes
    with torch.no_grad():
        module(pixels / 255)
    z = fold.class_logits(module, pixels / 255)[0].double()
    mean, std = z.mean((0, 2)), z.std((0, 2))
    names = tuple(module.names.values())
    fold.fold_map(module, AffineMap(tuple((1.5 / std).tolist()), tuple((-3 - 1.5 * mean / std).tolist()), names))
    return checkpoint(module.eval(), tmp_path_factory.mktemp("run") / "best.pt")


@pytest.fixture(scope="module")
def data(best, images) -> Path:
    """The images, and as objects some of the model's own boxes, the likelier the higher their score."""
    file = images
    rng = np.random.default_rng(0)
    for image in predict(best, file, imgsz=64, batch=4, workers=0, device="cpu").images:
        chosen = []
        for c, box, score in sorted(
            zip(image.classes, image.boxes, image.scores, strict=True), key=lambda row: -row[2]
        ):
            left, top = box[:2].clip(0, 64)
            right, bottom = (box[:2] + box[2:]).clip(0, 64)
            apart = all(abs(x - left) > 8 or abs(y - top) > 8 for _, x, y, _, _ in chosen)
            if apart and len(chosen) < 6 and rng.random() < TRUE(logit([score]))[0]:
                chosen.append((c, left, top, right, bottom))
        lines = [
            f"{c} {(x + r) / 128:.6f} {(y + b) / 128:.6f} {(r - x) / 64:.6f} {(b - y) / 64:.6f}"
            for c, x, y, r, b in chosen
        ]
        Path(image.path.replace("images", "labels")).with_suffix(".txt").write_text("\n".join(lines))
    return file


@pytest.fixture(scope="module")
def result(best, data, tmp_path_factory):
    folder = tmp_path_factory.mktemp("result")
    return calibrate(best, data, save=folder / "calibrated.pt", save_dir=folder, **SETTINGS)


def scores(weights: object, data: Path, **settings) -> dict[tuple, float]:
    """The score of each box of the val split, by image, class and place."""
    predictions = predict(weights, data, conf=0.0, imgsz=64, batch=4, workers=0, device="cpu", **settings)
    return {
        (image.path, int(c), *np.round(box, 2).tolist()): float(s)
        for image in predictions.images
        for c, box, s in zip(image.classes, image.boxes, image.scores, strict=True)
    }


def test_the_calibrated_checkpoint_gives_the_calibrated_scores(best, data, result):
    before, after = scores(best, data, max_det=1000), scores(result.weights, data, max_det=1000)
    common = [key for key in before if key in after]
    assert len(common) > 0.9 * len(before)
    expected = result.map(logit([before[key] for key in common]))
    assert np.abs(expected - [after[key] for key in common]).max() < 1e-5


def test_the_result_holds_what_a_report_needs(result):
    content = json.loads((result.weights.parent / "calibration.json").read_text())
    assert content["counts"] == result.counts
    assert result.counts["images"] == 16
    assert set(result.pipeline) == {"AP", "AP50", "detections"}
    assert result.record["exact_logits"]
    assert map_from_dict(content["map"]) == result.map
    assert set(result.reliability) == {"iou", "tp", "iou_kept", "tp_kept"}


@pytest.mark.parametrize("precision", ["single", "half"])
def test_what_the_pipeline_did_is_what_predicting_with_the_calibrated_checkpoint_does(precision, best, data, tmp_path):
    """At a conf that the map pushes many boxes below."""
    weights = tmp_path / "best.pt"
    content = torch_load(best)
    content["model"] = getattr(content["model"], {"single": "float"}.get(precision, precision))()
    torch.save(content, weights)
    found = calibrate(weights, data, save=tmp_path / "calibrated.pt", conf=0.05, **SETTINGS)
    common = {"conf": 0.05, "imgsz": 64, "batch": 4, "workers": 0, "device": "cpu"}
    for end, file in (("before", weights), ("after", found.weights)):
        numbers = {key: getattr(change, end) for key, change in found.pipeline.items()}
        images = predict(file, data, **common).images
        assert numbers["detections"] == sum(len(image.scores) for image in images)
        metrics = det_ls.evaluate(file, data, simulations=0, **common).metrics.values
        assert [numbers["AP"], numbers["AP50"]] == pytest.approx([metrics["AP"], metrics["AP50"]], abs=1e-6)
    assert found.pipeline["detections"].difference < -100
    assert found.pipeline["AP"].difference != 0


@pytest.mark.parametrize("method", ["platt", "desmooth"])
def test_the_groups_of_a_models_images_are_held_out_and_resampled(method, best, data, monkeypatch):
    core = "desmooth_table" if method == "desmooth" else "calibrate_table"
    work, given = getattr(calibrate_module, core), []

    def remember(*args, group=None, **kwargs):
        given.append(group)
        return work(*args, group=group, **kwargs)

    monkeypatch.setattr(calibrate_module, core, remember)
    smoothing = np.eye(3) * 0.9 if method == "desmooth" else None
    found = calibrate(best, data, method, save=False, groups=r"(\d)\.png$", smoothing=smoothing, **SETTINGS)
    assert np.array_equal(given[0], np.arange(16) % 10)
    assert found.counts["groups"] == 10


def test_each_class_is_desmoothed_by_its_own_share(best, data):
    kept = {"red": 0.9, "green": 0.6, "blue": 0.75}
    found = calibrate(best, data, "desmooth", smoothing=np.diag(list(kept.values())), **SETTINGS)
    for name, share in kept.items():
        position = found.map.classes.index(name)
        assert found.map(logit([0.4]), [position])[0] == pytest.approx(0.4 / share)
    after, before = found.scores
    ratio = np.unique(np.round(before[after < 1] / after[after < 1], 6))
    assert ratio.tolist() == sorted(kept.values())


def test_the_checkpoint_records_what_was_done_in_plain_values(best, result):
    record = fold.read_record(YOLO(result.weights))
    json.dumps(record)
    assert map_from_dict(record["map"]) == result.map
    assert record["method"] == "platt"
    assert record["split"] == "val"
    assert record["counts"]["images"] == 16
    assert len(record["source_sha256"]) == 64
    assert set(record["before_after"]["kept"]) >= {"LaECE0", "DECE"}


def test_a_calibrated_checkpoint_is_refused_unless_from_its_original_scores(best, data, result, tmp_path):
    with pytest.raises(ValueError, match="not calibrated yet"):
        calibrate(result.weights, data, save=False, **SETTINGS)
    again = calibrate(result.weights, data, save=tmp_path / "again.pt", recalibrate=True, **SETTINGS)
    assert np.allclose([*again.map.a, *again.map.b], [*result.map.a, *result.map.b], atol=1e-4)
    for key in ("source", "source_sha256"):  # of the weights that the original scores are of
        assert again.record[key] == result.record[key]
    assert again.record["source"] == "best.pt"
    assert again.record["source_sha256"] == hashlib.sha256(best.read_bytes()).hexdigest()


def test_yolo_val_gives_the_same_map_where_boxes_do_not_compete(best, data, result):
    """With every box kept (no conf, no limit) the ranking within a class is all that counts."""
    common = {"data": str(data), "imgsz": 64, "batch": 4, "workers": 0, "plots": False, "device": "cpu", "conf": 0.0}
    before, after = (YOLO(w).val(max_det=10_000, verbose=False, **common).box for w in (best, result.weights))
    assert before.map50 > 0
    assert abs(before.map - after.map) < 1e-6
    assert abs(before.map50 - after.map50) < 1e-6


def test_logits_are_those_that_the_model_computed(best, data):
    kept = predict(best, data, imgsz=64, batch=4, workers=0, device="cpu", logits=True)
    plain = predict(best, data, imgsz=64, batch=4, workers=0, device="cpu")
    for image, other in zip(kept.images, plain.images, strict=True):
        assert other.logits is None
        assert np.array_equal(image.boxes, other.boxes)
        assert np.array_equal(image.scores, other.scores)
        assert np.array_equal(image.logits, image.logits.astype(np.float32))  # computed in single precision
        assert np.abs(sigmoid(image.logits) - image.scores).max(initial=0) < 1e-6


@pytest.mark.parametrize("end2end", [None, False])
def test_logits_tell_scores_apart_that_single_precision_cannot(end2end, data):
    module = lively("yolo26n.yaml")
    for layer in fold.class_layers(module):
        layer.bias.data += 11
    module.names = {i: f"c{i}" for i in range(80)}
    settings = {"imgsz": 64, "batch": 4, "workers": 0, "device": "cpu", "conf": 0.99999, "end2end": end2end}
    images = predict(module, data, logits=True, **settings).images
    z = np.concatenate([image.logits for image in images])
    s = np.concatenate([image.scores for image in images])
    assert np.abs(sigmoid(z) - s).max() < 1e-6
    assert z.max() > 15  # where 1 - s in single precision is a few units in the last place


def test_beta_and_isotonic_are_maps_beside_the_model(best, data, tmp_path):
    found = calibrate(best, data, "isotonic", save_dir=tmp_path, **SETTINGS)
    assert isinstance(found.map, IsotonicMap)
    assert found.weights is None
    assert not found.pipeline
    with pytest.raises(ValueError, match="needs code at inference"):
        calibrate(best, data, "beta", save=tmp_path / "x.pt", **SETTINGS)
    model = YOLO(best)
    image = str(next((data.parent / "images" / "val").iterdir()))
    plain = model.predict(image, imgsz=64, conf=0.001, verbose=False)[0].boxes
    calibrator = load_calibrator(tmp_path / "map.json")
    calibrator.attach(model)
    moved = model.predict(image, imgsz=64, conf=0.001, verbose=False)[0].boxes
    assert len(plain) > 0
    assert torch.equal(moved.xyxy, plain.xyxy)
    assert np.allclose(moved.conf.numpy(), found.map(logit(plain.conf.numpy())), atol=1e-6)
    calibrator.detach()
    assert torch.equal(model.predict(image, imgsz=64, conf=0.001, verbose=False)[0].boxes.conf, plain.conf)


def test_a_calibrator_by_class_goes_by_the_names(best, data):
    model = YOLO(best)
    image = str(next((data.parent / "images" / "val").iterdir()))
    plain = model.predict(image, imgsz=64, conf=0.001, verbose=False)[0].boxes
    one = AffineMap((0.5, 1.0, 2.0), (0.0, 0.1, 0.2), ("blue", "green", "red"))
    result = model.predict(image, imgsz=64, conf=0.001, verbose=False)
    Calibrator(one)(result)
    position = np.array([2, 1, 0])[plain.cls.numpy().astype(int)]
    assert np.allclose(result[0].boxes.conf.numpy(), one(logit(plain.conf.numpy()), position), atol=1e-6)


def test_desmoothing_divides_by_what_a_class_kept_and_says_when_it_cannot(best, data, tmp_path):
    keys = {"label_smoothing": 0.2, "label_smoothing_mode": "background"}
    found = calibrate(best, data, "desmooth", smoothing=keys, **SETTINGS)
    assert found.map([0.0], [0]).tolist() == pytest.approx([0.5 / 0.8])
    assert map_from_dict(map_to_dict(found.map)) == found.map
    with pytest.raises(ValueError, match="moves mass between classes"):
        calibrate(best, data, "desmooth", smoothing={"label_smoothing": 0.2}, **SETTINGS)
    with pytest.raises(ValueError, match=r"got none and no args\.yaml"):
        calibrate(best, data, "desmooth", **SETTINGS)
    run = tmp_path / "weights"
    run.mkdir()
    (run / "best.pt").write_bytes(best.read_bytes())
    (tmp_path / "args.yaml").write_text("label_smoothing: 0.2\nlabel_smoothing_mode: background\nepochs: 3\n")
    assert calibrate(run / "best.pt", data, "desmooth", **SETTINGS).map == found.map


def test_refusals_come_before_any_work(best, data, tmp_path):
    with pytest.raises(ValueError, match="split: expected images that the model was not trained on"):
        calibrate("none.pt", "none.yaml", split="train")
    with pytest.raises(ValueError, match="method: expected one of platt"):
        calibrate("none.pt", "none.yaml", "magic")
    with pytest.raises(FileNotFoundError, match="model"):
        calibrate("none.pt", data)
    with pytest.raises(ValueError, match="calibrate before the export"):
        (tmp_path / "m.onnx").write_bytes(b"")
        calibrate(tmp_path / "m.onnx", data)
    with pytest.raises(FileExistsError, match="without exist_ok"):
        (tmp_path / "x.pt").write_bytes(b"mine")
        calibrate(best, data, save=tmp_path / "x.pt")
    with pytest.raises(ValueError, match="another file than the model's own"):
        calibrate(best, data, save=best, exist_ok=True)
    with pytest.raises(ValueError, match="axes to fit a map on, got an OBB head"):
        calibrate(YOLO("yolo11n-obb.yaml"), data)


def test_a_segmentation_model_is_calibrated_by_its_boxes(best, data, result, tmp_path):
    twin = SegmentationModel("yolo11n-seg.yaml", nc=3, verbose=False)  # with the boxes and scores of the other
    twin.load_state_dict(YOLO(best).model.state_dict(), strict=False)
    twin.names, twin.task = YOLO(best).names, "segment"
    found = calibrate(checkpoint(twin.eval(), tmp_path / "seg.pt"), data, **SETTINGS)
    assert np.allclose([*found.map.a, *found.map.b], [*result.map.a, *result.map.b], rtol=1e-3)
    assert found.weights == tmp_path / "seg_calibrated.pt"
    calibrated = YOLO(found.weights)
    assert calibrated.task == "segment"
    image = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        before, after = (YOLO(file).model(image)[0][0] for file in (tmp_path / "seg.pt", found.weights))
    assert torch.equal(before[:, 7:], after[:, 7:])  # mask coefficients
    assert np.abs(found.map(logit(before[:, 4:7].numpy())) - after[:, 4:7].numpy()).max() < 1e-5


def test_the_command_writes_a_calibrated_checkpoint(best, data, tmp_path, capsys):
    words = [
        f"model={best}",
        f"data={data}",
        "imgsz=64",
        "batch=4",
        "workers=0",
        "device=cpu",
        "bootstrap=10",
        "folds=3",
    ]
    out = tmp_path / "new.pt"
    assert cli.main(["calibrate", *words, f"save={out}", f"save_dir={tmp_path}"]) == 0
    text = capsys.readouterr().out
    assert "kept boxes" in text
    assert str(out) in text
    assert fold.read_record(YOLO(out))["method"] == "platt"
    assert (tmp_path / "map.json").is_file()
    assert cli.main(["calibrate", *words, f"save={out}", f"save_dir={tmp_path}"]) == 2
    assert det_ls.calibrate is calibrate
    line = calibration_line(out)
    assert "calibrated: platt" in line
    assert "16 images" in line
    assert calibration_line(best) == ""


class Begun(Exception):
    """Training would begin."""


@pytest.mark.parametrize("way", ["keyword", "command line", "trainer", "stock trainer", "load", "pretrained", "plain"])
def test_training_a_calibrated_checkpoint_warns_that_the_calibration_goes(
    way, best, data, result, tmp_path, monkeypatch, log
):
    def begin(*args, **kwargs):
        raise Begun

    monkeypatch.setattr("ultralytics.engine.trainer.BaseTrainer._do_train", begin)
    words = {"data": str(data), "imgsz": 64, "epochs": 1, "device": "cpu", "workers": 0, "plots": False, "amp": False}
    words |= {"project": str(tmp_path)}
    weights = result.weights if way != "plain" else best
    with pytest.raises(Begun):
        if way == "command line":
            passthrough(["train", f"model={weights}", *(f"{key}={value}" for key, value in words.items())])
        elif way == "trainer":
            YOLO(weights).train(trainer=det_ls.DetectionTrainer, **words)
        elif way == "stock trainer":
            det_ls.YOLO(weights).train(trainer=DetectionTrainer, **words)
        elif way == "load":
            det_ls.YOLO("yolo11n.yaml").load(weights).train(**words)
        elif way == "pretrained":
            monkeypatch.setattr("ultralytics.engine.trainer.BaseTrainer._do_train", BaseTrainer.setup_model)
            trainer = det_ls.DetectionTrainer(overrides={**words, "model": "yolo11n.yaml", "pretrained": str(weights)})
            trainer.train()
            raise Begun
        else:
            det_ls.YOLO(weights).train(**words)
    said = [message for message in log if "will not be calibrated" in message]
    assert len(said) == (way != "plain")


ODD_RECORDS = [
    {"modelopt": {"mode": "int8"}},
    {fold.KEY: {"map": [1, 2], "counts": "many"}},
    {fold.KEY: {"map": {"format": "det-ls calibration map 1", "kind": ["platt"]}}},
    {fold.KEY: {"map": map_to_dict(AffineMap((1.0,), (0.0,))), "counts": [3], "source_sha256": 5}},
    {fold.KEY: [1]},
]


@pytest.mark.parametrize("odd", ODD_RECORDS)
def test_the_line_of_an_odd_checkpoint_costs_no_evaluation(odd, best, data, tmp_path):
    content = torch_load(best, map_location="cpu")
    torch.save({**content, **odd}, tmp_path / "odd.pt")
    assert isinstance(calibration_line(tmp_path / "odd.pt"), str)
    if fold.KEY in odd and isinstance(odd[fold.KEY], dict) and not isinstance(odd[fold.KEY].get("counts"), list):
        with pytest.raises(ValueError, match=r"^model: the record of its calibration: expected .*\.$"):
            calibrate(tmp_path / "odd.pt", data, save=False, recalibrate=True, **SETTINGS)


def test_what_is_no_checkpoint_has_no_line(tmp_path):
    (tmp_path / "x.pt").write_bytes(b"no checkpoint")
    for name in (tmp_path / "x.pt", tmp_path / "none.pt", "x" * 5000 + ".pt", "yolo11n", 3):
        assert calibration_line(name) == ""


def test_a_folder_where_another_calibration_is_at_work_is_refused_before_any_work(best, data, tmp_path, monkeypatch):
    monkeypatch.setattr("det_ls.calibration.calibrate.predict", lambda *a, **k: pytest.fail("the work began"))
    folder = tmp_path / "run"
    words = [f"model={best}", f"data={data}", "imgsz=64", "workers=0", "device=cpu", f"save={tmp_path / 'new.pt'}"]
    with claim_folder(folder):
        with pytest.raises(FileExistsError, match="where another run is at work"):
            calibrate(best, data, save=False, save_dir=folder, **SETTINGS)
        assert cli.main(["calibrate", *words, f"save_dir={folder}"]) == 2


def test_a_checkpoint_that_appears_meanwhile_is_not_replaced(best, data, result, tmp_path, monkeypatch):
    out = tmp_path / "new.pt"

    def save(self, folder, exist_ok=False):
        out.write_bytes(b"of another calibration")

    monkeypatch.setattr("det_ls.calibration.results.Calibration.save", save)
    with pytest.raises(FileExistsError, match=r"save: expected no file at .*new\.pt"):
        calibrate(best, data, save=out, save_dir=tmp_path / "run", **SETTINGS)
    assert out.read_bytes() == b"of another calibration"


def test_a_task_may_be_named(tmp_path, capsys):
    for words in (["task=segment"], ["pose"], ["task=detect"]):
        assert cli.main(["calibrate", *words, f"model={tmp_path / 'none.pt'}", "data=none.yaml"]) == 2
        assert "model: expected a checkpoint, got" in capsys.readouterr().err
