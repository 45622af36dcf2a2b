# SPDX-License-Identifier: AGPL-3.0-or-later
"""The folder of a command's results: the one that is named, or the next free run folder, claimed before any work."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from det_ls.base.errors import ExistingFileError
from det_ls.base.folders import claim_folder

_ATTEMPTS = 20  # to find a run folder that no other run takes at the same moment


@contextmanager
def claimed(arguments: dict[str, Any], mode: str, task: str = "detect") -> Iterator[tuple[Path, Path]]:
    """Claim the folder that ``save_dir`` names, or the next free run folder, before any work.

    Args:
        arguments: The arguments of a mode; ``save_dir`` and ``exist_ok`` are taken out.
        mode: The mode.
        task: The model's task, which names the folder of the run folders.

    Yields:
        The folder, and where to write what is moved there when all is done.
    """
    from det_ls.calibration.results import MAP_FILE, NUMBERS_FILE
    from det_ls.evaluation.pair_files import PAIR_FILES
    from det_ls.evaluation.results import RESULT_FILES
    from det_ls.report.calibration_page import CALIBRATION_FILES
    from det_ls.report.outputs import COMPARISON_FILES, EVALUATION_FILES

    measured = (*RESULT_FILES, *EVALUATION_FILES)
    others = {
        "compare": (*PAIR_FILES, *COMPARISON_FILES),
        "calibrate": (MAP_FILE, NUMBERS_FILE, *CALIBRATION_FILES),
    }
    files = others.get(mode, measured)
    named, exist_ok = arguments.pop("save_dir", None), arguments.pop("exist_ok", False)
    with ExitStack() as stack:
        for attempt in range(_ATTEMPTS):
            folder = _next_folder(mode, task) if named is None else Path(str(named))
            try:
                place = stack.enter_context(claim_folder(folder, results=files, exist_ok=exist_ok))
                break
            except ExistingFileError:  # another run took the folder that was free a moment ago
                if named is not None or attempt == _ATTEMPTS - 1:
                    raise
        yield folder, place


def _next_folder(mode: str, task: str) -> Path:
    """Find the next free run folder, as Ultralytics does."""
    from types import SimpleNamespace

    from ultralytics.cfg import get_save_dir

    return get_save_dir(SimpleNamespace(project=None, name=None, task=task, mode=mode, exist_ok=False))
