# SPDX-License-Identifier: AGPL-3.0-or-later
"""A classifier's temperature: its logits are stock's, its numbers scikit-learn's, and the folded model gives them."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import torch
from sklearn.metrics import accuracy_score, log_loss
from test_fold_models import NAMES, model, scenes
from ultralytics import YOLO

import det_ls
from det_ls.calibration import fold
from det_ls.calibration.classify import calibrate_classifier, calibrate_logits, class_numbers, log_softmax
from det_ls.cli import main as cli
from det_ls.cli.calibrate import calibration_line
from det_ls.data.class_folders import find_folder, labelled_images
from det_ls.evaluation.classifier import predict_classes
from det_ls.evaluation.detector import load_detector
from det_ls.evaluation.settings import PredictionSettings

TRUE, N = 0.5, 60
CLASSES = tuple(sorted(NAMES))  # in the order of their folders
SETTINGS = {"imgsz": 64, "batch": 16, "workers": 0, "device": "cpu", "bootstrap": 0}


def classify(module, root):
    """Logits, labels and files of the validation images."""
    images = labelled_images(find_folder(root, "val"), module.names)
    settings = PredictionSettings(imgsz=64, workers=0, device="cpu")
    given = predict_classes(load_detector(module), images, settings, logits=True)
    return SimpleNamespace(logits=given.logits, labels=given.table.label, files=images.names)


@pytest.fixture(scope="module")
def scene(tmp_path_factory) -> tuple[Path, Path]:
    """A classifier that is twice too sure, and images whose classes are drawn from what it should have said."""
    root, rng = tmp_path_factory.mktemp("classes"), np.random.default_rng(0)
    images = (scenes(N, seed=2) * 255).byte().permute(0, 2, 3, 1).numpy()
    for split in ("train", "val"):
        for name in CLASSES:
            (root / split / name).mkdir(parents=True)
    for name in CLASSES:  # stock wants images to train on, even where it validates
        cv2.imwrite(str(root / "train" / name / "0.png"), np.zeros((32, 32, 3), np.uint8))
    for i, image in enumerate(images):
        cv2.imwrite(str(root / "val" / CLASSES[0] / f"{i:03d}.png"), image)
    module = copy.deepcopy(model("yolo11n-cls"))
    module.names = dict(enumerate(CLASSES))
    given = classify(module, root).logits
    linear = module.model[-1].linear
    scale = 2.0 / given.std()
    linear.weight.data *= scale
    linear.bias.data = scale * (linear.bias.data - torch.from_numpy(given.mean(0)).float())
    outputs = classify(module, root)
    for z, file in zip(outputs.logits, outputs.files, strict=True):
        p = np.exp(log_softmax(TRUE * z[None])[0])
        (root / "val" / file).rename(root / "val" / CLASSES[rng.choice(3, p=p)] / Path(file).name)
    weights = root / "best.pt"
    torch.save({"model": module, "ema": None, "train_args": {"imgsz": 64, "task": "classify"}}, weights)
    return weights, root


@pytest.fixture(scope="module")
def result(scene, tmp_path_factory):
    folder = tmp_path_factory.mktemp("result")
    return calibrate_classifier(*scene, save=folder / "calibrated.pt", save_dir=folder, **SETTINGS)


def test_the_images_are_those_of_yolo_val_in_the_order_of_their_names(scene):
    weights, root = scene
    given = classify(YOLO(weights).model, root)
    stock = YOLO(weights).val(data=str(root), imgsz=64, workers=0, device="cpu", plots=False, verbose=False)
    assert float((given.logits.argmax(1) == given.labels).mean()) == pytest.approx(stock.top1)
    assert list(given.files) == sorted(given.files)
    assert [CLASSES[label] for label in given.labels] == [file.split("/")[0] for file in given.files]


def test_the_true_temperature_is_found_and_folded(scene, result):
    low, high = result.a_interval
    assert low < TRUE < high
    assert result.temperature == 1 / result.map.a[0]
    image = str(next((scene[1] / "val" / CLASSES[1]).iterdir()))
    before, after = (YOLO(w).predict(image, imgsz=64, verbose=False)[0].probs.data for w in (scene[0], result.weights))
    expected = torch.softmax(result.map.a[0] * torch.log(before.double()), 0)
    assert (after - expected).abs().max() < 1e-5
    assert result.numbers["nll"].difference < 0
    assert result.numbers["accuracy"].difference == 0


def test_the_numbers_are_scikit_learns_and_cross_fitted(scene, result):
    given = classify(YOLO(scene[0]).model, scene[1])
    p = np.exp(log_softmax(given.logits))
    numbers = {key: change.before for key, change in result.numbers.items()}
    assert numbers["nll"] == pytest.approx(log_loss(given.labels, p, labels=[0, 1, 2]), abs=1e-9)
    assert numbers["accuracy"] == accuracy_score(given.labels, p.argmax(1))
    assert numbers["brier"] == pytest.approx(((p - np.eye(3)[given.labels]) ** 2).sum(1).mean(), abs=1e-12)
    assert 0 < numbers["ECE"] < 1
    in_sample = class_numbers(log_softmax(result.map.a[0] * given.logits), given.labels)
    assert result.numbers["nll"].after > in_sample["nll"]  # it is the best of all slopes where it was fitted
    assert result.counts["folds"] == 5


def test_intervals_hold_groups_together():
    rng = np.random.default_rng(1)
    z = np.repeat(rng.normal(0, 2, (40, 4)), 5, axis=0)  # five copies of each image tell nothing new
    p = np.exp(log_softmax(0.7 * z[::5]))
    labels = np.repeat([rng.choice(4, p=row) for row in p], 5)
    group = np.repeat(np.arange(40), 5)
    once = calibrate_logits(z[::5], labels[::5], np.arange(40), bootstrap=50)
    grouped = calibrate_logits(z, labels, group, bootstrap=50)
    alone = calibrate_logits(z, labels, np.arange(200), bootstrap=50)
    width = [np.subtract(*found.a_interval[::-1]) for found in (once, grouped, alone)]
    assert width[1] == pytest.approx(width[0], rel=1e-6)
    assert width[2] < 0.6 * width[0]
    assert once.numbers["nll"].difference_interval[0] < once.numbers["nll"].difference
    assert grouped.numbers["ECE"].difference_interval[1] > grouped.numbers["ECE"].difference_interval[0]


def test_copies_of_one_group_are_held_out_together():
    """Copies that are folds apart would be calibrated by a temperature that has seen them."""
    rng = np.random.default_rng(3)
    z = rng.normal(0, 2, (20, 4))
    labels = np.array([rng.choice(4, p=row) for row in np.exp(log_softmax(0.6 * z))])
    group = np.arange(40) % 20
    once = calibrate_logits(z, labels, np.arange(20), folds=20)
    twice = calibrate_logits(np.tile(z, (2, 1)), np.tile(labels, 2), group, folds=20)
    assert twice.counts["groups"] == twice.counts["folds"] == 20
    assert twice.counts["images"] == 40
    assert twice.numbers["nll"].after == pytest.approx(once.numbers["nll"].after, abs=1e-9)
    alone = calibrate_logits(np.tile(z, (2, 1)), np.tile(labels, 2), np.arange(40), folds=20)
    assert alone.numbers["nll"].after < twice.numbers["nll"].after - 1e-4


def test_the_command_writes_what_the_others_write(scene, tmp_path, capsys):
    words = [f"model={scene[0]}", f"data={scene[1]}", "workers=0", "device=cpu", "bootstrap=20", r"groups=^(\d\d)"]
    out = tmp_path / "calibrated.pt"
    assert cli.main(["calibrate", "classify", *words, f"save={out}", f"save_dir={tmp_path / 'run'}"]) == 0
    text = capsys.readouterr().out
    assert "temperature" in text
    assert "cross-fitted over 6 groups" in text
    assert all(name in text for name in ("nll", "brier", "ECE", "accuracy"))
    content = json.loads((tmp_path / "run" / "calibration.json").read_text())
    assert content["record"]["settings"]["imgsz"] == 64  # as it was trained
    record = fold.read_record(YOLO(out))
    assert record["source"] == "best.pt"
    assert record["map"] == content["map"]
    assert "calibrated: temperature" in calibration_line(out)
    assert cli.main(["calibrate", *words, f"save={out}", f"save_dir={tmp_path / 'run'}"]) == 2
    capsys.readouterr()
    assert cli.main(["calibrate", *words, "method=platt", f"save_dir={tmp_path / 'other'}"]) == 2
    error = capsys.readouterr().err
    assert error.startswith("det-ls: error: method: expected temperature for a classifier")
    assert not (tmp_path / "other").exists()
    assert cli.main(["calibrate", *words, "target=tp"]) == 2
    assert "target: expected one of the keys of det-ls calibrate with a classifier" in capsys.readouterr().err


def test_it_starts_again_from_the_original_logits(scene, result):
    with pytest.raises(ValueError, match="not calibrated yet"):
        calibrate_classifier(result.weights, scene[1], save=False, **SETTINGS)
    again = calibrate_classifier(result.weights, scene[1], save=False, recalibrate=True, **SETTINGS)
    assert again.map.a[0] == pytest.approx(result.map.a[0], rel=1e-5)
    assert [again.record[key] for key in ("source", "source_sha256")] == [
        result.record[key] for key in ("source", "source_sha256")
    ]


def test_what_it_cannot_do_is_refused_before_any_work(scene, tmp_path, monkeypatch):
    weights, root = scene
    monkeypatch.setattr("det_ls.calibration.classify.predict_classes", lambda *a, **k: pytest.fail("the work began"))
    with pytest.raises(ValueError, match="split: expected images that the model was not trained on"):
        calibrate_classifier(weights, root, split="train")
    with pytest.raises(FileNotFoundError, match="data: expected a folder 'test' with a folder a class"):
        calibrate_classifier(weights, root, split="test", save=False)
    with pytest.raises(FileNotFoundError, match="data: expected a folder of classes, got .*none"):
        calibrate_classifier(weights, tmp_path / "none", save=False)
    with pytest.raises(ValueError, match="model: expected a classifier, got a detector"):
        calibrate_classifier(YOLO("yolo11n.yaml"), root)
    with pytest.raises(ValueError, match="got a classifier: det_ls.calibrate_classifier"):
        det_ls.calibrate(weights, root)
    (tmp_path / "x.pt").write_bytes(b"mine")
    with pytest.raises(FileExistsError, match="without exist_ok"):
        calibrate_classifier(weights, root, save=tmp_path / "x.pt")


def test_classes_that_are_told_apart_perfectly_have_no_best_temperature():
    z = np.eye(3)[np.arange(30) % 3] * 4
    with pytest.raises(ValueError, match=r"^data: expected images .* got \d+ of which the model gets 0 wrong\.$"):
        calibrate_logits(z, np.arange(30) % 3, np.arange(30))
