# SPDX-License-Identifier: AGPL-3.0-or-later
"""From the words of a study to its cells."""

from __future__ import annotations

import ast
import hashlib
import re
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, fields
from itertools import product
from typing import Any

from det_ls.base.arguments import check_integer, shown
from det_ls.base.errors import ArgumentError, ArgumentTypeError
from det_ls.smoothing.settings import PREFIX
from det_ls.studies.records import Arm, Cell, Condition

MODE = f"{PREFIX}_mode"
NOISE_WORDS = {"label_noise": "flip", "label_drop": "drop", "label_jitter": "jitter", "fraction": "fraction"}
"""The words of a study that vary the training data, and the attribute of a condition that each sets."""
GRID_WORDS = (PREFIX, MODE, "seeds", *NOISE_WORDS)
DEFAULTS: Mapping[str, Any] = {PREFIX: "0,0.1", MODE: "redistribute", "seeds": 5}
"""What a grid word means that is not given; the other words leave the data as they are."""


@dataclass(frozen=True)
class Grid:
    """What a study varies.

    Attributes:
        arms: Ways to train, stock first where it is among them.
        conditions: What the arms are compared under.
        seeds: One of each arm and condition is trained with each.
    """

    arms: tuple[Arm, ...]
    conditions: tuple[Condition, ...]
    seeds: tuple[int, ...]

    @property
    def cells(self) -> tuple[Cell, ...]:
        """All cells, whole seeds first, so that a study that is cut has every arm equally often but for one seed."""
        return tuple(Cell(c, a, s) for s, c, a in product(self.seeds, self.conditions, self.arms))

    def to_dict(self) -> dict[str, Any]:
        """Return what JSON can hold."""
        return {
            "arms": [asdict(arm) for arm in self.arms],
            "conditions": [asdict(condition) for condition in self.conditions],
            "seeds": list(self.seeds),
        }

    @classmethod
    def from_words(cls, words: Mapping[str, Any]) -> Grid:
        """Read the words of a grid.

        Args:
            words: Values by key of :data:`GRID_WORDS`: one value, several in a list, or several in one word with
                commas. ``seeds`` is a number of seeds, from 0, or a list of them.

        Returns:
            The grid.

        Raises:
            TypeError: If a value has the wrong type.
            ValueError: If a value is out of range, or repeated.

        Examples:
            >>> grid = Grid.from_words({"label_smoothing": "0,0.1", "label_smoothing_mode": "redistribute,background",
            ...                         "seeds": 2, "label_noise": "0,0.3"})
            >>> [arm.name for arm in grid.arms]
            ['stock', 'redistribute 0.1', 'background 0.1']
            >>> len(grid.cells), [cell.seed for cell in grid.cells] == [0] * 6 + [1] * 6
            (12, True)
        """
        given = {**DEFAULTS, **{key: value for key, value in words.items() if value is not None}}
        modes = listed(MODE, given[MODE])
        arms: list[Arm] = []
        for epsilon in listed(PREFIX, given[PREFIX]):
            value = str(epsilon) if isinstance(epsilon, Mapping) else _canonical(epsilon)
            arms += [Arm("0")] if value == "0" else [Arm(value, str(mode)) for mode in modes]
        arms.sort(key=lambda arm: not arm.stock)
        numbers = [
            [_number(word, v) for v in listed(word, given.get(word, default))] for word, default in _NONE.items()
        ]
        conditions = [Condition(**dict(zip(NOISE_WORDS.values(), row, strict=True))) for row in product(*numbers)]
        for name, values in ((PREFIX, arms), ("label_noise", conditions)):
            if len(set(values)) < len(values):  # type: ignore[arg-type]
                raise ArgumentError(f"{name}: expected different values, got one twice.")
        return cls(tuple(arms), tuple(conditions), _seeds(given["seeds"]))


_NONE: Mapping[str, float] = {"label_noise": 0.0, "label_drop": 0.0, "label_jitter": 0.0, "fraction": 1.0}


def listed(name: str, value: object) -> list[Any]:
    """Take the values of a word that may name several.

    Args:
        name: The word.
        value: One value, a sequence, or a string with commas; those within braces belong to a mapping.

    Returns:
        The values, at least one.

    Raises:
        ValueError: If there is none.

    Examples:
        >>> listed("label_smoothing", "0, 0.1"), listed("label_smoothing", (0, 0.1)), listed("seeds", "[3]")
        (['0', '0.1'], [0, 0.1], ['3'])
    """
    if isinstance(value, str):
        text = value.strip()
        if text[:1] in {"[", "("} and text[-1:] in {"]", ")"}:
            text = text[1:-1]
        parts = [part.strip() for part in re.split(r",(?![^{]*\})", text)]
        found: list[Any] = [part for part in parts if part]
    elif isinstance(value, Iterable) and not isinstance(value, Mapping):
        found = list(value)
    else:
        found = [value]
    if not found:
        raise ArgumentError(f"{name}: expected at least one value, got {shown(value)}.")
    return found


def training_keys(arm: Arm) -> dict[str, Any]:
    """Return the label-smoothing keys that an arm trains with.

    Args:
        arm: The arm.

    Returns:
        Values by key; none for stock.

    Examples:
        >>> training_keys(Arm("0.1", "background"))
        {'label_smoothing': 0.1, 'label_smoothing_mode': 'background'}
        >>> training_keys(Arm("0"))
        {}
    """
    if arm.stock:
        return {}
    value: Any = arm.label_smoothing
    with suppress(SyntaxError, ValueError):  # the name of a policy stays a word
        value = ast.literal_eval(value)
    return {PREFIX: value, MODE: arm.mode}


def cell_name(cell: Cell) -> str:
    """Name a cell's folder.

    Args:
        cell: The cell.

    Returns:
        A relative path.

    Examples:
        >>> cell_name(Cell(Condition(flip=0.3), Arm("0.1"), 10))
        'seed10/redistribute_0.1_flip0.3'
    """
    arm = "stock" if cell.arm.stock else f"{cell.arm.mode}_{_file_name(cell.arm.label_smoothing)}"
    return f"seed{cell.seed}/{arm}" + "".join(f"_{part}" for part in condition_parts(cell.condition))


def condition_parts(condition: Condition) -> list[str]:
    """Write what differs from the data as they are.

    Args:
        condition: The condition.

    Returns:
        One word for each, such as ``flip0.3``.

    Examples:
        >>> condition_parts(Condition(flip=0.3, fraction=0.5))
        ['flip0.3', 'fraction0.5']
    """
    plain = Condition()
    return [
        f"{f.name}{getattr(condition, f.name):g}"
        for f in fields(condition)
        if getattr(condition, f.name) != getattr(plain, f.name)
    ]


def _canonical(value: object) -> str:
    """Write a number in the one way that it is compared in."""
    if isinstance(value, bool):
        raise ArgumentTypeError(f"{PREFIX}: expected a number, a mapping or the name of a policy, got {value!r}.")
    try:
        return f"{float(value):g}"  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return str(value)


def _number(word: str, value: object) -> float:
    """Read a share or a standard deviation, and check its range."""
    try:
        number = float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        number = float("nan")
    ranges = {"fraction": (0 < number <= 1, "above 0 and at most 1"), "label_jitter": (0 <= number <= 1, "from 0 to 1")}
    fits, wanted = ranges.get(word, (0 <= number < 1, "of at least 0 and below 1"))
    if isinstance(value, bool) or not fits:
        raise ArgumentError(f"{word}: expected a number {wanted}, got {shown(value)}.")
    return number


def _seeds(value: object) -> tuple[int, ...]:
    """Read a number of seeds, or seeds."""
    several = isinstance(value, (list, tuple, range)) or (isinstance(value, str) and not value.strip().isdecimal())
    try:
        found = [int(str(seed)) for seed in listed("seeds", value)]
    except ValueError:
        raise ArgumentError(f"seeds: expected a number of seeds or a list of seeds, got {shown(value)}.") from None
    for seed in found:
        check_integer("seeds", seed, 0 if several else 1)
    seeds = tuple(found) if several else tuple(range(found[0]))
    if len(set(seeds)) < len(seeds):
        raise ArgumentError(f"seeds: expected different seeds, got {shown(value)}.")
    return seeds


def _file_name(text: str) -> str:
    """Write a value as part of a file's name; what had to be changed gets a code that tells it from others."""
    plain = re.sub(r"[^\w.-]+", "-", text).strip("-")[:40]
    return plain if plain == text else f"{plain}-{hashlib.sha256(text.encode()).hexdigest()[:6]}"
