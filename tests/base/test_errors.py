# SPDX-License-Identifier: AGPL-3.0-or-later
from __future__ import annotations

import ast
import builtins
from pathlib import Path

import pytest

import det_ls
from det_ls.base import errors

PACKAGE = Path(det_ls.__file__).parent
# What a caller of Python itself expects, not a refusal: a missing attribute, a subclass's duty.
PLAIN = {"AttributeError", "KeyError", "StopIteration"}


def raised() -> list[tuple[str, str, ast.Call]]:
    """Return each ``raise SomeError(...)`` of the package: where, what, and the call."""
    found = []
    for file in sorted(PACKAGE.rglob("*.py")):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call) and isinstance(node.exc.func, ast.Name):
                found.append((f"{file.relative_to(PACKAGE)}:{node.lineno}", node.exc.func.id, node.exc))
    return found


TYPED = (
    "base",
    "calibration",
    "cli",
    "data",
    "evaluation",
    "losses",
    "metrics",
    "report",
    "smoothing",
    "stock",
    "studies",
    "training",
    "uncertainty",
)


def test_every_error_is_ours_by_type():
    """A builtin raised by name would be a traceback on the command line, as any defect is."""
    plain = [
        f"{where}: {name}"
        for where, name, _ in raised()
        if where.startswith(TYPED) and isinstance(getattr(builtins, name, None), type) and name not in PLAIN
    ]
    assert plain == []


def test_every_error_says_what_was_expected():
    """``name: expected X, got Y.``: the literal parts of each message."""
    silent = []
    for where, name, call in raised():
        if not (name.endswith("Error") and where.startswith(TYPED)) or name in PLAIN or not call.args:
            continue
        parts = [n.value for n in ast.walk(call.args[0]) if isinstance(n, ast.Constant) and isinstance(n.value, str)]
        names = [n for n in ast.walk(call.args[0]) if isinstance(n, ast.Name)]
        if "expected" not in "".join(parts) and not names:  # a message that is put together elsewhere is a name
            silent.append(where)
    assert silent == []


@pytest.mark.parametrize(
    ("kind", "builtin"),
    [
        (errors.ArgumentError, ValueError),
        (errors.DataError, ValueError),
        (errors.ArgumentTypeError, TypeError),
        (errors.MissingFileError, FileNotFoundError),
        (errors.ExistingFileError, FileExistsError),
        (errors.UnwritableError, OSError),
        (errors.DownloadError, ConnectionError),
        (errors.MissingPackageError, ImportError),
        (errors.VersionError, RuntimeError),
        (errors.RunError, RuntimeError),
    ],
)
def test_callers_catch_the_builtin_or_ours(kind, builtin):
    for catch in (builtin, det_ls.DetLsError):
        with pytest.raises(catch, match=r"^a: expected b, got c\.$"):
            raise kind("a: expected b, got c.")


def test_the_sentence_stays_on_one_line():
    error = errors.DataError("labels: expected é, got a\nb\x00\ud800.")
    assert str(error) == r"labels: expected é, got a\nb\x00\ud800."
    assert str(errors.MissingFileError("a: expected b,\tgot c.")) == r"a: expected b,\tgot c."
    assert errors.MissingFileError("x").errno is None


def test_a_refusal_can_be_caught_as_ours():
    with pytest.raises(det_ls.DetLsError, match="epsilon of class"):
        det_ls.smoothing_matrix(3, -1)
