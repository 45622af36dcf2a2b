# SPDX-License-Identifier: AGPL-3.0-or-later
"""Measure a classifier: its numbers with intervals and floors, and their files."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from det_ls.base.errors import ArgumentError
from det_ls.base.files import write_json
from det_ls.base.folders import claim_folder
from det_ls.base.types import Json
from det_ls.data.class_folders import LabelledImages, find_folder, labelled_images
from det_ls.data.groups import GroupSpec, groups_for
from det_ls.evaluation.results import METRICS_FILE, PREDICTIONS_FILE
from det_ls.evaluation.settings import MeasureSettings, PredictionSettings
from det_ls.evaluation.split import package_versions, progress_bar
from det_ls.evaluation.training_record import training_record
from det_ls.metrics.calibration import Reliability, equal_mass_reliability, reliability
from det_ls.metrics.classification import (
    BINS,
    CLASSIFICATION,
    ClassificationTable,
    class_rows,
    classification_numbers,
)
from det_ls.metrics.table import Ints
from det_ls.metrics.weighted import Progress
from det_ls.uncertainty.bootstrap import interval_of
from det_ls.uncertainty.floor import Floor, top_label_floors
from det_ls.uncertainty.intervals import Interval, has_spread, wilson_interval
from det_ls.uncertainty.samples import Sample, draw

if TYPE_CHECKING:
    from det_ls.evaluation.detector import Detector

PROPORTIONS = ("accuracy", "accuracy_top5")
IMGSZ = 224  # of a classifier whose training is not known


@dataclass(frozen=True, repr=False)
class Classification:
    """The result of evaluating a classifier.

    Attributes:
        values: Number by key, in the order of :data:`det_ls.metrics.classification.CLASSIFICATION`.
        definitions: By key, how the number was counted: ``bins``, ``n``, ``n_counts``, ``better`` and
            ``higher_is_better`` (None where neither direction is better, or 0 is).
        intervals: Bootstrap interval by key; empty without a bootstrap. Where all replicates are equal, a proportion
            has Wilson's interval, and any other number none.
        floors: By key, what a calibrated classifier with the same confidences would read; empty without simulations,
            and without a number whose simulations are all equal.
        reliability: The diagrams ``top`` (equal-width bins) and ``top_equal_mass`` of the first guess.
        per_class: One entry a class (:func:`det_ls.metrics.classification.class_rows`).
        groups: Number of groups of images, as many as images where each is its own.
        protocol: How the predictions and numbers came about: settings, data, the weights' hash, versions.
        table: One row an image.
        file_names: Name of each image within its split's folder.
        group: (I,) group of each image, from 0; None where each is its own.
        train: The same on (a sample of) the train split, when asked for.
    """

    values: dict[str, float]
    definitions: dict[str, dict[str, Any]]
    intervals: dict[str, Interval]
    floors: dict[str, Floor]
    reliability: dict[str, Reliability]
    per_class: list[dict[str, Any]]
    groups: int
    protocol: dict[str, Any]
    table: ClassificationTable
    file_names: tuple[str, ...]
    group: Ints | None = None
    train: Classification | None = field(default=None)

    @property
    def n_images(self) -> int:
        """Images that were classified."""
        return self.table.n_images

    @property
    def gap(self) -> dict[str, float]:
        """Train minus val of each number: how much better the model is on what it learnt."""
        return {} if self.train is None else {k: v - self.values[k] for k, v in self.train.values.items()}

    def to_dict(self) -> dict[str, Any]:
        """Return everything but the images as one dictionary that JSON can hold, the numbers under their own names."""
        content: dict[str, Any] = {
            **self.values,
            "n_images": self.n_images,
            "n_classes": self.table.n_classes,
            "per_class": self.per_class,
            "intervals": {key: asdict(interval) for key, interval in self.intervals.items()},
            "floors": {
                key: {"median": floor.median, "p95": floor.p95, "simulations": floor.simulations}
                for key, floor in self.floors.items()
            },
            "definitions": self.definitions,
            "reliability": {key: _plain(data) for key, data in self.reliability.items()},
            "protocol": dict(self.protocol),
        }
        if self.train is not None:
            train = self.train.to_dict()
            content["train"] = {key: train[key] for key in (*self.values, "n_images", "intervals", "floors")}
            content["train_minus_val"] = self.gap
        return content

    def predictions(self) -> list[Json]:
        """List the images: file name, class and first guess by name, its probability, and that of the class."""
        table, names = self.table, self.table.class_names
        rows = zip(
            self.file_names, table.label, table.predicted, table.confidence, np.exp(-table.nll), table.rank, strict=True
        )
        return [
            {
                "file_name": file,
                "class": names[label],
                "predicted": names[predicted],
                "confidence": float(confidence),
                "probability_of_class": float(own),
                "rank_of_class": int(rank) + 1,
            }
            for file, label, predicted, confidence, own, rank in rows
        ]

    def summary(self) -> str:
        """Write the numbers, one a line, with interval and floor where there are any."""
        lines = [f"{self.protocol.get('weights', 'a classifier')} on {self.n_images:,} images"]
        for key, value in self.values.items():
            interval, floor = self.intervals.get(key), self.floors.get(key)
            span = "" if interval is None else f"{interval.low:.4f} to {interval.high:.4f}"
            beside = "" if floor is None else f"floor {floor.p95:.4f}"
            lines.append(f"{key:>16}  {value:>8.4f}  {span:>18}  {beside}".rstrip())
        return "\n".join(lines)

    def __repr__(self) -> str:
        """Write the result in about ten lines."""
        return self.summary()

    def save(self, folder: str | Path, exist_ok: bool = False) -> None:
        """Write ``predictions.json`` (a row an image) and ``metrics.json``, both or neither.

        Args:
            folder: Where to write; made if need be.
            exist_ok: Whether to replace files that are there.

        Raises:
            FileExistsError: If a file is there and ``exist_ok`` is False, or the folder is a file.
            OSError: If the folder cannot be written to.
            TypeError: If ``exist_ok`` is neither True nor False.
        """
        with claim_folder(folder, results=(METRICS_FILE, PREDICTIONS_FILE), exist_ok=exist_ok) as place:
            write_json(place / PREDICTIONS_FILE, self.predictions())
            write_json(place / METRICS_FILE, self.to_dict(), indent=2)


def evaluate_classifier(
    detector: Detector,
    data: str | Path,
    split: str,
    predicting: PredictionSettings,
    measuring: MeasureSettings,
    *,
    groups: GroupSpec | None = None,
    train_images: int = 0,
) -> Classification:
    """Classify a split and measure it.

    Args:
        detector: A model for ``classify``.
        data: The data set.
        split: ``train``, ``val`` or ``test``.
        predicting: ``imgsz``, ``batch``, ``device`` and ``workers``.
        measuring: ``bootstrap``, ``simulations``, ``seed`` and ``level``.
        groups: Which images belong together.
        train_images: Images of the train split to measure too; 0 for none.

    Returns:
        The result.

    Raises:
        FileNotFoundError: If the data set, the split or its images do not exist.
        ValueError: If a class of the data is unknown to the model, or an image cannot be read.
    """
    from det_ls.evaluation.classifier import predict_classes

    names = detector.names
    if names is None:
        raise ArgumentError(
            f"model: expected a checkpoint (.pt) of a classifier, got an export, '{detector.weights}', whose classes "
            "are known only when it runs."
        )
    images = labelled_images(find_folder(data, split), names)
    sample = None
    if train_images:
        whole = labelled_images(find_folder(data, "train"), names)
        chosen = sorted(np.random.default_rng(measuring.seed).permutation(len(whole.files))[:train_images].tolist())
        sample = replace(
            whole, files=tuple(whole.files[i] for i in chosen), labels=tuple(whole.labels[i] for i in chosen)
        )

    def one(which: str, some: LabelledImages) -> Classification:
        predictions = predict_classes(detector, some, predicting)
        record = {
            "data": str(data),
            "split": which,
            "weights": detector.weights,
            "weights_sha256": detector.sha256,
            "weights_sha256_of": detector.sha256_of,
            "task": detector.task,
            "measured": "the first guess, and all probabilities",
            **predictions.settings,
            "training": training_record(detector.file, detector.train_args, data=data, split=which).to_dict(),
            **{key: getattr(measuring, key) for key in ("bootstrap", "simulations", "seed", "level")},
            "versions": package_versions("det_ls", "ultralytics", "torch"),
        }
        progress = progress_bar(which) if measuring.bootstrap else iter
        return measure_classes(predictions.table, some.names, record, measuring, groups=groups, progress=progress)

    result = one(split, images)
    return result if sample is None else replace(result, train=one("train", sample))


def measure_classes(
    table: ClassificationTable,
    file_names: list[str],
    record: Mapping[str, Any],
    measuring: MeasureSettings,
    *,
    groups: GroupSpec | None = None,
    progress: Progress = iter,
) -> Classification:
    """Measure what a classifier said.

    Args:
        table: One row an image, at least one.
        file_names: Name of each image.
        record: Where the predictions came from.
        measuring: ``bootstrap``, ``simulations``, ``seed`` and ``level``.
        groups: Which images belong together.
        progress: Wraps the replicates' numbers.

    Returns:
        The result.
    """
    group = None
    if groups is not None:
        found = groups_for(groups, dict(enumerate(file_names)))
        group = np.unique(found.codes_for(range(table.n_images)), return_inverse=True)[1]
    draws = draw(table.n_images, measuring.bootstrap, measuring.seed, group)
    samples = {
        key: draws.split(values)
        for key, values in classification_numbers(table, draws.weights, progress=progress).items()
    }
    intervals = {}
    if measuring.bootstrap:
        known = {key: _interval(key, sample, measuring.level, draws.groups) for key, sample in samples.items()}
        intervals = {key: interval for key, interval in known.items() if interval is not None}
    floors = {}
    if measuring.simulations:
        floors = top_label_floors(
            table.confidence, table.correct, BINS, group, simulations=measuring.simulations, seed=measuring.seed
        )
    protocol = dict(record) if groups is None else {**record, "groups": str(groups), "n_groups": draws.groups}
    correct = table.correct.astype(np.float64)
    return Classification(
        values={key: samples[key].value for key in CLASSIFICATION if key in samples},
        definitions={key: _definition(key, table) for key in CLASSIFICATION if key in samples},
        intervals=intervals,
        floors=floors,
        reliability={
            "top": reliability(table.confidence, correct, bins=BINS),
            "top_equal_mass": equal_mass_reliability(table.confidence, correct, bins=BINS),
        },
        per_class=class_rows(table),
        groups=draws.groups,
        protocol=protocol,
        table=table,
        file_names=tuple(file_names),
        group=group,
    )


def classifier_imgsz(detector: Detector) -> int:
    """Return the image size that a classifier was trained with, or :data:`IMGSZ` where that is not known.

    Args:
        detector: The model.

    Returns:
        Pixels.
    """
    trained = training_record(detector.file, detector.train_args).imgsz
    size = max(trained) if isinstance(trained, (list, tuple)) and trained else trained
    return int(size) if isinstance(size, int) and size > 0 else IMGSZ


def _interval(key: str, sample: Sample, level: float, n: int) -> Interval | None:
    """Compute the interval of a number over n groups of images.

    Replicates that are all equal have no percentiles to speak of: 15 of 15 right make no accuracy of 1 certain. A
    proportion then has Wilson's interval, another number none.
    """
    interval = interval_of(sample, CLASSIFICATION[key], level)
    if interval is None or has_spread(sample.replicates):
        return None if interval is None else _possible(key, interval)
    if key not in PROPORTIONS:
        return None
    low, high = wilson_interval(sample.value, n, level)
    return replace(interval, low=low, high=high)


def _possible(key: str, interval: Interval) -> Interval:
    """Cut an interval to the values that a number can have."""
    if CLASSIFICATION[key].signed:
        return interval
    most = 1.0 if CLASSIFICATION[key].better == "higher" or CLASSIFICATION[key].biased else np.inf
    return replace(interval, low=max(interval.low, 0.0), high=float(min(interval.high, most)))


def _definition(key: str, table: ClassificationTable) -> dict[str, Any]:
    """Say how a number was counted."""
    number = CLASSIFICATION[key]
    higher = {"higher": True, "lower": False}.get(number.better)
    return {
        "bins": number.bins,
        "n": table.n_images,
        "n_counts": number.counts,
        "better": number.better,
        "higher_is_better": higher,
    }


def _plain(data: Reliability) -> dict[str, list[Any]]:
    """Return a diagram's data as JSON can hold it, None for an empty bin."""
    columns = {key: np.asarray(value).tolist() for key, value in asdict(data).items()}
    return {key: [None if v != v else v for v in values] for key, values in columns.items()}
