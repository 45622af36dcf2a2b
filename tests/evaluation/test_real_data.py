# SPDX-License-Identifier: AGPL-3.0-or-later
"""Real images, where they are present: train and evaluate through the command line."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from det_ls.cli import main as cli

ROOT = Path(__file__).parents[2]
QUICK = ["batch=16", "workers=0", "plots=False", "amp=False", "device=cpu", "seed=1", "val=False"]


@pytest.fixture
def brain_tumor(shared_data, tmp_path, monkeypatch) -> Path:
    """The brain-tumor set where Ultralytics may write its caches beside the labels."""
    shutil.copytree(shared_data / "brain-tumor", tmp_path / "data" / "brain-tumor")
    monkeypatch.setenv("DET_LS_DATA", str(tmp_path / "data"))
    return ROOT / "datasets" / "brain-tumor.yaml"


def test_brain_tumor_trains_and_evaluates_through_the_command_line(brain_tumor, tmp_path, capsys):
    train = ["train", "model=yolo26n.yaml", f"data={brain_tumor}", "label_smoothing=0.1", "imgsz=160", "epochs=3"]
    assert cli.main([*train, *QUICK, "fraction=0.2", f"project={tmp_path / 'runs'}", "name=bt"]) == 0
    best = tmp_path / "runs" / "bt" / "weights" / "best.pt"
    out = tmp_path / "val"
    assert cli.main(["val", f"model={best}", f"data={brain_tumor}", "imgsz=160", f"save_dir={out}"]) == 0
    metrics = json.loads((out / "metrics.json").read_text())
    assert metrics["n_images"] == 223
    assert metrics["n_gt"] == 241
    assert 0 <= metrics["AP"] <= metrics["AP50"] <= 1
    assert (out / "predictions.json").is_file()
    assert "AP50" in capsys.readouterr().out


def test_coco_with_its_official_annotations_through_train_coco(shared_data, tmp_path):
    data = tmp_path / "coco-tiny"
    make = [
        sys.executable,
        str(ROOT / "scripts" / "coco_to_yolo.py"),
        f"source={shared_data / 'coco-tiny'}",
        f"out={data}",
    ]
    subprocess.run(make, check=True, capture_output=True)
    words = ["model=yolo11n.yaml", f"data={data / 'data.yaml'}", "label_smoothing=0.1", "imgsz=96", "epochs=1", *QUICK]
    done = subprocess.run(
        [sys.executable, str(ROOT / "scripts" / "train_coco.py"), *words, f"project={tmp_path / 'runs'}", "name=coco"],
        capture_output=True,
        text=True,
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    metrics = json.loads((tmp_path / "runs" / "coco" / "coco" / "metrics.json").read_text())
    official = json.loads((shared_data / "coco-tiny" / "annotations" / "instances_val2017.json").read_text())
    assert metrics["n_images"] == len(official["images"]) == 80
    assert metrics["n_gt"] == sum(not a["iscrowd"] for a in official["annotations"])
    assert len(metrics["ap_per_class"]) == 80
