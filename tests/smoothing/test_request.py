# SPDX-License-Identifier: AGPL-3.0-or-later
from __future__ import annotations

import pytest

from det_ls.smoothing.request import Request, refuse_keys

TABLE = ",a,b\na,0,1\nb,1,0\n"


def test_a_parsed_request_is_handed_on_as_it_is(monkeypatch):
    request = Request.parse({"label_smoothing": 0.1, "label_smoothing_mode": "uniform", "epochs": 3})
    monkeypatch.setattr("det_ls.smoothing.request.LabelSmoothing.from_args", None)  # nothing is parsed again
    assert Request.parse({"label_smoothing": request, "label_smoothing_mode": "uniform", "epochs": 3}) is request


def test_keys_that_were_not_given_do_not_differ():
    saved = Request.parse({"label_smoothing": 0.1, "label_smoothing_schedule": "linear"})
    assert Request.parse({"label_smoothing": 0.1}).differing(saved) == []
    assert Request.parse({"label_smoothing": 0.2, "label_smoothing_mode": None}).differing(saved) == ["label_smoothing"]


@pytest.mark.parametrize("with_epsilon", [True, False])
def test_tables_differ_by_content(with_epsilon, tmp_path):
    for name, text in (("same.csv", TABLE), ("copy.csv", TABLE), ("other.csv", TABLE.replace("0,1", "0,2"))):
        (tmp_path / name).write_text(text)
    saved = Request.parse({"label_smoothing": 0.1, "label_smoothing_similarity": str(tmp_path / "copy.csv")})
    keys = {"label_smoothing": 0.1} if with_epsilon else {}
    same = Request.parse({**keys, "label_smoothing_similarity": str(tmp_path / "same.csv")})
    other = Request.parse({**keys, "label_smoothing_similarity": str(tmp_path / "other.csv")})
    assert same.differing(saved) == []
    assert other.differing(saved) == ["label_smoothing_similarity"]


def test_the_copy_is_read_where_the_table_is_gone(tmp_path):
    (tmp_path / "copy.csv").write_text(TABLE)
    keys = {"label_smoothing": 0.1, "label_smoothing_similarity": str(tmp_path / "gone.csv")}
    assert Request.of_keys(keys, table_copy=tmp_path / "copy.csv").table.names == ("a", "b")
    with pytest.raises(FileNotFoundError, match="expected a CSV file, got .*gone.csv"):
        Request.of_keys(keys)


def test_a_refusal_names_the_keys_that_were_given():
    request = Request.parse({"label_smoothing": 0.1, "label_smoothing_mode": "uniform"})
    with pytest.raises(ValueError, match="^label_smoothing, label_smoothing_mode: expected another thing"):
        refuse_keys({"label_smoothing": request}, "expected another thing.")
    with pytest.raises(ValueError, match="^label_smoothing_mode, calibrate: expected another thing"):
        refuse_keys({"label_smoothing_mode": "uniform", "calibrate": "val", "epochs": 3}, "expected another thing.")
    refuse_keys({"epochs": 3}, "expected another thing.")


def test_keys_that_say_how_without_an_epsilon_are_refused():
    keys = {"label_smoothing_mode": "uniform", "label_smoothing_schedule": "linear"}
    with pytest.raises(
        ValueError, match="^label_smoothing_mode, label_smoothing_schedule: expected label_smoothing= as well, got none"
    ):
        Request.parse({**keys, "calibrate": "val"}).check_epsilon()
    Request.parse({**keys, "label_smoothing": 0.0}).check_epsilon()
    Request.parse({"calibrate": "val"}).check_epsilon()


def test_a_request_is_checked_against_the_classes_of_the_data():
    request = Request.parse({"label_smoothing": {"b": 0.6}})
    with pytest.raises(ValueError, match="below 0.5 for class 'b'"):
        request.check(["a", "b"])
    with pytest.raises(ValueError, match="expected a class of the data, got 'b'"):
        request.check(["x", "y", "z"])
    request.check(["a", "b", "c"])


def test_a_request_makes_a_policy_only_where_it_smooths():
    assert Request.parse({"label_smoothing": 0.0}).policy(["a", "b"]) is None
    policy = Request.parse({"label_smoothing": 0.2, "label_smoothing_schedule": "linear"}).policy(["a", "b"])
    assert policy.matrix(1, 3).tolist() == [[0.9, 0.1], [0.1, 0.9]]
