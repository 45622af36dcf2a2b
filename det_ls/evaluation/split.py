# SPDX-License-Identifier: AGPL-3.0-or-later
"""One split, predicted and measured."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from det_ls.base.arguments import examples
from det_ls.base.errors import ArgumentError
from det_ls.base.types import ImageId, Json
from det_ls.base.version import __version__
from det_ls.data.coco import read_detections
from det_ls.data.ground_truth import GroundTruth, list_images
from det_ls.data.groups import Groups, GroupSpec, groups_for, shared_groups
from det_ls.data.oriented import ORIENTED
from det_ls.evaluation.classes import category_ids, merge_predicted
from det_ls.evaluation.measure import DetectionMetrics, metrics_from_coco
from det_ls.evaluation.results import Evaluation
from det_ls.evaluation.settings import MeasureSettings, PredictionSettings
from det_ls.evaluation.training_record import training_record
from det_ls.metrics.evaluators import get_evaluator
from det_ls.metrics.matching import check_scores
from det_ls.metrics.protocols import TP_IOU, get_protocol
from det_ls.metrics.table import Floats
from det_ls.metrics.weighted import Progress
from det_ls.uncertainty.clusters import design_effect, intragroup_correlation

if TYPE_CHECKING:
    from det_ls.evaluation.detector import Detector
    from det_ls.evaluation.predictions import ImagePredictions, Predictions


MEASURED = {
    "detect": {"measured": "boxes"},
    "segment": {"measured": "boxes", "not_measured": "masks"},
    "pose": {"measured": "boxes", "not_measured": "keypoints"},
    "obb": {"measured": "oriented boxes", "overlap": "exact intersection over union of the rotated rectangles"},
}
"""What is measured of the models of a task, and what is not, for the protocol."""


@dataclass(frozen=True)
class GroupFacts:
    """What is known of groups of images that are not independent.

    Attributes:
        spec: How they were named.
        n: Number of groups.
        images: Number of images.
        correlation: Intra-group correlation of the images' score minus precision over kept boxes; None where undefined.
        design_effect: How many times larger the variance of a mean is than with independent images; None likewise.
        shared_with_train: Groups that the train split has too, the first few; None where that is not known.
        n_shared: Their number.
    """

    spec: str
    n: int
    images: int
    correlation: float | None
    design_effect: float | None
    shared_with_train: tuple[str, ...] | None
    n_shared: int


def evaluate_split(
    detector: Detector,
    data: str | Path,
    resolved: Mapping[str, Any],
    split: str,
    truth: GroundTruth,
    predicting: PredictionSettings,
    measuring: MeasureSettings,
    *,
    groups: GroupSpec | None = None,
    thresholds: Floats | None = None,
) -> Evaluation:
    """Predict a split and measure the predictions.

    Args:
        detector: The detector.
        data: The data set, as it was named.
        resolved: The same, resolved.
        split: The split.
        truth: Its ground truth.
        predicting: How it is predicted.
        measuring: How the predictions are measured.
        groups: Which images belong together.
        thresholds: (C,) score thresholds that were chosen on another split.

    Returns:
        The evaluation.
    """
    from det_ls.evaluation.predictions import predict

    predictions = predict(detector, resolved, split, **asdict(predicting))
    if predicting.single_cls:
        predictions = merge_predicted(predictions, truth.coco["categories"][0]["name"])
    _warn(predictions, truth)
    record = {
        "data": str(data),
        "split": split,
        "ground_truth": truth.source,
        "weights": detector.weights,
        "weights_sha256": detector.sha256,
        "weights_sha256_of": detector.sha256_of,
        "task": detector.task,
        **MEASURED[detector.task],
        **predictions.settings,
        "single_cls": predicting.single_cls,
        "training": training_record(detector.file, detector.train_args, data=data, split=split).to_dict(),
        **evaluated_by(measuring.evaluator, "det_ls", "ultralytics", "torch"),
    }
    images = {image_id: path for path, image_id in truth.image_ids.items()}
    train = resolved.get("train") if split != "train" else None
    return measure(
        truth.coco,
        coco_detections(predictions, truth),
        record,
        measuring,
        images,
        groups=groups,
        train=train,
        thresholds=thresholds,
    )


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
        raise ArgumentError(
            f"data: expected predictions for the images of the ground truth, got a difference in {examples(differing)}."
        )
    results = [
        {"image_id": truth.image_ids[image.path], "category_id": categories[index], **box, "score": score}
        for image in predictions.images
        for index, box, score in zip(image.classes.tolist(), _boxes(image), image.scores.tolist(), strict=True)
    ]
    return read_detections(results, truth.coco, "the predictions")


def _boxes(image: ImagePredictions) -> list[Json]:
    """Return the boxes of an image under their keys, upright or oriented."""
    if image.oriented is None:
        return [{"bbox": box} for box in image.boxes.tolist()]
    return [{"bbox": box, ORIENTED: o} for box, o in zip(image.boxes.tolist(), image.oriented.tolist(), strict=True)]


def measure(
    gt: Json,
    detections: list[Json],
    record: dict[str, Any],
    measuring: MeasureSettings,
    images: Mapping[ImageId, str] | None = None,
    *,
    groups: GroupSpec | None = None,
    train: Any = None,
    thresholds: Floats | None = None,
) -> Evaluation:
    """Measure checked detections against checked ground truth.

    Args:
        gt: COCO instances.
        detections: COCO results.
        record: Where they came from.
        measuring: How they are measured.
        images: Image file by image id.
        groups: Which images belong together.
        train: The images of the train split, to look for groups that both have.
        thresholds: (C,) score thresholds that were chosen on another split.

    Returns:
        The evaluation.
    """
    check_scores([d["score"] for d in detections], [d["image_id"] for d in detections])
    grouped = None if groups is None else groups_for(groups, {i["id"]: i.get("file_name") for i in gt["images"]})
    codes = None if grouped is None else grouped.codes_for(sorted(image["id"] for image in gt["images"]))
    metrics = metrics_from_coco(
        get_evaluator(measuring.evaluator)(gt, detections),
        measuring,
        groups=codes,
        thresholds=thresholds,
        progress=progress_bar(record.get("split")) if measuring.bootstrap else iter,
    )
    protocol = {**record, **measuring.to_dict()}
    if grouped is not None and groups is not None:
        protocol["groups"] = asdict(_group_facts(groups, grouped, metrics, train))
    return Evaluation(metrics, protocol, gt, detections, dict(images or {}))


def _group_facts(spec: GroupSpec, groups: Groups, metrics: DetectionMetrics, train: Any) -> GroupFacts:
    """Say how alike the images of a group are, and which groups were trained on."""
    table, kept, rules = metrics.table, metrics.kept, get_protocol(metrics.protocol)
    matches = rules.matches(table, TP_IOU)
    rows = kept.keep & rules.counted(table, matches)
    count = np.bincount(table.image[rows], minlength=table.n_images)
    gap = np.bincount(table.image[rows], weights=(table.score - matches.tp)[rows], minlength=table.n_images)
    of_image = np.divide(gap, count, out=np.full(table.n_images, np.nan), where=count > 0)
    codes = groups.codes_for(table.image_ids)
    correlation = intragroup_correlation(of_image, codes)
    known = not np.isnan(correlation)
    shared: tuple[str, ...] | None = None
    if train is not None:
        try:
            shared = shared_groups(groups, groups_for(spec, {path: path for path in list_images(train)}))
        except ValueError:
            shared = None  # the groups are named for this split alone
    return GroupFacts(
        str(spec),
        groups.n,
        table.n_images,
        correlation if known else None,
        design_effect(correlation, codes) if known else None,
        None if shared is None else shared[:5],
        0 if shared is None else len(shared),
    )


def progress_bar(split: str | None) -> Progress:
    """Make what shows a progress bar while replicates are computed.

    Args:
        split: What they are of, for the bar; None where that has no name.

    Returns:
        A wrapper of the replicates' numbers.
    """

    def progress(replicates: Iterable[int]) -> Iterable[int]:
        from ultralytics.utils import TQDM

        bar: Iterable[int] = TQDM(replicates, desc="intervals" if split is None else f"{split}: intervals")
        return bar

    return progress


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


def evaluated_by(evaluator: str, *packages: str) -> dict[str, Any]:
    """Describe the evaluator's part, with the versions of the packages that took part."""
    versions = package_versions(*packages, evaluator)
    return {"evaluator": evaluator, "evaluated_iou": "0.50:0.95", "evaluated_max_det": 100, "versions": versions}


def package_versions(*packages: str) -> dict[str, str]:
    """Return the versions of packages, ``unknown`` for one that is not installed."""
    versions = {}
    for package in packages:
        try:
            versions[package] = __version__ if package == "det_ls" else version(package)
        except PackageNotFoundError:
            versions[package] = "unknown"
    return versions
