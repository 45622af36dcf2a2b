# SPDX-License-Identifier: AGPL-3.0-or-later
"""``label_smoothing_mode=online``: the share goes where the model itself, in the epoch before, put its mass.

Online label smoothing (Zhang et al., "Delving Deep into Label Smoothing", IEEE Transactions on Image Processing, 2021),
with the share epsilon where the paper weights the hard and the learned labels by alpha and 1 - alpha::

    P[c] = (1 - epsilon_c) e_c + epsilon_c S[c]

S[c] is the mean distribution over classes that the model gave rows of class c in the previous epoch, over the rows that
it classified correctly; in the first epoch S is uniform, and a class without such a row keeps its S. As the true class
is the largest entry of each of these distributions, it is the largest of S[c], and of P[c] for every epsilon below 1.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch

from det_ls.base.errors import ArgumentError
from det_ls.smoothing.policy import EpochFacts, Policy, epsilon_columns

if TYPE_CHECKING:
    from torch import Tensor

ONLINE_COLUMN = "label_smoothing_online"


def online_matrix(epsilons: Sequence[float], shares: Tensor, names: Sequence[str]) -> Tensor:
    """Build P from each class's epsilon and where its share goes.

    Args:
        epsilons: K numbers, at least 0 and below 1.
        shares: S of shape (K, K), whose rows sum to 1.
        names: K class names for the error messages.

    Returns:
        P of shape (K, K), float64, whose rows sum to 1.

    Raises:
        ValueError: If there is one class only, or an epsilon is 1 or above.

    Examples:
        >>> online_matrix([0.1, 0.2], torch.tensor([[0.8, 0.2], [0.5, 0.5]], dtype=torch.float64), ["a", "b"])
        tensor([[0.9800, 0.0200],
                [0.1000, 0.9000]], dtype=torch.float64)
    """
    if len(names) < 2:
        raise ArgumentError(
            f"label_smoothing_mode 'online': expected at least 2 classes to learn from each other, got {len(names)};"
            " with one class use label_smoothing_mode 'binary' or 'background'."
        )
    for name, value in zip(names, epsilons, strict=True):
        if value >= 1:
            raise ArgumentError(f"label_smoothing: expected an epsilon below 1 for class {name!r}, got {value:.6g}.")
    eps = torch.tensor(list(epsilons), dtype=torch.float64)
    return torch.diag(1.0 - eps) + eps[:, None] * shares.to(torch.float64)


def uniform_shares(num_classes: int) -> Tensor:
    """Return the S of the first epoch.

    Args:
        num_classes: K.

    Returns:
        (K, K) entries 1 / K, float64.
    """
    return torch.full((num_classes, num_classes), 1.0 / max(1, num_classes), dtype=torch.float64)


class OnlinePolicy(Policy):
    """Learns S from the model's own distributions.

    Attributes:
        shares: S in force, (K, K) float64.

    Examples:
        >>> from det_ls.smoothing.policy import ClassPredictions
        >>> policy = OnlinePolicy(0.1, [0.1, 0.1], ["a", "b"])
        >>> sums = torch.tensor([[1.6, 0.4], [0.0, 0.0]])  # of two rows of class a; none of class b was right
        >>> policy.observe(EpochFacts(0, 3, predicted=ClassPredictions(sums, torch.tensor([2.0, 0.0]))))
        >>> policy.matrix(1, 3)
        tensor([[0.9800, 0.0200],
                [0.0500, 0.9500]], dtype=torch.float64)
    """

    needs_predictions = True

    def __init__(
        self, epsilon: float | str | Mapping[str | int, float], epsilons: Sequence[float], names: Sequence[str]
    ) -> None:
        """Start with a uniform S.

        Args:
            epsilon: The key as it was given, for the log.
            epsilons: The epsilons of the K classes.
            names: The data set's K class names, in index order.
        """
        self._columns = epsilon_columns(epsilon)
        self._epsilons = list(epsilons)
        self._names = list(names)
        self.shares = uniform_shares(len(self._names))

    def matrix(self, epoch: int, epochs: int) -> Tensor:
        """Return the matrix of the S in force."""
        del epoch, epochs
        return online_matrix(self._epsilons, self.shares, self._names)

    def logged(self, epoch: int, epochs: int) -> dict[str, float]:
        """Return epsilon, and how sure of the true class S is: the mean of its diagonal, 1 / K to 1."""
        del epoch, epochs
        return {**self._columns, ONLINE_COLUMN: float(self.shares.diagonal().mean())}

    def observe(self, facts: EpochFacts) -> None:
        """Replace the S of every class of which a row was classified correctly."""
        if facts.predicted is None:
            return
        weights = facts.predicted.weights.to("cpu", torch.float64)
        means = facts.predicted.sums.to("cpu", torch.float64) / weights[:, None]
        learnt = (weights > 0) & torch.isfinite(means).all(1)
        self.shares = torch.where(learnt[:, None], means / means.sum(1, keepdim=True), self.shares)

    def state_dict(self) -> dict[str, Any]:
        """Return S, as K lists of K numbers."""
        return {"shares": self.shares.tolist()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a saved S.

        Raises:
            ValueError: If the state is another policy's, or of other classes.
        """
        if set(state) != {"shares"}:
            raise ArgumentError(f"state: expected shares for {type(self).__name__}, got {', '.join(map(str, state))}.")
        shares = torch.tensor(state["shares"], dtype=torch.float64)
        if shares.shape != self.shares.shape:
            k = len(self._names)
            raise ArgumentError(f"state: expected shares of {k} x {k} classes, got shape {tuple(shares.shape)}.")
        self.shares = shares
