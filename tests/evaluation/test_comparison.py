# SPDX-License-Identifier: AGPL-3.0-or-later
"""The evaluating modes of the command line, and two detectors on the same images."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from hard_set import hard_set

from det_ls import evaluate_detections
from det_ls.cli import main as cli
from det_ls.evaluation.comparison import _names, compare
from det_ls.metrics.catalogue import HEADLINE


@pytest.fixture
def files(tmp_path) -> tuple[Path, Path]:
    gt, detections = hard_set()
    (tmp_path / "gt.json").write_text(json.dumps(gt))
    (tmp_path / "dt.json").write_text(json.dumps(detections))
    return tmp_path / "gt.json", tmp_path / "dt.json"


def test_metrics_writes_numbers_and_report_and_prints_each_headline(files, tmp_path, capsys):
    gt, dt = files
    out = tmp_path / "out"
    assert cli.main(["metrics", f"annotations={gt}", f"predictions={dt}", f"save_dir={out}", "bootstrap=100"]) == 0
    printed = capsys.readouterr().out
    metrics = json.loads((out / "metrics.json").read_text())
    expected = evaluate_detections(gt, dt).to_dict()
    for key in HEADLINE:
        assert metrics[key] == expected[key]
        assert f"{key:>12}  {metrics[key]:>9.4f}" in printed
    assert set(metrics["intervals"]) >= {"AP", "LaECE0", "signed_gap"}
    for picture in ("reliability", "froc", "miss_rate", "class_gaps", "threshold_curve", "reliability_by_size"):
        assert (out / "pictures" / f"{picture}.png").read_bytes().startswith(b"\x89PNG")
        assert "<svg" in (out / "pictures" / f"{picture}.svg").read_text()
    page = (out / "report.html").read_text()
    assert "<html" in page
    assert "http://" not in page.replace("http://www.w3.org", "")


def test_nothing_is_overwritten_without_being_told(files, tmp_path, capsys):
    gt, dt = files
    words = ["metrics", f"annotations={gt}", f"predictions={dt}", f"save_dir={tmp_path / 'out'}", "bootstrap=0"]
    assert cli.main(words) == 0
    before = (tmp_path / "out" / "metrics.json").stat().st_mtime_ns
    assert cli.main(words) == 2
    assert "exist_ok" in capsys.readouterr().err
    assert (tmp_path / "out" / "metrics.json").stat().st_mtime_ns == before
    assert cli.main([*words, "exist_ok=True"]) == 0


@pytest.mark.parametrize("there", ["report.html", "pictures/froc.svg", "predictions.json"])
@pytest.mark.parametrize("mode", ["metrics", "val", "compare"])
def test_whatever_a_mode_would_write_is_checked_before_any_work(mode, there, tmp_path, capsys):
    there = {"pictures/froc.svg": "comparison.json"}.get(there, there) if mode == "compare" else there
    there = "b/predictions.json" if (mode, there) == ("compare", "predictions.json") else there
    file = tmp_path / "out" / there
    file.parent.mkdir(parents=True)
    file.write_text("precious")
    words = {
        "metrics": ["annotations=none.json", "predictions=none.json"],
        "val": ["model=none.pt", "data=none.yaml"],
        "compare": ["a=none.json", "b=none.json", "annotations=none.json"],
    }[mode]
    assert cli.main([mode, *words, f"save_dir={tmp_path / 'out'}"]) == 2
    error = capsys.readouterr().err
    assert f"without results unless exist_ok, got '{file.name if mode == 'compare' else there}' in" in error
    assert [f for f in (tmp_path / "out").rglob("*") if f.is_file()] == [file]
    assert cli.main([mode, *words, f"save_dir={tmp_path / 'out'}", "exist_ok=True"]) == 2
    assert "does not exist" in capsys.readouterr().err  # the next thing that is wrong


def test_the_printed_table_says_how_each_number_was_counted(files, tmp_path, capsys):
    gt, dt = files
    words = ["metrics", f"annotations={gt}", f"predictions={dt}", f"save_dir={tmp_path / 'out'}", "bootstrap=100"]
    assert cli.main(words) == 0
    printed = capsys.readouterr().out
    lines = printed.splitlines()
    assert "\n".join(lines[-len(HEADLINE) :]).isascii()  # a console may know nothing else
    metrics = json.loads((tmp_path / "out" / "metrics.json").read_text())
    first = next(line for line in lines if line.startswith("protocol det_ls; "))
    for part in (
        "matching COCO greedy, at most 100 detections an image and class",
        "true positives from IoU 0.5",
        "DECE 20 equal-width and LaECE 25 equal-width bins",
        f"{metrics['n_images']} images, {metrics['n_gt']} objects, {metrics['counts']['detections']} detections",
    ):
        assert part in first
    rows = {line.split()[0]: line for line in lines if line.split() and line.split()[0] in HEADLINE}
    for key, row in rows.items():
        interval = metrics["intervals"].get(key)
        assert ("*" in row) == (interval is not None and interval["of"] == "estimator"), key
    assert "  > 0  25 equal-width" in rows["LaECE0"]
    assert "  >= 0.5  20 equal-width" in rows["DECE"]
    assert "  0.50:0.95" in rows["AP"]
    assert "* uncertainty of the estimator, which is biased upwards; not where the true error lies" in lines
    assert cli.main([*words, "bootstrap=0", "exist_ok=True"]) == 0
    assert "*" not in capsys.readouterr().out


def test_protocol_reference_keeps_pycocotools_minus_one_and_the_same_headline_keys(files):
    gt, dt = files
    ours, theirs = (evaluate_detections(gt, dt, protocol=p).to_dict() for p in ("det_ls", "reference"))
    assert set(HEADLINE) <= ours.keys() & theirs.keys()
    assert (ours["protocol"]["metrics"], theirs["protocol"]["metrics"]) == ("det_ls", "reference")
    with pytest.raises(ValueError, match="protocol"):
        evaluate_detections(gt, dt, protocol="mine")


def test_the_command_line_fails_only_when_nothing_is_defined(tmp_path, capsys):
    gt = {"images": [{"id": 1, "width": 9, "height": 9}], "annotations": [], "categories": [{"id": 1, "name": "a"}]}
    (tmp_path / "gt.json").write_text(json.dumps(gt))
    (tmp_path / "dt.json").write_text("[]")
    words = ["metrics", f"annotations={tmp_path / 'gt.json'}", f"predictions={tmp_path / 'dt.json'}", "bootstrap=100"]
    assert cli.main([*words, f"save_dir={tmp_path / 'none'}"]) == 2
    assert "Expected at least one number to be defined" in capsys.readouterr().err
    result = evaluate_detections(gt, [])
    assert result.stats["AP"] is None
    assert result.undefined["AP"]
    box = {"id": 1, "image_id": 1, "category_id": 1, "bbox": [0, 0, 5, 5], "area": 25, "iscrowd": 0}
    (tmp_path / "gt.json").write_text(json.dumps({**gt, "annotations": [box]}))
    assert cli.main([*words, f"save_dir={tmp_path / 'some'}"]) == 0


def test_a_detector_does_not_differ_from_itself_and_does_from_a_worse_one(files, tmp_path):
    gt, dt = files
    worse = [{**d, "score": d["score"] * 0.5} for d in json.loads(dt.read_text())]
    same = compare(dt, dt, annotations=gt, bootstrap=100)
    assert not any(d.differs for d in same.differences.values())
    assert all(d.difference == 0 for d in same.differences.values())
    pair = compare(json.loads(dt.read_text()), worse, annotations=gt, bootstrap=200, names=("whole", "half"))
    assert pair.differences["signed_gap"].differs
    assert pair.differences["signed_gap"].difference < 0
    assert pair.differences["AP"].difference == pytest.approx(0, abs=1e-12)


def test_compare_on_the_command_line_writes_a_page_and_the_differences(files, tmp_path, capsys):
    gt, dt = files
    other = tmp_path / "other.json"
    other.write_text(json.dumps([{**d, "score": round(d["score"] * 0.9, 5)} for d in json.loads(dt.read_text())]))
    out = tmp_path / "cmp"
    words = ["compare", f"a={dt}", f"b={other}", f"annotations={gt}", "bootstrap=100", f"save_dir={out}"]
    assert cli.main(words) == 0
    saved = json.loads((out / "comparison.json").read_text())
    assert saved["names"] == ["dt", "other"]
    assert saved["differences"]["signed_gap"]["difference"] < 0
    assert "signed_gap: other" in capsys.readouterr().out
    assert "<html" in (out / "report.html").read_text()
    assert cli.main(words) == 2


@pytest.mark.parametrize(
    ("a", "b", "names"),
    [
        ("r/best.pt", "r/best.torchscript", ("best.pt", "best.torchscript")),
        ("r/1/weights/best.pt", "r/2/weights/best.pt", ("1", "2")),
        ("r/one.pt", "r/two.pt", ("one", "two")),
        ("r/best.pt", "x/r/best.pt", ("a", "b")),
        ("r/best.pt", "r/best.pt", ("a", "b")),
    ],
)
def test_two_detectors_never_share_a_name(a, b, names):
    assert _names(Path(a), Path(b)) == names
    absolute = _names(f"/deep/{a}", f"/deep/{b}")
    assert absolute[0] != absolute[1]


def test_the_page_has_the_protocol_of_both_files_of_one_stem(files, tmp_path):
    gt, dt = files
    other = dt.with_suffix(".json.gz")
    other.write_bytes(gzip.compress(dt.read_bytes()))
    first = dt.rename(tmp_path / "dt.json.json")
    words = ["compare", f"a={first}", f"b={other}", f"annotations={gt}", "bootstrap=5", f"save_dir={tmp_path / 'out'}"]
    assert cli.main(words) == 0
    page = (tmp_path / "out" / "report.html").read_text()
    assert "dt.json.json · detections" in page
    assert "dt.json.gz · detections" in page


@pytest.mark.parametrize("names", [("x", "x"), ("x",), "ab", 3])
def test_given_names_have_to_be_two_and_differ(names):
    with pytest.raises((TypeError, ValueError), match="names: expected two"):
        compare("none.json", "none.json", annotations="none.json", names=names)


@pytest.mark.parametrize("key", ["save_dir", "exist_ok"])
def test_a_comparison_is_saved_by_its_own_method(key):
    with pytest.raises(TypeError, match=f"{key}: expected as an argument of the comparison's save"):
        compare("none.pt", "none.pt", "none.yaml", **{key: True})


BAD = [
    (["compare", "a=1", "b=2"], "data: expected a data set, or annotations"),
    (["compare", "a=1", "b=2", "annotations=x", "imgsz=3"], "imgsz: expected data="),
    (["compare", "a=1", "b=2", "data=x", "bootstrap=0"], "bootstrap: expected an integer of at least 1, got 0."),
    (["compare", "a=1", "b=2", "data=x", "bootstrap=abc"], "bootstrap: expected an integer of at least 1, got 'abc'."),
    (["compare", "a=1", "b=2", "data=x", "bootstrap=True"], "bootstrap: expected an integer of at least 1, got True."),
    (["compare", "a=1", "b=2", "data=x", "seed=-1"], "seed: expected an integer of at least 0, got -1."),
    (["compare", "a=1", "b=2", "data=x", "exist_ok=no"], "exist_ok: expected True or False, got 'no'."),
    (["val", "model=x", "data=y", "exist_ok=no"], "exist_ok: expected True or False, got 'no'."),
    (["val", "model=x", "data=y", "train_images=-5"], "train_images: expected an integer of at least 0, got -5."),
    (["metrics", "annotations=x", "predictions=y", "exist_ok=no"], "exist_ok: expected True or False, got 'no'."),
    (["metrics", "annotations=x", "predictions=y", "seed=abc"], "seed: expected an integer of at least 0, got 'abc'."),
    (["compare", "a=1", "data=x"], "b: expected b=... for det-ls compare, got none"),
    (["metrics", "annotations=x"], "predictions: expected predictions=... for det-ls metrics, got none"),
    (["metrics", "annotations=x", "predictions=y", "conf=1"], "conf: expected one of the keys of det-ls metrics"),
]


@pytest.mark.parametrize(("words", "message"), BAD)
def test_bad_words_are_one_sentence(words, message, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert cli.main(words) == 2
    assert f"det-ls: error: {message}" in capsys.readouterr().err


@pytest.fixture
def weights(tiny, tmp_path) -> Path:
    """An untrained model that reports boxes all the same."""
    import ultralytics
    from conftest import NAMES

    torch.manual_seed(0)
    model = ultralytics.YOLO("yolo11n.yaml").model
    model = type(model)("yolo11n.yaml", nc=len(NAMES), verbose=False)
    model.names = dict(enumerate(NAMES))
    for branch in model.model[-1].cv3:
        branch[-1].bias.data.fill_(-3.0)
    file = tmp_path / "model.pt"
    torch.save({"model": model, "train_args": {}}, file)
    return file


def test_val_measures_the_gap_between_train_and_val(weights, tiny, tmp_path, capsys):
    out = tmp_path / "val"
    words = [
        "val",
        f"model={weights}",
        f"data={tiny}",
        "imgsz=64",
        "train_images=3",
        "bootstrap=100",
        f"save_dir={out}",
    ]
    assert cli.main(words) == 0
    metrics = json.loads((out / "metrics.json").read_text())
    assert metrics["train"]["n_images"] == 3
    assert metrics["train_minus_val"]["brier"] == pytest.approx(metrics["train"]["brier"] - metrics["brier"])
    assert "train minus val: " in capsys.readouterr().out
    page = (out / "report.html").read_text()
    assert "Train (3 images)" in page
    again = json.loads((out / "predictions.json").read_text())
    assert np.isfinite([d["score"] for d in again]).all()
