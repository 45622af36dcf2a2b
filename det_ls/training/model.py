# SPDX-License-Identifier: AGPL-3.0-or-later
"""``YOLO`` with the label-smoothing keys: an Ultralytics model that always trains with our trainer, or says why not."""

from __future__ import annotations

import functools
import inspect
import pickle
from collections.abc import Callable, Mapping
from os import PathLike
from pathlib import Path
from typing import Any, Literal

import ultralytics
from ultralytics import RTDETR, YOLOE, YOLOWorld
from ultralytics.engine import trainer as engine
from ultralytics.engine.model import Model
from ultralytics.utils import LOGGER, YAML, checks

from det_ls.base.errors import ArgumentError, RunError
from det_ls.calibration.fold import read_record
from det_ls.smoothing.request import Request, refuse_keys
from det_ls.smoothing.settings import CALIBRATE, PREFIX, split_keys
from det_ls.stock.patches import ray_runs, tuner_runs
from det_ls.training.calibrated import CALIBRATED
from det_ls.training.families import RTDETR as RTDETR_FAMILY
from det_ls.training.families import WHY_NOT_RTDETR, WORLD, family_of
from det_ls.training.families import YOLOE as YOLOE_FAMILY
from det_ls.training.resume import check_resume
from det_ls.training.tasks import TRAINERS
from det_ls.training.trainer import LabelSmoothingTrainerMixin, check_data
from det_ls.training.tune import keys_of_ray_runs, keys_of_runs, searched_bounds


def _refusing(base: type, mode: str, why: str) -> Callable[..., Any]:
    """Make a method that refuses the label-smoothing keys and is otherwise Ultralytics' own."""
    stock = getattr(base, mode)

    @functools.wraps(stock)
    def method(self: Any, *args: Any, **kwargs: Any) -> Any:
        refuse_keys(_with_cfg(kwargs), why)
        return stock(self, *args, **kwargs)

    return method


def _mode_refusal(mode: str) -> str:
    """Say why a mode other than train refuses the keys."""
    if mode == "tune":
        return "expected a YOLO model in tune mode, got one of another family."
    return f"expected in train mode only, got mode {mode!r}, where it would have no effect."


class YOLO(ultralytics.YOLO):
    """``ultralytics.YOLO`` whose ``train`` understands ``label_smoothing`` and its companions.

    Everything else is the parent's. The keys are refused, never dropped, where they cannot take effect: modes other
    than train, tasks and trainers without support, RT-DETR models.

    Examples:
        >>> model = YOLO("yolo11n.yaml")
        >>> model.predict("image.jpg", label_smoothing=0.1)
        Traceback (most recent call last):
            ...
        det_ls.base.errors.ArgumentError: label_smoothing: expected in train mode only, got mode 'predict', where ...
    """

    def __init__(
        self, model: str | Path | Model = "yolo26n.pt", task: str | None = None, verbose: bool = False
    ) -> None:
        """Load or build a model as Ultralytics does.

        Args:
            model: As in Ultralytics.
            task: As in Ultralytics.
            verbose: As in Ultralytics.

        Raises:
            ValueError: If the file is no readable checkpoint, or the YAML of an RT-DETR model.
        """
        if (
            isinstance(model, (str, Path))
            and Path(model).suffix in {".yaml", ".yml"}
            and family_of(model) == RTDETR_FAMILY
        ):
            raise ArgumentError(f"model: expected a YOLO model, got {str(model)!r}: build it with ultralytics.RTDETR.")
        try:
            super().__init__(model, task, verbose)
        except (RuntimeError, EOFError, TypeError, pickle.UnpicklingError) as error:  # as versions differ
            if isinstance(model, (str, Path)) and Path(model).is_file() and Path(model).suffix == ".pt":
                raise ArgumentError(
                    f"model: expected a readable checkpoint, got {str(model)!r}, which is not one."
                ) from error
            raise
        if not isinstance(self, YOLO):  # Ultralytics swapped the class for another family's
            self.__class__ = next(guard for family, guard in _GUARDS.items() if issubclass(type(self), family))

    def train(  # type: ignore[override]
        self,
        trainer: type[LabelSmoothingTrainerMixin] | Any = None,
        *,
        label_smoothing: float | Mapping[str, float] | Mapping[int, float] | Mapping[str | int, float] | None = None,
        label_smoothing_mode: Literal["redistribute", "uniform", "binary", "background"] | None = None,
        label_smoothing_similarity: str | PathLike[str] | None = None,
        label_smoothing_schedule: Literal["constant", "linear", "cosine"] | None = None,
        calibrate: Literal["val", "test"] | None = None,
        **kwargs: Any,
    ) -> Any:
        """Train with the stock Ultralytics trainer and, if asked for, smoothed classification targets.

        None leaves a key to ``cfg=``, or else to its default.

        Args:
            trainer: A trainer class; with label-smoothing keys it must derive from
                :class:`det_ls.training.trainer.LabelSmoothingTrainerMixin`. None selects the task's own.
            label_smoothing: Epsilon, in [0, 1): the share of target mass taken from the true class, or a mapping from
                class name, class index or ``default`` to it. 0 is stock training.
            label_smoothing_mode: Where that share goes (see :func:`det_ls.smoothing_matrix`); ``redistribute``.
            label_smoothing_similarity: A CSV table that says where each class's share goes instead of evenly.
            label_smoothing_schedule: How epsilon decays over the epochs; ``constant``.
            calibrate: The split to calibrate best.pt on when the run ends; written to best_calibrated.pt.
            **kwargs: Ultralytics' training arguments; ``cfg=`` names a YAML that may hold these and the keys above.

        Returns:
            What Ultralytics' ``train`` returns.

        Raises:
            FileNotFoundError: If the similarity table does not exist.
            TypeError: If a key is unknown or has the wrong type.
            ValueError: If a key is out of range, does not fit the data, or cannot take effect here.
        """
        keys = {
            "label_smoothing": label_smoothing,
            "label_smoothing_mode": label_smoothing_mode,
            "label_smoothing_similarity": label_smoothing_similarity,
            "label_smoothing_schedule": label_smoothing_schedule,
            CALIBRATE: calibrate,
        }
        kwargs.update({key: value for key, value in keys.items() if value is not None})
        trainer, kwargs = _prepared(self, TRAINERS[""], trainer, kwargs)
        ours = inspect.isclass(trainer) and issubclass(trainer, LabelSmoothingTrainerMixin)
        if read_record(self) is not None and not (ours and getattr(self.model, "pt_path", None)):
            LOGGER.warning(CALIBRATED)  # else our trainer says so, when it is given the weights
        return _checked(super().train(trainer=trainer, **kwargs), kwargs)

    val = _refusing(ultralytics.YOLO, "val", _mode_refusal("val"))
    predict = _refusing(ultralytics.YOLO, "predict", _mode_refusal("predict"))
    track = _refusing(ultralytics.YOLO, "track", _mode_refusal("track"))
    export = _refusing(ultralytics.YOLO, "export", _mode_refusal("export"))
    benchmark = _refusing(ultralytics.YOLO, "benchmark", _mode_refusal("benchmark"))

    def tune(self, use_ray: bool = False, iterations: int = 300, *args: Any, **kwargs: Any) -> Any:
        """Tune hyperparameters as Ultralytics does, each run with the label-smoothing keys.

        Args:
            use_ray: As in Ultralytics (``pip install 'det-ls[ray]'``).
            iterations: As in Ultralytics.
            *args: As in Ultralytics.
            **kwargs: As in Ultralytics, and the keys of :class:`det_ls.smoothing.settings.LabelSmoothing`. Epsilon is
                searched where ``space=`` has bounds for ``label_smoothing``, and is in force as given otherwise. With
                Ray ``space=`` has a distribution, ``{"label_smoothing": tune.uniform(0.0, 0.2)}``, and each of the keys
                can be searched.

        Returns:
            What Ultralytics' ``tune`` returns.

        Raises:
            ImportError: If Ray is asked for and not installed.
            TypeError: If a key is unknown or has the wrong type.
            ValueError: If a key or a bound is out of range or does not fit the data, or cannot take effect.
        """
        if kwargs.get(CALIBRATE) is not None:
            refuse_keys({CALIBRATE: kwargs[CALIBRATE]}, "expected in train mode only, got mode 'tune': train again.")
        keys, rest = split_keys(kwargs)
        refuse_keys({k: v for k, v in _with_cfg(rest).items() if k not in rest}, "expected as a keyword of tune.")
        if use_ray:
            space = args[0] if args else kwargs.get("space")
            if not keys and not (isinstance(space, Mapping) and split_keys(space)[0]):
                return super().tune(use_ray, iterations, *args, **rest)
            keys, requests = keys_of_ray_runs(keys, space)
            for request in requests:
                _prepared(self, TRAINERS[""], None, {**rest, PREFIX: request, "resume": None})
            with ray_runs(keys):
                return super().tune(use_ray, iterations, *args, **{**rest, **keys})
        bounds = searched_bounds(kwargs.get("space"))
        if not keys and bounds is None:
            return super().tune(use_ray, iterations, *args, **rest)
        keys = keys_of_runs(keys, bounds)
        widest = keys if bounds is None else {**keys, PREFIX: bounds[1]}
        _prepared(self, TRAINERS[""], None, {**rest, **widest, "resume": None})  # its resume= is of the search
        with tuner_runs("det_ls", keys):
            return super().tune(use_ray, iterations, *args, **rest)


def _prepared(
    model: Any, trainers: Mapping[str, type[LabelSmoothingTrainerMixin]], trainer: Any, kwargs: dict[str, Any]
) -> tuple[Any, dict[str, Any]]:
    """Choose the trainer and check the keys, or refuse them, before anything else happens."""
    arguments, task = _with_cfg(kwargs), str(model.task)
    several = isinstance(arguments.get("data"), (list, tuple))
    if several and not arguments["data"]:
        raise ArgumentError("data: expected a data set or several, got an empty list.")
    if several and arguments.get("resume"):
        raise ArgumentError("resume: expected one data set, got several, which Ultralytics would train anew.")
    check_resume(arguments.get("resume"), model.ckpt_path or model.overrides.get("model"), model.ckpt)
    if trainer is None:
        trainer = trainers.get(task)
    if trainer is None:
        refuse_keys(
            arguments,
            f"expected a task among {', '.join(trainers)}, got {task!r}."
            if trainers
            else "expected trainer=YOLOEPETrainer or YOLOEPESegTrainer of det_ls.training.tasks with a YOLOE model, "
            "got Ultralytics' default, whose class channels stand for no class.",
        )
    elif not (inspect.isclass(trainer) and issubclass(trainer, LabelSmoothingTrainerMixin)):
        name = getattr(trainer, "__name__", repr(trainer))
        refuse_keys(arguments, f"expected a trainer derived from one of det_ls.training.tasks, got {name}.")
    else:
        request = Request.parse(arguments)
        if not arguments.get("resume"):
            request.check_epsilon()
        check_data(trainer, request, arguments.get("data"), arguments.get("single_cls"))
        if request.given:  # the typed value replaces the keys that it was parsed from, those of cfg= included
            kwargs = {**split_keys(kwargs)[1], PREFIX: request}
        if several and not hasattr(engine, "MultiTrainer"):
            raise ArgumentError(f"data: expected one data set with ultralytics {ultralytics.__version__}, got several.")
    return trainer, kwargs


def _checked(results: Any, kwargs: dict[str, Any]) -> Any:
    """Return what training returned, unless it was to train on several data sets and failed on each."""
    several = _with_cfg(kwargs).get("data")
    if isinstance(several, (list, tuple)) and not any((results or {}).values()):
        raise RunError(f"data: expected a usable data set among {len(several)}, got none: each failed, see above.")
    return results


OTHER_MODES = ("val", "predict", "track", "export", "benchmark", "tune")


def _refusing_family(family: type, why: str) -> type:
    """Derive a class that refuses the keys in every mode from a family that label smoothing does not support."""
    return type(family.__name__, (family,), {mode: _refusing(family, mode, why) for mode in ("train", *OTHER_MODES)})


def _training_family(family: type, trainers: Mapping[str, type[LabelSmoothingTrainerMixin]]) -> type:
    """Derive a class that trains with our trainers, and refuses the keys in other modes, from a family of models."""
    stock: Any = family

    def train(self: Any, trainer: Any = None, **kwargs: Any) -> Any:
        trainer, kwargs = _prepared(self, trainers, trainer, kwargs)
        return _checked(stock.train(self, trainer=trainer, **kwargs), kwargs)

    train.__doc__ = YOLO.train.__doc__
    refusals = {mode: _refusing(family, mode, _mode_refusal(mode)) for mode in OTHER_MODES}
    return type(family.__name__, (family,), {"train": train, **refusals})


_GUARDS: dict[type, type] = {
    YOLOWorld: _training_family(YOLOWorld, TRAINERS[WORLD]),
    YOLOE: _training_family(YOLOE, TRAINERS[YOLOE_FAMILY]),
    RTDETR: _refusing_family(RTDETR, WHY_NOT_RTDETR),
}


def _with_cfg(kwargs: dict[str, Any]) -> dict[str, Any]:
    """Merge the file that ``cfg=`` names below the keywords, as Ultralytics does."""
    if not kwargs.get("cfg"):
        return kwargs
    return {**YAML.load(checks.check_yaml(kwargs["cfg"])), **kwargs}
