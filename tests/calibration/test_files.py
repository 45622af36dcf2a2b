# SPDX-License-Identifier: AGPL-3.0-or-later
"""COCO files in, calibrated COCO files and a map out; and the map on other files."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import det_ls
from det_ls.base.folders import claim_folder
from det_ls.calibration.files import apply_map_to_files, calibrate_detections, groups_of
from det_ls.calibration.maps import logit, map_from_dict
from det_ls.calibration.methods import FOLDING, METHODS, Recipe, fit, sample_of
from det_ls.cli import main as cli
from det_ls.metrics.matching import build_table

ROOT = Path(__file__).parents[2]
GOLDEN = Path(__file__).parents[1] / "golden" / "coco_tiny"
GT, DETECTIONS = str(GOLDEN / "gt.json"), str(GOLDEN / "detections.json")


@pytest.mark.parametrize("method", METHODS)
def test_every_method_calibrates_files_and_its_map_gives_the_same_again(method, tmp_path):
    found = det_ls.calibrate_detections(GT, DETECTIONS, method, out=tmp_path / "out.json", bootstrap=0)
    given, written = json.loads(Path(DETECTIONS).read_text()), json.loads((tmp_path / "out.json").read_text())
    assert [{**r, "score": 0} for r in given] == [{**r, "score": 0} for r in written]
    assert apply_map_to_files(tmp_path / "map.json", GT, DETECTIONS, tmp_path / "again.json") == len(given)
    assert json.loads((tmp_path / "again.json").read_text()) == written
    assert found.numbers["all"]["brier_iou"].difference < 0 or method == "temperature"
    assert json.loads((tmp_path / "calibration.json").read_text())["counts"]["images"] == 80
    assert found.folds == (method in FOLDING)


def test_the_reported_numbers_are_cross_fitted_and_the_map_is_fitted_on_all():
    found = calibrate_detections(GT, DETECTIONS, bootstrap=0, folds=2)
    table = build_table(GT, DETECTIONS)
    z, group = logit(table.score), np.arange(table.n_images)
    sample, _ = sample_of(table, z, group, Recipe())
    assert found.map == fit(sample, Recipe()).map
    in_sample = found.map(z)
    crossed = found.scores[0][table.detection]
    assert not np.allclose(crossed, in_sample, atol=1e-4)
    for image in range(table.n_images):  # one map an image
        rows = table.image == image
        moved = logit(crossed[rows])
        if rows.sum() > 3:
            slope, offset = np.polyfit(z[rows], moved, 1)
            assert np.allclose(slope * z[rows] + offset, moved, atol=1e-6)


def test_numbers_are_given_with_intervals_and_operating_points_keep_their_boxes():
    found = calibrate_detections(GT, DETECTIONS, per_class=True, bootstrap=30)
    change = found.numbers["all"]["LaECE0"]
    assert change.after < change.before
    assert change.difference_interval[1] < 0
    names = [e.name for e in found.estimates]
    assert names[0] is None
    assert "person" in names
    assert all(0 <= e.own <= 1 for e in found.estimates)
    table = build_table(GT, DETECTIONS)
    z = logit(table.score)
    for point in found.thresholds:
        rows = table.cls == table.class_names.index(point.name)
        kept = table.score[rows] >= point.before
        after = found.map(z[rows], table.cls[rows]) >= point.after - 1e-12
        assert np.array_equal(kept, after), point


def test_nothing_is_overwritten_and_arguments_are_checked_first(tmp_path):
    (tmp_path / "map.json").write_text("mine")
    with pytest.raises(FileExistsError, match=r"map\.json"):
        calibrate_detections(GT, DETECTIONS, out=tmp_path / "out.json")
    assert not (tmp_path / "out.json").exists()
    with pytest.raises(ValueError, match="method: expected one of platt"):
        calibrate_detections("none.json", "none.json", "magic")
    with pytest.raises(ValueError, match="per_class"):
        calibrate_detections("none.json", "none.json", "isotonic", per_class=True)
    with pytest.raises(ValueError, match="out: expected a file of its own"):
        calibrate_detections(GT, DETECTIONS, out=DETECTIONS, exist_ok=True)


def test_nothing_matched_is_refused():
    gt = json.loads(Path(GT).read_text())
    far = [{"image_id": gt["images"][0]["id"], "category_id": 1, "bbox": [9e4, 9e4, 5, 5], "score": 0.5}]
    with pytest.raises(ValueError, match="expected detections that match objects"):
        calibrate_detections(GT, far)


def test_scores_that_rank_the_wrong_way_are_refused():
    turned = [{**r, "score": 1 - r["score"]} for r in json.loads(Path(DETECTIONS).read_text())]
    with pytest.raises(ValueError, match="slopes above 0"):
        calibrate_detections(GT, turned)


def test_scores_that_tell_right_from_wrong_perfectly_have_no_best_map():
    gt = {
        "images": [{"id": i} for i in range(4)],
        "categories": [{"id": 1, "name": "a"}],
        "annotations": [{"id": i + 1, "image_id": i, "category_id": 1, "bbox": [0, 0, 9, 9]} for i in range(4)],
    }
    boxes = [(x, s + 0.01 * i, i) for i in range(4) for x, s in ((0, 0.8), (50, 0.2))]
    found = [{"image_id": i, "category_id": 1, "bbox": [x, 0, 9, 9], "score": s} for x, s, i in boxes]
    with pytest.raises(ValueError, match="whose scores overlap"):
        calibrate_detections(gt, found, target="tp")


def test_groups_are_in_the_order_of_the_tables_images():
    gt = {
        "images": [
            {"id": 2, "file_name": "x/7_b.png"},
            {"id": 1, "file_name": "8.png"},
            {"id": 3, "file_name": "7.png"},
        ]
    }
    assert groups_of(r"^(\d+)", gt).tolist() == [1, 0, 0]
    assert groups_of(None, gt) is None


def test_the_command_calibrates_and_applies(tmp_path, capsys):
    words = [f"annotations={GT}", f"predictions={DETECTIONS}"]
    assert cli.main(["calibrate", *words, f"out={tmp_path}/a.json", "per_class=True", "bootstrap=20"]) == 0
    text = capsys.readouterr().out
    assert "LaECE0" in text
    assert "cross-fitted over 80 groups" in text
    assert cli.main(["calibrate", *words, f"out={tmp_path}/b.json", f"map={tmp_path}/map.json"]) == 0
    assert (tmp_path / "a.json").read_bytes() == (tmp_path / "b.json").read_bytes()
    assert len(map_from_dict(json.loads((tmp_path / "map.json").read_text())).a) == 80
    capsys.readouterr()
    assert cli.main(["calibrate", *words, f"out={tmp_path}/b.json", f"map={tmp_path}/map.json"]) == 2
    assert "without exist_ok" in capsys.readouterr().err
    assert cli.main(["calibrate", *words, "colour=red", f"out={tmp_path}/c.json"]) == 2
    assert "colour" in capsys.readouterr().err


@pytest.mark.parametrize("taken", ["gt.json", "det.json", "map.json", "calibration.json"])
def test_results_never_replace_what_is_read_or_written_as_another_file(taken, tmp_path):
    for name, source in (("gt.json", GT), ("det.json", DETECTIONS)):
        (tmp_path / name).write_text(Path(source).read_text())
    before = (tmp_path / "gt.json").read_text()
    with pytest.raises(ValueError, match="out: expected a file of its own"):
        calibrate_detections(tmp_path / "gt.json", tmp_path / "det.json", out=tmp_path / taken, exist_ok=True)
    assert (tmp_path / "gt.json").read_text() == before
    assert not (tmp_path / "map.json").exists()


def test_images_without_detections_are_groups_too(tmp_path):
    gt, detections = json.loads(Path(GT).read_text()), json.loads(Path(DETECTIONS).read_text())
    last = max(image["id"] for image in gt["images"])
    fewer = [d for d in detections if d["image_id"] != last]
    found = calibrate_detections(gt, fewer, bootstrap=0)
    assert found.counts["groups"] == found.counts["images"] == 80


def test_a_folder_where_another_calibration_is_at_work_is_refused(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("det_ls.calibration.files.coco_evaluate", lambda *a, **k: pytest.fail("the work began"))
    words = [f"annotations={GT}", f"predictions={DETECTIONS}"]
    with claim_folder(tmp_path):
        with pytest.raises(FileExistsError, match="out: expected a folder of its own, got .* another run is at work"):
            calibrate_detections(GT, DETECTIONS, out=tmp_path / "out.json")
        with pytest.raises(FileExistsError, match="save_dir: expected a folder of its own"):
            calibrate_detections(GT, DETECTIONS, save_dir=tmp_path)
        assert cli.main(["calibrate", *words, f"out={tmp_path}/a.json"]) == 2
    assert "where another run is at work" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_parallel_calibrations_share_no_folder(tmp_path):
    words = [f"annotations={GT}", f"predictions={DETECTIONS}", "bootstrap=20", f"save_dir={tmp_path / 'run'}"]
    command = [sys.executable, "-m", "det_ls", "calibrate", *words]
    runs = [
        subprocess.Popen([*command, f"out={tmp_path / name}"], cwd=ROOT, stderr=-1, stdout=-1)
        for name in ("a.json", "b.json")
    ]
    done = [(run.communicate(), run.returncode) for run in runs]
    assert sorted(status for _, status in done) == [0, 2]
    [error] = [err.decode() for (_, err), status in done if status]
    assert "save_dir: expected a folder" in error
    assert sorted(path.name for path in (tmp_path / "run").iterdir()) == ["calibration.json", "map.json", "report.html"]
    assert sum((tmp_path / name).exists() for name in ("a.json", "b.json")) == 1


def test_a_page_that_fails_leaves_the_old_result_whole(tmp_path, monkeypatch):
    words = ["calibrate", f"annotations={GT}", f"predictions={DETECTIONS}", "bootstrap=0", f"save_dir={tmp_path}"]
    assert cli.main([*words, f"out={tmp_path}/a.json"]) == 0
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}

    def fail(*args, **kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr("det_ls.report.calibration_page.write_calibration", fail)
    assert cli.main([*words, "method=beta", f"out={tmp_path}/b.json", "exist_ok=True"]) == 130
    (tmp_path / "b.json").unlink()
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before
    assert cli.main([*words, f"out={tmp_path}/report.html", "exist_ok=True"]) == 2
