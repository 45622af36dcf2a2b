# SPDX-License-Identifier: AGPL-3.0-or-later
"""The squared calibration error of kept boxes, without the bias that binning brings.

The square of a bin's mean gap is too large by the variance of that mean, the more so the fewer the boxes and the less
certain their scores. Kumar, Liang and Ma, "Verified uncertainty calibration", NeurIPS 2019, subtract an estimate of the
variance. Here that is done with the images (or groups of them) as the units that are independent: the products of the
gaps of two different images are unbiased for the square, so only those are summed,

    sum over bins b of [(sum_i w_i g_ib)^2 - sum_i w_i^2 g_ib^2] / (n_b n),

where g_ib is the sum of score minus true positive over the boxes of image i in bin b. Of a calibrated detector its
expectation is 0, whatever the sharpness of its scores; it can be negative.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from det_ls.metrics.grid import Grid
from det_ls.metrics.protocols import TP_IOU
from det_ls.metrics.table import Bools, Floats, Ints

BINS = 10


class UnbiasedError:
    """The error of weighted images, on equal-mass bins of the boxes that are kept with every image once.

    Args:
        grid: The boxes.
        group: (I,) group of each image, from 0; images are independent if their groups are.
        kept: (N,) boxes that are kept with every image once, which place the bins' edges.
    """

    def __init__(self, grid: Grid, group: NDArray[np.integer], kept: Bools) -> None:
        table = grid.table
        matches = grid.protocol.matches(table, TP_IOU)
        counted = grid.protocol.counted(table, matches)
        scores = np.sort(table.score[counted & kept])
        rows = np.flatnonzero(counted)
        edges = scores[(np.arange(1, BINS) * len(scores)) // BINS] if len(scores) else np.zeros(0)
        # Boxes far below any threshold that a replicate chooses are never kept; all others are looked at each time.
        self._cell, self._cls = grid.cell[rows], table.cls[rows]
        self._fold, self._group = grid.fold[table.image[rows]], np.asarray(group)[table.image[rows]]
        self._image = table.image[rows]
        self._bin = np.searchsorted(edges, table.score[rows], side="left")
        self._gap = table.score[rows] - matches.tp[rows]
        order = np.argsort(-self._cell, kind="stable")
        for name in ("_cell", "_cls", "_fold", "_group", "_image", "_bin", "_gap"):
            setattr(self, name, getattr(self, name)[order])
        self._n_groups = int(np.max(group)) + 1 if len(group) else 0

    def __call__(self, w: Floats, place: Ints) -> float:
        """Estimate.

        Args:
            w: (I,) how often each image counts; images of one group equally often.
            place: (C, K) thresholds of each class and fold.

        Returns:
            The squared error; NaN without kept boxes in two groups.
        """
        upto = int(np.searchsorted(-self._cell, -int(place.min()), side="right"))
        kept = np.flatnonzero(self._cell[:upto] >= place[self._cls[:upto], self._fold[:upto]])
        weight = w[self._image[kept]]
        kept, weight = kept[weight > 0], weight[weight > 0]
        if len(kept) < 2:
            return float("nan")
        bins = self._bin[kept]
        of_group = self._group[kept]
        if (of_group == of_group[0]).all():
            return float("nan")
        sums = np.bincount(of_group * BINS + bins, weights=weight * self._gap[kept], minlength=self._n_groups * BINS)
        sums = sums.reshape(self._n_groups, BINS)
        count = np.bincount(bins, weights=weight, minlength=BINS)
        pairs = sums.sum(0) ** 2 - (sums**2).sum(0)
        return float(np.divide(pairs, count, out=np.zeros(BINS), where=count > 0).sum() / count.sum())
