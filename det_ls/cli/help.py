# SPDX-License-Identifier: AGPL-3.0-or-later
"""The help of one mode: its keys, defaults and meanings, read from the function that it calls."""

from __future__ import annotations

import inspect
import re
import textwrap
from importlib import import_module
from typing import Any

from det_ls.cli.evaluate import BOOTSTRAP

_CALLED: dict[str, list[tuple[str, str, tuple[str, ...]]]] = {  # module, function, arguments that are not keys
    "val": [("det_ls.evaluation.evaluate", "evaluate", ())],
    "metrics": [("det_ls.evaluation.evaluate", "evaluate_detections", ())],
    "compare": [
        ("det_ls.evaluation.comparison", "compare", ("names", "paired", "settings")),
        ("det_ls.evaluation.evaluate", "evaluate", ("model", "train_images")),
    ],
    "calibrate": [("det_ls.calibration.calibrate", "calibrate", ())],
    "study": [("det_ls.studies.run", "study", ("progress", "train"))],
    "train": [("det_ls.smoothing.settings", "LabelSmoothing", ())],
}
_USAGE = {
    "val": "det-ls val model=best.pt data=data.yaml [key=value ...]: measure a model; numbers, tables and report.html.",
    "metrics": "det-ls metrics annotations=gt.json predictions=detections.json [key=value ...]: measure any detector.",
    "compare": "det-ls compare a=one.pt b=other.pt data=data.yaml [key=value ...]: measure two models on the same\n"
    "images; a='runs/stock*/weights/best.pt' b='runs/smooth*/weights/best.pt': several runs of each, paired by seed\n"
    "if both have the same seeds; annotations=gt.json a=one.json b=other.json: COCO results of any detectors.",
    "calibrate": "det-ls calibrate model=best.pt data=data.yaml [key=value ...]: map the scores; for COCO files\n"
    "annotations=gt.json predictions=detections.json out=calibrated.json, and map=map.json to apply a map.",
    "study": "det-ls study data=data.yaml model=yolo26n.yaml label_smoothing=0,0.1 seeds=5 [key=value ...]: train and\n"
    "measure a grid; every other key of det-ls train goes to each run. det-ls study resume=FOLDER goes on with it.",
    "train": "det-ls train model=yolo26n.yaml data=data.yaml label_smoothing=0.1 [key=value ...]: every key of\n"
    "`yolo train` and those below; `det-ls train resume model=last.pt` goes on with a run.",
}
MORE = """Words may stand in any order. More of ours:
    det-ls train|val|compare|metrics|calibrate|study --help    the keys of a mode, with defaults
    det-ls checks                              versions, devices, and which form of the criterion runs here
    det-ls cfg [key=value ...]                 what a command would set, as a file for cfg=
    det-ls completion bash|zsh                 a script that completes modes and keys
    det-ls convert source=coco out=new         a YOLO data set of a COCO-format folder or JSON; task=segment or pose
    det-ls --version
"""
CALLED_AS = {"metrics": {"gt": "annotations", "detections": "predictions"}}
"""What the command line calls a function's arguments, by mode, where the names differ."""


def mode_help(mode: str) -> str:
    """Write what a mode takes.

    Args:
        mode: The mode.

    Returns:
        Usage, then each key with its default and meaning; empty for a mode that has no help of its own.
    """
    if mode not in _CALLED:
        return ""
    lines = [_USAGE[mode], ""]
    for key, (default, meaning) in _keys(mode).items():
        text = textwrap.wrap(meaning + ("" if default is None else f" [{default}]"), 120 - 30)
        lines += [f"  {key + '=':<27} {text[0] if text else ''}", *(" " * 30 + line for line in text[1:])]
    return "\n".join(lines)


def keys_of(mode: str) -> list[str]:
    """List the keys of a mode that has help.

    Args:
        mode: The mode.

    Returns:
        The keys, in the order of its help.
    """
    return list(_keys(mode))


def _keys(mode: str) -> dict[str, tuple[Any, str]]:
    """Read default and meaning of each key from the signature and docstring of what the mode calls."""
    found: dict[str, tuple[Any, str]] = {}
    for module, name, left_out in _CALLED[mode]:
        function = getattr(import_module(module), name)
        meanings = _meanings(inspect.getdoc(function) or "")
        for key, parameter in inspect.signature(function).parameters.items():
            if key not in left_out:
                default = None if parameter.default is inspect.Parameter.empty else parameter.default
                found.setdefault(CALLED_AS.get(mode, {}).get(key, key), (default, meanings.get(key, "")))
    if mode in {"val", "metrics", "compare"}:
        found["bootstrap"] = (BOOTSTRAP, found["bootstrap"][1])
        found.setdefault("save_dir", (None, ""))
        found["save_dir"] = (None, "Folder for the files; a new one in runs/ by default.")
        found["exist_ok"] = (False, "Whether to replace what is in save_dir.")
    return found


def _meanings(text: str) -> dict[str, str]:
    """Take the meanings of the arguments out of a Google-style docstring, as plain text."""
    section = re.search(r"^(?:Args|Attributes):\n((?:    .*\n?|\n)+)", text, re.MULTILINE)
    if section is None:
        return {}
    entries = re.findall(r"^    (\w+): ((?:.*\n?)(?:^        .*\n?)*)", section.group(1), re.MULTILINE)
    return {key: re.sub(r":\w+:`([^`]*)`|`+", r"\1", " ".join(meaning.split())) for key, meaning in entries}
