# SPDX-License-Identifier: AGPL-3.0-or-later
"""Calibrate a classifier: fit one temperature on a split's logits, judge it by cross-fitting, fold it in."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import NormalDist
from typing import Any

import numpy as np
from numpy.typing import NDArray

from det_ls.base.arguments import check_flag, check_integer
from det_ls.base.errors import ArgumentError
from det_ls.base.files import write_json
from det_ls.base.folders import check_writable, claim_folder
from det_ls.calibration.crossfit import FOLDS, folds_by_group
from det_ls.calibration.files import versions
from det_ls.calibration.fit import fit_softmax_temperature
from det_ls.calibration.fold import class_layers, fold_checkpoint, load_checkpoint
from det_ls.calibration.judge import Change
from det_ls.calibration.maps import AffineMap, Floats, Ints, map_to_dict
from det_ls.calibration.results import NUMBERS_FILE, plain
from det_ls.calibration.source import Source, check_absent, destination_of, load_source
from det_ls.data.class_folders import find_folder, labelled_images
from det_ls.data.groups import GroupSpec, groups_for
from det_ls.evaluation.classifier import predict_classes
from det_ls.evaluation.detector import load_detector
from det_ls.evaluation.settings import PredictionSettings
from det_ls.metrics.classification import classification_numbers, classification_table

METHOD = "temperature"
IMGSZ = 224  # of a model that does not say what it was trained at
NUMBERS = ("nll", "brier", "ECE", "accuracy")


@dataclass(frozen=True)
class ClassifierCalibration:
    """The result of calibrating a classifier.

    Attributes:
        map: The map to ship: softmax(a z) of the logits z, with a = 1 / T of the temperature T.
        a_interval: 95% interval of a, robust to images of one group that depend on each other.
        numbers: Change by name, cross-fitted: ``nll`` (mean negative log-likelihood), ``brier`` (mean squared distance
            of all probabilities from the label, in [0, 2]), ``ECE`` (of the most likely class, over 15 bins) and
            ``accuracy`` (which no temperature changes).
        counts: ``images``, ``groups``, ``folds``, ``classes`` and ``right``.
        record: Data, split, settings, versions and SHA-256 of the source, as plain values.
        weights: The calibrated checkpoint, where one was written.
    """

    map: AffineMap
    a_interval: tuple[float, float]
    numbers: dict[str, Change]
    counts: dict[str, int]
    record: dict[str, Any] = field(default_factory=dict)
    weights: Path | None = None

    @property
    def temperature(self) -> float:
        """What the logits are divided by; above 1 for a classifier that is too sure."""
        return 1 / self.map.a[0]

    def to_dict(self) -> dict[str, Any]:
        """Return everything as values that JSON can hold."""
        values: dict[str, Any] = plain(
            {key: getattr(self, key) for key in ("a_interval", "numbers", "counts", "record")}
        )
        weights = None if self.weights is None else str(self.weights)
        known = {"map": map_to_dict(self.map), "temperature": self.temperature, "method": METHOD, "target": "class"}
        return {**known, **values, "weights": weights}

    def summary(self) -> dict[str, Any]:
        """Return what a calibrated checkpoint records: plain values."""
        numbers = {key: plain([change.before, change.after]) for key, change in self.numbers.items()}
        known = {"map": map_to_dict(self.map), "method": METHOD, "target": "class", "counts": dict(self.counts)}
        return {**known, "before_after": numbers, **plain(self.record)}

    def save(self, folder: str | Path, exist_ok: bool = False) -> None:
        """Write ``calibration.json``, complete or not at all.

        Args:
            folder: Where to write; made if need be.
            exist_ok: Whether to replace a file that is there.

        Raises:
            FileExistsError: If it is there and ``exist_ok`` is False.
        """
        with claim_folder(folder, results=(NUMBERS_FILE,), exist_ok=exist_ok) as place:
            write_json(place / NUMBERS_FILE, self.to_dict(), indent=2)


def is_classifier(model: str | Path) -> bool:
    """Tell whether a checkpoint holds a classifier.

    Args:
        model: Path of a checkpoint.

    Returns:
        Whether its class logits come from a linear layer.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is no checkpoint.
    """
    content = load_checkpoint(model)
    return _classifies(content.get("ema") or content.get("model"))


def calibrate_classifier(
    model: object,
    data: str | Path,
    method: str = METHOD,
    *,
    split: str = "val",
    groups: GroupSpec | None = None,
    allow_train: bool = False,
    recalibrate: bool = False,
    save: str | Path | bool = True,
    save_dir: str | Path | None = None,
    exist_ok: bool = False,
    imgsz: int | None = None,
    batch: int = 16,
    device: object = None,
    workers: int = 8,
    folds: int = FOLDS,
    bootstrap: int = 200,
    seed: int = 0,
) -> ClassifierCalibration:
    """Calibrate a classifier's probabilities on a data set's split, by temperature scaling (Guo et al. 2017).

    The temperature is folded into the last linear layer of a copy of the checkpoint, which stays an ordinary one of
    Ultralytics. No class changes: the order of an image's classes is as it was.

    Args:
        model: Path of a checkpoint, an ``ultralytics.YOLO`` or a classification module.
        data: The data set, as for ``yolo classify``: a folder with the folders ``val`` or ``test``.
        method: ``temperature``.
        split: ``val`` or ``test``; ``train`` only with ``allow_train``.
        groups: Which images are not independent and are held out together: a CSV file with the columns image and
            group, or a regular expression on the file names.
        allow_train: Whether ``split="train"`` may be used all the same.
        recalibrate: Whether to start again from the original logits of a checkpoint that is calibrated already.
        save: Where to write the calibrated checkpoint: True for ``<weights>_calibrated.pt`` beside the weights when the
            model is a path, False for nowhere.
        save_dir: Folder for ``calibration.json``; None for none.
        exist_ok: Whether to replace files.
        imgsz: Size of the input in pixels; None for that of the training, else 224.
        batch: Images a batch.
        device: ``cpu``, ``0``, ...; None chooses.
        workers: Processes that load images.
        folds: Folds of the cross-fit.
        bootstrap: Replicates over groups for the intervals of the numbers; 0 for none.
        seed: Seed of folds and bootstrap.

    Returns:
        The temperature, and the numbers before and after.

    Raises:
        FileExistsError: If a file is there and ``exist_ok`` is False.
        FileNotFoundError: If the model or the data does not exist.
        TypeError: If an argument has the wrong type.
        ValueError: If an argument is out of range, the model is no classifier or is calibrated already, or no
            temperature is best.
    """
    _check(method, split, allow_train, recalibrate, exist_ok, folds, bootstrap, seed)
    source = load_source(model, recalibrate)
    if not _classifies(source.module):
        raise ArgumentError("model: expected a classifier, got a detector: det_ls.calibrate calibrates it.")
    size = _size(source) if imgsz is None else imgsz
    settings = PredictionSettings(imgsz=size, batch=batch, device=device, workers=workers)
    destination = destination_of(model, save, method, exist_ok)
    detector = load_detector(copy.deepcopy(source.module).float())  # as YOLO loads a file
    images = labelled_images(find_folder(data, split), detector.names or {})
    claim: AbstractContextManager[Path | None] = nullcontext()
    if save_dir is not None:
        claim = claim_folder(save_dir, results=(NUMBERS_FILE,), exist_ok=exist_ok)
    with claim as place:
        if destination is not None:
            check_writable("save", destination.parent)
        given = predict_classes(detector, images, settings, logits=True)
        assert given.logits is not None
        codes = np.arange(len(images.files))
        if groups is not None:
            codes = groups_for(groups, dict(enumerate(images.names))).codes_for(range(len(images.files)))
        found = calibrate_logits(given.logits, given.table.label, codes, folds=folds, bootstrap=bootstrap, seed=seed)
        record = {
            "data": str(data),
            "split": split,
            "settings": given.settings,
            "source": source.name,
            "source_sha256": source.sha256,
            "versions": versions("ultralytics", "torch"),
        }
        found = replace(found, record=record, weights=destination)
        if place is not None:
            found.save(place)
    if destination is not None:
        check_absent(destination, exist_ok)  # another calibration may have written it in the meantime
        fold_checkpoint(source.checkpoint, found.map, found.summary(), destination)
    return found


def calibrate_logits(
    logits: Floats, labels: Ints, group: Ints, *, folds: int = FOLDS, bootstrap: int = 0, seed: int = 0
) -> ClassifierCalibration:
    """Fit a temperature on all images, and judge the method by cross-fitting.

    Args:
        logits: (N, K) logits.
        labels: (N,) true classes.
        group: (N,) group of each image, from 0.
        folds: Folds of the cross-fit.
        bootstrap: Replicates over groups for the intervals of the numbers.
        seed: Seed of folds and bootstrap.

    Returns:
        The calibration.

    Raises:
        ValueError: If no temperature is best, or there are fewer than two groups.
    """
    fold = folds_by_group(group, folds, seed)
    a = _fit(logits, labels)
    scale = np.empty(len(labels))
    for held_out in np.unique(fold):
        rows = fold == held_out
        scale[rows] = _fit(logits[~rows], labels[~rows])
    before, after = log_softmax(logits), log_softmax(scale[:, None] * logits)
    right = int((logits.argmax(1) == labels).sum())
    return ClassifierCalibration(
        AffineMap((a,), (0.0,), kind=METHOD),
        slope_interval(logits, labels, a, group),
        _changes(before, after, labels, group, bootstrap, seed),
        {
            "images": len(labels),
            "groups": int(group.max()) + 1,
            "folds": len(np.unique(fold)),
            "classes": logits.shape[1],
            "right": right,
        },
    )


def log_softmax(z: Floats) -> Floats:
    """Compute log softmax of (N, K) logits without overflow."""
    shifted = z - z.max(1, keepdims=True)
    return np.asarray(shifted - np.log(np.exp(shifted).sum(1, keepdims=True)))


def class_numbers(log_p: Floats, labels: Ints) -> dict[str, float]:
    """Compute the numbers of one set of probabilities.

    Args:
        log_p: (N, K) logarithms of the probabilities.
        labels: (N,) true classes.

    Returns:
        Number by key of :data:`NUMBERS`.

    Example:
        >>> numbers = class_numbers(np.log([[0.8, 0.2], [0.4, 0.6]]), np.array([0, 0]))
        >>> {key: round(value, 4) for key, value in numbers.items()}
        {'nll': 0.5697, 'brier': 0.4, 'ECE': 0.4, 'accuracy': 0.5}
    """
    return {key: float(values[0]) for key, values in _estimates(log_p, labels).items()}


def slope_interval(logits: Floats, labels: Ints, a: float, group: Ints, level: float = 0.95) -> tuple[float, float]:
    """Give an interval of the slope: a normal approximation with the sandwich of the groups' gradients.

    Args:
        logits: (N, K) logits.
        labels: (N,) true classes.
        a: The fitted slope.
        group: (N,) group of each image, from 0.
        level: Nominal coverage.

    Returns:
        Its ends.
    """
    p = np.exp(log_softmax(a * logits))
    mean = (p * logits).sum(1)
    gradient = mean - logits[np.arange(len(labels)), labels]
    information = float(((p * logits**2).sum(1) - mean**2).sum())
    sums = np.bincount(group, weights=gradient)
    n = len(sums)
    width = NormalDist().inv_cdf(0.5 + level / 2) * float(np.sqrt((sums**2).sum() * n / (n - 1))) / information
    return a - width, a + width


def _fit(logits: Floats, labels: Ints) -> float:
    """Fit a slope; where no image is wrong none is best: the steeper, the likelier."""
    wrong = int((logits.argmax(1) != labels).sum())
    try:
        if wrong:
            return fit_softmax_temperature(logits, labels)
    except ValueError:  # the best slope is not above 0
        pass
    raise ArgumentError(
        f"data: expected images that one temperature above 0 fits best, got {len(labels)} of which the model gets "
        f"{wrong} wrong."
    )


def _changes(before: Floats, after: Floats, labels: Ints, group: Ints, bootstrap: int, seed: int) -> dict[str, Change]:
    """Compare two sets of probabilities of the same images, with intervals over groups."""
    one, other = (class_numbers(log_p, labels) for log_p in (before, after))
    found = {key: Change(one[key], other[key]) for key in NUMBERS}
    if not bootstrap:
        return found
    n = int(group.max()) + 1
    drawn = np.random.default_rng(seed).multinomial(n, np.full(n, 1 / n), size=bootstrap)
    weights = drawn.T.astype(np.uint16)[group]
    of_before, of_after = (_estimates(log_p, labels, weights) for log_p in (before, after))
    for key in NUMBERS:
        spans = (of_before[key], of_after[key], of_after[key] - of_before[key])
        low_high = [tuple(map(float, np.quantile(values, [0.025, 0.975]))) for values in spans]
        ends = dict(zip(("before_interval", "after_interval", "difference_interval"), low_high, strict=True))
        found[key] = replace(found[key], **ends)  # type: ignore[arg-type]
    return found


def _estimates(log_p: Floats, labels: Ints, weights: NDArray[np.uint16] | None = None) -> dict[str, Floats]:
    """Estimate the numbers for resampled images (:mod:`det_ls.metrics.classification`)."""
    table = classification_table(log_p, labels, [str(k) for k in range(log_p.shape[1])])
    values = classification_numbers(table, weights)
    return {key: values[key] for key in NUMBERS}


def _classifies(module: Any) -> bool:
    from torch import nn

    try:
        return isinstance(class_layers(module)[0], nn.Linear)
    except ArgumentError:  # neither: what calibrates it says what it expects
        return False


def _size(source: Source) -> int:
    """Give the size that the model was trained at."""
    args = source.checkpoint.get("train_args")
    size = args.get("imgsz") if isinstance(args, Mapping) else None
    return size if isinstance(size, int) and not isinstance(size, bool) else IMGSZ


def _check(
    method: str, split: str, allow_train: bool, recalibrate: bool, exist_ok: bool, folds: int, bootstrap: int, seed: int
) -> None:
    if method != METHOD:
        raise ArgumentError(
            f"method: expected temperature for a classifier, which keeps its classes in order, got {method!r}."
        )
    for name, value in (("allow_train", allow_train), ("recalibrate", recalibrate), ("exist_ok", exist_ok)):
        check_flag(name, value)
    for name, number, least in (("folds", folds, 2), ("bootstrap", bootstrap, 0), ("seed", seed, 0)):
        check_integer(name, number, least)
    if split == "train" and not allow_train:
        raise ArgumentError(
            "split: expected images that the model was not trained on, got 'train', where its probabilities look "
            "better than they are; allow_train=True fits on them all the same."
        )
