# SPDX-License-Identifier: AGPL-3.0-or-later
"""Lazy scores answer whatever an assigner asks as the dense, transposed, squashed tensor does."""

from __future__ import annotations

import copy

import pytest
import torch

from det_ls.base.errors import VersionError
from det_ls.losses.lean.scores import LazyScores

B, K, A = 3, 4, 7
i, j, k = torch.tensor([0, 2, 1, 2]), torch.tensor([6, 0, 3, 3]), torch.tensor([3, 3, 0, 1])
pairs = torch.tensor([[0, 0], [1, 1], [2, 2]]), torch.tensor([[1, 3], [0, 0], [2, 1]])

READS = {
    "triples": lambda s: s[i, j, k],
    "one number": lambda s: s[1, 2, 3],
    "all anchors of image-class pairs": lambda s: s[i, :, k],
    "the same, in a grid": lambda s: s[pairs[0], :, pairs[1]],
    "one class": lambda s: s[..., 0],
    "the last class": lambda s: s[..., -1],
    "an image": lambda s: s[1],
    "images by index": lambda s: s[i],
    "a slice of anchors and classes": lambda s: s[:, 2:5, 1:],
    "all anchors of one image": lambda s: s[0, :, :],
    "some anchors of a class": lambda s: s[0, 1:3, 2],
    "all images of pairs": lambda s: s[:, j[:2], k[:2]],
    "a mask": lambda s: s[s.dense() > 0.5] if isinstance(s, LazyScores) else s[s > 0.5],
    "anchor rows": lambda s: s[i, j],
    "with a new axis": lambda s: s[..., None],
    "ellipsis and two": lambda s: s[..., 1, 2],
    "another method": lambda s: s.amax(-1),
    "an arithmetic method": lambda s: s.pow(0.5),
    "a torch function": lambda s: torch.zeros_like(s),
    "a torch function with keywords": lambda s: torch.gather(
        input=s, dim=2, index=torch.zeros(B, A, 1, dtype=torch.long)
    ),
    "another torch function": lambda s: torch.sum(s, -1),
    "size": lambda s: torch.tensor(s.size()),
    "ndim": lambda s: torch.tensor(s.ndim),
}


@pytest.fixture
def logits() -> torch.Tensor:
    return torch.randn(B, K, A, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("read", READS.values(), ids=READS)
@pytest.mark.parametrize("squashed", [False, True])
def test_every_read_equals_the_dense_tensors(logits, read, squashed):
    lazy = LazyScores(logits).permute(0, 2, 1).contiguous().detach()
    dense = logits.permute(0, 2, 1).contiguous().detach()
    if squashed:
        lazy, dense = lazy.sigmoid(), dense.sigmoid()
    got, wanted = read(lazy), read(dense)
    assert isinstance(got, torch.Tensor)
    torch.testing.assert_close(got, wanted, rtol=1e-6, atol=0, equal_nan=True)


@pytest.mark.parametrize("part", [slice(1, 2), slice(0, 2), slice(None)])
def test_a_slice_of_images_stays_lazy(logits, part):
    lazy = LazyScores(logits).sigmoid()[part]
    assert isinstance(lazy, LazyScores)
    torch.testing.assert_close(lazy.dense(), logits.permute(0, 2, 1).sigmoid()[part])
    assert lazy.shape == logits.permute(0, 2, 1)[part].shape


def test_shape_dtype_and_device_are_the_transposed_tensors(logits):
    lazy = LazyScores(logits.double())
    assert lazy.shape == (B, A, K)
    assert lazy.dtype == torch.float64
    assert lazy.device == logits.device
    assert lazy.cpu().sigmoid().shape == (B, A, K)
    torch.testing.assert_close(lazy.sigmoid().cpu().dense(), logits.double().permute(0, 2, 1).sigmoid())


def test_the_usual_reads_of_an_assigner_make_nothing_dense(logits, monkeypatch):
    def dense(self):
        raise AssertionError("dense")

    monkeypatch.setattr(LazyScores, "dense", dense)
    lazy = LazyScores(logits).permute(0, 2, 1).contiguous().detach().sigmoid()
    assert lazy.shape[0] == B
    for name in ("triples", "one number", "all anchors of image-class pairs", "the same, in a grid", "one class"):
        READS[name](lazy)


def test_detached_scores_have_no_gradient_and_others_do(logits):
    logits.requires_grad_()
    assert not LazyScores(logits).detach()[i, j, k].requires_grad
    assert LazyScores(logits)[i, j, k].requires_grad


def test_another_permutation_is_refused(logits):
    with pytest.raises(VersionError, match=r"dims: expected \(0, 2, 1\), got \(1, 0, 2\)"):
        LazyScores(logits).permute(1, 0, 2)


def test_can_be_copied(logits):
    lazy = copy.deepcopy(LazyScores(logits).sigmoid())
    torch.testing.assert_close(lazy.dense(), logits.permute(0, 2, 1).sigmoid())
    with pytest.raises(AttributeError):
        lazy.no_such_attribute  # noqa: B018
