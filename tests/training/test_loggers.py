# SPDX-License-Identifier: AGPL-3.0-or-later
"""The epsilon of each epoch and the keys arrive in TensorBoard, W&B and MLflow, and are read back from their files."""

from __future__ import annotations

import importlib.util
import json
import os
import struct
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
LIBRARIES = ("tensorboard", "wandb", "mlflow")
SCRIPT = """
import sys
from ultralytics import settings
settings.update({name: True for name in sys.argv[3].split(",")})
import det_ls
det_ls.YOLO("yolo11n.yaml").train(
    data=sys.argv[1], project=sys.argv[2], name="logged", label_smoothing={"default": 0.1, "red": 0.3},
    label_smoothing_schedule="linear", epochs=3, imgsz=64, batch=4, device="cpu", workers=0, plots=False, amp=False,
)
"""
RED = "label_smoothing/red"
EPSILONS = [0.3, 0.15, 0.0]


def needs(library: str):
    installed = importlib.util.find_spec(library) is not None
    return pytest.mark.skipif(not installed, reason=f"{library} is not installed: pip install 'det-ls[loggers]'")


@pytest.fixture(scope="module")
def logged(tiny, tmp_path_factory):
    """The folder in which a run was started that logs to every logger that is installed; outside of pytest, where
    Ultralytics does log."""
    folder = tmp_path_factory.mktemp("loggers")
    settings = {"YOLO_CONFIG_DIR": str(folder / "settings"), "WANDB_MODE": "offline", "WANDB_SILENT": "true"}
    settings |= {"MLFLOW_TRACKING_URI": f"sqlite:///{folder / 'mlflow.db'}", "PYTHONPATH": str(ROOT)}
    settings |= {"MLFLOW_EXPERIMENT_NAME": "smoothing"}
    environment = {k: v for k, v in os.environ.items() if not k.startswith("PYTEST")} | settings
    installed = [name for name in LIBRARIES if importlib.util.find_spec(name)]
    words = [sys.executable, "-c", SCRIPT, str(tiny), str(folder / "runs"), ",".join(installed)]
    done = subprocess.run(words, env=environment, cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    return folder


@needs("tensorboard")
def test_tensorboard_has_the_epsilon_of_each_epoch(logged):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(logged / "runs" / "logged"))
    events.Reload()
    assert [event.value for event in events.Scalars(RED)] == pytest.approx(EPSILONS)
    assert [event.step for event in events.Scalars(RED)] == [1, 2, 3]


@needs("mlflow")
def test_mlflow_has_the_epsilon_of_each_epoch_and_the_keys(logged):
    from mlflow.tracking import MlflowClient

    client = MlflowClient(f"sqlite:///{logged / 'mlflow.db'}")
    (experiment,) = client.search_experiments(filter_string="name = 'smoothing'")
    (run,) = client.search_runs([experiment.experiment_id])
    assert run.data.params["label_smoothing"] == "{'default': 0.1, 'red': 0.3}"
    assert run.data.params["label_smoothing_schedule"] == "linear"
    history = sorted(client.get_metric_history(run.info.run_id, RED), key=lambda metric: metric.step)
    assert [metric.value for metric in history] == pytest.approx(EPSILONS)


def records_of(file: Path):
    """Read a run's records from its file: LevelDB's log format behind a header, each record a protocol buffer."""
    from wandb.proto.wandb_internal_pb2 import Record

    data, position, whole = file.read_bytes(), 7, b""
    while position + 7 <= len(data):
        left = 32768 - position % 32768
        if left < 7:  # the rest of a block that holds no record's beginning
            position += left
            continue
        size, kind = struct.unpack_from("<HB", data, position + 4)
        whole += data[position + 7 : position + 7 + size]
        position += 7 + size
        if kind in {1, 4}:  # a whole record, or the last part of one
            record = Record()
            record.ParseFromString(whole)
            yield record
            whole = b""


@needs("wandb")
def test_wandb_has_the_epsilon_of_each_epoch_and_the_keys(logged):
    (file,) = logged.glob("**/offline-run-*/*.wandb")
    epsilons, config = [], {}
    for record in records_of(file):
        epsilons += [json.loads(item.value_json) for item in record.history.item if RED in (item.key, *item.nested_key)]
        config |= {item.key: json.loads(item.value_json) for item in record.run.config.update}
    assert epsilons == pytest.approx(EPSILONS)
    assert config["label_smoothing"] == {"default": 0.1, "red": 0.3}
    assert config["label_smoothing_schedule"] == "linear"
