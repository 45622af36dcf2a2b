# SPDX-License-Identifier: AGPL-3.0-or-later
"""Each task's criterion: the class term is the oracle's, every other term and its gradients are stock's.

The oracle is stock's criterion with PyTorch's own BCE, in float64, on stock's dense targets times P.
"""

from __future__ import annotations

import copy
from functools import cache

import pytest
import torch
from loss_scene import oracle
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy
from ultralytics.cfg import get_cfg
from ultralytics.nn.tasks import ClassificationModel, DetectionModel, OBBModel, PoseModel, SegmentationModel
from ultralytics.utils.loss import E2ELoss, VarifocalLoss, v8ClassificationLoss

from det_ls import smoothed_criterion, smoothing_matrix
from det_ls.losses.classification import LabelSmoothingClassificationLoss
from det_ls.losses.families import FAMILIES, describe, halves, set_smoothing_matrix

KINDS = {"seg": SegmentationModel, "pose": PoseModel, "obb": OBBModel}
MODELS = [f"{name}-{task}" for task in KINDS for name in ("yolov8n", "yolo11n", "yolo26n")] + ["yolov10n"]
OBJECTS = [2, 0, 3, 1]  # in each image; images and objects are not as many
SIZE, NC = 64, 4


@cache
def get_model(name: str):
    torch.manual_seed(0)
    task = name.partition("-")[2]
    more = {"data_kpt_shape": (2, 3)} if task == "pose" else {}
    model = KINDS.get(task, DetectionModel)(f"{name}.yaml", nc=NC, verbose=False, **more).train()
    model.args = get_cfg()
    return model


def make_batch(name: str, overlap: bool = True):
    generator = torch.Generator().manual_seed(0)
    n, images = sum(OBJECTS), len(OBJECTS)
    wh = torch.rand(n, 2, generator=generator) * 0.4 + 0.2
    centre = wh / 2 + torch.rand(n, 2, generator=generator) * (1 - wh)
    batch = {
        "img": torch.rand(images, 3, SIZE, SIZE, generator=generator),
        "batch_idx": torch.arange(images).repeat_interleave(torch.tensor(OBJECTS)).float(),
        "cls": torch.randint(NC, (n, 1), generator=generator).float(),
        "bboxes": torch.cat((centre, wh), 1),
    }
    task = name.partition("-")[2]
    if task == "obb":
        batch["bboxes"] = torch.cat((batch["bboxes"], torch.rand(n, 1, generator=generator)), 1)
    if task == "pose":
        batch["keypoints"] = torch.rand(n, 2, 3, generator=generator)
    if task == "seg":
        rows = images if overlap else n
        batch["masks"] = torch.randint(
            0, max(OBJECTS) + 1 if overlap else 2, (rows, 16, 16), generator=generator
        ).float()
        batch["sem_masks"] = torch.randint(0, NC, (images, 16, 16), generator=generator)
    return batch


def make_preds(model, batch):
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        output = model(batch["img"])

    def liven(part):
        scores = torch.randn(part["scores"].shape, generator=generator) * 2 - 3
        return {**part, "scores": scores}

    return {k: liven(output[k]) for k in ("one2many", "one2one")} if "one2many" in output else liven(output)


def outcome(criterion, preds, batch):
    """Return the loss vector, what is logged, and the gradients of every output by name."""
    parts = {k: dict(v) for k, v in preds.items()} if "one2many" in preds else {"": dict(preds)}
    leaves = {}
    for half, part in parts.items():
        for key, value in part.items():
            if isinstance(value, torch.Tensor) and value.is_floating_point():
                part[key] = leaves[f"{half} {key}"] = value.detach().clone().requires_grad_()
    loss, items = criterion(parts.get("", parts), {k: v.clone() for k, v in batch.items()})
    gradients = torch.autograd.grad(loss.sum(), list(leaves.values()), allow_unused=True)
    items = torch.stack(list(items.values())) if isinstance(items, dict) else items
    return loss.detach(), items, dict(zip(leaves, gradients, strict=True))


def assert_same(got, wanted):
    for a, b in zip(got[:2], wanted[:2], strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-5)
    for name, gradient in wanted[2].items():
        if gradient is None:
            assert got[2][name] is None, name
        else:
            error = (got[2][name] - gradient).norm() / gradient.norm().clamp_min(1e-12)
            assert error < 1e-5, name


@pytest.mark.parametrize("name", MODELS)
def test_both_forms_equal_the_oracle_in_every_term_and_gradient(name):
    model, batch = get_model(name), make_batch(name)
    preds = make_preds(model, batch)
    wanted = outcome(oracle(model, smoothing_matrix(NC, 0.2)), preds, batch)
    criterion = smoothed_criterion(model, label_smoothing=0.2)
    for form in ("lean", "dense"):
        for half in halves(criterion):
            half.use(form)
        assert_same(outcome(criterion, preds, batch), wanted)


@pytest.mark.parametrize("name", MODELS)
def test_only_the_class_term_and_the_class_gradient_differ_from_stock(name):
    model, batch = get_model(name), make_batch(name)
    preds = make_preds(model, batch)
    stock, criterion = model.init_criterion(), smoothed_criterion(model, label_smoothing=0.2)
    assert {type(half) for half in halves(criterion)} == {FAMILIES[type(halves(stock)[0])]}
    assert isinstance(criterion, E2ELoss) is isinstance(stock, E2ELoss)
    plain, smoothed = outcome(stock, preds, batch), outcome(criterion, preds, batch)
    differing = [
        i for i in range(len(plain[0])) if not torch.isclose(plain[0][i], smoothed[0][i], rtol=1e-5, atol=1e-6)
    ]
    names = getattr(halves(stock)[0], "loss_names", None)
    assert len(differing) == 1
    if names is not None:
        assert names[differing[0]] == "cls_loss"
    for key, gradient in plain[2].items():
        if gradient is not None:
            same = torch.allclose(smoothed[2][key], gradient, rtol=1e-4, atol=1e-7)
            assert same is not key.endswith(" scores"), key


@pytest.mark.parametrize("name", MODELS)
def test_the_first_batch_lets_every_half_use_the_fast_form_without_a_warning(name, log):
    model, batch = get_model(name), make_batch(name)
    criterion = smoothed_criterion(model, label_smoothing=0.2)
    outcome(criterion, make_preds(model, batch), batch)
    assert {half.form for half in halves(criterion)} == {"lean"}
    assert not [line for line in log if "label_smoothing" in line]


@pytest.mark.parametrize("name", ["yolo11n-seg", "yolo26n-seg"])
def test_masks_that_do_not_overlap_have_a_row_for_each_object(name, log):
    model, batch = copy.copy(get_model(name)), make_batch(name, overlap=False)
    model.args = get_cfg(overrides={"overlap_mask": False})
    preds = make_preds(model, batch)
    criterion = smoothed_criterion(model, label_smoothing=0.2)
    assert_same(outcome(criterion, preds, batch), outcome(oracle(model, smoothing_matrix(NC, 0.2)), preds, batch))
    assert {half.form for half in halves(criterion)} == {"lean"}
    assert not [line for line in log if "label_smoothing" in line]


@pytest.mark.parametrize("name", MODELS)
def test_a_broken_fast_form_falls_back_to_the_oracles_numbers(name, monkeypatch, log):
    from det_ls.losses.lean import term

    stock = term.foreground_bce_sum
    monkeypatch.setattr(term, "foreground_bce_sum", lambda *a, **k: stock(*a, **k) * 1.01)
    model, batch = get_model(name), make_batch(name)
    preds = make_preds(model, batch)
    criterion = smoothed_criterion(model, label_smoothing=0.2)
    assert_same(outcome(criterion, preds, batch), outcome(oracle(model, smoothing_matrix(NC, 0.2)), preds, batch))
    assert {half.form for half in halves(criterion)} == {"dense"}
    assert len([line for line in log if "slower dense form" in line]) == 1


def test_a_matrix_for_another_number_of_classes_is_named():
    from det_ls.losses.families import criterion_with_matrix

    with pytest.raises(ValueError, match=r"matrix: expected shape \(4, 4\), got \(3, 3\)"):
        criterion_with_matrix(get_model("yolo11n-obb"), torch.eye(3))


def test_a_criterion_is_described_by_its_own_name():
    assert describe(smoothed_criterion(get_model("yolo11n-pose"), label_smoothing=0.1)) == "LabelSmoothingPoseLoss"
    assert describe(smoothed_criterion(get_model("yolo26n-obb"), label_smoothing=0.1)) == (
        "E2ELoss of LabelSmoothingOBBLoss"
    )


# Classification


def classifier():
    model = ClassificationModel("yolo11n-cls.yaml", nc=NC, verbose=False)
    model.args = get_cfg()
    return model


LOGITS = torch.randn(6, NC, generator=torch.Generator().manual_seed(0)) * 3
LABELS = torch.tensor([0, 3, 2, 1, 1, 0])


def gradient_of(loss, logits=LOGITS):
    leaf = logits.clone().requires_grad_()
    value = loss(leaf)
    return value.detach(), torch.autograd.grad(value, leaf)[0]


@pytest.mark.parametrize("epsilon", [0.05, 0.3])
def test_classification_with_uniform_is_torchs_label_smoothing(epsilon):
    criterion = smoothed_criterion(classifier(), label_smoothing=epsilon, label_smoothing_mode="uniform")
    got = gradient_of(lambda x: criterion(x, {"cls": LABELS})[0])
    wanted = gradient_of(lambda x: cross_entropy(x, LABELS, label_smoothing=epsilon))
    torch.testing.assert_close(got, wanted, rtol=1e-6, atol=1e-7)


def test_classification_with_an_epsilon_for_each_class_is_cross_entropy_with_soft_labels():
    criterion = smoothed_criterion(classifier(), label_smoothing={"default": 0.1, 3: 0.4, 1: 0.0})
    soft = smoothing_matrix(NC, [0.1, 0.0, 0.1, 0.4]).float()[LABELS]
    got = gradient_of(lambda x: criterion(x, {"cls": LABELS})[0])
    torch.testing.assert_close(got, gradient_of(lambda x: cross_entropy(x, soft)), rtol=1e-6, atol=1e-7)


def test_classification_takes_what_the_head_gives_and_logs_as_stock_does():
    criterion, stock = smoothed_criterion(classifier(), label_smoothing=0.1), v8ClassificationLoss()
    bare, pair = criterion(LOGITS, {"cls": LABELS}), criterion((LOGITS.softmax(1), LOGITS), {"cls": LABELS})
    assert torch.equal(bare[0], pair[0])
    logged, wanted = bare[1], stock(LOGITS, {"cls": LABELS})[1]
    assert type(logged) is type(wanted)
    if isinstance(wanted, dict):
        assert logged.keys() == wanted.keys()


def test_classification_at_the_identity_is_stock_and_a_new_matrix_takes_effect():
    criterion = smoothed_criterion(classifier(), label_smoothing=0.1)
    set_smoothing_matrix(criterion, torch.eye(NC))
    got = gradient_of(lambda x: criterion(x, {"cls": LABELS})[0])
    torch.testing.assert_close(got, gradient_of(lambda x: cross_entropy(x, LABELS)), rtol=1e-6, atol=1e-7)
    with pytest.raises(ValueError, match=r"matrix: expected shape \(4, 4\), got \(2, 2\)"):
        set_smoothing_matrix(criterion, torch.eye(2))


def test_classification_in_half_precision_accumulates_in_float32():
    criterion = smoothed_criterion(classifier(), label_smoothing=0.1)
    loss, gradient = gradient_of(lambda x: criterion(x, {"cls": LABELS})[0], LOGITS.half())
    assert loss.dtype == torch.float32
    assert gradient.dtype == torch.float16
    torch.testing.assert_close(loss, criterion(LOGITS, {"cls": LABELS})[0], rtol=1e-3, atol=1e-3)


def test_a_stock_classification_loss_that_is_another_is_named(monkeypatch):
    monkeypatch.setattr(v8ClassificationLoss, "__call__", lambda self, preds, batch: (preds.sum(), preds.sum()))
    with pytest.raises(RuntimeError, match="v8ClassificationLoss is the mean cross-entropy"):
        LabelSmoothingClassificationLoss(torch.eye(NC))


# Why RT-DETR is refused


@pytest.mark.parametrize("share", [0.001, 0.03, 0.2, 0.45])
def test_varifocal_loss_gives_a_smoothed_share_no_place_to_rest(share):
    """With stock's weights its gradient pushes another class's logit down wherever it is, below its target too."""
    target = torch.tensor([[[share]]])
    for probability in (1e-5, 1e-4, 1e-3, 0.01, 0.029, 0.1, 0.19, 0.4, 0.44, 0.5, 0.9):
        logit = torch.logit(torch.tensor([[[probability]]])).requires_grad_()
        VarifocalLoss(1.5, 0.25)(logit, target, torch.zeros(1, 1, 1)).backward()
        assert logit.grad.item() > 0
        bce = logit.detach().clone().requires_grad_()
        binary_cross_entropy_with_logits(bce, target).backward()
        assert (bce.grad.item() > 0) is (probability > share)  # as smoothing means it


def test_varifocal_loss_forgets_the_other_classes_when_their_share_counts_as_a_match():
    """However small epsilon: the push against a confident wrong class all but vanishes."""
    logit = torch.logit(torch.tensor([[[0.9]]])).requires_grad_()
    loss = VarifocalLoss(1.5, 0.25)
    (stock,) = torch.autograd.grad(loss(logit, torch.zeros(1, 1, 1), torch.zeros(1, 1, 1)), logit)
    share = torch.tensor([[[1e-6]]])
    (matched,) = torch.autograd.grad(loss(logit, share, torch.ones(1, 1, 1)), logit)
    assert matched.item() < 1e-4 * stock.item()
