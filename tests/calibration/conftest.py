# SPDX-License-Identifier: AGPL-3.0-or-later
"""Lets these tests import the simulated detectors of scripts/."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2] / "scripts"))
