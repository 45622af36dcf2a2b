# SPDX-License-Identifier: AGPL-3.0-or-later
"""The ``det-ls`` command: the grammar of ``yolo``, with the label-smoothing keys."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from det_ls.smoothing.settings import LabelSmoothing, refuse_keys, split_keys

HELP = """det-ls: Ultralytics YOLO with label smoothing, and its measurement.

    det-ls train model=yolo26n.yaml data=datasets/brain-tumor.yaml label_smoothing=0.1 epochs=100
    det-ls train cfg=cfg/brain_tumor.yaml
    det-ls train resume model=runs/detect/train/weights/last.pt
    det-ls val model=runs/detect/train/weights/best.pt data=datasets/brain-tumor.yaml
    det-ls compare a=runs/detect/train/weights/best.pt b=runs/detect/train2/weights/best.pt data=coco8.yaml
    det-ls metrics annotations=gt.json predictions=detections.json

train takes every key of `yolo train` and
    label_smoothing=0.1                   epsilon, or "{'default': 0.05, 'positive': 0.2}"; 0 is stock training
    label_smoothing_mode=redistribute     redistribute, uniform, binary or background
    label_smoothing_similarity=table.csv  where each class's share goes instead of evenly
    label_smoothing_schedule=constant     constant, linear or cosine
val, compare and metrics measure COCO AP and calibration, and write numbers and report.html. They take
    model, data (val); a, b, data or annotations (compare); annotations, predictions (metrics)
    split=val annotations=gt.json imgsz=640 batch=16 conf=0.001 iou=0.7 max_det=300 device= workers=8 end2end=
    protocol=det_ls                       or reference: as the reference tools count, quirks included
    bootstrap=1000 seed=0                 image-level replicates for the intervals
    train_images=0                        val: images of the train split to measure too, for the train/val gap
    save_dir= exist_ok=False              where to write; nothing is overwritten without exist_ok=True
Every other mode is passed on to `yolo` as it is.
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line.

    Args:
        argv: The words after the program's name; ``sys.argv[1:]`` if None.

    Returns:
        The exit status: 0, or 2 after a one-sentence error.
    """
    words = list(sys.argv[1:] if argv is None else argv)
    if not words or words[0] in {"help", "-h", "--help"}:
        print(HELP)
        return 0
    for mode, command in COMMANDS.items():
        if words[:1] == [mode] or words[:2] == ["detect", mode] or f"mode={mode}" in words:
            rest = [word for word in words if word not in {mode, "detect", f"mode={mode}"}]
            return run(lambda command=command, rest=rest: command(rest))  # type: ignore[misc]
    return run(lambda: passthrough(words))


def run(command: Callable[[], object]) -> int:
    """Run a command and turn our own errors into one sentence on stderr.

    Args:
        command: What to run.

    Returns:
        The exit status: 0, or 2 after a one-sentence error.
    """
    try:
        command()
    except (ValueError, TypeError, RuntimeError, OSError) as error:
        if not _raised_by_det_ls(error):
            raise
        print(f"det-ls: error: {error}", file=sys.stderr)
        return 2
    return 0


def passthrough(words: Sequence[str]) -> Any:
    """Run a ``yolo`` command with our ``YOLO`` in place wherever it trains.

    Args:
        words: The command's words, for example ``["train", "model=yolo11n.yaml", "label_smoothing=0.1"]``.

    Returns:
        The model that was trained, or None in other modes.

    Raises:
        TypeError: If a label-smoothing key is unknown or has the wrong type.
        ValueError: If a label-smoothing key is out of range or cannot take effect.
    """
    from ultralytics.cfg import entrypoint

    stock_words, arguments, cfg = _parse(words)
    keys, _ = split_keys(arguments)
    mode = arguments.get("mode") or "predict"
    if mode != "train":
        refuse_keys(keys, f"expected in train mode only, got mode {mode!r}, where it would have no effect.")
        with _argv(words):
            entrypoint()
        return None

    smoothing = LabelSmoothing.from_args(keys)  # checked before anything else happens
    with _clean_words(stock_words, cfg) as clean, _argv(clean), _our_models(keys) as trained:
        entrypoint()
    if smoothing.enabled and not trained:
        refuse_keys(keys, "expected a YOLO detection model, got one that det-ls does not train.")
    return trained[-1] if trained else None


def arguments_of(words: Sequence[str]) -> dict[str, Any]:
    """Return what a ``yolo`` command sets, the file that ``cfg=`` names included.

    Args:
        words: The command's words.

    Returns:
        Values by key; words win over the file.

    Raises:
        FileNotFoundError: If the file was not found.
        TypeError: If a label-smoothing key has no value.
    """
    return _parse(words)[1]


def key_values(words: Sequence[str]) -> dict[str, Any]:
    """Parse ``key=value`` words as ``yolo`` does.

    Args:
        words: The words.

    Returns:
        Values as Python literals where they are literals.

    Raises:
        TypeError: If a word has no ``=`` or no value.
    """
    from ultralytics.cfg import merge_equals_args, parse_key_value_pair

    arguments: dict[str, Any] = {}
    for word in merge_equals_args(list(words)):
        key, separator, value = word.removeprefix("--").removesuffix(",").partition("=")
        if not separator or not value.strip():
            raise TypeError(f"{word!r}: expected key=value.")
        arguments.update([parse_key_value_pair(f"{key}={value}")])
    return arguments


def check_known(arguments: Mapping[str, Any], known: Iterable[str], required: Iterable[str], what: str) -> None:
    """Raise unless arguments are known and complete.

    Args:
        arguments: The arguments.
        known: The keys that are known.
        required: The keys that must be there.
        what: What takes them, for the error.

    Raises:
        TypeError: If a key is unknown or missing.
    """
    known = list(known)
    for key in arguments:
        if key not in known:
            raise TypeError(f"{key}: expected one of the keys of {what} ({', '.join(known)}), got an unknown key.")
    for key in required:
        if key not in arguments:
            raise TypeError(f"{key}: expected {key}=... for {what}, got none.")


def _parse(words: Sequence[str]) -> tuple[list[str], dict[str, Any], dict[str, Any] | None]:
    """Split a yolo command: words without keys and cfg, merged arguments (argv over cfg), the cfg file's content."""
    from ultralytics.cfg import MODES, merge_equals_args, parse_key_value_pair
    from ultralytics.utils import YAML

    kept: list[str] = []
    arguments: dict[str, Any] = {}
    cfg: dict[str, Any] | None = None
    for word in merge_equals_args(list(words)):
        bare = word.removeprefix("--").removesuffix(",")
        key, separator, value = bare.partition("=")
        key = key.strip()
        if separator and value.strip() and key == "cfg" and value.strip().lower() != "none":
            cfg = {k: v for k, v in YAML.load(_cfg_file(value.strip())).items() if k != "cfg"}
            continue
        if separator and (value.strip() or split_keys({key: None})[0]):
            if not value.strip():
                raise TypeError(f"{word!r}: expected {key}=value.")
            arguments.update([parse_key_value_pair(f"{key}={value}")])
        elif bare in MODES:
            arguments["mode"] = bare
        elif split_keys({bare: None})[0]:
            raise TypeError(f"{word!r}: expected {bare}=value.")
        if not split_keys({key: None})[0]:
            kept.append(word)
    return kept, {**(cfg or {}), **arguments}, cfg


@contextmanager
def _clean_words(words: Sequence[str], cfg: dict[str, Any] | None) -> Iterator[list[str]]:
    """Name a copy of the cfg file without our keys: stock would drop ``label_smoothing`` and refuse the others."""
    if cfg is None:
        yield list(words)
        return
    from ultralytics.utils import YAML

    with tempfile.TemporaryDirectory(prefix="det-ls-") as folder:
        file = Path(folder) / "cfg.yaml"
        YAML.save(file, split_keys(cfg)[1])
        yield [f"cfg={file}", *words]  # first: in older versions it replaces what came before


def _cfg_file(name: str) -> str:
    """Find the file that ``cfg=`` names, as Ultralytics does."""
    from ultralytics.utils import checks

    found = checks.check_file(name, hard=False)
    if not found:
        raise FileNotFoundError(f"cfg: expected a YAML file, got {name!r}, which was not found.")
    return str(found)


@contextmanager
def _argv(words: Sequence[str]) -> Iterator[None]:
    """Let Ultralytics' entry point read these words."""
    from ultralytics import cfg

    stock = cfg.ARGV
    cfg.ARGV = ["det-ls", *words]
    try:
        yield
    finally:
        cfg.ARGV = stock


@contextmanager
def _our_models(keys: dict[str, Any]) -> Iterator[list[Any]]:
    """Put our ``YOLO`` where the entry point looks it up, and refuse the keys for families it builds by file name."""
    import ultralytics

    from det_ls.training.model import YOLO

    trained: list[Any] = []

    def build(*args: Any, **kwargs: Any) -> Any:
        model: Any = YOLO(*args, **kwargs)
        train = model.train

        def train_with_keys(**arguments: Any) -> Any:
            result = train(**arguments, **keys)
            trained.append(model)
            return result

        model.train = train_with_keys
        return model

    def refuse(family: str) -> Callable[..., Any]:
        stock = getattr(ultralytics, family)

        def build_other(*args: Any, **kwargs: Any) -> Any:
            refuse_keys(keys, f"expected a YOLO detection model, got a model of the family {family}.")
            return stock(*args, **kwargs)

        return build_other

    replacements = {"YOLO": build, **{family: refuse(family) for family in ("RTDETR", "FastSAM", "SAM", "NAS")}}
    stock = {name: getattr(ultralytics, name) for name in replacements}
    for name, replacement in replacements.items():
        setattr(ultralytics, name, replacement)
    try:
        yield trained
    finally:
        for name, original in stock.items():
            setattr(ultralytics, name, original)


def _raised_by_det_ls(error: BaseException) -> bool:
    """Tell our own one-sentence errors from failures elsewhere, whose traceback a user needs."""
    frames = []
    trace = error.__traceback__
    while trace is not None:
        frames.append(trace.tb_frame.f_globals.get("__name__", ""))
        trace = trace.tb_next
    return bool(frames) and frames[-1].startswith("det_ls.")


def _evaluating(mode: str) -> Callable[[Sequence[str]], None]:
    """Import an evaluating mode only when it is asked for."""

    def command(words: Sequence[str]) -> None:
        from det_ls.cli import evaluate as cli_evaluation

        getattr(cli_evaluation, mode)(words)

    return command


COMMANDS = {mode: _evaluating(mode) for mode in ("val", "metrics", "compare")}
