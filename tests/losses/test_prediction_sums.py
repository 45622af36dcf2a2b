# SPDX-License-Identifier: AGPL-3.0-or-later
"""The sums that online smoothing learns from equal a plain loop over stock's dense targets, in both forms."""

from __future__ import annotations

import math

import pytest
import torch
from test_families import get_model, make_batch
from torch.nn.functional import binary_cross_entropy_with_logits

from det_ls import smoothed_criterion, smoothing_matrix
from det_ls.losses.classification import LabelSmoothingClassificationLoss
from det_ls.losses.families import criterion_with_matrix, halves, watch_predictions
from det_ls.losses.form import CurrentMatrix
from det_ls.losses.lean.term import LeanSmoothedBCE
from det_ls.losses.prediction_sums import PredictionSums

NC = 4
CPU = torch.device("cpu")


def outputs(name, seed=0):
    """The real head's outputs with livelier scores: a few rows are classified correctly, most are not."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        found = get_model(name)(make_batch(name)["img"])
    for part in [found[k] for k in ("one2many", "one2one")] if "one2many" in found else [found]:
        part["scores"] = torch.randn(part["scores"].shape, generator=generator) * 2 - 3
    return found


def loop(name, preds):
    """Add up, row by row, what stock hands to its own classification term."""
    stock = get_model(name).init_criterion()
    seen = []

    class Spy(torch.nn.Module):
        def forward(self, scores, targets):
            seen.append((scores.tolist(), targets.tolist()))
            return binary_cross_entropy_with_logits(scores, targets, reduction="none")

    for half in halves(stock):
        half.bce = Spy()
    stock(preds, make_batch(name))
    sums, weights = [[0.0] * NC for _ in range(NC)], [0.0] * NC
    for scores, targets in seen:
        for image, target_rows in zip(scores, targets, strict=True):
            for logits, target in zip(image, target_rows, strict=True):
                if max(target) == 0:
                    continue
                label = target.index(max(target))
                if max(range(NC), key=logits.__getitem__) != label:
                    continue
                sigmoids = [1 / (1 + math.exp(-x)) for x in logits]
                weights[label] += target[label]
                for k in range(NC):
                    sums[label][k] += target[label] * sigmoids[k] / sum(sigmoids)
    return torch.tensor(sums, dtype=torch.float64), torch.tensor(weights, dtype=torch.float64)


@pytest.mark.parametrize("form", ["dense", "lean", "decided"])
@pytest.mark.parametrize("name", ["yolo11n", "yolo26n", "yolo11n-seg"])
def test_both_forms_sum_what_a_plain_loop_sums_and_the_first_batch_counts_once(name, form):
    preds = outputs(name)
    expected = loop(name, preds)
    assert (expected[1] > 0).sum() >= 2
    criterion = criterion_with_matrix(get_model(name), smoothing_matrix(NC, 0.1))
    sums = watch_predictions(criterion, NC, CPU)
    for half in halves(criterion):
        if form != "decided":
            half.use(form)
    criterion(preds, make_batch(name))
    assert {half.form for half in halves(criterion)} == {"lean" if form == "decided" else form}
    torch.testing.assert_close(sums.total().sums, expected[0], rtol=1e-5, atol=1e-7)
    torch.testing.assert_close(sums.total().weights, expected[1], rtol=1e-5, atol=1e-7)
    criterion(preds, make_batch(name))
    torch.testing.assert_close(sums.total().sums, 2 * expected[0], rtol=1e-5, atol=1e-7)
    with torch.no_grad():
        criterion(preds, make_batch(name))
    torch.testing.assert_close(sums.total().weights, 2 * expected[1], rtol=1e-5, atol=1e-7)
    sums.reset()
    assert not sums.total().sums.any()


def test_watching_changes_no_loss():
    preds, batch = outputs("yolo11n"), make_batch("yolo11n")
    plain, watched = (criterion_with_matrix(get_model("yolo11n"), smoothing_matrix(NC, 0.1)) for _ in range(2))
    watch_predictions(watched, NC, CPU)
    assert torch.equal(plain(preds, batch)[0], watched(preds, batch)[0])


def test_a_classifier_counts_images_that_it_classified_correctly():
    generator = torch.Generator().manual_seed(0)
    logits, labels = torch.randn(50, 3, generator=generator), torch.randint(3, (50,), generator=generator)
    criterion = LabelSmoothingClassificationLoss(smoothing_matrix(3, 0.1))
    sums = watch_predictions(criterion, 3, CPU)
    criterion(logits, {"cls": labels})
    for c in range(3):
        rows = [row.softmax(0) for row, label in zip(logits, labels, strict=True) if label == c == row.argmax()]
        assert sums.total().weights[c] == len(rows) > 0
        torch.testing.assert_close(sums.total().sums[c].float(), torch.stack(rows).sum(0))


def test_half_precision_is_added_up_in_double():
    sums = PredictionSums(2, CPU)
    for _ in range(4096):
        sums.add(torch.tensor([0]), torch.tensor([[0.75, 0.25]], dtype=torch.float16), torch.tensor([0.5]).half())
    assert sums.total().weights.tolist() == [2048, 0]
    assert sums.total().sums.tolist() == [[1536, 512], [0, 0]]


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"label_smoothing": "adaptive"}, "label_smoothing: expected a matrix that the keys alone say .*'adaptive'"),
        (
            {"label_smoothing": 0.1, "label_smoothing_mode": "online"},
            "label_smoothing_mode: expected a matrix that the keys alone say .*'online'",
        ),
    ],
)
def test_a_criterion_of_ones_own_refuses_what_only_a_trainer_can_learn(keys, message):
    with pytest.raises(ValueError, match=message):
        smoothed_criterion(get_model("yolo11n"), **keys)


def test_every_process_gets_the_sum_over_all(monkeypatch):
    distributed = torch.distributed
    monkeypatch.setattr(distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(distributed, "get_world_size", lambda: 2)
    monkeypatch.setattr(distributed, "all_reduce", lambda tensor: tensor.mul_(2))  # as if the other had the same
    sums = PredictionSums(2, CPU)
    sums.add(torch.tensor([0]), torch.tensor([[0.75, 0.25]]), torch.tensor([1.0]))
    for _ in range(2):  # reading it changes nothing
        assert sums.total().sums.tolist() == [[1.5, 0.5], [0, 0]]
        assert sums.total().weights.tolist() == [2, 0]


def test_a_fast_form_that_does_not_smooth_shows_in_a_run_that_begins_without_smoothing(monkeypatch):
    init = LeanSmoothedBCE.__init__

    def of_the_identity(self, matrix, assigner):
        init(self, CurrentMatrix(torch.eye(NC), CPU), assigner)

    monkeypatch.setattr(LeanSmoothedBCE, "__init__", of_the_identity)
    criterion = criterion_with_matrix(get_model("yolo11n"), torch.eye(NC, dtype=torch.float64))
    criterion(outputs("yolo11n"), make_batch("yolo11n"))
    assert criterion.form == "dense"
