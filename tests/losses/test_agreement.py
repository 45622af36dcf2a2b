# SPDX-License-Identifier: AGPL-3.0-or-later
"""The piece of a batch that two forms of a criterion are compared on, and the comparison."""

from __future__ import annotations

import math

import pytest
import torch

from det_ls.losses.agreement import excerpt, has_objects, largest_difference, tolerance


def make(batch_idx, size=5, masks=None):
    n = len(batch_idx)
    preds = {
        "scores": torch.arange(size * 6.0).view(size, 2, 3).requires_grad_() * 1.0,
        "boxes": torch.arange(size * 12.0).view(size, 4, 3),
        "feats": [torch.arange(size * 4.0).view(size, 1, 2, 2), torch.arange(size * 1.0).view(size, 1, 1, 1)],
        "proto": torch.arange(size * 2.0).view(size, 2),
        "none": None,
    }
    batch = {
        "img": torch.arange(size * 3.0).view(size, 3),
        "batch_idx": torch.tensor(batch_idx, dtype=torch.float32),
        "cls": torch.arange(n * 1.0).view(n, 1),
        "bboxes": torch.arange(n * 4.0).view(n, 4),
        "im_file": [f"{i}.png" for i in range(size)],
    }
    if masks is not None:
        batch["masks"] = masks
    return preds, batch


def test_an_excerpt_holds_the_first_two_images_with_objects():
    preds, batch = excerpt(*make([1, 3, 3, 4]))
    everything, whole = make([1, 3, 3, 4])
    for key in ("scores", "boxes", "proto"):
        assert torch.equal(preds[key], everything[key][[1, 3]])
    assert [f.tolist() for f in preds["feats"]] == [f[[1, 3]].tolist() for f in everything["feats"]]
    assert torch.equal(batch["img"], whole["img"][[1, 3]])
    assert batch["batch_idx"].tolist() == [0, 1, 1]
    assert batch["batch_idx"].dtype == whole["batch_idx"].dtype
    assert batch["cls"].tolist() == [[0], [1], [2]]
    assert torch.equal(batch["bboxes"], whole["bboxes"][:3])
    assert not preds["scores"].requires_grad
    assert preds["none"] is None


def test_objects_in_any_order_keep_their_image():
    _, batch = excerpt(*make([3, 1, 3, 4]))
    assert batch["batch_idx"].tolist() == [1, 0, 1]
    assert batch["cls"].tolist() == [[0], [1], [2]]


def test_a_single_image_with_objects_is_enough():
    preds, batch = excerpt(*make([2]))
    assert preds["scores"].shape[0] == batch["img"].shape[0] == 1
    assert batch["batch_idx"].tolist() == [0]


def test_as_many_objects_as_images_are_not_mistaken_for_images():
    masks = torch.arange(5.0).view(5, 1, 1)
    _, batch = excerpt(*make([0, 0, 0, 3, 4], masks=masks))
    assert batch["cls"].tolist() == [[0], [1], [2], [3]]
    assert batch["img"].tolist() == [[0, 1, 2], [9, 10, 11]]
    assert batch["masks"].flatten().tolist() == [0, 3]


def test_masks_of_objects_are_cut_with_the_objects():
    masks = torch.arange(5.0).view(5, 1, 1)
    _, batch = excerpt(*make([0, 0, 0, 3, 4], masks=masks), masks_of_objects=True)
    assert batch["masks"].flatten().tolist() == [0, 1, 2, 3]


def test_an_excerpt_changes_neither_outputs_nor_batch():
    preds, batch = make([1, 3, 3, 4])
    kept = {**{k: v for k, v in preds.items() if isinstance(v, torch.Tensor)}, **batch}
    before = {k: v.detach().clone() for k, v in kept.items() if isinstance(v, torch.Tensor)}
    small, cut = excerpt(preds, batch)
    for part in (small, cut):
        for value in part.values():
            if isinstance(value, torch.Tensor):
                value.add_(1)
    for key, value in before.items():
        assert torch.equal(kept[key], value), key


@pytest.mark.parametrize(("batch_idx", "any_object"), [([], False), ([0], True), ([3, 4], True)])
def test_has_objects(batch_idx, any_object):
    assert has_objects(make(batch_idx)[1]) is any_object


def quadratic(preds, batch, factor=1.0, gradient_factor=1.0):
    x = preds["scores"]
    scaled = x * gradient_factor - (x * (gradient_factor - 1)).detach()
    return (scaled.pow(2).sum() * factor).reshape(1), None


PREDS = {"scores": torch.tensor([1.0, 2.0]), "unused": torch.ones(3), "feats": [torch.ones(1)]}


def test_equal_forms_do_not_differ():
    assert largest_difference(quadratic, quadratic, PREDS, {}) == 0.0


def test_the_difference_is_relative_to_the_reference():
    assert largest_difference(lambda p, b: quadratic(p, b, 1.25), quadratic, PREDS, {}) == pytest.approx(0.25)


def test_a_wrong_gradient_behind_a_right_loss_is_seen():
    assert largest_difference(lambda p, b: quadratic(p, b, 1.0, 1.5), quadratic, PREDS, {}) == pytest.approx(0.5)


def test_an_output_that_only_one_form_uses_is_seen():
    def uses(preds, batch):
        return quadratic(preds, batch)[0] + 0 * preds["unused"].sum() + preds["unused"][0] - 1, None

    assert largest_difference(uses, quadratic, PREDS, {}) > 1e6


def test_nan_counts_as_infinite():
    assert math.isinf(largest_difference(lambda p, b: quadratic(p, b, float("nan")), quadratic, PREDS, {}))


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_reference_that_is_not_finite_says_nothing(value):
    assert largest_difference(quadratic, lambda p, b: quadratic(p, b, value), PREDS, {}) is None


def test_another_number_of_loss_terms_is_no_match():
    with pytest.raises(RuntimeError):
        largest_difference(
            lambda p, b: (quadratic(p, b)[0].repeat(3), None), lambda p, b: (p["scores"], None), PREDS, {}
        )


def test_gradients_are_compared_where_gradients_are_off():
    with torch.no_grad():
        assert largest_difference(lambda p, b: quadratic(p, b, 1.0, 1.5), quadratic, PREDS, {}) == pytest.approx(0.5)


@pytest.mark.parametrize(
    ("dtype", "limit"), [(torch.float64, 1e-4), (torch.float32, 1e-4), (torch.float16, 2**-8), (torch.bfloat16, 2**-5)]
)
def test_tolerance_follows_the_precision(dtype, limit):
    assert tolerance(dtype) == pytest.approx(limit)
