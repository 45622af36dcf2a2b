# SPDX-License-Identifier: AGPL-3.0-or-later
"""What mutation testing found that no other test would notice (docs/mutation_testing.md)."""

from __future__ import annotations

from pathlib import Path
from types import MappingProxyType

import pytest
import torch

from det_ls import smooth_targets, smoothing_matrix
from det_ls.smoothing.columns import csv_cell
from det_ls.smoothing.matrix import check_epsilon
from det_ls.smoothing.request import Request
from det_ls.smoothing.settings import LabelSmoothing, split_keys
from det_ls.smoothing.similarity import SimilarityTable

TABLE = ",a,b,c\na,0,3,1\nb,1,0,1\nc,0,0,0\n"
NAMES = ["a", "b", "c"]
FIRST_ROW = [0.9, 0.075, 0.025]


@pytest.fixture
def table(tmp_path) -> Path:
    path = tmp_path / "similar.csv"
    path.write_text(TABLE)
    return path


def test_the_table_reaches_the_matrix_on_every_way(table):
    request = Request.parse({"label_smoothing": 0.1, "label_smoothing_similarity": table})
    assert request.policy(NAMES).matrix(0, 1)[0].tolist() == pytest.approx(FIRST_ROW)
    assert request.smoothing.matrix(NAMES, request.table)[0].tolist() == pytest.approx(FIRST_ROW)
    rows = [[0.0, 3.0, 1.0], [1.0, 0.0, 1.0], [0.0, 0.0, 0.0]]
    smoothed = smooth_targets(torch.eye(3, dtype=torch.float64), 0.1, similarity=rows)
    torch.testing.assert_close(smoothed, smoothing_matrix(3, 0.1, similarity=rows))
    assert smoothed[0].tolist() == pytest.approx(FIRST_ROW)
    assert smoothed[2].tolist() == pytest.approx([0.05, 0.05, 0.9])  # a row of zeros means evenly


def test_the_tables_bound_is_checked_against_the_classes(table):
    keys = {"label_smoothing": 0.6, "label_smoothing_similarity": str(table)}  # below 2/3, the bound without a table
    with pytest.raises(ValueError, match="label_smoothing: expected an epsilon below 0.571429 for class 'a'"):
        Request.parse(keys).check(NAMES)
    with pytest.raises(ValueError, match="below 0.571429"):
        LabelSmoothing(0.6, label_smoothing_similarity=str(table)).check(NAMES, SimilarityTable.read(table))


def test_the_copy_of_a_table_is_read_by_parse_too(table):
    keys = {"label_smoothing": 0.1, "label_smoothing_similarity": str(table.parent / "gone.csv")}
    assert Request.parse(keys, table_copy=table).table.names == ("a", "b", "c")


def test_without_smoothing_no_table_is_read(tmp_path):
    assert Request.parse({"label_smoothing": 0, "label_smoothing_similarity": str(tmp_path / "none.csv")}).table is None


def test_a_table_says_where_it_is_from(table):
    assert SimilarityTable.read(table).source == str(table)
    table.write_text(TABLE.replace("c,0,0,0", "c,0,0,x"))
    with pytest.raises(ValueError, match=f"label_smoothing_similarity: {table}"):
        SimilarityTable.read(table)


def test_two_epochs_are_the_first_and_the_last():
    policy = Request.parse({"label_smoothing": 0.2, "label_smoothing_schedule": "linear"}).policy(["a", "b"])
    assert [policy.logged(epoch, 2)["label_smoothing"] for epoch in (0, 1)] == [0.2, 0.0]


def test_values_become_plain_ones(table):
    assert type(LabelSmoothing(1 - 1).label_smoothing) is float
    mapping = LabelSmoothing(MappingProxyType({"a": 0, 0: torch.tensor(0.25).item()})).label_smoothing
    assert (type(mapping), mapping, type(mapping["a"])) == (dict, {"a": 0.0, 0: 0.25}, float)
    assert LabelSmoothing(0.1, label_smoothing_similarity=table).label_smoothing_similarity == str(table)


def test_the_first_class_has_index_zero():
    assert LabelSmoothing({0: 0.2}).epsilons(NAMES) == [0.2, 0.0, 0.0]


def test_keys_are_separated_from_the_rest():
    args = {"label_smoothing": 0.1, "calibrate": "val", "epochs": 3, "data": "x"}
    assert split_keys(args) == ({"label_smoothing": 0.1, "calibrate": "val"}, {"epochs": 3, "data": "x"})


def test_a_number_beyond_all_floats_is_no_epsilon():
    with pytest.raises(ValueError, match="epsilon: expected a number of at least 0"):
        check_epsilon(10**400, "epsilon")
    with pytest.raises(TypeError, match=r"got NoneType None\.$"):
        check_epsilon(None, "epsilon")


def test_a_name_with_a_comma_or_a_quote_is_one_cell():
    assert [csv_cell(name) for name in ('a,b"c', "a,b", "plain")] == ['"a,b""c"', '"a,b"', "plain"]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: smooth_targets(torch.tensor(1.0), 0.1), "targets: expected a tensor of shape (..., K), got a scalar."),
        (lambda: LabelSmoothing({}), "label_smoothing: expected a number or a mapping from class to number, got {}."),
        (lambda: LabelSmoothing(0.1, calibrate="train"), "calibrate: expected one of val, test, got 'train'."),
        (
            lambda: smoothing_matrix(2, 0.1, similarity=[[0, float("nan")], [1, 0]]),
            "label_smoothing_similarity: expected finite, non-negative entries, got NaN, inf or below 0.",
        ),
        *(
            (
                lambda mode=mode: smoothing_matrix(1, 0.1, mode),
                f"label_smoothing_mode '{mode}': expected at least 2 classes to move target mass between, got 1; "
                "with one class use label_smoothing_mode 'binary' or 'background'.",
            )
            for mode in ("redistribute", "uniform")
        ),
    ],
)
def test_a_refusal_says_exactly_this(call, message):
    with pytest.raises(ValueError) as refused:  # noqa: PT011 - the whole sentence is compared
        call()
    assert str(refused.value) == message


def test_both_lists_of_names_are_shown():
    with pytest.raises(ValueError, match=r"got .*'a'.*'b'.* and .*'a'.*'x'"):
        SimilarityTable.parse(",a,b\na,0,1\nx,1,0\n", "t.csv")
    with pytest.raises(ValueError, match="expected each class name once, got .*'a'"):
        SimilarityTable.parse(",a,a\na,0,1\na,1,0\n", "t.csv")


def test_an_empty_path_is_no_table():
    with pytest.raises(TypeError, match="label_smoothing_similarity: expected the path of a CSV file, got ''"):
        LabelSmoothing(0.1, label_smoothing_similarity="")
