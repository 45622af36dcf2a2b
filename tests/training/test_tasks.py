# SPDX-License-Identifier: AGPL-3.0-or-later
"""Every task of every architecture smooths its class targets, and nothing else: read from real training steps."""

from __future__ import annotations

import shutil
import zipfile
from pathlib import Path

import pytest
import torch
import ultralytics
from probe import watch_training
from ultralytics.utils.patches import torch_load

import det_ls
from det_ls.cli import main as cli
from det_ls.losses.families import halves
from det_ls.training import tasks

TASKS = ("segment", "pose", "obb", "classify")  # detect: test_training_paths
SUFFIX = {"detect": "", "segment": "-seg", "pose": "-pose", "obb": "-obb", "classify": "-cls"}
TRAINERS = {
    "segment": det_ls.SegmentationTrainer,
    "pose": det_ls.PoseTrainer,
    "obb": det_ls.OBBTrainer,
    "classify": det_ls.ClassificationTrainer,
}


def model_of(task: str, architecture: str = "yolo11n") -> str:
    return f"{architecture}{SUFFIX[task]}.yaml"


def quickly(quick: dict, task: str) -> dict:
    return {**quick, "imgsz": 32, "erasing": 0.0} if task == "classify" else quick


def assert_epsilon(records, expected: float, halves: int = 1, epoch: int | None = None) -> None:
    found = records.epsilons(epoch)
    assert len(found) >= halves, "no foreground was seen"
    assert found == pytest.approx([expected] * len(found), abs=2e-3)
    assert {len(r["halves"]) for r in records} - {0} == {halves}


ARCHITECTURES = [
    *((task, name) for task in ("segment", "pose", "obb") for name in ("yolov8n", "yolo11n", "yolo26n")),
    ("detect", "yolov10n"),
    *(("classify", name) for name in ("yolov8n", "yolo11n", "yolo26n")),
]


@pytest.mark.parametrize(("task", "architecture"), ARCHITECTURES)
def test_python_keyword_smooths_every_half_in_the_fast_form(task, architecture, task_data, quick):
    forms = []
    model = det_ls.YOLO(model_of(task, architecture))
    model.add_callback(
        "on_train_epoch_end",
        lambda t: forms.extend(getattr(half, "form", "no forms") for half in halves(t.model.criterion)),
    )
    with watch_training() as records:
        model.train(data=str(task_data(task)), label_smoothing=0.2, **quickly(quick, task))
    end_to_end = architecture in {"yolov10n", "yolo26n"} and task != "classify"
    assert_epsilon(records, 0.2, 2 if end_to_end else 1)
    assert set(forms) == {"no forms" if task == "classify" else "lean"}


@pytest.mark.parametrize("task", TASKS)
def test_an_epsilon_for_each_class_and_the_trainer_argument_of_stock_yolo(task, task_data, quick):
    with watch_training() as records:
        ultralytics.YOLO(model_of(task)).train(
            trainer=TRAINERS[task],
            data=str(task_data(task)),
            label_smoothing={"default": 0.0, "green": 0.4},
            **quickly(quick, task),
        )
    rows = [torch.tensor(row) for record in records for row in record["halves"].get("only", [])]
    assert {int(row.argmax()) for row in rows} == {0, 1, 2}
    for row in rows:
        ratio = 0.2 / 0.6 if row.argmax() == 1 else 0.0
        others = torch.cat([row[: row.argmax()], row[row.argmax() + 1 :]])
        assert others.tolist() == pytest.approx([ratio, ratio], abs=3e-3)


@pytest.mark.parametrize("task", TASKS)
def test_a_similarity_table_on_the_command_line(task, task_data, quick, tmp_path):
    table = tmp_path / "table.csv"
    table.write_text(",red,green,blue\nred,0,1,0\ngreen,1,0,0\nblue,0,1,0\n")
    words = {**quickly(quick, task), "model": model_of(task), "data": task_data(task), "label_smoothing": 0.2}
    with watch_training() as records:
        assert cli.main(["train", f"label_smoothing_similarity={table}", *(f"{k}={v}" for k, v in words.items())]) == 0
    rows = [row for record in records for row in record["halves"].get("only", [])]
    assert rows
    for row in rows:
        top = max(range(3), key=row.__getitem__)
        # A classifier's folders are sorted: blue, green, red. Everywhere green is 1 and takes the others' share.
        other = {0: 1, 1: 2 if task == "classify" else 0, 2: 1}[top]
        assert row[other] == pytest.approx(0.25, abs=3e-3)
        assert row[3 - top - other] == pytest.approx(0.0, abs=3e-3)


class Interrupted(Exception):
    pass


def names_det_ls(checkpoint: Path) -> bool:
    """Tell whether a checkpoint could need det_ls to be loaded: a pickle names the module of each class in it."""
    with zipfile.ZipFile(checkpoint) as archive:
        return any(b"det_ls" in archive.read(name) for name in archive.namelist() if name.endswith(".pkl"))


@pytest.mark.parametrize("task", TASKS)
def test_resume_goes_on_with_the_schedule_validation_stays_plain_and_checkpoints_stay_stocks(task, task_data, quick):
    plain = []

    def interrupt(trainer) -> None:
        plain.append([type(half).__module__ for half in halves(trainer.ema.ema.criterion)])
        raise Interrupted

    name = model_of(task, "yolo26n")
    model = det_ls.YOLO(name)
    model.add_callback("on_fit_epoch_end", interrupt)
    keys = {"label_smoothing": 0.3, "label_smoothing_schedule": "linear"}
    with pytest.raises(Interrupted):
        model.train(data=str(task_data(task)), **keys, **{**quickly(quick, task), "epochs": 3})
    assert {module.partition(".")[0] for module in plain[0]} == {"ultralytics"}
    assert not names_det_ls(model.trainer.last)
    again = det_ls.YOLO(model.trainer.last)
    with watch_training() as records:
        again.train(resume=True)
    assert not names_det_ls(again.trainer.best)
    n = 1 if task == "classify" else 2
    assert_epsilon(records, 0.15, n, epoch=1)
    assert_epsilon(records, 0.0, n, epoch=2)


@pytest.mark.parametrize("task", TASKS)
def test_epsilon_zero_trains_stock_weights_to_the_bit(task, task_data, quick):
    arguments = {**quickly(quick, task), "data": str(task_data(task)), "lr0": 0.01}
    weights = []
    # The first training of a process may differ from later ones in older versions: it is the one that smooths.
    for build, epsilon in ((det_ls.YOLO, 0.2), (ultralytics.YOLO, None), (det_ls.YOLO, 0.0)):
        model = build(model_of(task))
        model.train(**arguments, **({} if epsilon is None else {"label_smoothing": epsilon}))
        weights.append(torch_load(model.trainer.last, map_location="cpu")["model"].state_dict())
    smoothed, stock, zero = weights
    assert all(torch.equal(zero[key], stock[key]) for key in stock)
    assert any(not torch.equal(smoothed[key], stock[key]) for key in stock)


def first_step(build, **arguments):
    """Return the loss of the first training step of a classifier, and its weights after it."""
    seen = []

    def on_train_batch_end(trainer) -> None:
        if not seen:  # later steps amplify the last digit: batch normalisation of four images
            weights = {name: value.detach().clone() for name, value in trainer.model.named_parameters()}
            seen.append((trainer.loss.item(), weights))

    model = build("yolo11n-cls.yaml")
    model.add_callback("on_train_batch_end", on_train_batch_end)
    model.train(**arguments)
    return seen[0]


def test_a_classifier_with_uniform_takes_the_step_of_torchs_label_smoothing(task_data, quick, monkeypatch):
    """The oracle is stock's trainer with ``label_smoothing=`` put into its own call of torch's cross-entropy."""
    from ultralytics.utils import loss as stock_losses

    arguments = {**quickly(quick, "classify"), "data": str(task_data("classify")), "lr0": 1.0}
    loss, weights = first_step(det_ls.YOLO, label_smoothing=0.3, label_smoothing_mode="uniform", **arguments)
    plain = first_step(ultralytics.YOLO, **arguments)[0]
    cross_entropy = torch.nn.functional.cross_entropy

    def smoothing(preds, labels, reduction):
        return cross_entropy(preds, labels, reduction=reduction, label_smoothing=0.3 if preds.requires_grad else 0.0)

    monkeypatch.setattr(stock_losses.F, "cross_entropy", smoothing)
    wanted_loss, wanted = first_step(ultralytics.YOLO, **arguments)
    assert loss == pytest.approx(wanted_loss, rel=1e-6)
    assert abs(loss - plain) > 1e-3
    for name in wanted:
        torch.testing.assert_close(weights[name], wanted[name], rtol=1e-4, atol=1e-5, msg=name)


def test_a_classifiers_validation_loss_is_the_plain_cross_entropy(task_data, quick):
    seen = []

    def on_fit_epoch_end(trainer) -> None:
        if seen:  # the final validation, of the best checkpoint
            return
        with torch.no_grad():
            total = [
                torch.nn.functional.cross_entropy(trainer.ema.ema.eval()(batch["img"].float())[1], batch["cls"]).item()
                for batch in trainer.test_loader
            ]
        seen.append((sum(total) / len(total), trainer.metrics["val/loss"]))

    model = det_ls.YOLO("yolo11n-cls.yaml")
    model.add_callback("on_fit_epoch_end", on_fit_epoch_end)
    model.train(data=str(task_data("classify")), label_smoothing=0.3, **quickly(quick, "classify"))
    assert seen[0][1] == pytest.approx(seen[0][0], abs=2e-3)


def test_a_classifiers_folder_is_read_for_its_classes_whatever_else_is_in_it(task_data, quick, tmp_path):
    data = shutil.copytree(task_data("classify"), tmp_path / "data")
    (data / "notes.yaml").write_text("author: someone\n")
    arguments = {**quickly(quick, "classify"), "data": str(data)}
    with pytest.raises(ValueError, match="expected a class of the data, got 'pink'"):
        det_ls.YOLO("yolo11n-cls.yaml").train(label_smoothing={"pink": 0.1}, **arguments)
    assert not Path(quick["project"]).exists()
    with watch_training() as records:
        det_ls.YOLO("yolo11n-cls.yaml").train(label_smoothing={"default": 0.1}, **arguments)
    assert_epsilon(records, 0.1)


# Open vocabularies


@pytest.fixture
def text_model(monkeypatch):
    """Text features drawn from the words, in place of a text model that would have to be downloaded."""
    from ultralytics.nn.tasks import WorldModel, YOLOEModel

    def get_text_pe(self, text, *args, **kwargs):
        features = [torch.randn(512, generator=torch.Generator().manual_seed(sum(map(ord, t)))) for t in text]
        return torch.nn.functional.normalize(torch.stack(features), dim=-1)[None]

    monkeypatch.setattr(WorldModel, "get_text_pe", get_text_pe)
    monkeypatch.setattr(YOLOEModel, "get_text_pe", get_text_pe)


@pytest.mark.usefixtures("text_model")
def test_yolo_world_smooths_the_prompts_of_an_image(tiny, quick):
    with watch_training() as records:
        det_ls.YOLO("yolov8s-worldv2.yaml").train(data=str(tiny), label_smoothing=0.2, **quick)
    assert_epsilon(records, 0.2)


@pytest.mark.usefixtures("text_model")
@pytest.mark.parametrize(
    ("task", "name", "n"),
    [
        ("detect", "yoloe-11s", 1),
        ("segment", "yoloe-11s-seg", 1),
        ("detect", "yoloe-26n", 2),
        ("segment", "yoloe-26n-seg", 2),
    ],
)
def test_yoloe_on_a_fixed_set_of_classes_smooths_each_with_its_own_epsilon(task, name, n, task_data, quick):
    model = det_ls.YOLO(f"{name}.yaml")
    model.ckpt = {"model": model.model}  # its trainer starts from pretrained weights only
    trainer = {"detect": tasks.YOLOEPETrainer, "segment": tasks.YOLOEPESegTrainer}[task]
    keys = {"label_smoothing": {"default": 0.2, "green": 0.4}}
    with watch_training() as records:
        model.train(trainer=trainer, data=str(task_data(task)), **keys, **quick)
    assert {len(record["halves"]) for record in records} - {0} == {n}
    for record in records:
        for row in (row for rows in record["halves"].values() for row in rows):
            top = max(range(3), key=row.__getitem__)
            ratio = 0.2 / 0.6 if top == 1 else 0.1 / 0.8
            assert [v for i, v in enumerate(row) if i != top] == pytest.approx([ratio, ratio], abs=5e-3)


@pytest.mark.parametrize("way", ["YOLO", "trainer"])
@pytest.mark.parametrize(
    ("keys", "word"),
    [
        ({"label_smoothing": {"red": 0.1}}, "label_smoothing"),
        ({"label_smoothing": 0.1, "label_smoothing_similarity": "t.csv"}, "label_smoothing_similarity"),
    ],
)
def test_yolo_world_refuses_what_distinguishes_classes(way, keys, word, tiny, quick, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("t.csv").write_text(",red,green,blue\nred,0,1,0\ngreen,1,0,0\nblue,0,1,0\n")
    with pytest.raises(
        ValueError, match=f"^{word}: expected one epsilon for all classes and no table with WorldTrainer"
    ):
        if way == "YOLO":
            det_ls.YOLO("yolov8s-world.yaml").train(data=str(tiny), **keys, **quick)
        else:
            ultralytics.YOLOWorld("yolov8s-world.yaml").train(
                trainer=tasks.WorldTrainer, data=str(tiny), **keys, **quick
            )
    assert not Path(quick["project"]).exists()


@pytest.mark.parametrize("name", ["yoloe-11s.yaml", "yoloe-11s-seg.yaml"])
def test_yoloe_asks_for_a_trainer_whose_channels_are_classes(name, tiny):
    with pytest.raises(ValueError, match="label_smoothing: expected trainer=YOLOEPETrainer or YOLOEPESegTrainer"):
        det_ls.YOLO(name).train(data=str(tiny), label_smoothing=0.1)


# Distillation


@pytest.mark.parametrize("name", ["yolo11n", "yolo26n"])
def test_distillation_smooths_the_student_and_leaves_the_teacher_alone(name, tiny, quick, tmp_path):
    if "distill_model" not in vars(ultralytics.cfg.get_cfg()):
        pytest.skip(f"ultralytics {ultralytics.__version__} does not distill")
    teacher = det_ls.YOLO(f"{name}.yaml")
    teacher.save(tmp_path / "teacher.pt")
    before = {k: v.clone() for k, v in det_ls.YOLO(tmp_path / "teacher.pt").model.state_dict().items()}
    seen = {}

    def on_train_epoch_end(trainer) -> None:
        seen["criterion"] = getattr(trainer.model.teacher_model, "criterion", None)
        seen["teacher"] = {k: v.clone() for k, v in trainer.model.teacher_model.state_dict().items()}
        seen["loss"] = float(trainer.loss_items["dis_loss"]) if isinstance(trainer.loss_items, dict) else 1.0

    model = det_ls.YOLO(f"{name}.yaml")
    model.add_callback("on_train_epoch_end", on_train_epoch_end)
    with watch_training() as records:
        model.train(data=str(tiny), label_smoothing=0.2, distill_model=str(tmp_path / "teacher.pt"), **quick)
    assert_epsilon(records, 0.2, 2 if name == "yolo26n" else 1)
    assert seen["criterion"] is None
    assert seen["loss"] > 0
    assert all(torch.equal(seen["teacher"][key].float(), before[key].float()) for key in before)


# One sentence where smoothing has no meaning


def test_rtdetr_is_refused_in_every_way(tiny, quick, capsys):
    why = "expected a YOLO model, got an RT-DETR model: its varifocal loss"
    with pytest.raises(
        ValueError, match="model: expected a YOLO model, got 'rtdetr-l.yaml': build it with ultralytics.RTDETR"
    ):
        det_ls.YOLO("rtdetr-l.yaml")
    with pytest.raises(ValueError, match=f"label_smoothing: {why}"):
        ultralytics.RTDETR("rtdetr-l.yaml").train(
            trainer=det_ls.DetectionTrainer, data=str(tiny), label_smoothing=0.1, **quick
        )
    assert not Path(quick["project"]).exists() or not any(Path(quick["project"]).iterdir())
    assert cli.main(["train", "model=rtdetr-l.yaml", f"data={tiny}", "label_smoothing=0.1"]) == 2
    assert "label_smoothing: expected a YOLO" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "trainer", "message"),
    [
        ("yolo11n-seg.yaml", det_ls.DetectionTrainer, "trainer: expected one for the task 'segment', got DetectionTrainer, which trains 'detect'"),
        ("yolo11n.yaml", det_ls.OBBTrainer, "trainer: expected one for the task 'detect', got OBBTrainer, which trains 'obb'"),
        ("yolo11n-cls.yaml", det_ls.PoseTrainer, "trainer: expected one for the task 'classify', got PoseTrainer"),
        ("yolov8s-world.yaml", det_ls.DetectionTrainer, "trainer: expected a YOLO model with DetectionTrainer, got a YOLO-World model"),
        ("yolo11n.yaml", tasks.WorldTrainer, "trainer: expected a YOLO-World model with WorldTrainer, got a YOLO model"),
        ("yoloe-11s.yaml", det_ls.DetectionTrainer, "trainer: expected a YOLO model with DetectionTrainer, got a YOLOE model"),
    ],
)  # fmt: skip
def test_stock_yolo_with_a_trainer_for_other_models_gets_one_sentence(name, trainer, message, tiny, quick):
    with pytest.raises(ValueError, match=message):
        ultralytics.YOLO(name).train(trainer=trainer, data=str(tiny), label_smoothing=0.1, **quick)
    assert not Path(quick["project"]).exists() or not any(Path(quick["project"]).iterdir())


@pytest.mark.parametrize(("task", "name"), [("semantic", "yolo26n-sem.yaml"), ("depth", "yolo26n-depth.yaml")])
def test_tasks_whose_targets_are_pixels_are_refused(task, name, tiny):
    try:
        model = det_ls.YOLO(name)
    except (FileNotFoundError, KeyError, NotImplementedError):
        pytest.skip(f"ultralytics {ultralytics.__version__} has no task {task}")
    with pytest.raises(ValueError, match=f"label_smoothing: expected a task among detect, .*classify, got '{task}'"):
        model.train(data=str(tiny), label_smoothing=0.1)


def test_visual_prompts_are_refused(tiny):
    from ultralytics.models.yolo.yoloe import YOLOEVPTrainer

    with pytest.raises(
        ValueError, match="expected a trainer derived from one of det_ls.training.tasks, got YOLOEVPTrainer"
    ):
        det_ls.YOLO("yoloe-11s.yaml").train(trainer=YOLOEVPTrainer, data=str(tiny), label_smoothing=0.1)
