# SPDX-License-Identifier: AGPL-3.0-or-later
"""Promises of det_ls.data.coco: COCO's numbers on any ground truth, and Ultralytics' reading of YOLO labels."""

from __future__ import annotations

import contextlib
import copy
import gzip
import io
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from PIL import Image
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from det_ls.data.coco import coco_evaluate, load_coco, read_detections, read_ground_truth
from det_ls.data.ground_truth import (
    ground_truth_for,
    ground_truth_from_yolo,
    image_size,
    list_images,
    match_images,
    read_labels,
)
from det_ls.evaluation.evaluate import evaluate_detections
from det_ls.metrics.catalogue import COCO_STATS as STATS

GOLDEN = Path(__file__).parents[1] / "golden"


def hard_set(seed: int = 0) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """COCO files that hurt: crowds, ties, empty images, classes without objects or detections, 130 boxes of a class."""
    rng = np.random.default_rng(seed)
    categories = [{"id": i, "name": f"class {i}"} for i in (1, 3, 7, 20, 90)]  # 20: no object, 90: no detection
    images = [{"id": int(i), "file_name": f"{i}.jpg", "width": 640, "height": 480} for i in rng.permutation(40) * 3 + 5]
    annotations, detections = [], []
    for image in images[:-4]:
        for _ in range(rng.integers(0, 6)):
            x, y, w, h = (float(v) for v in (*rng.integers(0, 300, 2), *rng.integers(5, 180, 2)))
            category = int(rng.choice([1, 3, 7, 90]))
            crowd = int(rng.random() < 0.1)
            annotations.append(
                {
                    "id": len(annotations) + 11,
                    "image_id": image["id"],
                    "category_id": category,
                    "bbox": [x, y, w, h],
                    "area": w * h * 0.8,
                    "iscrowd": crowd,
                }
            )
            for _ in range(rng.integers(0, 4)):
                jitter = rng.normal(0, 0.1, 4) * [w, h, w, h] * (rng.random() > 0.2)
                found = int(rng.choice([category, 1, 20])) if category != 90 else 20
                box = [x + jitter[0], y + jitter[1], max(w + jitter[2], 0.0), max(h + jitter[3], 0.0)]
                score = float(rng.choice([0.0, 0.25, 0.5, 1.0, rng.random()]))
                detections.append({"image_id": image["id"], "category_id": found, "bbox": box, "score": score})
    for i in range(130):
        box = [float(i), 10.0, 40.0, 40.0]
        detections.append({"image_id": images[0]["id"], "category_id": 1, "bbox": box, "score": 0.3})
    return {"images": images, "annotations": annotations, "categories": categories}, detections


def stock_evaluation(gt: dict[str, Any], detections: list[dict[str, Any]], folder: Path) -> COCOeval:
    """What a user gets who runs pycocotools on the two files."""
    (folder / "gt.json").write_text(json.dumps(gt))
    (folder / "dt.json").write_text(json.dumps(detections))
    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO(str(folder / "gt.json"))
        evaluator = COCOeval(coco, coco.loadRes(str(folder / "dt.json")), "bbox")
        evaluator.evaluate()
        evaluator.accumulate()
        evaluator.summarize()
    return evaluator


def values(stats: dict[str, float | None]) -> list[float]:
    """COCO's stats with pycocotools' -1 for undefined."""
    return [-1.0 if stats[name] is None else float(stats[name] or 0.0) for name in STATS]


@pytest.mark.parametrize("seed", range(3))
def test_stats_and_class_ap_are_those_of_pycocotools(seed: int, tmp_path: Path) -> None:
    gt, detections = hard_set(seed)
    stock = stock_evaluation(gt, detections, tmp_path)
    ours = evaluate_detections(str(tmp_path / "gt.json"), tmp_path / "dt.json")
    assert values(ours.stats) == stock.stats.tolist()
    for index, category in enumerate(sorted(c["id"] for c in gt["categories"])):
        precision = stock.eval["precision"][:, :, index, 0, 2]
        expected = precision[precision > -1].mean() if (precision > -1).any() else None
        assert ours.ap_per_class[f"class {category}"] == (
            expected if expected is None else pytest.approx(expected, abs=1e-12)
        )
    assert ours.ap_per_class["class 20"] is None
    assert ours.ap_per_class["class 90"] == 0.0
    assert set(ours.undefined) == {"ap_per_class.class 20"}


@pytest.mark.parametrize("name", ["coco_tiny", "synth_edge"])
def test_golden_values_are_reproduced(name: str) -> None:
    folder = GOLDEN / name
    expected = json.loads((folder / "golden.json").read_text())["pycocotools"]
    ours = evaluate_detections(folder / "gt.json", folder / "detections.json")
    assert values(ours.stats) == pytest.approx(expected["stats12"], abs=1e-12, rel=0)
    ids = {category["name"]: str(category["id"]) for category in ours.ground_truth["categories"]}
    ours_by_id = {ids[name]: ap for name, ap in ours.ap_per_class.items()}
    golden = {id_: expected["ap_per_class"].get(id_) for id_ in ours_by_id}
    assert {id_ for id_, ap in ours_by_id.items() if ap is None} == {id_ for id_, ap in golden.items() if ap is None}
    assert [ap for ap in ours_by_id.values() if ap is not None] == pytest.approx(
        [ap for ap in golden.values() if ap is not None], abs=1e-12, rel=0
    )


def test_detection_ids_are_positions_and_nothing_is_printed(capfd: pytest.CaptureFixture[str]) -> None:
    gt, detections = hard_set()
    evaluator = coco_evaluate(read_ground_truth(gt), read_detections(detections, read_ground_truth(gt)))
    assert [evaluator.cocoDt.anns[i + 1]["score"] for i in range(len(detections))] == [d["score"] for d in detections]
    assert capfd.readouterr() == ("", "")


def test_loaded_json_of_the_caller_is_left_alone() -> None:
    gt, detections = hard_set()
    before = copy.deepcopy((gt, detections))
    result = evaluate_detections(gt, detections)
    assert (gt, detections) == before
    assert result.ground_truth == before[0]  # without what pycocotools writes into it
    assert result.detections == before[1]


def test_string_image_ids_give_the_same_numbers(tmp_path: Path) -> None:
    gt, detections = hard_set()
    expected = stock_evaluation(gt, detections, tmp_path).stats.tolist()
    for entry in [*gt["annotations"], *detections]:
        entry["image_id"] = f"scan {entry['image_id']:05d}"
    for image in gt["images"]:
        image["id"] = f"scan {image['id']:05d}"
    assert values(evaluate_detections(gt, detections).stats) == expected


@pytest.mark.parametrize("ids", ["from zero", "absent", "repeated", "strings"])
def test_annotation_ids_do_not_matter(ids: str, tmp_path: Path) -> None:
    gt, detections = hard_set()
    expected = stock_evaluation(gt, detections, tmp_path).stats.tolist()
    for i, annotation in enumerate(gt["annotations"]):
        annotation["id"] = {"from zero": i, "absent": None, "repeated": 5, "strings": f"a{i}"}[ids]
    assert values(evaluate_detections(gt, detections).stats) == expected


def test_an_annotation_with_the_id_zero_can_be_found() -> None:
    box = {"image_id": 1, "category_id": 1, "bbox": [5, 5, 50, 50]}
    gt = {"images": [{"id": 1}], "annotations": [{**box, "id": 0}], "categories": [{"id": 1}]}
    assert evaluate_detections(gt, [{**box, "score": 0.5}]).stats["AP"] == pytest.approx(1.0)


def test_absent_area_and_crowd_flag_mean_the_box_and_no_crowd(tmp_path: Path) -> None:
    gt, detections = hard_set()
    for annotation in gt["annotations"]:
        annotation.update(area=annotation["bbox"][2] * annotation["bbox"][3], iscrowd=0)
    expected = stock_evaluation(gt, detections, tmp_path).stats.tolist()
    for annotation in gt["annotations"]:
        del annotation["area"], annotation["iscrowd"]
    assert values(evaluate_detections(gt, detections).stats) == expected


def test_numpy_numbers_are_numbers() -> None:
    gt, detections = hard_set()
    expected = evaluate_detections(gt, detections)
    for detection in detections:
        detection.update(
            image_id=np.int64(detection["image_id"]),
            bbox=np.array(detection["bbox"]),
            score=np.float64(detection["score"]),
        )
    ours = evaluate_detections(gt, detections)
    assert ours.to_dict() == expected.to_dict()
    json.dumps(ours.detections)


def test_no_detections_are_a_result() -> None:
    gt, _ = hard_set()
    ours = evaluate_detections(gt, [])
    assert ours.stats["AP"] == ours.stats["AR100"] == ours.ap_per_class["class 1"] == 0.0
    assert ours.n_detections == 0


def test_without_ground_truth_numbers_are_none_with_a_reason() -> None:
    gt, detections = hard_set()
    gt["annotations"] = []
    for results in (detections, []):
        ours = evaluate_detections(gt, results)
        assert set(ours.stats.values()) == set(ours.ap_per_class.values()) == {None}
        assert ours.undefined["AP"] == "no ground truth"
        assert ours.undefined["AP_small"] == "no ground truth"
        json.dumps(ours.to_dict(), allow_nan=False)


def test_gzipped_json_is_read(tmp_path: Path) -> None:
    gt, detections = hard_set()
    (tmp_path / "dt.json.gz").write_bytes(gzip.compress(json.dumps(detections).encode()))
    assert evaluate_detections(gt, tmp_path / "dt.json.gz").stats == evaluate_detections(gt, detections).stats


def test_evaluating_files_needs_neither_torch_nor_ultralytics() -> None:
    code = (
        "import sys, det_ls; det_ls.evaluate_detections({'images': [{'id': 1}], 'annotations': [], "
        "'categories': [{'id': 1}]}, []); assert not {'torch', 'ultralytics'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parents[2])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"image_id": 4}, r"detections: expected every image_id .* \(such as \d+\), got 4\."),
        ({"image_id": "5"}, r"detections: expected every image_id .*, got '5'\."),
        ({"image_id": None}, r"detections: expected every image_id .*, got None\."),
        ({"image_id": [5]}, r"detections: expected every image_id .*, got \[5\]\."),
        ({"category_id": 2}, r"detections: expected every category_id .* \(such as 1\), got 2\."),
        ({"score": float("nan")}, r"detections: expected every score .* finite number, got others in image \d+\."),
        ({"score": float("inf")}, r"detections: expected every score"),
        ({"score": "0.5"}, r"detections: expected every score"),
        ({"score": None}, r"detections: expected every score"),
        ({"bbox": [0, 0, float("nan"), 1]}, r"detections: expected every bbox .* got others in image \d+\."),
        ({"bbox": [0, 0, -1, 1]}, r"no negative size"),
        ({"bbox": [0, 0, 1]}, r"detections: expected every bbox"),
        ({"bbox": None}, r"detections: expected every bbox"),
    ],
)
def test_bad_detection_is_named(change: dict[str, Any], message: str) -> None:
    gt, detections = hard_set()
    with pytest.raises(ValueError, match=message):
        evaluate_detections(gt, [*detections, {**detections[0], **change}])


@pytest.mark.parametrize(
    ("where", "change", "message"),
    [
        ("annotations", {"bbox": [True, 10, 40, 20]}, "gt.annotations: expected every bbox to be four finite numbers"),
        ("annotations", {"rbox": [9, 9, 4, True, 0]}, "gt.annotations: expected every rbox to be five finite numbers"),
        ("annotations", {"area": True}, "gt.annotations: expected every area to be a number"),
        ("annotations", {"id": True}, r"gt.annotations: expected no boolean as id, got True\.$"),
        ("annotations", {"category_id": True}, r"gt.annotations: expected no boolean as category_id, got True\.$"),
        ("images", {"id": True}, r"gt.images: expected ids that are all integers or all strings, got True\.$"),
        ("images", {"width": True}, r"gt.images: expected no boolean as width, got True\.$"),
        ("categories", {"id": True}, r"gt.categories: expected ids that are all integers or all strings, got True\.$"),
    ],
)
def test_true_is_no_number_of_the_ground_truth(where: str, change: dict[str, Any], message: str) -> None:
    gt: dict[str, Any] = {
        "images": [{"id": 1}],
        "annotations": [
            {"id": i, "image_id": 1, "category_id": 1, "bbox": [i, 10, 40, 20], "area": 800} for i in (1, 2)
        ],
        "categories": [{"id": 1}],
    }
    read_ground_truth(gt)
    gt[where][0] |= change
    with pytest.raises(ValueError, match=message):
        read_ground_truth(gt)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"bbox": [True, 10, 40, 20]}, "detections: expected every bbox to be four finite numbers"),
        ({"category_id": True}, r"detections: expected no boolean as category_id, got True\.$"),
        ({"image_id": True}, r"detections: expected no boolean as image_id, got True\.$"),
        ({"bbox": [0, 10, 2_000_000, 20]}, r"detections: expected every bbox within 1e\+06 pixels, got .* image 1\.$"),
    ],
)
def test_detections_have_no_true_as_a_number_and_lie_in_an_image(change: dict[str, Any], message: str) -> None:
    gt = {
        "images": [{"id": 1}],
        "annotations": [{"id": 1, "image_id": 1, "category_id": 1, "bbox": [1, 10, 40, 20]}],
        "categories": [{"id": 1}],
    }
    good = {"image_id": 1, "category_id": 1, "bbox": [1, 10, 40, 20], "score": 0.5}
    assert len(read_detections([good], gt)) == 1
    with pytest.raises(ValueError, match=message):
        read_detections([good, {**good, **change}], gt)


def test_entries_have_to_be_mappings() -> None:
    with pytest.raises(ValueError, match=r"detections: expected mappings as entries, got \[5, 1\]"):
        evaluate_detections(hard_set()[0], [[5, 1]])


def test_only_three_unknown_images_are_named() -> None:
    gt, detections = hard_set()
    unknown = [{**detections[0], "image_id": -i} for i in range(1, 6)]
    with pytest.raises(ValueError, match=r"got -1, -2, -3 and 2 more\."):
        evaluate_detections(gt, [*unknown, *detections, *unknown])


@pytest.mark.parametrize(
    ("gt", "message"),
    [
        ([], "gt: expected COCO instances with lists of images, annotations, categories"),
        ({"images": [], "annotations": [], "categories": [{"id": 1}]}, "gt.images: expected at least one entry"),
        ({"images": [{"id": 1}], "annotations": [], "categories": []}, "gt.categories: expected at least one entry"),
        ({"images": [{"id": 1}, {"id": "2"}], "annotations": [], "categories": [{"id": 1}]}, "all integers or all"),
        ({"images": [{"id": 1}, {"id": 1}], "annotations": [], "categories": [{"id": 1}]}, "got 1 repeatedly"),
        ({"images": [{}], "annotations": [], "categories": [{"id": 1}]}, "got None"),
        (
            {
                "images": [{"id": 1}],
                "annotations": [],
                "categories": [{"id": 1, "name": "cat"}, {"id": 2, "name": "cat"}],
            },
            "different names, got 'cat' repeatedly",
        ),
        (
            {"images": [{"id": 1}], "annotations": [{"image_id": 2, "category_id": 1}], "categories": [{"id": 1}]},
            "gt.annotations: expected every image_id",
        ),
        (
            {"images": [{"id": 1}], "annotations": [{"image_id": 1, "category_id": 1}], "categories": [{"id": 1}]},
            "gt.annotations: expected every bbox .* in image 1",
        ),
        (
            {
                "images": [{"id": 1}],
                "annotations": [{"image_id": 1, "category_id": 1, "bbox": [0, 0, 1, 1], "area": float("nan")}],
                "categories": [{"id": 1}],
            },
            "gt.annotations: expected every area",
        ),
    ],
)
def test_bad_ground_truth_is_explained(gt: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        evaluate_detections(gt, [])


def test_bad_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(
        FileNotFoundError, match=r"gt: expected a COCO JSON file, got '.*none\.json', which does not exist"
    ):
        evaluate_detections(tmp_path / "none.json", [])
    (tmp_path / "cut.json").write_text('{"images": [')
    with pytest.raises(ValueError, match=r"gt: expected a JSON file, got '.*cut\.json'"):
        evaluate_detections(tmp_path / "cut.json", [])
    (tmp_path / "cut.json.gz").write_bytes(gzip.compress(b"[]")[:-6])
    with pytest.raises(ValueError, match="detections: expected a JSON file"):
        load_coco(tmp_path / "cut.json.gz", "detections")
    with pytest.raises(ValueError, match="detections: expected a list of COCO results, got dict"):
        evaluate_detections(hard_set()[0], {})


# YOLO labels ---------------------------------------------------------------------------------------------------------


def write_image(path: Path, width: int = 40, height: int = 20, **options: Any) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(0).integers(0, 255, (height, width, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path, **options)
    return str(path)


def write_dataset(
    root: Path, labels: dict[str, str | None], names: tuple[str, ...] = ("a", "b", "c")
) -> dict[str, Any]:
    """A split whose images have these label files (None: no file)."""
    for i, (name, text) in enumerate(labels.items()):
        write_image(root / "images" / "val" / name, 40 + 7 * i, 30 + 3 * i)
        file = (root / "labels" / "val" / name).with_suffix(".txt")
        file.parent.mkdir(parents=True, exist_ok=True)
        if text is not None:
            file.write_text(text)
    return {"path": root, "val": str(root / "images" / "val"), "names": dict(enumerate(names)), "nc": len(names)}


LABELS: dict[str, str | None] = {
    "100 (2).png": "0 0.5 0.5 0.25 0.5\n2 0.95 0.1 0.2 0.3\n",
    "deep/er/1.png": "1 0.5 0.5 0.1 0.1\n\n1 0.5 0.5 0.1 0.1\n0 1.0 1.005 0.1 0.1\n",
    "empty.png": "",
    "none.png": None,
    "polygons.png": "0 0.1 0.1 0.5 0.1 0.5 0.7\n2 0.2 0.2 0.4 0.3 0.4 0.9 0.1 0.9\n0 0.1 0.1 0.5 0.1 0.5 0.7\n",
    "zero.png": "1 0.5 0.5 0.0 0.2\n2 0.5 0.5 1.0 1.0\n0 0.0 0.5 0.2 -0.0\n",
}


def test_yolo_ground_truth_is_that_of_ultralytics(tmp_path: Path) -> None:
    from ultralytics.data import YOLODataset

    data = write_dataset(tmp_path, LABELS)
    truth = ground_truth_from_yolo(data)
    assert not list(tmp_path.rglob("*.cache"))
    stock = YOLODataset(img_path=data["val"], data=data, augment=False, imgsz=64)
    assert list(truth.image_ids) == stock.im_files == [label["im_file"] for label in stock.labels]
    assert list(truth.image_ids.values()) == list(range(1, len(LABELS) + 1))
    for label, image in zip(stock.labels, truth.coco["images"], strict=True):
        height, width = label["shape"]
        assert (image["height"], image["width"]) == (height, width)
        assert tmp_path / "images" / "val" / image["file_name"].removeprefix("images/val/") == Path(label["im_file"])
        x, y, w, h = label["bboxes"].astype(np.float64).T
        edges = np.stack([x - w / 2, y - h / 2, x + w / 2, y + h / 2], 1) * [width, height, width, height]
        edges = edges.clip(0, [width, height, width, height])
        expected = np.column_stack([label["cls"][:, 0] + 1, edges[:, :2], edges[:, 2:] - edges[:, :2]])
        ours = [(a["category_id"], *a["bbox"]) for a in truth.coco["annotations"] if a["image_id"] == image["id"]]
        np.testing.assert_allclose(
            np.array(sorted(ours)).reshape(-1, 5), sorted(expected.tolist()) or np.zeros((0, 5)), atol=1e-4
        )
    for annotation in truth.coco["annotations"]:
        assert annotation["area"] == pytest.approx(annotation["bbox"][2] * annotation["bbox"][3])
    assert truth.coco["categories"] == [{"id": i + 1, "name": name} for i, name in enumerate("abc")]
    assert len(truth.coco["annotations"]) == 9
    assert truth.source == "labels"


def test_yolo_ground_truth_survives_a_round_trip_through_pycocotools(tmp_path: Path) -> None:
    truth = ground_truth_from_yolo(write_dataset(tmp_path, LABELS)).coco
    boxes = [a for a in truth["annotations"] if a["area"] > 0]
    perfect = [{**{k: a[k] for k in ("image_id", "category_id", "bbox")}, "score": 0.9} for a in boxes]
    stats = stock_evaluation({**truth, "annotations": boxes}, perfect, tmp_path).stats
    assert stats[0] == pytest.approx(1.0)


@pytest.mark.parametrize("kind", ["folder", "list of folders", "text file", "text file elsewhere"])
def test_images_are_listed_as_ultralytics_lists_them(kind: str, tmp_path: Path) -> None:
    from ultralytics.data import YOLODataset

    data = write_dataset(tmp_path / "set [1]", LABELS)
    folder = Path(data["val"])
    (folder / "notes.txt").write_text("no image")
    (folder / "UPPER.PNG").write_bytes((folder / "none.png").read_bytes())
    source: str | list[str] = str(folder)
    if kind == "list of folders":
        write_image(tmp_path / "set [1]" / "images" / "more" / "x.jpg")
        source = [str(folder), str(folder.parent / "more")]
    elif kind.startswith("text file"):
        lines = (
            [f"./images/val/{name}" for name in LABELS] if kind == "text file" else [str(folder / n) for n in LABELS]
        )
        file = tmp_path / ("set [1]" if kind == "text file" else "") / "val.txt"
        file.write_text("\n".join(lines[::-1]) + "\n")
        source = str(file)
    stock = YOLODataset(img_path=source, data=data, augment=False, imgsz=64)
    assert list_images(source) == stock.im_files
    names = [image["file_name"] for image in ground_truth_from_yolo({**data, "val": source}).coco["images"]]
    assert len(set(names)) == len(names) == len(stock.im_files)
    assert all(name.startswith("images/") for name in names)


def test_images_outside_the_root_are_named_by_their_common_folder(tmp_path: Path) -> None:
    data = write_dataset(tmp_path / "elsewhere", {"1.png": None, "deep/2.png": None})
    coco = ground_truth_from_yolo({**data, "path": tmp_path / "root"}).coco
    assert [image["file_name"] for image in coco["images"]] == ["1.png", "deep/2.png"]


def test_missing_repeated_and_unreadable_images_are_named(tmp_path: Path) -> None:
    data = write_dataset(tmp_path, {"1.png": None})
    with pytest.raises(FileNotFoundError, match="nowhere"):
        list_images(str(tmp_path / "nowhere"))
    with pytest.raises(FileNotFoundError, match="none of the formats"):
        list_images(str(tmp_path / "labels"))
    (tmp_path / "val.txt").write_text("./images/val/1.png\n./images/val/2.png\n")
    with pytest.raises(FileNotFoundError, match=r"none at '.*2\.png'"):
        list_images(str(tmp_path / "val.txt"))
    with pytest.raises(ValueError, match=r"each image of a split once, got '.*1\.png' repeatedly"):
        list_images([data["val"], data["val"]])
    (tmp_path / "images" / "val" / "broken.png").write_bytes(b"not an image")
    with pytest.raises(ValueError, match=r"an image, got '.*broken\.png'"):
        ground_truth_from_yolo(data)


@pytest.mark.parametrize("orientation", [1, 3, 6, 8])
def test_image_size_follows_the_exif_orientation(orientation: int, tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[274] = orientation
    path = write_image(tmp_path / "photo.jpg", 40, 20, exif=exif)
    assert image_size(path) == cv2.imread(path).shape[1::-1] == ((20, 40) if orientation in (6, 8) else (40, 20))


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("0 0.5 0.5 0.1", r"labels: '.*bad\.txt', line 2: expected a class and four box coordinates"),
        ("0 0.5 0.5 0.1 0.1 0.9", "got 6 numbers"),
        ("cat 0.5 0.5 0.1 0.1", "expected numbers, got 'cat'"),
        ("3 0.5 0.5 0.1 0.1", "class index from 0 to 2, got 3"),
        ("-1 0.5 0.5 0.1 0.1", "class index from 0 to 2, got -1"),
        ("0.5 0.5 0.5 0.1 0.1", "class index from 0 to 2, got 0.5"),
        ("0 0.5 1.02 0.1 0.1", "at most 1, got 1.02"),
        ("0 25 12 8 8", "fractions of the image, at most 1, got 25"),
        ("0 0.5 -0.02 0.1 0.1", "no negative coordinates, got -0.02"),
        ("0 0.5 0.5 -0.005 0.1", "no negative coordinates, got -0.005"),
        ("0 nan 0.5 0.1 0.1", "finite numbers"),
        ("0 0.1 0.1 0.5 0.1 0.5 0.7", "line 1: .* a class and a polygon, as on other lines, got 5 numbers"),
    ],
)
def test_bad_label_line_is_named(line: str, message: str, tmp_path: Path) -> None:
    data = write_dataset(tmp_path, {"good.png": "0 0.5 0.5 0.1 0.1", "bad.png": f"1 0.5 0.5 0.1 0.1\n{line}\n"})
    with pytest.raises(ValueError, match=message):
        ground_truth_from_yolo(data)


@pytest.mark.parametrize("line", ["0 1.0099 0.5 0.1 0.1", "0 -0.0099 0.5 0.1 0.1", "2.0 0 0 0 0"])
def test_labels_within_the_tolerance_of_ultralytics_are_read(line: str, tmp_path: Path) -> None:
    assert len(ground_truth_from_yolo(write_dataset(tmp_path, {"1.png": line})).coco["annotations"]) == 1


def test_byte_order_marks_keypoints_and_blank_lines_are_read_and_other_bytes_refused(tmp_path: Path) -> None:
    file = tmp_path / "1.txt"
    file.write_text("\ufeff1 0.5 0.5 0.1 0.2", encoding="utf-8")
    assert read_labels(file, 2) == [(1, [0.5, 0.5, 0.1, 0.2])]
    file.write_text("1 0.5 0.5 0.1 0.2 0.4 0.4 2")
    assert read_labels(file, 2, keypoint_columns=3) == [(1, [0.5, 0.5, 0.1, 0.2])]
    file.write_text("\n  \n1 0.5 0.5 0.1 0.2\n\t\n")
    assert read_labels(file, 2) == [(1, [0.5, 0.5, 0.1, 0.2])]
    file.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ValueError, match=r"UTF-8 text in '.*1\.txt'"):
        read_labels(file, 2)


# Official annotations ------------------------------------------------------------------------------------------------


def official(files: list[str]) -> dict[str, Any]:
    images = [{"id": 1000 - 7 * i, "file_name": name, "width": 9, "height": 9} for i, name in enumerate(files)]
    return {"images": images, "annotations": [], "categories": [{"id": 3, "name": "c"}]}


@pytest.mark.parametrize(
    "files",
    [
        ["1.png", "2.png"],
        ["val2017/1.png", "val2017/2.png"],  # the folder has another name here
        ["images/val/1.png", "val\\2.png"],
    ],
)
def test_images_are_found_by_file_name(files: list[str]) -> None:
    assert match_images(["/data/images/val/2.png", "/data/images/val/1.png"], official(files)) == {
        "/data/images/val/2.png": 993,
        "/data/images/val/1.png": 1000,
    }


def test_equal_base_names_are_told_apart_by_their_folders() -> None:
    paths = ["/d/a/1.png", "/d/b/1.png", "/d/1.png"]
    assert list(match_images(paths, official(["a/1.png", "b/1.png", "d/1.png"])).values()) == [1000, 993, 986]
    with pytest.raises(
        ValueError, match=r"annotations: expected an entry of its own for each image, got none for '/d/b/1\.png'"
    ):
        match_images(["/d/a/1.png", "/d/b/1.png"], official(["1.png", "2.png"]))
    with pytest.raises(ValueError, match="an entry of its own"):
        match_images(["/d/a/1.png"], official(["1.png", "1.png"]))


def test_images_in_one_place_only_are_named() -> None:
    paths = [f"/d/{i}.png" for i in range(1, 6)]
    with pytest.raises(
        ValueError, match=r"got 4 missing in annotations \('/d/2.png', '/d/3.png', '/d/4.png' and 1 more"
    ):
        match_images(paths, official(["1.png"]))
    with pytest.raises(ValueError, match=r"got 1 only in annotations \('6.png'\)\."):
        match_images(paths, official([*(f"{i}.png" for i in range(1, 7))]))
    with pytest.raises(ValueError, match=r"1 missing in annotations .* and 1 only in annotations"):
        match_images(["/d/1.png"], official(["2.png"]))
    with pytest.raises(ValueError, match="every image to have a file_name, got none for id 1"):
        match_images(paths, {"images": [{"id": 1}]})


def test_official_annotations_are_taken_where_the_data_names_them(tmp_path: Path) -> None:
    data = write_dataset(tmp_path, {"1.png": "0 0.5 0.5 0.1 0.1", "2.png": None})
    (tmp_path / "annotations").mkdir()
    (tmp_path / "annotations" / "v.json").write_text(json.dumps(official(["1.png", "2.png"])))
    assert ground_truth_for(data).source == "labels"
    for declared in ("annotations/v.json", {"val": "annotations/v.json"}):
        truth = ground_truth_for({**data, "annotations": declared})
        assert truth.source == "annotations"
        assert list(truth.image_ids.values()) == [1000, 993]
    other = {**data, "train": data["val"], "annotations": "annotations/v.json"}
    assert ground_truth_for(other, "train").source == "labels"  # a path alone is for the val split
    assert ground_truth_for(data, annotations=official(["1.png", "2.png"])).source == "annotations"
    with pytest.raises(FileNotFoundError, match=r"annotations in the data YAML: expected a COCO JSON file"):
        ground_truth_for({**data, "annotations": "none.json"})
    with pytest.raises(ValueError, match="annotations in the data YAML to be a path or a mapping, got 3"):
        ground_truth_for({**data, "annotations": 3})
    with pytest.raises(ValueError, match="the same images as in the split"):
        ground_truth_for(data, annotations=official(["1.png"]))


def test_a_sample_keeps_the_ids_of_images_with_equal_base_names(tmp_path: Path) -> None:
    data = write_dataset(tmp_path, {"a/1.png": "0 0.5 0.5 0.1 0.1", "b/1.png": None, "b/2.png": None})
    names = ["b/1.png", "a/1.png", "b/2.png", "b/3.png"]  # the last one has no image here, as in COCO's train split
    instances = official(names)
    (tmp_path / "v.json").write_text(json.dumps(instances))
    images = [path for path in list_images(data["val"]) if "2.png" not in path]
    sample = tmp_path / "sample.txt"
    sample.write_text("\n".join(images[1:]))
    declared = {**data, "annotations": "v.json"}
    truth = ground_truth_for(declared, sample=str(sample))
    assert truth.image_ids == {images[1]: instances["images"][0]["id"]}
    assert [image["file_name"] for image in truth.coco["images"]] == ["b/1.png"]
    assert list(ground_truth_for(data, sample=str(sample)).image_ids) == images[1:]
    with pytest.raises(ValueError, match=r"1 only in annotations .* \('b/3.png'\)"):
        ground_truth_for(declared)
