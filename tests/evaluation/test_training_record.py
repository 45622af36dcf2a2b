# SPDX-License-Identifier: AGPL-3.0-or-later
"""What a run says of its training is reported, and nothing else."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml
from ultralytics import YOLO

from det_ls.evaluation.detector import load_detector
from det_ls.evaluation.evaluate import evaluate
from det_ls.evaluation.training_record import TrainingRecord, training_record

ARGS = {
    "model": "yolo11n.yaml",
    "epochs": 3,
    "imgsz": 64,
    "batch": 4,
    "seed": 7,
    "val": True,
    "split": "val",
    "single_cls": False,
}


def run_folder(folder: Path, **args: Any) -> Path:
    (folder / "weights").mkdir(parents=True)
    (folder / "args.yaml").write_text(yaml.safe_dump(args))
    return folder / "weights" / "best.pt"


def test_an_args_file_is_read_with_its_smoothing_keys(tiny: Path, tmp_path: Path) -> None:
    best = run_folder(tmp_path / "r", **ARGS, data=str(tiny), label_smoothing=0.1, label_smoothing_mode="uniform")
    record = training_record(best, data=tiny)
    assert record == TrainingRecord(
        model="yolo11n.yaml",
        data=str(tiny),
        epochs=3,
        imgsz=64,
        batch=4,
        seed=7,
        single_cls=False,
        label_smoothing={"label_smoothing": 0.1, "label_smoothing_mode": "uniform"},
        weights="best",
        selected_on_split=True,
        trained_on_split=False,
        source="args.yaml",
    )
    assert record.to_dict()["label_smoothing"] == {"label_smoothing": 0.1, "label_smoothing_mode": "uniform"}


@pytest.mark.parametrize(
    ("change", "file", "split", "selected"),
    [
        ({}, "best.pt", "val", True),
        ({}, "best.onnx", "val", True),
        ({}, "best.pt", "test", False),
        ({}, "last.pt", "val", False),
        ({}, "epoch3.pt", "val", None),
        ({"val": False}, "best.pt", "val", False),
        ({"val": None}, "best.pt", "val", None),
        ({"split": "test"}, "best.pt", "test", None),
        ({"split": "test"}, "best.pt", "train", False),
        ({"data": "nowhere/else.yaml"}, "best.pt", "val", None),
    ],
)
def test_selection_is_reported_only_where_it_is_known(
    change: dict[str, Any], file: str, split: str, selected: bool | None, tiny: Path, tmp_path: Path
) -> None:
    best = run_folder(tmp_path / "r", **{**ARGS, "data": str(tiny), **change})
    assert training_record(best.with_name(file), data=tiny, split=split).selected_on_split is selected


def test_another_data_set_selects_nothing_and_a_copy_of_the_yaml_is_the_same(tiny: Path, tmp_path: Path) -> None:
    best = run_folder(tmp_path / "r", **ARGS, data=str(tiny))
    copy, other = tmp_path / "copy.yaml", tmp_path / "other.yaml"
    shutil.copy(tiny, copy)
    other.write_text(tiny.read_text() + "\n# other\nval: images/train\n")
    assert training_record(best, data=copy).selected_on_split is True
    assert training_record(best, data=other).selected_on_split is False
    assert training_record(best, data=tiny, split="train").trained_on_split is True
    assert training_record(best).selected_on_split is None


def test_nothing_is_known_without_run_or_checkpoint(tmp_path: Path) -> None:
    assert training_record(None) == TrainingRecord()
    assert training_record(tmp_path / "best.pt") == TrainingRecord(weights="best")
    (tmp_path / "args.yaml").write_text("- no mapping")
    assert training_record(tmp_path / "best.pt").source is None


def test_an_args_file_of_another_run_is_not_used(tmp_path: Path) -> None:
    best = run_folder(tmp_path / "r", **ARGS, label_smoothing=0.1)
    record = training_record(best, {**ARGS, "seed": 8})
    assert (record.seed, record.label_smoothing, record.source) == (8, None, "checkpoint")
    assert training_record(best, ARGS).label_smoothing == {"label_smoothing": 0.1}


@pytest.fixture(scope="module")
def single(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """best.pt of stock's own training with single_cls=True, of one epoch."""
    folder = tmp_path_factory.mktemp("single")
    model = YOLO("yolo11n.yaml", verbose=False)
    model.train(
        data=str(tiny), single_cls=True, epochs=1, imgsz=32, batch=8, device="cpu", workers=0, plots=False, amp=False,
        project=str(folder), name="r", seed=5, verbose=False,
    )  # fmt: skip
    return folder / "r" / "weights" / "best.pt"


QUICK: dict[str, Any] = {"imgsz": 32, "device": "cpu", "workers": 0}


def boxes(detections: list[dict[str, Any]]) -> list[tuple[float, ...]]:
    """Scores and boxes as stock rounds them, whatever their image and class are called."""
    return sorted((round(d["score"], 5), *(round(v, 3) for v in d["bbox"])) for d in detections)


def stock_boxes(weights: Path, data: Path, folder: Path, **settings: Any) -> list[tuple[float, ...]]:
    """What ``yolo val save_json=True`` finds."""
    arguments = {"conf": 0.001, **QUICK, **settings, "plots": False, "save_json": True, "exist_ok": True}
    YOLO(weights).val(data=str(data), project=str(folder), name="v", verbose=False, **arguments)
    return boxes(json.loads((folder / "v" / "predictions.json").read_text()))


def test_a_model_of_a_single_class_is_evaluated_as_one(single: Path, tiny: Path, tmp_path: Path) -> None:
    result = evaluate(single, tiny, **QUICK)
    assert result.ap_per_class.keys() == {"item"}
    assert (result.n_images, result.n_gt) == (4, 8)
    assert result.protocol["single_cls"] is True
    training = result.protocol["training"]
    assert (training["seed"], training["epochs"], training["single_cls"]) == (5, 1, True)
    assert (training["weights"], training["selected_on_split"]) == ("best", True)
    assert training["label_smoothing"] == {}
    # Stock's validator takes single_cls from the checkpoint by itself.
    assert result.detections
    assert boxes(result.detections) == stock_boxes(single, tiny, tmp_path)
    copied = tmp_path / "copied.pt"
    shutil.copy(single, copied)
    assert evaluate(copied, tiny, **QUICK).protocol["training"]["source"] == "checkpoint"


def test_the_argument_wins_over_the_training(single: Path, tiny: Path) -> None:
    with pytest.raises(ValueError, match="classes of the data, got 'item' besides"):
        evaluate(single, tiny, **QUICK, single_cls=False)
    with pytest.raises(TypeError, match="single_cls: expected True or False, got 'yes'"):
        evaluate(single, tiny, **QUICK, single_cls="yes")  # type: ignore[arg-type]


def test_a_model_of_several_classes_can_be_evaluated_as_one_with_stocks_nms(tiny: Path, tmp_path: Path) -> None:
    YOLO("yolo11n.yaml", verbose=False).save(tmp_path / "a.pt")
    settings: dict[str, Any] = {"conf": 1e-6, "max_det": 40, "iou": 0.3}
    result = evaluate(tmp_path / "a.pt", tiny, **QUICK, **settings, single_cls=True)
    assert result.ap_per_class.keys() == {"item"}
    assert (result.n_gt, {d["category_id"] for d in result.detections}) == (8, {1})
    found = stock_boxes(tmp_path / "a.pt", tiny, tmp_path, **settings, single_cls=True)
    assert boxes(result.detections) == found
    assert found != stock_boxes(tmp_path / "a.pt", tiny, tmp_path, **settings)


def test_a_checkpoint_knows_its_training_without_the_run(single: Path, tmp_path: Path) -> None:
    alone = tmp_path / "best.pt"
    shutil.copy(single, alone)
    detector = load_detector(alone)
    record = training_record(detector.file, detector.train_args)
    assert (record.epochs, record.imgsz, record.seed, record.single_cls) == (1, 32, 5, True)
    assert record.label_smoothing is None  # Ultralytics strips keys that it does not know
    assert record.source == "checkpoint"
