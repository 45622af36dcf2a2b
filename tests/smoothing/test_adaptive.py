# SPDX-License-Identifier: AGPL-3.0-or-later
"""The adaptive policy as a controller: closed loops with simulated detectors, bounds, state, refusals."""

from __future__ import annotations

import math
import random

import pytest
import torch

from det_ls.smoothing.adaptive import AdaptivePolicy, kept_gap, largest_epsilon
from det_ls.smoothing.policy import EpochFacts
from det_ls.smoothing.request import Request
from det_ls.smoothing.settings import LabelSmoothing

NAMES = ["negative", "positive"]


def closed_loop(disturbance, strength, lag, epochs=100, noise=0.0, mode="background"):
    """Simulate a detector whose gap is ``disturbance - strength * epsilon``, reached with a first-order lag (epochs)."""
    rng = random.Random(0)
    policy = AdaptivePolicy(mode, NAMES)
    answer, gaps, epsilons = 0.0, [], []
    for epoch in range(epochs):
        epsilon = policy.logged(epoch, epochs)["label_smoothing"]
        answer += (strength * epsilon - answer) / max(lag, 1.0)
        gap = disturbance(epoch / epochs) - answer
        measured = gap + rng.gauss(0.0, noise) if policy.wants_gap(epoch, epochs) else None
        policy.observe(EpochFacts(epoch, epochs, gap=measured))
        gaps.append(gap)
        epsilons.append(epsilon)
    return gaps, epsilons


@pytest.mark.parametrize("strength", [0.4, 0.55, 0.8])
@pytest.mark.parametrize("lag", [1, 5, 10])  # of 50 epochs of steering
def test_a_standing_over_confidence_is_gone_at_the_end_without_overshoot(strength, lag):
    gaps, epsilons = closed_loop(lambda x: 0.15, strength, lag)
    assert epsilons[:51] == [0.0] * 51  # the first half, and the epoch after which the first gap is measured
    assert abs(gaps[-1]) < 0.15 * 0.2
    assert min(gaps) > -0.15 * 0.15
    assert max(epsilons) < 0.5


def test_an_over_confidence_that_grows_is_followed_and_noise_averages_out():
    gaps, epsilons = closed_loop(lambda x: 0.2 * x, 0.55, 5, noise=0.03)
    assert abs(sum(gaps[-10:]) / 10) < 0.06
    assert 0.15 < epsilons[-1] < 0.4


def test_an_under_confident_detector_is_never_smoothed():
    assert closed_loop(lambda x: -0.1, 0.55, 5)[1] == [0.0] * 100


def test_a_gap_of_a_tenth_that_does_not_react_moves_epsilon_by_a_half_whatever_the_number_of_epochs():
    for epochs in (2, 3, 10, 101):
        policy = AdaptivePolicy("background", NAMES)
        for epoch in range(epochs):
            policy.observe(EpochFacts(epoch, epochs, gap=0.099 if policy.wants_gap(epoch, epochs) else None))
        assert policy.epsilon == pytest.approx(0.495)


def test_nothing_winds_up_at_a_bound():
    policy = AdaptivePolicy("redistribute", NAMES)
    for _ in range(1000):
        policy.observe(EpochFacts(8, 10, gap=0.5))
    assert policy.epsilon == 0.45  # nine tenths of the bound of two classes
    policy.observe(EpochFacts(8, 10, gap=-0.01))
    assert policy.epsilon == pytest.approx(0.44)
    assert policy.matrix(9, 10)[0].tolist() == pytest.approx([0.56, 0.44])


@pytest.mark.parametrize("gap", [None, math.nan, math.inf])
def test_without_a_gap_epsilon_stays(gap):
    policy = AdaptivePolicy("background", NAMES)
    policy.load_state_dict({"epsilon": 0.2})
    policy.observe(EpochFacts(8, 10, gap=gap))
    assert policy.state_dict() == {"epsilon": 0.2}


def test_a_restored_policy_goes_on_to_the_bit_and_refuses_anothers_state():
    one, other = AdaptivePolicy("background", NAMES), AdaptivePolicy("background", NAMES)
    one.observe(EpochFacts(7, 13, gap=0.1234567))
    other.load_state_dict(one.state_dict())
    for policy in (one, other):
        policy.observe(EpochFacts(8, 13, gap=0.0333))
    assert one.epsilon == other.epsilon
    with pytest.raises(ValueError, match="state: expected an epsilon for AdaptivePolicy, got seen"):
        one.load_state_dict({"seen": []})


def test_the_largest_epsilon_is_taken_by_the_mode_with_room_to_spare():
    for mode, classes in (("background", 1), ("background", 80), ("redistribute", 2), ("redistribute", 3)):
        policy = AdaptivePolicy(mode, [str(i) for i in range(classes)])
        policy.load_state_dict({"epsilon": largest_epsilon(mode, classes)})
        row = policy.matrix(0, 1)[0].tolist()
        assert row[0] >= max([0.0, *row[1:]]) + 0.1


def test_the_gap_is_that_of_a_plain_loop():
    generator = torch.Generator().manual_seed(0)
    scores = torch.rand(500, generator=generator)
    correct = torch.rand(500, generator=generator) < 0.3
    for objects in (1, 37, 500, 900):
        rows = sorted(zip(scores.tolist(), correct.tolist(), strict=True), key=lambda row: -row[0])[:objects]
        expected = sum(row[0] for row in rows) / len(rows) - sum(row[1] for row in rows) / len(rows)
        assert kept_gap(scores, correct, objects) == pytest.approx(expected, abs=1e-6)
    assert kept_gap(scores, correct, 0) is None
    assert kept_gap(torch.zeros(0), torch.zeros(0, dtype=torch.bool), 5) is None


BAD_KEYS = [
    ({"label_smoothing_mode": "uniform"}, "label_smoothing_mode: expected background or redistribute with .*'uniform'"),
    ({"label_smoothing_schedule": "linear"}, "label_smoothing_schedule: expected 'constant' with .*got 'linear'"),
    ({"label_smoothing_similarity": "t.csv"}, "label_smoothing_similarity: expected no table with .*got 't.csv'"),
    ({"label_smoothing": "adaptiv"}, "label_smoothing: expected a number, a mapping or 'adaptive', got 'adaptiv'"),
]  # fmt: skip


@pytest.mark.parametrize(("keys", "message"), BAD_KEYS)
def test_what_does_not_go_with_it_is_refused(keys, message):
    with pytest.raises(ValueError, match=message):
        LabelSmoothing.from_args({"label_smoothing": "adaptive", **keys})


def test_the_keys_ask_for_it_and_begin_with_the_identity():
    request = Request.of_keys({"label_smoothing": "adaptive", "label_smoothing_mode": "background"})
    assert request.smoothing.enabled
    assert request.smoothing.to_args()["label_smoothing"] == "adaptive"
    policy = request.policy(NAMES)
    assert isinstance(policy, AdaptivePolicy)
    assert torch.equal(policy.matrix(0, 9), torch.eye(2, dtype=torch.float64))
    request.check(["only"])
    with pytest.raises(ValueError, match="'redistribute': expected at least 2 classes"):
        Request.of_keys({"label_smoothing": "adaptive"}).check(["only"])
