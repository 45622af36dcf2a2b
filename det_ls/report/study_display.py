# SPDX-License-Identifier: AGPL-3.0-or-later
"""How far a study is, while it runs: a live table on a terminal, a line for each event elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from statistics import fmean
from types import TracebackType
from typing import Any, TextIO

from det_ls.studies.grid import cell_name, condition_parts
from det_ls.studies.records import Arm, CellResult, Condition, State
from det_ls.studies.run import Progress

SHOWN = (("val", "AP"), ("val", "kept.absolute_gap"), ("platt", "kept.absolute_gap"))
"""The numbers that are shown while a study runs: how well boxes are found, and how far kept scores are off."""
_HEADS = ("arm", "condition", "cells", "AP", "kept gap", "after Platt")


class StudyDisplay:
    """Told of a study's progress, it shows it; a context manager."""

    def __init__(self, stream: TextIO | None = None, live: bool | None = None) -> None:
        """Choose how to show it.

        Args:
            stream: Where to; standard output by default.
            live: Whether as a live table; by default on a terminal.
        """
        self._stream = sys.stdout if stream is None else stream
        self._live: Any = None
        self._as_table = self._stream.isatty() if live is None else live
        self._states: dict[str, State] = {}
        self._began = time.monotonic()

    def __enter__(self) -> StudyDisplay:
        """Begin."""
        if self._as_table:
            from rich.console import Console
            from rich.live import Live

            self._live = Live(
                console=Console(file=self._stream, force_terminal=True), auto_refresh=False, transient=True
            )
            self._live.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        """End; what was shown live goes."""
        if self._live is not None:
            self._live.stop()

    def __call__(self, progress: Progress) -> None:
        """Show how far it is.

        Args:
            progress: How far.
        """
        if self._live is not None:
            self._live.update(self._table(progress), refresh=True)
            return
        for result in progress.results:
            name = cell_name(result.cell)
            before = self._states.get(name)
            self._states[name] = result.state
            news = result.state == State.RUNNING if before is None else result.state != before
            if news and (line := event_line(result)):
                print(f"{counts_line(progress)} | {line}", file=self._stream, flush=True)

    def _table(self, progress: Progress) -> Any:
        """Draw the live table."""
        from rich.console import Group
        from rich.table import Table
        from rich.text import Text

        table = Table(*_HEADS, box=None, pad_edge=False)
        for row in arm_rows(progress.results):
            table.add_row(*row)
        running = [cell_name(r.cell) for r in progress.results if r.state == State.RUNNING]
        lines = [counts_line(progress) + f" | {duration(time.monotonic() - self._began)} so far"]
        if running:
            lines.append("running: " + ", ".join(running[:4]) + (f" and {len(running) - 4} more" * (len(running) > 4)))
        if progress.waits:
            lines.append("waiting for memory to start the next cell")
        lines += [f"failed: {cell_name(r.cell)}: {r.error}" for r in progress.results if r.state == State.FAILED][:3]
        return Group(*map(Text, lines), table)


def arm_rows(results: Sequence[CellResult]) -> list[tuple[str, ...]]:
    """Write a row for each condition and arm: its cells, and the means of the numbers in :data:`SHOWN`.

    Args:
        results: The cells.

    Returns:
        As many words as heads each; a dash where nothing is known.
    """
    by: dict[tuple[Condition, Arm], list[CellResult]] = {}
    for result in results:
        by.setdefault((result.cell.condition, result.cell.arm), []).append(result)
    rows = []
    for (condition, arm), members in by.items():
        measured = [m.measured for m in members if m.measured is not None]
        means = []
        for part, key in SHOWN:
            values = [getattr(m, part)[key] for m in measured if key in getattr(m, part)]
            means.append(f"{fmean(values):.3f}" if values else "-")
        words = " ".join(condition_parts(condition)) or "-"
        rows.append((arm.name, words, f"{len(measured)}/{len(members)}", *means))
    return rows


def counts_line(progress: Progress) -> str:
    """Say how many cells are done, running, failed and left, and how long the rest is expected to take."""
    states = [result.state for result in progress.results]
    parts = [f"{states.count(State.DONE)}/{len(states)} done"]
    parts += [f"{n} {s.value}" for s in (State.RUNNING, State.FAILED) if (n := states.count(s))]
    if left := states.count(State.WAITING):
        parts.append(f"{left} left")
    if progress.seconds_left:
        parts.append(f"about {duration(progress.seconds_left)} to go")
    return ", ".join(parts)


def event_line(result: CellResult) -> str:
    """Say what became of a cell."""
    name = cell_name(result.cell)
    if result.state == State.RUNNING:
        return f"{name}: started"
    if result.state == State.FAILED:
        return f"{name}: failed: {result.error}"
    if result.state == State.DONE and result.measured is not None:
        val = result.measured.val
        numbers = [f"{key} {val[key]:.3f}" for key in ("AP", "kept.absolute_gap") if key in val]
        return f"{name}: done in {duration(result.seconds)}" + "".join(f", {number}" for number in numbers)
    return ""


def duration(seconds: float) -> str:
    """Write a time in its two largest units.

    Args:
        seconds: The time.

    Returns:
        Such as ``3h 05m``.

    Examples:
        >>> duration(11100), duration(65), duration(4.2)
        ('3h 05m', '1m 05s', '4s')
    """
    whole = round(seconds)
    hours, minutes = whole // 3600, whole // 60
    if hours:
        return f"{hours}h {minutes % 60:02d}m"
    return f"{minutes}m {whole % 60:02d}s" if minutes else f"{whole}s"
