# SPDX-License-Identifier: AGPL-3.0-or-later
"""Models, batches and head outputs for tests of the criteria, and the oracle: stock's loss on smoothed targets in float64."""

from __future__ import annotations

from functools import cache

import torch
from torch.nn.functional import binary_cross_entropy_with_logits
from ultralytics.cfg import get_cfg
from ultralytics.nn.tasks import DetectionModel

from det_ls.losses.families import halves, smoothed_criterion

OBJECTS = [3, 0, 9, 1]  # in each image
SIZE = 64  # pixels: 84 anchors


@cache
def get_model(name: str = "yolo11n", nc: int = 5) -> DetectionModel:
    torch.manual_seed(0)
    model = DetectionModel(f"{name}.yaml", nc=nc, verbose=False).train()
    model.args = get_cfg()
    return model


def make_batch(objects, nc, seed=0, size=SIZE):
    generator = torch.Generator().manual_seed(seed)
    n = sum(objects)
    wh = torch.rand(n, 2, generator=generator) * 0.5 + 0.1
    centre = wh / 2 + torch.rand(n, 2, generator=generator) * (1 - wh)
    return {
        "img": torch.rand(len(objects), 3, size, size, generator=generator),
        "batch_idx": torch.arange(len(objects)).repeat_interleave(torch.tensor(objects)).float(),
        "cls": torch.randint(nc, (n, 1), generator=generator).float(),
        "bboxes": torch.cat((centre, wh), 1),
    }


def make_preds(model, batch, dtype=torch.float32, seed=0):
    """Return the real head's outputs for a batch, with livelier scores and boxes than an untrained model's."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        output = model(batch["img"])

    def liven(part):
        return {
            "scores": (torch.randn(part["scores"].shape, generator=generator) * 2 - 3).to(dtype),
            "boxes": (part["boxes"] + torch.randn(part["boxes"].shape, generator=generator)).to(dtype),
            "feats": [f.to(dtype) for f in part["feats"]],
        }

    return {k: liven(output[k]) for k in ("one2many", "one2one")} if "one2many" in output else liven(output)


def parts_of(preds):
    return [preds["one2many"], preds["one2one"]] if "one2many" in preds else [preds]


def outcome(criterion, preds, batch):
    """Return the loss vector and the gradients of every head output, those of boxes and scores apart."""
    preds = {k: dict(v) for k, v in preds.items()} if "one2many" in preds else dict(preds)
    leaves = []
    for part in parts_of(preds):
        for key in ("scores", "boxes"):
            part[key] = part[key].detach().clone().requires_grad_()
            leaves.append(part[key])
    loss = criterion(preds, batch)[0]
    gradients = torch.autograd.grad(loss.sum(), leaves, allow_unused=True)
    return [loss.detach(), *(torch.zeros_like(v) if g is None else g for v, g in zip(leaves, gradients, strict=True))]


def error(got, wanted):
    return ((got.double() - wanted.double()).norm() / wanted.double().norm().clamp_min(1e-300)).item()


class OracleBCE:
    """PyTorch's BCE in float64 on dense targets times P."""

    def __init__(self, matrix):
        self.matrix = matrix.double()

    def __call__(self, scores, targets):
        return binary_cross_entropy_with_logits(scores.double(), targets.double() @ self.matrix, reduction="none")


def oracle(model, matrix):
    criterion = model.init_criterion()
    for half in halves(criterion):
        half.bce = OracleBCE(matrix)
    return criterion


def decided(model, preds, batch, **keys):
    """Return a smoothed criterion that has seen a training batch."""
    criterion = smoothed_criterion(model, **keys)
    outcome(criterion, preds, batch)
    return criterion


def forms(criterion):
    return [half.form for half in halves(criterion)]


def force(criterion, form):
    for half in halves(criterion):
        half.use(form)
    return criterion


def matrix_of(criterion):
    return halves(criterion)[0].smoothing_matrix


def assert_same(got, wanted, limit):
    for name, a, b in zip(
        ("loss", "scores", "boxes", "scores of one2one", "boxes of one2one"), got, wanted, strict=False
    ):
        assert a.shape == b.shape
        assert error(a, b) <= limit, name
