# SPDX-License-Identifier: AGPL-3.0-or-later
"""``label_smoothing=adaptive``: epsilon follows the over-confidence of the kept boxes on images held out of training.

Integral control. After each epoch of the second half of a run the trainer measures the gap g, mean score minus
precision of the kept boxes on the held-out slice, and::

    epsilon <- clip(epsilon + 5 g / N, 0, upper),   N the number of epochs in the second half

The gain: an over-confidence of 0.1 that does not react at all moves epsilon by 0.5 within the half. Where a step of
epsilon moves the gap by -c, that is a loop of time constant N / (5 c) epochs: with c = 0.55, which is about what
``background`` and ``redistribute`` showed on over-fitted detectors, 0.36 N, so that 94% of a gap that stands at half
time is gone at the end. A detector that answers with a lag of up to a fifth of the half leaves the loop damped (damping
ratio 1 / (2 sqrt(5 c lag / N)) = 0.67). What is integrated is epsilon itself, clipped in each step: nothing winds up at
a bound. A run starts at epsilon 0, and its first half is stock training: early scores say nothing of how the run will
end, and a detector that never becomes over-confident is never smoothed.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from det_ls.base.errors import ArgumentError
from det_ls.smoothing.policy import EpochFacts, Policy

if TYPE_CHECKING:
    from torch import Tensor

ADAPTIVE_MODES = ("background", "redistribute")
TRAVEL = 5.0  # of epsilon within the half, for each unit of a gap that does not react
LARGEST, OF_BOUND = 0.5, 0.9  # epsilon stays below both: 0.5, and this share of what the mode takes


def largest_epsilon(mode: str, num_classes: int) -> float:
    """Return the epsilon that steering stops at.

    Args:
        mode: ``background`` or ``redistribute``.
        num_classes: K.

    Returns:
        ``min(0.5, 0.9 b)``, b being 1 or, with ``redistribute``, (K - 1) / K.

    Examples:
        >>> largest_epsilon("background", 2), largest_epsilon("redistribute", 2), largest_epsilon("redistribute", 80)
        (0.5, 0.45, 0.5)
    """
    bound = (num_classes - 1) / num_classes if mode == "redistribute" else 1.0
    return min(LARGEST, OF_BOUND * bound)


def kept_gap(scores: Tensor, correct: Tensor, objects: int) -> float | None:
    """Compute mean score minus precision of the highest-scoring boxes, as many as there are objects.

    Args:
        scores: (n,) scores of the boxes of all images, in [0, 1].
        correct: (n,) whether each is a true positive at IoU 0.5.
        objects: The number of objects in the images.

    Returns:
        The gap in [-1, 1], above 0 for over-confidence; None without a box or an object. Boxes that score the same
        count in the order in which they are given.

    Examples:
        >>> import torch
        >>> kept_gap(torch.tensor([0.2, 0.9, 0.7]), torch.tensor([True, True, False]), objects=2)
        0.3
    """
    if objects < 1 or not len(scores):
        return None
    kept = scores.double().argsort(descending=True, stable=True)[:objects]
    return round(float(scores[kept].double().mean() - correct[kept].double().mean()), 6)


class AdaptivePolicy(Policy):
    """Steers one epsilon of all classes by the gap.

    Examples:
        >>> policy = AdaptivePolicy("background", ["negative", "positive"])
        >>> policy.observe(EpochFacts(epoch=5, epochs=10, gap=0.1))  # five epochs in the second half
        >>> policy.logged(6, 10)
        {'label_smoothing': 0.1}
        >>> policy.matrix(6, 10).diagonal()
        tensor([0.9000, 0.9000], dtype=torch.float64)
    """

    needs_gap = True

    def __init__(self, mode: str, names: Sequence[str]) -> None:
        """Start at epsilon 0.

        Args:
            mode: ``background`` or ``redistribute``.
            names: The data set's K class names, in index order.
        """
        self._mode = mode
        self._names = list(names)
        self._upper = largest_epsilon(mode, len(self._names))
        self.epsilon = 0.0

    def matrix(self, epoch: int, epochs: int) -> Tensor:
        """Return the matrix of the epsilon in force."""
        from det_ls.smoothing.matrix import smoothing_matrix

        del epoch, epochs
        return smoothing_matrix(len(self._names), self.epsilon, self._mode, class_names=self._names)

    def logged(self, epoch: int, epochs: int) -> dict[str, float]:
        """Return one column ``label_smoothing``; the trainer adds the gap, as it was measured."""
        del epoch, epochs
        return {"label_smoothing": self.epsilon}

    def wants_gap(self, epoch: int, epochs: int) -> bool:
        """Ask for it in the second half: of E epochs the last E - E // 2."""
        return epoch >= epochs // 2

    def observe(self, facts: EpochFacts) -> None:
        """Take a step; without a gap, or with one that is not a number, epsilon stays."""
        if facts.gap is None or not math.isfinite(facts.gap):
            return
        steps = max(1, facts.epochs - facts.epochs // 2)
        self.epsilon = min(max(self.epsilon + TRAVEL / steps * facts.gap, 0.0), self._upper)

    def state_dict(self) -> dict[str, Any]:
        """Return epsilon."""
        return {"epsilon": self.epsilon}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a saved epsilon.

        Raises:
            ValueError: If the state is another policy's.
        """
        if set(state) != {"epsilon"}:
            got = ", ".join(map(str, state))
            raise ArgumentError(f"state: expected an epsilon for {type(self).__name__}, got {got}.")
        self.epsilon = float(state["epsilon"])
