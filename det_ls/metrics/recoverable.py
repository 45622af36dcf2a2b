# SPDX-License-Identifier: AGPL-3.0-or-later
"""What a free recalibration would gain: the error minus that after a cross-fitted Platt map.

It needs no bins, and it is not biased upwards: of a calibrated detector it is about 0, a little below because the map
is estimated. Platt, "Probabilistic outputs for support vector machines", 1999: p = sigmoid(a logit(s) + b).
"""

from __future__ import annotations

import numpy as np

from det_ls.metrics.table import Floats
from det_ls.metrics.weighted import ratio

_STEPS = 12
_LIMIT = 8.0  # a logit's largest absolute value: scores of 0 and 1 have none
_RIDGE = 1e-3  # as if a few boxes more said "leave the scores as they are"


def cross_fitted_platt(n: Floats, tp: Floats, score: Floats) -> tuple[Floats, Floats]:
    """Fit a Platt map for each fold on all other folds, and measure it on the fold.

    Boxes of a cell of the threshold grid share their mean score, at most 0.01 from their own.

    Args:
        n: (K, T, R) boxes of each fold and cell in R replicates.
        tp: (K, T, R) true positives.
        score: (K, T, R) sums of the scores.

    Returns:
        (R,) Brier score and (R,) mean negative log-likelihood after the map; NaN without boxes.

    Example:
        >>> import numpy as np
        >>> n = np.full((2, 2, 1), 500.0)  # two folds; scores 0.2 and 0.8, right 4 and 6 times in 10
        >>> tp, score = n * np.array([[0.4], [0.6]]), n * np.array([[0.2], [0.8]])
        >>> brier, _ = cross_fitted_platt(n, tp, score)
        >>> round(float(brier[0]), 3)  # that of a calibrated detector, 0.4 * 0.6
        0.24
    """
    total_n, total_tp = n.sum(0), tp.sum(0)
    mean = np.clip(ratio(score.sum(0), total_n), 1e-12, 1 - 1e-12)
    z = np.clip(np.log(np.nan_to_num(mean, nan=0.5)) - np.log1p(-np.nan_to_num(mean, nan=0.5)), -_LIMIT, _LIMIT)
    brier, nll = np.zeros(n.shape[2]), np.zeros(n.shape[2])
    for k in range(len(n)):
        others_n, others_tp = (total_n - n[k], total_tp - tp[k]) if len(n) > 1 else (total_n, total_tp)
        a, b = _fit(z, others_n, others_tp)
        p = _sigmoid(a * z + b)
        brier += (n[k] * p**2 - 2 * p * tp[k] + tp[k]).sum(0)
        q = np.clip(p, 1e-12, 1 - 1e-12)
        nll -= (tp[k] * np.log(q) + (n[k] - tp[k]) * np.log1p(-q)).sum(0)
    count = total_n.sum(0)
    return ratio(brier, count), ratio(nll, count)


def _fit(z: Floats, n: Floats, tp: Floats) -> tuple[Floats, Floats]:
    """Fit a and b of R maps at once by Newton's method: (T, R) logits, boxes and true positives."""
    a, b = np.ones(z.shape[1]), np.zeros(z.shape[1])
    ridge = _RIDGE * np.maximum(n.sum(0), 1.0)
    for _ in range(_STEPS):
        p = _sigmoid(a * z + b)
        error, spread = n * p - tp, n * p * (1 - p)
        ga, gb = (error * z).sum(0) + ridge * (a - 1), error.sum(0) + ridge * b
        haa, hab, hbb = (spread * z * z).sum(0) + ridge, (spread * z).sum(0), spread.sum(0) + ridge
        det = haa * hbb - hab**2
        step_a, step_b = (hbb * ga - hab * gb) / det, (haa * gb - hab * ga) / det
        a, b = a - np.clip(step_a, -1, 1), b - np.clip(step_b, -2, 2)
    return a, b


def _sigmoid(x: Floats) -> Floats:
    return np.asarray(1 / (1 + np.exp(-np.clip(x, -40, 40))))
