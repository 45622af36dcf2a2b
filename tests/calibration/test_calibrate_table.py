# SPDX-License-Identifier: AGPL-3.0-or-later
"""The core that models and files share: groups are held out whole, and known smoothing is undone class by class."""

from __future__ import annotations

import numpy as np
import pytest
from simulated_maps import simulate
from test_methods import SIDE, coco_of, table_of

from det_ls.calibration.crossfit import folds_by_group
from det_ls.calibration.files import calibrate_detections
from det_ls.calibration.judge import judged
from det_ls.calibration.maps import DesmoothMap, logit, sigmoid
from det_ls.calibration.methods import Recipe, fit, sample_of
from det_ls.calibration.table import calibrate_table, desmooth_table
from det_ls.metrics.matching import build_table

N = 30  # groups of two images that are copies of each other


@pytest.fixture(scope="module")
def twice():
    """COCO files in which image i + N is a copy of image i."""
    data = simulate(np.random.default_rng(0), N, 0.6, 0.4)
    gt, found = coco_of(data)
    gt["images"] = [{"id": i + N * copy, "file_name": f"{i:02d}_{copy}.png"} for copy in (0, 1) for i in range(N)]
    gt["annotations"] += [{**o, "id": o["id"] + 10_000, "image_id": o["image_id"] + N} for o in gt["annotations"]]
    return gt, [*found, *({**d, "image_id": d["image_id"] + N} for d in found)]


def test_copies_in_one_group_have_equal_scores_since_one_map_calibrates_them(twice):
    table = build_table(*twice)
    z, group = logit(table.score), np.arange(2 * N) % N
    found = calibrate_table(table, z, Recipe(), group=group, folds=N)
    first, second = np.split(found.scores[0], 2)
    assert np.array_equal(first, second)
    assert found.counts["groups"] == found.counts["folds"] == N
    assert found.counts["images"] == 2 * N
    for g in range(N):  # the map of all other groups, which are all folds but one
        rows = group[table.image] == g
        one = fit(sample_of(table.filter(~rows), z[~rows], group, Recipe())[0], Recipe()).map
        assert np.allclose(found.scores[0][table.detection[rows]], one(z[rows]), rtol=0, atol=1e-12)
    alone = calibrate_table(table, z, Recipe(), folds=N)
    assert not np.allclose(*np.split(alone.scores[0], 2), rtol=0, atol=1e-6)


def test_files_with_groups_hold_copies_out_together(twice):
    found = calibrate_detections(*twice, groups=r"^(\d+)", bootstrap=0)
    first, second = np.split(found.scores[0], 2)
    assert np.array_equal(first, second)
    assert found.counts["groups"] == N
    alone = calibrate_detections(*twice, bootstrap=0)
    assert alone.counts["groups"] == 2 * N
    assert not np.allclose(*np.split(alone.scores[0], 2), rtol=0, atol=1e-6)


def test_copies_in_one_group_make_no_interval_shorter(twice):
    """Nor is a kept box chosen by a threshold that its copy took part in: the kept boxes are pairs."""
    table = build_table(*twice)
    z = logit(table.score)
    grouped = calibrate_table(table, z, Recipe(), group=np.arange(2 * N) % N, bootstrap=60)
    alone = calibrate_table(table, z, Recipe(), bootstrap=60)
    width = [float(np.subtract(*c.numbers["all"]["brier_iou"].before_interval)) for c in (grouped, alone)]
    assert width[0] < 1.15 * width[1] < 0  # ends are lower minus upper
    of = judged(table, np.arange(2 * N) % N)[0]
    kept = np.empty(table.n_detections, bool)
    kept[table.detection] = of.kept & of.in_tp
    assert np.array_equal(*np.split(kept, 2))
    assert 0 < grouped.counts["kept"] == kept.sum() != alone.counts["kept"]


def test_the_smoothing_of_each_class_is_undone_by_its_own_share():
    table = table_of(simulate(np.random.default_rng(1), 20, n_classes=2))
    found = desmooth_table(table, logit(table.score), np.array([0.9, 0.6]))
    assert found.map == DesmoothMap((0.9, 0.6), ("a", "b"))
    expected = np.minimum(table.score / np.where(table.cls == 0, 0.9, 0.6), 1)
    assert np.allclose(found.scores[0][table.detection], expected, rtol=0, atol=1e-7)
    assert desmooth_table(table, logit(table.score), np.array([0.9, 0.9])).map == DesmoothMap((0.9,))


def scene(matched: tuple[int, ...], images: int = 6) -> tuple[dict, list[dict]]:
    """Images with boxes of all scores, and objects in some of the images that each a box of them meets."""
    place = {"category_id": 1, "bbox": [0, 0, SIDE, SIDE]}
    gt = {
        "images": [{"id": f"i{i}"} for i in range(images)],
        "categories": [{"id": 1, "name": "a"}],
        "annotations": [
            {"id": 2 * i + j + 1, "image_id": f"i{i}", **place, "bbox": [100 * j, 0, SIDE, SIDE]}
            for i in matched
            for j in (0, 1)
        ],
    }
    found = [
        {"image_id": f"i{i}", **place, "bbox": [100 * j + 3, 0, SIDE, SIDE], "score": score + 0.01 * i * (j + 1)}
        for i in range(images)
        for j, score in enumerate((0.6, 0.3, 0.5, 0.2))
    ]
    return gt, found


def test_a_fold_that_holds_all_matches_is_named():
    gt, found = scene((3,))
    fold = folds_by_group(np.arange(6), 5)
    own = ", ".join(f"'i{i}'" for i in np.flatnonzero(fold == fold[3]))
    sentence = (
        rf"^folds: expected matched objects outside each fold to fit its map on, got them only in fold {fold[3] + 1} "
        rf"of 5 with the images {own}, and need more images with matches\.$"
    )
    with pytest.raises(ValueError, match=sentence):
        calibrate_detections(gt, found, bootstrap=0)
    table = build_table(gt, found)
    sample, _ = sample_of(table, logit(table.score), np.arange(6), Recipe())
    assert fit(sample, Recipe()).map.a[0] > 0  # the fit on all images is none the worse


def test_matches_of_several_images_that_were_dealt_into_one_fold_want_more_folds():
    fold = folds_by_group(np.arange(6), 2)
    matched = tuple(np.flatnonzero(fold == 1).tolist())
    with pytest.raises(ValueError, match=r"only in fold 2 of 2 .* and need more folds or more images with matches\.$"):
        calibrate_detections(*scene(matched), folds=2, bootstrap=0)
    assert calibrate_detections(*scene(matched), folds=6, bootstrap=0).counts["folds"] == 6


def test_what_a_fold_cannot_be_fitted_for_otherwise_names_it_too():
    """Only one image has scores that overlap: without it no map is best."""
    boxes = [(i, hit, s) for i in range(6) for hit, s in ((1, 0.8), (0, 0.3))]
    boxes += [(2, 1, 0.2), (2, 0, 0.9)]
    gt = {"images": [{"id": i} for i in range(6)], "categories": [{"id": 1, "name": "a"}], "annotations": []}
    found = []
    for n, (i, hit, score) in enumerate(boxes):
        box = {"image_id": i, "category_id": 1, "bbox": [100 * n, 0, SIDE, SIDE]}
        found.append({**box, "score": score})
        if hit:
            gt["annotations"].append({"id": n + 1, **box})
    place = folds_by_group(np.arange(6), 6)[2] + 1
    with pytest.raises(
        ValueError, match=rf"^predictions: .* no single map fits best \(with fold {place} of 6 held out\)\.$"
    ):
        calibrate_detections(gt, found, target="tp", folds=6, bootstrap=0)


def test_a_simulated_table_holds_the_simulation():
    data = simulate(np.random.default_rng(2), 10, n_classes=2)
    table = table_of(data)
    assert np.allclose(table.score, sigmoid(data.z)[table.detection], rtol=0, atol=1e-12)
    assert np.allclose(table.matches(0.0).tp_iou, data.iou[table.detection], rtol=0, atol=1e-9)
