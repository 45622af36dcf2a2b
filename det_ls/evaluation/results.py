# SPDX-License-Identifier: AGPL-3.0-or-later
"""The result of an evaluation, and its files."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from det_ls.base.arguments import check_flag
from det_ls.base.files import write_json
from det_ls.base.folders import check_free, claim_folder, one_sentence
from det_ls.base.types import ImageId, Json
from det_ls.evaluation import present
from det_ls.evaluation.measure import DetectionMetrics
from det_ls.metrics.catalogue import COCO_STATS, HEADLINE

_DETAILS = ("per_class", "intervals", "floors", "definitions", "left_out", "counts", "reliability")
METRICS_FILE, PREDICTIONS_FILE, GROUND_TRUTH_FILE = "metrics.json", "predictions.json", "ground_truth.json"
RESULT_FILES = (METRICS_FILE, PREDICTIONS_FILE, GROUND_TRUTH_FILE)


@dataclass(frozen=True, repr=False)
class Evaluation:
    """The result of an evaluation.

    Attributes:
        metrics: Every number, with intervals, floors and definitions (``DetectionMetrics``).
        protocol: How the predictions and numbers came about: settings, data, the weights' hash, versions.
        ground_truth: The COCO instances that were used.
        detections: The COCO results that were used.
        images: Image file by image id, where the images are known.
        train: The same evaluation on (a sample of) the train split, when asked for.
    """

    metrics: DetectionMetrics
    protocol: dict[str, Any]
    ground_truth: Json = field(repr=False, compare=False)
    detections: list[Json] = field(repr=False, compare=False)
    images: dict[ImageId, str] = field(repr=False, compare=False, default_factory=dict)
    train: Evaluation | None = None

    @property
    def stats(self) -> dict[str, float | None]:
        """The 12 COCO stats by name, in [0, 1]; undefined ones are None, or -1 with the protocol ``reference``."""
        return {name: self.metrics.values[name] for name in COCO_STATS}

    @property
    def ap_per_class(self) -> dict[str, float | None]:
        """AP at IoU 0.50:0.95 by class name; None for a class without ground truth."""
        return {entry["name"]: entry["AP"] for entry in self.metrics.per_class}

    @property
    def n_images(self) -> int:
        """Images of the ground truth."""
        return len(self.ground_truth["images"])

    @property
    def n_gt(self) -> int:
        """Objects of the ground truth, crowd regions left out."""
        return sum(not a["iscrowd"] for a in self.ground_truth["annotations"])

    @property
    def n_crowd(self) -> int:
        """Crowd regions of the ground truth."""
        return sum(bool(a["iscrowd"]) for a in self.ground_truth["annotations"])

    @property
    def n_detections(self) -> int:
        """Detections, before COCO's limit of 100 an image and class."""
        return len(self.detections)

    @property
    def undefined(self) -> dict[str, str]:
        """The reason for each number that is undefined, by its name."""
        classes = {f"ap_per_class.{name}": "no ground truth" for name, ap in self.ap_per_class.items() if ap is None}
        return {**self.metrics.reasons, **classes}

    @property
    def gap(self) -> dict[str, float]:
        """Train minus val of each number that both splits define: how much better the model is on what it learnt."""
        if self.train is None:
            return {}
        return self.metrics.gap_to(self.train.metrics)

    def to_dict(self) -> dict[str, Any]:
        """Return everything but the boxes as one dictionary that JSON can hold.

        Every number stands under its own name, :data:`det_ls.metrics.catalogue.HEADLINE` first; ``protocol`` holds
        the settings, ``definitions`` how each number was counted, ``undefined`` why one is None.
        """
        numbers = self.metrics.to_dict()
        values = {key: numbers["values"][key] for key in (*HEADLINE, *numbers["values"])}
        result = {
            **values,
            **{key: getattr(self, key) for key in ("n_images", "n_gt", "n_crowd", "n_detections")},
            "ap_per_class": self.ap_per_class,
            "undefined": self.undefined,
            **{key: numbers[key] for key in _DETAILS},
            "kept": numbers["kept"],
            "protocol": dict(self.protocol),
        }
        if self.train is not None:
            train = self.train.to_dict()
            result["train"] = {key: train[key] for key in (*values, "n_images", "n_gt", "intervals", "floors")}
            result["train_minus_val"] = self.gap
        return result

    def summary(self) -> str:
        """Write the headline numbers, one a line, with interval and floor where there are any."""
        return present.summary(self)

    def to_dataframe(self, table: str = "numbers", library: str | None = None) -> Any:
        """Return the numbers as a data frame.

        Args:
            table: ``numbers``, one row a number, or ``classes``, one row a class.
            library: ``pandas`` or ``polars``; None takes the first that is installed.

        Returns:
            A data frame of that library.
        """
        return present.to_dataframe(self, table, library)

    def __repr__(self) -> str:
        """Write the evaluation in about ten lines."""
        return present.brief(self)

    def _repr_html_(self) -> str:
        """Show the evaluation in a notebook."""
        return present.as_html(self)

    def save(self, folder: str | Path, exist_ok: bool = False) -> None:
        """Write ``predictions.json`` (COCO results) and ``metrics.json``, all or none of them.

        Ground truth that was built from YOLO labels goes into ``ground_truth.json`` (COCO instances) beside them: it
        says which image an id means, and lets :func:`evaluate_detections` repeat the evaluation.

        Args:
            folder: Where to write; made if need be.
            exist_ok: Whether to replace files that are there.

        Raises:
            FileExistsError: If a file is there and ``exist_ok`` is False, or the folder is a file.
            OSError: If the folder cannot be written to.
            TypeError: If ``exist_ok`` is neither True nor False.
        """
        with claim_folder(folder, results=RESULT_FILES, exist_ok=exist_ok) as place:
            write_json(place / PREDICTIONS_FILE, self.detections)
            if self.protocol.get("ground_truth") == "labels":
                write_json(place / GROUND_TRUTH_FILE, self.ground_truth)
            write_json(place / METRICS_FILE, self.to_dict(), indent=2)


def check_save_dir(folder: str | Path, exist_ok: bool, files: Iterable[str] = RESULT_FILES) -> None:
    """Raise unless results can be written to a folder.

    Args:
        folder: The folder, which need not exist.
        exist_ok: Whether results that are there may be replaced.
        files: What will be written, relative to the folder; by default what :meth:`Evaluation.save` writes.

    Raises:
        FileExistsError: If they may not and there are any, or the folder is a file.
        TypeError: If ``exist_ok`` is neither True nor False.
    """
    check_flag("exist_ok", exist_ok)
    with one_sentence("save_dir", folder):
        check_free(folder, tuple(files), exist_ok)
