# SPDX-License-Identifier: AGPL-3.0-or-later
"""What would train otherwise than asked is refused in one sentence, before a run folder exists."""

from __future__ import annotations

from pathlib import Path

import pytest
import ultralytics
import yaml
from conftest import make_dataset
from ultralytics.engine import trainer as engine

import det_ls
from det_ls.cli import main as cli
from det_ls.training.run_folder import TABLE_COPY

several = pytest.mark.skipif(
    not hasattr(engine, "MultiTrainer"), reason="this Ultralytics does not train on lists of data sets"
)


def assert_no_run(quick: dict) -> None:
    assert not Path(quick["project"]).exists()


@pytest.fixture
def finished(tiny, quick):
    model = det_ls.YOLO("yolo11n.yaml")
    model.train(data=str(tiny), label_smoothing=0.2, label_smoothing_schedule="linear", **quick)
    return model.trainer.last


def test_a_finished_run_is_not_resumed_and_the_sentence_holds_a_command_that_trains_on(finished, quick, capsys, tiny):
    before = sorted(finished.parent.parent.parent.rglob("*"))
    for words in ([], ["epochs=5"]):
        assert cli.main(["train", "resume", f"model={finished}", *words]) == 2
        said = capsys.readouterr().err.splitlines()[-1]
        assert "resume: expected the last.pt of an unfinished run" in said
        assert "whose run is finished" in said
        assert f"det-ls train model={finished} data={tiny} epochs=... label_smoothing=0.2" in said
        assert "label_smoothing_schedule=linear" in said
    for call in (
        lambda: det_ls.YOLO(finished).train(resume=True),
        lambda: det_ls.YOLO(finished).train(resume=str(finished)),
        lambda: det_ls.DetectionTrainer(overrides={"resume": str(finished), "mode": "train"}),
        lambda: ultralytics.YOLO(finished).train(trainer=det_ls.DetectionTrainer, resume=True),
        lambda: ultralytics.YOLO(finished).train(trainer=det_ls.DetectionTrainer, resume=True, label_smoothing=0.1),
    ):
        with pytest.raises(ValueError, match="whose run is finished"):
            call()
    assert sorted(finished.parent.parent.parent.rglob("*")) == before


def test_a_finished_run_trains_on_as_a_new_one_where_no_resume_is_asked_for(finished, tiny, quick):
    model = ultralytics.YOLO(finished)
    model.train(trainer=det_ls.DetectionTrainer, resume=False, data=str(tiny), label_smoothing=0.1, **quick)
    assert model.trainer.save_dir != finished.parent.parent


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"resume": True}, "resume: expected the last.pt of an unfinished run with resume, got a model that is none"),
        ({"resume": "gone/last.pt"}, "resume: expected the last.pt of an unfinished run, got 'gone/last.pt', not a"),
        ({"label_smoothing_mode": "uniform"}, "label_smoothing_mode: expected label_smoothing= as well, got none"),
        ({"label_smoothing_schedule": "linear"}, "label_smoothing_schedule: expected label_smoothing= as well"),
        ({"label_smoothing_similarity": "t.csv"}, "label_smoothing_similarity: expected label_smoothing= as well"),
        ({"label_smoothing": None, "label_smoothing_mode": "binary"}, "label_smoothing_mode: expected label_smooth"),
        ({"data": []}, "data: expected a data set or several, got an empty list"),
        ({"data": ["a.yaml", "b.yaml"], "resume": True}, "resume: expected one data set, got several"),
    ],
)
def test_what_would_train_something_else_in_silence(arguments, message, tiny, quick, capsys):
    with pytest.raises(ValueError, match=message):
        det_ls.YOLO("yolo11n.yaml").train(**{**quick, "data": str(tiny), **arguments})
    words = [f"{key}={value}" for key, value in {**quick, "data": str(tiny), **arguments}.items() if value is not None]
    assert cli.main(["train", "model=yolo11n.yaml", *words]) == 2
    assert message[:40] in capsys.readouterr().err
    assert_no_run(quick)


def test_keys_without_epsilon_are_refused_by_trainer_and_criterion_too(tiny, quick):
    with pytest.raises(ValueError, match="label_smoothing_mode: expected label_smoothing= as well"):
        ultralytics.YOLO("yolo11n.yaml").train(
            trainer=det_ls.DetectionTrainer, data=str(tiny), label_smoothing_mode="uniform", **quick
        )
    with pytest.raises(ValueError, match="label_smoothing_mode: expected label_smoothing= as well"):
        det_ls.LabelSmoothingDetectionLoss(det_ls.YOLO("yolo11n.yaml").model, label_smoothing_mode="uniform")
    assert_no_run(quick)


def test_background_is_refused_for_a_classifier_before_a_run_folder_exists(task_data, quick, capsys):
    keys = {**quick, "data": str(task_data("classify")), "label_smoothing": 0.1, "label_smoothing_mode": "background"}
    message = "label_smoothing_mode: expected redistribute, uniform or binary for a classifier, got 'background'"
    with pytest.raises(ValueError, match=message):
        det_ls.YOLO("yolo11n-cls.yaml").train(**keys)
    with pytest.raises(ValueError, match=message):
        ultralytics.YOLO("yolo11n-cls.yaml").train(trainer=det_ls.ClassificationTrainer, **keys)
    words = [f"{key}={value}" for key, value in keys.items()]
    assert cli.main(["train", "task=classify", "model=yolo11n-cls.yaml", *words]) == 2
    assert message in capsys.readouterr().err
    assert_no_run(quick)


def test_a_data_set_without_keypoints_is_one_sentence(tiny, quick):
    with pytest.raises(RuntimeError, match=r"^data: expected a usable data set, got '.*yaml': No `kpt_shape` in the "):
        det_ls.YOLO("yolo11n-pose.yaml").train(data=str(tiny), **quick)
    assert_no_run(quick)


@pytest.mark.parametrize(
    "error", [FileNotFoundError("gone"), SyntaxError("gone"), KeyError("gone"), ValueError("gone\nx")]
)
def test_whatever_stock_makes_of_odd_data_is_one_sentence(error, tiny, quick, monkeypatch):
    def odd(self):
        raise error

    monkeypatch.setattr(engine.BaseTrainer, "get_dataset", odd)
    with pytest.raises(RuntimeError, match=r"^data: expected a usable data set, got '.*': gone$"):
        det_ls.YOLO("yolo11n.yaml").train(data=str(tiny), **quick)
    assert_no_run(quick)


@pytest.mark.parametrize("epochs", [0, -3])
def test_a_run_without_an_epoch_is_refused(epochs, tiny, quick, capsys):
    with pytest.raises(ValueError, match=f"epochs: expected at least 1, got {epochs}"):
        det_ls.YOLO("yolo11n.yaml").train(data=str(tiny), **{**quick, "epochs": epochs})
    words = [f"{key}={value}" for key, value in {**quick, "data": str(tiny), "epochs": epochs}.items()]
    assert cli.main(["train", "model=yolo11n.yaml", *words]) == 2
    assert f"epochs: expected at least 1, got {epochs}." in capsys.readouterr().err
    assert_no_run(quick)


@pytest.mark.parametrize("below", ["", "mine"])
def test_a_run_folder_that_would_be_below_a_file_is_refused(below, tiny, quick, tmp_path):
    (tmp_path / "file").write_text("mine")
    with pytest.raises(FileExistsError, match="project: expected a folder, got the file '.*file'"):
        det_ls.YOLO("yolo11n.yaml").train(data=str(tiny), **{**quick, "project": str(tmp_path / "file" / below)})
    assert (tmp_path / "file").read_text() == "mine"


def test_an_epsilon_of_zero_with_other_keys_is_asked_for_and_trains(tiny, quick):
    det_ls.YOLO("yolo11n.yaml").train(data=str(tiny), label_smoothing=0, label_smoothing_mode="uniform", **quick)


@several
def test_data_sets_that_all_fail_are_no_success(tiny, quick, tmp_path, capsys):
    with pytest.raises(RuntimeError, match="data: expected a usable data set among 2, got none"):
        det_ls.YOLO("yolo11n.yaml").train(data=["gone.yaml", "lost.yaml"], label_smoothing=0.1, **quick)
    words = [f"{key}={value}" for key, value in quick.items()]
    assert cli.main(["train", "model=yolo11n.yaml", "data=['gone.yaml', 'lost.yaml']", *words]) == 2
    assert "got none: each failed" in capsys.readouterr().err


@several
def test_one_usable_data_set_among_several_is_a_success(tiny, quick):
    results = det_ls.YOLO("yolo11n.yaml").train(data=["gone.yaml", str(tiny)], label_smoothing=0.1, **quick)
    assert sum(bool(metrics) for metrics in results.values()) == 1


@pytest.mark.parametrize("keys", [{}, {"label_smoothing": 0.1}])
@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            {"names": {0: "cat", 1: "dog", 2: "cat"}},
            "data: expected different names in .*, got 'cat' repeatedly",
        ),
        ({"nc": 100000000000}, "data: expected nc in .* to be at most 100000, got 100000000000"),
        ({"nc": 100000000000, "names": ["cat"]}, "data: expected nc in .* to be at most 100000, got 100000000000"),
    ],
)
def test_classes_that_cannot_be_told_apart_or_counted(keys, content, message, quick, tmp_path):
    file = make_dataset(tmp_path / "data")
    whole = {key: value for key, value in yaml.safe_load(file.read_text()).items() if key != "names"}
    file.write_text(yaml.safe_dump({**whole, **content}))
    with pytest.raises(ValueError, match=message):
        det_ls.YOLO("yolo11n.yaml").train(data=str(file), **keys, **quick)
    assert_no_run(quick)


def test_class_names_of_a_downloaded_data_set_are_checked_too(tiny, quick, monkeypatch):
    stock = engine.check_det_dataset
    names = {0: "cat", 1: "dog", 2: "cat"}
    monkeypatch.setattr(engine, "check_det_dataset", lambda *args, **keys: {**stock(*args, **keys), "names": names})
    with pytest.raises(ValueError, match="names: expected each class name once, got 'cat' for the classes 0 and 2"):
        det_ls.YOLO("yolo11n.yaml").train(data=str(tiny), **quick)
    assert_no_run(quick)


def test_the_copy_of_the_table_goes_where_it_belongs_and_through_no_link(tiny, quick, tmp_path):
    text = ",red,green,blue\nred,0,1,0\ngreen,1,0,0\nblue,0,1,0\n"
    (tmp_path / "table.csv").write_text(text)
    (tmp_path / "mine.txt").write_text("keep")
    run = tmp_path / "runs" / "linked"
    run.mkdir(parents=True)
    for name in (TABLE_COPY, Path(TABLE_COPY).with_suffix(".tmp").name):
        (run / name).symlink_to(tmp_path / "mine.txt")
    det_ls.DetectionTrainer(
        overrides={
            **quick,
            "model": "yolo11n.yaml",
            "data": str(tiny),
            "label_smoothing": 0.1,
            "label_smoothing_similarity": str(tmp_path / "table.csv"),
            "name": "linked",
            "exist_ok": True,
        }
    )
    assert (tmp_path / "mine.txt").read_text() == "keep"
    assert (run / TABLE_COPY).read_text() == text
    assert not (run / TABLE_COPY).is_symlink()
