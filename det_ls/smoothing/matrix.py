# SPDX-License-Identifier: AGPL-3.0-or-later
"""The maths of label smoothing for soft detection targets: one matrix, applied to rows.

A foreground anchor matched to an object of class c has the assigner's soft score s (0 <= s <= 1) at c and zeros
elsewhere; a background anchor has a row of zeros. Smoothing is a matrix P of shape (K, K) applied to rows,
``t' = t P``: background stays zero because the map is linear, and a foreground row becomes ``s * P[c]``.
"""

from __future__ import annotations

import math
import numbers
import warnings
from collections.abc import Sequence

import torch
from torch import Tensor

from det_ls.base.arguments import shown
from det_ls.base.errors import ArgumentError, ArgumentTypeError

MODES = ("redistribute", "uniform", "binary", "background")
ONE_CLASS_MODES = ("binary", "background")
BINARY_WARNING_ABOVE = 20  # classes; with more, `binary` raises each row's mass noticeably

Similarity = Tensor | Sequence[Sequence[float]]


def smoothing_matrix(
    num_classes: int,
    epsilon: float | Sequence[float] | Tensor,
    mode: str = "redistribute",
    similarity: Similarity | None = None,
    *,
    class_names: Sequence[str] | None = None,
    dtype: torch.dtype = torch.float64,
) -> Tensor:
    """Build the smoothing matrix P: row c says where the target mass of class c goes.

    ======================  =========================  ===================  =================================
    mode                    P[c, c]                    P[c, k]              convention of
    ======================  =========================  ===================  =================================
    ``redistribute``        1 - eps                    eps / (K - 1)        fairseq, tensor2tensor
    ``uniform``             1 - eps + eps / K          eps / K              Szegedy et al. 2016 (eq. 6), torch
    ``binary``              1 - eps / 2                eps / 2              darknet and YOLOv5, per class
    ``background``          1 - eps                    0                    the share goes to "no object"
    ======================  =========================  ===================  =================================

    With a ``similarity`` table S (``redistribute`` only), ``P[c, k] = eps * S[c, k] / sum_{j != c} S[c, j]``.
    Rows of ``redistribute`` (with or without a table) and ``uniform`` sum to one. With ``binary`` a row's mass is
    ``1 + (K - 2) * eps / 2``, with ``background`` it is ``1 - eps``.

    Args:
        num_classes: K, at least 1; one class allows only the modes ``binary`` and ``background``.
        epsilon: The share of mass taken from the true class, one number or one for each class. At least 0 and below
            ``(K - 1) / K`` with ``redistribute``, below ``1 / (1 + m)`` with a table (m the largest entry of the
            class's normalised row), below 1 otherwise, so that the true class keeps the largest target.
        mode: One of the four modes above.
        similarity: (K, K) non-negative numbers; the diagonal is ignored, and a row of zeros is spread evenly.
        class_names: K names for the error messages; indices are used without them.
        dtype: Floating dtype of the result; the entries are computed in float64.

    Returns:
        P of shape (K, K), on the CPU.

    Raises:
        TypeError: If an epsilon is not a real number.
        ValueError: If an argument is out of its range.

    Examples:
        >>> smoothing_matrix(3, 0.1)[0]
        tensor([0.9000, 0.0500, 0.0500], dtype=torch.float64)
        >>> smoothing_matrix(3, 0.3, mode="uniform")[1]
        tensor([0.1000, 0.8000, 0.1000], dtype=torch.float64)
        >>> smoothing_matrix(2, [0.0, 0.2], mode="background")
        tensor([[1.0000, 0.0000],
                [0.0000, 0.8000]], dtype=torch.float64)
    """
    k, eps, names = _checked(num_classes, epsilon, mode, class_names)
    if similarity is not None:
        if mode != "redistribute":
            raise ArgumentError(
                f"label_smoothing_similarity: expected label_smoothing_mode 'redistribute' with a table, got {mode!r}."
            )
        _refuse_one_class(k, "label_smoothing_similarity")
        share = _similarity_shares(similarity, k)
        _check_bounds(eps, 1.0 / (1.0 + share.amax(1)), names)
        return (torch.diag(1.0 - eps) + eps[:, None] * share).to(dtype)
    diagonal, rest = _diagonal_and_rest(k, eps, mode, names)
    off_diagonal = 1.0 - torch.eye(k, dtype=torch.float64)
    return (torch.diag(diagonal) + off_diagonal * rest[:, None]).to(dtype)


def smoothing_rows(
    num_classes: int,
    epsilon: float | Sequence[float] | Tensor,
    mode: str = "redistribute",
    *,
    class_names: Sequence[str] | None = None,
) -> tuple[Tensor, Tensor]:
    """Give the smoothing matrix P without a similarity table by 2 K numbers, for vocabularies whose P fits nowhere.

    Args:
        num_classes: As in :func:`smoothing_matrix`.
        epsilon: As in :func:`smoothing_matrix`.
        mode: As in :func:`smoothing_matrix`.
        class_names: As in :func:`smoothing_matrix`.

    Returns:
        The diagonal of P, and the entry that a row has everywhere else; both float64 of shape (K,), on the CPU.

    Raises:
        TypeError: If an epsilon is not a real number.
        ValueError: If an argument is out of its range.

    Examples:
        >>> smoothing_rows(3, 0.1)
        (tensor([0.9000, 0.9000, 0.9000], dtype=torch.float64), tensor([0.0500, 0.0500, 0.0500], dtype=torch.float64))
    """
    k, eps, names = _checked(num_classes, epsilon, mode, class_names)
    return _diagonal_and_rest(k, eps, mode, names)


def _checked(
    num_classes: int, epsilon: float | Sequence[float] | Tensor, mode: str, class_names: Sequence[str] | None
) -> tuple[int, Tensor, list[str]]:
    """Check what every form of P needs: K, the epsilons of the K classes, and their names."""
    if isinstance(num_classes, bool) or not isinstance(num_classes, numbers.Integral) or num_classes < 1:
        raise ArgumentError(f"num_classes: expected an integer of at least 1, got {num_classes!r}.")
    if mode not in MODES:
        raise ArgumentError(f"label_smoothing_mode: expected one of {', '.join(MODES)}, got {mode!r}.")
    k = int(num_classes)
    names = [str(i) for i in range(k)] if class_names is None else list(class_names)
    return k, torch.tensor(_epsilons(epsilon, k, names), dtype=torch.float64), names


def _diagonal_and_rest(k: int, eps: Tensor, mode: str, names: Sequence[str]) -> tuple[Tensor, Tensor]:
    """Compute the diagonal of P and what each row has elsewhere, for the modes without a table."""
    if mode == "redistribute":
        _refuse_one_class(k, "label_smoothing_mode 'redistribute'")
        _check_bounds(eps, torch.full((k,), (k - 1) / k, dtype=torch.float64), names)
        return 1.0 - eps, eps / (k - 1)
    _check_bounds(eps, torch.ones(k, dtype=torch.float64), names)
    if mode == "uniform":
        _refuse_one_class(k, "label_smoothing_mode 'uniform'")
        return 1.0 - eps + eps / k, eps / k
    if mode == "binary":
        if k > BINARY_WARNING_ABOVE and bool((eps > 0).any()):
            warnings.warn(
                f"label_smoothing_mode 'binary' with {k} classes multiplies a foreground row's mass by "
                f"1 + {(k - 2) / 2:g} epsilon; 'redistribute' and 'uniform' keep it.",  # the same for every epoch
                stacklevel=3,
            )
        return 1.0 - eps / 2, eps / 2
    return 1.0 - eps, torch.zeros_like(eps)


def smooth_targets(
    targets: Tensor,
    epsilon: float | Sequence[float] | Tensor,
    mode: str = "redistribute",
    similarity: Similarity | None = None,
) -> Tensor:
    """Smooth classification targets: ``targets @ smoothing_matrix(K, epsilon, mode, similarity)``.

    Args:
        targets: Targets of shape (..., K), one-hot or soft (one-hot times the assigner's score), 0 on background rows.
        epsilon: As in :func:`smoothing_matrix`.
        mode: As in :func:`smoothing_matrix`.
        similarity: As in :func:`smoothing_matrix`.

    Returns:
        Smoothed targets of the same shape, dtype and device; rows of zeros stay rows of zeros.

    Raises:
        TypeError: If the targets are not floating point, or an epsilon is not a real number.
        ValueError: If an argument is out of its range.

    Examples:
        >>> smooth_targets(torch.tensor([1.0, 0.0, 0.0]), 0.1)
        tensor([0.9000, 0.0500, 0.0500])
        >>> smooth_targets(torch.tensor([[0.0, 0.8], [0.0, 0.0]]), 0.25)
        tensor([[0.2000, 0.6000],
                [0.0000, 0.0000]])
    """
    if not isinstance(targets, Tensor) or not targets.is_floating_point():
        got = f"dtype {targets.dtype}" if isinstance(targets, Tensor) else type(targets).__name__
        raise ArgumentTypeError(f"targets: expected a floating-point tensor of shape (..., K), got {got}.")
    if targets.ndim == 0:
        raise ArgumentError("targets: expected a tensor of shape (..., K), got a scalar.")
    matrix = smoothing_matrix(targets.shape[-1], epsilon, mode, similarity)
    return apply_smoothing(targets, matrix)


def apply_smoothing(targets: Tensor, matrix: Tensor) -> Tensor:
    """Multiply target rows by a smoothing matrix in the targets' own dtype, also under autocast.

    Args:
        targets: Targets of shape (..., K).
        matrix: The smoothing matrix of shape (K, K).

    Returns:
        ``targets @ matrix``, with the targets' dtype.
    """
    with torch.autocast(targets.device.type, enabled=False):
        return targets @ matrix.to(targets)


def _epsilons(epsilon: float | Sequence[float] | Tensor, k: int, names: Sequence[str]) -> list[float]:
    """Spread epsilon to K finite, non-negative floats."""
    if hasattr(epsilon, "tolist"):  # a tensor or an array
        epsilon = epsilon.tolist()
    values = list(epsilon) if isinstance(epsilon, Sequence) and not isinstance(epsilon, str) else [epsilon] * k
    if len(values) != k:
        raise ArgumentError(f"epsilon: expected one number or {k} of them, one for each class, got {len(values)}.")
    for name, value in zip(names, values, strict=True):
        check_epsilon(value, f"epsilon of class {name!r}")
    return [float(v) for v in values]


def check_epsilon(value: object, what: str) -> None:
    """Raise unless a value is a finite real number of at least 0.

    Args:
        value: The value to check; a bool or a string is not a number here.
        what: How the error names it.

    Raises:
        TypeError: If it is not a real number.
        ValueError: If it is negative or not finite.
    """
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        hint = " (YAML reads 1e-1 as a string: write 0.1)" if isinstance(value, str) else ""
        raise ArgumentTypeError(
            f"{what}: expected a number of at least 0, got {type(value).__name__} {shown(value)}{hint}."
        )
    try:
        fits = 0 <= float(value) < math.inf
    except OverflowError:  # an integer of 400 digits
        fits = False
    if not fits:
        raise ArgumentError(f"{what}: expected a number of at least 0, got {shown(value)}.")


def _check_bounds(eps: Tensor, bounds: Tensor, names: Sequence[str]) -> None:
    """Raise if a class's epsilon would leave another class with as large a target as the true one."""
    for name, value, bound in zip(names, eps.tolist(), bounds.tolist(), strict=True):
        if value > 0 and value >= bound:
            raise ArgumentError(
                f"label_smoothing: expected an epsilon below {bound:.6g} for class {name!r} "
                f"so that the true class keeps the largest target, got {value:.6g}."
            )


def _refuse_one_class(k: int, what: str) -> None:
    """Raise if there is no other class to move mass to."""
    if k == 1:
        raise ArgumentError(
            f"{what}: expected at least 2 classes to move target mass between, got 1; "
            "with one class use label_smoothing_mode 'binary' or 'background'."
        )


def _similarity_shares(similarity: Similarity, k: int) -> Tensor:
    """Normalise the off-diagonal rows of a similarity table; a row of zeros becomes even."""
    try:
        table = torch.as_tensor(similarity, dtype=torch.float64, device="cpu").clone()
    except (TypeError, ValueError, RuntimeError):
        raise ArgumentTypeError(
            f"label_smoothing_similarity: expected a table of {k} x {k} numbers, got {similarity!r}."
        ) from None
    if table.shape != (k, k):
        raise ArgumentError(
            f"label_smoothing_similarity: expected a table of {k} x {k} numbers, got shape {tuple(table.shape)}."
        )
    table.fill_diagonal_(0.0)
    if not bool(torch.isfinite(table).all()) or bool((table < 0).any()):
        raise ArgumentError(
            "label_smoothing_similarity: expected finite, non-negative entries, got NaN, inf or below 0."
        )
    even = (1.0 - torch.eye(k, dtype=torch.float64)) / (k - 1)
    largest = table.amax(1, keepdim=True)
    scaled = torch.where(largest > 0, table / largest.clamp_min(torch.finfo(torch.float64).tiny), even)
    return scaled / scaled.sum(1, keepdim=True)
