# SPDX-License-Identifier: AGPL-3.0-or-later
"""The logits of a classifier on a data set's split, by the stock Ultralytics validation pipeline."""

from __future__ import annotations

import copy
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from ultralytics.data import build_dataloader
from ultralytics.models.yolo.classify import ClassificationValidator

from det_ls.base.errors import ArgumentError, MissingFileError, RunError
from det_ls.stock.expect import Method, expect
from det_ls.stock.logs import quiet

IMGSZ = 224
_FOLDERS = {"train": ("train",), "val": ("val", "validation", "valid"), "test": ("test",)}  # as stock names them
ASSUMPTIONS = (
    Method(ClassificationValidator, "build_dataset", ("img_path",), only=True),
    Method(ClassificationValidator, "get_dataloader", ("dataset_path", "batch_size"), only=True),
    Method(ClassificationValidator, "init_metrics", ("model",), only=True),
    Method(ClassificationValidator, "postprocess", ("preds",), only=True),
    Method(ClassificationValidator, "update_metrics", ("preds", "batch"), only=True),
)


@dataclass(frozen=True)
class ClassifierOutputs:
    """What a classifier says of N images.

    Attributes:
        logits: (N, K) as the model computed them, before the softmax.
        labels: (N,) the true classes, by index of the model.
        files: The N images, relative to the split's folder: ``cat/001.jpg``.
        settings: ``imgsz``, ``batch`` and ``device``.
    """

    logits: NDArray[np.float64]
    labels: NDArray[np.int64]
    files: tuple[str, ...]
    settings: dict[str, Any]


def check_class_folders(data: object, split: str) -> Path:
    """Find the folder of a split, which has one folder a class.

    Args:
        data: The data set's folder.
        split: ``train``, ``val`` or ``test``.

    Returns:
        The data set's folder.

    Raises:
        FileNotFoundError: If it is no folder of such splits; nothing is downloaded, and no folder is split in two.
        ValueError: If the split is none of these.
    """
    if split not in _FOLDERS:
        raise ArgumentError(f"split: expected one of {', '.join(_FOLDERS)}, got {split!r}.")
    root = Path(str(data))
    for wanted in ("train", split):
        if not any((root / name).is_dir() for name in _FOLDERS[wanted]):
            raise MissingFileError(
                f"data: expected a folder with the folders train and {split}, in each one a class, got '{root}' "
                f"without {wanted}."
            )
    return root


def classify(
    module: nn.Module,
    data: str | Path,
    split: str = "val",
    *,
    imgsz: int = IMGSZ,
    batch: int = 16,
    device: object = None,
    workers: int = 8,
) -> ClassifierOutputs:
    """Run a classifier on a split as ``yolo val`` does.

    Args:
        module: A classification model, which is left as it is.
        data: The data set's folder.
        split: ``train``, ``val`` or ``test``.
        imgsz: Size of the input, in pixels.
        batch: Images a batch.
        device: ``cpu``, ``0``, ...; None chooses.
        workers: Processes that load images.

    Returns:
        The logits, in the order of the file names.

    Raises:
        FileNotFoundError: If the data set has no such split.
        RuntimeError: If the model does not hand on its logits.
    """
    expect("classification validator", *ASSUMPTIONS)
    root = check_class_folders(data, split)
    args = {
        "task": "classify",
        "mode": "val",
        "data": str(root),
        "split": split,
        "plots": False,
        "verbose": False,
        "imgsz": imgsz,
        "batch": batch,
        "device": device,
        "workers": workers,
    }
    with tempfile.TemporaryDirectory(prefix="det-ls-") as folder, quiet():
        validator = _Recorder(save_dir=Path(folder), args=args)
        validator(model=copy.deepcopy(module))
    return ClassifierOutputs(
        torch.cat(validator.logits).double().numpy(),
        torch.cat(validator.labels).long().numpy(),
        tuple(Path(sample[0]).relative_to(validator.root).as_posix() for sample in validator.samples),
        {"imgsz": validator.args.imgsz, "batch": validator.args.batch, "device": str(validator.device)},
    )


class _Recorder(ClassificationValidator):
    """The stock validator, which keeps the logits instead of measuring."""

    def init_metrics(self, model: nn.Module) -> None:
        """Start with no images."""
        super().init_metrics(model)
        self.logits: list[torch.Tensor] = []
        self.labels: list[torch.Tensor] = []

    def get_dataloader(self, dataset_path: Any, batch_size: int) -> Any:
        """Load the images in the order of their names, where stock shuffles them."""
        dataset: Any = self.build_dataset(dataset_path)
        self.samples, self.root = list(dataset.samples), str(dataset.root)
        if not self.samples:
            raise ArgumentError(f"data: expected images of the model's classes, got none in '{dataset_path}'.")
        return build_dataloader(dataset, batch_size, self.args.workers, shuffle=False, rank=-1)

    def postprocess(self, preds: Any) -> Any:
        """Keep the logits beside the probabilities."""
        raw = preds[1] if isinstance(preds, (list, tuple)) and len(preds) == 2 else None
        if not isinstance(raw, torch.Tensor):
            raise RunError("model: expected a classifier that hands on its logits, got one without.")
        self.logits.append(raw.float().cpu())
        return super().postprocess(preds)

    def update_metrics(self, preds: torch.Tensor, batch: dict[str, Any]) -> None:
        """Keep the labels."""
        del preds
        self.labels.append(batch["cls"].cpu())

    def get_stats(self) -> dict[str, Any]:
        """Return nothing."""
        return {}

    def finalize_metrics(self) -> None:
        """Do nothing."""

    def print_results(self) -> None:
        """Do nothing."""

    def run_callbacks(self, event: str) -> None:
        """Do nothing: loggers and analytics have no part in a measurement."""
