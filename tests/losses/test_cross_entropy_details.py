# SPDX-License-Identifier: AGPL-3.0-or-later
"""What mutation testing found that no other test would notice (docs/mutation_testing.md); torch is the oracle."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from det_ls import smoothed_cross_entropy, smoothing_matrix
from det_ls.losses import cross_entropy
from det_ls.losses.cross_entropy import cross_entropy_with_matrix

REDUCTIONS = ("mean", "sum", "none")


def logits_of(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("weighted", [False, True])
def test_soft_labels_with_the_classes_second_are_torchs(reduction, weighted):
    logits, soft = logits_of(4, 3, 5, 2), logits_of(4, 3, 5, 2, seed=1).softmax(1)
    weight = torch.tensor([0.5, 1.0, 2.0]) if weighted else None  # single precision, as a config gives them
    expected = F.cross_entropy(
        logits, soft, weight=None if weight is None else weight.double(), reduction=reduction, label_smoothing=0.1
    )
    found = smoothed_cross_entropy(logits, soft, 0.1, mode="uniform", weight=weight, reduction=reduction, dim=1)
    torch.testing.assert_close(found, expected)
    last = smoothed_cross_entropy(
        logits.movedim(1, -1), soft.movedim(1, -1), 0.1, mode="uniform", weight=weight, reduction=reduction, dim=-1
    )
    torch.testing.assert_close(last, expected)


@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_a_grid_of_class_indices_is_torchs(reduction):
    logits = logits_of(4, 3, 5, 2)
    labels = torch.randint(0, 3, (4, 5, 2), generator=torch.Generator().manual_seed(2))
    labels[0, 0, 0] = -100
    expected = F.cross_entropy(logits, labels, reduction=reduction, label_smoothing=0.1)
    found = smoothed_cross_entropy(logits, labels, 0.1, mode="uniform", reduction=reduction)
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("similarity", [None, [[0, 1, 2], [1, 0, 0], [0, 0, 0]]])
def test_half_precision_is_computed_in_single(similarity):
    logits = logits_of(6, 3).to(torch.bfloat16)
    soft, index = logits_of(6, 3, seed=1).softmax(1).to(torch.bfloat16), torch.arange(6) % 3
    for labels in (soft, index):
        found = smoothed_cross_entropy(logits, labels, 0.2, similarity=similarity)
        precise = labels.float() if labels is soft else labels
        torch.testing.assert_close(found, smoothed_cross_entropy(logits.float(), precise, 0.2, similarity=similarity))
        assert found.dtype == torch.float32


@pytest.mark.parametrize("piece", [1, 7, 12])
def test_many_rows_are_worked_on_in_pieces(piece, monkeypatch):
    logits, labels = logits_of(11, 4).requires_grad_(), torch.arange(11) % 4
    whole = smoothed_cross_entropy(logits, labels, 0.1, reduction="none")
    (expected,) = torch.autograd.grad(whole.sum(), logits)
    monkeypatch.setattr(cross_entropy, "PIECE", piece)
    sizes = [len(logits[part]) for part in cross_entropy._pieces(logits)]
    assert sizes == [max(1, piece // 4)] * (11 // max(1, piece // 4)) + [11 % max(1, piece // 4)] * (
        11 % max(1, piece // 4) > 0
    )
    pieces = smoothed_cross_entropy(logits, labels, 0.1, reduction="none")
    torch.testing.assert_close(pieces, whole)
    torch.testing.assert_close(torch.autograd.grad(pieces.sum(), logits)[0], expected)


def test_the_rows_of_a_matrix_are_soft_targets_of_torchs():
    logits, labels, matrix = logits_of(7, 3).requires_grad_(), torch.arange(7) % 3, smoothing_matrix(3, [0, 0.1, 0.3])
    expected = F.cross_entropy(logits, matrix[labels])
    found = cross_entropy_with_matrix(logits, labels, matrix)
    torch.testing.assert_close(found, expected)
    gradients = [torch.autograd.grad(loss, logits, retain_graph=True)[0] for loss in (found, expected)]
    torch.testing.assert_close(*gradients)
    half = cross_entropy_with_matrix(logits.detach().half(), labels, matrix)
    assert half.dtype == torch.float32
    torch.testing.assert_close(half, cross_entropy_with_matrix(logits.detach().half().float(), labels, matrix))


def test_a_given_class_dimension_is_kept_to():
    logits, labels = logits_of(2, 3, 4), torch.zeros(2, 4, dtype=torch.long)  # fits with the classes second only
    smoothed_cross_entropy(logits, labels, 0.1, dim=1)
    with pytest.raises(ValueError, match="labels: expected a shape that fits logits"):
        smoothed_cross_entropy(logits, labels, 0.1, dim=-1)
    for dim in (0, 2, -2):
        with pytest.raises(ValueError, match=f"^dim: expected -1, 1 or None, got {dim}\\.$"):
            smoothed_cross_entropy(logits, labels, 0.1, dim=dim)


LOGITS_MESSAGE = "logits: expected a floating-point tensor of shape (N, K), (N, ..., K) or (N, K, ...)."
LABELS_MESSAGE = "labels: expected a tensor of class indices or of soft labels."


@pytest.mark.parametrize(
    ("logits", "labels", "keys", "message"),
    [
        ([[1.0]], torch.tensor([0]), {}, LOGITS_MESSAGE),
        (torch.ones(2, 3, dtype=torch.long), torch.tensor([0, 1]), {}, LOGITS_MESSAGE),
        (torch.ones(3), torch.tensor(0), {}, LOGITS_MESSAGE),
        (torch.ones(2, 3), [0, 1], {}, LABELS_MESSAGE),
        (torch.ones(2, 3), torch.tensor([True, False]), {}, LABELS_MESSAGE),
        (torch.ones(2, 3), torch.ones(2, 3, dtype=torch.complex64), {}, LABELS_MESSAGE),
        (
            torch.ones(2, 3),
            torch.tensor([0, 1]),
            {"reduction": "max"},
            "reduction: expected mean, sum or none, got 'max'.",
        ),
        (
            torch.ones(2, 3),
            torch.tensor([0, 1]),
            {"weight": torch.ones(2)},
            "weight: expected 3 numbers, one a class, got shape (2,).",
        ),
    ],
)
def test_a_refusal_says_exactly_this(logits, labels, keys, message):
    with pytest.raises((TypeError, ValueError)) as refused:
        smoothed_cross_entropy(logits, labels, 0.1, **keys)
    assert str(refused.value) == message
