# SPDX-License-Identifier: AGPL-3.0-or-later
"""Maps: monotone, exact through JSON, and refused where they would turn a ranking."""

from __future__ import annotations

import json

import numpy as np
import pytest

from det_ls.calibration.maps import (
    AffineMap,
    BetaMap,
    DesmoothMap,
    IsotonicMap,
    logit,
    map_from_dict,
    map_to_dict,
    sigmoid,
)

MAPS = [
    AffineMap((0.1 + 0.2,), (-1 / 3,)),
    AffineMap((0.5, 2.0), (0.0, 0.0), ("a", "b"), "temperature"),
    BetaMap(0.7, 1.3, -0.2),
    IsotonicMap((0.1, 0.4, 0.9), (0.0, 1 / 3, 1.0)),
    DesmoothMap((0.9, 0.8), ("a", "b")),
]


@pytest.mark.parametrize("one", MAPS, ids=lambda m: m.kind)
def test_a_map_survives_json_exactly_and_rises(one):
    again = map_from_dict(json.loads(json.dumps(map_to_dict(one))))
    assert again == one
    z = np.linspace(-12, 12, 301)
    for c in (0, 1):
        scores = one(z, np.full(len(z), c))
        assert (np.diff(scores) >= 0).all()
        assert scores.min() >= 0
        assert scores.max() <= 1
        assert np.array_equal(scores, again(z, np.full(len(z), c)))


def test_a_map_by_class_uses_each_class_own_parameters():
    one = AffineMap((0.5, 2.0), (0.1, -0.3), ("a", "b"))
    assert np.allclose(one([1.5, 1.5], [0, 1]), sigmoid([0.5 * 1.5 + 0.1, 2 * 1.5 - 0.3]), atol=1e-15)
    a, b = one.by_class(["b", "a"])
    assert a.tolist() == [2.0, 0.5]
    assert b.tolist() == [-0.3, 0.1]
    with pytest.raises(ValueError, match="class 'c'"):
        one.by_class(["c"])
    with pytest.raises(TypeError, match="cls"):
        one([0.0])


def test_the_inverse_gives_the_scores_back():
    one = AffineMap((0.4,), (-1.1,))
    z = np.linspace(-8, 8, 50)
    assert np.allclose(one.inverse(logit(one(z))), sigmoid(z), atol=1e-9)


def test_the_logit_inverts_and_stays_finite():
    z = np.linspace(-15, 15, 101)
    assert np.allclose(logit(sigmoid(z)), z, atol=1e-8)
    assert np.isfinite(logit([0.0, 1.0])).all()


@pytest.mark.parametrize("a", [0.0, -0.5, float("nan")])
def test_a_slope_that_is_not_above_zero_is_refused(a):
    with pytest.raises(ValueError, match="a"):
        AffineMap((a,), (0.0,))


@pytest.mark.parametrize(
    "content",
    [None, [], {}, {"format": "det-ls calibration map 1", "kind": "platt"}, {"kind": "platt", "a": [1], "b": [0]}],
)
def test_what_is_no_map_is_refused_in_one_sentence(content):
    with pytest.raises(ValueError, match=r"^map: expected .*, got .*\.$"):
        map_from_dict(content)
