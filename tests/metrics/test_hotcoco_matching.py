# SPDX-License-Identifier: AGPL-3.0-or-later
"""hotcoco's table is pycocotools' in every row and array, and so are COCO's stats."""

from __future__ import annotations

import dataclasses
import gzip
import importlib.util
import json
from typing import Any

import numpy as np
import pytest
from hard_set import GOLDEN, hard_set, ordinary_set

from det_ls.data.coco import coco_evaluate, read_detections, read_ground_truth
from det_ls.evaluation.evaluate import evaluate_detections
from det_ls.metrics.evaluators import get_evaluator
from det_ls.metrics.matching import table_from_coco
from det_ls.metrics.table import DetectionTable

pytest.importorskip("hotcoco", reason="the extra 'fast' is not installed")
Json = dict[str, Any]


def assert_equal_tables(found: DetectionTable, expected: DetectionTable) -> None:
    for field in dataclasses.fields(DetectionTable):
        ours, theirs = getattr(found, field.name), getattr(expected, field.name)
        if isinstance(theirs, np.ndarray):
            assert ours.dtype == theirs.dtype, field.name
            np.testing.assert_array_equal(ours, theirs, err_msg=field.name)
        else:
            assert ours == theirs, field.name


def check(gt: object, detections: object, **settings: Any) -> DetectionTable:
    instances = read_ground_truth(gt)
    results = read_detections(detections, instances)
    judge, fast = coco_evaluate(instances, results), get_evaluator("hotcoco")(instances, results)
    np.testing.assert_allclose(fast.stats, judge.stats, rtol=0, atol=1e-12)
    for key in ("precision", "recall"):
        np.testing.assert_allclose(fast.eval[key], judge.eval[key], rtol=0, atol=1e-12)
    expected = table_from_coco(judge, **settings)
    assert_equal_tables(table_from_coco(fast, **settings), expected)
    return expected


@pytest.mark.parametrize("zero_overlap", [None, True, False])
@pytest.mark.parametrize("seed", range(4))
def test_hard_sets_with_crowds_ties_and_130_boxes_of_a_class(seed: int, zero_overlap: bool | None) -> None:
    check(*hard_set(seed, n_images=20), zero_overlap=zero_overlap)


@pytest.mark.parametrize("name", sorted(path.name for path in GOLDEN.iterdir() if path.is_dir()))
def test_golden_sets(name: str) -> None:
    def load(part: str) -> Any:
        file = next(p for p in (GOLDEN / name).iterdir() if p.name.startswith(part) and ".json" in p.name)
        return json.loads(gzip.decompress(file.read_bytes()) if file.suffix == ".gz" else file.read_bytes())

    check(load("gt"), load("det"))


def test_a_large_set_with_many_classes_and_every_size() -> None:
    """Some 20,000 images-times-classes-times-areas entries of pycocotools, crowds among them."""
    rng = np.random.default_rng(5)
    annotations, detections = [], []
    for image in range(1, 161):
        present = rng.choice(60, 8)
        for cls in rng.choice(present, 12):
            size = rng.choice([14.0, 31.9, 32.0, 60.0, 96.0, 200.0])
            box = [*rng.integers(0, 400, 2).tolist(), size, size]
            crowd = int(rng.random() < 0.1)
            # The area is a mask's, so that it disagrees with the box's.
            area = size * size * float(rng.choice([1.0, 0.7]))
            objects = {"image_id": image, "category_id": int(cls) + 1, "bbox": box, "area": area, "iscrowd": crowd}
            annotations.append({"id": len(annotations) + 7, **objects})
            for _ in range(rng.integers(0, 5)):
                shift = rng.integers(-8, 9, 4) * rng.choice([0, 1, 1, 4])
                moved = [float(v) for v in np.maximum(np.array(box) + shift, 1)]
                label = int(cls) if rng.random() < 0.7 else int(rng.integers(60))
                score = round(float(rng.random()), 2)
                detections.append({"image_id": image, "category_id": label + 1, "bbox": moved, "score": score})
    gt = {
        "images": [{"id": int(i)} for i in rng.permutation(160) + 1],
        "categories": [{"id": int(c), "name": str(c)} for c in rng.permutation(60) + 1],
        "annotations": annotations,
    }
    instances = read_ground_truth(gt)
    judge = coco_evaluate(instances, read_detections(detections, instances))
    assert len(judge.evalImgs) > 20000
    assert sum(e is not None for e in judge.evalImgs) > 5000
    table = check(gt, detections)
    assert table.gt_crowd.any()
    assert all(table.matches(0.5, area=area).tp.any() for area in ("small", "medium", "large"))


def test_ids_that_are_words_and_an_empty_list_of_results() -> None:
    gt, detections = ordinary_set()
    for entry in gt["images"]:
        entry["id"] = f"image {entry['id']}"
    for entry in (*gt["annotations"], *detections):
        entry["image_id"] = f"image {entry['image_id']}"
    check(gt, detections)
    check(gt, [])
    check({**gt, "annotations": []}, detections)
    check({**gt, "annotations": []}, [])


@pytest.mark.parametrize("protocol", ["det_ls", "reference"])
def test_an_evaluation_is_the_same_and_says_who_matched(protocol: str, capfd: pytest.CaptureFixture[str]) -> None:
    gt, detections = hard_set(1)
    judge = evaluate_detections(gt, detections, protocol=protocol, bootstrap=100)
    capfd.readouterr()
    fast = evaluate_detections(gt, detections, protocol=protocol, bootstrap=100, evaluator="hotcoco")
    assert "Average Precision" not in capfd.readouterr().out
    ours, theirs = fast.to_dict(), judge.to_dict()
    assert ours.pop("protocol")["evaluator"] == "hotcoco"
    assert theirs.pop("protocol")["evaluator"] == "pycocotools"
    approximate(ours, theirs)


def approximate(ours: Any, theirs: Any) -> None:
    """Equal but for the last digits of COCO's means."""
    if isinstance(theirs, dict):
        assert ours.keys() == theirs.keys()
        for key in theirs:
            approximate(ours[key], theirs[key])
    elif isinstance(theirs, list):
        assert len(ours) == len(theirs)
        for one, other in zip(ours, theirs, strict=True):
            approximate(one, other)
    elif isinstance(theirs, float):
        assert ours == pytest.approx(theirs, rel=0, abs=1e-12)
    else:
        assert ours == theirs


def test_evaluators_that_are_unknown_or_not_installed_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    gt, detections = ordinary_set()
    with pytest.raises(ValueError, match="evaluator: expected one of pycocotools, hotcoco, got 'fast'"):
        evaluate_detections(gt, detections, evaluator="fast")
    monkeypatch.setattr("det_ls.metrics.evaluators.find_spec", lambda _: None)
    with pytest.raises(ImportError, match=r"pip install 'det-ls\[fast\]'"):
        evaluate_detections(gt, detections, evaluator="hotcoco")
    assert importlib.util.find_spec("hotcoco") is not None
