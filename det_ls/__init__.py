# SPDX-License-Identifier: AGPL-3.0-or-later
"""Label smoothing for Ultralytics YOLO detectors, and the honest measurement of what it does.

Names are loaded on first use, so that ``import det_ls`` costs neither torch nor Ultralytics.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from det_ls.base.version import __version__ as __version__

if TYPE_CHECKING:
    from det_ls.base.errors import DetLsError as DetLsError
    from det_ls.calibration.calibrate import calibrate as calibrate
    from det_ls.calibration.classify import calibrate_classifier as calibrate_classifier
    from det_ls.calibration.files import calibrate_detections as calibrate_detections
    from det_ls.calibration.sidecar import load_calibrator as load_calibrator
    from det_ls.evaluation.comparison import compare as compare
    from det_ls.evaluation.evaluate import evaluate as evaluate
    from det_ls.evaluation.evaluate import evaluate_detections as evaluate_detections
    from det_ls.evaluation.results import Evaluation as Evaluation
    from det_ls.losses.criterion import LabelSmoothingDetectionLoss as LabelSmoothingDetectionLoss
    from det_ls.losses.cross_entropy import smoothed_cross_entropy as smoothed_cross_entropy
    from det_ls.losses.families import smoothed_criterion as smoothed_criterion
    from det_ls.smoothing.matrix import smooth_targets as smooth_targets
    from det_ls.smoothing.matrix import smoothing_matrix as smoothing_matrix
    from det_ls.studies.result import StudyResult as StudyResult
    from det_ls.studies.run import read_study as read_study
    from det_ls.studies.run import study as study
    from det_ls.training.model import YOLO as YOLO
    from det_ls.training.tasks import ClassificationTrainer as ClassificationTrainer
    from det_ls.training.tasks import DetectionTrainer as DetectionTrainer
    from det_ls.training.tasks import OBBTrainer as OBBTrainer
    from det_ls.training.tasks import PoseTrainer as PoseTrainer
    from det_ls.training.tasks import SegmentationTrainer as SegmentationTrainer

_HOME = {
    "YOLO": "training.model",
    "DetectionTrainer": "training.tasks",
    "SegmentationTrainer": "training.tasks",
    "PoseTrainer": "training.tasks",
    "OBBTrainer": "training.tasks",
    "ClassificationTrainer": "training.tasks",
    "LabelSmoothingDetectionLoss": "losses.criterion",
    "smoothed_criterion": "losses.families",
    "smoothed_cross_entropy": "losses.cross_entropy",
    "smooth_targets": "smoothing.matrix",
    "smoothing_matrix": "smoothing.matrix",
    "DetLsError": "base.errors",
    "calibrate": "calibration.calibrate",
    "calibrate_classifier": "calibration.classify",
    "calibrate_detections": "calibration.files",
    "load_calibrator": "calibration.sidecar",
    "Evaluation": "evaluation.results",
    "compare": "evaluation.comparison",
    "evaluate": "evaluation.evaluate",
    "evaluate_detections": "evaluation.evaluate",
    "StudyResult": "studies.result",
    "read_study": "studies.run",
    "study": "studies.run",
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
