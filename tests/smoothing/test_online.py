# SPDX-License-Identifier: AGPL-3.0-or-later
from __future__ import annotations

import pytest
import torch

from det_ls.smoothing.matrix import smoothing_matrix
from det_ls.smoothing.online import OnlinePolicy
from det_ls.smoothing.policy import ClassPredictions, EpochFacts
from det_ls.smoothing.request import Request
from det_ls.smoothing.settings import LabelSmoothing

NAMES = ["a", "b", "c"]


def policy(epsilon=0.3, names=NAMES):
    return Request.of_keys({"label_smoothing": epsilon, "label_smoothing_mode": "online"}).policy(names)


def predicted(sums, weights):
    return ClassPredictions(torch.tensor(sums), torch.tensor(weights))


def test_it_begins_with_uniform_smoothing():
    assert torch.allclose(policy().matrix(0, 9), smoothing_matrix(3, 0.3, "uniform"))
    assert policy().logged(0, 9) == {"label_smoothing": 0.3, "label_smoothing_online": pytest.approx(1 / 3)}


def test_the_share_goes_where_the_model_put_it_and_a_class_without_a_row_keeps_its_own():
    learning = policy()
    learning.observe(EpochFacts(0, 9, predicted=predicted([[6.0, 3.0, 1.0], [0.0] * 3, [0.2, 0.0, 0.2]], [10, 0, 0.4])))
    expected = [[0.7 + 0.18, 0.09, 0.03], [0.1, 0.8, 0.1], [0.15, 0.0, 0.85]]
    assert learning.matrix(1, 9).tolist() == [pytest.approx(row) for row in expected]
    assert learning.logged(1, 9)["label_smoothing_online"] == pytest.approx((0.6 + 1 / 3 + 0.5) / 3)
    learning.observe(EpochFacts(1, 9, predicted=predicted([[0.0] * 3] * 3, [0.0] * 3)))
    assert learning.matrix(2, 9).tolist() == [pytest.approx(row) for row in expected]
    learning.observe(EpochFacts(2, 9))
    assert learning.matrix(3, 9).tolist() == [pytest.approx(row) for row in expected]


def test_an_epsilon_for_each_class():
    learning = policy({"default": 0.0, "b": 0.6})
    assert learning.matrix(0, 9)[0].tolist() == [1, 0, 0]
    assert learning.matrix(0, 9)[1].tolist() == pytest.approx([0.2, 0.6, 0.2])
    assert learning.logged(0, 9)["label_smoothing/b"] == 0.6


def test_rows_sum_to_one_and_the_true_class_is_the_largest_for_every_epsilon_below_one():
    generator = torch.Generator().manual_seed(0)
    shares = torch.rand(3, 40, 3, generator=generator).softmax(2)
    sums = torch.stack([rows[rows.argmax(1) == c].sum(0) for c, rows in enumerate(shares)])
    weights = torch.stack([(rows.argmax(1) == c).sum() for c, rows in enumerate(shares)])
    learning = policy(0.999)
    learning.observe(EpochFacts(0, 9, predicted=ClassPredictions(sums, weights)))
    matrix = learning.matrix(1, 9)
    assert torch.allclose(matrix.sum(1), torch.ones(3, dtype=torch.float64))
    assert matrix.argmax(1).tolist() == [0, 1, 2]


def test_a_restored_policy_is_the_same_to_the_bit_and_refuses_what_does_not_fit():
    one, other = policy(), policy()
    one.observe(EpochFacts(0, 9, predicted=predicted([[0.7, 0.2, 0.1]] * 3, [1.0] * 3)))
    other.load_state_dict(one.state_dict())
    assert torch.equal(one.matrix(1, 9), other.matrix(1, 9))
    with pytest.raises(ValueError, match="state: expected shares of 2 x 2 classes"):
        OnlinePolicy(0.1, [0.1, 0.1], ["a", "b"]).load_state_dict(one.state_dict())
    with pytest.raises(ValueError, match="state: expected shares for OnlinePolicy, got epsilon"):
        one.load_state_dict({"epsilon": 0.1})


def test_what_does_not_go_with_it_is_refused():
    with pytest.raises(ValueError, match="label_smoothing_schedule: expected 'constant' with label_smoothing_mode=onl"):
        policy_keys(label_smoothing_schedule="cosine")
    with pytest.raises(ValueError, match="expected label_smoothing_mode 'redistribute' with a table, got 'online'"):
        policy_keys(label_smoothing_similarity="t.csv")
    with pytest.raises(ValueError, match="'online': expected at least 2 classes to learn from each other, got 1"):
        policy_keys().check(["only"])
    with pytest.raises(ValueError, match="expected an epsilon below 1 for class 'b', got 1"):
        LabelSmoothing({"b": 1.0}, "online").check(NAMES)
    assert policy_keys(0.0, label_smoothing_schedule="cosine").policy(NAMES) is None  # nothing is smoothed


def policy_keys(epsilon=0.1, **keys):
    return Request.of_keys({"label_smoothing": epsilon, "label_smoothing_mode": "online", **keys})
