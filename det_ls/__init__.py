# SPDX-License-Identifier: AGPL-3.0-or-later
"""Label smoothing for Ultralytics YOLO detectors, and the honest measurement of what it does.

Names are loaded on first use, so that ``import det_ls`` costs neither torch nor Ultralytics.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from det_ls.evaluation import evaluate as evaluate
    from det_ls.evaluation import evaluate_detections as evaluate_detections
    from det_ls.losses import LabelSmoothingDetectionLoss as LabelSmoothingDetectionLoss
    from det_ls.losses import smoothed_criterion as smoothed_criterion
    from det_ls.model import YOLO as YOLO
    from det_ls.results import Evaluation as Evaluation
    from det_ls.targets import smooth_targets as smooth_targets
    from det_ls.targets import smoothing_matrix as smoothing_matrix
    from det_ls.trainer import DetectionTrainer as DetectionTrainer

_HOME = {
    "YOLO": "model",
    "DetectionTrainer": "trainer",
    "LabelSmoothingDetectionLoss": "losses",
    "smoothed_criterion": "losses",
    "smooth_targets": "targets",
    "smoothing_matrix": "targets",
    "Evaluation": "results",
    "evaluate": "evaluation",
    "evaluate_detections": "evaluation",
}

__all__ = [*_HOME, "__version__"]


def __getattr__(name: str) -> Any:
    """Import a public name from its module when it is first used (PEP 562)."""
    if name not in _HOME:
        raise AttributeError(f"module 'det_ls' has no attribute {name!r}")
    return getattr(import_module(f"det_ls.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    """List the public names, loaded or not."""
    return sorted(__all__)
