# SPDX-License-Identifier: AGPL-3.0-or-later
"""The one place that turns bins into a calibration error."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from det_ls.metrics.table import Floats
from det_ls.metrics.weighted import ratio


def binned_error(gaps: NDArray[Any], count: NDArray[Any]) -> Floats:
    """Weight the absolute gaps of bins by their share of the detections.

    Sum over bins of (n_b / n) * |mean score - mean target|, which is the sum of the absolute summed gaps over n: with
    targets 0 and 1 D-ECE (Kueppers et al. 2020), with IoU targets and a class at a time LaECE (Kuzucu et al. 2024).

    Args:
        gaps: (C, B, ...) sums of score minus target in each of B bins, of each of C classes.
        count: (C, ...) detections of each class.

    Returns:
        (C, ...) errors, NaN without detections.

    Example:
        >>> import numpy as np
        >>> binned_error(np.array([[-1.0, 0.5]]), np.array([4.0])).tolist()
        [0.375]
    """
    return ratio(np.abs(gaps).sum(1), count)
