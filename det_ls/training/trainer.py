# SPDX-License-Identifier: AGPL-3.0-or-later
"""The trainer: Ultralytics' own, whose live model's criterion smooths its targets.

Read it top to bottom: a run goes through its methods in this order. What it assumes of Ultralytics is stated in
``det_ls.training.assumptions``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

import ultralytics
from ultralytics.cfg import cfg2dict
from ultralytics.nn.tasks import load_checkpoint
from ultralytics.utils import DEFAULT_CFG, LOGGER, RANK
from ultralytics.utils.torch_utils import unwrap_model

from det_ls.base.errors import ArgumentError, DetLsError, RunError, VersionError
from det_ls.data.locate import class_names, dataset_root, local_data_file
from det_ls.losses.classification import check_mode
from det_ls.losses.families import copy_progress, criterion_with_matrix, describe, set_smoothing_matrix
from det_ls.smoothing.columns import csv_cell
from det_ls.smoothing.policy import EpochFacts, Policy
from det_ls.smoothing.request import Request
from det_ls.smoothing.settings import LabelSmoothing, check_unique, ordered_names, split_keys
from det_ls.stock.calls import resume_turned_off
from det_ls.stock.logs import without_lines
from det_ls.stock.patches import before_ddp_launch, replaced, without
from det_ls.training.assumptions import check_trainer
from det_ls.training.calibrated import calibrate_run, check_calibrate, forget_calibration, warn_if_calibrated
from det_ls.training.checkpoints import kept_whole, repair_run, unwritten_row
from det_ls.training.families import family_of, mismatch
from det_ls.training.policy_state import STATE_KEY, restore, saved_with, share
from det_ls.training.resume import check_resume, refuse_finished
from det_ls.training.run_folder import TABLE_COPY, check_epochs, check_no_file, copy_table, new_folders, remove_empty

if TYPE_CHECKING:
    from ultralytics.engine.trainer import BaseTrainer as _Base
else:
    _Base = object


class LabelSmoothingTrainerMixin(_Base):
    """Adds the label-smoothing keys to an Ultralytics trainer; put it before the stock class.

    The run folder, args.yaml, checkpoints and validation are the stock trainer's. The live model's criterion smooths
    its targets; the EMA model keeps the stock criterion, so the validation loss stays comparable across epsilons and
    no checkpoint holds a class of det-ls.

    Attributes:
        task: The one task that it trains, for a sentence in place of a failure far inside Ultralytics; None for any.
        family: The family of models that it trains: "" for the usual ones, ``World`` or ``YOLOE``.
        names_in_yaml: Whether its data sets name their classes in a data YAML, and not by folders.
        request: The keys in force and their table; on resume those of the checkpoint.
        policy: Which smoothing matrix is in force in which epoch; None without smoothing.
    """

    task: str | None = None
    family: str = ""
    names_in_yaml: bool = True
    request: Request
    policy: Policy | None = None

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
            ValueError: If a label-smoothing key's value is out of range or does not fit the data set's classes, or
                another task is asked for.
        """
        check_trainer()
        cfg_keys, cfg = split_keys(cfg2dict(cfg))
        override_keys, overrides = split_keys(cfg2dict(overrides or {}))
        if self.task is not None and overrides.get("task") not in {None, self.task}:
            raise ArgumentError(
                f"trainer: expected one for the task {overrides['task']!r}, got {type(self).__name__}, "
                f"which trains {self.task!r}."
            )
        self.request = Request.of_keys({**cfg_keys, **override_keys})
        if not overrides.get("resume"):
            self.request.check_epsilon()
        check_epochs({**cfg, **overrides}.get("epochs"))
        self._new_folders: list[Path] = []
        self._criterion: Any = None
        with dataset_root(overrides.get("data") or cfg.get("data")):
            super().__init__(cfg, overrides, _callbacks)
        self._copy_table()

    @property
    def smoothing(self) -> LabelSmoothing:
        """The keys in force."""
        return self.request.smoothing

    def check_resume(self, overrides: dict[str, Any]) -> None:
        """Resume as stock does, then put the keys on ``self.args`` and check them against a local data set.

        Args:
            overrides: As in Ultralytics.
        """
        if resume_turned_off(overrides):
            refuse_finished(Path(overrides["model"]), load_checkpoint(overrides["model"])[1])
        if self.args.resume is not True:
            check_resume(self.args.resume, None, None)
        with without_lines("label_smoothing"):  # stock's notice that the key was removed: here it is not
            super().check_resume(overrides)
        if self.resume:
            self._go_on_with(Path(self.args.resume))
        for key in split_keys(vars(self.args))[0]:
            delattr(self.args, key)
        for key, value in self.smoothing.to_args().items():
            setattr(self.args, key, value)
        check_calibrate(self.smoothing, self.args.task, self.family, self.args.data, self.args.single_cls)
        if not isinstance(self.args.data, dict):
            check_data(type(self), self.request, self.args.data, self.args.single_cls)
        if not self.resume:
            check_no_file(self.args)
        self._new_folders = new_folders(self.args)

    def _go_on_with(self, last: Path) -> None:
        """Go on with the checkpoint's keys; another value given on resume is ignored, and said to be."""
        asked = self.request
        checkpoint = load_checkpoint(last)[1]
        refuse_finished(last, checkpoint)
        keys, _ = split_keys(checkpoint.get("train_args", {}))
        keys.pop(STATE_KEY, None)  # the policy's, see _load_checkpoint_state
        self.request = Request.of_keys(keys, table_copy=last.parent.parent / TABLE_COPY)
        for key in asked.differing(self.request):
            LOGGER.warning(
                f"Resume ignores {key}={asked.value(key)}, using the checkpoint's {key}={self.request.value(key)}. "
                "Start a new run to change it."
            )

    @classmethod
    def target_names(cls, request: Request, names: Sequence[str]) -> list[str]:
        """Name what the model's class channels stand for.

        Args:
            request: The keys.
            names: The data set's class names, in index order.

        Returns:
            One name for each channel: here the classes themselves.

        Raises:
            ValueError: If a key cannot take effect on such channels.
        """
        del request
        return list(names)

    def get_model(self, cfg: Any = None, weights: Any = None, verbose: bool = True) -> Any:
        """Build the model as stock does, unless it is of a family that this trainer does not train.

        Args:
            cfg: As in Ultralytics.
            weights: As in Ultralytics.
            verbose: As in Ultralytics.

        Returns:
            Ultralytics' model.

        Raises:
            ValueError: If the model is of another family.
        """
        warn_if_calibrated(weights)
        found = family_of(cfg)
        if found != self.family:
            remove_empty(self._new_folders)
            raise ArgumentError(mismatch(type(self).__name__, self.family, found))
        return super().get_model(cfg, weights, verbose)

    def get_dataset(self) -> dict[str, Any]:
        """Resolve the data set as stock does, check the keys against its classes and make the policy.

        Returns:
            Ultralytics' data dictionary.
        """
        ready = False
        try:
            with dataset_root(self.args.data):
                data = self._stock_dataset()
            classes = ordered_names(data["names"])
            check_unique(classes)
            names = self.target_names(self.request, classes)
            self.request.check(names)
            self.policy = self.request.policy(names)
            ready = True
        finally:
            if not ready:
                remove_empty(self._new_folders)
        return data

    def _stock_dataset(self) -> dict[str, Any]:
        """Resolve the data set as stock does, with a one-sentence error."""
        try:
            return super().get_dataset()
        except DetLsError:
            raise
        except (
            RuntimeError,
            LookupError,
            ValueError,
            TypeError,
            SyntaxError,
            OSError,
        ) as error:  # as the oddity differs
            said = error.args[0] if isinstance(error, KeyError) and error.args else error  # str() would quote it
            reason = next(iter(str(said).strip().splitlines()), type(error).__name__)
            raise RunError(f"data: expected a usable data set, got {self.args.data!r}: {reason}") from error

    def _copy_table(self) -> None:
        """Put a copy of the similarity table into the run folder."""
        copy_table(self.request.table, Path(self.save_dir), self.args)

    def train(self) -> None:
        """Train as stock does; afterwards, also after an interruption, the live model holds no class of det-ls."""
        launches = getattr(self, "ddp", False) and self.request.table is not None
        try:
            with dataset_root(self.args.data), before_ddp_launch(self._copy_table) if launches else nullcontext():
                super().train()
        finally:
            if self._criterion is not None:  # a later model.save() would pickle it
                self._criterion_owner().criterion = self._criterion = None
        calibrate_run(self, self.smoothing.calibrate)

    def _load_checkpoint_state(self, ckpt: Mapping[str, Any]) -> None:
        """Load a checkpoint's state and the policy's; the new EMA, a copy of the live model, must not copy our loss."""
        hide = replaced(self._criterion_owner(), "criterion", None) if self._criterion is not None else nullcontext()
        with hide:
            super()._load_checkpoint_state(ckpt)
        restore(self.policy, ckpt)

    def resume_training(self, ckpt: Mapping[str, Any] | None) -> None:
        """Resume as stock does, then put the smoothed criterion in place: the last step of the set-up.

        Args:
            ckpt: As in Ultralytics.
        """
        super().resume_training(ckpt)
        if ckpt is not None and self.resume and RANK in {-1, 0}:
            repair_run(Path(self.save_dir), Path(self.args.resume), ckpt)
        if self.policy is None:
            LOGGER.info("label smoothing: off, using the stock criterion")
            return
        model = self._criterion_owner()
        criterion = criterion_with_matrix(model, self.policy.matrix(self.start_epoch, self.epochs))
        copy_progress(getattr(model, "criterion", None), criterion)
        model.criterion = self._criterion = criterion
        LOGGER.info(f"label smoothing: {self.smoothing.describe()}, using {describe(criterion)}")

    def run_callbacks(self, event: str) -> None:
        """Set the epoch's smoothing matrix before any callback of its start runs, and let loggers log its epsilon.

        Args:
            event: As in Ultralytics.
        """
        if event == "on_train_epoch_start" and self.policy is not None:
            if self._criterion is None or self._criterion_owner().criterion is not self._criterion:
                raise VersionError(
                    f"label_smoothing: expected the smoothed criterion on the model, but ultralytics "
                    f"{ultralytics.__version__} replaced it before epoch {self.epoch + 1}."
                )
            share(self.policy)
            set_smoothing_matrix(self._criterion, self.policy.matrix(self.epoch, self.epochs))
        elif event == "on_train_epoch_end" and self.policy is not None:  # made anew each epoch, and logged as it is
            self.lr = {**self.lr, **self.policy.logged(self.epoch, self.epochs)}
        super().run_callbacks(event)

    def get_validator(self) -> Any:
        """Build the stock validator from a config without the keys, which it would reject.

        Returns:
            The stock validator.
        """
        with without(self.args, list(split_keys(vars(self.args))[0])):
            return super().get_validator()

    def save_metrics(self, metrics: dict[str, float]) -> None:
        """Write the epoch's row of results.csv with its epsilon, and tell the policy of it.

        Args:
            metrics: As in Ultralytics.
        """
        if self.policy is not None:
            metrics = {**metrics, **self.policy.logged(self.epoch, self.epochs)}
            self.policy.observe(EpochFacts(self.epoch, self.epochs, metrics))
        try:
            super().save_metrics({csv_cell(name): value for name, value in metrics.items()})
        except OSError as error:
            raise unwritten_row(Path(self.csv), error) from error

    def save_model(self) -> Any:
        """Save the checkpoints as stock does, each complete or not at all, with the policy's state.

        Returns:
            What stock returns.

        Raises:
            UnwritableError: If there is no room; the checkpoints before are kept.
        """
        with saved_with(self.args, self.policy), kept_whole():
            saved = super().save_model()  # type: ignore[func-returns-value,no-any-return,unused-ignore]
        forget_calibration(self)
        return saved

    def final_eval(self) -> None:
        """Strip the checkpoints and validate best.pt as stock does; each file is complete at every moment."""
        with kept_whole():
            super().final_eval()

    def _criterion_owner(self) -> Any:
        """Return the model whose ``criterion`` the training step uses, inside DDP, compile and distillation."""
        model: Any = unwrap_model(self.model)  # type: ignore[arg-type]
        return getattr(model, "student_model", model)


def check_data(
    trainer: type[LabelSmoothingTrainerMixin], request: Request, data: object, single_cls: object = False
) -> None:
    """Check classes, and keys against them, of every data set that is on this machine.

    Args:
        trainer: The trainer's class.
        request: The keys.
        data: One data set or several.
        single_cls: Whether training takes all classes for one.

    Raises:
        ValueError: If a data set has a class name twice, or a value does not fit its classes or the task.
    """
    check_calibrate(request.smoothing, trainer.task, trainer.family, data, single_cls)
    check_mode(request.smoothing, trainer.task)
    if not trainer.names_in_yaml:
        return
    for item in data if isinstance(data, (list, tuple)) else [data]:
        if isinstance(item, (str, Path)) and (file := local_data_file(item)) is not None:
            names = ordered_names({0: "item"} if single_cls else class_names(file))
            request.check(trainer.target_names(request, names))
