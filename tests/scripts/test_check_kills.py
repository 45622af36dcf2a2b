# SPDX-License-Identifier: AGPL-3.0-or-later
"""Two runs killed with SIGKILL at random moments, one while it writes a checkpoint, lose nothing."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the script forks its runs")
def test_killed_runs_lose_nothing(tmp_path):
    words = ["kills=2", "seed=1", "phases=checkpoint-2,final", f"out={tmp_path}"]
    done = subprocess.run(
        [sys.executable, str(ROOT / "scripts" / "check_kills.py"), *words],
        env={**os.environ, "PYTHONPATH": str(ROOT)}, cwd=tmp_path, capture_output=True, text=True,
    )  # fmt: skip
    assert "2 kills, 0 with a loss" in done.stdout, done.stdout + done.stderr
    assert done.returncode == 0
    assert len((tmp_path / "kills.jsonl").read_text().splitlines()) == 2
