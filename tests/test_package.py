# SPDX-License-Identifier: AGPL-3.0-or-later
"""The wheel holds all that the command needs: it is built, unpacked alone, and run from outside the repository."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that holds the wheel's content and nothing else."""
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"
    source.mkdir()
    for name in ("pyproject.toml", "README.md", "LICENSE", "det_ls"):  # a build writes beside what it reads
        (source / name).symlink_to(ROOT / name)
    build = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "--wheel-dir"]
    subprocess.run([*build, str(folder), str(source)], check=True, cwd=folder)
    with zipfile.ZipFile(next(folder.glob("*.whl"))) as wheel:
        wheel.extractall(folder / "site")
    return folder / "site"


def run(site: Path, *words: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(site)}
    return subprocess.run([sys.executable, *words], capture_output=True, text=True, cwd=site.parent, env=environment)


def test_the_wheel_holds_every_module_and_template(site: Path) -> None:
    ours = {p.relative_to(ROOT) for p in (ROOT / "det_ls").rglob("*") if p.is_file() and "__pycache__" not in p.parts}
    assert ours == {p.relative_to(site) for p in (site / "det_ls").rglob("*") if p.is_file()}


def test_the_wheel_alone_runs_the_command(site: Path) -> None:
    where = run(site, "-c", "import det_ls; print(det_ls.__file__)")
    assert Path(where.stdout.strip()).is_relative_to(site)
    done = run(site, "-m", "det_ls.cli", "help")
    assert done.returncode == 0, done.stderr
    assert "label_smoothing=0.1" in done.stdout


def test_every_public_name_can_be_imported_from_the_wheel(site: Path) -> None:
    code = "import det_ls; print([getattr(det_ls, name).__name__ for name in det_ls.__all__ if name != '__version__'])"
    done = run(site, "-c", code)
    assert done.returncode == 0, done.stderr
    assert "YOLO" in done.stdout
