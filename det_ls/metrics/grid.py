# SPDX-License-Identifier: AGPL-3.0-or-later
"""Score thresholds that a user would type, and sums over the boxes between them.

A box is kept at a threshold t if its score is above t, as ``conf=t`` does in Ultralytics. Thresholds are multiples of
0.01, finer near 0 and 1; bins of D-ECE and LaECE are unions of the cells between them. Everything that is asked of the
kept boxes is a sum over cells, so that a bootstrap replicate can choose its thresholds anew without touching a box.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import sparse

from det_ls.metrics.calibration import log_losses
from det_ls.metrics.protocols import TP_IOU, Protocol
from det_ls.metrics.table import DetectionTable, Floats, Ints
from det_ls.metrics.weighted import Weights, dot

_HUNDREDTHS = [k / 100 for k in range(1, 100)]
THRESHOLDS = np.array([0.0, 0.001, 0.002, 0.005, *_HUNDREDTHS, 0.995, 0.998, 0.999])
"""The T thresholds, rising; cell j holds the scores above the j-th and not above the next."""
COLUMNS = ("n", "tp", "benefit", "gap", "square", "nll", "n_iou", "gap_iou")
AT_IOU_0 = ("n_iou", "gap_iou")  # matched at IoU 0
_BYTES = 250e6


def cell_index(score: ArrayLike) -> Ints:
    """Sort scores into the cells between thresholds.

    Args:
        score: (N,) scores in [0, 1].

    Returns:
        (N,) cells from 0; cell j and all above it are kept at ``THRESHOLDS[j]``.

    Example:
        >>> THRESHOLDS[cell_index([0.0, 0.3, 0.301, 1.0])].tolist()
        [0.0, 0.29, 0.3, 0.999]
    """
    return np.maximum(np.searchsorted(THRESHOLDS, np.asarray(score), side="left") - 1, 0)


def bin_starts(bins: int) -> Ints:
    """Find the first cell of each equal-width bin (a, b] of the score.

    Args:
        bins: Number of bins, of a width that is a multiple of 0.01.

    Returns:
        (bins,) cells.
    """
    return np.searchsorted(THRESHOLDS, np.arange(bins) / bins - 1e-9)


@dataclass(frozen=True)
class GridSums:
    """Sums of R replicates over the cells of each class and fold.

    Attributes:
        cells: By column, (C, K, T, R) sums over the boxes of a class, fold and cell: ``n`` boxes, ``tp`` true
            positives, ``benefit`` 1 - (1 - IoU) / (1 - tau) of those (1 fits exactly, 0 barely), ``gap`` score minus
            true positive, ``square`` its square, ``nll`` negative log-likelihood; ``n_iou`` and ``gap_iou`` boxes and
            score minus IoU, matched at IoU 0.
        objects: (C, K, R) objects.
        images: (K, R) images.
    """

    cells: dict[str, Floats]
    objects: Floats
    images: Floats
    _above: dict[str, Floats] = field(default_factory=dict, repr=False)

    def above(self, column: str) -> Floats:
        """Sum a column over the cells at or above each one.

        Args:
            column: The column.

        Returns:
            (C, K, T, R) sums over the boxes that are kept at each threshold.
        """
        if column not in self._above:
            self._above[column] = np.flip(np.cumsum(np.flip(self.cells[column], 2), axis=2), 2)
        return self._above[column]


class Grid:
    """Boxes by class, fold and cell.

    Args:
        table: Matched detections.
        protocol: What is counted.
        fold: (I,) fold of each image, from 0.
    """

    def __init__(self, table: DetectionTable, protocol: Protocol, fold: NDArray[np.integer]) -> None:
        half, overlap = protocol.matches(table, TP_IOU), protocol.matches(table, 0.0)
        counted, counted_iou = protocol.counted(table, half), protocol.counted(table, overlap)
        tp = half.tp.astype(np.float64)
        gap = table.score - tp
        self.table, self.protocol, self.fold = table, protocol, np.asarray(fold)
        self.folds = int(self.fold.max()) + 1 if len(fold) else 1
        self.cell = cell_index(table.score)
        values = {
            "n": np.ones(len(tp)),
            "tp": tp,
            "benefit": np.where(half.tp, 1 - (1 - half.iou) / (1 - TP_IOU), 0.0),
            "gap": gap,
            "square": gap**2,
            "nll": log_losses(table.score, tp),
            "n_iou": np.ones(len(tp)),
            "gap_iou": table.score - overlap.tp_iou,
        }
        rows = np.flatnonzero(counted | counted_iou)
        place = (table.cls[rows].astype(np.int64) * self.folds + self.fold[table.image[rows]]) * len(THRESHOLDS)
        place = (place + self.cell[rows])[:, None] * len(COLUMNS) + np.arange(len(COLUMNS))
        image = np.broadcast_to(table.image[rows][:, None], place.shape)
        columns = np.stack(
            [values[name][rows] * (counted_iou if name in AT_IOU_0 else counted)[rows] for name in COLUMNS], axis=1
        )
        shape = (table.n_classes * self.folds * len(THRESHOLDS) * len(COLUMNS), table.n_images)
        # Sums of each image, by class, fold, cell and column: nearly all of them are 0.
        self._sums = sparse.csr_matrix((columns.ravel(), (place.ravel(), image.ravel())), shape=shape)
        self._sums.eliminate_zeros()

    def sums(self, weights: Weights) -> Iterator[tuple[slice, GridSums]]:
        """Sum over weighted images, as many replicates at once as memory allows.

        Args:
            weights: (I, R) how often each image counts.

        Yields:
            Replicates, and their sums.
        """
        n_classes, n_cells = self.table.n_classes, len(THRESHOLDS)
        size = n_classes * self.folds * n_cells * len(COLUMNS) * 8
        step = max(1, int(_BYTES / max(size, 1)))
        for start in range(0, weights.shape[1], step):
            part = slice(start, min(start + step, weights.shape[1]))
            w = weights[:, part].astype(np.float64)
            cells = (self._sums @ w).reshape(n_classes, self.folds, n_cells, len(COLUMNS), w.shape[1])
            by_column = np.moveaxis(cells, 3, 0)
            fold_of = np.arange(self.folds)[:, None] == self.fold[None]
            objects = np.stack([dot(self.table.gt_per_image()[of], w[of]) for of in fold_of], axis=1)
            images = np.stack([w[of].sum(0) for of in fold_of])
            yield part, GridSums(dict(zip(COLUMNS, by_column, strict=True)), objects, images)
