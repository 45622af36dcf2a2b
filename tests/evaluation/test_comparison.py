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
from det_ls.metrics.catalogue import DECLARED, HEADLINE
from det_ls.report.measured import LEADING, OF_ALL
from det_ls.report.outputs import COMPARISON_FILES, EVALUATION_FILES


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
    lines = printed.splitlines()
    for key in HEADLINE:
        assert metrics[key] == expected[key]
        assert any(line.startswith(f"{key:>14}  {metrics[key]:>9.4f}") for line in lines), key
    for _, key in LEADING[2:]:
        assert metrics["kept"][key] == expected["kept"][key]
        assert any(line.startswith(f"{key:>14}  {metrics['kept'][key]:>9.4f}") for line in lines), key
    assert set(metrics["intervals"]) >= {"AP", "LaECE0", "signed_gap"}
    for name in EVALUATION_FILES:
        content = (out / name).read_bytes()
        assert {"png": b"\x89PNG", "svg": b"<svg"}.get(name[-3:], b"") in content, name
    assert metrics["kept"]["thresholds"]["common"] > 0
    assert f"conf={metrics['kept']['thresholds']['common']:g}" in printed
    page = (out / "report.html").read_text()
    assert "<html" in page
    assert "http://" not in page.replace("http://www.w3.org", "")


@pytest.mark.usefixtures("without_pictures")
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
    assert f"without results unless exist_ok, got '{there}' in" in error
    assert [f for f in (tmp_path / "out").rglob("*") if f.is_file()] == [file]
    assert cli.main([mode, *words, f"save_dir={tmp_path / 'out'}", "exist_ok=True"]) == 2
    assert "does not exist" in capsys.readouterr().err  # the next thing that is wrong


@pytest.mark.usefixtures("without_pictures")
def test_the_printed_table_says_what_each_number_counts_and_how(files, tmp_path, capsys):
    gt, dt = files
    words = ["metrics", f"annotations={gt}", f"predictions={dt}", f"save_dir={tmp_path / 'out'}", "bootstrap=100"]
    assert cli.main(words) == 0
    lines = capsys.readouterr().out.splitlines()
    metrics = json.loads((tmp_path / "out" / "metrics.json").read_text())
    start = next(i for i, line in enumerate(lines) if line.startswith("protocol det_ls; "))
    assert "\n".join(lines[start:-1]).isascii()  # a console may know nothing else
    for part in (
        "matching COCO greedy, at most 100 detections an image and class",
        "true positives from IoU 0.5",
        "DECE 20 equal-width and LaECE 25 equal-width bins",
        f"{metrics['n_images']} images, {metrics['n_gt']} objects, {metrics['counts']['detections']} detections",
    ):
        assert part in lines[start]
    whole = [i for i, line in enumerate(lines) if line.startswith(f"all {metrics['counts']['detections']} boxes that")]
    (kept,) = [
        i for i, line in enumerate(lines) if line.startswith(f"kept boxes ({metrics['kept']['counts']['boxes']})")
    ]
    assert start < whole[0] < kept < whole[1]
    assert "score below 0.05" in lines[whole[1]]
    rows = {
        "kept": {line.split()[0]: line for line in lines[kept + 1 : whole[1]]},
        "all": {line.split()[0]: line for line in (*lines[whole[0] + 1 : kept], *lines[whole[1] + 1 :])},
    }
    assert list(rows["kept"]) == [key for population, key in LEADING if population == "kept"]
    for population, key in (*LEADING, *OF_ALL):
        source = metrics["kept"] if population == "kept" else metrics
        interval = source["intervals"].get(key)
        assert ("*" in rows[population][key]) == (interval is not None and interval["of"] == "estimator"), key
    assert "  > 0  25 equal-width" in rows["kept"]["LaECE0"]
    assert "  >= 0.5  20 equal-width" in rows["all"]["DECE"]
    assert "  0.50:0.95" in rows["all"]["AP"]
    assert "* uncertainty of the estimator, which is biased upwards; not where the true error lies" in lines
    assert any(line.startswith("operating point: conf=") or "one a class" in line for line in lines)
    assert cli.main([*words, "bootstrap=0", "exist_ok=True"]) == 0
    assert "*" not in capsys.readouterr().out


@pytest.mark.usefixtures("without_pictures")
def test_thresholds_levels_and_groups_are_words_too(files, tmp_path, capsys):
    gt, dt = files
    content = json.loads(gt.read_text())
    content["images"] = [{**image, "file_name": f"{image['id']}.jpg"} for image in content["images"]]
    gt.write_text(json.dumps(content))
    table = tmp_path / "groups.csv"
    rows = [f"{image['file_name']},{i // 2}" for i, image in enumerate(content["images"])]
    table.write_text("\n".join(["image,group", *rows]))
    words = ["metrics", f"annotations={gt}", f"predictions={dt}", "bootstrap=100", "simulations=5", "level=0.9"]
    out = tmp_path / "a"
    assert cli.main([*words, "threshold=0.3", f"groups={table}", f"save_dir={out}"]) == 0
    printed = capsys.readouterr().out
    metrics = json.loads((out / "metrics.json").read_text())
    assert metrics["intervals"]["AP"]["level"] == 0.9
    assert metrics["kept"]["thresholds"]["kind"] == "fixed"
    assert metrics["protocol"]["groups"]["n"] == (len(rows) + 1) // 2
    assert "conf=0.3" in printed
    assert "The threshold was given" in printed
    assert f"groups: {(len(rows) + 1) // 2} groups." in printed
    out = tmp_path / "b"
    assert cli.main([*words, "miss_cost=5", f"save_dir={out}"]) == 0
    assert "weigh 5 times a false alarm" in capsys.readouterr().out
    for key in ("level", "simulations", "threshold", "miss_cost", "groups", "split_thresholds"):
        assert f"{key}=" in cli.HELP


def test_protocol_reference_keeps_pycocotools_minus_one_and_the_same_headline_keys(files):
    gt, dt = files
    ours, theirs = (evaluate_detections(gt, dt, protocol=p).to_dict() for p in ("det_ls", "reference"))
    assert set(HEADLINE) <= ours.keys() & theirs.keys()
    assert (ours["protocol"]["metrics"], theirs["protocol"]["metrics"]) == ("det_ls", "reference")
    with pytest.raises(ValueError, match="protocol"):
        evaluate_detections(gt, dt, protocol="mine")


@pytest.mark.usefixtures("without_pictures")
def test_the_command_line_fails_only_when_nothing_is_defined(tmp_path, capsys):
    gt = {"images": [{"id": 1, "width": 9, "height": 9}], "annotations": [], "categories": [{"id": 1, "name": "a"}]}
    (tmp_path / "gt.json").write_text(json.dumps(gt))
    (tmp_path / "dt.json").write_text("[]")
    words = ["metrics", f"annotations={tmp_path / 'gt.json'}", f"predictions={tmp_path / 'dt.json'}", "bootstrap=100"]
    assert cli.main([*words, f"save_dir={tmp_path / 'none'}"]) == 2
    assert "expected at least one number to be defined" in capsys.readouterr().err
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
    assert pair.comparisons.kept["signed_gap"].differs
    assert pair.comparisons.kept["signed_gap"].difference < 0
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
    lines = capsys.readouterr().out.splitlines()
    first = next(i for i, line in enumerate(lines) if line.startswith("Training seeds were not measured"))
    after = [line.split()[0] for line in lines[first + 4 : first + 6]]
    assert lines[first + 3] == "declared in advance"
    assert after == [key for _, key in DECLARED]
    assert "\n".join(lines[first:-1]).isascii()
    assert any(line.startswith("          DECE   kept") and line.endswith("no verdict") for line in lines)
    for name in COMPARISON_FILES:
        assert (out / name).is_file()
    assert "<html" in (out / "report.html").read_text()
    assert cli.main(words) == 2


def test_several_runs_an_arm_are_compared_over_seeds(files, tmp_path, capsys):
    gt, dt = files
    rng = np.random.default_rng(0)
    content = json.loads(dt.read_text())
    for arm, power in (("stock", 1.0), ("smooth", 2.0)):
        for seed in (0, 1):
            weights = tmp_path / f"{arm}_s{seed}" / "weights"
            weights.mkdir(parents=True)
            moved = [{**d, "score": float(min(1, d["score"] ** power * rng.uniform(0.9, 1)))} for d in content]
            (weights / "best.json").write_text(json.dumps(moved))
            (weights.parent / "args.yaml").write_text(f"seed: {1 - seed if arm == 'smooth' else seed}\n")
    out = tmp_path / "cmp"
    words = ["compare", f"annotations={gt}", "bootstrap=100", "simulations=5", f"save_dir={out}"]
    runs = [f"a={tmp_path}/stock*/weights/best.json", f"b={tmp_path}/smooth*/weights/best.json"]
    assert cli.main([*words, *runs]) == 0
    assert "Training seeds were measured: 2 runs an arm, paired by seed" in capsys.readouterr().out
    saved = json.loads((out / "comparison.json").read_text())
    assert saved["names"] == ["stock", "smooth"]
    assert saved["paired_by_seed"] is True
    assert [Path(run).parent.parent.name for run in saved["runs_b"]] == ["smooth_s1", "smooth_s0"]  # seeds 0 and 1
    listed = f"[{tmp_path}/smooth_s0/weights/best.json,{tmp_path}/smooth_s1/weights/best.json]"
    assert cli.main([*words, f"a={tmp_path}/stock_s0/weights/best.json", f"b={listed}", "exist_ok=True"]) == 0
    assert "Training seeds were not measured (1 and 2 runs, of which each arm needs two)" in capsys.readouterr().out
    assert cli.main([*words, f"a={tmp_path}/none*.json", f"b={listed}", "exist_ok=True"]) == 2
    assert "a: expected files that fit" in capsys.readouterr().err


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
    words = [
        "compare",
        f"a={first}",
        f"b={other}",
        f"annotations={gt}",
        "bootstrap=100",
        f"save_dir={tmp_path / 'out'}",
    ]
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
    (["compare", "a=1", "b=2", "data=x", "bootstrap=0"], "bootstrap: expected an integer of at least 100, got 0."),
    (
        ["compare", "a=1", "b=2", "data=x", "bootstrap=abc"],
        "bootstrap: expected an integer of at least 100, got 'abc'.",
    ),
    (
        ["compare", "a=1", "b=2", "data=x", "bootstrap=True"],
        "bootstrap: expected an integer of at least 100, got True.",
    ),
    (["compare", "a=1", "b=2", "data=x", "seed=-1"], "seed: expected an integer of at least 0, got -1."),
    (["compare", "a=1", "b=2", "data=x", "exist_ok=no"], "exist_ok: expected True or False, got 'no'."),
    (["val", "model=x", "data=y", "save_dir=z", "exist_ok=no"], "exist_ok: expected True or False, got 'no'."),
    (
        ["val", "model=x", "data=y", "save_dir=z", "train_images=-5"],
        "train_images: expected an integer of at least 0, got -5.",
    ),
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


def test_of_two_files_that_are_compared_both_have_to_be_there_before_one_is_measured(files, capsys, monkeypatch):
    monkeypatch.setattr("det_ls.evaluation.comparison.evaluate_detections", lambda *args, **more: pytest.fail("work"))
    assert cli.main(["compare", f"annotations={files[0]}", f"a={files[1]}", "b=none.json"]) == 2
    error = "b: expected a COCO JSON file, got 'none.json', which does not exist."
    assert capsys.readouterr().err == f"det-ls: error: {error}\n"


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


@pytest.mark.usefixtures("without_pictures")
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
