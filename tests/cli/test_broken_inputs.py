# SPDX-License-Identifier: AGPL-3.0-or-later
"""Broken files and nonsense in them: one sentence and status 2, before any work and with nothing left behind."""

from __future__ import annotations

import gzip
import json
import struct
import xml.dom.minidom
import zlib
from pathlib import Path

import pytest

from det_ls.cli import main as cli

BOX = {"id": 1, "image_id": 1, "category_id": 1, "bbox": [1, 1, 5, 5], "area": 25, "iscrowd": 0}
GT = {
    "images": [{"id": 1, "file_name": "a.png", "width": 9, "height": 9}],
    "annotations": [BOX],
    "categories": [{"id": 1, "name": "cat"}],
}
RESULTS = [{"image_id": 1, "category_id": 1, "bbox": [1, 1, 5, 5], "score": 0.9}]


@pytest.fixture
def refused(tmp_path, monkeypatch, capsys):
    """Run a command that has to end with one sentence, and return it."""
    monkeypatch.chdir(tmp_path)

    def run(*words: str) -> str:
        before = sorted(path for path in tmp_path.rglob("*") if not path.name.endswith(".cache"))
        assert cli.main(list(words)) == 2
        error = capsys.readouterr().err.splitlines()[-1]
        assert error.startswith("det-ls: error: ")
        assert "Traceback" not in error
        assert sorted(path for path in tmp_path.rglob("*") if not path.name.endswith(".cache")) == before
        return error.removeprefix("det-ls: error: ")

    return run


def metrics(**content: object) -> list[str]:
    """Write a ground truth and results, and return the words that evaluate them."""
    for name, value in {"gt.json": GT, "dt.json": RESULTS, **content}.items():
        Path(name).write_text(json.dumps(value))
    return ["metrics", "annotations=gt.json", "predictions=dt.json", "save_dir=out", "bootstrap=0", "simulations=0"]


GZIPPED = gzip.compress(json.dumps(GT).encode() * 50)
FILES = {
    "cut gzip": ("gt.json.gz", GZIPPED[:-20]),
    "damaged gzip": ("gt.json.gz", GZIPPED[:30] + b"\xff" * 20 + GZIPPED[50:]),
    "no gzip": ("gt.json.gz", b"{}"),
    "deeply nested": ("gt.json", b"[" * 200_000),
    "deeply nested object": ("gt.json", b'{"images":' * 100_000),
    "not UTF-8": ("gt.json", b'{"images": "\xff"}'),
    "empty": ("gt.json", b""),
    "numbers without end": ("gt.json", b"[" + b"1" * 10_000 + b"]"),
}


@pytest.mark.parametrize(("name", "content"), FILES.values(), ids=FILES)
def test_a_broken_json_file(name, content, tmp_path, refused):
    (tmp_path / name).write_bytes(content)
    assert refused("metrics", f"annotations={name}", "predictions=dt.json", "save_dir=out").startswith(
        "annotations: expected "
    )


NONSENSE = {
    "negative area": ({"area": -1}, "annotations.annotations: expected every area"),
    "absurd area": ({"area": 1e300}, "annotations.annotations: expected every area"),
    "NaN area": ({"area": float("nan")}, "annotations.annotations: expected every area"),
    "boolean area": ({"area": True}, "annotations.annotations: expected every area"),
    "area of words": ({"area": "big"}, "annotations.annotations: expected every area"),
    "iscrowd of words": ({"iscrowd": "false"}, "annotations.annotations: expected every iscrowd to be 0 or 1"),
    "iscrowd 2": ({"iscrowd": 2}, "annotations.annotations: expected every iscrowd to be 0 or 1"),
    "iscrowd none": ({"iscrowd": None}, "annotations.annotations: expected every iscrowd to be 0 or 1"),
    "iscrowd list": ({"iscrowd": [0]}, "annotations.annotations: expected every iscrowd to be 0 or 1"),
    "NaN box": ({"bbox": [0, 0, float("nan"), 1]}, "annotations.annotations: expected every bbox"),
    "boolean box": ({"bbox": [True, 0, 1.5, 1]}, "annotations.annotations: expected every bbox"),
    "far box": ({"bbox": [0, 0, 2e6, 1]}, "annotations.annotations: expected every bbox within 1e+06 pixels"),
    "far left": ({"bbox": [-2e6, 0, 1, 1]}, "annotations.annotations: expected every bbox within 1e+06 pixels"),
    "huge box": ({"bbox": [0, 0, 10**400, 1]}, "annotations.annotations: expected every bbox"),
    "huge class": ({"category_id": 2**70}, "annotations.annotations: expected every category_id"),
    "boolean image": ({"image_id": [1]}, "annotations.annotations: expected every image_id"),
}


@pytest.mark.parametrize(("change", "message"), NONSENSE.values(), ids=NONSENSE)
def test_ground_truth_that_nobody_meant(change, message, refused):
    assert refused(*metrics(**{"gt.json": {**GT, "annotations": [{**BOX, **change}]}})).startswith(message)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"categories": [{"id": 2**53 + 2, "name": "cat"}]}, "annotations.categories: expected ids of at most 2**53"),
        ({"images": [{"id": 2**80}]}, "annotations.images: expected ids of at most 2**53"),
        ({"images": [{"id": True}]}, "annotations.images: expected ids that are all integers"),
        (
            {"categories": [{"id": 1, "name": "cat"}, {"id": 2, "name": "cat"}]},
            "annotations.categories: expected different",
        ),
    ],
)
def test_ids_and_names_that_cannot_be_told_apart(change, message, refused):
    assert refused(*metrics(**{"gt.json": {**GT, "annotations": [], **change}})).startswith(message)


def test_objects_annotated_twice_are_warned_about(tmp_path):
    from det_ls.data.coco import read_ground_truth

    again = [BOX, {**BOX, "id": 2}, {**BOX, "id": 3, "bbox": [2, 2, 5, 5]}]
    with pytest.warns(UserWarning, match=r"gt.annotations: expected each object once, got 1 repeated .* in image 1"):
        assert len(read_ground_truth({**GT, "annotations": again})["annotations"]) == 3


@pytest.mark.parametrize("crowd", [0, 1, True, False, 0.0])
def test_a_crowd_is_said_by_a_number_or_a_boolean(crowd):
    from det_ls.data.coco import read_ground_truth

    assert read_ground_truth({**GT, "annotations": [{**BOX, "iscrowd": crowd}]})["annotations"][0]["iscrowd"] == int(
        crowd
    )


@pytest.mark.parametrize(
    "value", ["1" * 400, "1" * 5000, "-" + "9" * 400, "0." + "0" * 400 + "x", "{cat: " + "1" * 400 + "}", "{" * 3000]
)
def test_an_epsilon_of_many_digits(value, refused):
    error = refused("train", "model=yolo11n.yaml", "data=none.yaml", f"label_smoothing={value}")
    assert "expected" in error
    assert len(error) < 400


@pytest.mark.parametrize(
    "content", ["a: [1", "- 1\n- 2", "just words", "a: " + "[" * 5000, "%", "a: !!python/object:os.x 1"]
)
def test_a_broken_cfg_file(content, tmp_path, refused):
    (tmp_path / "my.yaml").write_text(content)
    for mode in ("train", "predict"):
        assert refused(mode, "cfg=my.yaml").startswith("cfg: expected a YAML mapping in a .yaml file, got 'my.yaml'")


@pytest.mark.parametrize("name", ["x" * 300 + ".yaml", "a\0b.yaml"])
def test_an_impossible_cfg_name(name, refused):
    assert refused("train", f"cfg={name}").startswith("cfg: expected a YAML file, got ")


def test_giant_fields_of_a_csv(tmp_path, refused):
    (tmp_path / "table.csv").write_text('"' + "x" * 200_000 + '",cat\ncat,1\n')
    keys = ["label_smoothing=0.1", "label_smoothing_similarity=table.csv"]
    error = refused("train", "model=yolo11n.yaml", "data=none.yaml", *keys)
    assert error.startswith("label_smoothing_similarity: table.csv: expected a CSV file, got one that cannot be read")
    (tmp_path / "groups.csv").write_text("a.png," + "x" * 200_000 + "\n")
    assert refused(*metrics(), "groups=groups.csv").startswith("groups: expected 'groups.csv' to be a CSV file")


def data_yaml(folder: Path, images: str = "images", names: object = ("cat",)) -> None:
    (folder / "images").mkdir(exist_ok=True)
    content = {"path": str(folder), "train": images, "val": images, "names": list(names)}
    (folder / "data.yaml").write_text(json.dumps(content))


def test_a_list_of_images_that_is_not_utf8(tmp_path, refused):
    data_yaml(tmp_path, "list.txt")
    (tmp_path / "list.txt").write_bytes("images/ü.png\n".encode("latin-1"))
    error = refused("metrics", "data=data.yaml", "predictions=dt.json", "save_dir=out")
    assert error.startswith("images: expected UTF-8 text in ")


def png_header(width: int, height: int) -> bytes:
    """Return a PNG that claims a size and holds next to nothing: a decompression bomb."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0" * 99)) + chunk(b"IEND", b"")
    )


def test_a_decompression_bomb(tmp_path, refused):
    data_yaml(tmp_path)
    (tmp_path / "images" / "bomb.png").write_bytes(png_header(50_000, 50_000))
    error = refused("metrics", "data=data.yaml", "predictions=dt.json", "save_dir=out")
    assert error.startswith("images: expected an image, got '")


def test_class_names_that_are_the_same_twice_are_refused_before_training(tmp_path, refused):
    data_yaml(tmp_path, names=("cat", "dog", "cat"))
    error = refused("train", "model=yolo11n.yaml", "data=data.yaml", "label_smoothing=0.1", "project=runs", "name=x")
    assert error.startswith("data: expected different names in '")
    assert error.endswith("got 'cat' repeatedly.")


@pytest.mark.parametrize("name", ["a.pt", "a.onnx"])
@pytest.mark.parametrize("content", [b"", b"no model", b"PK\x03\x04" + b"\0" * 99, b"\x80\x04N."])
def test_a_file_that_holds_no_model(name, content, tmp_path, refused):
    if name.endswith("onnx"):
        pytest.importorskip("onnxruntime")
    (tmp_path / name).write_bytes(content)
    data_yaml(tmp_path)
    assert refused("val", f"model={name}", "data=data.yaml", "save_dir=out").startswith("model: expected a readable ")


def test_names_with_control_characters_leave_the_pictures_and_pages_well_formed(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names = ["a\0b\x1b[0m", "<b>&--", "half \ud800", "two\nlines", "$x^$", "\uffff"]
    gt = {**GT, "categories": [{"id": i, "name": name} for i, name in enumerate(names, start=1)]}
    boxes = [{**BOX, "id": i, "category_id": i, "bbox": [i, 1, 5, 5]} for i in range(1, 7)]
    words = metrics(**{"gt.json": {**gt, "annotations": boxes}, "dt.json": [{**b, "score": 0.9} for b in boxes]})
    assert cli.main(words) == 0
    pictures = list((tmp_path / "out").rglob("*.svg"))
    assert pictures
    for file in pictures:
        xml.dom.minidom.parse(str(file))
    written = json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert list(written["ap_per_class"])[:2] == ["a\ufffdb\ufffd[0m", "<b>&--"]
    page = (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    assert "\0" not in page
    assert "\x1b" not in page
