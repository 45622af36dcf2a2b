# SPDX-License-Identifier: AGPL-3.0-or-later
"""Predictions of a detector on a dataset split, by the stock Ultralytics validation pipeline.

This is the only module that touches Ultralytics' validator. Letterboxing, rectangular batches, multi-label NMS and the
scaling of boxes back to the original image are stock; only the metrics are replaced by keeping the boxes. Rounded as
stock rounds them (boxes to 3 decimals, scores to 5), they are those of ``yolo val save_json=True``.
"""

from __future__ import annotations

import contextlib
import copy
import hashlib
import inspect
import logging
import pickle
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path, PurePath
from typing import Any

import numpy as np
import torch
import ultralytics
from numpy.typing import NDArray
from torch import nn
from ultralytics import YOLO
from ultralytics.data import YOLODataset
from ultralytics.engine.exporter import export_formats
from ultralytics.engine.model import Model
from ultralytics.models.yolo.detect import DetectionValidator
from ultralytics.nn.modules import OBB, Detect, Pose, Segment, WorldDetect, YOLOEDetect
from ultralytics.nn.tasks import DetectionModel
from ultralytics.utils import DEFAULT_CFG_DICT, LOGGER, SETTINGS, YAML, ops
from ultralytics.utils.downloads import GITHUB_ASSETS_NAMES
from ultralytics.utils.torch_utils import unwrap_model

from det_ls.coco import image_size

_OTHER_HEADS = (Segment, Pose, OBB, WorldDetect, YOLOEDetect)  # subclasses of Detect with validators of their own


@dataclass(frozen=True)
class Detector:
    """A detection model that is ready to be evaluated.

    Attributes:
        model: The module, or the path of an exported model.
        names: Class names by index; None for an exported model, whose names are read when it runs.
        end2end: Whether the model has an NMS-free (one-to-one) head; None for an exported model.
        weights: The weights as the caller named them, or the class name of a model in memory.
        sha256: SHA-256 of the weights; None for an exported model that is a folder.
        sha256_of: What the hash is of: ``file`` or ``state_dict``.
    """

    model: nn.Module | str
    names: dict[int, str] | None
    end2end: bool | None
    weights: str
    sha256: str | None
    sha256_of: str | None


@dataclass(frozen=True)
class ImagePredictions:
    """The detections in one image, in the order in which the pipeline returned them.

    Attributes:
        path: The image file.
        shape: Height and width of the decoded image, in pixels.
        boxes: (n, 4) float32 boxes ``[left, top, width, height]`` in pixels of the original image.
        scores: (n,) float32 scores in [0, 1].
        classes: (n,) class indices of the model.
    """

    path: str
    shape: tuple[int, int]
    boxes: NDArray[np.float32]
    scores: NDArray[np.float32]
    classes: NDArray[np.int64]


@dataclass(frozen=True)
class Predictions:
    """The detections in all images of a split, images without detections included.

    Attributes:
        images: One entry an image, in the pipeline's order.
        names: The model's class names by index.
        settings: The settings that were in force: ``imgsz``, ``batch``, ``conf``, ``iou`` (None without NMS),
            ``max_det``, ``end2end`` and ``device``.
    """

    images: tuple[ImagePredictions, ...]
    names: dict[int, str]
    settings: dict[str, Any] = field(default_factory=dict)


def load_detector(model: object) -> Detector:
    """Load a detection model without changing what the caller holds.

    Args:
        model: Path of a checkpoint or exported model, the name of an official Ultralytics checkpoint (downloaded if
            need be), an ``ultralytics.YOLO``, or a detection module.

    Returns:
        The detector.

    Raises:
        FileNotFoundError: If the path does not exist.
        TypeError: If the argument is none of these.
        ValueError: If the file is not a readable checkpoint, or the model is not a detection model of the YOLO family.
    """
    if isinstance(model, Detector):
        return model
    if isinstance(model, (str, PurePath)):
        return _load_file(str(model))
    weights = type(model).__name__
    if isinstance(model, Model):
        weights = Path(model.ckpt_path).name if model.ckpt_path else weights
        if isinstance(model.model, str):  # an exported model
            return _exported(model.model, model.task)
        model = model.model
    if not isinstance(model, nn.Module):
        raise TypeError(f"Expected model to be a path, a YOLO or a detection module, got {type(model).__name__}.")
    return _in_memory(unwrap_model(model), weights, _state_hash(unwrap_model(model)), "state_dict")


def predict(
    model: object,
    data: str | Path | Mapping[str, Any],
    split: str = "val",
    *,
    imgsz: int = 640,
    batch: int = 16,
    conf: float = 0.001,
    iou: float = 0.7,
    max_det: int = 300,
    device: object = None,
    workers: int = 8,
    end2end: bool | None = None,
) -> Predictions:
    """Predict a dataset split. Labels are not read, and nothing is written.

    Args:
        model: As in :func:`load_detector`. Settings that a checkpoint remembers from its training are not used.
        data: A data YAML, or what ``check_dataset`` returned for it.
        split: ``train``, ``val`` or ``test``.
        imgsz: Length of the longer side of the model's input, in pixels.
        batch: Images a batch.
        conf: Smallest score that is kept.
        iou: IoU above which NMS drops the lower-scored of two boxes of a class.
        max_det: Detections an image at most. It stays at this value: recent Ultralytics raises its own default to the
            largest number of objects in an image.
        device: As in Ultralytics, for example ``cpu`` or ``0``; None chooses.
        workers: Processes that load images; none are used on a CPU.
        end2end: Whether to use the NMS-free head of an end-to-end model such as YOLO26. None uses it where there is
            one, in every version; recent versions of ``yolo val`` use it with ``nms=False`` only, and the other head
            with NMS by default, as False does here.

    Returns:
        The predictions.

    Raises:
        FileNotFoundError: If the model or the dataset does not exist.
        TypeError: If an argument has the wrong type.
        ValueError: If an argument is out of range, or the model or the dataset is not valid.
    """
    _check_validator()
    check_settings(imgsz=imgsz, batch=batch, conf=conf, iou=iou, max_det=max_det, workers=workers)
    detector = load_detector(model)
    head = _head(detector, end2end)
    if isinstance(data, Mapping):
        resolved = data
    else:
        from det_ls.datasets import check_dataset

        resolved = check_dataset(data, split)
    with tempfile.TemporaryDirectory(prefix="det-ls-") as folder, _quiet():
        # The pipeline takes a YAML. It gets the images only, under the model's own names: it has no use for labels.
        images = Path(folder) / "images.yaml"
        names = detector.names or resolved["names"]
        content = {"path": str(resolved.get("path", ".")), "train": resolved[split], "val": resolved[split]}
        YAML.save(images, {**content, "names": dict(names), "channels": resolved.get("channels", 3)})
        validator = _Recorder(
            save_dir=Path(folder),
            args={
                "task": "detect",
                "mode": "val",
                "data": str(images),
                "split": "val",
                "rect": True,
                "plots": False,
                "verbose": False,
                "imgsz": imgsz,
                "batch": batch,
                "conf": conf,
                "iou": iou,
                "max_det": max_det,
                "device": device,
                "workers": workers,
                **head,
            },
        )
        # The module is fused and moved in place, so it works on a copy.
        validator(model=detector.model if isinstance(detector.model, str) else copy.deepcopy(detector.model))
    args = validator.args
    return Predictions(
        images=tuple(validator.recorded),
        names=_plain_names(validator.names),
        settings={
            "imgsz": args.imgsz,
            "batch": args.batch,
            "conf": args.conf,
            "iou": None if validator.end2end else args.iou,
            "max_det": args.max_det,
            "end2end": bool(validator.end2end),
            "device": str(validator.device),
        },
    )


def check_settings(
    *, imgsz: object, batch: object, conf: object, iou: object, max_det: object, workers: object
) -> None:
    """Check the settings of :func:`predict`: positive integers, and ``conf`` and ``iou`` from 0 to 1.

    Raises:
        TypeError: If one has the wrong type.
        ValueError: If one is out of range.
    """
    for name, value, smallest in (
        ("imgsz", imgsz, 1),
        ("batch", batch, 1),
        ("max_det", max_det, 1),
        ("workers", workers, 0),
    ):
        if isinstance(value, bool) or not isinstance(value, int):
            raise TypeError(f"Expected {name} to be an integer, got {value!r}.")
        if value < smallest:
            raise ValueError(f"Expected {name} to be at least {smallest}, got {value}.")
    for name, number in (("conf", conf), ("iou", iou)):
        if isinstance(number, bool) or not isinstance(number, (int, float)):
            raise TypeError(f"Expected {name} to be a number, got {number!r}.")
        if not 0 <= number <= 1:
            raise ValueError(f"Expected {name} to be from 0 to 1, got {number}.")


class _ImageDataset(YOLODataset):
    """The images of a split without their labels: no label is read, no cache file written, no image repaired."""

    def get_labels(self) -> list[dict[str, Any]]:
        """Return an empty label for each image, with the size that rectangular batches need."""
        return [
            {
                "im_file": path,
                "shape": image_size(path)[::-1],
                "cls": np.zeros((0, 1), np.float32),
                "bboxes": np.zeros((0, 4), np.float32),
                "segments": [],
                "keypoints": None,
                "normalized": True,
                "bbox_format": "xywh",
            }
            for path in self.im_files
        ]

    def load_image(self, i: int, *args: Any, **kwargs: Any) -> Any:
        """Read an image as stock does, with an error that says what is wrong when it cannot be decoded."""
        try:
            return super().load_image(i, *args, **kwargs)
        except FileNotFoundError as error:  # stock's answer to any file that OpenCV cannot decode
            raise ValueError(
                f"Expected '{self.im_files[i]}' to be an image, got one that cannot be decoded."
            ) from error


class _Recorder(DetectionValidator):
    """The stock validator, which keeps the boxes instead of measuring them."""

    stride: Any
    data: Any
    recorded: list[ImagePredictions]

    def build_dataset(self, img_path: Any, mode: str = "val", batch: int | None = None) -> YOLODataset:
        """Build the split's images as stock builds them for validation."""
        del mode
        return _ImageDataset(
            img_path=img_path,
            imgsz=self.args.imgsz,
            batch_size=batch,
            augment=False,
            hyp=self.args,
            rect=self.args.rect,
            stride=int(self.stride),
            pad=0.5,
            task="detect",
            data=self.data,
        )

    def init_metrics(self, model: nn.Module) -> None:
        """Start with no images."""
        super().init_metrics(model)
        self.recorded = []

    def update_metrics(self, preds: list[dict[str, torch.Tensor]], batch: dict[str, Any]) -> None:
        """Keep a batch's boxes in pixels of the original images, by the arithmetic of stock's JSON."""
        for index, prediction in enumerate(preds):
            prepared = self._prepare_batch(index, batch)
            scaled = self.scale_preds(prediction, prepared)
            boxes = ops.xyxy2xywh(scaled["bboxes"])
            boxes[:, :2] -= boxes[:, 2:] / 2
            height, width = prepared["ori_shape"]
            self.recorded.append(
                ImagePredictions(
                    path=prepared["im_file"],
                    shape=(int(height), int(width)),
                    boxes=boxes.float().cpu().numpy().reshape(-1, 4),
                    scores=scaled["conf"].float().cpu().numpy(),
                    classes=scaled["cls"].cpu().numpy().astype(np.int64),
                )
            )

    def get_desc(self) -> str:
        """Return the progress bar's label."""
        return "Predicting"

    def get_stats(self) -> dict[str, Any]:
        """Return nothing: evaluation is pycocotools' part."""
        return {}

    def finalize_metrics(self) -> None:
        """Do nothing."""

    def print_results(self) -> None:
        """Do nothing."""

    def run_callbacks(self, event: str) -> None:
        """Do nothing: loggers and analytics have no part in a measurement."""


def _load_file(path: str) -> Detector:
    """Load a checkpoint, or note the path of an exported model."""
    suffix = Path(path).suffix.lower()
    if suffix in {".yaml", ".yml"}:
        raise ValueError(f"Expected model to be trained weights, got model='{path}', which only describes a network.")
    official = any(name in GITHUB_ASSETS_NAMES for name in (Path(path).name, f"{path}.pt"))
    stored = Path(path).exists() or (Path(str(SETTINGS["weights_dir"])) / path).is_file()
    if not stored and not official and "://" not in path:
        raise FileNotFoundError(f"Expected model to be a file with weights, got model='{path}', which does not exist.")
    if Path(path).exists() and not path.lower().endswith(tuple(s for s in export_formats()["Suffix"] if s)):
        raise ValueError(f"Expected model to be a checkpoint (.pt) or an exported model, got model='{path}'.")
    try:
        with _quiet():
            loaded = YOLO(path)
    except (ConnectionError, FileNotFoundError) as error:
        raise FileNotFoundError(f"The model model='{path}' could not be downloaded.") from error
    except (
        AttributeError,
        EOFError,
        ImportError,
        KeyError,
        OSError,
        RuntimeError,
        TypeError,
        ValueError,
        pickle.UnpicklingError,
    ) as error:
        raise ValueError(
            f"Expected model to be a readable Ultralytics checkpoint, got model='{path}', which cannot be loaded "
            f"({type(error).__name__})."
        ) from error
    if isinstance(loaded.model, str):
        return _exported(loaded.model, loaded.task)
    return _in_memory(loaded.model, path, _file_hash(Path(str(loaded.ckpt_path))), "file")


def _in_memory(module: Any, weights: str, sha256: str, sha256_of: str) -> Detector:
    """Describe a module after checking that stock's detection validator is the right one for it."""
    head: Any = None
    if isinstance(module, DetectionModel):
        layers: Any = module.model
        head = layers[-1]
    if not isinstance(head, Detect) or isinstance(head, _OTHER_HEADS):
        what = type(module).__name__ if head is None else f"{type(module).__name__} with a {type(head).__name__} head"
        raise ValueError(f"Expected model to be a YOLO detection model, got {what}.")
    names = _plain_names(getattr(module, "names", None) or {})
    if len(names) != head.nc:
        raise ValueError(f"Expected model to name its {head.nc} classes, got {len(names)} names.")
    has_one_to_one = getattr(head, "one2one_cv2", None) is not None
    return Detector(module, names, has_one_to_one, weights, sha256, sha256_of)


def _exported(path: str, task: str | None) -> Detector:
    """Describe an exported model, which Ultralytics loads when it runs."""
    if task not in {None, "detect"}:
        raise ValueError(f"Expected model to be a YOLO detection model, got model='{path}' for task '{task}'.")
    file = Path(path)
    return Detector(path, None, None, path, _file_hash(file) if file.is_file() else None, "file")


def _head(detector: Detector, end2end: bool | None) -> dict[str, Any]:
    """Translate the choice of head into this version's argument."""
    if end2end is not None and not isinstance(end2end, bool):
        raise TypeError(f"Expected end2end to be True, False or None, got {end2end!r}.")
    if not detector.end2end:
        if end2end:
            raise ValueError("Expected end2end=True only for a model with an NMS-free head, got one without.")
        return {}
    use = end2end is not False
    module: Any = detector.model
    if not use and module.model[-1].cv2 is None:  # removed when a model is fused for inference
        raise ValueError("Expected end2end=False only for a model with its one-to-many head, got one without.")
    if "end2end" in DEFAULT_CFG_DICT:
        return {"end2end": use}
    return {"nms": False if use else None}


@lru_cache(maxsize=1)
def _check_validator() -> None:
    """Raise unless this version's validator has the methods that are overridden or called here."""
    expected = {
        "build_dataset": ["self", "img_path", "mode", "batch"],
        "init_metrics": ["self", "model"],
        "update_metrics": ["self", "preds", "batch"],
        "_prepare_batch": ["self", "si", "batch"],
        "scale_preds": ["self", "predn", "pbatch"],
    }
    for name, parameters in expected.items():
        method = getattr(DetectionValidator, name, None)
        if method is None or list(inspect.signature(method).parameters) != parameters:
            raise RuntimeError(
                f"Ultralytics {ultralytics.__version__} is not supported: DetectionValidator.{name}"
                f"({', '.join(parameters)}) is missing."
            )


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Drop Ultralytics' log lines below warnings. Raising the log level instead would hide progress bars too."""

    def is_warning(record: logging.LogRecord) -> bool:
        return record.levelno >= logging.WARNING

    LOGGER.addFilter(is_warning)
    try:
        yield
    finally:
        LOGGER.removeFilter(is_warning)


def _plain_names(names: Any) -> dict[int, str]:
    """Return class names by index from a mapping or a list."""
    return {int(i): str(name) for i, name in (names.items() if isinstance(names, Mapping) else enumerate(names))}


def _file_hash(path: Path) -> str:
    """Return the SHA-256 of a file."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def _state_hash(module: nn.Module) -> str:
    """Return a SHA-256 of a module's parameters and buffers, with their names, types and shapes."""
    digest = hashlib.sha256()
    for name, tensor in sorted(module.state_dict().items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
