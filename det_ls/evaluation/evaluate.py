# SPDX-License-Identifier: AGPL-3.0-or-later
"""Evaluate a detector, or COCO files from any detector, with pycocotools."""

from __future__ import annotations

import inspect
import tempfile
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np

from det_ls.base.arguments import check_flag, check_integer
from det_ls.base.errors import ArgumentError
from det_ls.base.folders import claim_folder
from det_ls.base.types import ImageId
from det_ls.data.ground_truth import ground_truth_for, list_images
from det_ls.data.groups import GroupSpec
from det_ls.data.oriented import is_oriented
from det_ls.evaluation.classes import category_ids, merge_classes, single_class_name
from det_ls.evaluation.classification import Classification, classifier_imgsz, evaluate_classifier
from det_ls.evaluation.results import RESULT_FILES, Evaluation, check_save_dir
from det_ls.evaluation.settings import MeasureSettings, PredictionSettings
from det_ls.evaluation.sources import read_sources
from det_ls.evaluation.split import evaluate_split, evaluated_by, measure
from det_ls.evaluation.training_record import training_record
from det_ls.metrics.evaluators import DEFAULT_EVALUATOR

DETECTION_SETTINGS = ("evaluator", "simulations", "level", "threshold", "miss_cost", "groups", "images")
"""Settings of :func:`evaluate_detections` that are about the detections alone."""


def evaluate(
    model: object,
    data: str | Path,
    split: str = "val",
    *,
    annotations: str | Path | Mapping[str, Any] | None = None,
    imgsz: int | None = None,
    batch: int = 16,
    conf: float | None = None,
    iou: float = 0.7,
    max_det: int = 300,
    device: object = None,
    workers: int = 8,
    end2end: bool | None = None,
    single_cls: bool | None = None,
    evaluator: str = DEFAULT_EVALUATOR,
    protocol: str = "det_ls",
    bootstrap: int = 0,
    simulations: int = 100,
    level: float = 0.95,
    threshold: float | Literal["lrp"] = "lrp",
    miss_cost: float = 1.0,
    groups: GroupSpec | None = None,
    split_thresholds: str | None = None,
    train_images: int = 0,
    seed: int = 0,
    save_dir: str | Path | None = None,
    exist_ok: bool = False,
) -> Evaluation | Classification:
    """Evaluate a model on a dataset split: its boxes with pycocotools, or a classifier's probabilities.

    Models for segmentation and poses are measured by their boxes alone, models for oriented boxes by those (matched by
    the exact overlap of the rotated rectangles). A classifier is told by the model, too; settings that are about boxes
    are refused for it.

    The ground truth is the official instances JSON where the dataset has one, otherwise it is built from the YOLO
    labels; the predictions come from the stock Ultralytics validation pipeline. Nothing is written without
    ``save_dir``.

    Args:
        model: Path of a checkpoint or exported model, an ``ultralytics.YOLO``, or a module, for detect, segment, pose,
            obb or classify.
        data: A data YAML as for ``yolo``. Its key ``annotations`` may name the official instances JSON: a path for the
            val split, or a mapping from split to path, relative to the dataset's root. For a classifier a folder with a
            folder a split, in it a folder a class.
        split: ``train``, ``val`` or ``test``.
        annotations: Path or loaded content of an instances JSON, before what ``data`` says.
        imgsz: Length of the longer side of the model's input, in pixels; None for 640, and for a classifier for what it
            was trained with.
        batch: Images a batch.
        conf: Smallest score that is kept; None for 0.001, and for oriented boxes for 0.01, as stock has it: their NMS
            compares all pairs of boxes.
        iou: IoU threshold of NMS.
        max_det: Detections an image at most.
        device: As in Ultralytics, for example ``cpu`` or ``0``; None chooses.
        workers: Processes that load images; none are used on a CPU.
        end2end: Whether an end-to-end model uses its NMS-free head; None means yes.
        single_cls: Whether to merge all classes into one, as Ultralytics does under this name; None does so for a
            model that was trained so, as its checkpoint or the args.yaml of its run says.
        evaluator: ``pycocotools``, or ``hotcoco``, which gives the same numbers faster and has to be installed.
        protocol: ``det_ls`` or ``reference`` (:mod:`det_ls.metrics.protocols`).
        bootstrap: Image-level bootstrap replicates for intervals, at least 100; 0 for none.
        simulations: Simulations of a perfectly calibrated detector, for floors; 0 for none.
        level: Nominal coverage of the intervals.
        threshold: ``lrp`` to choose the score threshold of the kept boxes on other images than those it is judged on,
            or the threshold itself, a multiple of 0.01 (the finest: 0.001 and 0.999).
        miss_cost: What a missed object costs in that choice, where a false alarm costs 1.
        groups: Which images are not independent, such as slices of one patient: a CSV file with the columns image and
            group, or a regular expression on the file names. Bootstrap and folds keep groups together.
        split_thresholds: Another split to choose the thresholds on.
        train_images: Images of the train split to evaluate too, drawn by ``seed``, for the train/val gap; 0 for none.
        seed: Seed of bootstrap, folds, floors and the sample of the train split.
        save_dir: Folder for the files of :meth:`Evaluation.save`.
        exist_ok: Whether to replace files in ``save_dir``.

    Returns:
        The evaluation of the boxes, or of the classifier.

    Raises:
        FileExistsError: If ``save_dir`` holds results and ``exist_ok`` is False.
        FileNotFoundError: If the model, the dataset or a file of it does not exist.
        TypeError: If an argument has the wrong type; ``exist_ok`` must be True or False, not a word such as ``no``.
        ValueError: If an argument is out of range, the model or the dataset is not valid, the annotations list other
            images than the split, or the model has a class that the data does not know.
    """
    from det_ls.data.locate import check_dataset
    from det_ls.evaluation.detector import load_detector

    measuring = MeasureSettings(
        protocol=protocol,
        bootstrap=bootstrap,
        simulations=simulations,
        seed=seed,
        level=level,
        threshold=threshold,
        miss_cost=miss_cost,
        evaluator=evaluator,
    )
    check_integer("train_images", train_images)
    check_flag("exist_ok", exist_ok)
    if single_cls is not None:
        check_flag("single_cls", single_cls)
    if save_dir is not None:
        check_save_dir(save_dir, exist_ok)
    size, least = 640 if imgsz is None else imgsz, 0.001 if conf is None else conf
    predicting = PredictionSettings(size, batch, least, iou, max_det, device, workers, end2end)
    if split_thresholds is not None and threshold != "lrp":
        raise ArgumentError(
            f"split_thresholds: expected a threshold that is chosen (threshold=lrp), got threshold={threshold}."
        )
    if split_thresholds == split:
        raise ArgumentError(f"split_thresholds: expected another split than split, got {split_thresholds!r} for both.")
    detector = load_detector(model)
    if detector.task == "classify":
        check_no_box_settings(
            annotations=annotations,
            conf=conf,
            iou=iou,
            max_det=max_det,
            end2end=end2end,
            single_cls=single_cls,
            evaluator=evaluator,
            protocol=protocol,
            threshold=threshold,
            miss_cost=miss_cost,
            split_thresholds=split_thresholds,
        )
        predicting = replace(predicting, imgsz=classifier_imgsz(detector) if imgsz is None else imgsz)
        with (
            nullcontext()
            if save_dir is None
            else claim_folder(save_dir, results=RESULT_FILES, exist_ok=exist_ok) as place
        ):
            found = evaluate_classifier(
                detector, data, split, predicting, measuring, groups=groups, train_images=train_images
            )
            if place is not None:
                found.save(place)
        return found
    oriented = detector.task == "obb"
    if oriented and evaluator != DEFAULT_EVALUATOR:
        raise ArgumentError(f"evaluator: expected {DEFAULT_EVALUATOR} for oriented boxes, got {evaluator!r}.")
    if oriented and conf is None:
        predicting = replace(predicting, conf=0.01)
    if single_cls is None:
        single_cls = bool(training_record(detector.file, detector.train_args).single_cls)
    predicting = replace(predicting, single_cls=single_cls)
    resolved = check_dataset(data, split)
    truth = ground_truth_for(resolved, split, annotations, oriented=oriented)
    if is_oriented(truth.coco) and not oriented:
        raise ArgumentError(
            f"model: expected one of task obb, as the ground truth has oriented boxes, got one of task {detector.task}."
        )
    elsewhere = None if split_thresholds is None else check_dataset(data, split_thresholds)
    with (
        tempfile.TemporaryDirectory(prefix="det-ls-") as folder,
        nullcontext() if save_dir is None else claim_folder(save_dir, results=RESULT_FILES, exist_ok=exist_ok) as place,
    ):
        # All ground truth is read before the predictions, which take long.
        read = partial(ground_truth_for, oriented=oriented)
        sample = _sample(resolved.get("train"), train_images, seed, Path(folder)) if train_images else None
        truths = {
            "val": truth,
            "train": None if sample is None else read(resolved, "train", sample=sample),
            "thresholds": None if elsewhere is None else read(elsewhere, str(split_thresholds)),
        }
        known = {name: one for name, one in truths.items() if one is not None}
        if single_cls:
            name = single_class_name(detector.names)
            known = {which: merge_classes(one, name) for which, one in known.items()}
        elif detector.names is not None:
            for one in known.values():
                category_ids(detector.names, one.coco)
        thresholds = None
        if elsewhere is not None:
            chosen = evaluate_split(
                detector,
                data,
                elsewhere,
                str(split_thresholds),
                known["thresholds"],
                predicting,
                replace(measuring, bootstrap=0, simulations=0),
                groups=groups,
            )
            thresholds = chosen.metrics.kept.thresholds.used
        result = evaluate_split(
            detector,
            data,
            resolved,
            split,
            known["val"],
            predicting,
            measuring,
            groups=groups,
            thresholds=thresholds,
        )
        if split_thresholds is not None:
            result = replace(result, protocol={**result.protocol, "split_thresholds": split_thresholds})
        if "train" in known:
            sampled = {**resolved, "train": sample}
            train = evaluate_split(
                detector, data, sampled, "train", known["train"], predicting, measuring, groups=groups
            )
            result = replace(result, train=train)
        if place is not None:
            result.save(place)
    return result


def check_no_box_settings(**given: object) -> None:
    """Raise if a setting that is about boxes is given for a classifier.

    Args:
        **given: Settings of :func:`evaluate`.

    Raises:
        ValueError: If one is not at its default.
    """
    defaults = inspect.signature(evaluate).parameters
    for name, value in given.items():
        if value != defaults[name].default:
            raise ArgumentError(f"{name}: expected no setting about boxes for a classifier, got {name}={value}.")


def _sample(source: Any, size: int, seed: int, folder: Path) -> str:
    """Write the list of a sample of a split's images and return the list's path."""
    if not source:
        raise ArgumentError("train_images: expected data with a train split, got none.")
    images = list_images(source)
    chosen = np.random.default_rng(seed).permutation(len(images))[:size]
    file = folder / "train.txt"
    file.write_text("\n".join(images[i] for i in sorted(chosen)) + "\n", encoding="utf-8")
    return str(file)


def evaluate_detections(
    gt: object,
    detections: object,
    *,
    data: str | Path | None = None,
    split: str = "val",
    images: str | Path | Mapping[ImageId, str] | None = None,
    evaluator: str = DEFAULT_EVALUATOR,
    protocol: str = "det_ls",
    bootstrap: int = 0,
    simulations: int = 100,
    level: float = 0.95,
    threshold: float | Literal["lrp"] = "lrp",
    miss_cost: float = 1.0,
    groups: GroupSpec | None = None,
    seed: int = 0,
) -> Evaluation:
    """Evaluate the detections of any detector with pycocotools.

    Args:
        gt: COCO instances: path of a ``.json`` or ``.json.gz`` file, or its loaded content, which is left as it is;
            None for the ground truth of ``data``.
        detections: COCO results for them: a path, or the loaded list. An empty list is valid. ``image_id`` may be the
            stem of a ``file_name``, as in the JSON that ``yolo val save_json=True`` writes. Or a folder of text files,
            as ``yolo predict save_txt=True save_conf=True`` writes them, which needs ``data``.
        data: A data YAML, for its ground truth, images and classes.
        split: The split of ``data``.
        images: Where the images are, for the report: a folder, a data YAML, or file by image id; by default those of
            ``data``.
        evaluator: ``pycocotools``, or ``hotcoco``, which gives the same numbers faster and has to be installed.
        protocol: ``det_ls`` or ``reference`` (:mod:`det_ls.metrics.protocols`).
        bootstrap: Image-level bootstrap replicates for intervals, at least 100; 0 for none.
        simulations: Simulations of a perfectly calibrated detector, for floors; 0 for none.
        level: Nominal coverage of the intervals.
        threshold: ``lrp`` to choose the score threshold of the kept boxes on other images than those it is judged on,
            or the threshold itself, a multiple of 0.01 (the finest: 0.001 and 0.999).
        miss_cost: What a missed object costs in that choice, where a false alarm costs 1.
        groups: Which images are not independent, such as slices of one patient: a CSV file with the columns image and
            group, or a regular expression on the file names. Bootstrap and folds keep groups together.
        seed: Seed of bootstrap, folds and floors.

    Returns:
        The evaluation.

    Raises:
        FileNotFoundError: If a file does not exist.
        TypeError: If ``bootstrap`` or ``seed`` is no integer, or neither ``gt`` nor ``data`` is given.
        ValueError: If an argument is out of range, the instances or results are not valid, or results name an image or
            category that the instances do not have.

    Examples:
        >>> gt = {
        ...     "images": [{"id": 1}],
        ...     "annotations": [{"id": 1, "image_id": 1, "category_id": 7, "bbox": [10, 10, 40, 40]}],
        ...     "categories": [{"id": 7, "name": "lesion"}],
        ... }
        >>> box = {"image_id": 1, "category_id": 7, "bbox": [10, 10, 40, 30], "score": 0.8}  # IoU 0.75
        >>> result = evaluate_detections(gt, [box])
        >>> [round(result.stats[name], 3) for name in ("AP", "AP50", "AP75")]
        [0.6, 1.0, 1.0]
    """
    measuring = MeasureSettings(
        protocol=protocol,
        bootstrap=bootstrap,
        simulations=simulations,
        seed=seed,
        level=level,
        threshold=threshold,
        miss_cost=miss_cost,
        evaluator=evaluator,
    )
    sources = read_sources(gt, detections, data=data, split=split, images=images)
    record = {**sources.record, **evaluated_by(evaluator, "det_ls")}
    return measure(sources.gt, sources.detections, record, measuring, sources.images, groups=groups)
