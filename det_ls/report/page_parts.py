# SPDX-License-Identifier: AGPL-3.0-or-later
"""What both kinds of page share: checking the target, filling in a template, and how the numbers came about."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from det_ls.base.errors import ExistingFileError
from det_ls.base.files import write_atomically
from det_ls.base.version import __version__
from det_ls.evaluation.results import Evaluation
from det_ls.report.rows import Row, flat
from det_ls.report.training import columns, training_row


def check_target(path: str | Path, exist_ok: bool) -> Path:
    """Raise if a page is there that may not be replaced.

    Args:
        path: Where to write.
        exist_ok: Whether to replace a file that is there.

    Returns:
        The file.

    Raises:
        FileExistsError: The file is there and ``exist_ok`` is False.
    """
    target = Path(path)
    if target.exists() and not exist_ok:
        raise ExistingFileError(f"path: expected a new file without exist_ok, got '{target}', which exists.")
    return target


def write_page(target: Path, template: str, page: Mapping[str, Any]) -> Path:
    """Fill in a template and write it; whatever is not markup of our own is escaped.

    Args:
        target: The file; its folder is made if need be.
        template: Name of the template.
        page: What it shows.

    Returns:
        The file.
    """
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    content = environment.get_template(template).render(page)
    target.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(target, content.encode("utf-8", "replace"))
    return target


def common(title: str, evaluations: Sequence[tuple[str, Evaluation]]) -> Row:
    """Collect what both kinds of page show: title, date, training, and the protocol with the counts of each detector.

    Args:
        title: What the page is about.
        evaluations: Evaluations by name; the name is empty where there is one only.

    Returns:
        Values of the template.
    """
    rows: list[tuple[str, str]] = []
    for name, one in evaluations:
        prefix = f"{name} · " if name else ""
        rows += flat({k: v for k, v in one.protocol.items() if k != "training"}, prefix)
        rows += flat({"counted": {what: f"{n:,}" for what, n in one.metrics.counts.items()}}, prefix)
    metrics = evaluations[0][1].metrics
    if metrics.left_out:
        rows += [("classes left out", ", ".join(f"{n} ({why})" for n, why in metrics.left_out.items()))]
    if metrics.floors:
        floor = next(iter(metrics.floors.values()))
        rows += [
            ("floors", f"{floor.simulations:,} simulations of a perfectly calibrated detector with the same scores")
        ]
    trained = [(name or "This model", training_row(one.protocol.get("training"))) for name, one in evaluations]
    return {
        "title": title,
        "date": datetime.now(timezone.utc).strftime("%Y-%m-%d %H:%M UTC"),
        "protocol": rows,
        "training_columns": columns(),
        "trainings": [(name, row) for name, row in trained if row is not None],
        "version": __version__,
    }
