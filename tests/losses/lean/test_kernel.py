# SPDX-License-Identifier: AGPL-3.0-or-later
"""The sparse-target BCE sum equals PyTorch's dense one, in value and gradient."""

from __future__ import annotations

import pytest
import torch
from precision import ulps
from torch.nn.functional import binary_cross_entropy_with_logits, softplus

from det_ls.losses.lean.kernel import foreground_bce_sum

TOLERANCE = {torch.float32: 1e-5, torch.float64: 1e-12}


def problem(shape=(3, 5, 37), rows=11, dtype=torch.float32, spread=2.0, shift=-3.0, seed=0):
    """Return logits (B, K, A), foreground rows' images and anchors, and their targets (N, K)."""
    generator = torch.Generator().manual_seed(seed)
    b, k, a = shape
    logits = (torch.randn(shape, generator=generator, dtype=torch.float64) * spread + shift).to(dtype)
    places = torch.randperm(b * a, generator=generator)[:rows]
    wide = torch.promote_types(dtype, torch.float32)
    targets = torch.rand(rows, k, generator=generator, dtype=torch.float64).to(wide)
    return logits, places // a, places % a, targets


def torch_reference(logits, image, anchor, targets, weights=None, scale=1.0):
    """Compute loss and gradient from dense targets in float64."""
    x = logits.detach().double().requires_grad_()
    dense = torch.zeros_like(x)
    dense[image, :, anchor] = targets.double()
    # Without foreground PyTorch's BCE is softplus, but for its rounding: x - logsigmoid(x) cancels.
    loss = binary_cross_entropy_with_logits(x, dense, reduction="none") if len(image) else softplus(x, threshold=50)
    total = (loss if weights is None else loss * weights.double().view(1, -1, 1)).sum()
    return total.detach(), torch.autograd.grad(total * scale, x)[0]


def ours(logits, image, anchor, targets, weights=None, scale=1.0):
    x = logits.detach().clone(memory_format=torch.preserve_format).requires_grad_()
    total = foreground_bce_sum(x, image, anchor, targets, weights)
    (total * scale).backward()
    return total.detach(), x.grad


def error(got, wanted):
    return ((got.double() - wanted).norm() / wanted.norm().clamp_min(1e-300)).item()


def assert_equal_to_torch(arguments, weights=None, scale=1.0):
    for got, wanted in zip(ours(*arguments, weights, scale), torch_reference(*arguments, weights, scale), strict=True):
        assert got.shape == wanted.shape
        assert error(got, wanted) <= TOLERANCE[arguments[0].dtype]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("shape", [(3, 5, 37), (2, 3, 64), (1, 1, 40), (4, 2, 7), (2, 7, 8), (1, 90, 8400)])
def test_loss_and_gradient_equal_torch_on_dense_targets(shape, weighted, dtype):
    weights = torch.rand(shape[1], dtype=torch.float32) + 0.5 if weighted else None
    assert_equal_to_torch(problem(shape, rows=5, dtype=dtype), weights, scale=0.37)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(
    ("spread", "shift"),
    [(0.0, -14.2), (0.0, 0.1), (0.5, 3.0), (3.0, 0.0), (10.0, 0.0), (40.0, 0.0), (0.0, 30.0), (1.0, -60.0)],
    ids=["initial bias for 1203 classes", "all undecided", "all confident", "wide", "wider", "huge", "sure", "tiny"],
)
def test_the_sum_is_right_wherever_the_logits_lie(spread, shift, dtype):
    for rows in (0, 11):
        assert_equal_to_torch(problem((2, 6, 200), rows, dtype, spread, shift))


def test_one_confident_anchor_keeps_its_digits_among_many_unlikely_ones():
    logits, image, anchor, targets = problem((2, 4, 80), rows=0, shift=-30.0, spread=0.1)
    for sure in (3.0, 5.0, 9.0, 16.0, 25.0, 60.0):
        logits[1, 2, 33] = sure
        assert_equal_to_torch((logits, image, anchor, targets))


def test_without_foreground_the_loss_is_that_of_background():
    assert_equal_to_torch(problem(rows=0))


def test_a_batch_of_no_images_has_no_loss():
    total, gradient = ours(*problem((0, 5, 37), rows=0))
    assert total == 0
    assert gradient.shape == (0, 5, 37)


def test_infinite_and_nan_logits_are_not_hidden():
    logits, *rest = problem(rows=0)
    for bad in (float("inf"), float("nan")):
        logits[0, 0, 0] = bad
        assert not torch.isfinite(foreground_bce_sum(logits, *rest))
    logits[0, 0, 0] = -float("inf")
    assert torch.isfinite(foreground_bce_sum(logits, *rest))


def test_logits_of_any_memory_layout():
    logits, *rest = problem((3, 5, 40))
    transposed = logits.permute(0, 2, 1).contiguous().permute(0, 2, 1)
    assert not transposed.is_contiguous()
    assert_equal_to_torch((transposed, *rest))


def test_a_second_backward_pass_gives_the_same_gradient():
    logits, *rest = problem()
    logits.requires_grad_()
    total = foreground_bce_sum(logits, *rest)
    first = torch.autograd.grad(total, logits, retain_graph=True)[0].clone()
    torch.testing.assert_close(torch.autograd.grad(total, logits)[0], first, rtol=1e-5, atol=1e-7)


def test_the_gradient_does_not_share_memory_with_the_logits():
    logits, *rest = problem()
    before = logits.clone()
    ours(logits, *rest)
    torch.testing.assert_close(logits, before, rtol=0, atol=0)


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_works_where_no_gradient_is_wanted(mode):
    arguments = problem()
    with mode():
        total = foreground_bce_sum(*arguments)
    assert not total.requires_grad
    assert error(total, torch_reference(*arguments)[0]) <= 1e-5


@pytest.mark.parametrize("weighted", [False, True])
def test_gradcheck_in_double(weighted):
    logits, image, anchor, targets = problem((2, 3, 17), rows=6, dtype=torch.float64)
    logits[0, 1, 3] = 8.0  # a row that keeps a logarithm for each logit
    weights = torch.tensor([0.5, 1.0, 2.0], dtype=torch.float64) if weighted else None
    assert torch.autograd.gradcheck(  # a second backward pass makes its own sigmoid: equal to rounding, not to the bit
        lambda x: foreground_bce_sum(x, image, anchor, targets, weights), logits.requires_grad_(), nondet_tol=1e-14
    )


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize(("scale", "shift"), [(0.02, -3.0), (256.0, -3.0), (65536.0 * 4, -14.0)])
def test_half_precision_is_float32_rounded_once(scale, shift, weighted, dtype):
    arguments = problem((3, 6, 50), dtype=dtype, shift=shift, spread=0.5)
    arguments[3].mul_(torch.sigmoid(torch.tensor(shift)))  # targets near the scores: no gradient overflows
    weights = torch.rand(6) + 0.5 if weighted else None
    total, gradient = ours(*arguments, weights, scale)
    wanted, wanted_gradient = torch_reference(*arguments, weights, scale)
    assert total.dtype == torch.float32
    assert gradient.dtype == dtype
    assert error(total, wanted) <= 1e-5  # accumulated in float32
    assert torch.isfinite(gradient).all()
    assert ulps(gradient, wanted_gradient.to(dtype)) <= 2


def test_a_long_half_precision_sum_neither_overflows_nor_stalls():
    logits = torch.full((2, 64, 8400), 0.1, dtype=torch.float16)  # the sum is above fp16's largest number
    none = torch.zeros(0, dtype=torch.int64)
    total = foreground_bce_sum(logits, none, none, torch.zeros(0, 64))
    assert error(total, softplus(logits.double()).sum()) <= 1e-5


def test_deterministic_mode_gives_the_same_numbers():
    arguments = problem((2, 5, 4000), rows=100)
    usual = ours(*arguments)
    torch.use_deterministic_algorithms(True)
    try:
        deterministic = ours(*arguments)
    finally:
        torch.use_deterministic_algorithms(False)
    for a, b in zip(usual, deterministic, strict=True):
        assert torch.equal(a, b)


def test_a_gradient_of_the_gradient_is_refused_not_wrong():
    logits, *rest = problem()
    logits.requires_grad_()
    scale = torch.tensor(2.0, requires_grad=True)
    gradient = torch.autograd.grad(foreground_bce_sum(logits, *rest) * scale, logits, create_graph=True)[0]
    with pytest.raises(RuntimeError, match="once_differentiable"):
        gradient.sum().backward()
