# SPDX-License-Identifier: AGPL-3.0-or-later
"""The wheel holds all that the command needs, built, unpacked alone and run from outside the repository; so do the sources."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest
import yaml

from det_ls import __version__

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that holds the wheel's content and nothing else."""
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"
    source.mkdir()
    for name in ("pyproject.toml", "docs", "LICENSE", "det_ls"):  # a build writes beside what it reads
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
    done = run(site, "-m", "det_ls", "help")
    assert done.returncode == 0, done.stderr
    assert "label_smoothing=0.1" in done.stdout


def test_every_public_name_can_be_imported_from_the_wheel(site: Path) -> None:
    code = "import det_ls; print([getattr(det_ls, name).__name__ for name in det_ls.__all__ if name != '__version__'])"
    done = run(site, "-c", code)
    assert done.returncode == 0, done.stderr
    assert "YOLO" in done.stdout


def test_what_a_package_index_shows_links_to_no_file_of_a_clone(site: Path) -> None:
    metadata = next(site.glob("*.dist-info/METADATA")).read_text(encoding="utf-8")
    text = metadata.partition("\n\n")[2]
    assert text == (ROOT / "docs" / "pypi.md").read_text(encoding="utf-8")
    links = re.findall(r"\]\(([^)]*)\)|(?:src|href)=[\"']([^\"']*)", text)
    assert links
    assert [link for link in map("".join, links) if not link.startswith("https://")] == []


@pytest.mark.skipif(not (ROOT / ".git").exists(), reason="no clone")
def test_the_source_distribution_holds_what_a_clone_holds(tmp_path: Path) -> None:
    listed = subprocess.run(["git", "ls-files"], capture_output=True, text=True, check=True, cwd=ROOT).stdout.split(
        "\n"
    )
    clone = {name for name in listed if (ROOT / name).is_file()}
    for name in clone | {"runs/detect/train/results.csv", "docs/shot.html", "tests/left.pt", "datasets/phantom/a.yaml"}:
        file = tmp_path / "clone" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes((ROOT / name).read_bytes() if name in clone else b"")
    build = "from setuptools import build_meta; build_meta.build_sdist('..')"
    subprocess.run([sys.executable, "-c", build], check=True, cwd=tmp_path / "clone", capture_output=True)
    with tarfile.open(next(tmp_path.glob("*.tar.gz"))) as sources:
        held = {member.name.partition("/")[2] for member in sources.getmembers() if member.isfile()}
    made = {"PKG-INFO", "setup.cfg"} | {name for name in held if name.startswith("det_ls.egg-info/")}
    assert held - made == clone - {".gitignore", ".pre-commit-config.yaml"}


def test_the_version_is_the_same_wherever_it_is_stated() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    heading = re.search(r"^## (\S+)", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert citation["version"] == __version__
    assert heading is not None
    assert heading[1] in {__version__, "Unreleased"}
