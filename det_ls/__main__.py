# SPDX-License-Identifier: AGPL-3.0-or-later
"""``python -m det_ls``: the ``det-ls`` command."""

import sys

from det_ls.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
