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
from det_ls.study.decision import Decision
from det_ls.study.records import CellResult
from det_ls.study.statistics import ConditionNumbers

_SPLITS = ("val", "train", "platt")


def cells_table(results: Sequence[CellResult]) -> tuple[list[str], list[list[Cell]]]:
    """List the cells of a study.

    Args:
        results: The cells.

    Returns:
        Header and one row a cell: condition, arm, seed, state, time, error, and the numbers of each split, named
        ``val.AP``, ``train.AP``, ``platt.kept.absolute_gap``; None where a cell has not measured one.
    """
    keys = {
        split: list(dict.fromkeys(k for r in results if r.measured is not None for k in getattr(r.measured, split)))
        for split in _SPLITS
    }
    rows: list[list[Cell]] = []
    for r in results:
        condition, arm = r.cell.condition, r.cell.arm
        numbers: list[Cell] = [
            None if r.measured is None else _finite(getattr(r.measured, split).get(key))
            for split in _SPLITS
            for key in keys[split]
        ]
        about: list[Cell] = [condition.flip, condition.drop, condition.jitter, condition.fraction]
        about += [arm.name, arm.label_smoothing, "" if arm.stock else arm.mode, r.cell.seed, r.state.value]
        rows.append([*about, round(r.seconds, 1), r.error, *numbers])
    header = ["flip", "drop", "jitter", "fraction", "arm", "label_smoothing", "mode", "seed", "state", "seconds"]
    return [*header, "error", *(f"{split}.{key}" for split in _SPLITS for key in keys[split])], rows


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


def _finite(value: Any) -> float | None:
    if value is None:
        return None
    return float(value) if math.isfinite(float(value)) else None
