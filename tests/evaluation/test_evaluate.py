# SPDX-License-Identifier: AGPL-3.0-or-later
"""Promises of det_ls.evaluate: COCO's numbers for a model on a dataset, classes by name, nothing half-written."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import ultralytics
import yaml
from conftest import NAMES
from ultralytics import YOLO
from ultralytics.nn.tasks import DetectionModel
from ultralytics.utils import YAML

import det_ls
from det_ls import evaluate, evaluate_detections
from det_ls.data.ground_truth import GroundTruth, ground_truth_for
from det_ls.data.locate import check_dataset
from det_ls.evaluation import predictions
from det_ls.evaluation.predictions import ImagePredictions, Predictions
from det_ls.evaluation.split import coco_detections
from det_ls.metrics.catalogue import COCO_STATS as STATS

QUICK: dict[str, Any] = {"imgsz": 64, "device": "cpu"}


def save_model(file: Path, names: tuple[str, ...] = NAMES) -> Path:
    """Write a checkpoint with random weights whose scores are well above the threshold."""
    torch.manual_seed(2)
    model = YOLO("yolo11n.yaml")
    model.model = DetectionModel("yolo11n.yaml", nc=len(names), verbose=False)
    model.model.names = dict(enumerate(names))
    model.model.args = {"task": "detect"}
    for level in model.model.model[-1].cv3:
        torch.nn.init.normal_(level[-1].weight, std=1.0)
        torch.nn.init.constant_(level[-1].bias, -3.0)
    model.save(file)
    return file


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_model(tmp_path_factory.mktemp("model") / "model.pt")


def perfect(truth: GroundTruth, names: dict[int, str]) -> Predictions:
    """Predictions that are the ground truth itself, in a model's own class order."""
    index = {name: i for i, name in names.items()}
    classes = {category["id"]: index.get(category["name"]) for category in truth.coco["categories"]}
    found = []
    for path, image_id in truth.image_ids.items():
        objects = [a for a in truth.coco["annotations"] if a["image_id"] == image_id]
        objects = [a for a in objects if classes[a["category_id"]] is not None]
        found.append(
            ImagePredictions(
                path=path,
                shape=(64, 64),
                boxes=np.array([a["bbox"] for a in objects], np.float32).reshape(-1, 4),
                scores=np.full(len(objects), 0.9, np.float32),
                classes=np.array([classes[a["category_id"]] for a in objects], np.int64),
            )
        )
    return Predictions(tuple(found), names)


@pytest.fixture
def predict_perfectly(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let every model find every object of a class that it has."""

    def predict(detector: predictions.Detector, data: dict[str, Any], split: str, **_: Any) -> Predictions:
        return perfect(ground_truth_for({**data, "annotations": None}, split), detector.names or {})

    monkeypatch.setattr(predictions, "predict", predict)


def with_official_annotations(data: Path, folder: Path, names: tuple[str, ...]) -> dict[str, Any]:
    """COCO instances of the val split with category ids that have gaps and follow another order."""
    truth = ground_truth_for(check_dataset(data)).coco
    ids = {name: 90 - 11 * i for i, name in enumerate(names)}
    by_name = {category["id"]: category["name"] for category in truth["categories"]}
    return {
        "images": [{**i, "id": 5000 - i["id"], "file_name": Path(i["file_name"]).name} for i in truth["images"]],
        "annotations": [
            {**a, "image_id": 5000 - a["image_id"], "category_id": ids[by_name[a["category_id"]]]}
            for a in truth["annotations"]
        ],
        "categories": [{"id": ids[name], "name": name} for name in names],
    }


def test_a_model_is_evaluated_and_the_protocol_says_how(model: Path, tiny: Path) -> None:
    result = evaluate(model, tiny, **QUICK)
    values = result.to_dict()
    assert json.loads(json.dumps(values, allow_nan=False)) == values
    assert set(STATS) < values.keys()
    assert values["ap_per_class"].keys() == set(NAMES)
    assert (values["n_images"], values["n_gt"], values["n_crowd"]) == (4, 8, 0)
    assert values["n_detections"] == len(result.detections) > 50
    protocol = values["protocol"]
    expected = {
        "data": str(tiny),
        "split": "val",
        "ground_truth": "labels",
        "weights": str(model),
        "weights_sha256": hashlib.sha256(model.read_bytes()).hexdigest(),
        "conf": 0.001,
        "iou": 0.7,
        "max_det": 300,
        "imgsz": 64,
        "batch": 16,
        "end2end": False,
        "device": "cpu",
        "evaluator": "pycocotools",
    }
    assert {key: protocol[key] for key in expected} == expected
    assert protocol["versions"]["ultralytics"] == ultralytics.__version__
    assert protocol["versions"]["det_ls"] == det_ls.__version__
    assert protocol["versions"].keys() == {"det_ls", "ultralytics", "torch", "pycocotools"}


def test_saved_files_repeat_the_evaluation(model: Path, tiny: Path, tmp_path: Path) -> None:
    result = evaluate(model, tiny, "train", **QUICK, save_dir=tmp_path / "new" / "run")
    folder = tmp_path / "new" / "run"
    assert {file.name for file in folder.iterdir()} == {"metrics.json", "predictions.json", "ground_truth.json"}
    assert json.loads((folder / "metrics.json").read_text()) == result.to_dict()
    again = evaluate_detections(folder / "ground_truth.json", folder / "predictions.json")
    assert (again.stats, again.ap_per_class) == (result.stats, result.ap_per_class)
    images = json.loads((folder / "ground_truth.json").read_text())["images"]
    assert [(image["id"], image["file_name"]) for image in images[:2]] == [
        (1, "images/train/000.png"),
        (2, "images/train/001.png"),
    ]


def test_results_are_replaced_only_when_told(model: Path, tiny: Path, tmp_path: Path) -> None:
    (tmp_path / "metrics.json").write_text("precious")
    with pytest.raises(FileExistsError, match=r"without results unless exist_ok, got 'metrics\.json' in"):
        evaluate("none.pt", tiny, **QUICK, save_dir=tmp_path)  # before anything else, even the missing model
    assert (tmp_path / "metrics.json").read_text() == "precious"
    evaluate(model, tiny, **QUICK, save_dir=tmp_path, exist_ok=True)
    assert json.loads((tmp_path / "metrics.json").read_text())["n_images"] == 4
    with pytest.raises(FileExistsError, match="save_dir: expected a folder, got .*, which is a file"):
        evaluate(model, tiny, **QUICK, save_dir=tmp_path / "metrics.json")


def test_nothing_is_left_when_writing_fails(model: Path, tiny: Path, tmp_path: Path) -> None:
    result = evaluate(model, tiny, **QUICK)
    result.protocol["weights"] = object()
    with pytest.raises(TypeError):
        result.save(tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.usefixtures("predict_perfectly")
@pytest.mark.parametrize("order", [NAMES, NAMES[::-1], (NAMES[1], NAMES[2], NAMES[0])])
def test_classes_are_matched_by_name_never_by_position(tiny: Path, tmp_path: Path, order: tuple[str, ...]) -> None:
    shuffled = save_model(tmp_path / "shuffled.pt", order)
    official = with_official_annotations(tiny, tmp_path, order[1:] + order[:1])
    for instances in (None, official):
        result = evaluate(shuffled, tiny, annotations=instances)
        assert result.stats["AP"] == pytest.approx(1.0)
        assert result.ap_per_class == pytest.approx(dict.fromkeys(NAMES, 1.0))
    assert {d["category_id"] for d in result.detections} == {90, 79, 68}
    assert {d["image_id"] for d in result.detections} == {4999, 4998, 4997, 4996}


def test_official_annotations_and_labels_give_the_same_numbers(model: Path, tiny: Path, tmp_path: Path) -> None:
    file = tmp_path / "instances.json"
    file.write_text(json.dumps(with_official_annotations(tiny, tmp_path, NAMES)))
    data = tmp_path / "data.yaml"
    data.write_text(yaml.safe_dump({**yaml.safe_load(tiny.read_text()), "annotations": {"val": str(file)}}))
    expected = evaluate(model, tiny, **QUICK)
    for result in (evaluate(model, data, **QUICK), evaluate(model, tiny, annotations=file, **QUICK)):
        assert result.protocol["ground_truth"] == "annotations"
        assert {k: v for k, v in result.stats.items() if v} == pytest.approx(
            {k: v for k, v in expected.stats.items() if v}
        )
        assert [d["score"] for d in result.detections] == [d["score"] for d in expected.detections]
    evaluate(model, data, **QUICK, save_dir=tmp_path / "run")
    assert {f.name for f in (tmp_path / "run").iterdir()} == {"metrics.json", "predictions.json"}


def test_a_class_unknown_to_the_data_is_an_error_before_anything_is_predicted(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = ("red", "ultraviolet", "green", "x-ray", "blue", "radio", "radar")
    other = save_model(tmp_path / "other.pt", names)
    monkeypatch.setattr(predictions, "predict", lambda *_, **__: pytest.fail("predicted"))
    with pytest.raises(ValueError, match="classes of the data, got 'ultraviolet', 'x-ray', 'radio' and 1 more besides"):
        evaluate(other, tiny, save_dir=tmp_path / "run")
    twice = save_model(tmp_path / "twice.pt", ("red", "green", "red"))
    with pytest.raises(ValueError, match="different names, got 'red' repeatedly"):
        evaluate(twice, tiny, save_dir=tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.usefixtures("predict_perfectly")
def test_a_class_that_the_model_lacks_counts_as_zero_with_a_warning(
    tiny: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    result = evaluate(save_model(tmp_path / "two.pt", ("blue", "red")), tiny)
    assert result.ap_per_class == pytest.approx({"red": 1.0, "green": 0.0, "blue": 1.0})
    assert result.stats["AP"] == pytest.approx(2 / 3)
    assert "The model lacks classes of the data, whose objects all count as missed (AP 0): 'green'." in caplog.text


def test_stock_pipeline_agrees_that_a_model_may_have_fewer_classes(tiny: Path, tmp_path: Path) -> None:
    result = evaluate(save_model(tmp_path / "one.pt", ("green",)), tiny, **QUICK)
    assert {d["category_id"] for d in result.detections} == {2}
    assert result.n_gt == 8


def test_no_detections_are_a_result(model: Path, tiny: Path, tmp_path: Path) -> None:
    result = evaluate(model, tiny, **QUICK, conf=1.0, save_dir=tmp_path)
    assert result.stats["AP"] == 0.0
    assert json.loads((tmp_path / "predictions.json").read_text()) == []


def test_images_of_annotations_and_split_have_to_be_the_same(model: Path, tiny: Path, tmp_path: Path) -> None:
    official = with_official_annotations(tiny, tmp_path, NAMES)
    removed = {**official, "images": official["images"][1:]}
    removed["annotations"] = [a for a in official["annotations"] if a["image_id"] != official["images"][0]["id"]]
    with pytest.raises(ValueError, match=r"got 1 missing in annotations \('.*000\.png'\)"):
        evaluate(model, tiny, annotations=removed, **QUICK)
    added = {**official, "images": [*official["images"], {"id": 1, "file_name": "more.png"}]}
    with pytest.raises(ValueError, match=r"got 1 only in annotations \('more\.png'\)"):
        evaluate(model, tiny, annotations=added, **QUICK)


def test_predictions_for_other_images_or_without_a_number_are_refused(tiny: Path) -> None:
    truth = ground_truth_for(check_dataset(tiny))
    names = dict(enumerate(NAMES))
    found = perfect(truth, names)
    with pytest.raises(ValueError, match=r"the images of the ground truth, got a difference in '.*000\.png'"):
        coco_detections(Predictions(found.images[1:], names), truth)
    found.images[2].scores[0] = np.nan
    with pytest.raises(
        ValueError, match="the predictions: expected every score to be a finite number, got others in image 3"
    ):
        coco_detections(found, truth)


def test_images_of_another_size_than_annotated_are_reported(
    model: Path, tiny: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    official = with_official_annotations(tiny, tmp_path, NAMES)
    for image in official["images"]:
        image["width"] *= 2
    evaluate(model, tiny, annotations=official, **QUICK)
    assert "Images differ in size from their annotations" in caplog.text


def test_bad_inputs_are_explained_and_nothing_is_written(
    model: Path, tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    damaged = tmp_path / "damaged.pt"
    damaged.write_bytes(model.read_bytes()[:5000])
    cases: list[tuple[dict[str, Any], type[Exception], str]] = [
        ({"model": "none.pt"}, FileNotFoundError, r"model: .* got 'none\.pt'"),
        ({"model": damaged}, ValueError, r"got '.*damaged\.pt', which cannot be loaded"),
        ({"data": "none.yaml"}, FileNotFoundError, r"data: .* got 'none\.yaml'"),
        ({"split": "test"}, FileNotFoundError, "'test"),
        ({"annotations": "none.json"}, FileNotFoundError, r"annotations: expected a COCO JSON file, got 'none\.json'"),
        ({"conf": -1}, ValueError, "conf: expected a number from 0 to 1, got -1"),
        ({"imgsz": 32.5}, TypeError, "imgsz: expected an integer of at least 1"),
        ({"end2end": True}, ValueError, "end2end: expected a model with an NMS-free head"),
    ]
    for change, error, message in cases:
        with pytest.raises(error, match=message):
            evaluate(**{"model": model, "data": tiny, **QUICK, "save_dir": "run", **change})
    assert [file.name for file in tmp_path.iterdir()] == ["damaged.pt"]


INTEGERS = [
    ("bootstrap", "abc", TypeError),
    ("bootstrap", 1.5, TypeError),
    ("bootstrap", True, TypeError),
    ("bootstrap", -1, ValueError),
    ("seed", -1, ValueError),
    ("seed", "abc", TypeError),
    ("train_images", "abc", TypeError),
    ("train_images", -5, ValueError),
    ("train_images", True, TypeError),
]


@pytest.mark.parametrize(("key", "value", "error"), INTEGERS)
def test_a_number_that_is_no_count_is_one_sentence_before_anything_else(
    key: str, value: Any, error: type[Exception]
) -> None:
    message = f"^{key}: expected an integer of at least 0, got {value!r}[.]$"
    with pytest.raises(error, match=message):
        evaluate("none.pt", "none.yaml", **{key: value})
    if key != "train_images":
        with pytest.raises(error, match=message):
            evaluate_detections("none.json", "none.json", **{key: value})


def test_exist_ok_is_true_or_false(tmp_path: Path) -> None:
    for folder in (None, tmp_path):
        with pytest.raises(TypeError, match=r"^exist_ok: expected True or False, got 'no'\.$"):
            evaluate("none.pt", "none.yaml", save_dir=folder, exist_ok="no")  # type: ignore[arg-type]


def test_missing_annotations_of_train_are_named_before_anything_is_predicted(
    model: Path, tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = tmp_path / "data.yaml"
    data.write_text(yaml.safe_dump({**yaml.safe_load(tiny.read_text()), "annotations": {"train": "train.json"}}))
    monkeypatch.setattr(predictions, "predict", lambda *_, **__: pytest.fail("predicted"))
    with pytest.raises(FileNotFoundError, match=r"got '.*train\.json', which does not exist"):
        evaluate(model, data, **QUICK, train_images=2)


@pytest.mark.usefixtures("predict_perfectly")
@pytest.mark.parametrize("annotated", [False, True])
def test_a_sample_of_train_may_have_images_of_equal_names(model: Path, tmp_path: Path, annotated: bool) -> None:
    from conftest import make_dataset

    data = make_dataset(tmp_path / "set")
    images = tmp_path / "set" / "images" / "train"
    for i, file in enumerate(sorted(images.iterdir())):
        for kind in ("images", "labels"):
            source = tmp_path / "set" / kind / "train" / (file.stem + (".png" if kind == "images" else ".txt"))
            target = source.parent / "ab"[i % 2] / f"{i // 2:03d}{source.suffix}"
            target.parent.mkdir(exist_ok=True)
            source.rename(target)
    if annotated:
        truth = ground_truth_for(check_dataset(data), "train").coco
        (tmp_path / "set" / "train.json").write_text(json.dumps(truth))
        data.write_text(yaml.safe_dump({**yaml.safe_load(data.read_text()), "annotations": {"train": "train.json"}}))
    result = evaluate(model, data, **QUICK, train_images=5)
    assert result.train is not None
    assert result.train.n_images == 5
    assert result.train.protocol["ground_truth"] == ("annotations" if annotated else "labels")
    assert result.train.stats["AP"] == pytest.approx(1.0)


@pytest.mark.parametrize("line", ["7 0.5 0.5 0.1 0.1", "0 0.5 0.5 0.1", "red 0.5 0.5 0.1 0.1"])
def test_a_bad_label_line_stops_the_evaluation(model: Path, tmp_path: Path, line: str) -> None:
    from conftest import make_dataset

    data = make_dataset(tmp_path / "set")
    with (tmp_path / "set" / "labels" / "val" / "002.txt").open("a") as file:
        file.write(line + "\n")
    with pytest.raises(ValueError, match=r"labels: '.*002\.txt', line 3: expected"):
        evaluate(model, data, **QUICK, save_dir=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_coco_tiny_is_evaluated_with_its_official_annotations(shared_data: Path, tmp_path: Path) -> None:
    root = shared_data / "coco-tiny"
    names = YAML.load(Path(ultralytics.__file__).parent / "cfg" / "datasets" / "coco.yaml")["names"]
    data = tmp_path / "coco.yaml"
    content = {"path": str(root), "train": "train2017", "val": "val2017", "names": names}
    annotations = {split: f"annotations/instances_{split}2017.json" for split in ("train", "val")}
    data.write_text(yaml.safe_dump({**content, "annotations": annotations}))
    coco_model = save_model(tmp_path / "coco.pt", tuple(names.values()))
    result = evaluate(coco_model, data, **QUICK, max_det=40)
    official = json.loads((root / annotations["val"]).read_text())
    assert (result.n_images, result.n_gt + result.n_crowd) == (80, len(official["annotations"]))
    assert {d["image_id"] for d in result.detections} <= {image["id"] for image in official["images"]}
    ids = {d["category_id"] for d in result.detections}
    assert ids <= {category["id"] for category in official["categories"]}
    assert max(ids) > 80
    again = evaluate_detections(root / annotations["val"], result.detections)
    assert (again.stats, again.ap_per_class) == (result.stats, result.ap_per_class)


@pytest.mark.usefixtures("predict_perfectly")
def test_brain_tumor_labels_are_their_own_perfect_detections(shared_data: Path, tmp_path: Path) -> None:
    data = tmp_path / "brain-tumor.yaml"
    names = {0: "negative", 1: "positive"}
    content = {"path": str(shared_data / "brain-tumor"), "train": "images/train", "val": "images/val", "names": names}
    data.write_text(yaml.safe_dump(content))
    result = evaluate(save_model(tmp_path / "brain.pt", ("positive", "negative")), data, "train")
    assert result.n_images == 893
    assert result.ap_per_class == pytest.approx({"negative": 1.0, "positive": 1.0})
