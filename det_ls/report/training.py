# SPDX-License-Identifier: AGPL-3.0-or-later
"""How models were trained, in words: what the records of their runs say, and what follows for the numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from det_ls.report.crops import base_name
from det_ls.report.words import DASH

SHOWN = ("model", "data", "epochs", "imgsz", "batch", "seed", "label_smoothing")
_NAMES = {"label_smoothing": "Label smoothing", "imgsz": "Image size"}


def columns() -> list[str]:
    """Name the columns of `training_row`."""
    return [_NAMES.get(key, key.capitalize()) for key in SHOWN] + ["Weights"]


def training_row(record: object) -> list[str] | None:
    """Show how one model was trained.

    Args:
        record: ``protocol["training"]``, a `det_ls.evaluation.training_record.TrainingRecord` as a mapping.

    Returns:
        One cell a column; None where nothing is known.
    """
    if not isinstance(record, Mapping) or not record.get("source"):
        return None
    weights = {"best": "best.pt", "last": "last.pt"}.get(str(record.get("weights")), DASH)
    if record.get("selected_on_split"):
        weights += ", chosen on this split"
    return [*(setting_text(key, record.get(key)) for key in SHOWN), weights]


def setting_text(key: str, value: Any) -> str:
    """Write one setting of a training.

    Args:
        key: Its name.
        value: Its value.

    Returns:
        The text; a dash where it is unknown.
    """
    if value is None:
        return DASH
    if key == "label_smoothing":
        return smoothing_text(value)
    if isinstance(value, (list, tuple)):
        return " x ".join(str(v) for v in value)
    return base_name(value)


def smoothing_text(keys: Mapping[str, Any]) -> str:
    """Write the label-smoothing keys of a training.

    Args:
        keys: The keys that were set.

    Returns:
        For example ``0.1, mode=uniform``.

    Example:
        >>> smoothing_text({"label_smoothing": 0.1, "label_smoothing_mode": "uniform"}), smoothing_text({})
        ('0.1, mode=uniform', 'none')
    """
    epsilon = keys.get("label_smoothing", 0)
    if not epsilon:
        return "none"
    others = {k.removeprefix("label_smoothing_"): v for k, v in keys.items() if k != "label_smoothing"}
    return ", ".join([str(epsilon), *(f"{k}={base_name(v)}" for k, v in others.items() if v is not None)])


def cautions(record: object) -> list[tuple[str, str]]:
    """Say where the training makes numbers better than they would be on new images.

    Args:
        record: ``protocol["training"]``.

    Returns:
        Pairs of a few words and a sentence.
    """
    if not isinstance(record, Mapping):
        return []
    found = []
    if record.get("trained_on_split"):
        found.append(("The model was trained on these images", "Every number here is better than on new images."))
    if record.get("selected_on_split"):
        found.append(
            (
                "best.pt was chosen on this split",
                "Of all epochs it is the one that did best on these very images, so expect a lower AP on new ones. "
                "Evaluate on a test split, or last.pt, for numbers without that.",
            )
        )
    return found


def differing_settings(a: Sequence[object], b: Sequence[object]) -> list[tuple[str, str, str]]:
    """List the settings in which two arms of runs differ, the seed left out.

    Args:
        a: Records of the first arm.
        b: Records of the second arm.

    Returns:
        Name of the setting, its value in the first and in the second arm.
    """
    known = [[r for r in arm if isinstance(r, Mapping) and r.get("source")] for arm in (a, b)]
    if not known[0] or not known[1]:
        return []
    found = []
    for key in (k for k in SHOWN if k != "seed"):
        texts = [" or ".join(dict.fromkeys(setting_text(key, record.get(key)) for record in arm)) for arm in known]
        if texts[0] != texts[1] and DASH not in texts:
            found.append((key, texts[0], texts[1]))
    return found
