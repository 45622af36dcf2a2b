# SPDX-License-Identifier: AGPL-3.0-or-later
"""Evaluate a detector, or COCO files from any detector, with pycocotools."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from det_ls.base.arguments import check_flag, check_integer
from det_ls.base.version import __version__
from det_ls.data.coco import ImageId, Json, examples, read_detections
from det_ls.data.ground_truth import GroundTruth, ground_truth_for, list_images
from det_ls.evaluation.classes import category_ids, merge_classes, merge_predicted, single_class_name
from det_ls.evaluation.measure import metrics_from_coco
from det_ls.evaluation.results import Evaluation, check_save_dir
from det_ls.evaluation.sources import read_sources
from det_ls.evaluation.training_record import training_record
from det_ls.metrics.evaluators import DEFAULT_EVALUATOR, get_evaluator
from det_ls.metrics.matching import check_scores
from det_ls.metrics.protocols import get_protocol

if TYPE_CHECKING:
    from det_ls.evaluation.detector import Detector
    from det_ls.evaluation.predictions import Predictions


def evaluate(
    model: object,
    data: str | Path,
    split: str = "val",
    *,
    annotations: str | Path | Mapping[str, Any] | None = None,
    imgsz: int = 640,
    batch: int = 16,
    conf: float = 0.001,
    iou: float = 0.7,
    max_det: int = 300,
    device: object = None,
    workers: int = 8,
    end2end: bool | None = None,
    single_cls: bool | None = None,
    evaluator: str = DEFAULT_EVALUATOR,
    protocol: str = "det_ls",
    bootstrap: int = 0,
    train_images: int = 0,
    seed: int = 0,
    save_dir: str | Path | None = None,
    exist_ok: bool = False,
) -> Evaluation:
    """Evaluate a detection model on a dataset split with pycocotools.

    The ground truth is the official instances JSON where the dataset has one, otherwise it is built from the YOLO
    labels; the predictions come from the stock Ultralytics validation pipeline. Nothing is written without
    ``save_dir``.

    Args:
        model: Path of a checkpoint or exported model, an ``ultralytics.YOLO``, or a detection module.
        data: A data YAML as for ``yolo``. Its key ``annotations`` may name the official instances JSON: a path for the
            val split, or a mapping from split to path, relative to the dataset's root.
        split: ``train``, ``val`` or ``test``.
        annotations: Path or loaded content of an instances JSON, before what ``data`` says.
        imgsz: Length of the longer side of the model's input, in pixels.
        batch: Images a batch.
        conf: Smallest score that is kept.
        iou: IoU threshold of NMS.
        max_det: Detections an image at most.
        device: As in Ultralytics, for example ``cpu`` or ``0``; None chooses.
        workers: Processes that load images; none are used on a CPU.
        end2end: Whether an end-to-end model uses its NMS-free head; None means yes.
        single_cls: Whether to merge all classes into one, as Ultralytics does under this name; None does so for a
            model that was trained so, as its checkpoint or the args.yaml of its run says.
        evaluator: ``pycocotools``, or ``hotcoco``, which gives the same numbers faster and has to be installed.
        protocol: ``det_ls`` or ``reference`` (:mod:`det_ls.metrics.protocols`).
        bootstrap: Image-level bootstrap replicates for intervals; 0 for none.
        train_images: Images of the train split to evaluate too, drawn by ``seed``, for the train/val gap; 0 for none.
        seed: Seed of bootstrap, floors and the sample of the train split.
        save_dir: Folder for the files of :meth:`Evaluation.save`.
        exist_ok: Whether to replace files in ``save_dir``.

    Returns:
        The evaluation.

    Raises:
        FileExistsError: If ``save_dir`` holds results and ``exist_ok`` is False.
        FileNotFoundError: If the model, the dataset or a file of it does not exist.
        TypeError: If an argument has the wrong type; ``exist_ok`` must be True or False, not a word such as ``no``.
        ValueError: If an argument is out of range, the model or the dataset is not valid, the annotations list other
            images than the split, or the model has a class that the data does not know.
    """
    from det_ls.data.locate import check_dataset
    from det_ls.evaluation.detector import load_detector
    from det_ls.evaluation.predictions import check_settings

    check_arguments(protocol, bootstrap, seed, evaluator=evaluator)
    check_integer("train_images", train_images)
    check_flag("exist_ok", exist_ok)
    if single_cls is not None:
        check_flag("single_cls", single_cls)
    if save_dir is not None:
        check_save_dir(save_dir, exist_ok)
    check_settings(imgsz=imgsz, batch=batch, conf=conf, iou=iou, max_det=max_det, workers=workers)
    settings = {
        "imgsz": imgsz,
        "batch": batch,
        "conf": conf,
        "iou": iou,
        "max_det": max_det,
        "device": device,
        "workers": workers,
        "end2end": end2end,
    }
    measured = {"protocol": protocol, "bootstrap": bootstrap, "seed": seed, "evaluator": evaluator}
    detector = load_detector(model)
    if single_cls is None:
        single_cls = bool(training_record(detector.file, detector.train_args).single_cls)
    settings["single_cls"] = single_cls
    resolved = check_dataset(data, split)
    truth = ground_truth_for(resolved, split, annotations)
    with tempfile.TemporaryDirectory(prefix="det-ls-") as folder:
        # All ground truth is read before the predictions, which take long.
        sample = _sample(resolved.get("train"), train_images, seed, Path(folder)) if train_images else None
        of_train = None if sample is None else ground_truth_for(resolved, "train", sample=sample)
        if single_cls:
            name = single_class_name(detector.names)
            truth, of_train = merge_classes(truth, name), of_train and merge_classes(of_train, name)
        for known in (truth, of_train):
            if detector.names is not None and known is not None and not single_cls:
                category_ids(detector.names, known.coco)
        result = _evaluate_split(detector, data, resolved, split, truth, settings, measured)
        if of_train is not None:
            sampled = {**resolved, "train": sample}
            train = _evaluate_split(detector, data, sampled, "train", of_train, settings, measured)
            result = replace(result, train=train)
    if save_dir is not None:
        result.save(save_dir, exist_ok)
    return result


def _evaluate_split(
    detector: Detector,
    data: str | Path,
    resolved: Mapping[str, Any],
    split: str,
    truth: GroundTruth,
    settings: Mapping[str, Any],
    measured: Mapping[str, Any],
) -> Evaluation:
    """Predict a split and measure the predictions."""
    from det_ls.evaluation.predictions import predict

    predictions = predict(detector, resolved, split, **settings)
    if settings["single_cls"]:
        predictions = merge_predicted(predictions, truth.coco["categories"][0]["name"])
    _warn(predictions, truth)
    record = {
        "data": str(data),
        "split": split,
        "ground_truth": truth.source,
        "weights": detector.weights,
        "weights_sha256": detector.sha256,
        "weights_sha256_of": detector.sha256_of,
        **predictions.settings,
        "single_cls": settings["single_cls"],
        "training": training_record(detector.file, detector.train_args, data=data, split=split).to_dict(),
        **_protocol(measured["evaluator"], "det_ls", "ultralytics", "torch"),
    }
    images = {image_id: path for path, image_id in truth.image_ids.items()}
    return _evaluation(truth.coco, coco_detections(predictions, truth), record, measured, images)


def _sample(source: Any, size: int, seed: int, folder: Path) -> str:
    """Write the list of a sample of a split's images and return the list's path."""
    if not source:
        raise ValueError("Expected data with a train split for train_images, got none.")
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
        bootstrap: Image-level bootstrap replicates for intervals; 0 for none.
        seed: Seed of bootstrap and floors.

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
    check_arguments(protocol, bootstrap, seed, evaluator=evaluator)
    sources = read_sources(gt, detections, data=data, split=split, images=images)
    record = {**sources.record, **_protocol(evaluator, "det_ls")}
    measured = {"protocol": protocol, "bootstrap": bootstrap, "seed": seed, "evaluator": evaluator}
    return _evaluation(sources.gt, sources.detections, record, measured, sources.images)


def coco_detections(predictions: Predictions, truth: GroundTruth) -> list[Json]:
    """Write predictions as COCO results, unrounded.

    Args:
        predictions: The predictions on a split.
        truth: The ground truth of the same split.

    Returns:
        One result a detection.

    Raises:
        ValueError: If the images are not those of the ground truth, a class is unknown to it, or a score is not
            finite.
    """
    categories = category_ids(predictions.names, truth.coco)
    predicted = {image.path for image in predictions.images}
    if differing := sorted(predicted.symmetric_difference(truth.image_ids)):
        raise ValueError(
            f"Expected predictions for the images of the ground truth, got a difference in {examples(differing)}."
        )
    results = [
        {"image_id": truth.image_ids[image.path], "category_id": categories[index], "bbox": box, "score": score}
        for image in predictions.images
        for index, box, score in zip(image.classes.tolist(), image.boxes.tolist(), image.scores.tolist(), strict=True)
    ]
    return read_detections(results, truth.coco, "the predictions")


def check_arguments(
    protocol: str, bootstrap: int, seed: int, *, replicates: int = 0, evaluator: str = DEFAULT_EVALUATOR
) -> None:
    """Raise before any work starts unless the arguments of the metrics are valid.

    Args:
        protocol: Name of a protocol.
        bootstrap: Replicates.
        seed: Seed.
        replicates: Smallest number of replicates.
        evaluator: Name of an evaluator.

    Raises:
        ImportError: If the evaluator is not installed.
        TypeError: If the replicates or the seed are no integer.
        ValueError: If there is no such protocol or evaluator, the replicates are too few, or the seed is negative.
    """
    check_integer("bootstrap", bootstrap, replicates)
    check_integer("seed", seed)
    get_protocol(protocol)
    get_evaluator(evaluator)


def _evaluation(
    gt: Json,
    detections: list[Json],
    settings: dict[str, Any],
    measured: Mapping[str, Any],
    images: Mapping[ImageId, str] | None = None,
) -> Evaluation:
    """Evaluate checked ground truth and detections."""
    check_scores([d["score"] for d in detections], [d["image_id"] for d in detections])
    progress = _bar if measured["bootstrap"] else iter
    counting = {key: value for key, value in measured.items() if key != "evaluator"}
    matched = get_evaluator(measured["evaluator"])(gt, detections)
    metrics = metrics_from_coco(matched, **counting, progress=progress)
    protocol = {
        **settings,
        "metrics": measured["protocol"],
        "bootstrap": measured["bootstrap"],
        "seed": measured["seed"],
    }
    return Evaluation(metrics, protocol, gt, detections, dict(images or {}))


def _bar(replicates: Iterable[int]) -> Iterable[int]:
    """Show a progress bar while replicates are computed."""
    from ultralytics.utils import TQDM

    bar: Iterable[int] = TQDM(replicates, desc="bootstrap")
    return bar


def _warn(predictions: Predictions, truth: GroundTruth) -> None:
    """Warn of data classes that the model lacks, and of images whose size is not the annotated one."""
    from ultralytics.utils import LOGGER

    lacking = [c["name"] for c in truth.coco["categories"] if c["name"] not in set(predictions.names.values())]
    if lacking:
        LOGGER.warning(
            f"The model lacks classes of the data, whose objects all count as missed (AP 0): {examples(lacking)}."
        )
    sizes = {image["id"]: (image.get("height"), image.get("width")) for image in truth.coco["images"]}
    resized = [
        image.path
        for image in predictions.images
        if None not in sizes[truth.image_ids[image.path]] and sizes[truth.image_ids[image.path]] != image.shape
    ]
    if resized:
        LOGGER.warning(f"Images differ in size from their annotations, so boxes may not fit: {examples(resized)}.")


def _protocol(evaluator: str, *packages: str) -> dict[str, Any]:
    """Describe the evaluator's part, with the versions of the packages that took part."""
    versions = {}
    for package in (*packages, evaluator):
        try:
            versions[package] = __version__ if package == "det_ls" else version(package)
        except PackageNotFoundError:
            versions[package] = "unknown"
    return {"evaluator": evaluator, "evaluated_iou": "0.50:0.95", "evaluated_max_det": 100, "versions": versions}
