# SPDX-License-Identifier: AGPL-3.0-or-later
"""The confusion matrix is Ultralytics' where it matches alike, and agrees with the table where it does not."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from boxed_sets import SETS, prepared
from ultralytics.utils.metrics import ConfusionMatrix

from det_ls.metrics.boxes import table_boxes
from det_ls.metrics.confusion import confusion
from det_ls.metrics.matching import build_table

CLASSES = [{"id": 1, "name": "cat"}, {"id": 2, "name": "dog"}]


def corners(xywh: np.ndarray) -> torch.Tensor:
    return torch.tensor(np.concatenate([xywh[:, :2], xywh[:, :2] + xywh[:, 2:]], 1))


@pytest.mark.parametrize("name", SETS)
@pytest.mark.parametrize("threshold", [0.05, 0.5])
def test_by_score_it_is_ultralytics(name: str, threshold: float) -> None:
    table, boxes = prepared(name)
    theirs = ConfusionMatrix(names=dict(enumerate(table.class_names)))
    counted = table.matches(0.5).kept
    for image in range(table.n_images):
        d, g = (table.image == image) & counted, (table.gt_image == image) & ~table.gt_crowd
        theirs.process_batch(
            {
                "cls": torch.tensor(table.cls[d]),
                "conf": torch.tensor(table.score[d]),
                "bboxes": corners(boxes.detections[d]),
            },
            {"cls": torch.tensor(table.gt_cls[g]), "bboxes": corners(boxes.objects[g])},
            conf=threshold,
            iou_thres=0.5,
        )
    ours = confusion(table, boxes, threshold, own_class_first=False)
    np.testing.assert_array_equal(ours.counts, theirs.matrix)


@pytest.mark.parametrize("name", SETS)
def test_own_class_first_agrees_with_the_table(name: str) -> None:
    table, boxes = prepared(name)
    thresholds = np.random.default_rng(0).uniform(0.1, 0.6, table.n_classes)
    thresholds[1] = np.nan
    counts = confusion(table, boxes, thresholds).counts
    keep = table.score >= np.nan_to_num(thresholds, nan=2.0)[table.cls]
    matches = table.matches(0.5)
    right = np.bincount(table.cls[keep & matches.tp], minlength=table.n_classes)
    np.testing.assert_array_equal(np.diag(counts)[:-1], right)
    np.testing.assert_array_equal(counts[:, :-1].sum(0), table.n_gt)
    kept = np.bincount(table.cls[keep & matches.kept], minlength=table.n_classes)
    np.testing.assert_array_equal(counts[:-1].sum(1), kept)
    assert counts[1].sum() == 0


def test_a_wrong_class_takes_an_object_only_by_score() -> None:
    gt = {
        "images": [{"id": 1}],
        "categories": CLASSES,
        "annotations": [{"id": 1, "image_id": 1, "category_id": 1, "bbox": [0, 0, 10, 10]}],
    }
    found = [
        {"image_id": 1, "category_id": c, "bbox": [0, 0, 10, 10], "score": score} for c, score in ((2, 0.9), (1, 0.8))
    ]
    table = build_table(gt, found)
    boxes = table_boxes(table, found, gt)
    assert confusion(table, boxes).counts.tolist() == [[1, 0, 0], [0, 0, 1], [0, 0, 0]]
    assert confusion(table, boxes, own_class_first=False).counts.tolist() == [[0, 0, 1], [1, 0, 0], [0, 0, 0]]
    assert confusion(table, boxes, 0.85).counts.tolist() == [[0, 0, 0], [1, 0, 0], [0, 0, 0]]
    assert confusion(table, boxes, 0.85).most_confused(5).tolist() == [0, 1]
    with pytest.raises(ValueError, match="thresholds: expected one number or 2, got shape"):
        confusion(table, boxes, np.array([0.5, 0.5, 0.5]))


def test_without_boxes_the_matrix_is_empty() -> None:
    table = build_table({"images": [{"id": 1}], "categories": CLASSES, "annotations": []}, [])
    made = confusion(table, table_boxes(table, [], {"annotations": []}))
    assert made.counts.sum() == 0
    assert np.isnan(made.shares).all()
    assert len(made.most_confused(3)) == 0
