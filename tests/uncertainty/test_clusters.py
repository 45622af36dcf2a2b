# SPDX-License-Identifier: AGPL-3.0-or-later
"""The intra-group correlation is the one that a simulation was given."""

from __future__ import annotations

import math

import numpy as np
import pytest

from det_ls.uncertainty.clusters import design_effect, intragroup_correlation


@pytest.mark.parametrize("correlation", [0.0, 0.2, 0.5, 0.9])
def test_a_known_correlation_is_found_with_groups_of_unequal_sizes(correlation: float) -> None:
    rng = np.random.default_rng(0)
    found = []
    for _ in range(200):
        codes = rng.permutation(np.repeat(np.arange(40), rng.integers(1, 9, 40)))
        effect = rng.normal(0, math.sqrt(correlation), 40)
        found.append(
            intragroup_correlation(effect[codes] + rng.normal(0, math.sqrt(1 - correlation), len(codes)), codes)
        )
    assert np.mean(found) == pytest.approx(correlation, abs=0.02)


def test_groups_of_equal_sizes_give_the_textbook_value() -> None:
    # Shrout and Fleiss (1979), table 2: six targets, four judges; their ICC(1, 1) is 0.17.
    ratings = [[9, 2, 5, 8], [6, 1, 3, 2], [8, 4, 6, 8], [7, 1, 2, 6], [10, 5, 6, 9], [6, 2, 4, 7]]
    values, codes = np.ravel(ratings), np.repeat(np.arange(6), 4)
    assert intragroup_correlation(values, codes) == pytest.approx(0.17, abs=0.005)
    assert intragroup_correlation(values * 3.0 - 1, codes * 10 + 5) == pytest.approx(
        intragroup_correlation(values, codes)
    )


def test_identical_images_of_a_group_correlate_fully_and_images_without_value_are_left_out() -> None:
    assert intragroup_correlation([1, 1, 2, 2], [0, 0, 1, 1]) == 1.0
    nan = float("nan")
    assert intragroup_correlation([1, nan, 2, 5, 6, nan], [0, 0, 0, 1, 1, 2]) == intragroup_correlation(
        [1, 2, 5, 6], [0, 0, 1, 1]
    )


@pytest.mark.parametrize("codes", [[0, 0, 0], [0, 1, 2]])
def test_it_is_undefined_without_two_groups_and_a_group_of_two(codes: list[int]) -> None:
    assert math.isnan(intragroup_correlation([1.0, 2.0, 3.0], codes))
    assert math.isnan(intragroup_correlation([1.0, 1.0, 1.0], [0, 0, 1]))


def test_lengths_must_agree() -> None:
    with pytest.raises(ValueError, match="one group for each value"):
        intragroup_correlation([1.0, 2.0], [0])


def test_the_design_effect_is_the_inflation_of_a_mean() -> None:
    rng = np.random.default_rng(1)
    codes = np.repeat(np.arange(12), [1, 2, 3, 4, 5, 6, 1, 2, 3, 4, 5, 6])
    effects = rng.normal(0, math.sqrt(0.4), (20000, 12))[:, codes]
    means = (effects + rng.normal(0, math.sqrt(0.6), effects.shape)).mean(1)
    assert means.var() * len(codes) == pytest.approx(design_effect(0.4, codes), rel=0.05)
    assert design_effect(-0.2, codes) == 1.0
