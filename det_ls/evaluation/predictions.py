# SPDX-License-Identifier: AGPL-3.0-or-later
"""Predictions of a detector on a dataset split, by the stock Ultralytics validation pipeline.

This is the only module that touches Ultralytics' validator of boxes. A model for segmentation or poses runs through it
as its own validator would, and what is not a box (masks, keypoints) is dropped; oriented boxes keep their angle.

Letterboxing, rectangular batches, multi-label NMS and the
scaling of boxes back to the original image are stock; only the metrics are replaced by keeping the boxes. Rounded as
stock rounds them (boxes to 3 decimals, scores to 5), they are those of ``yolo val save_json=True``.
"""

from __future__ import annotations

import copy
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from ultralytics.data import YOLODataset
from ultralytics.models.yolo.detect import DetectionValidator
from ultralytics.models.yolo.obb import OBBValidator
from ultralytics.utils import DEFAULT_CFG_DICT, YAML, ops

from det_ls.base.errors import ArgumentError, ArgumentTypeError, RunError
from det_ls.data.ground_truth import image_size
from det_ls.data.oriented import enclosing
from det_ls.evaluation.detector import Detector, load_detector, plain_names
from det_ls.evaluation.settings import PredictionSettings
from det_ls.stock.expect import Method, expect
from det_ls.stock.logs import quiet
from det_ls.stock.patches import unhurried_nms
from det_ls.stock.validators import WithoutMetrics

# The methods of the validator that are overridden or called here.
ASSUMPTIONS = (
    Method(DetectionValidator, "build_dataset", ("img_path", "mode", "batch"), only=True),
    Method(DetectionValidator, "init_metrics", ("model",), only=True),
    Method(DetectionValidator, "postprocess", ("preds",), only=True),
    Method(DetectionValidator, "update_metrics", ("preds", "batch"), only=True),
    Method(DetectionValidator, "_prepare_batch", ("si", "batch"), only=True),
    Method(DetectionValidator, "scale_preds", ("predn", "pbatch"), only=True),
    Method(OBBValidator, "scale_preds", ("predn", "pbatch"), only=True),
)


@dataclass(frozen=True)
class ImagePredictions:
    """The detections in one image, in the order in which the pipeline returned them.

    Attributes:
        path: The image file.
        shape: Height and width of the decoded image, in pixels.
        boxes: (n, 4) float32 boxes ``[left, top, width, height]`` in pixels of the original image.
        scores: (n,) float32 scores in [0, 1].
        classes: (n,) class indices of the model.
        logits: (n,) what the scores are the sigmoid of, as the model computed it; None unless asked for, and for an
            exported model, which does not give it.
        oriented: (n, 5) float32 oriented boxes ``[x_center, y_center, width, height, angle]``, in pixels and radians,
            of which ``boxes`` are the upright ones around them; None unless the model's task is ``obb``.
    """

    path: str
    shape: tuple[int, int]
    boxes: NDArray[np.float32]
    scores: NDArray[np.float32]
    classes: NDArray[np.int64]
    logits: NDArray[np.float64] | None = None
    oriented: NDArray[np.float32] | None = None


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
    single_cls: bool = False,
    logits: bool = False,
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
        single_cls: Whether NMS shall take all boxes for one class, as in ``yolo val single_cls=True``.
        logits: Whether to look up the logit of each detection: a sigmoid in single precision forgets it, the more
            so the closer the score is to 1. Boxes and scores are the same either way.

    Returns:
        The predictions.

    Raises:
        FileNotFoundError: If the model or the dataset does not exist.
        TypeError: If an argument has the wrong type.
        ValueError: If an argument is out of range, or the model or the dataset is not valid.
    """
    expect("validator", *ASSUMPTIONS)
    PredictionSettings(imgsz, batch, conf, iou, max_det, device, workers, end2end, single_cls)  # checks them
    detector = load_detector(model)
    if detector.task == "classify":
        raise ArgumentError(f"model: expected a model that predicts boxes, got a classifier, '{detector.weights}'.")
    head = _head(detector, end2end)
    if isinstance(data, Mapping):
        resolved = data
    else:
        from det_ls.data.locate import check_dataset

        resolved = check_dataset(data, split)
    with tempfile.TemporaryDirectory(prefix="det-ls-") as folder, quiet():
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
                "single_cls": single_cls,
                **head,
            },
        )
        validator.keep_logits = logits
        validator.args.task = detector.task  # it decides what NMS takes for a class, and whether boxes are oriented
        # The module is fused and moved in place, so it works on a copy.
        module: Any = detector.model if isinstance(detector.model, str) else copy.deepcopy(detector.model)
        if not isinstance(module, str) and not detector.end2end:  # the head is chosen before its model is fused
            module = module.fuse(verbose=False)  # stock would count the operations of an image of 640 pixels first
        with unhurried_nms():
            validator(model=module)
    args = validator.args
    return Predictions(
        images=tuple(validator.recorded),
        names=plain_names(validator.names),
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
            raise ArgumentError(
                f"images: expected an image, got '{self.im_files[i]}', which cannot be decoded."
            ) from error


class _Recorder(WithoutMetrics, DetectionValidator):
    """The stock validator, which keeps the boxes instead of measuring them."""

    stride: Any
    data: Any
    recorded: list[ImagePredictions]
    keep_logits: bool = False

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

    def postprocess(self, preds: Any) -> list[dict[str, torch.Tensor]]:
        """Filter the boxes as stock does, and look up the logits of those that stay if they are wanted."""
        # Stock's validator of masks does the same: the boxes come before the prototypes of the masks.
        boxes = preds[0] if self.args.task == "segment" else preds
        kept: list[dict[str, torch.Tensor]] = super().postprocess(boxes)
        raw = _raw_logits(preds, bool(self.end2end)) if self.keep_logits else None
        if raw is not None:
            for image, prediction in zip(raw, kept, strict=True):
                prediction["logits"] = _look_up(image, prediction["cls"], prediction["conf"])
        return kept

    def update_metrics(self, preds: list[dict[str, torch.Tensor]], batch: dict[str, Any]) -> None:
        """Keep a batch's boxes in pixels of the original images, by the arithmetic of stock's JSON."""
        for index, prediction in enumerate(preds):
            prepared = self._prepare_batch(index, batch)
            oriented = None
            if self.args.task == "obb":
                oriented = self._oriented(prediction, prepared).float().cpu().numpy().reshape(-1, 5)
                oriented[:, 2:4] = oriented[:, 2:4].clip(0)
                boxes = enclosing(oriented.astype(np.float64)).astype(np.float32)
            else:
                corners = ops.xyxy2xywh(self.scale_preds(prediction, prepared)["bboxes"])
                corners[:, :2] -= corners[:, 2:] / 2
                boxes = corners.float().cpu().numpy().reshape(-1, 4)
                boxes[:, 2:] = boxes[:, 2:].clip(0)  # heads without DFL, as YOLO26's, can turn a box inside out
            height, width = prepared["ori_shape"]
            self.recorded.append(
                ImagePredictions(
                    path=prepared["im_file"],
                    shape=(int(height), int(width)),
                    boxes=boxes,
                    scores=prediction["conf"].float().cpu().numpy(),
                    classes=prediction["cls"].cpu().numpy().astype(np.int64),
                    logits=prediction["logits"].cpu().numpy() if "logits" in prediction else None,
                    oriented=oriented,
                )
            )

    def _oriented(self, prediction: dict[str, torch.Tensor], prepared: dict[str, Any]) -> torch.Tensor:
        """Scale oriented boxes to the original image as stock does."""
        boxes = torch.cat([prediction["bboxes"], prediction["extra"]], dim=-1)
        scaled = OBBValidator.scale_preds(cast(Any, self), {"bboxes": boxes}, prepared)
        return scaled["bboxes"]

    def get_desc(self) -> str:
        """Return the progress bar's label."""
        return "Predicting"


def _raw_logits(preds: Any, end2end: bool) -> torch.Tensor | None:
    """Return the head's class logits (images, classes, anchors) that stock hands on beside its outputs, if it does."""
    raw = preds[1] if isinstance(preds, (list, tuple)) and len(preds) == 2 else None
    if isinstance(raw, Mapping) and "one2one" in raw:
        raw = raw["one2one" if end2end else "one2many"]
    scores = raw.get("scores") if isinstance(raw, Mapping) else None
    return scores if isinstance(scores, torch.Tensor) and scores.ndim == 3 else None


def _look_up(raw: torch.Tensor, cls: torch.Tensor, score: torch.Tensor) -> torch.Tensor:
    """Find the logits (n,) of kept detections among all of an image (classes, anchors) by class and score.

    Anchors of a class with the same score in single precision are told apart by nothing, and differ by less than it
    resolves.
    """
    if not len(score):
        return score.double()
    logits = raw[cls.long()]
    distance = (logits.sigmoid().to(score.dtype) - score[:, None]).abs()
    found = distance.argmin(1, keepdim=True)
    if float(distance.gather(1, found).max()) > 1e-3:
        raise RunError("logits: expected the score of each detection among the head's sigmoids, got others.")
    return logits.gather(1, found)[:, 0].double()


def _head(detector: Detector, end2end: bool | None) -> dict[str, Any]:
    """Translate the choice of head into this version's argument."""
    if end2end is not None and not isinstance(end2end, bool):
        raise ArgumentTypeError(f"end2end: expected True, False or None, got {end2end!r}.")
    if not detector.end2end:
        if end2end:
            raise ArgumentError("end2end: expected a model with an NMS-free head for True, got one without.")
        return {}
    use = end2end is not False
    module: Any = detector.model
    if not use and module.model[-1].cv2 is None:  # removed when a model is fused for inference
        raise ArgumentError("end2end: expected a model with its one-to-many head for False, got one without.")
    if "end2end" in DEFAULT_CFG_DICT:
        return {"end2end": use}
    return {"nms": False if use else None}
