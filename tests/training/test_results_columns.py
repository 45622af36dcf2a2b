# SPDX-License-Identifier: AGPL-3.0-or-later
"""results.csv of a mapping is a table for whoever reads it, whatever the classes are called."""

from __future__ import annotations

import csv

import pytest
from conftest import make_dataset
from ultralytics.utils.patches import torch_load

import det_ls
from det_ls.smoothing.policy import POLICIES, ScheduledPolicy, register_policy

NAMES = ('nut, 5"', "two\nlines", "=1+1", "@SUM(A1)", "two lines", "-", "schnee é ☃")


def test_names_of_all_kinds_make_a_table(quick, tmp_path):
    data = make_dataset(tmp_path / "data", NAMES)
    keys = {name: 0.01 * (i + 1) for i, name in enumerate(NAMES)}
    model = det_ls.YOLO("yolo11n.yaml")
    model.train(data=str(data), label_smoothing=keys, **{**quick, "epochs": 2})
    with open(model.trainer.csv, newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file, strict=True))
    assert [int(row["epoch"]) for row in rows] == [1, 2]
    assert len(model.trainer.csv.read_text(encoding="utf-8").splitlines()) == 3
    columns = {name: float(value) for name, value in rows[0].items() if name.startswith("label_smoothing/")}
    assert columns == pytest.approx({
        "label_smoothing/nut_ 5_": 0.01, "label_smoothing/two lines": 0.02, "label_smoothing/_1_1": 0.03,
        "label_smoothing/_SUM_A1_": 0.04, "label_smoothing/two lines 2": 0.05, "label_smoothing/-": 0.06,
        "label_smoothing/schnee é _": 0.07,
    })  # fmt: skip
    assert not any(name.startswith(tuple("=+-@")) for name in rows[0])
    results = torch_load(model.trainer.last, map_location="cpu")["train_results"]  # as Ultralytics reads it
    assert results["label_smoothing/nut_ 5_"] == pytest.approx([0.01, 0.01])


def test_a_name_with_a_comma_of_a_policys_own_is_one_column(quick, tiny):
    class Named(ScheduledPolicy):
        def logged(self, epoch, epochs):
            return {"easy, hard": 0.25}

    register_policy("named")(lambda keys, names, table: Named(lambda x: 1.0, keys, names, table))
    try:
        model = det_ls.YOLO("yolo11n.yaml")
        model.train(data=str(tiny), label_smoothing=0.1, label_smoothing_schedule="named", **quick)
    finally:
        del POLICIES["named"]
    with open(model.trainer.csv, newline="", encoding="utf-8") as file:
        assert float(next(csv.DictReader(file, strict=True))["easy, hard"]) == 0.25
