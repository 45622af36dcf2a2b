# SPDX-License-Identifier: AGPL-3.0-or-later
"""Errors are TIDE's: each type in a scene made for it, then counts and costs against the package tidecv."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from boxed_sets import SETS, prepared
from hard_set import GOLDEN

from det_ls.metrics.boxes import TableBoxes, table_boxes
from det_ls.metrics.errors import ERROR_TYPES, classify_errors, error_breakdown
from det_ls.metrics.matching import build_table
from det_ls.metrics.table import DetectionTable

CLASSES = [{"id": 1, "name": "cat"}, {"id": 2, "name": "dog"}, {"id": 3, "name": "no objects"}]
TIDE_NAMES = dict(zip(("Cls", "Loc", "Both", "Dupe", "Bkg", "Miss"), ERROR_TYPES, strict=True))


def tide(table: DetectionTable, boxes: TableBoxes, threshold: float) -> dict[str, Any]:
    """What tidecv 1.0 finds for the detections of a table that no crowd excuses, as fractions."""
    from tidecv import TIDE, Data

    truth, found = Data("gt", max_dets=10**9), Data("detections")
    for image in range(table.n_images):
        truth.add_image(image, str(image))
    for c in range(table.n_classes):
        truth.add_class(c, str(c))
    for g in range(len(table.gt_ids)):
        add = truth.add_ignore_region if table.gt_crowd[g] else truth.add_ground_truth
        add(int(table.gt_image[g]), int(table.gt_cls[g]), boxes.objects[g].tolist())
    keep = (table.score >= threshold) & table.matches(0.5).kept
    for r in np.flatnonzero(keep):
        found.add_detection(int(table.image[r]), int(table.cls[r]), float(table.score[r]), boxes.detections[r].tolist())
    run = TIDE().evaluate(truth, found, mode=TIDE.BOX)

    def mean(data: Any) -> float:
        """tidecv's mean without the classes that never had objects."""
        parts = [o for c, o in data.objs.items() if table.has_gt[c] and not o.is_empty()]
        return float(sum(o.get_ap() for o in parts) / len(parts) / 100)

    ap = mean(run.ap_data)
    costs = {
        TIDE_NAMES[kind.short_name]: max(mean(run.fix_errors(lambda e, kind=kind: isinstance(e, kind))) - ap, 0)
        for kind in TIDE._error_types
    }
    positive, _ = TIDE._special_error_types
    return {
        "ap50": ap,
        "counts": {TIDE_NAMES[kind.short_name]: n for kind, n in run.count_errors().items()},
        "cost": costs,
        "false_positive_cost": mean(run.fix_errors(transform=positive.fix)) - ap,
        "false_negative_cost": mean(run.fix_errors(false_neg_dict=run.false_negatives)) - ap,
    }


@pytest.fixture
def _recalls_of_tidecv(monkeypatch: pytest.MonkeyPatch) -> None:
    """tidecv reads curves at k / 100; COCO's linspace differs in the last bit, which moves a few of 101 precisions."""
    monkeypatch.setattr("det_ls.metrics.curves_pr.RECALLS", np.array([k / 100 for k in range(101)]))


def assert_same(table: DetectionTable, boxes: TableBoxes, threshold: float, theirs: dict[str, Any]) -> None:
    ours = error_breakdown(table, classify_errors(table, boxes, threshold))
    assert ours.counts == theirs["counts"]
    tolerance = 1e-9
    assert ours.ap50 == pytest.approx(theirs["ap50"], abs=tolerance)
    assert dict(ours.cost) == pytest.approx(theirs["cost"], abs=tolerance)
    assert ours.false_positive_cost == pytest.approx(theirs["false_positive_cost"], abs=tolerance)
    assert ours.false_negative_cost == pytest.approx(theirs["false_negative_cost"], abs=tolerance)


@pytest.mark.parametrize("name", SETS)
@pytest.mark.parametrize("threshold", [0.0, 0.3, 0.7])
@pytest.mark.usefixtures("_recalls_of_tidecv", "tidecv")
def test_counts_and_costs_equal_tidecv(name: str, threshold: float) -> None:
    table, boxes = prepared(name)
    assert_same(table, boxes, threshold, tide(table, boxes, threshold))


@pytest.mark.parametrize("name", SETS[:2])
@pytest.mark.usefixtures("_recalls_of_tidecv")
def test_counts_and_costs_equal_what_tidecv_gave(name: str) -> None:
    recorded = json.loads((GOLDEN / "tide.json").read_text())[name]
    table, boxes = prepared(name)
    for threshold, theirs in recorded.items():
        assert_same(table, boxes, float(threshold), theirs)


def thing(i: int, cls: int, x: float, crowd: int = 0, image: int = 1) -> dict[str, Any]:
    return {"id": i, "image_id": image, "category_id": cls, "bbox": [x, 0, 10, 10], "iscrowd": crowd}


def found(cls: int, x: float, score: float, image: int = 1) -> dict[str, Any]:
    return {"image_id": image, "category_id": cls, "bbox": [x, 0, 10, 10], "score": score}


GT = {
    "images": [{"id": 1}, {"id": 2}],
    "categories": CLASSES,
    "annotations": [
        thing(11, 1, 0),
        thing(12, 1, 100),
        thing(13, 2, 200),
        thing(14, 1, 300),
        thing(15, 1, 400),
        thing(16, 2, 500, 1),
        thing(17, 2, 0, image=2),
    ],
}
# Class, left edge, score, what it is, the object it is about.
SCENE = (
    (1, 0, 0.95, None, 11),
    (1, 1, 0.9, "duplicate", 11),
    (1, 106, 0.85, "localisation", 12),
    (1, 107, 0.8, "localisation", 12),  # finds the same object as the one above: putting it right finds nothing new
    (1, 200, 0.75, "classification", 13),
    (2, 306, 0.7, "both", 14),
    (2, 309.5, 0.65, "background", 14),
    (2, 600, 0.6, "background", -1),
    (2, 500, 0.55, None, -1),  # in a crowd
    (3, 601, 0.5, "background", -1),
    (1, 401, 0.1, None, 15),
)


def test_each_error_is_told_from_the_others() -> None:
    detections = [found(cls, x, score) for cls, x, score, _, _ in SCENE]
    table = build_table(GT, detections)
    boxes = table_boxes(table, detections, GT)
    errors = classify_errors(table, boxes)
    for row, (_, _, _, kind, object_id) in enumerate(SCENE):
        assert errors.kind[row] == (-1 if kind is None else ERROR_TYPES.index(kind)), SCENE[row]
        about = -1 if errors.about[row] < 0 else table.gt_ids[errors.about[row]]
        assert about == object_id, SCENE[row]
    assert np.flatnonzero(errors.fixes).tolist() == [2, 4]
    assert table.gt_ids[errors.found].tolist() == [11, 15]
    assert table.gt_ids[errors.missed].tolist() == [14, 17]
    at = dict(zip(table.gt_ids.tolist(), errors.nearest.tolist(), strict=True))
    assert (at[12], at[14], at[17]) == (2, 5, -1)
    above = classify_errors(table, boxes, 0.3)
    assert above.counts == {**errors.counts, "missed": 3}
    assert above.kind[-1] == -1
    assert above.n_false_positives == errors.n_false_positives == 8
    only_dogs = classify_errors(table, boxes, np.array([np.nan, 0.0, np.nan]))
    assert only_dogs.counts == dict(zip(ERROR_TYPES, (0, 0, 1, 0, 2, 6), strict=True))


def test_boxes_of_other_detections_are_refused() -> None:
    detections = [found(1, 0, 0.9)]
    table = build_table(GT, detections)
    boxes = table_boxes(table, detections, GT)
    with pytest.raises(ValueError, match="detections: expected the 1 that were evaluated, got 2"):
        table_boxes(table, detections * 2, GT)
    with pytest.raises(ValueError, match="none with id 12"):
        table_boxes(table, detections, {"annotations": GT["annotations"][:1]})
    with pytest.raises(ValueError, match=r"boxes.objects: expected shape \(7, 4\), got \(1, 4\)"):
        classify_errors(table, TableBoxes(boxes.detections, boxes.objects[:1]))


def test_without_objects_or_detections_nothing_fails() -> None:
    empty = {**GT, "annotations": []}
    for gt, detections in ((GT, []), (empty, [found(1, 0, 0.9)]), (empty, [])):
        table = build_table(gt, detections)
        made = error_breakdown(table, classify_errors(table, table_boxes(table, detections, gt)))
        assert made.counts == {**dict.fromkeys(ERROR_TYPES, 0), "background": len(detections)} | {
            "missed": 6 if gt is GT else 0
        }
        assert np.isnan(made.ap50) if gt is empty else made.ap50 == 0
        assert all(c == 0 for c in made.cost.values())
