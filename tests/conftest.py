# SPDX-License-Identifier: AGPL-3.0-or-later
"""What every test shares: no user's settings are touched, no network is needed, data sets are made on the spot."""

from __future__ import annotations

import functools
import importlib.util
import logging
import os
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

# Before Ultralytics is imported anywhere: its settings, fonts and DDP files go to a folder of the test run.
os.environ["YOLO_CONFIG_DIR"] = tempfile.mkdtemp(prefix="det-ls-tests-")
os.environ.setdefault("YOLO_OFFLINE", "True")
os.environ.setdefault("YOLO_AUTOINSTALL", "False")
os.environ.setdefault("OMP_NUM_THREADS", "1")
SHARED_DATA = Path(os.environ.pop("DET_LS_DATA", "") or Path(__file__).parents[2] / "shared" / "data")

import cv2  # noqa: E402
import numpy as np  # noqa: E402
import pytest  # noqa: E402
import torch  # noqa: E402
import yaml  # noqa: E402

NAMES = ("red", "green", "blue")
LOGGERS = ("tensorboard", "wandb", "mlflow")
TRAIN_ONCE = {
    "test_afterwards", "test_calibrate", "test_classify", "test_evaluate", "test_fold_models",
    "test_loggers", "test_on_gpu", "test_predictions", "test_sources", "test_task_models", "test_training_record",
}  # fmt: skip


@pytest.hookimpl(tryfirst=True)  # before xdist reads the groups
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Keep tests that share a training on one worker; of those that want something absent, one skips for all."""
    for item in items:
        if item.path.stem in TRAIN_ONCE:
            item.add_marker(pytest.mark.xdist_group(item.path.stem))
    absent = {
        "shared_data": None if SHARED_DATA.is_dir() else "no real data beside the repository (or in DET_LS_DATA)",
        "tidecv": None if importlib.util.find_spec("tidecv") else "tidecv is not installed",
        "gpu": None if torch.cuda.is_available() or "DET_LS_TEST_DEVICE" in os.environ else "no CUDA device",
        "logged": None if any(map(importlib.util.find_spec, LOGGERS)) else "none of the extra 'loggers' is installed",
    }
    for fixture, reason in absent.items():
        wanting = [item for item in items if reason and fixture in getattr(item, "fixturenames", ())]
        if wanting:
            wanting[0].add_marker(pytest.mark.skip(reason=f"{reason}: {len(wanting)} tests"))
            config.hook.pytest_deselected(items=wanting[1:])
            items[:] = [item for item in items if item not in wanting[1:]]


@pytest.fixture(scope="session", autouse=True)
def quick_libraries() -> None:
    """Spare each training what no test asks for: counting FLOPs, and collecting what the libraries made at import."""
    import gc
    import sys

    from ultralytics.engine import trainer  # noqa: F401 - imported before the freeze
    from ultralytics.utils import torch_utils

    torch_utils.thop = sys.modules["thop"] = None  # type: ignore[assignment] - as where it is not installed
    gc.collect()
    gc.freeze()


@pytest.fixture
def tidecv() -> Any:
    """The reference of error types; tests that want it skip without it."""
    return pytest.importorskip("tidecv")


@pytest.fixture(scope="session")
def gpu() -> None:
    """Wanted by tests that run on a GPU: one skips for all where there is none."""


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder with real data; tests that want it skip without it."""
    if not SHARED_DATA.is_dir():
        pytest.skip(f"no real data: neither DET_LS_DATA nor {SHARED_DATA.name} beside the repository")
    return SHARED_DATA


def make_dataset(root: Path, names: tuple[str, ...] = NAMES, train: int = 8, val: int = 4, seed: int = 0) -> Path:
    """Write coloured rectangles on noise as a YOLO data set, and return its data YAML."""
    rng = np.random.default_rng(seed)
    for split, count in (("train", train), ("val", val)):
        (root / "images" / split).mkdir(parents=True)
        (root / "labels" / split).mkdir(parents=True)
        for i in range(count):
            image = rng.integers(0, 60, (64, 64, 3), dtype=np.uint8)
            lines = []
            for j in range(2):
                c = (i + j) % len(names)
                w, h = rng.integers(18, 30, 2)
                x, y = rng.integers(0, 64 - w), rng.integers(0, 64 - h)
                image[y : y + h, x : x + w, 2 - c % 3] = 230
                lines.append(f"{c} {(x + w / 2) / 64:.6f} {(y + h / 2) / 64:.6f} {w / 64:.6f} {h / 64:.6f}")
            cv2.imwrite(str(root / "images" / split / f"{i:03d}.png"), image)
            (root / "labels" / split / f"{i:03d}.txt").write_text("\n".join(lines) + "\n")
    file = root / "data.yaml"
    file.write_text(
        yaml.safe_dump(
            {"path": str(root), "train": "images/train", "val": "images/val", "names": dict(enumerate(names))}
        )
    )
    return file


def make_task_dataset(root: Path, task: str, names: tuple[str, ...] = NAMES, seed: int = 0) -> Path:
    """Write the coloured rectangles with the labels of a task; return the data YAML, or the folder of classes."""
    if task == "classify":
        rng = np.random.default_rng(seed)
        for split, count in (("train", 4), ("val", 2)):
            for c, name in enumerate(names):
                (root / split / name).mkdir(parents=True)
                for i in range(count):
                    image = rng.integers(0, 60, (32, 32, 3), dtype=np.uint8)
                    image[8:24, 8:24, 2 - c % 3] = 230
                    cv2.imwrite(str(root / split / name / f"{i}.png"), image)
        return root
    file = make_dataset(root, names, seed=seed)
    for label in root.glob("labels/*/*.txt"):
        lines = []
        for line in label.read_text().splitlines():
            c, x, y, w, h = line.split()[0], *map(float, line.split()[1:])
            corners = [(x + i * w / 2, y + j * h / 2) for i, j in ((-1, -1), (1, -1), (1, 1), (-1, 1))]
            flat = [v for corner in corners for v in corner]
            keypoints = [x, y, 2, x + w / 4, y, 1]
            row = {"segment": flat, "obb": flat, "pose": [x, y, w, h, *keypoints]}[task]
            lines.append(" ".join([c, *(f"{v:.6f}" for v in row)]))
        label.write_text("\n".join(lines) + "\n")
    if task == "pose":
        content = {**yaml.safe_load(file.read_text()), "kpt_shape": [2, 3], "flip_idx": [0, 1]}
        file.write_text(yaml.safe_dump(content))
    return file


@pytest.fixture(scope="session")
def task_data(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """A function from task to a three-class data set of 8 + 4 images (12 + 6 to classify)."""

    @functools.cache
    def make(task: str) -> Path:
        root = tmp_path_factory.mktemp(task)
        return make_dataset(root / "data") if task == "detect" else make_task_dataset(root / "data", task)

    return make


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The data YAML of a three-class data set of 8 + 4 images."""
    return make_dataset(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(autouse=True)
def _ultralytics_logs_reach_caplog(monkeypatch: pytest.MonkeyPatch) -> None:
    from ultralytics.utils import LOGGER

    monkeypatch.setattr(LOGGER, "propagate", True)  # not so in every version


@pytest.fixture
def log() -> Iterator[list[str]]:
    """What Ultralytics' logger says, whether or not a version lets it reach the root logger."""
    from ultralytics.utils import LOGGER

    messages: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: messages.append(record.getMessage())  # type: ignore[method-assign]
    LOGGER.addHandler(handler)
    yield messages
    LOGGER.removeHandler(handler)


@pytest.fixture
def quick(tmp_path: Path) -> dict[str, object]:
    """Training arguments under which every batch is an effective optimizer step, and nothing is drawn or downloaded."""
    return {
        "imgsz": 64,
        "batch": 4,
        "nbs": 4,
        "warmup_epochs": 0,
        "epochs": 1,
        "device": "cpu",
        "workers": 0,
        "plots": False,
        "amp": False,
        "optimizer": "SGD",
        "lr0": 1e-4,
        "mosaic": 0.0,
        "project": str(tmp_path / "runs"),
        "seed": 3,
    }


@pytest.fixture
def without_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave out an evaluation's pictures, which take most of the time, where a test is about something else."""
    monkeypatch.setattr("det_ls.report.figures.PICTURES", ())
