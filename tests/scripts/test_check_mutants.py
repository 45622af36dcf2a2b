# SPDX-License-Identifier: AGPL-3.0-or-later
"""The mutation run names modules and tests that exist, and its page accounts for every survivor that it names."""

from __future__ import annotations

import json
from pathlib import Path

import check_mutants as script

ROOT = Path(__file__).parents[2]


def test_every_module_of_the_maths_belongs_to_a_part_and_every_test_exists():
    mutated = {p for modules, _ in script.PARTS.values() for pattern in modules for p in ROOT.glob(pattern)}
    assert mutated >= set(ROOT.glob("det_ls/smoothing/*.py")) | set(ROOT.glob("det_ls/losses/*.py"))
    assert [t for _, tests in script.PARTS.values() for t in tests if not (ROOT / t).exists()] == []


def test_what_became_of_each_mutant_is_read_from_mutmuts_files(tmp_path):
    folder = tmp_path / "mutants" / "det_ls" / "smoothing"
    folder.mkdir(parents=True)
    codes = {"a__mutmut_1": 1, "a__mutmut_2": 0, "a__mutmut_3": None, "a__mutmut_4": 33, "a__mutmut_5": 36}
    (folder / "matrix.py.meta").write_text(json.dumps({"exit_code_by_key": codes}))
    assert script.outcomes(tmp_path) == {
        "a__mutmut_1": "killed",
        "a__mutmut_2": "survived",
        "a__mutmut_3": "not run",
        "a__mutmut_4": "no test",
        "a__mutmut_5": "exit 36",
    }


def test_an_unknown_part_is_one_sentence(capsys):
    assert script.main(["metrics"]) == 2
    assert capsys.readouterr().err == "parts: expected some of smoothing, cross_entropy, criteria, got metrics.\n"
