# SPDX-License-Identifier: AGPL-3.0-or-later
"""Every patch of Ultralytics, as a context manager that undoes itself.

All are global to the process while they last. Ultralytics is imported on use, to keep importing det-ls light.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

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
