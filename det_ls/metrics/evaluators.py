# SPDX-License-Identifier: AGPL-3.0-or-later
"""The evaluators that can match detections: pycocotools, the judge, and faster ones that have to equal it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib.util import find_spec
from typing import Any

from det_ls.base.errors import ArgumentError, MissingPackageError
from det_ls.base.types import Json
from det_ls.data.coco import coco_evaluate

DEFAULT_EVALUATOR = "pycocotools"
EVALUATORS = (DEFAULT_EVALUATOR, "hotcoco")

# COCO instances and results, checked, to what `det_ls.metrics.matching.table_from_coco` reads.
Evaluator = Callable[[Json, Sequence[Json]], Any]


def get_evaluator(name: str) -> Evaluator:
    """Look up an evaluator.

    Args:
        name: ``pycocotools``, or ``hotcoco`` (the extra ``fast``).

    Returns:
        A function of instances and results.

    Raises:
        ImportError: It is not installed.
        ValueError: There is no such evaluator.

    Example:
        >>> get_evaluator("numpy")
        Traceback (most recent call last):
        det_ls.base.errors.ArgumentError: evaluator: expected one of pycocotools, hotcoco, got 'numpy'.
    """
    if not isinstance(name, str) or name not in EVALUATORS:
        raise ArgumentError(f"evaluator: expected one of {', '.join(EVALUATORS)}, got {name!r}.")
    if name == DEFAULT_EVALUATOR:
        return coco_evaluate
    if find_spec(name) is None:
        raise MissingPackageError(
            f"evaluator: expected '{name}' to be installed (pip install 'det-ls[fast]'), got none."
        )
    from det_ls.metrics.hotcoco_matching import hotcoco_evaluate

    return hotcoco_evaluate
