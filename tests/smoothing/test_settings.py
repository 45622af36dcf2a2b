# SPDX-License-Identifier: AGPL-3.0-or-later
from __future__ import annotations

import math
import subprocess
import sys

import pytest

from det_ls.smoothing.settings import LabelSmoothing, check_unique, ordered_names, split_keys
from det_ls.smoothing.similarity import SimilarityTable

NAMES = ["negative", "positive"]


def test_importing_the_package_is_light():
    code = "import det_ls, sys; print([m for m in ('torch', 'ultralytics', 'numpy') if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "[]"


def test_every_public_name_is_importable():
    import det_ls

    for name in det_ls.__all__:
        assert getattr(det_ls, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        det_ls.nonsense  # noqa: B018


def test_mapping_fills_the_default_and_takes_indices():
    assert LabelSmoothing({"default": 0.05, "positive": 0.2}).epsilons(NAMES) == [0.05, 0.2]
    assert LabelSmoothing({1: 0.2}).epsilons(NAMES) == [0.0, 0.2]


def test_all_zero_means_disabled_and_is_saved_as_one_plain_key():
    for value in (0, 0.0, {"default": 0.0}, {"positive": 0}):
        keys = LabelSmoothing(value, label_smoothing_mode="uniform", label_smoothing_schedule="linear")
        assert not keys.enabled
        assert keys.to_args() == {"label_smoothing": 0.0}


def test_none_means_the_default():
    assert LabelSmoothing.from_args({"label_smoothing": None, "label_smoothing_mode": None}) == LabelSmoothing()


BAD_KEYS = [
    ({"label_smoothing": True}, TypeError, "label_smoothing: expected a number of at least 0, got bool True"),
    ({"label_smoothing": "1e-1"}, TypeError, r"got str '1e-1' \(YAML reads 1e-1 as a string: write 0.1\)"),
    ({"label_smoothing": math.nan}, ValueError, "label_smoothing: expected a number of at least 0, got nan"),
    ({"label_smoothing": math.inf}, ValueError, "label_smoothing: expected a number of at least 0, got inf"),
    ({"label_smoothing": -0.1}, ValueError, "label_smoothing: expected a number of at least 0, got -0.1"),
    ({"label_smoothing": [0.1]}, TypeError, "label_smoothing: expected a number of at least 0, got list"),
    ({"label_smoothing": {}}, ValueError, "label_smoothing: expected a number or a mapping"),
    ({"label_smoothing": {"a": "0.1"}}, TypeError, "label_smoothing of class 'a': expected a number"),
    ({"label_smoothing": {True: 0.1}}, TypeError, "expected class names, class indices or 'default' as keys, got True"),
    ({"label_smoothing_mode": "even"}, ValueError, "label_smoothing_mode: expected one of redistribute.*got 'even'"),
    ({"label_smoothing_mode": 3}, ValueError, "label_smoothing_mode: expected one of redistribute.*got 3"),
    ({"label_smoothing_schedule": "step"}, ValueError, "label_smoothing_schedule: expected one of constant.*got 'step'"),
    ({"label_smoothing_eps": 0.1}, TypeError, "label_smoothing_eps: expected one of the keys .* got an unknown key"),
    ({"label_smoothing_similarity": 3}, TypeError, "label_smoothing_similarity: expected the path of a CSV file, got 3"),
    (
        {"label_smoothing_similarity": "t.csv", "label_smoothing_mode": "uniform"},
        ValueError,
        "label_smoothing_similarity: expected label_smoothing_mode 'redistribute' with a table, got 'uniform'",
    ),
]  # fmt: skip


@pytest.mark.parametrize(("keys", "error", "message"), BAD_KEYS)
def test_bad_keys_are_named_without_any_data(keys, error, message):
    with pytest.raises(error, match=message):
        LabelSmoothing.from_args(keys)


BAD_FOR_DATA = [
    ({"postive": 0.1}, "expected a class of the data, got 'postive'; did you mean 'positive'"),
    ({2: 0.1}, "expected a class index below 2, got 2"),
    ({-1: 0.1}, "expected a class index below 2, got -1"),
    ({1: 0.1, "positive": 0.1}, "expected each class once, got 1 and 'positive', the same class"),
    ({"positive": 0.5}, "below 0.5 for class 'positive' .* got 0.5"),
    (0.5, "below 0.5 for class 'negative' .* got 0.5"),
]


@pytest.mark.parametrize(("value", "message"), BAD_FOR_DATA)
def test_what_needs_the_classes_is_checked_with_them(value, message):
    with pytest.raises(ValueError, match=message):
        LabelSmoothing(value).matrix(NAMES)


def test_a_misspelt_key_is_not_taken_for_an_ultralytics_key():
    with pytest.raises(TypeError, match="did you mean 'label_smoothing'"):
        split_keys({"labelsmoothing": 0.1})
    with pytest.raises(TypeError, match="did you mean 'label_smoothing'"):
        split_keys({"lable_smoothing": 0.1})


TABLE = ",cat,dog,fox\ncat,0,1,0\ndog,2,0,2\nfox,0,0,0\n"


def test_a_table_is_read_by_name_whatever_its_order():
    table = SimilarityTable.parse(TABLE, "t.csv")
    assert table.for_classes(["dog", "cat", "fox"]) == [[0, 2, 2], [1, 0, 0], [0, 0, 0]]
    keys = LabelSmoothing(0.2)
    matrix = keys.matrix(["dog", "cat", "fox"], table)
    assert matrix[1].tolist() == pytest.approx([0.2, 0.8, 0.0])
    assert matrix[2].tolist() == pytest.approx([0.1, 0.1, 0.8])


BAD_TABLES = [
    ("", "expected a header and one row for each class"),
    (",a,b\na,0,1\n", "expected the same class names in header and first column"),
    (",a,b\nb,0,1\na,1,0\n", "expected the same class names in header and first column"),
    (",a,a\na,0,1\na,1,0\n", "expected each class name once"),
    (",a,b\na,0\nb,1,0\n", "expected 2 numbers in row 'a', got 1"),
    (",a,b\na,0,x\nb,1,0\n", "row 'a': expected a number, got 'x'"),
    (",a,b\na,0,-1\nb,1,0\n", "row 'a': expected finite, non-negative numbers, got '-1'"),
    (",a,b\na,0,nan\nb,1,0\n", "row 'a': expected finite, non-negative numbers, got 'nan'"),
]


@pytest.mark.parametrize(("text", "message"), BAD_TABLES)
def test_bad_tables_are_named(text, message):
    with pytest.raises(ValueError, match=f"label_smoothing_similarity: t.csv: {message}"):
        SimilarityTable.parse(text, "t.csv")


def test_a_table_of_other_classes_is_refused():
    with pytest.raises(ValueError, match=r"missing \['cow'\], unknown \['fox'\]"):
        SimilarityTable.parse(TABLE, "t.csv").for_classes(["cat", "dog", "cow"])


def test_a_table_that_is_no_text_is_one_sentence(tmp_path):
    (tmp_path / "t.csv").write_bytes(b",a\xff,b\n")
    with pytest.raises(ValueError, match="expected a UTF-8 text file, got .*t.csv"):
        SimilarityTable.read(tmp_path / "t.csv")


def test_without_smoothing_there_is_no_bound_and_one_class_is_fine():
    LabelSmoothing(0.0).check(["only"])
    LabelSmoothing({"default": 0.0}).check(["only"])
    with pytest.raises(ValueError, match="expected a class of the data, got 'other'"):
        LabelSmoothing({"other": 0.0}).check(["only"])


def test_a_missing_table_is_a_missing_file(tmp_path):
    with pytest.raises(FileNotFoundError, match="label_smoothing_similarity: expected a CSV file, got .*nothing.csv"):
        SimilarityTable.read(tmp_path / "nothing.csv")


def test_names_come_in_index_order_from_either_form():
    assert ordered_names({2: "c", 0: "a", 10: "k", 1: 7}) == ["a", "7", "c", "k"]
    assert ordered_names(("b", 3)) == ["b", "3"]


def test_a_name_that_stands_for_two_classes_is_refused():
    with pytest.raises(ValueError, match="expected each class name once, got 'dog' for the classes 1 and 3"):
        check_unique(["cat", "dog", "cow", "dog"])
    check_unique(["cat", "dog"])


def test_a_description_names_what_is_in_use_and_nothing_else():
    assert LabelSmoothing(0.1, "uniform").describe() == "label_smoothing=0.1 mode=uniform schedule=constant"
    assert LabelSmoothing(0.0, "uniform").describe() == "label_smoothing=0.0"
    assert LabelSmoothing(0.0, calibrate="val").describe() == "label_smoothing=0.0 calibrate=val"
