# SPDX-License-Identifier: AGPL-3.0-or-later
"""The trainer: the only module that touches the internals of Ultralytics' trainers.

It assumes of Ultralytics, and checks at first use, that

1. ``BaseTrainer.__init__`` calls ``check_resume(overrides)`` after it made ``self.args`` and before it writes
   args.yaml, and ``get_dataset()`` last of what can fail;
2. ``resume_training(ckpt)`` is the last step of the set-up of model, class weights, EMA and end-to-end state;
3. ``run_callbacks("on_train_epoch_start")`` follows the assignment of ``self.epoch``;
4. ``get_validator`` and nothing else makes a config from ``self.args`` again, and ``_load_checkpoint_state`` (NaN
   recovery) and nothing else copies the live model.
"""

from __future__ import annotations

import inspect
import logging
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import ultralytics
from ultralytics.cfg import cfg2dict, get_save_dir
from ultralytics.engine import trainer as engine
from ultralytics.models.yolo.detect import DetectionTrainer as StockDetectionTrainer
from ultralytics.nn.tasks import load_checkpoint
from ultralytics.utils import DEFAULT_CFG, LOGGER, RANK, YAML
from ultralytics.utils.torch_utils import unwrap_model

from det_ls.data.locate import class_names, dataset_root, local_data_file
from det_ls.losses.criterion import copy_progress, describe, set_smoothing_matrix, smoothed_criterion
from det_ls.smoothing.settings import LabelSmoothing, ordered_names, split_keys
from det_ls.smoothing.similarity import SimilarityTable

if TYPE_CHECKING:
    from ultralytics.engine.trainer import BaseTrainer as _Base
else:
    _Base = object

TABLE_COPY = "label_smoothing_similarity.csv"


class LabelSmoothingTrainerMixin(_Base):
    """Adds the label-smoothing keys to an Ultralytics trainer; put it before the stock class.

    The run folder, args.yaml, checkpoints and validation are the stock trainer's. The live model's criterion smooths
    its targets; the EMA model keeps the stock criterion, so the validation loss stays comparable across epsilons and
    no checkpoint holds a class of det-ls.
    """

    def __init__(
        self,
        cfg: Any = DEFAULT_CFG,
        overrides: dict[str, Any] | None = None,
        _callbacks: dict[str, list[Callable[..., Any]]] | None = None,
    ) -> None:
        """Take the label-smoothing keys out of a config and set up the stock trainer with the rest.

        Args:
            cfg: As in Ultralytics; it is not changed.
            overrides: As in Ultralytics; they are not changed, and their keys win over cfg's.
            _callbacks: As in Ultralytics.

        Raises:
            TypeError: If a label-smoothing key is unknown or has the wrong type.
            ValueError: If a label-smoothing key's value is out of range or does not fit the data set's classes.
        """
        check_ultralytics()
        cfg_keys, cfg = split_keys(cfg2dict(cfg))
        override_keys, overrides = split_keys(cfg2dict(overrides or {}))
        self._given = {**cfg_keys, **override_keys}
        self._new_folders: list[Path] = []
        self._criterion: Any = None
        self._set_smoothing(LabelSmoothing.from_args(self._given))
        with dataset_root(overrides.get("data") or cfg.get("data")):
            super().__init__(cfg, overrides, _callbacks)
        self._copy_table()

    def check_resume(self, overrides: dict[str, Any]) -> None:
        """Resume as stock does, then put the keys on ``self.args`` and check them against a local data set.

        Args:
            overrides: As in Ultralytics.
        """
        with _without_removed_key_warning():
            super().check_resume(overrides)
        if self.resume:
            self._read_keys_from_checkpoint(Path(self.args.resume))
        for key in split_keys(vars(self.args))[0]:
            delattr(self.args, key)
        for key, value in self.smoothing.to_args().items():
            setattr(self.args, key, value)
        if not isinstance(self.args.data, dict) and (file := local_data_file(self.args.data)) is not None:
            names = {0: "item"} if self.args.single_cls else class_names(file)
            self.smoothing.check(ordered_names(names), self._table)
        folder = Path(get_save_dir(self.args))
        new = [path for path in (folder, *folder.parents) if not path.exists()]
        self._new_folders = new if RANK in {-1, 0} else []

    def get_dataset(self) -> dict[str, Any]:
        """Resolve the data set as stock does and check the keys against its classes.

        Returns:
            Ultralytics' data dictionary.
        """
        checked = False
        try:
            with dataset_root(self.args.data):
                data = self._stock_dataset()
            self.smoothing.check(ordered_names(data["names"]), self._table)
            checked = True
        finally:
            if not checked:
                self._remove_empty_run_folder()
        return data

    def _stock_dataset(self) -> dict[str, Any]:
        """Resolve the data set as stock does, with a one-sentence error."""
        try:
            return super().get_dataset()
        except RuntimeError as error:
            reason = str(error).strip().splitlines()[0]
            raise RuntimeError(f"data: expected a usable data set, got {self.args.data!r}: {reason}") from error

    def train(self) -> None:
        """Train as stock does; afterwards, also after an interruption, the live model holds no class of det-ls."""
        try:
            with dataset_root(self.args.data), self._table_survives_ddp_launch():
                super().train()
        finally:
            self._remove_criterion()

    def resume_training(self, ckpt: Mapping[str, Any] | None) -> None:
        """Resume as stock does, then put the smoothed criterion in place: the last step of the set-up.

        Args:
            ckpt: As in Ultralytics.
        """
        super().resume_training(ckpt)
        if not self.smoothing.enabled:
            LOGGER.info("label smoothing: off, using the stock criterion")
            return
        model = self._criterion_owner()
        # The keys fit the data set; the run's schedule and its table, already read, are applied at each epoch's start.
        criterion = smoothed_criterion(model, **_without_schedule_and_table(self.smoothing))
        copy_progress(getattr(model, "criterion", None), criterion)
        model.criterion = self._criterion = criterion
        self._apply_schedule(self.start_epoch)
        LOGGER.info(f"label smoothing: {self.smoothing.describe()}, using {describe(criterion)}")

    def run_callbacks(self, event: str) -> None:
        """Set the epoch's epsilon before any callback of its start runs.

        Args:
            event: As in Ultralytics.
        """
        if event == "on_train_epoch_start" and self.smoothing.enabled:
            if self._criterion is None or self._criterion_owner().criterion is not self._criterion:
                raise RuntimeError(
                    f"label_smoothing: expected the smoothed criterion on the model, but ultralytics "
                    f"{ultralytics.__version__} replaced it before epoch {self.epoch + 1}."
                )
            self._apply_schedule(self.epoch)
        super().run_callbacks(event)

    def save_metrics(self, metrics: dict[str, float]) -> None:
        """Write the epoch's row of results.csv with its epsilon.

        Args:
            metrics: As in Ultralytics.
        """
        scale = self.smoothing.scale(self.epoch, self.epochs)
        super().save_metrics({**metrics, **self.smoothing.logged(scale)})

    def get_validator(self) -> Any:
        """Build the stock validator from a config without the keys, which it would reject.

        Returns:
            The stock validator.
        """
        keys, _ = split_keys(vars(self.args))
        for key in keys:
            delattr(self.args, key)
        try:
            return super().get_validator()
        finally:
            for key, value in keys.items():
                setattr(self.args, key, value)

    def _load_checkpoint_state(self, ckpt: Mapping[str, Any]) -> None:
        """Load a checkpoint's state; the new EMA, a copy of the live model, must not copy our criterion."""
        owner = self._criterion_owner()
        hidden = getattr(owner, "criterion", None) if self._criterion is not None else None
        if hidden is not None:
            owner.criterion = None
        try:
            super()._load_checkpoint_state(ckpt)
        finally:
            if hidden is not None:
                owner.criterion = hidden

    def _set_smoothing(self, smoothing: LabelSmoothing, beside: Path | None = None) -> None:
        """Take over validated keys and read their table, from a moved run's folder if need be."""
        path = smoothing.label_smoothing_similarity if smoothing.enabled else None
        if path is not None and beside is not None and not Path(path).is_file():
            path = str(beside / TABLE_COPY)
        self.smoothing = smoothing
        self._table = None if path is None else SimilarityTable.read(path)

    def _read_keys_from_checkpoint(self, last: Path) -> None:
        """Go on with the checkpoint's keys; another value given on resume is ignored, and said to be."""
        saved = LabelSmoothing.from_args(split_keys(load_checkpoint(last)[1].get("train_args", {}))[0])
        self._set_smoothing(saved, beside=last.parent.parent)
        for key, value in self._given.items():
            if value is None:
                continue
            old, new = getattr(saved, key), getattr(LabelSmoothing.from_args({key: value}), key)
            same = old == new
            if key == "label_smoothing_similarity":  # the checkpoint names a copy: compare what the tables say
                same = self._table is not None and SimilarityTable.read(new).text == self._table.text
            if not same:
                LOGGER.warning(
                    f"Resume ignores {key}={new}, using the checkpoint's {key}={old}. Start a new run to change it."
                )

    def _copy_table(self) -> None:
        """Put a copy of the similarity table into the run folder and make the run's args name the copy."""
        if self._table is None:
            return
        copy = Path(self.save_dir) / TABLE_COPY
        self.args.label_smoothing_similarity = str(copy)
        if RANK in {-1, 0}:
            copy.parent.mkdir(parents=True, exist_ok=True)
            temporary = copy.with_suffix(".tmp")
            temporary.write_text(self._table.text, encoding="utf-8")
            os.replace(temporary, copy)
            YAML.save(Path(self.save_dir) / "args.yaml", vars(self.args))

    @contextmanager
    def _table_survives_ddp_launch(self) -> Iterator[None]:
        """Write the table's copy again for the workers: Ultralytics removes the run folder before it starts them."""
        if not getattr(self, "ddp", False) or self._table is None:
            yield
            return
        stock: Any = engine.generate_ddp_command

        def generate_ddp_command(*args: Any) -> Any:
            command = stock(*args)
            self._copy_table()
            return command

        engine.generate_ddp_command = generate_ddp_command  # type: ignore[assignment]
        try:
            yield
        finally:
            engine.generate_ddp_command = stock

    def _criterion_owner(self) -> Any:
        """Return the model whose ``criterion`` the training step uses, inside DDP, compile and distillation."""
        model: Any = unwrap_model(self.model)  # type: ignore[arg-type]
        return getattr(model, "student_model", model)

    def _apply_schedule(self, epoch: int) -> None:
        """Set the smoothing matrix of an epoch, derived from the epoch and never counted."""
        names = ordered_names(self.data["names"])
        scale = self.smoothing.scale(epoch, self.epochs)
        set_smoothing_matrix(self._criterion, self.smoothing.matrix(names, self._table, scale))

    def _remove_criterion(self) -> None:
        """Take our criterion off the live model, where a later ``model.save()`` would pickle it."""
        if self._criterion is not None:
            self._criterion_owner().criterion = None
            self._criterion = None

    def _remove_empty_run_folder(self) -> None:
        """Remove the run folder of a run that never started, unless it was there before or holds more than args."""
        if not self._new_folders:
            return
        folder = self._new_folders[0]
        (folder / "args.yaml").unlink(missing_ok=True)
        with suppress(OSError):  # a folder with somebody's files stays
            (folder / "weights").rmdir()
            for path in self._new_folders:
                path.rmdir()


class DetectionTrainer(LabelSmoothingTrainerMixin, StockDetectionTrainer):
    """The stock detection trainer with the label-smoothing keys.

    Pass it to any Ultralytics model: ``YOLO("yolo11n.pt").train(trainer=DetectionTrainer, label_smoothing=0.1, ...)``.
    """


def check_keys(args: Mapping[str, Any]) -> LabelSmoothing:
    """Check the label-smoothing keys of a config as far as possible before any work starts.

    Args:
        args: A training config; ``data`` may be one data set or several.

    Returns:
        The validated keys.

    Raises:
        FileNotFoundError: If the similarity table does not exist.
        TypeError: If a key is unknown or has the wrong type.
        ValueError: If a value is out of range or does not fit the classes of one of the local data sets.
    """
    smoothing = LabelSmoothing.from_args(split_keys(args)[0])
    path = smoothing.label_smoothing_similarity
    table = SimilarityTable.read(path) if path is not None and smoothing.enabled else None
    data = args.get("data")
    for item in data if isinstance(data, (list, tuple)) else [data]:
        if isinstance(item, (str, Path)) and (file := local_data_file(item)) is not None:
            names = {0: "item"} if args.get("single_cls") else class_names(file)
            smoothing.check(ordered_names(names), table)
    return smoothing


@cache
def check_ultralytics() -> None:
    """Check, once, what this module assumes of Ultralytics.

    Raises:
        RuntimeError: If an assumption does not hold; it names the version and what is missing.
    """
    wanted = {
        "check_resume": ("overrides",),
        "get_dataset": (),
        "train": (),
        "resume_training": ("ckpt",),
        "run_callbacks": ("event",),
        "save_metrics": ("metrics",),
        "get_validator": (),
        "_load_checkpoint_state": ("ckpt",),
    }
    missing = [
        f"DetectionTrainer.{name}({', '.join(parameters)})"
        for name, parameters in wanted.items()
        if not callable(getattr(StockDetectionTrainer, name, None))
        or not set(parameters) <= set(inspect.signature(getattr(StockDetectionTrainer, name)).parameters)
    ]
    if not hasattr(engine, "generate_ddp_command"):
        missing.append("engine.trainer.generate_ddp_command")
    if missing:
        raise RuntimeError(
            f"det-ls does not know the trainer of ultralytics {ultralytics.__version__}: expected "
            f"{', '.join(missing)}; install a supported version (>= 8.4.50, < 8.5)."
        )


def _without_schedule_and_table(smoothing: LabelSmoothing) -> dict[str, Any]:
    """Return the keys that a criterion is first built with."""
    keys = smoothing.to_args()
    return {k: v for k, v in keys.items() if k not in {"label_smoothing_schedule", "label_smoothing_similarity"}}


@contextmanager
def _without_removed_key_warning() -> Iterator[None]:
    """Silence Ultralytics' notice that ``label_smoothing`` was removed: here it is not."""

    def keep(record: logging.LogRecord) -> bool:
        return "label_smoothing" not in record.getMessage()

    LOGGER.addFilter(keep)
    try:
        yield
    finally:
        LOGGER.removeFilter(keep)
