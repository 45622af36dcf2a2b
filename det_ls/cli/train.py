# SPDX-License-Identifier: AGPL-3.0-or-later
"""``det-ls train``, and every mode that is passed on to ``yolo`` as it is."""

from __future__ import annotations

import shlex
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from det_ls.base.arguments import shown
from det_ls.base.errors import ArgumentError, ArgumentTypeError
from det_ls.cli.grammar import Command, parse_command
from det_ls.smoothing.request import Request, refuse_keys
from det_ls.smoothing.settings import PREFIX, split_keys
from det_ls.stock.patches import command_line, model_classes

OTHER_FAMILIES = ("RTDETR", "FastSAM", "SAM", "NAS")  # the entry point builds these by file name


class Interrupted(KeyboardInterrupt):
    """Ctrl-C during training; the message says how to go on."""


def passthrough(words: Sequence[str]) -> Any:
    """Run a ``yolo`` command with our ``YOLO`` in place wherever it trains.

    Args:
        words: The command's words, for example ``["train", "model=yolo11n.yaml", "label_smoothing=0.1"]``.

    Returns:
        The model that was trained, or None in other modes.

    Raises:
        KeyboardInterrupt: After Ctrl-C during training, with the command that goes on.
        TypeError: If a label-smoothing key is unknown or has the wrong type.
        ValueError: If a label-smoothing key is out of range or cannot take effect.
    """
    command = parse_command(words)
    from ultralytics.cfg import entrypoint

    from det_ls.training.calibrated import CalibrationInterrupted

    mode = command.arguments.get("mode") or "predict"
    if mode != "train":
        refuse_keys(
            command.arguments, f"expected in train mode only, got mode {mode!r}, where it would have no effect."
        )
        with command_line(words):
            entrypoint()
        return None

    request = Request.parse(command.arguments)  # checked before anything else happens
    _check_values(command.arguments)
    started: list[Any] = []
    trained: list[Any] = []
    with _clean_words(command) as clean, command_line(clean), model_classes(_our_classes(request, started, trained)):
        try:
            entrypoint()
        except CalibrationInterrupted as interrupt:  # the run is finished: there is nothing to resume
            raise Interrupted(str(interrupt)) from interrupt
        except KeyboardInterrupt as interrupt:
            raise Interrupted(_how_to_go_on(words, started)) from interrupt
    if (request.smoothing.enabled or request.smoothing.calibrate) and not trained:
        refuse_keys({PREFIX: request}, "expected a YOLO detection model, got one that det-ls does not train.")
    return trained[-1] if trained else None


def _check_values(arguments: Mapping[str, Any]) -> None:
    """Raise for a value that stock refuses, in a sentence in place of a traceback."""
    from ultralytics.cfg import check_cfg

    for key, value in split_keys(arguments)[1].items():
        if key == "epochs" and isinstance(value, int):  # det_ls.training.run_folder says what is wrong with it
            continue
        try:
            check_cfg({key: value})
        except (TypeError, ValueError) as error:
            kind = ArgumentTypeError if isinstance(error, TypeError) else ArgumentError
            why = str(error).split("\n")[0].split(". ", 1)[-1].rstrip(".")
            raise kind(f"{key}: expected a value that Ultralytics takes, got {shown(value)} ({why}).") from error


@contextmanager
def _clean_words(command: Command) -> Iterator[list[str]]:
    """Name a copy of the cfg file without our keys: stock would drop ``label_smoothing`` and refuse the others."""
    if command.cfg is None:
        yield list(command.words)
        return
    from ultralytics.utils import YAML

    with tempfile.TemporaryDirectory(prefix="det-ls-") as folder:
        file = Path(folder) / "cfg.yaml"
        YAML.save(file, split_keys(command.cfg)[1])
        yield [f"cfg={file}", *command.words]  # first: in older versions it replaces what came before


def _how_to_go_on(words: Sequence[str], started: Sequence[Any]) -> str:
    """Say how to go on after Ctrl-C: resume from the last checkpoint, or begin again where there is none."""
    for model in reversed(started):
        last = getattr(getattr(model, "trainer", None), "last", None)
        if last is not None and Path(last).is_file():
            return f"go on with: {shlex.join(['det-ls', 'train', 'resume', f'model={last}'])}"
    return f"no epoch was finished, repeat with: {shlex.join(['det-ls', *words])}"


def _our_classes(request: Request, started: list[Any], trained: list[Any]) -> dict[str, Callable[..., Any]]:
    """Return our ``YOLO``, which trains with the request, and refusals for the families that it does not fit.

    Args:
        request: The label smoothing that was asked for.
        started: The list that each model is added to before it trains.
        trained: The list that each trained model is added to.

    Returns:
        What the entry point is to call, by the name of the class.
    """
    import ultralytics

    from det_ls.training.model import YOLO

    keys = {PREFIX: request} if request.given else {}

    def build(*args: Any, **kwargs: Any) -> Any:
        model: Any = YOLO(*args, **kwargs)
        train = model.train

        def train_with_request(**arguments: Any) -> Any:
            started.append(model)
            result = train(**arguments, **keys)
            trained.append(model)
            return result

        model.train = train_with_request
        return model

    def refuse(family: str) -> Callable[..., Any]:
        stock = getattr(ultralytics, family)

        def build_other(*args: Any, **kwargs: Any) -> Any:
            refuse_keys(keys, f"expected a YOLO detection model, got a model of the family {family}.")
            return stock(*args, **kwargs)

        return build_other

    return {"YOLO": build, **{family: refuse(family) for family in OTHER_FAMILIES}}
