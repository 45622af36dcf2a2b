# SPDX-License-Identifier: AGPL-3.0-or-later
"""What a user of the phantom relies on: it is reproducible, valid for Ultralytics, and noisy only where it says so."""

from __future__ import annotations

import functools
import json
import re
from pathlib import Path

import cv2
import numpy as np
import pytest
import yaml

from det_ls.data import phantom
from det_ls.data.phantom import NAMES, draw_slice, write_phantom

DATA_FILE = Path(__file__).parents[2] / "datasets" / "phantom.yaml"
TRAIN, VAL = 150, 30


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return write_phantom(tmp_path_factory.mktemp("phantom") / "p", train=TRAIN, val=VAL)


@pytest.fixture(scope="module")
def truth(root):
    return json.loads((root / "truth.json").read_text(encoding="utf-8"))


def objects(truth, split):
    return [x for image in truth["images"] if image["split"] == split for x in image["objects"]]


def file_bytes(root):
    return {str(x.relative_to(root)): x.read_bytes() for x in sorted(root.rglob("*")) if x.is_file()}


def stock_labels(root, split):
    """Read a split with Ultralytics' own dataset class."""
    from ultralytics.data.dataset import YOLODataset
    from ultralytics.data.utils import check_det_dataset

    data = check_det_dataset(str(root / "data.yaml"))
    return YOLODataset(img_path=data[split], data=data, task="detect", imgsz=160, augment=False).labels


def test_the_same_arguments_give_the_same_files(tmp_path):
    first, second = (write_phantom(tmp_path / x, train=3, val=2, seed=7) for x in "ab")
    assert file_bytes(first) == file_bytes(second)


def test_another_seed_gives_other_images_and_labels(tmp_path):
    first, second = (write_phantom(tmp_path / str(x), train=4, val=2, seed=x) for x in (0, 1))
    one, other = file_bytes(first), file_bytes(second)
    assert not any(one[x] == other[x] for x in one if x.endswith(".png"))
    assert one["truth.json"] != other["truth.json"]


def test_an_image_depends_neither_on_the_size_of_the_set_nor_on_the_noise(tmp_path, root):
    small = write_phantom(tmp_path / "p", train=3, val=2, flip=1.0, jitter=1.0)
    for file in small.rglob("*.png"):
        assert np.array_equal(cv2.imread(str(file)), cv2.imread(str(root / file.relative_to(small))))


def test_ultralytics_reads_every_image_and_box(root, truth):
    for split, count in (("train", TRAIN), ("val", VAL)):
        labels = stock_labels(root, split)
        recorded = {x["file"]: x for x in truth["images"] if x["split"] == split}
        assert len(labels) == len(recorded) == count
        for label in labels:
            image = recorded[Path(label["im_file"]).name]
            assert label["shape"] == (image["height"], image["width"])
            assert label["cls"].ravel().tolist() == [x["label_class"] for x in image["objects"]]
            boxes = np.array([x["label_box"] for x in image["objects"]]).reshape(-1, 4)
            size = np.array([image["width"], image["height"]])
            found = np.hstack([label["bboxes"][:, :2] - label["bboxes"][:, 2:] / 2] * 2)
            found[:, 2:] += label["bboxes"][:, 2:]
            assert np.allclose(found * np.tile(size, 2), boxes, atol=1e-3)
            assert (boxes >= 0).all()
            assert (boxes <= np.tile(size, 2)).all()
            assert (boxes[:, 2:] - boxes[:, :2] > 5).all()


def test_images_are_grey_and_of_varying_size_within_160_and_320(root):
    shapes = {cv2.imread(str(x), cv2.IMREAD_UNCHANGED).shape for x in (root / "images" / "val").iterdir()}
    assert len(shapes) > VAL / 2
    assert all(len(x) == 2 and min(x) >= 160 and max(x) <= 320 for x in shapes)


def test_some_images_have_no_lesions_with_and_without_a_label_file(root, truth):
    empty = [x for x in truth["images"] if not x["objects"]]
    files = [(root / "labels" / x["split"] / x["file"]).with_suffix(".txt") for x in empty]
    assert 0.05 * (TRAIN + VAL) < len(empty) < 0.3 * (TRAIN + VAL)
    assert {x.exists() for x in files} == {True, False}
    assert all(x.read_text() == "" for x in files if x.exists())


def test_validation_labels_are_the_truth(truth):
    for x in objects(truth, "val"):
        assert (x["label_class"], x["label_box"]) == (x["class"], x["box"])


def test_training_labels_are_noisy_at_the_given_rates(truth):
    found = objects(truth, "train")
    for share, noisy in (
        (0.1, [x["label_class"] != x["class"] for x in found]),
        (0.2, [x["label_box"] != x["box"] for x in found]),
    ):
        deviation = np.sqrt(share * (1 - share) / len(found))
        assert abs(np.mean(noisy) - share) < 4 * deviation


def test_both_classes_are_common_and_differ_in_rim_depth_with_an_overlap(truth):
    depths = [np.array([x["rim_depth"] for x in objects(truth, "train") if x["class"] == c]) for c in NAMES]
    assert min(len(x) for x in depths) > 0.35 * sum(len(x) for x in depths)
    assert np.median(depths[0]) + 0.2 < np.median(depths[1])
    assert depths[0].max() > depths[1].min()


@pytest.mark.parametrize(("flip", "jitter"), [(0.0, 0.0), (1.0, 0.0), (0.0, 1.0)])
def test_noise_rates_of_zero_and_one_are_exact(tmp_path, flip, jitter):
    root = write_phantom(tmp_path / "p", train=6, val=1, flip=flip, jitter=jitter)
    for x in objects(json.loads((root / "truth.json").read_text()), "train"):
        assert (x["label_class"] != x["class"]) == bool(flip)
        assert (x["label_box"] != x["box"]) == bool(jitter)


def test_lesions_are_brighter_inside_their_box_than_around_it():
    rng = np.random.default_rng(3)
    contrasts = []
    for _ in range(30):
        image, lesions = draw_slice(rng)
        for lesion in lesions:
            x1, y1, x2, y2 = (int(x) for x in lesion.box)
            margin_x, margin_y = (x2 - x1) // 5, (y2 - y1) // 5
            inside = image[y1 + margin_y : y2 - margin_y, x1 + margin_x : x2 - margin_x]
            ring = image[max(0, y1 - 3) : y2 + 3, max(0, x1 - 3) : x2 + 3].copy().astype(float)
            ring[3:-3, 3:-3] = np.nan
            contrasts.append(inside.mean() - np.nanmean(ring))
    assert np.mean(np.array(contrasts) > 10) > 0.9


def test_the_data_yaml_of_the_repository_describes_the_phantom(root):
    ours, written = (yaml.safe_load(x.read_text(encoding="utf-8")) for x in (DATA_FILE, root / "data.yaml"))
    assert ours["names"] == written["names"] == NAMES
    assert {ours[k] for k in ("train", "val")} == {"images/train", "images/val"}


def test_stock_ultralytics_makes_the_phantom_when_it_is_missing(tmp_path, monkeypatch):
    from ultralytics.data import utils

    monkeypatch.setattr(utils, "DATASETS_DIR", tmp_path)
    monkeypatch.setattr("det_ls.phantom.write_phantom", functools.partial(write_phantom, train=2, val=1))
    monkeypatch.chdir(tmp_path)
    data = utils.check_det_dataset(str(DATA_FILE))
    assert len(list(Path(data["train"]).glob("*.png"))) == 2
    assert data["path"] == tmp_path / "phantom"


def test_a_folder_with_files_is_not_overwritten(tmp_path):
    file = tmp_path / "p" / "notes.txt"
    file.parent.mkdir()
    file.write_text("mine")
    with pytest.raises(FileExistsError, match="root: expected a new or empty folder"):
        write_phantom(tmp_path / "p", train=1, val=1)
    with pytest.raises(FileExistsError, match=r"has no truth\.json"):
        write_phantom(tmp_path / "p", train=1, val=1, exist_ok=True)
    assert file.read_text() == "mine"
    assert list(tmp_path.iterdir()) == [file.parent]


def test_exist_ok_replaces_a_phantom_whole(tmp_path):
    root = write_phantom(tmp_path / "p", train=3, val=1)
    with pytest.raises(FileExistsError):
        write_phantom(root, train=2, val=1)
    write_phantom(root, train=2, val=1, exist_ok=True)
    assert len(list((root / "images" / "train").iterdir())) == 2
    assert list(tmp_path.iterdir()) == [root]


def test_an_empty_folder_is_filled(tmp_path):
    (tmp_path / "p").mkdir()
    assert (write_phantom(tmp_path / "p", train=1, val=1) / "data.yaml").is_file()


def test_an_interrupted_run_leaves_nothing(tmp_path, monkeypatch):
    drawn = []

    def interrupt(rng):
        drawn.append(rng)
        if len(drawn) == 3:
            raise KeyboardInterrupt
        return draw_slice(rng)

    monkeypatch.setattr(phantom, "draw_slice", interrupt)
    with pytest.raises(KeyboardInterrupt):
        write_phantom(tmp_path / "p", train=3, val=3)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"train": 0}, "train: expected at least 1 image, got 0."),
        ({"val": -1}, "val: expected at least 1 image, got -1."),
        ({"flip": 1.5}, "flip: expected a probability from 0 to 1, got 1.5."),
        ({"jitter": float("nan")}, "jitter: expected a probability from 0 to 1, got nan."),
        ({"seed": -1}, "seed: expected an integer of at least 0, got -1."),
    ],
)
def test_numbers_out_of_range_are_named(tmp_path, arguments, message):
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        write_phantom(tmp_path / "p", **arguments)
    assert list(tmp_path.iterdir()) == []
