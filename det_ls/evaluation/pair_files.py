# SPDX-License-Identifier: AGPL-3.0-or-later
"""What a comparison writes, of detectors or of classifiers."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Protocol

from det_ls.base.files import write_json
from det_ls.base.folders import claim_folder
from det_ls.evaluation.results import RESULT_FILES
from det_ls.uncertainty.seeds import SeedComparison

COMPARISON_FILE = "comparison.json"
PAIR_FILES = (COMPARISON_FILE, *(f"{part}/{name}" for part in ("a", "b") for name in RESULT_FILES))


class Side(Protocol):
    """One side of a comparison: the numbers of a model."""

    @property
    def protocol(self) -> Mapping[str, Any]:
        """How the numbers came about."""

    def save(self, folder: str | Path, exist_ok: bool = False) -> None:
        """Write the numbers' files."""


def save_pair(folder: str | Path, a: Side, b: Side, content: Mapping[str, Any], *, exist_ok: bool) -> None:
    """Write ``comparison.json``, and the files of both sides into the folders ``a`` and ``b``.

    Args:
        folder: Where to write; made if need be.
        a: The first side.
        b: The second side.
        content: The comparison, as JSON can hold it.
        exist_ok: Whether to replace files that are there.

    Raises:
        FileExistsError: If a file is there and ``exist_ok`` is False.
    """
    with claim_folder(folder, results=PAIR_FILES, exist_ok=exist_ok) as place:
        a.save(place / "a")
        b.save(place / "b")
        write_json(place / COMPARISON_FILE, content, indent=2)


def over_seeds(
    seeds: Iterable[SeedComparison] | None, paired: bool, runs: Mapping[str, Sequence[Side]]
) -> dict[str, Any]:
    """Say what was found over training seeds, and of which runs.

    Args:
        seeds: The comparisons over seeds; None where they were not measured.
        paired: Whether the runs pair by seed.
        runs: The runs of each arm, by name.

    Returns:
        What JSON can hold; empty where seeds were not measured.
    """
    if seeds is None:
        return {}
    named = {
        name: [run.protocol.get("weights", run.protocol.get("detections")) for run in arm] for name, arm in runs.items()
    }
    return {"over_seeds": [asdict(comparison) for comparison in seeds], "paired_by_seed": paired, **named}
