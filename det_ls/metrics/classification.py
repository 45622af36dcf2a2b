# SPDX-License-Identifier: AGPL-3.0-or-later
"""The numbers of a classifier: its accuracy, and whether the probability of its first guess can be believed.

All are pure functions of one row an image, and all are estimated for weighted images as those of detectors are: with
weight 1 that is the number, with resampled weights a bootstrap replicate.

ECE is that of the first guess (Guo et al., "On calibration of modern neural networks", ICML 2017): bins of its
probability, in each the distance of the mean probability from the accuracy.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import ArrayLike, NDArray

from det_ls.base.errors import ArgumentError
from det_ls.metrics.binned import binned_error
from det_ls.metrics.calibration import bin_index, equal_mass_ends
from det_ls.metrics.number import Number, Unjudged
from det_ls.metrics.table import Bools, Floats, Ints
from det_ls.metrics.weighted import Progress, Weights, dot, ratio, weighted_bins

BINS = 15
TOP = 5
_OF_IMAGES = partial(Number, family=None, counts="images", headline=True)
_BINNED = partial(_OF_IMAGES, better="lower", biased=True, floor=True, unjudged=Unjudged.BINNED)
CLASSIFICATION: dict[str, Number] = {
    number.key: number
    for number in (
        _OF_IMAGES("accuracy", "Accuracy", "Images whose first guess is right.", "higher"),
        _OF_IMAGES("accuracy_top5", "Accuracy of five guesses", "Images with their class among five.", "higher"),
        _BINNED(
            "ECE",
            "Calibration error",
            "How far the probability of the first guess is from the accuracy, in bins (Guo et al. 2017).",
            bins=f"{BINS} equal-width",
        ),
        _BINNED(
            "ECE_equal_mass",
            "Calibration error, equal-mass bins",
            "The same with equally many images a bin.",
            bins=f"{BINS} equal-mass",
        ),
        _OF_IMAGES(
            "signed_gap",
            "Mean confidence minus accuracy",
            "Above 0: over-confident. Below 0: under-confident.",
            "zero",
            signed=True,
        ),
        _OF_IMAGES(
            "nll", "Negative log-likelihood", "Minus the log of the true class's probability.", "lower", most=math.inf
        ),
        _OF_IMAGES(
            "brier",
            "Brier score",
            "Squared distance of all probabilities from 1 for the true class and 0 for the others; 0 to 2.",
            "lower",
            most=2.0,
        ),
        _OF_IMAGES("mean_confidence", "Mean confidence", "", "neither", headline=False, unjudged=Unjudged.NEITHER),
    )
}
"""Every number of a classifier, by key; ``accuracy_top5`` needs more than five classes."""


@dataclass(frozen=True)
class ClassificationTable:
    """What a classifier said of I images of K classes.

    Attributes:
        class_names: K names.
        label: (I,) class of each image.
        predicted: (I,) first guess.
        confidence: (I,) its probability.
        rank: (I,) place of the true class among the guesses, from 0.
        nll: (I,) minus the natural logarithm of the true class's probability.
        brier: (I,) sum over the classes of the squared distance of the probability from 1 or 0.
    """

    class_names: tuple[str, ...]
    label: Ints
    predicted: Ints
    confidence: Floats
    rank: Ints
    nll: Floats
    brier: Floats

    @property
    def n_images(self) -> int:
        """Images."""
        return len(self.label)

    @property
    def n_classes(self) -> int:
        """Classes of the model."""
        return len(self.class_names)

    @property
    def correct(self) -> Bools:
        """(I,) whether the first guess is right."""
        return self.rank == 0


def classification_table(
    log_probability: ArrayLike, label: ArrayLike, class_names: Sequence[str]
) -> ClassificationTable:
    """Look up what the numbers are computed from.

    Args:
        log_probability: (I, K) natural logarithms of probabilities, or logits: each row is normalised.
        label: (I,) classes, from 0.
        class_names: K names.

    Returns:
        The table. Of equal probabilities the first class counts as the better guess.

    Raises:
        ValueError: A shape does not fit, a label is no class, or a row is not finite.

    Example:
        >>> import numpy as np
        >>> found = classification_table(np.log([[0.7, 0.2, 0.1], [0.4, 0.4, 0.2]]), [0, 1], "abc")
        >>> found.predicted.tolist(), found.rank.tolist(), found.brier.round(2).tolist()
        ([0, 0], [0, 1], [0.14, 0.56])
    """
    z, y = np.asarray(log_probability, np.float64), np.asarray(label, np.int64)
    if z.ndim != 2 or z.shape != (len(y), len(class_names)):
        raise ArgumentError(
            f"log_probability: expected shape ({len(y)}, {len(class_names)}) for the labels and classes, got {z.shape}."
        )
    if len(y) and not (y.min() >= 0 and y.max() < z.shape[1]):
        raise ArgumentError(f"label: expected classes from 0 to {z.shape[1] - 1}, got {y.min()} to {y.max()}.")
    if np.isnan(z).any() or (z == np.inf).any() or (z.max(1, initial=-np.inf) == -np.inf).any():
        raise ArgumentError("log_probability: expected finite numbers, got others.")
    rows = np.arange(len(y))
    top = z.max(1, initial=-np.inf, keepdims=True)
    log_p = z - top - np.log(np.exp(z - top).sum(1, keepdims=True))
    p = np.exp(log_p)
    of_label = z[rows, y][:, None]
    before = (z > of_label) | ((z == of_label) & (np.arange(z.shape[1]) < y[:, None]))
    predicted = z.argmax(1) if len(y) else y
    brier = (p**2).sum(1) - 2 * p[rows, y] + 1
    return ClassificationTable(
        tuple(class_names), y, predicted.astype(np.int64), p[rows, predicted], before.sum(1), -log_p[rows, y], brier
    )


def joined(tables: Sequence[ClassificationTable]) -> ClassificationTable:
    """Put tables of the same classes one after another.

    Args:
        tables: At least one.

    Returns:
        One table.
    """
    columns = ("label", "predicted", "confidence", "rank", "nll", "brier")
    return ClassificationTable(
        tables[0].class_names, *(np.concatenate([getattr(table, c) for table in tables]) for c in columns)
    )


def classification_numbers(
    table: ClassificationTable, weights: Weights | None = None, *, progress: Progress = iter
) -> dict[str, Floats]:
    """Estimate every number for R vectors of image weights.

    Args:
        table: What the classifier said.
        weights: (I, R) whole numbers, how often each image counts; None for every image once.
        progress: Wraps the replicates' numbers.

    Returns:
        By key, (R,) values, NaN without images.

    Example:
        >>> import numpy as np
        >>> found = classification_table(np.log([[0.9, 0.1], [0.8, 0.2], [0.4, 0.6]]), [0, 1, 1], "ab")
        >>> {k: round(float(v[0]), 3) for k, v in classification_numbers(found).items() if k != "ECE_equal_mass"}
        {'accuracy': 0.667, 'ECE': 0.433, 'signed_gap': 0.1, 'nll': 0.742, 'brier': 0.54, 'mean_confidence': 0.767}
    """
    once = np.ones((table.n_images, 1), np.uint16) if weights is None else weights
    correct = table.correct.astype(np.float64)
    columns = [np.ones(table.n_images), correct, table.rank < TOP, table.confidence, table.nll, table.brier]
    n, right, in_top, confidence, nll, brier = dot(np.stack(columns, axis=1), once)
    image = np.arange(table.n_images)
    bins = bin_index(table.confidence, BINS)
    (gaps,) = weighted_bins(image, bins, BINS, [table.confidence - correct], once)
    found = {
        "accuracy": ratio(right, n),
        "accuracy_top5": ratio(in_top, n),
        "ECE": binned_error(gaps[None], n[None])[0],
        "ECE_equal_mass": equal_mass_errors(table.confidence, correct, once, progress=progress),
        "signed_gap": ratio(confidence - right, n),
        "nll": ratio(nll, n),
        "brier": ratio(brier, n),
        "mean_confidence": ratio(confidence, n),
    }
    if table.n_classes <= TOP:
        del found["accuracy_top5"]
    return found


def equal_mass_errors(
    score: Floats, target: Floats, weights: Weights, bins: int = BINS, *, progress: Progress = iter
) -> Floats:
    """Estimate the calibration error on bins that hold equally many images of each replicate.

    Where a bin ends amid equal scores, their targets are shared out evenly.

    Args:
        score: (I,) scores in [0, 1].
        target: (I,) targets in [0, 1].
        weights: (I, R) whole numbers.
        bins: Number of bins.
        progress: Wraps the replicates' numbers.

    Returns:
        (R,) errors, NaN without images.
    """
    order = np.argsort(score, kind="stable")
    s, y = score[order], target[order]
    last = np.flatnonzero(np.append(s[1:] != s[:-1], len(s) > 0)) if len(s) else np.zeros(0, np.int64)
    errors = np.full(weights.shape[1], np.nan)
    for r in progress(range(weights.shape[1])):
        w = weights[order, r].astype(np.float64)
        n = float(w.sum())
        if not n:
            continue
        seen, scores, targets = (np.append(0.0, np.cumsum(v)[last]) for v in (w, w * s, w * y))
        ends = np.append(0.0, equal_mass_ends(n, bins))
        gaps: NDArray[np.float64] = np.diff(np.interp(ends, seen, scores) - np.interp(ends, seen, targets))
        errors[r] = binned_error(gaps[None, :, None], np.array([[n]]))[0, 0]
    return errors


def class_rows(table: ClassificationTable) -> list[dict[str, int | float | str | None]]:
    """List the numbers of each class.

    Args:
        table: What the classifier said.

    Returns:
        One entry a class: ``id``, ``name``, ``n`` images and how many are found (``recall``); ``n_predicted`` images
        that are guessed to be of it, how many rightly (``precision``), their ``mean_confidence``, and its distance from
        the precision (``signed_gap``). None where there is no image.
    """
    k = table.n_classes
    n, guessed = (np.bincount(v, minlength=k).astype(np.float64) for v in (table.label, table.predicted))
    right = np.bincount(table.label[table.correct], minlength=k).astype(np.float64)
    confidence = ratio(np.bincount(table.predicted, weights=table.confidence, minlength=k), guessed)
    columns = {
        "recall": ratio(right, n),
        "precision": ratio(right, guessed),
        "mean_confidence": confidence,
        "signed_gap": confidence - ratio(right, guessed),
    }
    return [
        {
            "id": c,
            "name": name,
            "n": int(n[c]),
            "n_predicted": int(guessed[c]),
            **{key: None if np.isnan(v[c]) else float(v[c]) for key, v in columns.items()},
        }
        for c, name in enumerate(table.class_names)
    ]
