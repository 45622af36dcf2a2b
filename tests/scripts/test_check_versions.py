# SPDX-License-Identifier: AGPL-3.0-or-later
"""The matrix of versions runs tests that exist, with constraints that pyproject.toml allows."""

from __future__ import annotations

import platform
import sys
from pathlib import Path

import check_versions as script
import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).parents[2]


def constraints(name):
    lines = (ROOT / ".ci" / f"{name}.txt").read_text().splitlines()
    found = [Requirement(line) for line in lines if not line.startswith("#")]
    return {r.name: next(iter(r.specifier)).version for r in found}


def test_its_tests_exist():
    assert [path for path in script.TESTS if not (ROOT / path).exists()] == []


def test_a_python_is_found_by_its_version():
    own = ".".join(map(str, sys.version_info[:2]))
    assert script.find_python(own) is not None
    assert script.find_python("2.0") is None


def test_the_versions_are_those_that_are_installed():
    python, ultralytics, *_ = script.versions(Path(sys.executable))
    assert python == platform.python_version()
    assert ultralytics == __import__("ultralytics").__version__


def test_an_unknown_row_is_one_sentence(capsys):
    assert script.main(["oldish"]) == 2
    assert capsys.readouterr().err == "names: expected some of oldest, middle, newest, got oldish.\n"


@pytest.mark.parametrize("name", ["oldest", "middle"])
def test_the_constraints_lie_within_what_the_package_allows(name):
    if sys.version_info < (3, 11):
        pytest.skip("tomllib is part of Python from 3.11")
    import tomllib

    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    allowed = [Requirement(r) for r in [*project["dependencies"], *project["optional-dependencies"]["test"]]]
    pinned = constraints(name)
    assert "ultralytics" in pinned
    for requirement in allowed:
        if requirement.name in pinned:
            assert pinned[requirement.name] in requirement.specifier, requirement


def test_the_oldest_is_the_lower_bound():
    lines = (ROOT / "pyproject.toml").read_text()
    pinned = constraints("oldest")
    assert f'"ultralytics>={pinned["ultralytics"]},<8.5"' in lines
    assert f'"torch>={pinned["torch"].removesuffix(".0")}"' in lines
