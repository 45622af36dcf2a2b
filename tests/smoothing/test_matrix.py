# SPDX-License-Identifier: AGPL-3.0-or-later
from __future__ import annotations

import math
import warnings

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from det_ls import smooth_targets, smoothing_matrix
from det_ls.smoothing.matrix import smoothing_rows

MASS_KEEPING = ("redistribute", "uniform")
ALL_MODES = ("redistribute", "uniform", "binary", "background")


def test_the_example_of_the_readme():
    assert smooth_targets(torch.tensor([1.0, 0, 0]), 0.1).tolist() == pytest.approx([0.9, 0.05, 0.05], abs=1e-7)


@pytest.mark.parametrize("eps", [0.0, 0.1, 0.7])
def test_uniform_equals_cross_entropy_of_torch_in_loss_and_gradient(eps):
    generator = torch.Generator().manual_seed(0)
    ours = torch.randn(12, 5, generator=generator, dtype=torch.float64, requires_grad=True)
    torchs = ours.detach().clone().requires_grad_()
    labels = torch.randint(5, (12,), generator=generator)
    targets = smooth_targets(F.one_hot(labels, 5).double(), eps, mode="uniform")
    loss = -(targets * ours.log_softmax(1)).sum(1).mean()
    oracle = F.cross_entropy(torchs, labels, label_smoothing=eps)
    loss.backward()
    oracle.backward()
    assert loss.item() == pytest.approx(oracle.item(), rel=1e-12)
    torch.testing.assert_close(ours.grad, torchs.grad, rtol=1e-12, atol=1e-14)


@settings(max_examples=60, deadline=None)
@given(
    k=st.integers(2, 40),
    share=st.floats(0, 0.999),
    mode=st.sampled_from(MASS_KEEPING),
    dtype=st.sampled_from([torch.float32, torch.float64]),
    seed=st.integers(0, 99),
    per_class=st.booleans(),
)
def test_rows_of_mass_keeping_matrices_sum_to_one(k, share, mode, dtype, seed, per_class):
    bound = (k - 1) / k if mode == "redistribute" else 1.0
    generator = torch.Generator().manual_seed(seed)
    eps = (share * bound * torch.rand(k, generator=generator)).tolist() if per_class else share * bound
    rows = smoothing_matrix(k, eps, mode, dtype=dtype)
    torch.testing.assert_close(rows.sum(1), torch.ones(k, dtype=dtype))
    assert (rows >= 0).all()
    assert (rows.argmax(1) == torch.arange(k)).all()


@settings(max_examples=60, deadline=None)
@given(k=st.integers(2, 20), share=st.floats(0, 0.999), seed=st.integers(0, 99))
def test_rows_of_similarity_matrices_sum_to_one_and_keep_the_true_class_largest(k, share, seed):
    table = torch.rand(k, k, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    table[seed % k] = 0  # falls back to even
    off = table * (1 - torch.eye(k))
    normalised = torch.where(off.sum(1, keepdim=True) > 0, off / off.sum(1, keepdim=True), (1 - torch.eye(k)) / (k - 1))
    bound = (1 / (1 + normalised.max())).item()
    rows = smoothing_matrix(k, share * bound, similarity=table.tolist())
    torch.testing.assert_close(rows.sum(1), torch.ones(k, dtype=torch.float64))
    assert (rows.argmax(1) == torch.arange(k)).all()


def test_similarity_sends_the_share_where_the_table_says():
    rows = smoothing_matrix(3, 0.2, similarity=[[9, 3, 1], [0, 9, 0], [5, 0, 9]])
    expected = [[0.8, 0.15, 0.05], [0.1, 0.8, 0.1], [0.2, 0, 0.8]]
    torch.testing.assert_close(rows, torch.tensor(expected, dtype=torch.float64))


@pytest.mark.parametrize("mode", ALL_MODES)
def test_background_rows_stay_zero(mode):
    targets = torch.zeros(2, 3, 4)
    targets[0, 1, 2] = 0.7
    smoothed = smooth_targets(targets, 0.3, mode)
    assert smoothed[1].abs().sum() == 0
    assert smoothed[0, [0, 2]].abs().sum() == 0
    assert smoothed[0, 1].argmax() == 2


def test_binary_follows_darknet_on_foreground_rows():
    torch.testing.assert_close(smooth_targets(torch.tensor([[0.0, 0.8]]), 0.1, "binary"), torch.tensor([[0.04, 0.76]]))


def test_background_moves_the_share_to_no_other_class():
    torch.testing.assert_close(
        smooth_targets(torch.tensor([[0.0, 0.8]]), 0.1, "background"), torch.tensor([[0.0, 0.72]])
    )


def test_binary_warns_above_twenty_classes_only():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        smoothing_matrix(20, 0.1, "binary")
        smoothing_matrix(80, 0.0, "binary")
    with pytest.warns(UserWarning, match=r"80 classes multiplies a foreground row's mass by 1 \+ 39 epsilon"):
        smoothing_matrix(80, 0.1, "binary")


@pytest.mark.parametrize("mode", ALL_MODES)
def test_zero_epsilon_is_the_identity(mode):
    torch.testing.assert_close(smoothing_matrix(6, 0.0, mode), torch.eye(6, dtype=torch.float64))


@pytest.mark.parametrize("mode", ALL_MODES)
def test_each_class_uses_its_own_epsilon(mode):
    eps = [0.0, 0.3, 0.6]
    rows = smoothing_matrix(3, eps, mode)
    for c, e in enumerate(eps):
        torch.testing.assert_close(rows[c], smoothing_matrix(3, e, mode)[c])


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_dtype_and_shape_of_the_targets_are_kept(dtype):
    smoothed = smooth_targets(torch.ones(2, 5, 3, dtype=dtype), 0.1)
    assert smoothed.dtype == dtype
    assert smoothed.shape == (2, 5, 3)


def test_smoothing_is_differentiable_in_the_targets():
    targets = torch.rand(3, 4, dtype=torch.float64, requires_grad=True)
    for mode in ALL_MODES:
        assert torch.autograd.gradcheck(lambda t, mode=mode: smooth_targets(t, 0.2, mode), (targets,))


BOUNDS = [
    ("redistribute", 2, 0.5),
    ("redistribute", 4, 0.75),
    ("uniform", 4, 1.0),
    ("binary", 4, 1.0),
    ("background", 4, 1.0),
    ("background", 1, 1.0),
    ("binary", 1, 1.0),
]


@pytest.mark.parametrize(("mode", "k", "bound"), BOUNDS)
def test_bounds_hold_just_inside_and_just_outside(mode, k, bound):
    smoothing_matrix(k, math.nextafter(bound, 0), mode)
    with pytest.raises(ValueError, match=rf"below {bound:.6g} for class '0'.*got"):
        smoothing_matrix(k, bound, mode)


def test_bound_with_a_table_depends_on_the_row():
    table = [[0, 3, 1], [1, 0, 1], [0, 0, 0]]
    bounds = [1 / 1.75, 1 / 1.5, 1 / 1.5]
    for c, bound in enumerate(bounds):
        eps = [0.0, 0.0, 0.0]
        eps[c] = math.nextafter(bound, 0)
        smoothing_matrix(3, eps, similarity=table)
        eps[c] = math.nextafter(bound, 1)
        with pytest.raises(ValueError, match=f"below {bound:.6g} for class '{c}'"):
            smoothing_matrix(3, eps, similarity=table)


BAD = [
    ((3, -0.1), ValueError, "epsilon of class '0': expected a number of at least 0, got -0.1"),
    ((3, math.nan), ValueError, "epsilon of class '0': expected a number of at least 0, got nan"),
    ((3, "1e-1"), TypeError, "epsilon of class '0': expected a number of at least 0, got str '1e-1' .YAML reads 1e-1"),
    ((3, True), TypeError, "epsilon of class '0': expected a number of at least 0, got bool True"),
    ((3, [0.1, 0.1]), ValueError, "epsilon: expected one number or 3 of them, one for each class, got 2"),
    ((0, 0.1), ValueError, "num_classes: expected an integer of at least 1, got 0"),
    ((True, 0.1), ValueError, "num_classes: expected an integer of at least 1, got True"),
    ((3, 0.1, "even"), ValueError, "label_smoothing_mode: expected one of redistribute, .*got 'even'"),
    ((1, 0.1), ValueError, "expected at least 2 classes .* got 1; .*'binary' or 'background'"),
    ((1, 0.1, "uniform"), ValueError, "expected at least 2 classes .* got 1; .*'binary' or 'background'"),
    ((1, 0.1, "redistribute", [[1]]), ValueError, "label_smoothing_similarity: expected at least 2 classes"),
    ((2, 0.1, "uniform", [[1, 1], [1, 1]]), ValueError, "expected label_smoothing_mode 'redistribute' with a table, got 'uniform'"),
    ((2, 0.1, "redistribute", [[1, 1, 1], [1, 1, 1]]), ValueError, r"table of 2 x 2 numbers, got shape \(2, 3\)"),
    ((2, 0.1, "redistribute", [[1, -1], [1, 1]]), ValueError, "finite, non-negative entries"),
    ((2, 0.1, "redistribute", [[1, math.nan], [1, 1]]), ValueError, "finite, non-negative entries"),
]  # fmt: skip


@pytest.mark.parametrize(("arguments", "error", "message"), BAD)
def test_bad_arguments_are_named(arguments, error, message):
    with pytest.raises(error, match=message):
        smoothing_matrix(*arguments)


def test_what_is_no_table_or_tensor_is_one_sentence():
    for table in ("t.csv", [[0, 1], [1]], [["a", "b"], ["c", "d"]]):
        with pytest.raises(TypeError, match="label_smoothing_similarity: expected a table of 2 x 2 numbers, got"):
            smoothing_matrix(2, 0.1, similarity=table)
    with pytest.raises(TypeError, match="targets: expected a floating-point tensor .* got list"):
        smooth_targets([1.0, 0.0], 0.1)


def test_epsilon_may_be_an_array():
    import numpy as np

    expected = smoothing_matrix(3, [0.0, 0.1, 0.2])
    torch.testing.assert_close(smoothing_matrix(3, np.array([0.0, 0.1, 0.2])), expected)
    torch.testing.assert_close(smoothing_matrix(3, torch.tensor([0.0, 0.1, 0.2], dtype=torch.float64)), expected)


def test_smooth_targets_enforces_the_same_and_needs_floats():
    with pytest.raises(ValueError, match="below 0.5"):
        smooth_targets(torch.ones(4, 2), 0.5)
    with pytest.raises(TypeError, match="floating-point tensor of shape .* got dtype torch.int64"):
        smooth_targets(torch.ones(4, 2, dtype=torch.long), 0.1)
    with pytest.raises(ValueError, match="got a scalar"):
        smooth_targets(torch.tensor(1.0), 0.1)


@pytest.mark.parametrize("mode", ALL_MODES)
def test_two_numbers_a_class_are_the_matrix(mode):
    eps = [0.0, 0.1, 0.3]
    diagonal, rest = smoothing_rows(3, eps, mode)
    matrix = smoothing_matrix(3, eps, mode)
    torch.testing.assert_close(torch.where(torch.eye(3, dtype=torch.bool), diagonal[:, None], rest[:, None]), matrix)
    assert diagonal.dtype == rest.dtype == torch.float64


def test_rows_are_checked_as_the_matrix_is():
    with pytest.raises(ValueError, match="below 0.5 for class 'dog'"):
        smoothing_rows(2, [0.1, 0.6], class_names=["cat", "dog"])
    with pytest.raises(ValueError, match="num_classes: expected an integer of at least 1, got 0"):
        smoothing_rows(0, 0.1)
    with pytest.raises(ValueError, match="label_smoothing_mode: expected one of .* got 'other'"):
        smoothing_rows(2, 0.1, "other")
