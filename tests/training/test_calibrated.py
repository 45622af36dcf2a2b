# SPDX-License-Identifier: AGPL-3.0-or-later
"""The key calibrate: the run writes best_calibrated.pt beside a best.pt that it leaves alone, or says why not."""

from __future__ import annotations

import functools
import json
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import ultralytics
import yaml
from ultralytics.utils.patches import torch_load

import det_ls
from det_ls.base.folders import claim_folder
from det_ls.calibration.fold import KEY
from det_ls.cli import main as cli
from det_ls.cli.train import passthrough
from det_ls.losses.families import smoothed_criterion
from det_ls.training.calibrated import calibrate_run


def checkpoint(folder: Path, name: str) -> dict:
    return torch_load(folder / "weights" / name, map_location="cpu")


def assert_calibrated(folder: Path) -> None:
    """The file is best.pt with its class scores mapped as its record says, and best.pt has no record."""
    best, calibrated = checkpoint(folder, "best.pt"), checkpoint(folder, "best_calibrated.pt")
    assert KEY not in best
    record = calibrated[KEY]
    assert (record["split"], record["source"]) == ("val", "best.pt")
    x = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        before, after = (c["model"].float().eval()(x)[0] for c in (best, calibrated))
    assert torch.equal(before[:, :4], after[:, :4])
    a, b = record["map"]["a"][0], record["map"]["b"][0]
    assert torch.allclose(after[:, 4:], torch.sigmoid(a * torch.logit(before[:, 4:].double()) + b).float(), atol=1e-5)
    assert json.loads((folder / "calibration.json").read_text())["record"]["split"] == "val"
    assert yaml.safe_load((folder / "args.yaml").read_text())["calibrate"] == "val"


@pytest.mark.parametrize("way", ["keyword", "yaml", "command line", "trainer"])
def test_every_way_in_writes_the_file(way, tiny, quick, tmp_path):
    arguments = {**quick, "data": str(tiny), "name": "run"}
    key = {"calibrate": "val", "label_smoothing": 0.1 if way == "yaml" else 0}
    if way == "keyword":
        det_ls.YOLO("yolo11n.yaml").train(**key, **arguments)
    elif way == "trainer":
        ultralytics.YOLO("yolo11n.yaml").train(trainer=det_ls.DetectionTrainer, **key, **arguments)
    elif way == "yaml":
        file = tmp_path / "cfg.yaml"
        file.write_text(yaml.safe_dump({**key, **arguments, "model": "yolo11n.yaml", "task": "detect"}))
        passthrough(["train", f"cfg={file}"])
    else:
        words = [f"{k}={v}" for k, v in {**arguments, **key}.items()]
        assert cli.main(["train", "model=yolo11n.yaml", *words]) == 0
    assert_calibrated(tmp_path / "runs" / "run")


class Interrupted(BaseException):
    """Stands for KeyboardInterrupt without pytest's special treatment of it."""


def stop(trainer) -> None:
    if trainer.epoch == 0:
        raise Interrupted


def test_a_resumed_run_goes_on_with_the_key(tiny, quick, tmp_path):
    model = det_ls.YOLO("yolo11n.yaml")
    model.add_callback("on_model_save", stop)
    with pytest.raises(Interrupted):
        model.train(data=str(tiny), calibrate="val", name="run", **{**quick, "epochs": 2})
    folder = tmp_path / "runs" / "run"
    assert not (folder / "weights" / "best_calibrated.pt").exists()
    det_ls.YOLO(str(folder / "weights" / "last.pt")).train(resume=True)
    assert_calibrated(folder)


def test_a_calibration_that_fails_leaves_the_run_and_nothing_stale(tiny, quick, tmp_path, monkeypatch, log):
    folder = tmp_path / "runs" / "run"
    (folder / "weights").mkdir(parents=True)
    (folder / "weights" / "best_calibrated.pt").write_bytes(b"of an earlier run")

    def fails(*args, **kwargs):
        raise TypeError("nobody thought of this")

    monkeypatch.setattr("det_ls.calibration.calibrate.calibrate", fails)
    det_ls.YOLO("yolo11n.yaml").train(data=str(tiny), calibrate="val", name="run", exist_ok=True, **quick)
    assert (folder / "weights" / "best.pt").is_file()
    assert not (folder / "weights" / "best_calibrated.pt").exists()
    assert "best_calibrated.pt was not written, best.pt is as it was: TypeError: nobody thought of this" in "\n".join(
        log
    )


def test_the_calibration_of_an_earlier_best_goes_with_it(tiny, quick, tmp_path, log):
    folder = tmp_path / "runs" / "run"
    (folder / "weights").mkdir(parents=True)
    earlier = [folder / "weights" / "best_calibrated.pt", folder / "map.json", folder / "calibration.json"]
    for file in earlier:
        file.write_bytes(b"of an earlier run")
    det_ls.YOLO("yolo11n.yaml").train(data=str(tiny), name="run", exist_ok=True, **quick)
    assert (folder / "weights" / "best.pt").is_file()
    assert not [file for file in earlier if file.exists()]
    said = [message for message in log if "removed best_calibrated.pt, map.json, calibration.json" in message]
    assert len(said) == 1


def test_a_run_whose_folder_is_at_work_leaves_that_calibration_alone(tmp_path, log):
    (tmp_path / "best_calibrated.pt").write_bytes(b"of the one at work")
    args = SimpleNamespace(data="d.yaml", imgsz=64, iou=0.7, max_det=300, workers=0)
    trainer = SimpleNamespace(best=tmp_path / "best.pt", save_dir=tmp_path, args=args, batch_size=2, device="cpu")
    with claim_folder(tmp_path):
        calibrate_run(trainer, "val")
    assert (tmp_path / "best_calibrated.pt").read_bytes() == b"of the one at work"
    assert "best_calibrated.pt was not written, best.pt is as it was: save_dir: expected a folder" in "\n".join(log)


def test_after_an_interruption_the_run_is_not_resumed_but_calibrated(tiny, quick, tmp_path, monkeypatch, capsys):
    def interrupt(*args, **kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr("det_ls.calibration.calibrate.calibrate", interrupt)
    words = [f"{key}={value}" for key, value in {**quick, "data": tiny, "name": "run", "calibrate": "val"}.items()]
    assert cli.main(["train", "model=yolo11n.yaml", *words]) == 130
    error = capsys.readouterr().err
    best = tmp_path / "runs" / "run" / "weights" / "best.pt"
    assert "resume" not in error
    command = error.split("calibrate it with: ")[1].split()
    assert command[:2] == ["det-ls", "calibrate"]
    assert {f"model={best}", f"data={tiny}", "split=val", "imgsz=64"} <= set(command)
    monkeypatch.undo()
    assert cli.main([*command[1:], "workers=0", "device=cpu", "bootstrap=0", f"save_dir={tmp_path / 'out'}"]) == 0
    assert best.with_name("best_calibrated.pt").is_file()


@pytest.mark.parametrize(
    ("model", "arguments", "message"),
    [
        ("yolo11n.yaml", {"calibrate": "train"}, "calibrate: expected one of val, test, got 'train'."),
        ("yolo11n.yaml", {"calibrate": True}, "calibrate: expected one of val, test, got True."),
        ("yolo11n.yaml", {"calibrate": "test"}, "got 'test', which 'data.yaml' does not have"),
        ("yolo11n.yaml", {"calibrate": "val", "single_cls": True}, "got single_cls=True"),
        ("yolo11n-cls.yaml", {"calibrate": "val"}, "calibrate: expected a task among detect, segment, pose, got 'cla"),
        ("yolo11n-obb.yaml", {"calibrate": "val"}, "calibrate: expected a task among detect, segment, pose, got 'obb'"),
        ("yolov8s-worldv2.yaml", {"calibrate": "val"}, "got one of the family World"),
        ("yolo11n.yaml", {"calibrate": "val", "trainer": ultralytics.models.yolo.detect.DetectionTrainer}, "calibrate"),
    ],
)
def test_where_it_has_no_meaning_it_is_refused_before_any_work(model, arguments, message, tiny, quick, tmp_path):
    with pytest.raises(ValueError, match="calibrate") as caught:
        built(model).train(data=str(tiny), **quick, **arguments)
    assert message in str(caught.value)
    assert not (tmp_path / "runs").exists()


built = functools.cache(det_ls.YOLO)


@pytest.mark.parametrize("mode", ["val", "predict", "tune", "export", "track", "benchmark"])
def test_other_modes_refuse_it(mode):
    with pytest.raises(ValueError, match="calibrate: expected in train mode only"):
        getattr(built("yolo11n.yaml"), mode)(calibrate="val")
    with pytest.raises(ValueError, match="calibrate: expected in train mode only"):
        smoothed_criterion(built("yolo11n.yaml").model, calibrate="val")
