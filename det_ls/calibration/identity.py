# SPDX-License-Identifier: AGPL-3.0-or-later
"""Pull a fitted map towards the identity, as far as the data cannot tell the two apart.

A detector may be calibrated already. A map that is fitted to it is then the identity and noise, and does harm. Let the
fit be x away from the identity, with covariance V. Its Wald statistic W = x' V^-1 x is about p (the number of
parameters) in the mean if the truth is the identity, and p (1 + s) if the truth is drawn around it with covariance s V.
So s, found by moments, and the best shrinkage s / (1 + s) give the map max(0, 1 - p / W) of its distance: an empirical
Bayes rule of the family of Efron and Morris (1973). It is not that of James and Stein, whose factor 1 - (p - 2) / W
does nothing for the p = 1 and 2 of a temperature and of Platt scaling; no rule betters the fit everywhere there.

The price, for a normal estimate whose truth is d standard errors from the identity, is the expected squared error as
a multiple of the plain fit's:

    d           0     1     2     3     4     6    10
    p = 2     0.22  0.55  1.05  1.19  1.14  1.06  1.02
    p = 1     0.33  0.86  1.45  1.42  1.24  1.09  1.03

With more data a wrong identity is left behind, since W grows with them. Of few images (15, 30) W is too large, as the
covariance is known badly, and the map is pulled less than it should be.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from det_ls.calibration.maps import Floats

if TYPE_CHECKING:
    from det_ls.calibration.fit import LogisticFit
    from det_ls.calibration.pooling import PooledFit


def identity(d: int) -> Floats:
    """Give the parameters of the map that changes nothing: a = 1 and, where there is an offset, b' = 0."""
    return np.eye(d)[0]


def pulled(theta: Floats, share: Floats | float) -> Floats:
    """Pull parameters towards those of the identity.

    Args:
        theta: (..., D) fitted parameters.
        share: (...) how much of their distance from the identity they keep, in [0, 1].

    Returns:
        (..., D) parameters; those that were given, to the last bit, where the share is 1.
    """
    kept = np.asarray(share, np.float64)[..., None]
    return np.asarray(kept * theta + (1.0 - kept) * identity(theta.shape[-1]), np.float64)


def kept_share(statistic: Floats, parameters: Floats | float) -> Floats:
    """Say how much of its distance from the identity a map keeps: max(0, 1 - p / W).

    Args:
        statistic: Wald statistics W of at least 0.
        parameters: Parameters p that each is of.

    Returns:
        Shares in [0, 1), of the same shape.

    Example:
        >>> kept_share(np.array([1.0, 4.0, 200.0]), 2.0).tolist()
        [0.0, 0.5, 0.99]
    """
    w = np.asarray(statistic, np.float64)
    return np.maximum(0.0, 1.0 - np.divide(parameters, w, out=np.full(w.shape, np.inf), where=w > 0))


def shared_share(fit: LogisticFit) -> float:
    """Say how much of its distance from the identity the shared map keeps.

    Args:
        fit: The shared fit. Where its robust covariance cannot be told, that of independent binary targets is taken.

    Returns:
        The share, in [0, 1).
    """
    away = fit.theta[0] - identity(fit.theta.shape[1])
    covariance = fit.covariance[0]
    told = np.isfinite(covariance).all() and np.linalg.cond(covariance) < 1e12
    precision = np.linalg.inv(covariance) if told else fit.information[0]
    return float(kept_share(away @ precision @ away, len(away)))


def class_shares(pooled: PooledFit) -> Floats:
    """Say how much of its distance from the identity each class's map keeps.

    That is what its own data tell, or those of all classes together, whichever is more: a class of few boxes takes
    part in what the others show. All classes together have as many parameters as their data decide, the trace of what
    they know times what is left uncertain (the effective number of Spiegelhalter et al. 2002).

    Args:
        pooled: The fits by class.

    Returns:
        (K,) shares in [0, 1).
    """
    away = np.concatenate([np.log(pooled.theta[:, :1]), pooled.theta[:, 1:]], 1)  # the identity is 0 here
    told = np.einsum("ki,kij,kj->", away, pooled.known, away)
    decided = np.einsum("kij,kji->", pooled.known, pooled.covariance)
    alone = np.einsum("ki,kij,kj->k", away, np.linalg.inv(pooled.covariance), away)
    return np.maximum(kept_share(alone, away.shape[1]), kept_share(told, decided))
