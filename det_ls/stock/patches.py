# SPDX-License-Identifier: AGPL-3.0-or-later
"""Every patch of Ultralytics, as a context manager that undoes itself.

All are global to the process while they last. Ultralytics is imported on use, to keep importing det-ls light.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from det_ls.base.errors import VersionError
from det_ls.base.files import move_durably, partial_of
from det_ls.stock.logs import without_lines

_own_folders: list[Path] = []  # Ultralytics' own datasets folder, once per active datasets_folder()
_ABSENT = object()


@contextmanager
def replaced(owner: Any, name: str, value: Any) -> Iterator[None]:
    """Replace an attribute, or add it where there is none.

    Args:
        owner: A module or object.
        name: The attribute.
        value: What it is for the time being.
    """
    stock = vars(owner).get(name, _ABSENT)
    setattr(owner, name, value)
    try:
        yield
    finally:
        if stock is _ABSENT:
            delattr(owner, name)
        else:
            setattr(owner, name, stock)


@contextmanager
def without(namespace: Any, names: Sequence[str]) -> Iterator[None]:
    """Take attributes off an object.

    Args:
        namespace: An object that has them in its ``__dict__``.
        names: The attributes.
    """
    taken = {name: vars(namespace)[name] for name in names}
    for name in names:
        delattr(namespace, name)
    try:
        yield
    finally:
        for name, value in taken.items():
            setattr(namespace, name, value)


@contextmanager
def command_line(words: Sequence[str]) -> Iterator[None]:
    """Let ``ultralytics.cfg.entrypoint()`` read these words.

    It assumes that the entry point reads the global ``ultralytics.cfg.ARGV``, and takes its first word for the
    program's name.

    Args:
        words: The words after the program's name.
    """
    from ultralytics import cfg

    with replaced(cfg, "ARGV", ["det-ls", *words]):
        yield


@contextmanager
def model_classes(classes: Mapping[str, Callable[..., Any]]) -> Iterator[None]:
    """Let the entry point build models with these.

    It assumes that the entry point imports the classes from ``ultralytics`` when it builds a model.

    Args:
        classes: What to call in place of ``ultralytics.<name>``, by name.
    """
    import ultralytics

    with ExitStack() as stack:
        for name, value in classes.items():
            getattr(ultralytics, name)  # loads a class that ultralytics loads on first use
            stack.enter_context(replaced(ultralytics, name, value))
        yield


@contextmanager
def before_ddp_launch(action: Callable[[], object]) -> Iterator[None]:
    """Do something after Ultralytics removed the run folder and before it starts the DDP workers.

    It assumes that ``engine.trainer`` calls its global ``generate_ddp_command``, which removes the folder, and starts
    the command that it returns.

    Args:
        action: What to do.
    """
    from ultralytics.engine import trainer as engine

    stock: Any = engine.generate_ddp_command

    def generate_ddp_command(*args: Any) -> Any:
        command = stock(*args)
        action()
        return command

    with replaced(engine, "generate_ddp_command", generate_ddp_command):
        yield


@contextmanager
def checkpoints_written(
    write: Callable[[Path, bytes], object], not_stripped: Callable[[Path, Exception], object]
) -> Iterator[None]:
    """Let Ultralytics write its checkpoints with a function, and strip a copy of a checkpoint in place of itself.

    It assumes that ``BaseTrainer.save_model`` writes each checkpoint, a ``.pt`` file, with ``Path.write_bytes``, and
    that ``final_eval`` calls the global ``strip_optimizer(f, s, updates)`` of ``engine.trainer``, which writes to ``s``
    if that is given and returns the content, or nothing for a file that is no checkpoint.

    Args:
        write: What writes a checkpoint.
        not_stripped: What is told of a checkpoint that could not be stripped, and is left as it is.
    """
    from ultralytics.engine import trainer as engine
    from ultralytics.utils import LOGGER

    stock_write: Any = Path.write_bytes
    stock_strip: Any = engine.strip_optimizer

    def write_bytes(self: Path, data: Any) -> int:
        if self.suffix != ".pt":
            return int(stock_write(self, data))
        write(Path(self), bytes(data))
        return len(data)

    def strip_optimizer(f: str | Path, s: str = "", updates: dict[str, Any] | None = None) -> dict[str, Any]:
        file, known = Path(f), {key: value for key, value in (updates or {}).items() if value is not None}
        copy = partial_of(file)
        try:
            with without_lines("Optimizer stripped"):  # it would name the copy
                content: dict[str, Any] = stock_strip(f, s=s or str(copy), updates=known)
            if content and not s:
                move_durably(copy, file)
                LOGGER.info(f"Optimizer stripped from {file}, {file.stat().st_size / 1e6:.1f}MB")
        except (OSError, RuntimeError) as error:  # torch reports a full disk as a RuntimeError
            not_stripped(file, error)
            return {}
        finally:
            copy.unlink(missing_ok=True)
        return content

    with replaced(Path, "write_bytes", write_bytes), replaced(engine, "strip_optimizer", strip_optimizer):
        yield


@contextmanager
def tuner_runs(module: str, keys: Mapping[str, object]) -> Iterator[None]:
    """Let the runs of Ultralytics' tuner be started as another module's, with keys that its config does not know.

    It assumes that the tuner makes its config with the global ``get_cfg`` of ``engine.tuner``, hands ``vars`` of it and
    what it searches as ``key=value`` words to each run, and starts a run as ``python -m ultralytics.cfg.__init__`` with
    ``subprocess.run`` of ``engine.tuner`` or ``engine.trainer``.

    Args:
        module: The module that takes the words, beginning with ``train``.
        keys: Values by key.

    Raises:
        RuntimeError: If no run was started in this way.
    """
    import subprocess

    import ultralytics
    from ultralytics.engine import trainer, tuner

    stock_cfg: Any = vars(tuner)["get_cfg"]
    started: list[Any] = []

    def get_cfg(*args: Any, **kwargs: Any) -> Any:  # older versions give it a run's words again
        plain = [{k: v for k, v in a.items() if k not in keys} if isinstance(a, dict) else a for a in args]
        config = stock_cfg(*plain, **kwargs)
        vars(config).update(keys)
        return config

    class Subprocess:
        """``subprocess`` whose ``run`` starts our runs in place of the tuner's."""

        def __getattr__(self, name: str) -> Any:
            return getattr(subprocess, name)

        def run(self, command: Any, *args: Any, **kwargs: Any) -> Any:
            words = list(command)
            if words[1:4] == ["-m", "ultralytics.cfg.__init__", "train"]:
                started.append(words)
                words[2] = module
            return subprocess.run(words, *args, **kwargs)

    with ExitStack() as stack:
        stack.enter_context(replaced(tuner, "get_cfg", get_cfg))
        for owner in (tuner, trainer):
            if "subprocess" in vars(owner):
                stack.enter_context(replaced(owner, "subprocess", Subprocess()))
        yield
    if not started:
        raise VersionError(
            f"ultralytics: expected a version whose tuner starts its runs with subprocess.run, got "
            f"{ultralytics.__version__}."
        )


@contextmanager
def ray_runs(keys: Mapping[str, object]) -> Iterator[None]:
    """Let Ultralytics' Ray tuner take keys that its config does not know.

    It assumes that ``run_ray_tune`` makes a config, only to name its folder, with the global ``get_cfg`` of
    ``utils.tuner``, and calls ``train`` of a copy of the model with the keywords and what is searched.

    Args:
        keys: Values by key.
    """
    from ultralytics.utils import tuner

    stock_cfg: Any = vars(tuner)["get_cfg"]

    def get_cfg(cfg: Any, overrides: Mapping[str, Any]) -> Any:
        return stock_cfg(cfg, {key: value for key, value in overrides.items() if key not in keys})

    with replaced(tuner, "get_cfg", get_cfg):
        yield


@contextmanager
def unhurried_nms() -> Iterator[None]:
    """Let NMS take the time it needs: Ultralytics drops all boxes of the images that it has no time left for.

    It assumes that validators call ``non_max_suppression`` of ``ultralytics.utils.nms`` through the module, and that it
    takes ``max_time_img``, seconds an image.
    """
    from ultralytics.utils import nms

    stock: Any = nms.non_max_suppression

    def non_max_suppression(*args: Any, **kwargs: Any) -> Any:
        return stock(*args, **{"max_time_img": 1e6, **kwargs})

    with replaced(nms, "non_max_suppression", non_max_suppression):
        yield


@contextmanager
def label_caches_replaced() -> Iterator[None]:
    """Let processes that read the same data set at the same time write its cache of labels, each a whole file at once.

    Ultralytics removes the file and writes it anew, so that another process finds it gone just as it removes it itself,
    and fails. It assumes that data sets call the global ``save_dataset_cache_file(prefix, path, x, version)`` of
    ``ultralytics.data.dataset``.
    """
    from ultralytics.data import dataset
    from ultralytics.utils import LOGGER

    stock: Any = vars(dataset)["save_dataset_cache_file"]

    def save_dataset_cache_file(prefix: str, path: str | Path, x: dict[str, Any], version: str) -> None:
        file = Path(path)
        copy = partial_of(file)
        try:
            with without_lines("New cache created"):  # it would name the copy
                stock(prefix, copy, x, version)
            if copy.is_file():  # stock warns where it cannot write
                copy.replace(file)
                LOGGER.info(f"{prefix}New cache created: {file}")
        finally:
            copy.unlink(missing_ok=True)

    with replaced(dataset, "save_dataset_cache_file", save_dataset_cache_file):
        yield


@contextmanager
def datasets_folder(folder: Path | None) -> Iterator[None]:
    """Let Ultralytics look for data sets, and download them, in a folder.

    It assumes that ``ultralytics.data.utils`` reads its global ``DATASETS_DIR``. The user's settings are not touched.

    Args:
        folder: The folder; None for Ultralytics' own, also within another such context.
    """
    from ultralytics.data import utils

    own = _own_folders[-1] if _own_folders else utils.DATASETS_DIR
    _own_folders.append(own)
    try:
        with replaced(utils, "DATASETS_DIR", folder or own):
            yield
    finally:
        _own_folders.pop()
