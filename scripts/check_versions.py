# SPDX-License-Identifier: AGPL-3.0-or-later
"""Run the tests of the seams with Ultralytics on the oldest, the middle and the newest versions, and print the table.

    python scripts/check_versions.py [oldest] [middle] [newest] [workers=2]

Each row is a virtual environment of its own, `.venv-NAME`, made from the constraints in `.ci/NAME.txt` with the Python
that the row names; the newest has no constraints. A row whose Python is not found is left out, and the status is then 1
as it is when a test fails. Nothing but the standard library is needed. The whole suite on the oldest versions is
`make test-oldest`.
"""

from __future__ import annotations

import os
import subprocess
import sys
import xml.etree.ElementTree as ET
from datetime import date
from pathlib import Path

ROOT = Path(__file__).parents[1]
PYTHONS = {"oldest": "3.10", "middle": "3.12", "newest": "3.13"}
PACKAGES = ("ultralytics", "torch", "torchvision", "numpy", "opencv-python")
# What touches Ultralytics: each seam and what it assumes, each criterion, each way to train, the fold, the predictions.
TESTS = (
    "tests/stock",
    "tests/losses/lean",
    "tests/losses/test_agreement.py",
    "tests/losses/test_criterion.py",
    "tests/losses/test_families.py",
    "tests/losses/test_first_batch.py",
    "tests/training/test_training_paths.py",
    "tests/training/test_tasks.py",
    "tests/calibration/test_fold.py",
    "tests/evaluation/test_predictions.py",
)


def find_python(version: str) -> str | None:
    """Return a command that is Python of this version and starts, or None."""
    pyenv = sorted(Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")).glob(f"versions/{version}.*/bin/python"))
    for command in (f"python{version}", *map(str, reversed(pyenv))):
        try:
            said = subprocess.run([command, "--version"], capture_output=True, text=True)
        except OSError:
            continue
        if said.returncode == 0 and f"Python {version}." in said.stdout:
            return command
    return None


def environment(name: str, python: str) -> Path:
    """Make a row's virtual environment, or bring it up to date; return its Python."""
    folder = ROOT / f".venv-{name}"
    own = folder / "bin" / "python"
    if not own.exists():
        subprocess.run([python, "-m", "venv", str(folder)], check=True)
        subprocess.run([str(own), "-m", "pip", "install", "--quiet", "--upgrade", "pip"], check=True)
    constraints = ROOT / ".ci" / f"{name}.txt"
    limit = ["--constraint", str(constraints)] if constraints.exists() else ["--upgrade"]
    subprocess.run([str(own), "-m", "pip", "install", "--quiet", *limit, "--editable", ".[test]"], check=True, cwd=ROOT)
    return own


def versions(python: Path) -> list[str]:
    """Return the versions of Python and of the packages, as installed."""
    code = (
        "import platform, importlib.metadata as m; "
        f"print(platform.python_version(), *(m.version(p) for p in {PACKAGES!r}))"
    )
    return subprocess.run([str(python), "-c", code], check=True, capture_output=True, text=True).stdout.split()


def run_tests(name: str, python: Path, workers: str) -> tuple[int, int, int]:
    """Run the tests; return how many passed, failed and were skipped."""
    report = ROOT / f".venv-{name}" / "tests.xml"
    report.unlink(missing_ok=True)
    env = {**os.environ, "PYTHONPATH": str(ROOT), "YOLO_OFFLINE": "True", "YOLO_AUTOINSTALL": "False"}
    words = [str(python), "-m", "pytest", "-n", workers, "-p", "no:cacheprovider", f"--junitxml={report}", *TESTS]
    subprocess.run(words, cwd=ROOT, env=env)
    suites = list(ET.parse(report).getroot().iter("testsuite"))
    count = {key: sum(int(s.get(key, 0)) for s in suites) for key in ("tests", "failures", "errors", "skipped")}
    failed = count["failures"] + count["errors"]
    return count["tests"] - failed - count["skipped"], failed, count["skipped"]


def main(words: list[str]) -> int:
    """Run the rows that are asked for, all without a name; return the exit status."""
    workers = next((word.removeprefix("workers=") for word in words if word.startswith("workers=")), "2")
    names = [word for word in words if not word.startswith("workers=")]
    unknown = [name for name in names if name not in PYTHONS]
    if unknown:
        print(f"names: expected some of {', '.join(PYTHONS)}, got {', '.join(unknown)}.", file=sys.stderr)
        return 2
    rows, status = [], 0
    for name in names or PYTHONS:
        command = find_python(PYTHONS[name])
        if command is None:
            print(f"{name}: expected a Python {PYTHONS[name]}, found none.", file=sys.stderr)
            status = 1
            continue
        python = environment(name, command)
        passed, failed, skipped = run_tests(name, python, workers)
        status = max(status, int(failed > 0 or passed == 0))
        rows.append([name, *versions(python), str(passed), str(failed), str(skipped), date.today().isoformat()])
    head = ["versions", "Python", *PACKAGES, "passed", "failed", "skipped", "on"]
    for row in (head, ["---"] * len(head), *rows):
        print("| " + " | ".join(row) + " |")
    return status


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
