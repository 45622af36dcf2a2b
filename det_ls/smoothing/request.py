# SPDX-License-Identifier: AGPL-3.0-or-later
"""The label smoothing that a run was asked for, parsed once and handed on as one typed value."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from det_ls.base.errors import ArgumentError
from det_ls.smoothing.policy import POLICIES, Policy
from det_ls.smoothing.settings import CALIBRATE, PREFIX, LabelSmoothing, split_keys
from det_ls.smoothing.similarity import SimilarityTable


@dataclass(frozen=True)
class Request:
    """The label smoothing that a run was asked for: keys that are parsed and a table that is read, once.

    It travels from the command line to the trainer as the value of the one key ``label_smoothing``, in place of the
    keys that it was parsed from.

    Attributes:
        smoothing: The validated keys.
        table: The table that they name; None without one, or without smoothing.
        given: Which keys were given.
    """

    smoothing: LabelSmoothing
    table: SimilarityTable | None = None
    given: tuple[str, ...] = ()

    @classmethod
    def parse(cls, args: Mapping[str, Any], table_copy: Path | None = None) -> Request:
        """Parse the label-smoothing keys of a config, or take what was parsed before.

        Args:
            args: A config; what is no label-smoothing key is ignored.
            table_copy: A copy of the table, read where the named file is gone.

        Returns:
            The request.

        Raises:
            FileNotFoundError: If the table does not exist.
            TypeError: If a key is unknown or a value has the wrong type.
            ValueError: If a value is out of its range.

        Examples:
            >>> Request.parse({"label_smoothing": 0.1, "label_smoothing_mode": None, "epochs": 3}).given
            ('label_smoothing',)
        """
        return cls.of_keys(split_keys(args)[0], table_copy)

    @classmethod
    def of_keys(cls, keys: Mapping[str, Any], table_copy: Path | None = None) -> Request:
        """Parse label-smoothing keys, or take what was parsed before.

        Args:
            keys: The keys; every other key is an error.
            table_copy: As in :meth:`parse`.

        Returns:
            The request.

        Raises:
            FileNotFoundError: As :meth:`parse`.
            TypeError: As :meth:`parse`.
            ValueError: As :meth:`parse`.
        """
        if isinstance(keys.get(PREFIX), Request):
            request: Request = keys[PREFIX]
            return request
        smoothing = LabelSmoothing.from_args(keys)
        path = smoothing.label_smoothing_similarity if smoothing.enabled else None
        if path is not None and table_copy is not None and not Path(path).is_file():
            path = str(table_copy)
        table = None if path is None else SimilarityTable.read(path)
        return cls(smoothing, table, tuple(key for key, value in keys.items() if value is not None))

    def check_epsilon(self) -> None:
        """Refuse keys that say how to smooth a new run where no epsilon says how much: nothing would be smoothed.

        Raises:
            ValueError: If there are such keys only.
        """
        how = [key for key in self.given if key != CALIBRATE]
        if how and PREFIX not in how:
            raise ArgumentError(f"{', '.join(how)}: expected {PREFIX}= as well, got none: nothing would be smoothed.")

    def check(self, names: Sequence[str]) -> None:
        """Check the keys against a data set's classes.

        Args:
            names: The data set's K class names, in index order.

        Raises:
            ValueError: As :meth:`LabelSmoothing.check`.
        """
        self.smoothing.check(names, self.table)

    def policy(self, names: Sequence[str]) -> Policy | None:
        """Make the policy that the schedule names.

        Args:
            names: The data set's K class names, in index order.

        Returns:
            A new policy, or None without smoothing.

        Raises:
            ValueError: If a key does not fit the classes.
        """
        smoothing = self.smoothing
        if not smoothing.enabled:
            return None
        return POLICIES[smoothing.label_smoothing_schedule](smoothing, names, self.table)

    def differing(self, other: Request) -> list[str]:
        """Return the keys given here whose value is another in another request; tables are compared by content.

        Args:
            other: The other request.

        Returns:
            The keys.
        """
        differing = []
        for key in self.given:
            same = self.value(key) == other.value(key)
            if key == f"{PREFIX}_similarity":
                table = self.table or SimilarityTable.read(self.value(key))
                same = other.table is not None and table.text == other.table.text
            if not same:
                differing.append(key)
        return differing

    def value(self, key: str) -> Any:
        """Return a key's value.

        Args:
            key: The key.

        Returns:
            The value.
        """
        return getattr(self.smoothing, key)


def refuse_keys(args: Mapping[str, Any], why: str) -> None:
    """Raise if a config has label-smoothing keys where they would have no effect.

    Args:
        args: The config.
        why: The end of the sentence, what to do instead.

    Raises:
        ValueError: If there is one.
    """
    request = args.get(PREFIX)
    keys = request.given if isinstance(request, Request) else split_keys(args)[0]
    if keys:
        raise ArgumentError(f"{', '.join(keys)}: {why}")
