# SPDX-License-Identifier: AGPL-3.0-or-later
"""A study as data beside its page: a CSV row for each cell, and a JSON file of what was computed over the seeds."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import fields, is_dataclass
from enum import Enum
from typing import Any

from det_ls.base.version import __version__
from det_ls.report.tables import Cell
from det_ls.studies.decision import Decision
from det_ls.studies.records import CellResult
from det_ls.studies.result import rows_of
from det_ls.studies.statistics import ConditionNumbers


def cells_table(results: Sequence[CellResult]) -> tuple[list[str], list[list[Cell]]]:
    """List the cells of a study.

    Args:
        results: The cells.

    Returns:
        Header and one row a cell: condition, arm, seed, state, time, error, and the numbers of each split, named
        ``val.AP``, ``train.AP``, ``platt.kept.absolute_gap``; None where a cell has not measured one.
    """
    rows = rows_of(results)
    header = list(rows[0]) if rows else []
    return header, [[_cell(row[key]) for key in header] for row in rows]


def study_record(
    title: str,
    command: str,
    numbers: Sequence[ConditionNumbers],
    decisions: Sequence[Decision],
    results: Sequence[CellResult],
) -> dict[str, Any]:
    """Collect what was computed over the seeds, as JSON can hold it; the cells' own numbers are in `cells_table`.

    Args:
        title: What the study is about.
        command: What repeats it.
        numbers: The numbers of each condition.
        decisions: Their decisions.
        results: The cells.

    Returns:
        The record; a number that is undefined or infinite is None.
    """
    record = {
        "det_ls": __version__,
        "title": title,
        "command": command,
        "decisions": decisions,
        "conditions": numbers,
        "cells": [
            {"cell": r.cell, "state": r.state, "error": r.error, "config": r.config, "seconds": r.seconds}
            for r in results
        ],
    }
    return {key: plain(value) for key, value in record.items()}


def plain(value: Any) -> Any:
    """Turn typed facts into what JSON can hold.

    Args:
        value: Dataclasses, enums, mappings, sequences and plain values, nested.

    Returns:
        Mappings, lists and plain values.

    Example:
        >>> plain({1: (0.5, float("nan"))})
        {'1': [0.5, None]}
    """
    if is_dataclass(value) and not isinstance(value, type):
        return {f.name: plain(getattr(value, f.name)) for f in fields(value)}
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, Mapping):
        return {str(k.value if isinstance(k, Enum) else k): plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(v) for v in value]
    if isinstance(value, bool) or value is None or isinstance(value, (str, int)):
        return value
    try:
        return _finite(value)
    except (TypeError, ValueError):
        return json.loads(json.dumps(value, default=str))


def _cell(value: Any) -> Cell:
    return _finite(value) if isinstance(value, float) else value


def _finite(value: Any) -> float | None:
    if value is None:
        return None
    return float(value) if math.isfinite(float(value)) else None
