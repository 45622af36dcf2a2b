# SPDX-License-Identifier: AGPL-3.0-or-later
"""From a model's classes and the keys to the smoothing matrix that a criterion starts with."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from det_ls.smoothing.request import Request
from det_ls.smoothing.settings import ordered_names


def model_class_names(model: nn.Module) -> list[str]:
    """Return a model's class names, by index.

    Args:
        model: A model that detects or classifies.

    Returns:
        One name for each class of its head; indices where the model has no fitting names.
    """
    head: Any = model.model[-1]  # type: ignore[index]
    num_classes = int(head.nc if hasattr(head, "nc") else head.linear.out_features)  # the latter when classifying
    names = ordered_names(getattr(model, "names", None) or {})
    return names if len(names) == num_classes else [str(i) for i in range(num_classes)]


def first_matrix(model: nn.Module, keys: Mapping[str, Any]) -> Tensor:
    """Build the smoothing matrix of a run's first epoch for a model's classes.

    Args:
        model: A model that detects or classifies.
        keys: The label-smoothing keys; nothing else.

    Returns:
        P of shape (K, K); the identity without smoothing.

    Raises:
        TypeError: If a key is unknown or has the wrong type.
        ValueError: If a key's value does not fit the model's classes.
    """
    names = model_class_names(model)
    request = Request.of_keys(keys)
    request.check_epsilon()
    policy = request.policy(names)
    return torch.eye(len(names), dtype=torch.float64) if policy is None else policy.matrix(0, 1)
