# SPDX-License-Identifier: AGPL-3.0-or-later
"""``det-ls study``: a grid of training runs, and what it says."""

from __future__ import annotations

import inspect
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from det_ls.base.errors import ArgumentTypeError, RunError
from det_ls.cli.train import Interrupted
from det_ls.studies.plan import default_name

if TYPE_CHECKING:
    from det_ls.studies.result import StudyResult

NOT_WORDS = ("progress", "train")


def study(words: Sequence[str]) -> None:
    """Run ``det-ls study``: train and measure a grid, go on with one, or read one.

    Args:
        words: ``key=value`` words: the arguments of :func:`det_ls.studies.run.study`, and any key of ``det-ls train``.

    Raises:
        KeyboardInterrupt: After Ctrl-C, with the command that goes on.
        RuntimeError: If cells failed and none is done; the page is written all the same. Some that failed are listed
            on it, and are no error. ``report=`` reads, and raises for neither.
        TypeError: If a word is no ``key=value`` or a key is unknown.
        ValueError: If a value does not fit.
    """
    from det_ls.cli.grammar import key_values, read_cfg
    from det_ls.report.study_display import StudyDisplay
    from det_ls.studies.grid import cell_name
    from det_ls.studies.plan import default_folder
    from det_ls.studies.result import STUDY_FILE
    from det_ls.studies.run import study as run_study

    arguments = key_values(words)
    if "cfg" in arguments:
        arguments = {**read_cfg(str(arguments.pop("cfg"))), **arguments}
    if arguments.get("task") == "detect":
        del arguments["task"]  # the only one that there is
    _check_keys(arguments)
    if not {"resume", "report", "save_dir"} & set(arguments) and arguments.get("data"):
        arguments["save_dir"] = default_folder(arguments["data"])  # named here, so that Ctrl-C can name it
    folder = Path(str(arguments.get("resume") or arguments.get("report") or arguments.get("save_dir")))
    try:
        with StudyDisplay() as display:
            result = run_study(**arguments, progress=display)
    except KeyboardInterrupt as interrupt:
        begun = (folder / STUDY_FILE).is_file()
        again = command_to_go_on(folder) if begun else shlex.join(["det-ls", "study", *words])
        raise Interrupted(f"{'go on' if begun else 'nothing was begun, repeat'} with: {again}") from interrupt
    _print(result, _write_page(result))
    if "report" not in arguments and result.failed and not result.done:
        first = result.failed[0]
        raise RunError(
            f"study: expected a cell that finishes, got {len(result.failed)} that failed, the first one "
            f"({cell_name(first.cell)}) with: {first.error}"
        )


def _write_page(result: StudyResult) -> Path:
    """Write the page of a study, with what repeats it; an older one is replaced: the cells are what is kept."""
    from det_ls.report.study_page import write_study
    from det_ls.studies.plan import Plan

    plan = Plan.read(result.folder, "report")
    given = {**plan.train, **plan.words, **plan.execution}
    measuring = {key: getattr(plan, key) for key in ("weights", "train_images", "groups")}
    given |= {key: value for key, value in measuring.items() if value != getattr(Plan, key)}
    words = [f"{key}={','.join(map(str, v)) if isinstance(v, list) else v}" for key, v in given.items()]
    command = shlex.join(["det-ls", "study", *words])
    title = f"Label smoothing on {default_name(plan.train['data'])}"
    return write_study(result.folder, result.results, title=title, command=command, exist_ok=True)


def command_to_go_on(folder: Path) -> str:
    """Write the command that goes on with a study.

    Args:
        folder: Its folder.

    Returns:
        The command, as a shell takes it.
    """
    return shlex.join(["det-ls", "study", f"resume={folder}"])


def _print(result: StudyResult, page: Path) -> None:
    """Print what there is, what is missing, the decisions, and where it is."""
    from det_ls.report.study_display import arm_rows
    from det_ls.report.study_page import study_sentences
    from det_ls.studies.grid import cell_name

    heads = ("arm", "condition", "cells", "AP", "kept gap", "after Platt")
    rows = [heads, *arm_rows(result.results)]
    widths = [max(len(row[i]) for row in rows) for i in range(len(heads))]
    for row in rows:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
    for failed in result.failed:
        print(f"{cell_name(failed.cell)} failed: {failed.error}")
    if result.missing:
        shown = ", ".join(cell_name(cell) for cell in result.missing[:5])
        more = f" and {len(result.missing) - 5} more" if len(result.missing) > 5 else ""
        why = "The budget is used up; m" if result.cut else "M"
        print(f"{why}issing: {shown}{more}. Go on with: {command_to_go_on(result.folder)}")
    for sentence in study_sentences(result.results):
        print(sentence)
    print(f"Results saved to {result.folder}, the page to {page}")


def study_keys() -> list[str]:
    """List the keys of the command that are not keys of training.

    Returns:
        The keys.
    """
    from det_ls.studies.run import study as run_study

    return [key for key in inspect.signature(run_study).parameters if key not in NOT_WORDS]


def _check_keys(arguments: Mapping[str, Any]) -> None:
    """Raise for a key that neither a study nor training knows."""
    from ultralytics.utils import DEFAULT_CFG_DICT

    from det_ls.cli.grammar import split_names, suggestion

    known = [*study_keys(), *split_names(), *DEFAULT_CFG_DICT]
    for key in arguments:
        if key not in known:
            raise ArgumentTypeError(
                f"{key}: expected a key of det-ls study or of det-ls train, got an unknown one{suggestion(key, known)}"
            )
