# SPDX-License-Identifier: AGPL-3.0-or-later
"""A study as one self-contained HTML page with its decision first, and the files beside it."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timezone
from pathlib import Path

from matplotlib.figure import Figure

from det_ls.base.errors import ArgumentError, ExistingFileError
from det_ls.base.files import write_json
from det_ls.base.version import __version__
from det_ls.report import plots_study as plots
from det_ls.report.figures import inlined
from det_ls.report.page_parts import write_page
from det_ls.report.plot_style import save
from det_ls.report.rows import Row, flat
from det_ls.report.study_files import cells_table, study_record
from det_ls.report.study_rows import arm_rows, cell_rows, decision_row, other_rows, state_tiles
from det_ls.report.study_words import condition_text, decision_lead, decision_text, first_up, rules, uneven_text
from det_ls.report.tables import write_table
from det_ls.studies.decision import Decision, Outcome, decide
from det_ls.studies.records import CellResult, State
from det_ls.studies.statistics import AP, GAP, Against, ConditionNumbers, study_numbers

REPORT_FILE, CELLS_FILE, NUMBERS_FILE, PICTURES_FOLDER = (
    "report.html", "cells.csv", "study_numbers.json", "pictures",
)  # fmt: skip
_TITLES = {
    Against.STOCK: "Each arm against stock, as trained",
    Against.RIVAL: "Each arm as trained against stock + Platt",
    Against.CALIBRATED: "Each arm + Platt against stock + Platt",
}
_ERROR_BARS = "Bars are 95% t-intervals over seeds; epsilons stand equally far apart, policies last and not joined."


def write_study(
    folder: str | Path,
    results: Sequence[CellResult],
    *,
    title: str,
    command: str = "",
    pictures: bool = True,
    exist_ok: bool = False,
) -> Path:
    """Write the page of a study, its pictures, and its numbers as CSV and JSON.

    Args:
        folder: Where to write; made if need be.
        results: The cells, finished or not.
        title: What the study is about.
        command: What repeats it.
        pictures: Whether to write the page's pictures as files too.
        exist_ok: Whether to replace files that are there.

    Returns:
        The page.

    Raises:
        FileExistsError: A file is there and ``exist_ok`` is False.
        ValueError: There is no cell.
    """
    if not results:
        raise ArgumentError("results: expected at least one cell, got none.")
    target = Path(folder)
    for name in (REPORT_FILE, CELLS_FILE, NUMBERS_FILE):
        if (target / name).exists() and not exist_ok:
            path = target / name
            raise ExistingFileError(f"folder: expected no {name} without exist_ok, got '{path}', which exists.")
    numbers = study_numbers(results)
    decisions = [decide(one) for one in numbers]
    target.mkdir(parents=True, exist_ok=True)
    write_table(target / CELLS_FILE, *cells_table(results), exist_ok=exist_ok)
    write_json(target / NUMBERS_FILE, study_record(title, command, numbers, decisions, results), indent=1)
    made = study_pictures(numbers, decisions, results)
    for name, figure, *_ in made if pictures else ():
        save(figure, target / PICTURES_FOLDER / name, exist_ok=exist_ok)
    return _page(target / REPORT_FILE, results, numbers, decisions, made, title, command)


def study_pictures(
    numbers: Sequence[ConditionNumbers], decisions: Sequence[Decision], results: Sequence[CellResult]
) -> list[tuple[str, Figure, str, str]]:
    """Draw the pictures of a study.

    Args:
        numbers: The numbers of each condition.
        decisions: Their decisions.
        results: The cells.

    Returns:
        For each, the name of its files, the figure, its title and its caption. Where nothing was found there is nothing
        to compare, and only the training is drawn.
    """
    made = [] if all(d.outcome is Outcome.NOTHING for d in decisions) else _comparisons(numbers, decisions, results)
    for column, label in plots.CURVES:
        figure = plots.training_curves(numbers, results, column)
        if figure is not None:
            what = "The mean over the seeds of each arm. " + (
                "A smoothed loss aims at other targets: its height says nothing against that of stock, its course does."
                if "loss" in column
                else ""
            )
            name = "training_" + column.replace("/", "_").split("(")[0].replace("metrics_", "")
            made.append((name, figure, f"The training: {label}", what))
    return made


def _comparisons(
    numbers: Sequence[ConditionNumbers], decisions: Sequence[Decision], results: Sequence[CellResult]
) -> list[tuple[str, Figure, str, str]]:
    """Draw the pictures that compare the arms."""
    shown = {
        one.condition: [a.arm for a in plots.best_arms(one, d.arm.arm if d.arm is not None else None)]
        for one, d in zip(numbers, decisions, strict=True)
    }
    gap = "|score \N{MINUS SIGN} precision|, kept boxes"
    rival = "The dashed line is stock + Platt, the band its interval."
    return [
        (
            "reliability",
            plots.reliability_of_arms(numbers, results, shown),
            "Can the scores of the kept boxes be believed?",
            "Kept boxes of all seeds; on the dashed diagonal scores deliver what they promise, below it they promise "
            "too much. Beside stock and stock + Platt the arm that the decision is about, else the one with the "
            "highest AP. Hollow markers hold fewer than 10 boxes.",
        ),
        (
            "trade_off",
            plots.trade_off(numbers),
            "What is paid for better scores?",
            "Small markers are seeds, large ones means; hollow ones with a Platt map. Better is up and to the left; "
            "numbers at the markers are epsilons.",
        ),
        (
            "ap",
            plots.against_epsilon(numbers, AP, "val", "AP"),
            "What does smoothing do to AP?",
            f"{_ERROR_BARS} {rival}",
        ),
        (
            "gap",
            plots.against_epsilon(numbers, GAP, "val", gap),
            "What does smoothing do to the scores?",
            f"The arms as they were trained. {_ERROR_BARS} {rival}",
        ),
        (
            "gap_platt",
            plots.against_epsilon(numbers, GAP, "platt", f"{gap}, after Platt"),
            "And after a Platt map?",
            f"The same arms with a cross-fitted Platt map each. {_ERROR_BARS} {rival}",
        ),
        (
            "overfitting",
            plots.against_epsilon(numbers, AP, "overfit", "AP, train \N{MINUS SIGN} val", rival=False),
            "Is there less over-fitting?",
            f"AP on the training images, by the labels that were trained on, less AP on the validation images. "
            f"{_ERROR_BARS}",
        ),
    ]


def study_sentences(results: Sequence[CellResult]) -> list[str]:
    """Write the decision of each condition in a line, for the console.

    Args:
        results: The cells.

    Returns:
        The lines; where nothing was found they say what to do.
    """
    return [_line(decide(one)) for one in study_numbers(results)]


def _line(decision: Decision) -> str:
    more = f" {decision_text(decision)}" if decision.outcome is Outcome.NOTHING else ""
    return f"{first_up(condition_text(decision.condition))}: {decision_lead(decision)}.{more}"


def _page(
    path: Path,
    results: Sequence[CellResult],
    numbers: Sequence[ConditionNumbers],
    decisions: Sequence[Decision],
    pictures: Sequence[tuple[str, Figure, str, str]],
    title: str,
    command: str,
) -> Path:
    alone = len(numbers) == 1
    failed = [r for r in results if r.state is State.FAILED]
    wide = not alone
    page = {
        "title": title,
        "first": "",
        "done": "written",
        "date": datetime.now(timezone.utc).strftime("%Y-%m-%d %H:%M UTC"),
        "subtitle": f"{sum(r.state is State.DONE for r in results)} of {len(results)} runs; decided over seeds, "
        "stock + Platt as the rival",
        "decisions": [decision_row(d, alone) for d in decisions],
        "rules": rules(),
        "tiles": [],
        "facts": state_tiles(results, decisions),
        "findings": [],
        "conditions": [
            {
                "name": "" if alone else condition_text(one.condition),
                "arms": arm_rows(one, decision),
                "others": [] if decision.outcome is Outcome.NOTHING else _others(one),
            }
            for one, decision in zip(numbers, decisions, strict=True)
        ],
        "figures": [
            inlined(figure, f"f-{name}", asked, caption, wide=wide) for name, figure, asked, caption in pictures
        ],
        "cells": cell_rows(results),
        "failed": len(failed),
        "uneven": uneven_text(numbers),
        "command": command,
        "trainings": [],
        "training_columns": [],
        "protocol": _protocol(results),
        "version": __version__,
    }
    return write_page(path, "study.html", page)


def _others(numbers: ConditionNumbers) -> list[tuple[str, list[Row]]]:
    """List the tables of all differences."""
    return [(_TITLES[side], rows) for side in Against if (rows := other_rows(numbers, side))]


def _protocol(results: Sequence[CellResult]) -> list[tuple[str, str]]:
    """List the settings that all runs share, and their seeds."""
    configs = [r.config for r in results if r.config]
    keys = dict.fromkeys(key for config in configs for key in config)
    same = [(k, configs[0].get(k)) for k in keys if all(c.get(k) == configs[0].get(k) for c in configs)]
    found = flat(dict(same))
    found.append(("seeds", ", ".join(dict.fromkeys(str(r.cell.seed) for r in results))))
    return found
