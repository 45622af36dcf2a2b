# SPDX-License-Identifier: AGPL-3.0-or-later
"""One checker for what det-ls assumes of Ultralytics, with one error that says what an unknown version lacks.

The assumptions themselves stand beside the code that makes them, as a tuple of :class:`Method`, :class:`Attribute` and
:class:`Source`.
"""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from functools import cache
from typing import Any

from det_ls.base.errors import VersionError

SUPPORTED = ">=8.4.50,<8.5"  # as in pyproject.toml


@dataclass(frozen=True)
class Method:
    """A class has a method that takes these parameters.

    Attributes:
        owner: The class.
        name: The method.
        parameters: Names of parameters that it takes, without ``self``.
        only: Whether they are its first parameters, in this order, and any other is optional.
    """

    owner: type
    name: str
    parameters: tuple[str, ...] = ()
    only: bool = False

    def __str__(self) -> str:
        """Write it as code."""
        return f"{self.owner.__name__}.{self.name}({', '.join(self.parameters)})"

    def holds(self) -> bool:
        """Tell whether this version has it."""
        method = getattr(self.owner, self.name, None)
        if not callable(method):
            return False
        taken = list(inspect.signature(method).parameters.values())
        names = [p.name for p in taken]
        if not self.only:
            return set(self.parameters) <= set(names)
        expected = ["self", *self.parameters]
        optional = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
        others = taken[len(expected) :]
        return names[: len(expected)] == expected and all(
            p.default is not p.empty or p.kind in optional for p in others
        )


@dataclass(frozen=True)
class Attribute:
    """A module or class has an attribute.

    Attributes:
        owner: The module or class.
        name: The attribute.
    """

    owner: Any
    name: str

    def __str__(self) -> str:
        """Write it as code."""
        return f"{self.owner.__name__}.{self.name}"

    def holds(self) -> bool:
        """Tell whether this version has it."""
        return hasattr(self.owner, self.name)


@dataclass(frozen=True)
class Source:
    """The source of a class contains a piece of code.

    Attributes:
        owner: The class.
        code: The code.
    """

    owner: type
    code: str

    def __str__(self) -> str:
        """Write where which code is expected."""
        return f"{self.code!r} in {self.owner.__name__}"

    def holds(self) -> bool:
        """Tell whether this version has it."""
        return self.code in _source_of(self.owner)


@cache
def _source_of(owner: type) -> str:
    """Read the source of a class once: finding it in a long module takes a tenth of a second."""
    return inspect.getsource(owner)


def expect(part: str, *assumptions: Method | Attribute | Source) -> None:
    """Raise unless the installed Ultralytics is as det-ls assumes.

    Args:
        part: The part of Ultralytics that the assumptions are about, for the error: ``trainer``.
        *assumptions: What is assumed.

    Raises:
        RuntimeError: If an assumption does not hold; it names the version, what is missing and the supported versions.

    Examples:
        >>> from ultralytics.engine.trainer import BaseTrainer
        >>> expect("trainer", Method(BaseTrainer, "resume_training", ("ckpt",)))
    """
    import ultralytics

    missing = [str(assumption) for assumption in assumptions if not assumption.holds()]
    if missing:
        raise VersionError(
            f"ultralytics: expected a version whose {part} has {', '.join(missing)} (supported: {SUPPORTED}), "
            f"got {ultralytics.__version__}."
        )
