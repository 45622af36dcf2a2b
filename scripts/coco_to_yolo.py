# SPDX-License-Identifier: AGPL-3.0-or-later
"""Make a YOLO dataset of a COCO-format folder: ``det-ls convert``, which see, as a script.

python scripts/coco_to_yolo.py source=path/to/coco out=path/to/new/folder
"""

from __future__ import annotations

import sys

from det_ls.data.convert import convert as convert
from det_ls.data.convert import label_lines as label_lines


def main(arguments: list[str]) -> None:
    """Run the command line, `source=... out=...`."""
    options = dict(x.split("=", 1) for x in arguments if "=" in x)
    if len(options) != len(arguments) or set(options) != {"source", "out"}:
        raise SystemExit("arguments: expected source=<COCO-format folder> out=<new folder>, got " + " ".join(arguments))
    try:
        data_file = convert(options["source"], options["out"])
    except (OSError, ValueError) as error:
        raise SystemExit(f"error: {error}") from error
    print(f"Wrote {data_file}, for example for: python scripts/train_coco.py data={data_file}")


if __name__ == "__main__":
    main(sys.argv[1:])
