# SPDX-License-Identifier: AGPL-3.0-or-later
"""Ultralytics' tuner with the key: each of its runs smooths, with what it searched where it was to search."""

from __future__ import annotations

import inspect
import json
import os
from pathlib import Path

import pytest
import yaml
from probe import Records

import det_ls
from det_ls.training.tune import keys_of_ray_runs, keys_of_runs, searched_bounds

ROOT = Path(__file__).parents[2]
WATCH = """
import os
from pathlib import Path
from probe import watch_training
watching = watch_training(Path({folder!r}, str(os.getpid()) + ".json"))
watching.__enter__()
"""


@pytest.fixture
def watched_processes(tmp_path, monkeypatch):
    """A folder that every Python process of this test writes the targets of its training steps to."""
    (tmp_path / "records").mkdir()
    (tmp_path / "watch").mkdir()
    (tmp_path / "watch" / "sitecustomize.py").write_text(WATCH.format(folder=str(tmp_path / "records")))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path / "watch"), str(ROOT / "tests"), str(ROOT)]))
    monkeypatch.chdir(tmp_path)
    return tmp_path / "records"


def test_the_tuner_smooths_each_run_with_the_epsilon_that_it_searches(watched_processes, tiny, quick):
    keys = {"label_smoothing": 0.2, "label_smoothing_schedule": "constant"}
    quick = {**quick, "name": "search"}
    model = det_ls.YOLO("yolo11n.yaml")
    model.tune(data=str(tiny), space={"label_smoothing": (0.1, 0.3)}, iterations=2, **keys, **quick)
    files = sorted(watched_processes.iterdir(), key=lambda file: file.stat().st_mtime)
    assert len(files) == 2
    in_use = []
    for file in files:
        found = Records(json.loads(file.read_text())).epsilons()
        assert found, "no foreground was seen"
        assert found == pytest.approx([found[0]] * len(found), abs=5e-3)
        in_use.append(found[0])
    assert in_use[0] == pytest.approx(0.2, abs=5e-3)  # the first run is the one that was asked for
    assert 0.095 < in_use[1] < 0.305
    assert abs(in_use[1] - in_use[0]) > 1e-4
    best = yaml.safe_load((Path(quick["project"]) / "search" / "best_hyperparameters.yaml").read_text())
    assert min(abs(best["label_smoothing"] - epsilon) for epsilon in in_use) < 5e-3


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"label_smoothing": 0.1, "space": {"label_smoothing_mode": (0, 1)}}, "space: expected label_smoothing as the"),
        ({"space": {"label_smoothing": (0.3, 0.1)}}, r"space: expected \(lowest, highest\) .* got \(0.3, 0.1\)"),
        ({"space": {"label_smoothing": 0.1}}, r"space: expected \(lowest, highest\) for label_smoothing, got 0.1"),
        ({"space": {"label_smoothing": (-0.1, 0.1)}}, "label_smoothing: expected a number of at least 0, got -0.1"),
        ({"space": {"label_smoothing": (0.0, 0.9)}}, "label_smoothing: expected .* below 0.66"),
        (
            {"label_smoothing": {"red": 0.1}, "space": {"label_smoothing": (0.0, 0.1)}},
            "expected one number where space=",
        ),
        ({"label_smoothing": {"rde": 0.1}}, "expected a class of the data, got 'rde'; did you mean 'red'"),
        ({"label_smoothing_mode": "uniform"}, "label_smoothing_mode: expected label_smoothing= as well"),
    ],
)
def test_what_the_tuner_cannot_keep_is_refused_before_it_starts(arguments, message, tiny, quick, monkeypatch):
    monkeypatch.setattr("ultralytics.YOLO.tune", lambda *args, **kwargs: pytest.fail("the tuner started"))
    with pytest.raises(ValueError, match=message):
        det_ls.YOLO("yolo11n.yaml").tune(data=str(tiny), **arguments, **quick)
    assert not Path(quick["project"]).exists()


RAY_WATCH = """
import sys
if any(word.endswith("default_worker.py") for word in sys.orig_argv):
    import os
    from pathlib import Path
    from probe import watch_training
    watching = watch_training(Path({folder!r}, str(os.getpid()) + ".json"))
    watching.__enter__()
"""


def test_ray_smooths_each_run_with_the_epsilon_that_it_searches(watched_processes, tiny, quick, tmp_path):
    ray = pytest.importorskip("ray", reason="Ray Tune is not installed")
    from ray import tune
    from ultralytics.utils.tuner import run_ray_tune

    (tmp_path / "watch" / "sitecustomize.py").write_text(RAY_WATCH.format(folder=str(watched_processes)))
    ray.init(num_cpus=1, include_dashboard=False, log_to_driver=False)
    random = {"search_alg": "random"} if "search_alg" in inspect.signature(run_ray_tune).parameters else {}
    space = {"label_smoothing": tune.uniform(0.1, 0.3), "label_smoothing_mode": tune.choice(["redistribute"])}
    try:
        found = det_ls.YOLO("yolo11n.yaml").tune(
            use_ray=True, iterations=2, space=space, data=str(tiny), label_smoothing_schedule="linear",
            **random, **{**quick, "val": False},
        )  # fmt: skip
    finally:
        ray.shutdown()
    assert not found.errors
    asked = [result.config["label_smoothing"] for result in found]
    assert all(0.1 <= epsilon <= 0.3 for epsilon in asked)
    runs: dict[str, list] = {}
    for file in watched_processes.iterdir():
        for record in json.loads(file.read_text()):
            runs.setdefault(record["run"], []).append(record)
    in_use = []
    for run, records in runs.items():
        epsilons = Records(records).epsilons()
        assert epsilons, "no foreground was seen"
        assert epsilons == pytest.approx([epsilons[0]] * len(epsilons), abs=5e-3)
        in_use.append(epsilons[0])
        args = yaml.safe_load((Path(run) / "args.yaml").read_text())
        assert args["label_smoothing"] == pytest.approx(epsilons[0], abs=5e-3)
        assert args["label_smoothing_schedule"] == "linear"
    assert sorted(in_use) == pytest.approx(sorted(asked), abs=5e-3)
    assert abs(in_use[0] - in_use[1]) > 1e-4


def test_ray_is_handed_what_each_run_is_to_train_with(tiny, quick, tmp_path, monkeypatch):
    seen = {}

    def run_ray_tune(model, space=None, iterations=10, **arguments):
        from ultralytics.cfg import DEFAULT_CFG
        from ultralytics.utils import tuner

        tuner.get_cfg(DEFAULT_CFG, {**arguments, "exist_ok": False})  # as Ultralytics does to name its folder
        seen.update(arguments)

    (tmp_path / "table.csv").write_text(",red,green,blue\nred,0,1,0\ngreen,1,0,0\nblue,0,1,0\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("det_ls.training.tune.find_spec", lambda name: object())
    monkeypatch.setattr("ultralytics.utils.tuner.run_ray_tune", run_ray_tune)
    keys = {"label_smoothing": 0.2, "label_smoothing_similarity": "table.csv"}
    det_ls.YOLO("yolo11n.yaml").tune(use_ray=True, data=str(tiny), space={"lr0": Uniform(0.1, 0.2)}, **keys, **quick)
    given = {key: seen[key] for key in keys}
    assert given == {**keys, "label_smoothing_similarity": str(tmp_path / "table.csv")}


class Uniform:
    """As good as ``ray.tune.uniform``."""

    def __init__(self, lower, upper):
        self.lower, self.upper = lower, upper


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            {"label_smoothing": 0.1, "space": {"label_smoothing": Uniform(0.0, 0.2)}},
            "label_smoothing: expected in space= or as a keyword with Ray, got both",
        ),
        ({"space": {"label_smoothing": Uniform(-0.1, 0.2)}}, "label_smoothing: expected a number of at least 0"),
        ({"space": {"label_smoothing": Uniform(0.0, 0.9)}}, "label_smoothing: expected .* below 0.66"),
        ({"space": {"label_smoothing_mode": "uniform"}}, "label_smoothing_mode: expected label_smoothing= as well"),
        (
            {"label_smoothing": 0.1, "space": {"label_smoothing_mode": "unifrm"}},
            "label_smoothing_mode: expected one of",
        ),
        ({"label_smoothing": {"rde": 0.1}}, "expected a class of the data, got 'rde'; did you mean 'red'"),
    ],
)
def test_what_ray_cannot_keep_is_refused_before_it_starts(arguments, message, tiny, quick, monkeypatch):
    monkeypatch.setattr("det_ls.training.tune.find_spec", lambda name: object())
    monkeypatch.setattr("ultralytics.YOLO.tune", lambda *args, **kwargs: pytest.fail("the tuner started"))
    with pytest.raises(ValueError, match=message):
        det_ls.YOLO("yolo11n.yaml").tune(data=str(tiny), use_ray=True, **arguments, **quick)


def test_the_ends_of_what_ray_searches_are_checked(monkeypatch):
    monkeypatch.setattr("det_ls.training.tune.find_spec", lambda name: object())
    drawn = type("Drawn", (), {"sample": lambda self: 0.1})()
    given, requests = keys_of_ray_runs({"label_smoothing_mode": "binary"}, {"label_smoothing": Uniform(0.1, 0.2)})
    assert given == {"label_smoothing_mode": "binary"}
    assert [request.smoothing.label_smoothing for request in requests] == [0.1, 0.2]
    given, [request] = keys_of_ray_runs({"label_smoothing_mode": "binary"}, {"label_smoothing": drawn})
    assert request.smoothing.label_smoothing_mode == "binary"
    modes = {"label_smoothing_mode": {"grid_search": ["binary", "uniform"]}}
    _, requests = keys_of_ray_runs({"label_smoothing": 0.1}, modes)
    assert [request.smoothing.label_smoothing_mode for request in requests] == ["binary", "uniform"]


def test_without_ray_the_sentence_says_how_to_install_it(tiny, monkeypatch):
    monkeypatch.setattr("det_ls.training.tune.find_spec", lambda name: None)
    with pytest.raises(ImportError, match="use_ray: expected Ray Tune, got none: install it with pip install"):
        det_ls.YOLO("yolo11n.yaml").tune(data=str(tiny), use_ray=True, label_smoothing=0.1)


def test_the_keys_of_a_tuners_runs():
    keys = {"label_smoothing": {"default": 0.1, "red": 0.2}, "label_smoothing_mode": "binary"}
    assert keys_of_runs(keys, None) == keys
    assert keys_of_runs({"label_smoothing_schedule": "linear"}, searched_bounds({"label_smoothing": (0.1, 0.2, 0.5)})) == {
        "label_smoothing": 0.1, "label_smoothing_schedule": "linear",
    }  # fmt: skip


def test_without_the_keys_the_tuner_is_stocks(monkeypatch):
    called = []
    monkeypatch.setattr("ultralytics.YOLO.tune", lambda self, *args, **kwargs: called.append((args, kwargs)))
    det_ls.YOLO("yolo11n.yaml").tune(data="a.yaml", iterations=3, space={"lr0": (0.1, 0.2)})
    assert called == [((False, 3), {"data": "a.yaml", "space": {"lr0": (0.1, 0.2)}})]
