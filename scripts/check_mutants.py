# SPDX-License-Identifier: AGPL-3.0-or-later
"""Mutation testing of the maths of smoothing and of the losses: break a line, and see whether a test notices.

    python scripts/check_mutants.py [smoothing] [cross_entropy] [criteria] [again] [out=.mutation]

mutmut makes the mutants and runs them. Each part has its own modules and the tests that are to notice, so that a mutant
costs about a second; tests that start processes or train are left out. It goes on where it was stopped; `again` runs
the survivors again, after tests were added. In the end the counts and the survivors are printed;
docs/mutation_testing.md says why each of these is no fault.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).parents[1]
COPIED = ("det_ls", "tests", "docs", "scripts", "cfg", "datasets", "pyproject.toml", "README.md", "LICENSE")
SLOW = (
    "processes or benchmark or peak_extra_memory or large_vocabulary or public_name or package_is_light"
    " or yolov8n or yolo11n-seg or yolo11n-obb or deterministic_mode"
)
# modules, and the tests that are to notice
PARTS = {
    "smoothing": (["det_ls/smoothing/*.py"], ["tests/smoothing"]),
    "cross_entropy": (
        ["det_ls/losses/cross_entropy.py"],
        ["tests/losses/test_cross_entropy.py", "tests/losses/test_cross_entropy_details.py"],
    ),
    "criteria": (
        ["det_ls/losses/*.py"],
        [
            "tests/losses/lean",
            "tests/losses/test_agreement.py",
            "tests/losses/test_criterion.py",
            "tests/losses/test_families.py",
            "tests/losses/test_first_batch.py",
        ],
    ),
}
STATUS = {0: "survived", 1: "killed", 3: "killed", 33: "no test"}  # mutmut's exit codes; others end by a signal


def prepare(part: str, folder: Path) -> None:
    """Copy what the tests need to a folder, with a configuration for one part."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in COPIED:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, folder / name, dirs_exist_ok=True)
        else:
            shutil.copy2(ROOT / name, folder / name)
    modules, tests = PARTS[part]
    settings = {
        "source_paths": ["det_ls"],
        "only_mutate": modules,
        "do_not_mutate": ["det_ls/losses/cross_entropy.py"] if part == "criteria" else [],
        "also_copy": [name for name in COPIED if name not in ("det_ls", "tests", "pyproject.toml")],
        "pytest_add_cli_args": ["-p", "no:cacheprovider", "-k", f"not ({SLOW})"],
        "pytest_add_cli_args_test_selection": tests,
    }
    lines = [f"{key} =\n    " + "\n    ".join(values) for key, values in settings.items() if values]
    (folder / "setup.cfg").write_text("[mutmut]\n" + "\n".join(lines) + "\n")


def outcomes(folder: Path) -> dict[str, str]:
    """Return what became of each mutant of a part."""
    found: dict[str, str] = {}
    for file in sorted(folder.glob("mutants/det_ls/**/*.meta")):
        codes: dict[str, int | None] = json.loads(file.read_text())["exit_code_by_key"]
        found.update({k: "not run" if v is None else STATUS.get(v, f"exit {v}") for k, v in codes.items()})
    return found


def main(words: list[str]) -> int:
    """Run the parts that are asked for, all without a name; return the exit status."""
    out = next((Path(word.removeprefix("out=")) for word in words if word.startswith("out=")), ROOT / ".mutation")
    parts = [word for word in words if word != "again" and not word.startswith("out=")] or list(PARTS)
    if unknown := [part for part in parts if part not in PARTS]:
        print(f"parts: expected some of {', '.join(PARTS)}, got {', '.join(unknown)}.", file=sys.stderr)
        return 2
    env = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    env |= {"OMP_NUM_THREADS": "1", "YOLO_OFFLINE": "True", "YOLO_AUTOINSTALL": "False"}
    status = 0
    for part in parts:
        folder = out.resolve() / part
        prepare(part, folder)
        again = [name for name, what in outcomes(folder).items() if what != "killed"] if "again" in words else []
        with (folder / "log.txt").open("w") as log:
            command = [sys.executable, "-m", "mutmut", "run", "--max-children", "1", *again]
            status |= subprocess.run(command, cwd=folder, env=env, stdout=log, stderr=log).returncode
        found = outcomes(folder)
        print(f"{part}: {len(found)} mutants,", ", ".join(f"{n} {k}" for k, n in Counter(found.values()).most_common()))
        for name, what in found.items():
            if what != "killed":
                print(f"  {what}: {name}")
    return status


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
