# SPDX-License-Identifier: AGPL-3.0-or-later
"""What a training run leaves behind, what it refuses, and that epsilon 0 is stock training to the bit."""

from __future__ import annotations

import functools
import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import ultralytics
import yaml
from conftest import make_dataset
from ultralytics.utils.loss import E2ELoss, v8DetectionLoss
from ultralytics.utils.patches import torch_load

import det_ls
from det_ls.cli import main as cli
from det_ls.losses.criterion import LabelSmoothingDetectionLoss
from det_ls.losses.families import halves


def weights(trainer) -> dict[str, torch.Tensor]:
    return torch_load(trainer.last, map_location="cpu")["model"].state_dict()


def assert_same(a, b) -> None:
    assert a.keys() == b.keys()
    for key in a:
        assert torch.equal(a[key], b[key]), key


@pytest.fixture(scope="module")
def warm(tiny, tmp_path_factory):
    """The first training of a process may differ from later ones in older versions."""
    folder = str(tmp_path_factory.mktemp("warm"))
    small = {"imgsz": 64, "batch": 4, "epochs": 1, "device": "cpu", "workers": 0, "plots": False, "amp": False}
    ultralytics.YOLO("yolo11n.yaml").train(data=str(tiny), project=folder, **small)


@pytest.mark.parametrize("name", ["yolo11n.yaml", "yolo26n.yaml"])
def test_epsilon_zero_trains_stock_weights_to_the_bit_and_epsilon_differs(name, warm, tiny, quick):
    arguments = {**quick, "data": str(tiny), "epochs": 2, "lr0": 0.01}
    stock = ultralytics.YOLO(name)
    stock.train(**arguments)
    zero = det_ls.YOLO(name)
    zero.train(label_smoothing=0.0, **arguments)
    smoothed = det_ls.YOLO(name)
    smoothed.train(label_smoothing=0.1, **arguments)
    assert_same(weights(stock.trainer), weights(zero.trainer))
    ours, theirs = weights(smoothed.trainer), weights(stock.trainer)
    assert any(not torch.equal(ours[key], theirs[key]) for key in ours)


def test_epsilon_zero_saves_one_key_that_stock_accepts(tiny, quick):
    model = det_ls.YOLO("yolo11n.yaml")
    model.train(data=str(tiny), label_smoothing=0, label_smoothing_mode="uniform", **quick)
    args = yaml.safe_load((model.trainer.save_dir / "args.yaml").read_text())
    assert {k: v for k, v in args.items() if k.startswith("label_smoothing")} == {"label_smoothing": 0.0}
    ultralytics.cfg.get_cfg(overrides=args)


OTHER_FAMILIES = functools.cache(det_ls.YOLO)


class Interrupted(BaseException):
    """Stands for KeyboardInterrupt without pytest's special treatment of it."""


def interrupt(trainer) -> None:
    raise Interrupted


PORTABLE = """
import json, sys
sys.modules["det_ls"] = None  # any import of it, also by an unpickler, fails
import numpy as np, torch
from ultralytics import YOLO
data, project, exported, *files = sys.argv[1:]
image = np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)
found = []
for weights in files:
    model = YOLO(weights)
    found.append(model.predict(image, imgsz=64, conf=0.0001, verbose=False)[0].boxes.data.tolist())
    if weights in exported.split("|"):
        model.val(data=data, imgsz=64, plots=False, workers=0, project=project, verbose=False)
        YOLO(weights).export(format="onnx", imgsz=64, simplify=False)
print("BOXES", json.dumps(found))
"""


def predictions_without_det_ls(files: list[Path], exported: list[Path], data: Path, tmp_path: Path) -> list:
    pytest.importorskip("onnx")
    done = subprocess.run(
        [sys.executable, "-c", PORTABLE, str(data), str(tmp_path), "|".join(map(str, exported)), *map(str, files)],
        capture_output=True,
        text=True,
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    line = next(line for line in done.stdout.splitlines() if line.startswith("BOXES"))
    assert all(file.with_suffix(".onnx").is_file() for file in exported)
    return json.loads(line.removeprefix("BOXES "))


def predictions_here(file: Path) -> list:
    import numpy as np

    image = np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)
    return det_ls.YOLO(file).predict(image, imgsz=64, conf=0.0001, verbose=False)[0].boxes.data.tolist()


def checkpoints_of(name: str, data: Path, quick: dict, saved: Path) -> list[Path]:
    """Train a model to its end and another up to Ctrl-C: best.pt and last.pt, last.pt, and what a user saves then."""
    keys = {"label_smoothing": {"default": 0.1, "green": 0.2}, "label_smoothing_schedule": "cosine"}
    finished = det_ls.YOLO(name)
    finished.train(data=str(data), **keys, **quick)
    broken = det_ls.YOLO(name)
    broken.add_callback("on_fit_epoch_end", interrupt)
    with pytest.raises(Interrupted):
        broken.train(data=str(data), **keys, **{**quick, "epochs": 3})
    broken.model = broken.trainer.model  # what a user reaches for after Ctrl-C
    broken.save(saved)
    return [finished.trainer.best, finished.trainer.last, broken.trainer.last, saved]


def test_checkpoints_work_where_det_ls_cannot_be_imported(tiny, quick, tmp_path):
    files, exported = [], []
    for name in ("yolo11n.yaml", "yolo26n.yaml"):
        found = checkpoints_of(name, tiny, quick, tmp_path / f"saved_{name}.pt")
        files += found
        exported += [found[0], found[3]]
    for file, boxes in zip(files, predictions_without_det_ls(files, exported, tiny, tmp_path), strict=True):
        assert boxes, "no prediction to compare"
        assert boxes == predictions_here(file)


def test_an_interrupted_checkpoint_holds_the_keys_as_plain_values(tiny, quick):
    model = det_ls.YOLO("yolo11n.yaml")
    model.add_callback("on_fit_epoch_end", interrupt)
    with pytest.raises(Interrupted):
        model.train(
            data=str(tiny), label_smoothing={"green": 0.2}, label_smoothing_mode="background", **{**quick, "epochs": 2}
        )
    args = torch_load(model.trainer.last, map_location="cpu")["train_args"]
    saved = {k: v for k, v in args.items() if k.startswith("label_smoothing")}
    assert saved == {
        "label_smoothing": {"green": 0.2},
        "label_smoothing_mode": "background",
        "label_smoothing_schedule": "constant",
    }
    assert yaml.safe_load((model.trainer.save_dir / "args.yaml").read_text()).items() >= saved.items()


@pytest.mark.parametrize(("name", "kind"), [("yolo11n.yaml", LabelSmoothingDetectionLoss), ("yolo26n.yaml", E2ELoss)])
def test_live_model_smooths_while_the_ema_validates_with_the_stock_criterion(name, kind, tiny, quick, log):
    seen = {}

    def on_train_batch_end(trainer) -> None:
        criterion = trainer.model.criterion
        seen.update(type=type(criterion), halves=[type(h) for h in halves(criterion)])
        seen["hyp"] = all(h.hyp is trainer.args for h in halves(criterion))

    def on_val_end(validator) -> None:
        seen.setdefault("validated", True)

    def on_fit_epoch_end(trainer) -> None:
        seen["ema"] = [type(h) for h in halves(trainer.ema.ema.criterion)]

    model = det_ls.YOLO(name)
    for hook in (on_train_batch_end, on_val_end, on_fit_epoch_end):
        model.add_callback(hook.__name__, hook)
    model.train(data=str(tiny), label_smoothing=0.1, **quick)
    assert seen["type"] is kind
    assert set(seen["halves"]) == {LabelSmoothingDetectionLoss}
    assert seen["hyp"]
    assert set(seen["ema"]) == {v8DetectionLoss}
    assert getattr(model.trainer.model, "criterion", None) is None
    assert "label smoothing: label_smoothing=0.1 mode=redistribute" in "\n".join(log)


def test_nan_recovery_keeps_smoothing_and_the_stock_criterion_of_the_ema(tiny, quick, log):
    seen = []

    def poison(trainer) -> None:
        if trainer.epoch == 1 and not seen:
            seen.append("poisoned")
            trainer.loss = torch.tensor(float("nan"))
            validate = trainer.validate

            def validate_once():
                trainer.validate = validate
                return validate()[0], float("nan")  # older versions want both before they recover

            trainer.validate = validate_once

    def look(trainer) -> None:
        if len(seen) and trainer.epoch == 1:
            ema = getattr(trainer.ema.ema, "criterion", None)
            seen.append((type(trainer.model.criterion), None if ema is None else type(ema)))

    model = det_ls.YOLO("yolo11n.yaml")
    model.add_callback("on_train_epoch_end", poison)
    model.add_callback("on_train_batch_end", look)
    model.train(data=str(tiny), label_smoothing=0.1, **{**quick, "epochs": 2})
    assert "recovering from last.pt" in "\n".join(log)
    assert {kind for kind, _ in seen[1:]} == {LabelSmoothingDetectionLoss}
    assert {ema for _, ema in seen[1:]} <= {None, v8DetectionLoss}


def test_the_callers_config_is_not_changed(tiny, quick):
    from ultralytics.cfg import get_cfg

    overrides = {"model": "yolo11n.yaml", "data": str(tiny), "label_smoothing": 0.1, "mode": "train", **quick}
    before = dict(overrides)
    cfg = get_cfg()
    cfg.label_smoothing = 0.2
    trainer = det_ls.DetectionTrainer(cfg=cfg, overrides=overrides)
    assert overrides == before
    assert cfg.label_smoothing == 0.2
    assert trainer.args.label_smoothing == 0.1


def test_a_moved_run_resumes_from_the_copy_of_its_table(tiny, quick, tmp_path):
    table = tmp_path / "table.csv"
    table.write_text(",blue,red,green\nblue,0,1,0\nred,0,0,1\ngreen,1,1,0\n")
    model = det_ls.YOLO("yolo11n.yaml")
    model.add_callback("on_fit_epoch_end", interrupt)
    with pytest.raises(Interrupted):
        model.train(
            data=str(tiny), label_smoothing=0.2, label_smoothing_similarity=str(table), **{**quick, "epochs": 2}
        )
    run = model.trainer.save_dir
    assert (run / "label_smoothing_similarity.csv").read_text() == table.read_text()
    assert yaml.safe_load((run / "args.yaml").read_text())["label_smoothing_similarity"] == str(
        run / "label_smoothing_similarity.csv"
    )
    table.unlink()
    moved = run.rename(tmp_path / "moved")
    seen = []
    again = det_ls.YOLO(moved / "weights" / "last.pt")
    again.add_callback("on_train_batch_end", lambda t: seen.append(t.model.criterion.smoothing_matrix.tolist()))
    again.train(resume=True)
    assert seen[0][0] == pytest.approx([0.8, 0.2, 0.0])
    assert seen[0][2] == pytest.approx([0.2, 0.0, 0.8])


NOTHING_STARTS = [
    ({"label_smoothing": "1e-1"}, TypeError, "label_smoothing: expected a number .* got str '1e-1'"),
    ({"label_smoothing": 0.7}, ValueError, "below 0.666667 for class 'red' .* got 0.7"),
    ({"label_smoothing": {"pink": 0.1}}, ValueError, "expected a class of the data, got 'pink'"),
    ({"label_smoothing_epsilon": 0.1}, TypeError, "label_smoothing_epsilon: .* got an unknown key"),
    ({"label_smoothing": 0.1, "single_cls": True}, ValueError, "at least 2 classes .* 'binary' or 'background'"),
    ({"label_smoothing": 0.1, "label_smoothing_similarity": "none.csv"}, FileNotFoundError, "expected a CSV file"),
]


@pytest.mark.parametrize(("keys", "error", "message"), NOTHING_STARTS)
@pytest.mark.parametrize("way", ["YOLO", "trainer"])
def test_a_bad_key_starts_nothing_and_leaves_nothing(way, keys, error, message, tiny, quick):
    arguments = {**quick, "data": str(tiny), **keys}
    with pytest.raises(error, match=message):
        if way == "YOLO":
            det_ls.YOLO("yolo11n.yaml").train(**arguments)
        else:
            det_ls.DetectionTrainer(overrides={"model": "yolo11n.yaml", "mode": "train", **arguments})
    assert not Path(quick["project"]).exists()


@pytest.mark.parametrize("keys", [{}, {"label_smoothing": 0}, {"label_smoothing": 0.0, "single_cls": True}])
def test_stock_training_of_a_single_class_needs_no_mode(keys, quick, tmp_path):
    data = make_dataset(tmp_path / "one", ("a", "b") if "single_cls" in keys else ("a",))
    model = det_ls.YOLO("yolo11n.yaml")
    model.train(data=str(data), **keys, **quick)
    assert model.trainer.args.label_smoothing == 0.0


def test_single_class_trains_with_background(tiny, quick):
    det_ls.YOLO("yolo11n.yaml").train(
        data=str(tiny), label_smoothing=0.1, label_smoothing_mode="background", single_cls=True, **quick
    )


def test_classes_known_only_after_resolving_remove_the_new_run_folder(tiny, quick, monkeypatch):
    monkeypatch.setattr("det_ls.training.trainer.local_data_file", lambda data: None)  # as for a URL
    with pytest.raises(ValueError, match="expected a class of the data, got 'pink'"):
        det_ls.YOLO("yolo11n.yaml").train(data=str(tiny), label_smoothing={"pink": 0.1}, **quick)
    assert not list(Path(quick["project"]).rglob("*.yaml"))
    assert not (Path(quick["project"]) / "train").exists()


def test_a_folder_that_was_there_before_is_left_alone(tiny, quick, monkeypatch):
    monkeypatch.setattr("det_ls.training.trainer.local_data_file", lambda data: None)
    mine = Path(quick["project"]) / "mine"
    (mine / "weights").mkdir(parents=True)
    (mine / "weights" / "precious.pt").write_text("x")
    with pytest.raises(ValueError, match="pink"):
        det_ls.YOLO("yolo11n.yaml").train(
            data=str(tiny), label_smoothing={"pink": 0.1}, name="mine", exist_ok=True, **quick
        )
    assert (mine / "weights" / "precious.pt").read_text() == "x"


def test_a_missing_data_set_leaves_nothing(quick, tmp_path):
    with pytest.raises((RuntimeError, FileNotFoundError), match=r"nowhere\.yaml"):
        det_ls.YOLO("yolo11n.yaml").train(data=str(tmp_path / "nowhere.yaml"), label_smoothing=0.1, **quick)
    assert not Path(quick["project"]).exists()


def test_a_truncated_checkpoint_is_named(tiny, quick, tmp_path):
    model = det_ls.YOLO("yolo11n.yaml")
    model.train(data=str(tiny), label_smoothing=0.1, **quick)
    whole = model.trainer.last.read_bytes()
    broken = tmp_path / "broken.pt"
    broken.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match=r"model: expected a readable checkpoint, got .*broken\.pt"):
        det_ls.YOLO(broken)
    with pytest.raises((ValueError, FileNotFoundError), match="checkpoint"):
        det_ls.DetectionTrainer(overrides={"resume": str(broken), "model": str(broken), "mode": "train", **quick})
    assert len(list(Path(quick["project"]).iterdir())) == 1


def test_every_data_set_of_a_list_is_checked_before_the_first_starts(tiny, quick, tmp_path):
    other = make_dataset(tmp_path / "other", ("a", "b"))
    with pytest.raises(ValueError, match="expected a class of the data, got 'green'"):
        det_ls.YOLO("yolo11n.yaml").train(data=[str(tiny), str(other)], label_smoothing={"green": 0.1}, **quick)
    assert not Path(quick["project"]).exists()


@pytest.mark.parametrize("mode", ["val", "predict", "track", "export", "benchmark", "tune"])
@pytest.mark.parametrize("name", ["yolov8s-world.yaml", "yoloe-11s.yaml"])
def test_other_families_refuse_the_key_in_modes_that_do_not_train(mode, name):
    why = (
        "a YOLO model in tune mode, got one of another" if mode == "tune" else f"in train mode only, got mode '{mode}'"
    )
    with pytest.raises(ValueError, match=f"label_smoothing: expected {why}"):
        getattr(OTHER_FAMILIES(name), mode)(label_smoothing=0.1)


@pytest.mark.parametrize("mode", ["val", "predict", "track", "export", "benchmark"])
def test_modes_that_do_not_train_refuse_the_key(mode, tiny):
    with pytest.raises(ValueError, match=f"label_smoothing: expected in train mode only, got mode '{mode}'"):
        getattr(det_ls.YOLO("yolo11n.yaml"), mode)(data=str(tiny), label_smoothing=0.1)


@pytest.mark.parametrize("mode", ["val", "predict", "export"])
def test_modes_of_the_command_line_that_do_not_train_refuse_the_key(mode, capsys):
    assert cli.main([mode, "model=yolo11n.yaml", "label_smoothing=0.1"]) == 2
    assert f"label_smoothing: expected in train mode only, got mode '{mode}'" in capsys.readouterr().err


def test_a_stock_trainer_with_the_key_is_refused(tiny):
    from ultralytics.models.yolo.detect import DetectionTrainer

    with pytest.raises(
        ValueError, match="expected a trainer derived from one of det_ls.training.tasks, got DetectionTrainer"
    ):
        det_ls.YOLO("yolo11n.yaml").train(trainer=DetectionTrainer, data=str(tiny), label_smoothing=0.1)


def test_a_family_that_the_command_line_builds_by_file_name_refuses_the_key(tiny, capsys):
    assert cli.main(["train", "model=rtdetr-l.yaml", f"data={tiny}", "label_smoothing=0.1"]) == 2
    assert "label_smoothing: expected a YOLO detection model" in capsys.readouterr().err


def test_the_command_line_prints_one_sentence_and_no_traceback(tiny, quick):
    words = ["train", "model=yolo11n.yaml", f"data={tiny}", "label_smoothing=0.9", f"project={quick['project']}"]
    done = subprocess.run([sys.executable, "-m", "det_ls", *words], capture_output=True, text=True)
    assert done.returncode == 2
    assert "det-ls: error: label_smoothing: expected an epsilon below 0.666667 for class 'red'" in done.stderr
    assert "Traceback" not in done.stderr
    assert not Path(quick["project"]).exists()


def test_an_unknown_trainer_is_said_to_be_unknown(monkeypatch):
    monkeypatch.delattr(ultralytics.engine.trainer, "generate_ddp_command")
    with pytest.raises(
        RuntimeError, match=rf"whose trainer has .*generate_ddp_command .*got {ultralytics.__version__}"
    ):
        det_ls.DetectionTrainer(overrides={"model": "yolo11n.yaml", "mode": "train"})


def test_a_criterion_replaced_behind_our_back_stops_the_run(tiny, quick):
    def replace(trainer) -> None:
        trainer.model.criterion = trainer.model.init_criterion()

    model = det_ls.YOLO("yolo11n.yaml")
    model.add_callback("on_train_start", replace)
    with pytest.raises(RuntimeError, match="expected the smoothed criterion on the model"):
        model.train(data=str(tiny), label_smoothing=0.1, **quick)
