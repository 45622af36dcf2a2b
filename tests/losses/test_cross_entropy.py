# SPDX-License-Identifier: AGPL-3.0-or-later
"""Smoothed cross-entropy is torch's for ``uniform``, fairseq's for ``redistribute``, and a dense sum for all else."""

from __future__ import annotations

import pytest
import torch
from torch.nn.functional import cross_entropy, log_softmax, one_hot

from det_ls import smoothing_matrix
from det_ls.losses.cross_entropy import smoothed_cross_entropy

K = 5


@pytest.fixture
def rows() -> tuple[torch.Tensor, torch.Tensor]:
    torch.manual_seed(0)
    return torch.randn(40, K, dtype=torch.float64, requires_grad=True), torch.randint(K, (40,))


def gradient(loss: torch.Tensor, logits: torch.Tensor) -> torch.Tensor:
    return torch.autograd.grad(loss, logits, retain_graph=True)[0]


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("epsilon", [0.0, 0.1, 0.7])
def test_uniform_is_torchs_label_smoothing(rows, reduction, weighted, epsilon):
    logits, labels = rows
    labels = labels.clone()
    labels[::7] = -100
    weight = torch.linspace(0.2, 2.0, K, dtype=torch.float64) if weighted else None
    ours = smoothed_cross_entropy(logits, labels, epsilon, "uniform", weight=weight, reduction=reduction)
    torchs = cross_entropy(logits, labels, weight, label_smoothing=epsilon, reduction=reduction)
    torch.testing.assert_close(ours, torchs)
    torch.testing.assert_close(gradient(ours.sum(), logits), gradient(torchs.sum(), logits))


def fairseq(logits: torch.Tensor, labels: torch.Tensor, epsilon: float) -> torch.Tensor:
    """As published: (1 - eps - eps_i) nll + eps_i * smooth, eps_i = eps / (K - 1), where smooth sums over all classes."""
    log_p = log_softmax(logits, 1)
    nll, smooth = -log_p.gather(1, labels[:, None]).squeeze(1), -log_p.sum(1)
    share = epsilon / (logits.shape[1] - 1)
    return ((1 - epsilon - share) * nll + share * smooth).sum()


def test_redistribute_is_fairseqs_definition(rows):
    logits, labels = rows
    ours, theirs = smoothed_cross_entropy(logits, labels, 0.3, reduction="sum"), fairseq(logits, labels, 0.3)
    torch.testing.assert_close(ours, theirs)
    torch.testing.assert_close(gradient(ours, logits), gradient(theirs, logits))


@pytest.mark.parametrize(
    ("epsilon", "mode", "table"),
    [
        (0.2, "binary", False),
        (0.4, "background", False),
        ([0.0, 0.1, 0.2, 0.3, 0.4], "redistribute", False),
        (0.2, "redistribute", True),
    ],
)
def test_every_mode_is_the_dense_sum_over_the_smoothing_matrix(rows, epsilon, mode, table):
    logits, labels = rows
    similarity = torch.rand(K, K, dtype=torch.float64) if table else None
    weight = torch.linspace(0.5, 1.5, K, dtype=torch.float64)
    dense = one_hot(labels, K).double() @ smoothing_matrix(K, epsilon, mode, similarity)
    expected = -(dense * weight * log_softmax(logits, 1)).sum() / weight[labels].sum()
    for given in (labels, one_hot(labels, K).double()):
        ours = smoothed_cross_entropy(logits, given, epsilon, mode, similarity, weight=weight, reduction="sum")
        torch.testing.assert_close(ours / weight[labels].sum(), expected)
        torch.testing.assert_close(gradient(ours, logits) / weight[labels].sum(), gradient(expected, logits))
    torch.testing.assert_close(
        smoothed_cross_entropy(logits, labels, epsilon, mode, similarity, weight=weight), expected
    )


def test_the_class_dimension_may_be_last_or_torchs_second(rows):
    logits, labels = rows
    expected = smoothed_cross_entropy(logits, labels, 0.1)
    last, sequence = logits.reshape(4, 10, K), labels.reshape(4, 10)
    torch.testing.assert_close(smoothed_cross_entropy(last, sequence, 0.1), expected)
    torch.testing.assert_close(smoothed_cross_entropy(last.movedim(-1, 1), sequence, 0.1), expected)
    none = smoothed_cross_entropy(last.movedim(-1, 1), sequence, 0.1, reduction="none")
    assert none.shape == sequence.shape
    with pytest.raises(
        ValueError, match=r"^dim: expected -1 or 1 for logits of shape \(4, 5, 5\), which fit both ways"
    ):
        smoothed_cross_entropy(torch.zeros(4, K, K), torch.zeros(4, K, dtype=torch.int64), 0.1)


def test_masked_logits_do_not_spoil_plain_cross_entropy():
    logits = torch.tensor([[1.0, 2.0, -torch.inf]], requires_grad=True)
    loss = smoothed_cross_entropy(logits, torch.tensor([1]), 0.0)
    assert loss.item() == pytest.approx(cross_entropy(logits, torch.tensor([1])).item())
    assert gradient(loss, logits).isfinite().all()


def test_half_precision_is_computed_in_float32(rows):
    logits, labels = rows
    half = logits.detach().bfloat16().requires_grad_()
    loss = smoothed_cross_entropy(half, labels, 0.1)
    assert loss.dtype == torch.float32
    torch.testing.assert_close(loss, smoothed_cross_entropy(half.float(), labels, 0.1))
    assert gradient(loss, half).dtype == torch.bfloat16


def test_a_large_vocabulary_needs_no_matrix():
    logits = torch.randn(3, 200_000, requires_grad=True)  # P would take 320 GB
    loss = smoothed_cross_entropy(logits, torch.tensor([0, 199_999, -100]), 0.1)
    torch.testing.assert_close(loss, fairseq(logits[:2], torch.tensor([0, 199_999]), 0.1) / 2)


@pytest.mark.parametrize(
    ("labels", "words"),
    [
        (torch.tensor([0, 3]), r"^labels: expected class indices from 0 to 2 or -100, got 3\.$"),
        (torch.tensor([0, -1]), r"^labels: expected class indices from 0 to 2 or -100, got -1\.$"),
        (torch.tensor([0, 1, 2]), r"^labels: expected a shape that fits logits of shape \(2, 3\), got \(3,\)\.$"),
    ],
)
def test_wrong_labels_are_refused_in_a_sentence(labels, words):
    with pytest.raises(ValueError, match=words):
        smoothed_cross_entropy(torch.zeros(2, 3), labels, 0.1)
