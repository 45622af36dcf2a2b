# SPDX-License-Identifier: AGPL-3.0-or-later
"""What a number of an evaluation is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import Literal, Protocol

from det_ls.metrics.protocols import TP_IOU
from det_ls.metrics.protocols import Protocol as Rules
from det_ls.metrics.table import Bools, DetectionTable
from det_ls.metrics.weighted import Estimates, Progress, Weights

Better = Literal["higher", "lower", "zero", "neither"]
Counts = Literal["objects", "detections", "images"]
Population = Literal["all", "kept"]


class Undefined(str, Enum):
    """Why a number is undefined."""

    NO_GROUND_TRUTH = "no ground truth"
    NO_SMALL_OBJECTS = "no small objects"
    NO_MEDIUM_OBJECTS = "no medium objects"
    NO_LARGE_OBJECTS = "no large objects"
    NO_DETECTIONS = "no detections"
    NONE_COUNTS = "every detection is ignored or of a class without ground truth"
    NO_FALSE_POSITIVE = "no false positive"
    NO_TRUE_POSITIVE = "no true positive"
    NO_THRESHOLD = "no class has an LRP-optimal threshold"
    ALL_ZERO = "every class's error is exactly 0, and this protocol leaves those out"

    def __str__(self) -> str:
        """The words themselves."""
        return str(self.value)


class Unjudged(str, Enum):
    """Why a difference of a number does not say which detector is better."""

    BINNED = "binned"  # noise only adds to it, the more so the less certain the scores
    SPREAD = "spread"  # it grows with the spread of the scores and IoUs as well as with their errors
    ALL_BOXES = "all boxes"  # boxes that no user sees decide it: junk with tiny scores makes it look better
    PART = "part"  # it is a part of another number
    NEITHER = "neither"  # neither direction is better


class Family(Protocol):
    """Estimates some numbers for R vectors of image weights; their values are the estimates at weight 1."""

    def __call__(
        self, table: DetectionTable, weights: Weights, protocol: Rules, *, progress: Progress = iter
    ) -> Estimates:
        """Estimate.

        Args:
            table: Matched detections.
            weights: (I, R) how often each image counts.
            protocol: What is counted.
            progress: Wraps the replicates' numbers, where they are computed one by one.

        Returns:
            The numbers, by key.
        """
        ...


@dataclass(frozen=True)
class Number:
    """One number: everything that is known of it before anything is measured.

    Attributes:
        key: Its name in files and tables.
        name: What to call it.
        what: What it measures, in a sentence; empty where the name says it.
        better: Which direction is better.
        family: Estimates it; None for what pycocotools alone reports.
        iou: Smallest IoU of a true positive, or COCO's range.
        counts: What its n counts.
        bins: How it bins scores; None for a number without bins.
        score_threshold: Smallest score that counts, or how it is chosen.
        max_detections: Detections an image and class, where COCO's limit is not the table's.
        area: COCO's area range.
        signed: Whether it can be negative.
        most: The largest value it can have.
        headline: Whether an evaluation leads with it.
        biased: Whether sampling noise only adds to it, as to every binned error: its interval then says how much the
            estimate varies, not where the detector's true error lies.
        optimistic: Whether few images flatter it, as its bootstrap replicates show: intervals take that off.
        floor: Whether it is shown beside what a perfectly calibrated detector would read.
        unjudged: Why a difference between two detectors does not say which is better; None where it does.
        size_of: The signed number whose size this is: its interval is that number's without signs.
        population: Whether it counts all boxes, or those that a user keeps.
        needs: What an undefined value lacks, where it is neither objects nor detections.
        rows: (N,) detections that count; by default those that are not ignored.
    """

    key: str
    name: str
    what: str
    better: Better
    family: Family | None
    iou: float | Literal["0.50:0.95"] = TP_IOU
    counts: Counts = "detections"
    bins: str | None = None
    score_threshold: float | str = 0.0
    max_detections: int | None = None
    area: str = "all"
    signed: bool = False
    most: float = 1.0
    headline: bool = False
    biased: bool = False
    optimistic: bool = False
    floor: bool = False
    unjudged: Unjudged | None = None
    size_of: str | None = None
    population: Population = "all"
    needs: Undefined = Undefined.ALL_ZERO
    rows: Callable[[DetectionTable, Rules], Bools] | None = None

    @property
    def verdict(self) -> bool:
        """Whether a difference between two detectors says which is better."""
        return self.unjudged is None

    def improves(self, difference: float) -> bool | None:
        """Say whether a difference is one for the better.

        Args:
            difference: New value minus old value, not 0.

        Returns:
            True or False; None where neither direction is better.

        Example:
            >>> Number("AP", "Average precision", "", "higher", None).improves(-0.1)
            False
        """
        if self.better not in ("higher", "lower"):
            return None
        return (difference > 0) == (self.better == "higher")
