# SPDX-License-Identifier: AGPL-3.0-or-later
"""The words of a study become the cells that a user means, in the order that a cut study wants."""

from __future__ import annotations

import pytest

from det_ls.base.errors import DetLsError
from det_ls.studies.grid import Grid, cell_name, training_keys
from det_ls.studies.records import Arm, Condition


def test_stock_is_counted_once_and_comes_first():
    grid = Grid.from_words({"label_smoothing": "0.1,0,0.3", "label_smoothing_mode": "redistribute,background"})
    assert [arm.name for arm in grid.arms] == [
        "stock",
        "redistribute 0.1",
        "background 0.1",
        "redistribute 0.3",
        "background 0.3",
    ]


@pytest.mark.parametrize(
    ("value", "seeds"),
    [(3, (0, 1, 2)), ("3", (0, 1, 2)), ("10,11", (10, 11)), ((10, 11), (10, 11)), ("[7]", (7,)), ([7], (7,))],
)
def test_seeds_are_a_number_or_a_list(value, seeds):
    assert Grid.from_words({"seeds": value}).seeds == seeds


def test_whole_seeds_come_first():
    cells = Grid.from_words({"seeds": 3, "label_noise": "0,0.3", "fraction": "0.5,1"}).cells
    assert len(cells) == 3 * 4 * 2
    for first in (8, 16):  # cut after a seed: every arm and condition equally often
        cut = cells[:first]
        counts = {(c.arm, c.condition): 0 for c in cells}
        for cell in cut:
            counts[cell.arm, cell.condition] += 1
        assert set(counts.values()) == {first // 8}


def test_values_from_python_and_from_words_are_the_same_cells():
    words = Grid.from_words({"label_smoothing": "0,0.10", "label_noise": "0.3", "seeds": "2"})
    python = Grid.from_words({"label_smoothing": [0, 0.1], "label_noise": 0.3, "seeds": 2})
    assert words == python


def test_a_mapping_is_one_epsilon():
    grid = Grid.from_words({"label_smoothing": [0, {"default": 0.05, "a": 0.2}]})
    assert training_keys(grid.arms[1])["label_smoothing"] == {"default": 0.05, "a": 0.2}
    assert training_keys(Arm("mine"))["label_smoothing"] == "mine"


def test_folders_are_readable_and_different():
    grid = Grid.from_words(
        {"label_smoothing": [0, 0.1, {"a": 0.2}, {"b": 0.2}], "label_noise": [0, 0.3], "label_jitter": [0, 0.1]}
    )
    names = [cell_name(cell) for cell in grid.cells]
    assert len(set(names)) == len(names)
    assert {"seed0/stock", "seed0/redistribute_0.1_flip0.3_jitter0.1"} <= set(names)


@pytest.mark.parametrize(
    "words",
    [
        {"seeds": 0},
        {"seeds": "1,1"},
        {"seeds": "a,b"},
        {"seeds": -1},
        {"label_noise": 1},
        {"label_noise": "x"},
        {"fraction": 0},
        {"fraction": "1,1"},
        {"label_jitter": -0.1},
        {"label_smoothing": "0,0.0"},
        {"label_smoothing": ""},
        {"label_smoothing": True},
    ],
)
def test_what_does_not_fit_is_one_sentence(words):
    with pytest.raises(DetLsError, match="expected"):
        Grid.from_words(words)


def test_conditions_are_the_product():
    grid = Grid.from_words({"label_noise": "0,0.3", "label_drop": "0,0.1"})
    assert grid.conditions == (Condition(), Condition(drop=0.1), Condition(flip=0.3), Condition(flip=0.3, drop=0.1))
