# SPDX-License-Identifier: AGPL-3.0-or-later
"""The keys that det-ls adds to an Ultralytics training config, and their validation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any

from det_ls.base.errors import ArgumentError, ArgumentTypeError
from det_ls.smoothing.policy import POLICIES

if TYPE_CHECKING:
    from torch import Tensor

    from det_ls.smoothing.similarity import SimilarityTable

PREFIX, CALIBRATE = "label_smoothing", "calibrate"
CALIBRATION_SPLITS = ("val", "test")
DEFAULT_CLASS = "default"


@dataclass(frozen=True)
class LabelSmoothing:
    """How a training run smooths the targets of the classification branch.

    The field names are the keys of the training config. What needs only the keys is checked on construction; what
    needs the data set's classes is checked by :meth:`matrix`.

    Attributes:
        label_smoothing: Epsilon, the share of target mass taken from the true class: one number, or a mapping from
            class name, class index or ``default`` to a number. 0 means the stock criterion itself.
        label_smoothing_mode: ``redistribute``, ``uniform``, ``binary`` or ``background``
            (see :func:`det_ls.smoothing_matrix`).
        label_smoothing_similarity: A CSV table that says where each class's share goes, or None for evenly.
        label_smoothing_schedule: ``constant``, ``linear`` or ``cosine`` decay of epsilon over the epochs, or the name
            of another policy (:mod:`det_ls.smoothing.policy`).
        calibrate: ``val`` or ``test``: when the run ends, its best.pt is calibrated on that split and written as
            best_calibrated.pt beside it (:func:`det_ls.calibrate`); best.pt stays as it is. None for not.

    Raises:
        TypeError: If a value has the wrong type.
        ValueError: If a value is out of its range.

    Examples:
        >>> keys = LabelSmoothing({"default": 0.05, "positive": 0.2})
        >>> keys.epsilons(["negative", "positive"])
        [0.05, 0.2]
    """

    label_smoothing: float | Mapping[str | int, float] = 0.0
    label_smoothing_mode: str = "redistribute"
    label_smoothing_similarity: str | None = None
    label_smoothing_schedule: str = "constant"
    calibrate: str | None = None

    def __post_init__(self) -> None:
        """Check everything that needs only the keys."""
        from det_ls.smoothing.matrix import MODES, check_epsilon

        if isinstance(self.label_smoothing, Mapping):
            if not self.label_smoothing:
                raise ArgumentError("label_smoothing: expected a number or a mapping from class to number, got {}.")
            for name, value in self.label_smoothing.items():
                if isinstance(name, bool) or not isinstance(name, (str, int)):
                    raise ArgumentTypeError(
                        f"label_smoothing: expected class names, class indices or 'default' as keys, got {name!r}."
                    )
                check_epsilon(value, f"label_smoothing of class {name!r}")
            plain = {name: float(value) for name, value in self.label_smoothing.items()}
            object.__setattr__(self, "label_smoothing", plain)  # a plain dict: it is saved in YAML and in checkpoints
        else:
            check_epsilon(self.label_smoothing, "label_smoothing")
            object.__setattr__(self, "label_smoothing", float(self.label_smoothing))
        for key, allowed in (("label_smoothing_mode", MODES), ("label_smoothing_schedule", tuple(POLICIES))):
            if getattr(self, key) not in allowed:
                raise ArgumentError(f"{key}: expected one of {', '.join(allowed)}, got {getattr(self, key)!r}.")
        if self.calibrate is not None and self.calibrate not in CALIBRATION_SPLITS:
            raise ArgumentError(f"calibrate: expected one of {', '.join(CALIBRATION_SPLITS)}, got {self.calibrate!r}.")
        if self.label_smoothing_similarity is not None:
            path = self.label_smoothing_similarity
            if (not hasattr(path, "__fspath__") and not isinstance(path, str)) or not str(path):
                raise ArgumentTypeError(f"label_smoothing_similarity: expected the path of a CSV file, got {path!r}.")
            object.__setattr__(self, "label_smoothing_similarity", str(path))
            if self.label_smoothing_mode != "redistribute":
                raise ArgumentError(
                    "label_smoothing_similarity: expected label_smoothing_mode 'redistribute' with a table, "
                    f"got {self.label_smoothing_mode!r}."
                )

    @classmethod
    def from_args(cls, args: Mapping[str, Any]) -> LabelSmoothing:
        """Build from the keys of a config; None means the default, as everywhere in Ultralytics.

        Args:
            args: The label-smoothing keys, as :func:`split_keys` returns them.

        Returns:
            The validated keys.

        Raises:
            TypeError: If a key is unknown or a value has the wrong type.
            ValueError: If a value is out of its range.
        """
        known = [f.name for f in fields(cls)]
        for key in args:
            if key not in known:
                raise ArgumentTypeError(f"{key}: expected one of the keys {', '.join(known)}, got an unknown key.")
        return cls(**{key: value for key, value in args.items() if value is not None})

    @property
    def enabled(self) -> bool:
        """Whether any class's epsilon is above 0."""
        eps = self.label_smoothing
        if isinstance(eps, Mapping):
            return any(v > 0 for v in eps.values())
        return float(eps) > 0

    def to_args(self) -> dict[str, Any]:
        """Return the keys as they are saved with a run; of smoothing that is off only ``label_smoothing: 0.0``.

        Returns:
            Plain values that YAML and any unpickler can read.
        """
        names = [f.name for f in fields(self)] if self.enabled else [CALIBRATE]
        args = {PREFIX: 0.0, **{name: getattr(self, name) for name in names}}
        return {key: value for key, value in args.items() if value is not None}

    def epsilons(self, names: Sequence[str]) -> list[float]:
        """Return each class's epsilon.

        Args:
            names: The data set's K class names, in index order.

        Returns:
            K numbers.

        Raises:
            ValueError: If the mapping names a class that the data does not have, or one class twice.
        """
        if not isinstance(self.label_smoothing, Mapping):
            return [float(self.label_smoothing)] * len(names)
        values = [float(self.label_smoothing.get(DEFAULT_CLASS, 0.0))] * len(names)
        seen: dict[int, str | int] = {}
        for key, value in self.label_smoothing.items():
            if key == DEFAULT_CLASS:
                continue
            index = _class_index(key, names)
            if index in seen:
                raise ArgumentError(
                    f"label_smoothing: expected each class once, got {seen[index]!r} and {key!r}, the same class."
                )
            seen[index] = key
            values[index] = float(value)
        return values

    def matrix(self, names: Sequence[str], table: SimilarityTable | None = None, scale: float = 1.0) -> Tensor:
        """Build the smoothing matrix for a data set's classes, checking what needs them.

        Args:
            names: The data set's K class names, in index order.
            table: The table that ``label_smoothing_similarity`` names, already read.
            scale: The schedule's factor, 0 to 1.

        Returns:
            The smoothing matrix of shape (K, K), float64.

        Raises:
            ValueError: If a class is unknown, an epsilon is out of its bound, or the table does not fit.
        """
        from det_ls.smoothing.matrix import smoothing_matrix

        epsilons = [scale * eps for eps in self.epsilons(names)]
        similarity = None if table is None else table.for_classes(names)
        return smoothing_matrix(len(names), epsilons, self.label_smoothing_mode, similarity, class_names=names)

    def check(self, names: Sequence[str], table: SimilarityTable | None = None) -> None:
        """Check the keys against a data set's classes.

        Args:
            names: The data set's K class names, in index order.
            table: The table that ``label_smoothing_similarity`` names, already read.

        Raises:
            ValueError: If a class is unknown, an epsilon is out of its bound, or the table does not fit. With every
                epsilon 0 only the mapping's names are checked: stock training has no bound and takes one class.
        """
        self.epsilons(names)
        if self.enabled:
            self.matrix(names, table)

    def describe(self) -> str:
        """Say in a few words which smoothing is in use.

        Returns:
            For example ``label_smoothing=0.1 mode=redistribute schedule=constant``.
        """
        return " ".join(f"{key.removeprefix(PREFIX + '_')}={value}" for key, value in self.to_args().items())


def split_keys(args: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Separate the label-smoothing keys from the other keys of a config.

    Args:
        args: A training config; it is not changed.

    Returns:
        The label-smoothing keys (anything that starts with ``label_smoothing``, and ``calibrate``), and the rest.

    Raises:
        TypeError: If a key looks like a misspelt label-smoothing key.
    """
    known = [f.name for f in fields(LabelSmoothing)]
    for key in args:
        if (
            "smooth" in str(key)
            and not str(key).startswith(PREFIX)
            and (close := get_close_matches(str(key), known, 1))
        ):
            raise ArgumentTypeError(f"{key}: expected a known key, did you mean {close[0]!r}?")
    keys = {k: v for k, v in args.items() if str(k).startswith(PREFIX) or k == CALIBRATE}
    return keys, {k: v for k, v in args.items() if k not in keys}


def ordered_names(names: Mapping[int, str] | Sequence[str]) -> list[str]:
    """Return class names in index order from either form that Ultralytics uses.

    Args:
        names: A mapping from index to name, or a sequence of names.

    Returns:
        The names, in index order.
    """
    if isinstance(names, Mapping):
        return [str(names[i]) for i in sorted(names)]
    return [str(name) for name in names]


def check_unique(names: Sequence[str]) -> None:
    """Refuse class names of which one stands for several classes: nothing could tell the classes apart.

    Args:
        names: The data set's K class names, in index order.

    Raises:
        ValueError: If a name is there twice.

    Examples:
        >>> check_unique(["cat", "dog", "cat"])
        Traceback (most recent call last):
            ...
        det_ls.base.errors.ArgumentError: names: expected each class name once, got 'cat' for the classes 0 and 2.
    """
    first: dict[str, int] = {}
    for index, name in enumerate(names):
        if first.setdefault(name, index) != index:
            raise ArgumentError(
                f"names: expected each class name once, got {name!r} for the classes {first[name]} and {index}."
            )


def _class_index(key: str | int, names: Sequence[str]) -> int:
    """Find a class by name, or check its index."""
    if isinstance(key, int):
        if not 0 <= key < len(names):
            raise ArgumentError(f"label_smoothing: expected a class index below {len(names)}, got {key}.")
        return key
    if key not in names:
        close = get_close_matches(key, names, 1)
        hint = f"; did you mean {close[0]!r}?" if close else f"; the data's classes begin with {list(names[:5])}."
        raise ArgumentError(f"label_smoothing: expected a class of the data, got {key!r}{hint}")
    return list(names).index(key)
