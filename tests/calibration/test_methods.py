# SPDX-License-Identifier: AGPL-3.0-or-later
"""What a map is fitted on: every row's target and weight by plain arithmetic, and the fit to them by scikit-learn."""

from __future__ import annotations

import numpy as np
import pytest
from simulated_maps import Simulated, simulate
from test_fit import sklearn_fit

from det_ls.calibration.maps import logit, sigmoid
from det_ls.calibration.methods import FOLDING, TARGETS, WEIGHTINGS, Recipe, Sample, fit, sample_of
from det_ls.metrics.matching import build_table
from det_ls.metrics.table import DetectionTable

SIDE = 10.0  # of all objects, in pixels


def shift(iou: float) -> float:
    """How far aside a box of an object's size lies that meets it with an IoU of (SIDE - x) / (SIDE + x)."""
    return SIDE * (1 - iou) / (1 + iou)


def coco_of(data: Simulated) -> tuple[dict, list[dict]]:
    """COCO files with a simulation's boxes, each far from all others; a hit lies beside an object of its own."""
    images = range(int(data.image.max()) + 1)
    gt = {
        "images": [{"id": i, "file_name": f"{i:04d}.png"} for i in images],
        "categories": [{"id": c, "name": "abcdefgh"[c]} for c in range(int(data.cls.max()) + 1)],
        "annotations": [],
    }
    found = []
    for row, (image, c, iou) in enumerate(zip(data.image.tolist(), data.cls.tolist(), data.iou.tolist(), strict=True)):
        shared = {"image_id": image, "category_id": c}
        x = 100.0 * row
        if iou > 0:
            place = [x - shift(iou), 0.0, SIDE, SIDE]
            gt["annotations"].append({**shared, "id": row + 1, "bbox": place, "area": SIDE**2, "iscrowd": 0})
        found.append({**shared, "bbox": [x, 0.0, SIDE, SIDE], "score": float(sigmoid(data.z[row]))})
    return gt, found


def table_of(data: Simulated) -> DetectionTable:
    return build_table(*coco_of(data))


@pytest.fixture(scope="module")
def data() -> Simulated:
    return simulate(np.random.default_rng(0), 40, [0.6, 1.3], [0.4, -0.5], n_classes=2)


# Image, class, how far right of the object at 0, score; then the IoU that each target sees, None where it counts for
# nothing. Class "c" has no object; from x = 1000 to 1100 lies a crowd of class "a".
ROWS = [
    (1, "a", shift(0.9), 0.8, 0.9, 1.0),
    (1, "a", shift(0.3), 0.6, 0.0, 0.0),  # its object is taken
    (1, "b", shift(0.3), 0.7, 0.3, 0.0),  # a hit at any overlap, but none at half
    (2, "a", shift(0.3), 0.9, 0.3, 0.0),  # takes the object at any overlap, and at half leaves it
    (2, "a", shift(0.8), 0.4, 0.0, 1.0),  # to this one
    (2, "a", 500.0, 0.051, 0.0, 0.0),
    (2, "a", 600.0, 0.049, 0.0, 0.0),
    (2, "b", 500.0, 0.0, 0.0, 0.0),
    (1, "a", 1020.0, 0.95, None, None),  # in the crowd
    (1, "c", 0.0, 0.99, None, None),
]


@pytest.mark.parametrize("weighting", WEIGHTINGS)
@pytest.mark.parametrize("target", TARGETS)
def test_every_row_has_the_target_and_the_weight_of_the_plain_rule(target, weighting):
    objects = [(1, "a", 0.0, 0), (1, "b", 0.0, 0), (2, "a", 0.0, 0), (1, "a", 1000.0, 1)]
    gt = {
        "images": [{"id": 1}, {"id": 2}],
        "categories": [{"id": i, "name": name} for i, name in enumerate("abc")],
        "annotations": [
            {
                "id": i + 1,
                "image_id": image,
                "category_id": "abc".index(name),
                "bbox": [x, 0, 100.0 if crowd else SIDE, SIDE],
                "iscrowd": crowd,
            }
            for i, (image, name, x, crowd) in enumerate(objects)
        ],
    }
    found = [
        {"image_id": image, "category_id": "abc".index(name), "bbox": [x, 0, SIDE, SIDE], "score": score}
        for image, name, x, score, *_ in ROWS
    ]
    table = build_table(gt, found)
    z = logit(table.score)
    sample, rows = sample_of(table, z, np.array([0, 1]), Recipe(target=target, weighting=weighting))
    expected = {}
    for place, (image, name, _, score, iou, tp) in enumerate(ROWS):
        weight = {"score": score, "above": float(score >= 0.05), "all": 1.0}[weighting]
        # The logit of a score of 0 is finite, so such a box weighs next to nothing.
        if iou is not None and (weight > 0 or weighting == "score"):
            expected[place] = (iou if target == "iou" else tp, weight, "abc".index(name), image - 1, logit([score])[0])
    places = table.detection[rows].tolist()
    assert sorted(places) == sorted(expected)
    given = np.column_stack([sample.target, sample.weight, sample.cls, sample.group, sample.z])
    assert np.allclose(given, [expected[place] for place in places], rtol=0, atol=1e-6)
    assert sample.classes == ("a", "b", "c")


@pytest.mark.parametrize("weighting", WEIGHTINGS)
@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("method", FOLDING)
def test_the_plain_fit_is_scikit_learns_of_the_simulated_boxes(method, target, weighting, data):
    table = table_of(data)
    recipe = Recipe(method, target, weighting, shrink=False)
    one = fit(sample_of(table, logit(table.score), np.arange(table.n_images), recipe)[0], recipe).map
    score = sigmoid(data.z)
    weight = {"score": score, "above": 1.0 * (score >= 0.05), "all": np.ones_like(score)}[weighting]
    truth = data.iou if target == "iou" else 1.0 * (data.iou >= 0.5)
    expected = sklearn_fit([data.z], truth, weight, intercept=method == "platt")
    assert np.allclose([one.a[0], one.b[0]][: len(expected)], expected, rtol=0, atol=1e-5)


def test_a_recipe_by_default_weighs_by_the_score_and_aims_at_the_iou(data):
    table = table_of(data)
    group = np.arange(table.n_images)
    z = logit(table.score)
    given, named = (fit(sample_of(table, z, group, r)[0], r).map for r in (Recipe(), Recipe("platt", "iou", "score")))
    assert given == named


def test_copies_of_a_groups_boxes_tell_nothing_new_of_a_class():
    """With them in the group the interval of a class's map is about as wide as before, not half as wide."""
    data = simulate(np.random.default_rng(1), 120, [0.5, 1.0, 1.5], n_classes=3)
    once = Sample(data.z, data.iou, sigmoid(data.z), data.cls, data.image, ("a", "b", "c"))
    four = once.take(np.tile(np.arange(len(data.z)), 4))
    widths = [np.diff(fit(sample, Recipe(per_class=True)).pooled.interval())[..., 0] for sample in (once, four)]
    assert np.allclose(widths[1], widths[0], rtol=0.2)
