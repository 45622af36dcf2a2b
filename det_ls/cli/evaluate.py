# SPDX-License-Identifier: AGPL-3.0-or-later
"""The evaluating modes of ``det-ls``: val, metrics and compare."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterable, Sequence
from itertools import takewhile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from det_ls.base.errors import ArgumentError, ArgumentTypeError
from det_ls.cli.results_folder import claimed
from det_ls.cli.titles import name_of
from det_ls.smoothing.request import refuse_keys

if TYPE_CHECKING:
    from det_ls.evaluation.results import Evaluation

BOOTSTRAP = 1000
_SEED = re.compile(r"[\s_.-]+(seed|s)?[\s_.-]*\d*[\s_.-]*$|\d+[\s_.-]*$")  # at the end of a run's name


class NothingDefinedError(ArgumentError):
    """No number of an evaluation is defined."""


def val(words: Sequence[str]) -> None:
    """Run ``det-ls val``: evaluate a model, and write numbers and report.

    Args:
        words: ``key=value`` words: the arguments of :func:`det_ls.evaluate`, and ``task``.

    Raises:
        TypeError: If a word is no ``key=value`` or a key is unknown.
        ValueError: If the model is one of another task than ``task``.
    """
    from det_ls.cli.calibrate import calibration_line
    from det_ls.evaluation.detector import load_detector
    from det_ls.evaluation.evaluate import evaluate
    from det_ls.evaluation.results import Evaluation
    from det_ls.report.classification_page import classification_text, write_classification
    from det_ls.report.printed import evaluation_text

    known = [*inspect.signature(evaluate).parameters, "task"]
    arguments = _arguments(words, "val", known, ("model", "data"))
    task = arguments.pop("task", None)
    loaded = {}
    if task is not None or arguments.get("save_dir") is None:  # the task names the folder
        detector = load_detector(arguments["model"])
        if task not in {None, detector.task}:
            raise ArgumentError(f"task: expected {detector.task}, which is what the model is for, got {task}.")
        task, loaded = detector.task, {"model": detector}
    with claimed(arguments, "val", task or "detect") as (folder, place):
        evaluation = evaluate(**{"bootstrap": BOOTSTRAP, **arguments, **loaded}, save_dir=place)
        title = f"{name_of(arguments['model'])} on {name_of(arguments['data'])}"
        if isinstance(evaluation, Evaluation):
            _report(evaluation, place, title)
        else:
            write_classification(place, evaluation, title=title)
    if not isinstance(evaluation, Evaluation):
        print(classification_text(evaluation))
        print(f"Results saved to {folder}")
        return
    if calibrated := calibration_line(arguments["model"]):
        print(calibrated)
    _finish([evaluation], evaluation_text(evaluation), folder)


def metrics(words: Sequence[str]) -> None:
    """Run ``det-ls metrics``: evaluate COCO results, or a folder of YOLO text files, from any detector.

    Args:
        words: ``predictions=``, ``annotations=`` or ``data=``, and the keywords of
            :func:`det_ls.evaluate_detections`.

    Raises:
        TypeError: If a word is no ``key=value``, a key is unknown, or one that is needed is missing.
    """
    from det_ls.evaluation.evaluate import evaluate_detections
    from det_ls.report.printed import evaluation_text

    keywords = [key for key in inspect.signature(evaluate_detections).parameters if key not in {"gt", "detections"}]
    arguments = _arguments(
        words, "metrics", ("annotations", "predictions", *keywords, "save_dir", "exist_ok"), ("predictions",)
    )
    if "annotations" not in arguments and "data" not in arguments:
        raise ArgumentTypeError("annotations: expected annotations=... or data=... for det-ls metrics, got none.")
    with claimed(arguments, "metrics") as (folder, place):
        annotations, predictions = arguments.pop("annotations", None), arguments.pop("predictions")
        evaluation = evaluate_detections(annotations, predictions, **{"bootstrap": BOOTSTRAP, **arguments})
        evaluation.save(place)
        _report(evaluation, place, f"{name_of(predictions)} on {name_of(annotations or arguments['data'])}")
    _finish([evaluation], evaluation_text(evaluation), folder)


def compare(words: Sequence[str]) -> None:
    """Run ``det-ls compare``: two models or COCO result files, or several runs of each, on the same images.

    Args:
        words: ``a=`` and ``b=``, each a path, a pattern or a list of them; ``data=`` or ``annotations=``; and keywords
            of :func:`det_ls.compare`.

    Raises:
        FileNotFoundError: If no file fits a pattern.
        TypeError: If a word is no ``key=value`` or a key is unknown.
        ValueError: If a file is named twice.
    """
    from det_ls.evaluation.class_comparison import ClassComparison
    from det_ls.evaluation.comparison import compare as compare_detectors
    from det_ls.evaluation.evaluate import evaluate
    from det_ls.report.class_comparison_page import class_comparison_text, write_class_pair
    from det_ls.report.outputs import write_pair
    from det_ls.report.printed import comparison_text

    settings = [key for key in inspect.signature(evaluate).parameters if key not in {"model", "train_images"}]
    arguments = _arguments(words, "compare", ["a", "b", *settings], ("a", "b"))
    with claimed(arguments, "compare") as (folder, place):
        asked = arguments.pop("a"), arguments.pop("b")
        a, b, paired = _arms(*asked)
        pair = compare_detectors(a, b, paired=paired, names=_pattern_names(*asked) or _arm_names(a, b), **arguments)
        pair.save(place)
        on = name_of(arguments.get("data") or arguments.get("annotations"))
        title = f"{pair.names[0]} and {pair.names[1]} on {on}"
        if isinstance(pair, ClassComparison):
            write_class_pair(place, pair, title=title)
        else:
            write_pair(place, pair, title=title)
    if isinstance(pair, ClassComparison):
        print(class_comparison_text(pair))
        print(f"Results saved to {folder}")
        return
    _finish([pair.a, pair.b], comparison_text(pair), folder)


def _arms(a: object, b: object) -> tuple[object, object, bool | None]:
    """Find the runs of both arms, and whether they pair by seed."""
    from det_ls.evaluation.runs import expand, pair_by_seed

    named = [arm if isinstance(arm, (list, tuple)) else str(arm) for arm in (a, b)]
    first, second = expand(named[0], "a"), expand(named[1], "b")
    if len(first) == len(second) == 1:
        return str(first[0]), str(second[0]), None
    paired = False
    if len(first) == len(second):
        pairing = pair_by_seed(first, second)
        first, second = [list(arm) for arm in zip(*pairing.pairs, strict=True)]
        paired = pairing.by == "seed"
    return tuple(map(str, first)), tuple(map(str, second)), paired


def _pattern_names(*asked: object) -> tuple[str, str] | None:
    """Name arms that are patterns by what is fixed in them: ``smooth`` for ``runs/smooth*/weights/best.pt``.

    Examples:
        >>> _pattern_names("runs/stock_s*/weights/best.pt", "runs/smooth-*/weights/best.pt")
        ('stock', 'smooth')
    """
    if not all(isinstance(arm, str) and any(sign in arm for sign in "*?[") and "," not in arm for arm in asked):
        return None
    fixed = (re.sub(r"\*+|\?+|\[[^]]*\]", " ", name_of(arm)) for arm in asked)
    found = [re.sub(r"[\s_.-]+(seed|s)?[\s_.-]*$", "", " ".join(name.split())) for name in fixed]
    return (found[0], found[1]) if all(found) and found[0] != found[1] else None


def _arm_names(a: object, b: object) -> tuple[str, str] | None:
    """Name arms of several runs by what the names of their runs begin with, seeds and numbers left out."""
    found = []
    for arm in (a, b):
        if not isinstance(arm, tuple):
            return None
        same = takewhile(lambda signs: len(set(signs)) == 1, zip(*map(name_of, arm), strict=False))
        found.append(_SEED.sub("", "".join(signs[0] for signs in same)))
    return (found[0], found[1]) if all(found) and found[0] != found[1] else None


def _arguments(words: Sequence[str], mode: str, known: Iterable[str], required: Iterable[str]) -> dict[str, Any]:
    """Parse the words of a mode and check them against what it takes."""
    from det_ls.cli.grammar import check_known, key_values

    arguments = key_values(words)
    refuse_keys(arguments, f"expected in train mode only, got mode {mode!r}, where it would have no effect.")
    check_known(arguments, known, required, f"det-ls {mode}")
    return arguments


def _report(evaluation: Evaluation, folder: Path, title: str) -> None:
    """Write the page with its pictures and tables."""
    from det_ls.report.outputs import write_evaluation

    write_evaluation(folder, evaluation, title=title)


def _finish(evaluations: Sequence[Evaluation], text: str, folder: Path) -> None:
    """Print the numbers; fail if there is none."""
    print(text)
    print(f"Results saved to {folder}")
    defined = [v for e in evaluations for v in e.metrics.values.values() if v is not None and v != -1]
    if not defined:
        raise NothingDefinedError(
            "annotations: expected at least one number to be defined, got none: there is no ground truth."
        )
