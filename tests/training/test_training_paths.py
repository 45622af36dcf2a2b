# SPDX-License-Identifier: AGPL-3.0-or-later
"""Every way to ask for label smoothing reaches the criterion of the training step, with the right epsilon."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import ultralytics
import yaml
from conftest import make_dataset
from probe import watch_training

import det_ls
from det_ls.cli import main as cli

ROOT = Path(__file__).parents[2]
TESTS = ROOT / "tests"


def assert_epsilon(records, expected: float, halves: int = 1, epoch: int | None = None) -> None:
    found = records.epsilons(epoch)
    assert len(found) >= halves, "no foreground was seen"
    assert found == pytest.approx([expected] * len(found), abs=2e-3)
    assert {len(r["halves"]) for r in records} - {0} == {halves}


@pytest.mark.parametrize(("model", "halves"), [("yolov8n.yaml", 1), ("yolo11n.yaml", 1), ("yolo26n.yaml", 2)])
def test_python_keyword_smooths_every_half(model, halves, tiny, quick):
    with watch_training() as records:
        det_ls.YOLO(model).train(data=str(tiny), label_smoothing=0.2, **quick)
    assert_epsilon(records, 0.2, halves)


def test_without_the_key_targets_are_one_hot(tiny, quick):
    with watch_training() as records:
        det_ls.YOLO("yolo11n.yaml").train(data=str(tiny), **quick)
    assert_epsilon(records, 0.0)


def test_cfg_yaml_smooths(tiny, quick, tmp_path):
    cfg = tmp_path / "cfg.yaml"
    cfg.write_text(yaml.safe_dump({**quick, "data": str(tiny), "label_smoothing": 0.15}))
    with watch_training() as records:
        det_ls.YOLO("yolo11n.yaml").train(cfg=str(cfg))
    assert_epsilon(records, 0.15)


@pytest.mark.parametrize("source", ["argument", "cfg", "both"])
def test_command_line_smooths(source, tiny, quick, tmp_path):
    cfg = tmp_path / "with space.yaml"
    cfg.write_text(yaml.safe_dump({**quick, "data": str(tiny), "model": "yolo11n.yaml", "label_smoothing": 0.25}))
    words = {
        "argument": [
            "model=yolo11n.yaml",
            f"data={tiny}",
            "label_smoothing=0.25",
            *(f"{k}={v}" for k, v in quick.items()),
        ],
        "cfg": [f"cfg={cfg}"],
        "both": [f"cfg={cfg}", "label_smoothing=0.1"],
    }[source]
    with watch_training() as records:
        assert cli.main(["train", *words]) == 0
    assert_epsilon(records, 0.1 if source == "both" else 0.25)


def test_command_line_takes_a_mapping(tiny, quick):
    words = [f"data={tiny}", "model=yolo11n.yaml", *(f"{k}={v}" for k, v in quick.items())]
    with watch_training() as records:
        assert cli.main(["train", *words, "label_smoothing={'default': 0.3}"]) == 0
    assert_epsilon(records, 0.3)


def test_trainer_argument_of_stock_yolo_smooths(tiny, quick):
    with watch_training() as records:
        ultralytics.YOLO("yolo11n.yaml").train(
            trainer=det_ls.DetectionTrainer, data=str(tiny), label_smoothing=0.1, **quick
        )
    assert_epsilon(records, 0.1)


def test_per_class_mapping_smooths_each_class_with_its_own(tiny, quick):
    with watch_training() as records:
        det_ls.YOLO("yolo11n.yaml").train(data=str(tiny), label_smoothing={"default": 0.0, "green": 0.4}, **quick)
    for record in records:
        for row in torch.tensor(record["halves"]["only"]):
            ratio = 0.2 / 0.6 if row.argmax() == 1 else 0.0
            others = torch.cat([row[: row.argmax()], row[row.argmax() + 1 :]])
            assert others.tolist() == pytest.approx([ratio, ratio], abs=3e-3)


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [("constant", (0.3, 0.3, 0.3)), ("linear", (0.3, 0.15, 0.0)), ("cosine", (0.3, 0.15, 0.0))],
)
def test_schedule_sets_first_middle_and_last_epoch(schedule, expected, tiny, quick):
    model = det_ls.YOLO("yolo26n.yaml")
    with watch_training() as records:
        model.train(data=str(tiny), label_smoothing=0.3, label_smoothing_schedule=schedule, **{**quick, "epochs": 3})
    for epoch, eps in enumerate(expected):
        assert_epsilon(records, eps, 2, epoch)
    rows = [line.split(",") for line in (model.trainer.save_dir / "results.csv").read_text().splitlines()]
    column = [h.strip() for h in rows[0]].index("label_smoothing")
    assert [float(r[column]) for r in rows[1:]] == pytest.approx(expected)


class Interrupted(Exception):
    pass


def interrupt_after_epoch(epoch: int):
    def callback(trainer) -> None:
        if trainer.epoch == epoch:
            raise Interrupted

    return callback


@pytest.fixture
def interrupted(tiny, quick):
    """A run of three epochs with a linear schedule that broke off after its first."""
    model = det_ls.YOLO("yolo26n.yaml")
    model.add_callback("on_fit_epoch_end", interrupt_after_epoch(0))
    with pytest.raises(Interrupted):
        model.train(data=str(tiny), label_smoothing=0.3, label_smoothing_schedule="linear", **{**quick, "epochs": 3})
    return model.trainer.last


def test_resume_goes_on_with_the_checkpoint_keys(interrupted):
    model = det_ls.YOLO(interrupted)
    with watch_training() as records:
        model.train(resume=True)
    assert_epsilon(records, 0.15, 2, epoch=1)
    assert_epsilon(records, 0.0, 2, epoch=2)
    assert model.trainer.args.label_smoothing == 0.3


def test_resume_on_the_command_line_without_any_key(interrupted):
    with watch_training() as records:
        assert cli.main(["train", "resume", f"model={interrupted}"]) == 0
    assert_epsilon(records, 0.15, 2, epoch=1)


def test_resume_ignores_another_epsilon_and_names_both(interrupted, log):
    with watch_training() as records:
        det_ls.YOLO(interrupted).train(resume=True, label_smoothing=0.05)
    assert_epsilon(records, 0.15, 2, epoch=1)
    assert "Resume ignores label_smoothing=0.05, using the checkpoint's label_smoothing=0.3" in "\n".join(log)


def test_resume_warns_of_what_differs_and_of_nothing_else(interrupted, tmp_path, log):
    table = tmp_path / "table.csv"
    table.write_text(",red,green,blue\nred,0,1,0\ngreen,1,0,0\nblue,0,1,0\n")
    given = {"label_smoothing": 0.3, "label_smoothing_schedule": "cosine", "label_smoothing_similarity": str(table)}
    det_ls.YOLO(interrupted).train(resume=True, **given)
    warned = [line for line in log if "Resume ignores" in line]
    assert len(warned) == 2
    said = "\n".join(warned)
    assert "label_smoothing_schedule=cosine, using the checkpoint's label_smoothing_schedule=linear" in said
    assert f"label_smoothing_similarity={table}, using the checkpoint's label_smoothing_similarity=None" in said


def test_resume_restores_the_end_to_end_weights(interrupted):
    seen = []
    model = det_ls.YOLO(interrupted)
    model.add_callback(
        "on_train_start",
        lambda t: seen.append((t.model.criterion.updates, t.model.criterion.o2m, t.model.criterion.o2o)),
    )
    model.train(resume=True)
    assert seen == [(1, pytest.approx(0.45), pytest.approx(0.55))]  # half of the way from 0.8 to 0.1


def test_fine_tuning_from_a_smoothed_best_does_not_inherit_the_key(tiny, quick):
    model = det_ls.YOLO("yolo11n.yaml")
    model.train(data=str(tiny), label_smoothing=0.2, **quick)
    best = model.trainer.best
    again_in_place = [model] if "model" in model.overrides else []  # older versions cannot train an object twice
    for again in (det_ls.YOLO(best), *again_in_place):
        with watch_training() as records:
            again.train(data=str(tiny), **quick)
        assert_epsilon(records, 0.0)


def test_a_list_of_data_sets_smooths_each(tiny, quick, tmp_path):
    if "MultiTrainer" not in dir(ultralytics.engine.trainer):
        pytest.skip(f"ultralytics {ultralytics.__version__} does not train on lists of data sets")
    other = make_dataset(tmp_path / "other", ("a", "b", "c"), seed=1)
    with watch_training() as records:
        det_ls.YOLO("yolo11n.yaml").train(data=[str(tiny), str(other)], label_smoothing=0.2, **quick)
    assert len({r["run"] for r in records}) == 2
    assert_epsilon(records, 0.2)


def run_ddp_file(trainer, out: Path) -> list[dict]:
    """Run the file that Ultralytics writes for DDP workers in a fresh process that watches its training steps."""
    from ultralytics.utils.dist import ddp_cleanup, generate_ddp_file

    file = generate_ddp_file(trainer)
    code = (
        "import runpy, sys; from pathlib import Path; from probe import watch_training\n"
        "with watch_training(Path(sys.argv[1])): runpy.run_path(sys.argv[2], run_name='__main__')"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(TESTS), str(ROOT), *sys.path])}
    try:
        subprocess.run([sys.executable, "-c", code, str(out), file], check=True, env=environment, cwd=out.parent)
    finally:
        ddp_cleanup(trainer, file)
    return json.loads(out.read_text())


def test_ddp_worker_smooths(tiny, quick, tmp_path):
    trainer = det_ls.DetectionTrainer(
        overrides={"model": "yolo11n.yaml", "data": str(tiny), "label_smoothing": 0.2, "mode": "train", **quick}
    )
    from probe import Records

    assert_epsilon(Records(run_ddp_file(trainer, tmp_path / "records.json")), 0.2)


def test_ddp_worker_reads_the_copy_of_the_similarity_table(tiny, quick, tmp_path, monkeypatch):
    table = tmp_path / "table.csv"
    table.write_text(",red,green,blue\nred,0,1,0\ngreen,1,0,0\nblue,0,1,0\n")
    trainer = det_ls.DetectionTrainer(
        overrides={
            "model": "yolo11n.yaml",
            "data": str(tiny),
            "label_smoothing": 0.2,
            "label_smoothing_similarity": str(table),
            "mode": "train",
            **quick,
        }
    )
    table.unlink()  # only the copy is left
    rows = [r for record in run_ddp_file(trainer, tmp_path / "records.json") for r in record["halves"].get("only", [])]
    assert rows
    for row in rows:
        top = max(range(3), key=row.__getitem__)
        assert row[{0: 1, 1: 0, 2: 1}[top]] == pytest.approx(0.25, abs=3e-3)


def test_the_copy_of_the_table_survives_the_launch_of_ddp_workers(tiny, quick, tmp_path, monkeypatch):
    table = tmp_path / "table.csv"
    table.write_text(",red,green,blue\nred,0,1,0\ngreen,1,0,0\nblue,0,1,0\n")
    overrides = {"model": "yolo11n.yaml", "data": str(tiny), "label_smoothing": 0.2, "mode": "train", **quick}
    trainer = det_ls.DetectionTrainer(overrides={**overrides, "label_smoothing_similarity": str(table)})
    trainer.ddp, trainer.world_size, trainer.hub_session = True, 2, None
    trainer.args.device = "0,1"
    seen = []
    copy = trainer.save_dir / "label_smoothing_similarity.csv"
    monkeypatch.setattr("ultralytics.engine.trainer.subprocess.run", lambda *a, **k: seen.append(copy.read_text()))
    trainer.train()
    assert seen == [",red,green,blue\nred,0,1,0\ngreen,1,0,0\nblue,0,1,0\n"]


def test_train_coco_script_smooths_and_evaluates(tiny, quick, tmp_path):
    records = tmp_path / "records.json"
    code = (
        "import runpy, sys; from pathlib import Path; from probe import watch_training\n"
        "out = Path(sys.argv.pop(1))\n"
        "with watch_training(out): runpy.run_path(sys.argv.pop(1), run_name='__main__')"
    )
    words = ["model=yolo11n.yaml", f"data={tiny}", "label_smoothing=0.2", *(f"{k}={v}" for k, v in quick.items())]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(TESTS), str(ROOT)])}
    script = str(ROOT / "scripts" / "train_coco.py")
    done = subprocess.run(
        [sys.executable, "-c", code, str(records), script, *words],
        check=True, env=environment, cwd=tmp_path, capture_output=True, text=True,
    )  # fmt: skip
    from probe import Records

    assert_epsilon(Records(json.loads(records.read_text())), 0.2)
    assert "AP50" in done.stdout
    metrics = next((tmp_path / "runs").rglob("metrics.json"))
    assert {"AP", "AP50", "protocol"} <= set(json.loads(metrics.read_text()))


def test_background_on_the_command_line_lowers_the_target_and_raises_no_other(tiny, quick):
    words = ["model=yolo11n.yaml", f"data={tiny}", *(f"{k}={v}" for k, v in quick.items())]
    largest = {}
    for mode, keys in {"stock": (), "background": ("label_smoothing=0.25", "label_smoothing_mode=background")}.items():
        with watch_training() as records:
            assert cli.main(["train", *words, *keys]) == 0
        assert_epsilon(records, 0.0)  # nothing goes to another class
        largest[mode] = records[0]["largest"]["only"]  # of the first step, which has the same weights and images
    assert largest["background"] == pytest.approx(0.75 * largest["stock"], abs=2e-3)
