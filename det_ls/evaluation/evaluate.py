# SPDX-License-Identifier: AGPL-3.0-or-later
"""Evaluate a detector, or COCO files from any detector, with pycocotools."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Any

import numpy as np

from det_ls.base.arguments import check_flag, check_integer
from det_ls.base.version import __version__
from det_ls.data.coco import (
    ImageId,
    Json,
    coco_evaluate,
    examples,
    read_detections,
    read_ground_truth,
)
from det_ls.data.ground_truth import GroundTruth, ground_truth_for, list_images
from det_ls.evaluation.measure import metrics_from_coco
from det_ls.evaluation.results import Evaluation, check_save_dir
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

    check_arguments(protocol, bootstrap, seed)
    check_integer("train_images", train_images)
    check_flag("exist_ok", exist_ok)
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
    measured = {"protocol": protocol, "bootstrap": bootstrap, "seed": seed}
    detector = load_detector(model)
    resolved = check_dataset(data, split)
    truth = ground_truth_for(resolved, split, annotations)
    with tempfile.TemporaryDirectory(prefix="det-ls-") as folder:
        # All ground truth is read before the predictions, which take long.
        sample = _sample(resolved.get("train"), train_images, seed, Path(folder)) if train_images else None
        of_train = None if sample is None else ground_truth_for(resolved, "train", sample=sample)
        for known in (truth, of_train):
            if detector.names is not None and known is not None:
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
    _warn(predictions, truth)
    record = {
        "data": str(data),
        "split": split,
        "ground_truth": truth.source,
        "weights": detector.weights,
        "weights_sha256": detector.sha256,
        "weights_sha256_of": detector.sha256_of,
        **predictions.settings,
        **_protocol("det_ls", "ultralytics", "torch", "pycocotools"),
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
    gt: object, detections: object, *, protocol: str = "det_ls", bootstrap: int = 0, seed: int = 0
) -> Evaluation:
    """Evaluate the detections of any detector with pycocotools.

    Args:
        gt: COCO instances: path of a ``.json`` or ``.json.gz`` file, or its loaded content, which is left as it is.
        detections: COCO results for them: a path, or the loaded list. An empty list is valid.
        protocol: ``det_ls`` or ``reference`` (:mod:`det_ls.metrics.protocols`).
        bootstrap: Image-level bootstrap replicates for intervals; 0 for none.
        seed: Seed of bootstrap and floors.

    Returns:
        The evaluation.

    Raises:
        FileNotFoundError: If a file does not exist.
        TypeError: If ``bootstrap`` or ``seed`` is no integer.
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
    check_arguments(protocol, bootstrap, seed)
    coco = read_ground_truth(gt, "gt")
    results = read_detections(detections, coco, "detections")
    sources = {"gt": gt, "detections": detections}
    paths = {name: str(source) for name, source in sources.items() if isinstance(source, (str, PurePath))}
    measured = {"protocol": protocol, "bootstrap": bootstrap, "seed": seed}
    return _evaluation(coco, results, {**paths, **_protocol("det_ls", "pycocotools")}, measured)


def category_ids(names: Mapping[int, str], gt: Json) -> dict[int, ImageId]:
    """Map a model's class indices to the category ids of the ground truth, by class name.

    Args:
        names: The model's class names by index.
        gt: COCO instances.

    Returns:
        Category id by class index.

    Raises:
        ValueError: If the model has a class that the ground truth does not know, or one name twice.
    """
    ids = {category["name"]: category["id"] for category in gt["categories"]}
    if unknown := [name for name in names.values() if name not in ids]:
        raise ValueError(f"Expected the model's classes to be classes of the data, got {examples(unknown)} besides.")
    if len(set(names.values())) < len(names):
        repeated = [name for name in dict.fromkeys(names.values()) if list(names.values()).count(name) > 1]
        raise ValueError(f"Expected the model's classes to have different names, got {examples(repeated)} repeatedly.")
    return {index: ids[name] for index, name in names.items()}


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


def check_arguments(protocol: str, bootstrap: int, seed: int, *, replicates: int = 0) -> None:
    """Raise before any work starts unless the arguments of the metrics are valid.

    Args:
        protocol: Name of a protocol.
        bootstrap: Replicates.
        seed: Seed.
        replicates: Smallest number of replicates.

    Raises:
        TypeError: If the replicates or the seed are no integer.
        ValueError: If there is no such protocol, the replicates are too few, or the seed is negative.
    """
    check_integer("bootstrap", bootstrap, replicates)
    check_integer("seed", seed)
    get_protocol(protocol)


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
    metrics = metrics_from_coco(coco_evaluate(gt, detections), **measured, progress=progress)
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


def _protocol(*packages: str) -> dict[str, Any]:
    """Describe pycocotools' part, with the versions of the packages that took part."""
    versions = {}
    for package in packages:
        try:
            versions[package] = __version__ if package == "det_ls" else version(package)
        except PackageNotFoundError:
            versions[package] = "unknown"
    return {"evaluator": "pycocotools", "evaluated_iou": "0.50:0.95", "evaluated_max_det": 100, "versions": versions}
