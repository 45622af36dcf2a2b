# SPDX-License-Identifier: AGPL-3.0-or-later
"""The process of one cell: ``python -m det_ls.studies.worker FOLDER DATASETS [device=0] [cores=1] [parent=PID]``.

It reads FOLDER/task.json, trains and measures, and writes FOLDER/cell.json. It ends when its parent does, so that a
study that was killed leaves no process behind that trains on.
"""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path

from det_ls.studies.cell import TASK_FILE, Task, run_cell

END_WITH_PARENT = 1.0  # seconds between two looks


def main(argv: Sequence[str] | None = None) -> int:
    """Run the cell of a folder.

    Args:
        argv: The words; ``sys.argv[1:]`` if None.

    Returns:
        0: what fails is recorded in cell.json.
    """
    words = list(sys.argv[1:] if argv is None else argv)
    folder, datasets = Path(words[0]), Path(words[1])
    options = dict(word.split("=", 1) for word in words[2:])
    if "parent" in options:
        threading.Thread(target=_end_with, args=(int(options["parent"]),), daemon=True).start()
    task = Task.from_dict(json.loads((folder / TASK_FILE).read_text(encoding="utf-8")))
    run_cell(folder, task, datasets, options.get("device"), int(options.get("cores", 1)))
    return 0


def _end_with(parent: int) -> None:
    """End this process at once when its parent is no more."""
    while os.getppid() == parent:
        time.sleep(END_WITH_PARENT)
    os._exit(1)


if __name__ == "__main__":
    sys.exit(main())
