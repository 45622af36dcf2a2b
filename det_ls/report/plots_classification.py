# SPDX-License-Identifier: AGPL-3.0-or-later
"""Pictures of a classifier."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from det_ls.evaluation.classification import Classification
from det_ls.metrics.calibration import bin_index
from det_ls.metrics.classification import BINS
from det_ls.metrics.weighted import ratio, weighted_bins
from det_ls.report.plot_parts import diagonal, histogram, reliability_curve
from det_ls.report.plot_style import LOOKS, diagram_axes, dress, figure_of, legend
from det_ls.uncertainty.samples import image_weights


def top_reliability(
    result: Classification,
    *,
    replicates: int = 200,
    seed: int = 0,
    level: float = 0.95,
    axes: Sequence[Axes] | None = None,
) -> Figure:
    """Draw the accuracy of the first guess against its probability, and how many images there are.

    Args:
        result: A classifier's numbers.
        replicates: Bootstrap samples of the images for the interval of each bin; 0 for none.
        seed: Seed of the samples.
        level: Nominal coverage of the intervals.
        axes: Two axes, for the diagram and for the counts.

    Returns:
        The figure.
    """
    upper, lower = diagram_axes(axes)
    table, span = result.table, None
    if replicates and table.n_images > 1:
        weights = image_weights(table.n_images, replicates, seed, result.group)
        columns = [np.ones(table.n_images), table.correct.astype(np.float64)]
        bins = bin_index(table.confidence, BINS)
        count, right = weighted_bins(np.arange(table.n_images), bins, BINS, columns, weights)
        accuracy = ratio(right, count)
        ends = np.full((2, BINS), np.nan)
        known = ~np.isnan(accuracy).all(1)
        ends[:, known] = np.nanquantile(accuracy[known], [(1 - level) / 2, (1 + level) / 2], axis=1)
        span = (ends[0], ends[1])
    diagonal(upper)
    reliability_curve(upper, result.reliability["top"], "equal-width bins", LOOKS[0], span)
    reliability_curve(upper, result.reliability["top_equal_mass"], "equal-mass bins", LOOKS[1], None)
    dress(upper, "", "Accuracy")
    legend(upper)
    histogram(lower, result.reliability["top"])
    dress(lower, "Probability of the first guess", "Images", grid="y")
    return figure_of(upper)
