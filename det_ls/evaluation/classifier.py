# SPDX-License-Identifier: AGPL-3.0-or-later
"""Predictions of a classifier on labelled images, by the stock Ultralytics validation pipeline.

Transforms, batches and the model's call are stock's; only the metrics are replaced by keeping the logits.
"""

from __future__ import annotations

import copy
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset
from ultralytics.data.augment import classify_transforms
from ultralytics.models.yolo.classify import ClassificationValidator
from ultralytics.utils import YAML
from ultralytics.utils.patches import imread

from det_ls.base.errors import ArgumentError
from det_ls.data.class_folders import LabelledImages
from det_ls.evaluation.detector import Detector, plain_names
from det_ls.evaluation.settings import PredictionSettings
from det_ls.metrics.classification import ClassificationTable, classification_table, joined
from det_ls.metrics.table import Floats
from det_ls.stock.expect import Method, expect
from det_ls.stock.logs import quiet
from det_ls.stock.validators import WithoutMetrics

ASSUMPTIONS = (
    Method(ClassificationValidator, "get_dataloader", ("dataset_path", "batch_size"), only=True),
    Method(ClassificationValidator, "init_metrics", ("model",), only=True),
    Method(ClassificationValidator, "postprocess", ("preds",), only=True),
    Method(ClassificationValidator, "update_metrics", ("preds", "batch"), only=True),
)


@dataclass(frozen=True)
class ClassPredictions:
    """What a classifier says of labelled images.

    Attributes:
        table: One row an image, in the order of the images.
        settings: The settings that were in force: ``imgsz``, ``batch`` and ``device``.
        logits: (I, K) logits, where they were asked for.
    """

    table: ClassificationTable
    settings: dict[str, Any] = field(default_factory=dict)
    logits: Floats | None = None


def predict_classes(
    detector: Detector, images: LabelledImages, settings: PredictionSettings, *, logits: bool = False
) -> ClassPredictions:
    """Classify images. Nothing is written.

    Args:
        detector: A model for ``classify``, as `det_ls.evaluation.detector.load_detector` returns it.
        images: The images, with the model's class indices.
        settings: ``imgsz``, ``batch``, ``device`` and ``workers`` of them are used.
        logits: Whether to keep all logits, which is I x K numbers.

    Returns:
        The predictions.

    Raises:
        ValueError: If an image cannot be read.
    """
    expect("validator of classifiers", *ASSUMPTIONS)
    with tempfile.TemporaryDirectory(prefix="det-ls-") as folder, quiet():
        # For its own task stock looks for class folders, splits them where it misses some, and writes a cache beside
        # them. So it gets the file of another task, which it only reads.
        data = Path(folder) / "images.yaml"
        names = dict(detector.names or {i: str(i) for i in range(max(images.labels, default=0) + 1)})
        YAML.save(data, {"path": str(images.root), "train": ".", "val": ".", "names": names, "channels": 3})
        validator = _Recorder(
            save_dir=Path(folder),
            args={
                "task": "classify",
                "mode": "val",
                "data": str(data),
                "split": "val",
                "plots": False,
                "verbose": False,
                "imgsz": settings.imgsz,
                "batch": settings.batch,
                "device": settings.device,
                "workers": settings.workers,
            },
        )
        validator.images, validator.logits = images, [] if logits else None
        validator.args.task = "detect"
        module: Any = detector.model if isinstance(detector.model, str) else copy.deepcopy(detector.model)
        validator(model=module)
    args = validator.args
    used = {"imgsz": args.imgsz, "batch": args.batch, "device": str(validator.device)}
    kept = None if validator.logits is None else np.concatenate(validator.logits)
    return ClassPredictions(joined(validator.recorded), used, kept)


class _Images(Dataset[dict[str, Any]]):
    """Images as stock reads and transforms them."""

    def __init__(self, images: LabelledImages, size: Any) -> None:
        self._images, self._transform = images, classify_transforms(size=size)

    def __len__(self) -> int:
        return len(self._images.files)

    def __getitem__(self, i: int) -> dict[str, Any]:
        from PIL import Image

        file = self._images.files[i]
        image = imread(file)
        if image is None:
            raise ArgumentError(f"images: expected an image, got '{file}', which cannot be decoded.")
        return {
            "img": self._transform(Image.fromarray(cv2.cvtColor(image, cv2.COLOR_BGR2RGB))),
            "cls": self._images.labels[i],
        }


class _Recorder(WithoutMetrics, ClassificationValidator):
    """The stock validator, which keeps what the numbers are computed from instead of measuring."""

    images: LabelledImages
    logits: list[Floats] | None
    recorded: list[ClassificationTable]

    def get_dataloader(self, dataset_path: Path | str, batch_size: int) -> DataLoader[dict[str, Any]]:
        """Load the images in their order."""
        del dataset_path
        return DataLoader(_Images(self.images, self.args.imgsz), batch_size, num_workers=self.args.workers)

    def init_metrics(self, model: torch.nn.Module) -> None:
        """Start with no images."""
        super().init_metrics(model)
        self.recorded = []

    def postprocess(self, preds: Any) -> torch.Tensor:
        """Take the logits, or of an exported model the logarithms of the probabilities, which is all it gives."""
        if isinstance(preds, (list, tuple)) and len(preds) == 2:
            return torch.as_tensor(preds[1]).double()
        probability = torch.as_tensor(preds[0] if isinstance(preds, (list, tuple)) else preds)
        return probability.double().clamp_min(torch.finfo(torch.float32).tiny).log()

    def update_metrics(self, preds: torch.Tensor, batch: dict[str, Any]) -> None:
        """Keep a batch's predictions."""
        names: Sequence[str] = list(plain_names(self.names).values())
        given = preds.cpu().numpy()
        self.recorded.append(classification_table(given, batch["cls"].cpu().numpy(), names))
        if self.logits is not None:
            self.logits.append(given)

    def get_desc(self) -> str:
        """Return the progress bar's label."""
        return "Classifying"
