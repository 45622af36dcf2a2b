# SPDX-License-Identifier: AGPL-3.0-or-later
"""How a model was trained, as far as its checkpoint and the args.yaml of its run say; nothing is guessed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from det_ls.smoothing.settings import CALIBRATE, split_keys

ARGS_FILE = "args.yaml"
_SAME_RUN = ("model", "data", "epochs", "imgsz", "batch", "seed", "name")  # what two runs rarely have all in common


@dataclass(frozen=True)
class TrainingRecord:
    """The training of one model; None where it is unknown.

    Attributes:
        model: The ``model=`` of the training.
        data: Its ``data=``.
        epochs: Epochs that were asked for; patience may have ended the run before.
        imgsz: Image size.
        batch: Images a batch.
        seed: Seed.
        single_cls: Whether all classes were trained as one.
        label_smoothing: The label-smoothing keys; empty for a run without any. Checkpoints lose them when Ultralytics
            strips the optimizer, so that only the run's args.yaml knows.
        weights: ``best`` or ``last``, by the file's name.
        selected_on_split: Whether these weights were chosen among the epochs by their score on the very split that is
            evaluated: they are best.pt of a run that validated on it.
        trained_on_split: Whether the split that is evaluated is the one that the run learnt from.
        source: What says so: ``args.yaml``, ``checkpoint``, or both.
    """

    model: str | None = None
    data: str | None = None
    epochs: int | None = None
    imgsz: int | list[int] | None = None
    batch: int | float | None = None
    seed: int | None = None
    single_cls: bool | None = None
    label_smoothing: dict[str, Any] | None = None
    weights: str | None = None
    selected_on_split: bool | None = None
    trained_on_split: bool | None = None
    source: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return what JSON can hold, under the attributes' names."""
        return asdict(self)


def training_record(
    weights: str | Path | None,
    train_args: Mapping[str, Any] | None = None,
    *,
    data: str | Path | None = None,
    split: str = "val",
) -> TrainingRecord:
    """Read how a model was trained.

    Args:
        weights: The checkpoint's or exported model's path, beside or above which the run's args.yaml may be.
        train_args: The ``train_args`` of the checkpoint, if it is loaded.
        data: The data YAML that the model is evaluated on.
        split: The split that it is evaluated on.

    Returns:
        The record. An args.yaml that contradicts the checkpoint is another run's, and is not used.
    """
    inside = dict(train_args or {})
    beside = run_args(weights) if weights is not None else None
    if beside is not None and any(k in inside and k in beside and inside[k] != beside[k] for k in _SAME_RUN):
        beside = None
    args = {**inside, **(beside or {})}
    name = Path(weights).stem if weights is not None else None
    which = name if name in ("best", "last") else None
    smoothing = {key: value for key, value in split_keys(args)[0].items() if key != CALIBRATE}
    same = _same_data(args.get("data"), data)
    sources = [label for label, found in ((ARGS_FILE, beside), ("checkpoint", inside)) if found]
    return TrainingRecord(
        model=_text(args.get("model")),
        data=_text(args.get("data")),
        epochs=args.get("epochs"),
        imgsz=args.get("imgsz"),
        batch=args.get("batch"),
        seed=args.get("seed"),
        single_cls=None if args.get("single_cls") is None else bool(args["single_cls"]),
        label_smoothing=smoothing if smoothing or beside is not None else None,
        weights=which,
        selected_on_split=_selected(which, args, same, split),
        trained_on_split=None if same is None else same and split == "train",
        source=" and ".join(sources) or None,
    )


def run_args(file: str | Path) -> dict[str, Any] | None:
    """Read the args.yaml of the run that a file belongs to.

    Args:
        file: A file in a run folder, or in its folder ``weights``.

    Returns:
        The run's arguments, or None if there is no readable args.yaml.
    """
    import yaml

    parent = Path(file).absolute().parent
    folder = parent.parent if parent.name == "weights" else parent
    try:
        content = yaml.safe_load((folder / ARGS_FILE).read_text(encoding="utf-8", errors="ignore"))
    except (OSError, yaml.YAMLError):
        return None
    return content if isinstance(content, dict) else None


def _selected(which: str | None, args: Mapping[str, Any], same_data: bool | None, split: str) -> bool | None:
    """Say whether best.pt was chosen on the split that is evaluated."""
    if which == "last" or same_data is False:
        return False
    validated, on = args.get("val"), args.get("split")
    if which is None or same_data is None or validated is None or on is None:
        return None
    if not validated:  # only the last epoch is validated, so that nothing is chosen
        return False
    if on != "val" and split in ("val", on):  # which of the two a run validates on has changed between versions
        return None
    return split == on


def _same_data(trained: object, evaluated: str | Path | None) -> bool | None:
    """Say whether two data arguments name the same data set; None if one of them is not on this machine."""
    from det_ls.data.locate import local_data_file

    if not isinstance(trained, str) or evaluated is None:
        return None
    files = [local_data_file(trained), local_data_file(evaluated)]
    if files[0] is None or files[1] is None:
        return None
    return files[0].samefile(files[1]) or files[0].read_bytes() == files[1].read_bytes()


def _text(value: object) -> str | None:
    """Return text, or None."""
    return None if value is None else str(value)
