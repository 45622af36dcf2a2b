# SPDX-License-Identifier: AGPL-3.0-or-later
"""Models of every task are measured: boxes of segment, pose and obb as stock predicts them, classifiers as they are."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest
import torch
import yaml
from conftest import NAMES, make_task_dataset
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from ultralytics import YOLO
from ultralytics.nn import tasks as stock_tasks
from ultralytics.utils import DEFAULT_CFG_DICT

import det_ls
from det_ls.calibration.classify import calibrate_classifier
from det_ls.cli.main import main
from det_ls.data.oriented import corners
from det_ls.evaluation import predictions
from det_ls.evaluation.classification import Classification
from det_ls.evaluation.detector import load_detector
from det_ls.evaluation.predictions import predict
from det_ls.evaluation.results import Evaluation
from det_ls.stock.patches import unhurried_nms

SIDE = 256
SETTINGS: dict[str, Any] = {"imgsz": SIDE, "batch": 2, "device": "cpu", "workers": 0, "max_det": 30, "conf": 0.3}
SUFFIX = {"segment": "-seg", "pose": "-pose", "obb": "-obb", "classify": "-cls"}
MODELS = {
    "segment": stock_tasks.SegmentationModel,
    "pose": stock_tasks.PoseModel,
    "obb": stock_tasks.OBBModel,
    "classify": stock_tasks.ClassificationModel,
}
BOXED = [(task, name) for task in ("segment", "pose", "obb") for name in ("yolo11n", "yolo26n")]


def untrained(task: str, name: str, folder: Path, names: tuple[str, ...] = NAMES) -> Path:
    """A checkpoint with random weights whose scores are spread over (0, 1)."""
    torch.manual_seed(4)
    file = f"{name}{SUFFIX[task]}.yaml"
    model = YOLO(file)
    shape = {"data_kpt_shape": (2, 3)} if task == "pose" else {}
    model.model = MODELS[task](file, nc=len(names), verbose=False, **shape)
    model.model.names = dict(enumerate(names))
    model.model.args = {"task": task}
    model.model.task = task
    head = model.model.model[-1]
    norms = [m for m in model.model.modules() if isinstance(m, torch.nn.BatchNorm2d)]
    for norm in norms:
        norm.momentum = 1.0  # the statistics of one batch: otherwise what reaches the head is next to nothing
    model.model.train()(noise())
    for norm in norms:
        norm.momentum = 0.03
    model.model.eval()
    if task == "classify":
        spread(model.model, {head.linear: 2.0})
    else:
        branches = [getattr(head, name, None) or [] for name in ("cv2", "one2one_cv2", "cv3", "one2one_cv3")]
        spread(model.model, {level[-1]: 0.1 if k < 2 else 1.2 for k in range(4) for level in branches[k]})
        for level in (*branches[0], *branches[1]):  # boxes of some strides
            bins = -0.5 * torch.arange(16.0).repeat(4)
            level[-1].bias.data = bins if len(level[-1].bias) == 64 else torch.full_like(level[-1].bias, 2.0)
        for level in (*branches[2], *branches[3]):
            torch.nn.init.constant_(level[-1].bias, -1.0)
    weights = folder / f"{name}-{task}.pt"
    model.save(weights)
    return weights


def noise() -> torch.Tensor:
    """A batch of images like those of the scene."""
    return torch.nn.functional.interpolate(torch.rand(4, 3, 16, 16), SIDE, mode="bilinear")


def spread(model: torch.nn.Module, wanted: dict[torch.nn.Module, float]) -> None:
    """Draw the weights of layers so that their outputs have these standard deviations."""
    inputs: dict[torch.nn.Module, torch.Tensor] = {}
    hooks = [layer.register_forward_pre_hook(lambda m, args: inputs.update({m: args[0]})) for layer in wanted]
    with torch.no_grad():
        model.eval()(noise())
        for layer, std in wanted.items():
            torch.nn.init.normal_(layer.weight)
            torch.nn.init.zeros_(layer.bias)
            layer.weight *= std / layer(inputs[layer]).std()
    for hook in hooks:
        hook.remove()


def write_labels(data: Path, weights: Path, task: str) -> None:
    """Label each image with some of what the model predicts there, so that it finds some of its objects."""
    for image in predict(weights, data, **SETTINGS).images:
        lines = []
        order = np.argsort(-image.scores)
        for i in order[:40:3]:
            if image.oriented is not None:
                points = corners(image.oriented[i : i + 1].astype(np.float64))[0]
            else:
                x, y, w, h = image.boxes[i].astype(np.float64)
                points = np.array([[x, y], [x + w, y], [x + w, y + h], [x, y + h]])
            if points.min() < 0 or points.max() > SIDE or np.ptp(points, axis=0).min() < 4:
                continue
            points /= SIDE
            low, high = points.min(0), points.max(0)
            box = [*((low + high) / 2), *(high - low)]
            row = [*box, *box[:2], 2, *low, 1] if task == "pose" else points.reshape(-1).tolist()
            lines.append(" ".join([str(image.classes[i]), *(f"{v:.9f}" for v in row)]))
        Path(image.path.replace("images", "labels")).with_suffix(".txt").write_text("\n".join(lines))


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, str], tuple[Path, Path]]:
    """A function from task and architecture to a checkpoint and a data set of which it finds some objects."""
    made: dict[tuple[str, str], tuple[Path, Path]] = {}

    def make(task: str, name: str) -> tuple[Path, Path]:
        if (task, name) not in made:
            root = tmp_path_factory.mktemp("scene")
            rng = np.random.default_rng(0)
            for part in ("images", "labels"):
                (root / part).mkdir()
            for i in range(4):
                noise = rng.integers(0, 255, (16, 16, 3), dtype=np.uint8)
                cv2.imwrite(str(root / "images" / f"{i}.png"), cv2.resize(noise, (SIDE, SIDE)))
            content = {"path": str(root), "train": "images", "val": "images", "names": dict(enumerate(NAMES))}
            if task == "pose":
                content |= {"kpt_shape": [2, 3]}
            (root / "data.yaml").write_text(yaml.safe_dump(content))
            weights = untrained(task, name, root)
            write_labels(root / "data.yaml", weights, task)
            made[task, name] = weights, root / "data.yaml"
        return made[task, name]

    return make


def stock_head(name: str) -> dict[str, Any]:
    """What makes stock use the NMS-free head of a model that has one, in this version."""
    if name != "yolo26n":
        return {}
    return {"end2end": True} if "end2end" in DEFAULT_CFG_DICT else {"nms": False}


@pytest.mark.parametrize(("task", "name"), BOXED)
def test_boxes_are_those_of_stocks_own_validator_and_so_is_ap50_nearly(task, name, scene, tmp_path):
    weights, data = scene(task, name)
    where = {"data": str(data), "project": str(tmp_path), "name": "v"}
    with unhurried_nms():  # on a busy machine stock drops images
        stock = YOLO(weights).val(save_json=True, plots=False, verbose=False, **where, **SETTINGS, **stock_head(name))
    written = json.loads((tmp_path / "v" / "predictions.json").read_text())
    found = predict(weights, data, **SETTINGS)
    key = "rbox" if task == "obb" else "bbox"
    ours = [
        (Path(image.path).name, index, [round(v, 3) for v in box], round(score, 5))
        for image in found.images
        for index, box, score in zip(
            image.classes.tolist(),
            (image.boxes if image.oriented is None else image.oriented).tolist(),
            image.scores.tolist(),
            strict=True,
        )
    ]
    theirs = [
        (Path(str(d.get("file_name", d["image_id"]))).stem + ".png", d["category_id"] - 1, d[key], d["score"])
        for d in written
    ]
    assert len(ours) > 50
    assert ours == theirs
    result = det_ls.evaluate(weights, data, **SETTINGS)
    assert isinstance(result, Evaluation)
    assert result.protocol["task"] == task
    assert result.stats["AP50"] > 0.1
    # Roughly: on few objects stock interpolates precision otherwise, and matches oriented boxes by probiou. It also gives
    # an object to the box that overlaps it most, not to the highest score: without NMS that is another number.
    if name == "yolo11n":
        assert result.stats["AP50"] == pytest.approx(stock.box.map50, abs=0.1)
        assert result.stats["AP"] == pytest.approx(stock.box.map, abs=0.1)


@pytest.mark.parametrize("task", ["segment", "pose"])
def test_ap_is_pycocotools_on_the_predictions_and_the_labels_boxes(task, scene):
    weights, data = scene(task, "yolo11n")
    images = predict(weights, data, **SETTINGS).images
    content: dict[str, Any] = {"images": [], "annotations": [], "categories": [{"id": c} for c in range(3)]}
    results = []
    for i, image in enumerate(images, start=1):
        content["images"].append({"id": i})
        for line in Path(image.path.replace("images", "labels")).with_suffix(".txt").read_text().splitlines():
            c, *numbers = map(float, line.split())
            if task == "pose":
                x, y, w, h = (v * SIDE for v in numbers[:4])
                box = [x - w / 2, y - h / 2, w, h]
            else:
                points = np.reshape(numbers, (-1, 2)) * SIDE
                box = [*points.min(0), *np.ptp(points, axis=0)]
            entry = {"id": len(content["annotations"]) + 1, "image_id": i, "category_id": int(c), "iscrowd": 0}
            content["annotations"].append({**entry, "bbox": box, "area": box[2] * box[3]})
        for c, box, score in zip(image.classes.tolist(), image.boxes.tolist(), image.scores.tolist(), strict=True):
            results.append({"image_id": i, "category_id": c, "bbox": box, "score": score})
    gt = COCO()
    gt.dataset = content
    gt.createIndex()
    judge = COCOeval(gt, gt.loadRes(results), "bbox")
    judge.evaluate()
    judge.accumulate()
    judge.summarize()
    result = det_ls.evaluate(weights, data, **SETTINGS)
    assert result.stats["AP"] == pytest.approx(judge.stats[0], abs=1e-6)
    assert result.stats["AP50"] == pytest.approx(judge.stats[1], abs=1e-6)


@pytest.mark.parametrize(("task", "name"), [("segment", "yolo11n"), ("obb", "yolo11n"), ("classify", "yolo11n")])
def test_det_ls_val_writes_numbers_and_the_page_and_says_what_it_measured(
    task, name, scene, tmp_path, capsys, task_data
):
    if task == "classify":
        data = task_data("classify")
        weights = untrained("classify", name, tmp_path)
    else:
        weights, data = scene(task, name)
    words = [f"model={weights}", f"data={data}", "bootstrap=100", f"save_dir={tmp_path / 'out'}"]
    assert main(["val", task, *words, "batch=2", "device=cpu", f"imgsz={SIDE if task != 'classify' else 32}"]) == 0
    numbers = json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert numbers["protocol"]["task"] == task
    left_out = "masks" if task == "segment" else None
    assert numbers["protocol"].get("not_measured") == left_out
    printed = capsys.readouterr().out
    assert f"{left_out} are not" in printed or left_out is None
    page = (tmp_path / "out" / "report.html").read_text()
    assert "not measured" in page or left_out is None
    assert ('transform="rotate(' in page) == (task == "obb")
    assert ">nan" not in page
    assert (tmp_path / "out" / "predictions.json").exists()
    capsys.readouterr()
    assert main(["val", *words]) == 2  # not over a result
    assert "exist_ok" in capsys.readouterr().err


@pytest.mark.parametrize("task", ["segment", "pose", "obb"])
def test_single_class_the_other_head_and_the_train_split(task, scene):
    weights, data = scene(task, "yolo26n")
    merged = det_ls.evaluate(weights, data, single_cls=True, simulations=0, **SETTINGS)
    assert list(merged.ap_per_class) == ["item"]
    assert merged.protocol.get("not_measured") == {"segment": "masks", "pose": "keypoints"}.get(task)
    other = det_ls.evaluate(weights, data, end2end=False, simulations=0, train_images=3, **SETTINGS)
    assert other.protocol["end2end"] is False
    assert other.protocol["iou"] == 0.7
    assert other.train.n_images == 3
    assert other.train.n_gt < other.n_gt
    assert [d["score"] for d in other.detections] != [d["score"] for d in merged.detections]


def test_an_evaluation_of_oriented_boxes_can_be_repeated_from_its_files(scene, tmp_path, capsys):
    weights, data = scene("obb", "yolo11n")
    result = det_ls.evaluate(weights, data, save_dir=tmp_path, **SETTINGS)
    again = det_ls.evaluate_detections(tmp_path / "ground_truth.json", tmp_path / "predictions.json")
    assert again.metrics.values == result.metrics.values
    assert again.metrics.kept.values == result.metrics.kept.values
    upright = [{k: v for k, v in d.items() if k != "rbox"} for d in result.detections]
    with pytest.raises(ValueError, match="detections: expected oriented boxes"):
        det_ls.evaluate_detections(result.ground_truth, upright)


def test_oriented_boxes_are_kept_from_the_score_that_stock_has_unless_told(scene, monkeypatch):
    asked = []

    class Asked(Exception):
        pass

    def predict(*_, conf, **__):
        asked.append(conf)
        raise Asked

    monkeypatch.setattr(predictions, "predict", predict)
    for task, keys in (("obb", {}), ("obb", {"conf": 0.001}), ("segment", {})):
        weights, data = scene(task, "yolo11n")
        with pytest.raises(Asked):
            det_ls.evaluate(weights, data, imgsz=SIDE, device="cpu", **keys)
    assert asked == [0.01, 0.001, 0.001]


def test_what_does_not_fit_is_one_sentence(scene, tmp_path, tiny, task_data):
    obb, data = scene("obb", "yolo11n")
    with pytest.raises(
        ValueError, match="labels: .*line 1: expected a class and the corners of an oriented box, got 5"
    ):
        det_ls.evaluate(obb, tiny, **SETTINGS)
    with pytest.raises(ValueError, match="evaluator: expected pycocotools for oriented boxes, got 'hotcoco'"):
        det_ls.evaluate(obb, data, evaluator="hotcoco", **SETTINGS)
    gt = {"images": [{"id": i, "file_name": f"{i}.png"} for i in range(4)], "categories": [{"id": 1, "name": "red"}]}
    gt["annotations"] = [{"id": 1, "image_id": 1, "category_id": 1, "bbox": [1, 1, 9, 9]}]
    with pytest.raises(ValueError, match="annotations: expected oriented boxes"):
        det_ls.evaluate(obb, data, annotations=gt, **SETTINGS)
    gt["annotations"] = [{"id": 1, "image_id": 1, "category_id": 1, "rbox": [5, 5, 9, 9, 0.3]}]
    with pytest.raises(ValueError, match="model: expected one of task obb, .* got one of task segment"):
        det_ls.evaluate(untrained("segment", "yolo11n", tmp_path), data, annotations=gt, **SETTINGS)
    classifier, folder = untrained("classify", "yolo11n", tmp_path), task_data("classify")
    for act, weights in ((det_ls.evaluate, obb), (det_ls.evaluate, classifier), (det_ls.calibrate, obb)):
        with pytest.raises(ValueError, match="device: expected 'cpu'.*, got 'banana'"):  # before any data are read
            act(weights, tmp_path / "absent", device="banana")
    with pytest.raises(ValueError, match="device: expected 'cpu'.*, got 99"):
        calibrate_classifier(classifier, tmp_path / "absent", device=99)
    with pytest.raises(
        ValueError, match="threshold: expected no setting about boxes for a classifier, got threshold=0.5"
    ):
        det_ls.evaluate(classifier, folder, threshold=0.5)
    with pytest.raises(ValueError, match="conf: expected no setting about boxes for a classifier, got conf=0.5"):
        det_ls.compare(classifier, classifier, folder, names=("x", "y"), conf=0.5)
    with pytest.raises(ValueError, match="expected a model that predicts boxes, got a classifier"):
        predict(classifier, tiny)
    segment, _ = scene("segment", "yolo11n")
    for other, kind in ((obb, "oriented boxes"), (classifier, "classes")):
        with pytest.raises(
            ValueError,
            match=f"b: expected models that predict the same as those of a, got upright boxes of .* and {kind}",
        ):
            det_ls.compare(segment, other, data, names=("x", "y"))
    with pytest.raises(
        ValueError, match="data: expected a folder with a folder a class for a classifier, got the file"
    ):
        det_ls.evaluate(classifier, tiny)
    with pytest.raises(FileNotFoundError, match="data: expected a folder 'test' with a folder a class"):
        det_ls.evaluate(classifier, folder, "test")
    odd = untrained("classify", "yolo26n", tmp_path, ("red", "green"))
    with pytest.raises(ValueError, match="expected folders of classes that the model knows, got 'blue' besides"):
        det_ls.evaluate(odd, folder)
    if hasattr(stock_tasks, "SemanticSegmentationModel"):  # not in older versions
        with pytest.raises(ValueError, match="expected a YOLO model for detect, .* or classify, got Sem"):
            load_detector(stock_tasks.SemanticSegmentationModel("yolo26n-sem.yaml", nc=3, verbose=False))


def test_no_image_is_dropped_however_long_nms_takes(scene, monkeypatch):
    """Stock's NMS gives up on a batch after some seconds, and leaves its other images without boxes."""
    from ultralytics.utils import nms

    weights, data = scene("segment", "yolo11n")
    expected = [len(image.scores) for image in predict(weights, data, **SETTINGS).images]
    clock = iter(range(0, 10**9, 100))
    monkeypatch.setattr(nms, "time", SimpleNamespace(time=lambda: next(clock)))
    found = [len(image.scores) for image in predict(weights, data, **SETTINGS).images]
    assert min(expected) > 0
    assert found == expected


def test_two_segmentation_models_are_compared(scene):
    weights, data = scene("segment", "yolo11n")
    pair = det_ls.compare(weights, weights, data, names=("a", "b"), bootstrap=100, simulations=0, **SETTINGS)
    assert pair.differences["AP"].difference == 0
    assert pair.a.protocol["not_measured"] == "masks"


# Classifiers


def test_two_classifiers_are_compared_on_the_command_line(task_data, tmp_path, capsys):
    torch.manual_seed(1)
    a, b = (untrained("classify", name, tmp_path) for name in ("yolo11n", "yolov8n"))
    words = [f"a={a}", f"b={b}", f"data={task_data('classify')}", "imgsz=32", "bootstrap=100", "device=cpu"]
    assert main(["compare", *words, f"save_dir={tmp_path / 'pair'}"]) == 0
    said = capsys.readouterr().out
    assert "Training seeds were not measured (one run of each)" in said
    content = json.loads((tmp_path / "pair" / "comparison.json").read_text())
    for side, weights in (("a", a), ("b", b)):
        alone = det_ls.evaluate(weights, task_data("classify"), imgsz=32, device="cpu", simulations=0)
        assert content["differences"]["nll"][side] == pytest.approx(alone.values["nll"], rel=1e-9)
    assert (tmp_path / "pair" / "report.html").is_file()


def test_a_classifiers_numbers_are_stocks_and_torchs(task_data, tmp_path, capsys):
    folder, weights = task_data("classify"), untrained("classify", "yolo11n", tmp_path)
    result = det_ls.evaluate(weights, folder, imgsz=32, device="cpu", bootstrap=100, train_images=5)
    bars = capsys.readouterr()
    assert all(f"{split}: intervals" in bars.out + bars.err for split in ("val", "train"))
    assert isinstance(result, Classification)
    stock = YOLO(weights).val(
        data=str(folder), imgsz=32, device="cpu", plots=False, verbose=False, project=str(tmp_path)
    )
    assert result.values["accuracy"] == pytest.approx(stock.top1)
    probabilities, labels = [], []
    for name in sorted(NAMES):
        for file in sorted((folder / "val" / name).glob("*.png")):
            found = YOLO(weights).predict(str(file), imgsz=32, device="cpu", verbose=False)[0]
            probabilities.append(found.probs.data)
            labels.append(NAMES.index(name))
    p, y = torch.stack(probabilities).double(), torch.tensor(labels)
    assert result.file_names[0] == "blue/0.png"
    assert result.table.label.tolist() == labels
    assert result.table.confidence == pytest.approx(p.max(1).values.numpy(), abs=1e-5)
    assert result.values["nll"] == pytest.approx(torch.nn.functional.nll_loss(p.log(), y).item(), abs=1e-4)
    one_hot = torch.nn.functional.one_hot(y, 3)
    assert result.values["brier"] == pytest.approx(((p - one_hot) ** 2).sum(1).mean().item(), abs=1e-4)
    assert result.train.n_images == 5
    assert set(result.train.table.label.tolist()) == {0, 1, 2}  # drawn from all folders, not the first ones
    assert set(result.gap) == set(result.values)
    assert result.protocol["imgsz"] == 32


def test_the_named_task_is_that_of_the_model_and_names_the_folder(task_data, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("ultralytics.cfg.TESTS_RUNNING", False)
    monkeypatch.setattr("ultralytics.cfg.SETTINGS", {"runs_dir": str(tmp_path / "runs")})
    weights = untrained("classify", "yolo11n", tmp_path)
    words = [
        f"model={weights}",
        f"data={task_data('classify')}",
        "imgsz=32",
        "device=cpu",
        "bootstrap=0",
        "simulations=0",
    ]
    for task in ("detect", "task=obb"):
        assert main(["val", task, *words]) == 2
        got = task.removeprefix("task=")
        assert (
            f"error: task: expected classify, which is what the model is for, got {got}.\n" in capsys.readouterr().err
        )
    assert main(["detect", "val", "task=classify", *words]) == 2
    assert "task: expected one task, got detect and classify." in capsys.readouterr().err
    assert not (tmp_path / "runs").exists()
    assert main(["val", *words]) == main(["val", "classify", *words]) == 0
    files = sorted((tmp_path / "runs").rglob("metrics.json"))
    assert [f.parent.parent.name for f in files] == ["classify", "classify"]


def test_a_classifier_is_measured_at_the_size_that_it_was_trained_with(tmp_path):
    folder = make_task_dataset(tmp_path / "data", "classify")
    weights = untrained("classify", "yolo11n", tmp_path)
    assert det_ls.evaluate(weights, folder, device="cpu").protocol["imgsz"] == 224
    checkpoint = torch.load(weights, weights_only=False)
    torch.save({**checkpoint, "train_args": {"imgsz": 64, "task": "classify"}}, weights)
    found = det_ls.evaluate(weights, folder, device="cpu")
    assert found.protocol["imgsz"] == 64
    assert not list(folder.rglob("*.cache"))  # nothing is written to the data
