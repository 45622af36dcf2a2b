# SPDX-License-Identifier: AGPL-3.0-or-later
"""Maps from a detector's logits to calibrated scores: frozen values, arrays in and arrays out.

A map is monotone within a class, so it changes no ranking there. Temperature and Platt scaling are affine in the logit
and fold into a model (:mod:`det_ls.calibration.fold`); the others need code at inference.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, ClassVar, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

from det_ls.base.errors import ArgumentError, ArgumentTypeError

Floats: TypeAlias = NDArray[np.float64]
Ints: TypeAlias = NDArray[np.int64]

FORMAT = "det-ls calibration map 1"
# Half the distance of the floats below 1 in single precision: a sigmoid computed there cannot say more.
CLIP = 2.0**-24


def logit(score: ArrayLike) -> Floats:
    """Invert the sigmoid in double precision.

    Args:
        score: Scores in [0, 1], clipped to [2^-24, 1 - 2^-24], which is a logit of 16.6 at most.

    Returns:
        log(s / (1 - s)), of the same shape.

    Example:
        >>> logit([0.5, 0.75]).round(6).tolist()
        [0.0, 1.098612]
    """
    s = np.clip(np.asarray(score, np.float64), CLIP, 1 - CLIP)
    return np.log(s) - np.log1p(-s)


def sigmoid(z: ArrayLike) -> Floats:
    """Compute 1 / (1 + exp(-z)) without overflow.

    Args:
        z: Logits.

    Returns:
        Scores in [0, 1], of the same shape.
    """
    x = np.asarray(z, np.float64)
    e = np.exp(-np.abs(x))
    return np.where(x >= 0, 1.0, e) / (1.0 + e)


@dataclass(frozen=True)
class AffineMap:
    """Platt or temperature scaling: sigmoid(a z + b) of the logit z (Platt 1999; Guo et al. 2017, equation 9).

    Attributes:
        a: Slopes, above 0: one for all classes, or one for each of ``classes``. A temperature is 1 / a.
        b: Offsets, as many; all 0 for temperature scaling.
        classes: Class names in order; empty where one map serves all classes.
        kind: ``platt`` or ``temperature``.
    """

    a: tuple[float, ...]
    b: tuple[float, ...]
    classes: tuple[str, ...] = ()
    kind: str = "platt"

    def __post_init__(self) -> None:
        wanted = len(self.classes) or 1
        if not len(self.a) == len(self.b) == wanted:
            raise ArgumentError(f"a, b: expected {wanted} values each, got {len(self.a)} and {len(self.b)}.")
        if not np.isfinite([*self.a, *self.b]).all():
            raise ArgumentError("a, b: expected finite numbers, got others.")
        if min(self.a) <= 0:
            where = f" for class {self.classes[int(np.argmin(self.a))]!r}" if self.classes else ""
            raise ArgumentError(f"a: expected slopes above 0, got {min(self.a):.6g}{where}, which turns the ranking.")

    def __call__(self, z: ArrayLike, cls: ArrayLike | None = None) -> Floats:
        """Calibrate.

        Args:
            z: (N,) logits.
            cls: (N,) positions in ``classes``; not needed for a shared map.

        Returns:
            (N,) calibrated scores in [0, 1].

        Example:
            >>> AffineMap((0.5,), (1.0,))([-2.0, 2.0]).round(4).tolist()
            [0.5, 0.8808]
        """
        row = class_rows(self.classes, z, cls)
        return sigmoid(np.asarray(self.a)[row] * np.asarray(z, np.float64) + np.asarray(self.b)[row])

    @property
    def inverse(self) -> AffineMap:
        """The map that undoes this one."""
        a, b = np.asarray(self.a), np.asarray(self.b)
        return AffineMap(tuple((1 / a).tolist()), tuple((-b / a).tolist()), self.classes, self.kind)

    def by_class(self, names: Sequence[str]) -> tuple[Floats, Floats]:
        """Give the slope and offset of each class.

        Args:
            names: C class names of a model or data set.

        Returns:
            (C,) slopes and (C,) offsets.

        Raises:
            ValueError: If the map does not know a class.
        """
        rows = class_positions(self.classes, names)
        return np.asarray(self.a, np.float64)[rows], np.asarray(self.b, np.float64)[rows]


@dataclass(frozen=True)
class BetaMap:
    """Beta calibration: sigmoid(a log s - b log(1 - s) + c) (Kull, Silva Filho and Flach 2017, equation 6).

    Attributes:
        a: Weight of log s, at least 0.
        b: Weight of -log(1 - s), at least 0.
        c: Offset.
    """

    a: float
    b: float
    c: float
    kind: ClassVar[str] = "beta"
    classes: ClassVar[tuple[str, ...]] = ()

    def __post_init__(self) -> None:
        if not np.isfinite([self.a, self.b, self.c]).all() or min(self.a, self.b) < 0 or self.a + self.b == 0:
            raise ArgumentError(
                f"a, b: expected weights of at least 0, one of them above it, got {self.a:.6g} and {self.b:.6g}."
            )

    def __call__(self, z: ArrayLike, cls: ArrayLike | None = None) -> Floats:
        """Calibrate.

        Args:
            z: (N,) logits.
            cls: Not used.

        Returns:
            (N,) calibrated scores in [0, 1].

        Example:
            >>> BetaMap(1.0, 1.0, 0.0)([-2.0, 2.0]).round(4).tolist()  # the identity
            [0.1192, 0.8808]
        """
        log_s, minus_log_rest = beta_features(np.asarray(z, np.float64))
        return sigmoid(self.a * log_s + self.b * minus_log_rest + self.c)


def beta_features(z: Floats) -> tuple[Floats, Floats]:
    """Give log s and -log(1 - s) of s = sigmoid(z), exactly also where s is close to 0 or 1.

    Args:
        z: (N,) logits.

    Returns:
        (N,) log s, at most 0, and (N,) -log(1 - s), at least 0.
    """
    return -np.logaddexp(0.0, -z), np.logaddexp(0.0, z)


@dataclass(frozen=True)
class IsotonicMap:
    """Isotonic regression: a rising function of the score, linear between knots (Zadrozny and Elkan 2002).

    Attributes:
        score: Scores of the knots, rising.
        value: Calibrated scores at the knots, in [0, 1], not falling; constant beyond the ends.
    """

    score: tuple[float, ...]
    value: tuple[float, ...]
    kind: ClassVar[str] = "isotonic"
    classes: ClassVar[tuple[str, ...]] = ()

    def __post_init__(self) -> None:
        rising = len(self.score) == len(self.value) >= 1 and bool(
            (np.diff(self.score) > 0).all() and (np.diff(self.value) >= 0).all()
        )
        if not rising or min(self.value) < 0 or max(self.value) > 1:
            raise ArgumentError("score, value: expected as many rising knots of each, values in [0, 1], got others.")

    def __call__(self, z: ArrayLike, cls: ArrayLike | None = None) -> Floats:
        """Calibrate.

        Args:
            z: (N,) logits.
            cls: Not used.

        Returns:
            (N,) calibrated scores in [0, 1].

        Example:
            >>> IsotonicMap((0.2, 0.8), (0.0, 0.6))([-9.0, 0.0, 9.0]).round(4).tolist()
            [0.0, 0.3, 0.6]
        """
        return np.interp(sigmoid(z), self.score, self.value)


@dataclass(frozen=True)
class DesmoothMap:
    """Undo a known diagonal smoothing matrix: min(s / kept, 1).

    A detector trained on targets t' = t P converges to the expectation of t P, so that of t is the score times the
    inverse of P. Where P only scales each class the score of one class is enough; any other P needs all of them.

    Attributes:
        kept: The diagonal of P, in (0, 1]: one value for each of ``classes``.
        classes: Class names in order; empty where one value serves all.
    """

    kept: tuple[float, ...]
    classes: tuple[str, ...] = ()
    kind: ClassVar[str] = "desmooth"

    def __post_init__(self) -> None:
        if len(self.kept) != (len(self.classes) or 1) or not all(0 < k <= 1 for k in self.kept):
            raise ArgumentError(f"kept: expected a share in (0, 1] for each class, got {self.kept}.")

    def __call__(self, z: ArrayLike, cls: ArrayLike | None = None) -> Floats:
        """Calibrate.

        Args:
            z: (N,) logits.
            cls: (N,) positions in ``classes``; not needed for a shared map.

        Returns:
            (N,) calibrated scores in [0, 1].

        Example:
            >>> DesmoothMap((0.8,))([0.0, 9.0]).tolist()
            [0.625, 1.0]
        """
        row = class_rows(self.classes, z, cls)
        return np.minimum(sigmoid(z) / np.asarray(self.kept)[row], 1.0)


CalibrationMap: TypeAlias = AffineMap | BetaMap | IsotonicMap | DesmoothMap
_KINDS: dict[str, type[Any]] = {
    "platt": AffineMap,
    "temperature": AffineMap,
    "beta": BetaMap,
    "isotonic": IsotonicMap,
    "desmooth": DesmoothMap,
}


def map_to_dict(calibration_map: CalibrationMap) -> dict[str, Any]:
    """Write a map as plain values, which JSON holds exactly.

    Args:
        calibration_map: The map.

    Returns:
        Its kind, classes and parameters.

    Example:
        >>> map_to_dict(BetaMap(1.0, 2.0, 0.5))
        {'format': 'det-ls calibration map 1', 'kind': 'beta', 'a': 1.0, 'b': 2.0, 'c': 0.5}
    """
    values = {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(calibration_map).items() if k != "kind"}
    return {"format": FORMAT, "kind": calibration_map.kind, **values}


def map_from_dict(content: object, what: str = "map") -> CalibrationMap:
    """Read what :func:`map_to_dict` wrote.

    Args:
        content: The dictionary; keys besides the map's own are ignored.
        what: Its name for errors.

    Returns:
        The map.

    Raises:
        ValueError: If it is no map of this format.

    Example:
        >>> map_from_dict(map_to_dict(AffineMap((0.5,), (0.1,))))
        AffineMap(a=(0.5,), b=(0.1,), classes=(), kind='platt')
    """
    kind = content.get("kind") if isinstance(content, Mapping) and content.get("format") == FORMAT else None
    if not isinstance(content, Mapping) or not isinstance(kind, str) or kind not in _KINDS:
        raise ArgumentError(f"{what}: expected a calibration map that det-ls wrote, got something else.")
    try:
        values = {
            name: _READERS[str(field.type)](content[name])
            for name, field in _KINDS[kind].__dataclass_fields__.items()
            if name in content and str(field.type) in _READERS
        }
        result: CalibrationMap = _KINDS[kind](**values)
    except (TypeError, OverflowError) as error:
        raise ArgumentError(f"{what}: expected the parameters of a {kind} map, got others.") from error
    if len(set(result.classes)) < len(result.classes):
        raise ArgumentError(f"{what}: expected each class once, got {', '.join(result.classes[:5])}.")
    return result


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise ArgumentTypeError(f"map: expected a text, got {type(value).__name__}.")
    return value


def _number(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not np.isfinite(float(value)):
        raise ArgumentTypeError(f"map: expected a finite number, got {type(value).__name__}.")
    return float(value)


def _each(read: Callable[[object], Any]) -> Callable[[object], tuple[Any, ...]]:
    def several(value: object) -> tuple[Any, ...]:
        if not isinstance(value, (list, tuple)):
            raise ArgumentTypeError(f"map: expected a list, got {type(value).__name__}.")
        return tuple(map(read, value))

    return several


# By the annotation of a map's field.
_READERS: dict[str, Callable[[object], Any]] = {
    "str": _text,
    "float": _number,
    "tuple[float, ...]": _each(_number),
    "tuple[str, ...]": _each(_text),
}


def class_positions(classes: Sequence[str], names: Sequence[str]) -> Ints:
    """Find classes by name in a map's classes.

    Args:
        classes: The map's classes; empty for a shared map.
        names: C names to look for.

    Returns:
        (C,) positions, all 0 for a shared map.

    Raises:
        ValueError: If the map does not know a class.
    """
    if not classes:
        return np.zeros(len(names), np.int64)
    at = {name: i for i, name in enumerate(classes)}
    if unknown := [name for name in names if name not in at]:
        raise ArgumentError(f"map: expected a map for class {unknown[0]!r}, got one for {', '.join(classes[:5])}.")
    return np.array([at[name] for name in names], np.int64)


def class_rows(classes: Sequence[str], z: ArrayLike, cls: ArrayLike | None) -> Ints:
    """Say which row of a map's parameters each detection uses."""
    if not classes:
        return np.zeros(np.shape(z), np.int64)
    if cls is None:
        raise ArgumentTypeError("cls: expected the classes of the detections for a map by class, got none.")
    return np.asarray(cls, np.int64)
