# SPDX-License-Identifier: AGPL-3.0-or-later
"""A stock validator that predicts and measures nothing: what it would do at its end is left out."""

from __future__ import annotations

from typing import Any


class WithoutMetrics:
    """Put it before a stock validator's class, whose subclass keeps what it needs in ``update_metrics``."""

    def get_stats(self) -> dict[str, Any]:
        """Return nothing: the numbers are computed elsewhere."""
        return {}

    def finalize_metrics(self) -> None:
        """Do nothing."""

    def print_results(self) -> None:
        """Do nothing."""

    def run_callbacks(self, event: str) -> None:
        """Do nothing: loggers and analytics have no part in such a pass over images."""
