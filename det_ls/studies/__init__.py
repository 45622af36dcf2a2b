# SPDX-License-Identifier: AGPL-3.0-or-later
"""A grid of training runs over arms, conditions and seeds, its numbers, and the decision they allow.

``from det_ls import study`` is what ``det-ls study`` runs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from det_ls.studies.result import StudyResult as StudyResult
    from det_ls.studies.run import read_study as read_study
    from det_ls.studies.run import study as study

_HOME = {"study": "run", "read_study": "run", "StudyResult": "result"}
__all__ = ["StudyResult", "read_study", "study"]


def __getattr__(name: str) -> Any:
    """Import a public name from its module when it is first used (PEP 562)."""
    from importlib import import_module

    if name not in _HOME:
        raise AttributeError(f"module 'det_ls.studies' has no attribute {name!r}")
    return getattr(import_module(f"det_ls.studies.{_HOME[name]}"), name)
