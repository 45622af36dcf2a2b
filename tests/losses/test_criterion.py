# SPDX-License-Identifier: AGPL-3.0-or-later
"""The smoothed criterion equals stock's loss on smoothed targets, is leaner, and falls back when it would not be equal.

The oracle is the stock criterion with PyTorch's own BCE, in float64, on stock's dense targets times P.
"""

from __future__ import annotations

import copy
import importlib.util
import os
import random
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import ultralytics
from loss_scene import (
    OBJECTS,
    assert_same,
    decided,
    error,
    force,
    forms,
    get_model,
    make_batch,
    make_preds,
    matrix_of,
    oracle,
    outcome,
    parts_of,
)
from torch.nn.functional import binary_cross_entropy_with_logits
from ultralytics.cfg import get_cfg
from ultralytics.nn.tasks import DetectionModel
from ultralytics.utils.loss import E2ELoss, v8DetectionLoss
from ultralytics.utils.tal import TaskAlignedAssigner

from det_ls import smoothing_matrix
from det_ls.losses import agreement
from det_ls.losses import criterion as losses
from det_ls.losses.agreement import Verdict, judge
from det_ls.losses.criterion import LabelSmoothingDetectionLoss
from det_ls.losses.dense import DenseSmoothedBCE
from det_ls.losses.families import halves, set_smoothing_matrix, smoothed_criterion
from det_ls.losses.form import CurrentMatrix
from det_ls.losses.lean import term
from det_ls.losses.lean.assigner import SoftScoreAssigner
from det_ls.losses.lean.scores import LazyScores
from det_ls.smoothing.similarity import SimilarityTable

MODELS = ("yolo11n", "yolov8n", "yolo26n")
TOLERANCE = {torch.float32: 1e-5, torch.float64: 1e-12}


@pytest.fixture(params=[torch.float32, torch.float64], ids=["float32", "float64"])
def dtype(request):
    """A dtype of the head's outputs; stock's loss vector has torch's default dtype, so that follows."""
    default = torch.get_default_dtype()
    yield request.param
    torch.set_default_dtype(default)


def work_in(dtype, *batches):
    """Let stock add up its three terms in float64 from here on, where the outputs are float64."""
    if dtype == torch.float64:
        torch.set_default_dtype(torch.float64)
        for batch in batches:
            batch.update({key: value.double() for key, value in batch.items()})


NAMES = [str(i) for i in range(5)]
TABLE = ",0,1,2,3,4\n0,0,1,0,0,2\n1,1,0,1,0,0\n2,0,0,0,0,0\n3,0,.5,0,0,.25\n4,2,0,0,1,0\n"
SMOOTHINGS = {
    "redistribute": ({"label_smoothing": 0.1}, lambda: smoothing_matrix(5, 0.1)),
    "uniform": (
        {"label_smoothing": 0.2, "label_smoothing_mode": "uniform"},
        lambda: smoothing_matrix(5, 0.2, "uniform"),
    ),
    "binary": ({"label_smoothing": 0.3, "label_smoothing_mode": "binary"}, lambda: smoothing_matrix(5, 0.3, "binary")),
    "background": (
        {"label_smoothing": 0.15, "label_smoothing_mode": "background"},
        lambda: smoothing_matrix(5, 0.15, "background"),
    ),
    "mapping": (
        {"label_smoothing": {"default": 0.05, 2: 0.4, 4: 0.0}},
        lambda: smoothing_matrix(5, [0.05, 0.05, 0.4, 0.05, 0.0]),
    ),
}


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize(("keys", "matrix"), SMOOTHINGS.values(), ids=SMOOTHINGS)
def test_every_smoothing_equals_the_oracle(name, keys, matrix, dtype):
    model, batch = get_model(name), make_batch(OBJECTS, 5)
    preds = make_preds(model, batch, dtype)
    work_in(dtype, batch)
    criterion = decided(model, preds, batch, **keys)
    assert forms(criterion) == ["lean"] * len(halves(criterion))
    assert_same(outcome(criterion, preds, batch), outcome(oracle(model, matrix()), preds, batch), TOLERANCE[dtype])


def test_a_similarity_table_equals_the_oracle(tmp_path, dtype):
    file = tmp_path / "table.csv"
    file.write_text(TABLE)
    model, batch = copy.copy(get_model()), make_batch(OBJECTS, 5)
    model.names = dict(enumerate(NAMES))
    preds = make_preds(model, batch, dtype)
    work_in(dtype, batch)
    criterion = decided(model, preds, batch, label_smoothing=0.1, label_smoothing_similarity=str(file))
    matrix = smoothing_matrix(5, 0.1, similarity=SimilarityTable.read(str(file)).for_classes(NAMES))
    assert matrix[0, 4] == pytest.approx(0.1 * 2 / 3)
    assert_same(outcome(criterion, preds, batch), outcome(oracle(model, matrix), preds, batch), TOLERANCE[dtype])


@pytest.mark.parametrize("name", ["yolo11n", "yolo26n"])
def test_a_schedules_middle_equals_the_oracle(name, dtype):
    model, batch = get_model(name), make_batch(OBJECTS, 5)
    preds = make_preds(model, batch, dtype)
    work_in(dtype, batch)
    criterion = decided(model, preds, batch, label_smoothing=0.2, label_smoothing_schedule="linear")
    matrix = smoothing_matrix(5, 0.1)
    set_smoothing_matrix(criterion, matrix)
    assert forms(criterion) == ["lean"] * len(halves(criterion))
    assert torch.equal(matrix_of(criterion), matrix)
    assert_same(outcome(criterion, preds, batch), outcome(oracle(model, matrix), preds, batch), TOLERANCE[dtype])


@pytest.mark.parametrize("name", MODELS)
def test_at_the_identity_lean_and_dense_equal_stock(name, dtype):
    model, batch = get_model(name), make_batch(OBJECTS, 5)
    preds = make_preds(model, batch, dtype)
    work_in(dtype, batch)
    criterion = decided(model, preds, batch, label_smoothing=0.1)
    set_smoothing_matrix(criterion, torch.eye(5))
    stock = outcome(model.init_criterion(), preds, batch)
    assert_same(outcome(criterion, preds, batch), stock, TOLERANCE[dtype])
    assert_same(outcome(force(criterion, "dense"), preds, batch), stock, TOLERANCE[dtype])


CASES = {
    "no object": (5, [0, 0, 0]),
    "a single image without objects": (5, [0]),
    "crowd": (5, [70, 100, 2]),
    "two classes": (2, OBJECTS),
    "many classes": (1203, [2, 4]),
    "one object": (5, [0, 1]),
}


@pytest.mark.parametrize("name", ["yolo11n", "yolo26n"])
@pytest.mark.parametrize(("nc", "objects"), CASES.values(), ids=CASES)
def test_any_number_of_objects_and_classes(name, nc, objects, dtype):
    model, batch = get_model(name, nc), make_batch(objects, nc)
    first = make_batch([2, 2], nc, seed=1)
    first_preds, preds = make_preds(model, first, dtype), make_preds(model, batch, dtype)
    work_in(dtype, first, batch)
    criterion = decided(model, first_preds, first, label_smoothing=0.1)
    assert set(forms(criterion)) == {"lean"}
    wanted = outcome(oracle(model, smoothing_matrix(nc, 0.1)), preds, batch)
    assert_same(outcome(criterion, preds, batch), wanted, TOLERANCE[dtype])
    assert_same(outcome(force(criterion, "dense"), preds, batch), wanted, TOLERANCE[dtype])


@pytest.mark.parametrize("mode", ["binary", "background"])
@pytest.mark.parametrize("name", ["yolo11n", "yolo26n"])
def test_one_class(name, mode, dtype):
    model, batch = get_model(name, 1), make_batch(OBJECTS, 1)
    preds = make_preds(model, batch, dtype)
    work_in(dtype, batch)
    criterion = decided(model, preds, batch, label_smoothing=0.1, label_smoothing_mode=mode)
    assert set(forms(criterion)) == {"lean"}
    wanted = outcome(oracle(model, smoothing_matrix(1, 0.1, mode)), preds, batch)
    assert_same(outcome(criterion, preds, batch), wanted, TOLERANCE[dtype])


@pytest.mark.parametrize("name", ["yolo11n", "yolo26n"])
def test_class_weights(name, dtype):
    model, batch = copy.copy(get_model(name)), make_batch(OBJECTS, 5)
    preds = make_preds(model, batch, dtype)
    model.class_weights = torch.tensor([0.5, 2.0, 1.0, 0.1, 3.0])
    work_in(dtype, batch)
    criterion = decided(model, preds, batch, label_smoothing=0.1)
    assert set(forms(criterion)) == {"lean"}
    got = outcome(criterion, preds, batch)
    assert_same(got, outcome(oracle(model, smoothing_matrix(5, 0.1)), preds, batch), TOLERANCE[dtype])
    del model.class_weights
    assert error(got[1], outcome(oracle(model, smoothing_matrix(5, 0.1)), preds, batch)[1]) > 0.1


def test_at_the_heads_initial_bias_the_loss_is_right_where_stocks_own_cancels():
    model, batch = get_model(nc=1203), make_batch([4, 4], 1203, size=128)
    preds = make_preds(model, batch)
    with torch.no_grad():
        preds["scores"] = model(batch["img"])["scores"].clone()
    criterion = decided(model, preds, batch, label_smoothing=0.1)
    assert criterion.form == "lean"
    wanted = outcome(oracle(model, smoothing_matrix(1203, 0.1)), preds, batch)
    assert_same(outcome(criterion, preds, batch), wanted, 1e-5)
    assert_same(outcome(force(criterion, "dense"), preds, batch), wanted, 1e-5)
    right = outcome(oracle(model, torch.eye(1203)), preds, batch)
    assert error(outcome(model.init_criterion(), preds, batch)[0], right[0]) > 1e-4  # why the guard compares in double


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("name", ["yolo11n", "yolo26n"])
def test_half_precision_is_the_float64_result_rounded(name, dtype):
    from precision import ulps

    model, batch = get_model(name), make_batch(OBJECTS, 5)
    preds = make_preds(model, batch, dtype)
    criterion = decided(model, preds, batch, label_smoothing=0.1)
    assert set(forms(criterion)) == {"lean"}
    got = outcome(criterion, preds, batch)
    wanted = outcome(oracle(model, smoothing_matrix(5, 0.1)), preds, batch)
    assert error(got[0], wanted[0]) <= 1e-3
    for a, b in zip(got[1:], wanted[1:], strict=True):
        assert a.dtype == dtype
        assert ulps(a, b) <= 2


@pytest.mark.parametrize("name", ["yolo11n", "yolo26n"])
def test_running_out_of_memory_in_the_assigner_changes_nothing(name, monkeypatch):
    model, batch = get_model(name), make_batch(OBJECTS, 5)
    preds = make_preds(model, batch)
    criterion = decided(model, preds, batch, label_smoothing=0.1)
    usual = outcome(criterion, preds, batch)
    failures, stock = [], TaskAlignedAssigner._forward

    def forward(self, pd_scores, *args, **kwargs):
        if len(failures) < len(halves(criterion)) and id(self) not in failures:
            failures.append(id(self))
            raise RuntimeError("CUDA out of memory")
        return stock(self, pd_scores, *args, **kwargs)

    monkeypatch.setattr(TaskAlignedAssigner, "_forward", forward)
    again = outcome(criterion, preds, batch)
    assert len(failures) == len(halves(criterion))
    assert_same(again, usual, 1e-6)


def test_another_error_in_the_assigner_is_not_swallowed(monkeypatch):
    model, batch = get_model(), make_batch(OBJECTS, 5)
    preds = make_preds(model, batch)
    criterion = decided(model, preds, batch, label_smoothing=0.1)

    def forward(self, *args, **kwargs):
        raise RuntimeError("something else")

    monkeypatch.setattr(TaskAlignedAssigner, "_forward", forward)
    with pytest.raises(RuntimeError, match="something else"):
        outcome(criterion, preds, batch)


@pytest.mark.parametrize("name", ["yolo11n", "yolo26n"])
@pytest.mark.parametrize("when", ["before", "after"])
def test_a_deep_copy_works_and_shares_nothing(name, when):
    model, batch = get_model(name), make_batch(OBJECTS, 5)
    preds = make_preds(model, batch)
    criterion = smoothed_criterion(model, label_smoothing=0.1)
    wanted = outcome(oracle(model, smoothing_matrix(5, 0.1)), preds, batch)
    if when == "after":
        outcome(criterion, preds, batch)
    twin = copy.deepcopy(criterion)
    set_smoothing_matrix(twin, torch.eye(5))
    assert_same(outcome(twin, preds, batch), outcome(model.init_criterion(), preds, batch), 1e-5)
    assert_same(outcome(criterion, preds, batch), wanted, 1e-5)
    for a, b in zip(halves(criterion), halves(twin), strict=True):
        assert a.assigner is not b.assigner
        assert a.bce.assigner is a.assigner
        assert b.bce.assigner is b.assigner


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
@pytest.mark.parametrize("state", ["undecided", "decided"])
def test_works_without_gradients_and_does_not_decide_there(mode, state):
    model, batch = get_model(), make_batch(OBJECTS, 5)
    preds = make_preds(model, batch)
    criterion = smoothed_criterion(model, label_smoothing=0.1)
    if state == "decided":
        outcome(criterion, preds, batch)
    with mode():
        loss = criterion(preds, batch)[0]
    assert error(loss, outcome(oracle(model, smoothing_matrix(5, 0.1)), preds, batch)[0]) <= 1e-5
    assert criterion.form == ("lean" if state == "decided" else "dense")


@pytest.mark.parametrize("name", ["yolo11n", "yolo26n"])
def test_deterministic_mode(name):
    model, batch = get_model(name), make_batch(OBJECTS, 5)
    preds = make_preds(model, batch)
    torch.use_deterministic_algorithms(True)
    try:
        criterion = decided(model, preds, batch, label_smoothing=0.1)
        assert set(forms(criterion)) == {"lean"}
        first, second = outcome(criterion, preds, batch), outcome(criterion, preds, batch)
        wanted = outcome(oracle(model, smoothing_matrix(5, 0.1)), preds, batch)
    finally:
        torch.use_deterministic_algorithms(False)
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))
    assert_same(first, wanted, 1e-5)


def test_stock_objects_keep_their_attributes():
    model, batch = get_model(), make_batch(OBJECTS, 5)
    preds = make_preds(model, batch)
    criterion, stock = decided(model, preds, batch, label_smoothing=0.1), model.init_criterion()
    outcome(stock, preds, batch)
    ours, theirs = vars(criterion.assigner), vars(stock.assigner)
    assert {k for k in set(ours) - set(theirs) if not k.startswith("det_ls_")} == set()
    assert {k: ours[k] for k in theirs if not k.startswith("_")} == {
        k: v for k, v in theirs.items() if not k.startswith("_")
    }
    assert isinstance(criterion.assigner, TaskAlignedAssigner)


def test_the_number_of_classes_that_the_assigner_believes_in_does_not_matter():
    model, batch = get_model(), make_batch(OBJECTS, 5)
    preds = make_preds(model, batch)
    criterion = decided(model, preds, batch, label_smoothing=0.1)
    usual = outcome(criterion, preds, batch)
    criterion.assigner.num_classes = 2
    assert_same(outcome(criterion, preds, batch), usual, 0.0)


def load_bench():
    specification = importlib.util.spec_from_file_location(
        "bench_criterion", Path(__file__).parents[2] / "scripts" / "bench_criterion.py"
    )
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


@pytest.mark.parametrize("name", ["yolo11n", "yolo26n"])
def test_with_1203_classes_the_peak_extra_memory_is_below_0_4_of_stocks(name):
    bench, device = load_bench(), torch.device("cpu")
    model, batch = get_model(name, 1203), make_batch([8, 8], 1203, size=256)
    with torch.no_grad():
        preds = bench.detach(model(batch["img"]))
    steps = {
        "stock": bench.make_step(model.init_criterion(), preds, batch, device),
        "ours": bench.make_step(
            decided(model, make_preds(model, batch), batch, label_smoothing=0.1), preds, batch, device
        ),
    }
    memory = {form: bench.peak_extra_memory(step, device) for form, step in steps.items()}
    assert memory["ours"] <= 0.4 * memory["stock"]


def test_the_benchmark_prints_a_row_for_each_cell(capsys):
    words = [
        "--models",
        "yolo11n",
        "--classes",
        "3",
        "--objects",
        "2",
        "5",
        "--imgsz",
        "64",
        "--batch",
        "2",
        "--pairs",
        "2",
        "--step-repeats",
        "1",
    ]
    assert load_bench().main(words) == 0
    rows = [line for line in capsys.readouterr().out.splitlines() if line.startswith("| yolo11n")]
    assert [row.split("|")[1].strip() for row in rows] == ["yolo11n, 3, 2, 2", "yolo11n, 3, 5, 2"]
    assert {row.count("|") for row in rows} == {10}


# The guard


def scaled_sum(*args, **kwargs):
    return ORIGINAL_SUM(*args, **kwargs) * 1.01


ORIGINAL_SUM = term.foreground_bce_sum


def break_numbers(monkeypatch):
    monkeypatch.setattr(term, "foreground_bce_sum", scaled_sum)


def break_scores(monkeypatch):
    read = LazyScores.__getitem__

    def wrong(self, index):
        if isinstance(index, tuple) and len(index) == 3:
            index = (*index[:2], torch.zeros_like(index[2]))  # always the first class
        return read(self, index)

    monkeypatch.setattr(LazyScores, "__getitem__", wrong)


def break_labels(monkeypatch):
    get_targets = SoftScoreAssigner.get_targets

    def wrong(self, *args):
        labels, boxes, scores = get_targets(self, *args)
        return (labels + 1) % 5, boxes, scores

    monkeypatch.setattr(SoftScoreAssigner, "get_targets", wrong)


def break_boxes(monkeypatch):
    get_targets = SoftScoreAssigner.get_targets

    def wrong(self, *args):
        labels, boxes, scores = get_targets(self, *args)
        return labels, boxes + 1, scores

    monkeypatch.setattr(SoftScoreAssigner, "get_targets", wrong)


def break_gradient(monkeypatch):
    monkeypatch.setattr(term, "foreground_bce_sum", lambda *a, **k: ORIGINAL_SUM(*a, **k).detach())


def break_with(error):
    def broken(monkeypatch):
        def fail(*args, **kwargs):
            raise error

        monkeypatch.setattr(term.LeanSmoothedBCE, "__call__", fail)

    return broken


BREAKAGES = {
    "wrong loss": break_numbers,
    "wrong class read": break_scores,
    "wrong labels": break_labels,
    "wrong boxes": break_boxes,
    "no gradient": break_gradient,
    "attribute error": break_with(AttributeError("no such thing")),
    "out of memory": break_with(torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")),
    "runtime error": break_with(RuntimeError("CUDA error: out of memory")),
}


@pytest.mark.parametrize("name", ["yolo11n", "yolo26n"])
@pytest.mark.parametrize("breakage", BREAKAGES.values(), ids=BREAKAGES)
def test_a_broken_binding_falls_back_to_right_numbers_with_one_warning(name, breakage, monkeypatch, caplog):
    model, batch = get_model(name), make_batch(OBJECTS, 5)
    preds = make_preds(model, batch)
    wanted = outcome(oracle(model, smoothing_matrix(5, 0.1)), preds, batch)
    breakage(monkeypatch)
    criterion = smoothed_criterion(model, label_smoothing=0.1)
    caplog.clear()
    for _ in range(3):
        assert_same(outcome(criterion, preds, batch), wanted, 1e-5)
    assert set(forms(criterion)) == {"dense"}
    warnings = [r.getMessage() for r in caplog.records if "label_smoothing" in r.getMessage()]
    assert len(warnings) == 1
    assert f"ultralytics {ultralytics.__version__}" in warnings[0]
    assert "slower dense form" in warnings[0]


def test_a_healthy_binding_warns_of_nothing(caplog):
    model, batch = get_model(), make_batch(OBJECTS, 5)
    decided(model, make_preds(model, batch), batch, label_smoothing=0.1)
    assert not [r for r in caplog.records if r.levelname == "WARNING"]


def count_calls(monkeypatch, owner, name):
    """Return a list that grows by one with every call."""
    calls, function = [], getattr(owner, name)
    monkeypatch.setattr(owner, name, lambda *args: calls.append(1) or function(*args))
    return calls


def test_the_check_runs_once_a_run(monkeypatch):
    model, batch = get_model(), make_batch(OBJECTS, 5)
    preds = make_preds(model, batch)
    checks, agreements = count_calls(monkeypatch, losses, "judge"), count_calls(monkeypatch, losses, "agree")
    criterion = smoothed_criterion(model, label_smoothing=0.1)
    for _ in range(3):
        outcome(criterion, preds, batch)
    set_smoothing_matrix(criterion, torch.eye(5))
    outcome(criterion, preds, batch)
    assert checks == agreements == [1]


def test_forms_that_are_wrong_alike_are_found_by_comparing_with_stock(monkeypatch):
    model, batch = get_model(), make_batch(OBJECTS, 5)
    preds = make_preds(model, batch)
    break_numbers(monkeypatch)
    forward = DenseSmoothedBCE.forward
    monkeypatch.setattr(DenseSmoothedBCE, "forward", lambda self, *args: forward(self, *args) * 1.01)
    verdict = judge(model.init_criterion(), smoothing_matrix(5, 0.1), preds, batch)
    assert verdict.right is False
    assert "differs from the stock one" in verdict.reason


@pytest.mark.parametrize("epsilon", [0.1, 0.0])
def test_a_form_that_does_not_smooth_is_found_also_where_the_run_begins_unsmoothed(epsilon, monkeypatch):
    model, batch = get_model(), make_batch(OBJECTS, 5)
    real = agreement.lean_form
    plain = CurrentMatrix(torch.eye(5), torch.device("cpu"))
    monkeypatch.setattr(agreement, "lean_form", lambda stock, current: real(stock, plain))
    verdict = judge(model.init_criterion(), smoothing_matrix(5, epsilon), make_preds(model, batch), batch)
    assert verdict.right is False
    assert "differs from the dense one" in verdict.reason


def test_a_form_that_fails_is_wrong_and_says_how(monkeypatch):
    model, batch = get_model(), make_batch(OBJECTS, 5)
    break_with(ValueError("no"))(monkeypatch)
    verdict = judge(model.init_criterion(), smoothing_matrix(5, 0.1), make_preds(model, batch), batch)
    assert verdict == Verdict(False, "fails (ValueError: no)")


def test_the_check_sees_two_images_at_most(monkeypatch):
    model, batch = get_model(), make_batch([5] * 6, 5)
    preds, seen = make_preds(model, batch), []
    loss = v8DetectionLoss.loss

    def watch(self, preds, batch):
        seen.append(len(preds["boxes"]))
        return loss(self, preds, batch)

    monkeypatch.setattr(v8DetectionLoss, "loss", watch)
    outcome(smoothed_criterion(model, label_smoothing=0.1), preds, batch)
    assert seen == [2, 2, 2, 2, 6]


@pytest.mark.parametrize(
    "breakage", [None, break_numbers, break_with(ValueError("no"))], ids=["healthy", "wrong", "error"]
)
def test_the_check_leaves_criterion_outputs_and_random_state_alone(breakage, monkeypatch):
    model, batch = get_model(), make_batch(OBJECTS, 5)
    preds = {k: v.requires_grad_() if isinstance(v, torch.Tensor) else v for k, v in make_preds(model, batch).items()}
    criterion = smoothed_criterion(model, label_smoothing=0.1)
    if breakage is not None:
        breakage(monkeypatch)
    own, assigner, stock = dict(vars(criterion)), copy.deepcopy(vars(criterion.assigner)), model.init_criterion()
    before = {k: v.clone() for k, v in {**preds, **batch}.items() if isinstance(v, torch.Tensor)}
    states = torch.get_rng_state(), np.random.get_state()[1].copy(), random.getstate()
    assert judge(stock, criterion.smoothing_matrix, preds, batch).right is (breakage is None)
    assert torch.equal(torch.get_rng_state(), states[0])
    assert np.array_equal(np.random.get_state()[1], states[1])
    assert random.getstate() == states[2]
    assert vars(criterion.assigner).keys() == vars(stock.assigner).keys() == assigner.keys()
    assert all(v is vars(criterion)[k] for k, v in own.items())
    assert type(stock.assigner) is TaskAlignedAssigner
    assert preds["scores"].grad is preds["boxes"].grad is None
    for key, value in before.items():
        assert torch.equal({**preds, **batch}[key], value), key


def test_live_outputs_get_the_gradient_of_one_loss_only():
    model, batch = get_model(), make_batch(OBJECTS, 5)
    preds = make_preds(model, batch)
    first = outcome(smoothed_criterion(model, label_smoothing=0.1), preds, batch)  # with the check
    second = outcome(decided(model, preds, batch, label_smoothing=0.1), preds, batch)  # without
    assert_same(first, second, 1e-6)


def test_batches_without_an_object_leave_the_form_open(monkeypatch):
    model, empty, batch = get_model(), make_batch([0, 0], 5), make_batch(OBJECTS, 5)
    checks = count_calls(monkeypatch, losses, "judge")
    criterion = smoothed_criterion(model, label_smoothing=0.1)
    for _ in range(2):
        outcome(criterion, make_preds(model, empty), empty)
        assert criterion.form == "dense"
        assert not checks
    outcome(criterion, make_preds(model, batch), batch)
    assert criterion.form == "lean"


def test_objects_without_a_foreground_anchor_leave_the_form_open(monkeypatch, caplog):
    model, batch = get_model(), make_batch([2, 2], 5)
    preds = make_preds(model, batch)
    criterion = smoothed_criterion(model, label_smoothing=0.1)
    with monkeypatch.context() as nothing_fits:
        nothing_fits.setattr(TaskAlignedAssigner, "iou_calculation", lambda self, a, b: torch.zeros(b.shape[:-1]))
        outcome(criterion, preds, batch)
    assert criterion.form == "dense"
    outcome(criterion, preds, batch)
    assert criterion.form == "lean"
    assert not [r for r in caplog.records if r.levelname == "WARNING"]


@pytest.mark.parametrize("name", ["yolo11n", "yolo26n"])
@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_a_batch_with_a_logit_that_is_not_finite_leaves_the_form_open(name, value, caplog):
    model, batch = get_model(name), make_batch(OBJECTS, 5)
    preds, broken = make_preds(model, batch), make_preds(model, batch)
    for part in parts_of(broken):
        part["scores"][0, 1, 2] = value
    criterion = smoothed_criterion(model, label_smoothing=0.1)
    outcome(criterion, broken, batch)
    assert set(forms(criterion)) == {"dense"}
    outcome(criterion, preds, batch)
    assert set(forms(criterion)) == {"lean"}
    assert not [r for r in caplog.records if r.levelname == "WARNING"]


def test_a_lean_form_that_alone_is_not_finite_is_wrong(monkeypatch):
    model, batch = get_model(), make_batch(OBJECTS, 5)
    monkeypatch.setattr(term, "foreground_bce_sum", lambda *a, **k: ORIGINAL_SUM(*a, **k) * float("nan"))
    verdict = judge(model.init_criterion(), smoothing_matrix(5, 0.1), make_preds(model, batch), batch)
    assert verdict.right is False


def test_changing_the_matrix_rebuilds_nothing():
    model, batch = get_model(), make_batch(OBJECTS, 5)
    criterion = decided(model, make_preds(model, batch), batch, label_smoothing=0.1)
    before = criterion.forms, criterion.assigner, criterion.bce
    set_smoothing_matrix(criterion, torch.eye(5))
    assert (criterion.forms, criterion.assigner, criterion.bce) == before
    assert torch.equal(criterion.smoothing_matrix, torch.eye(5).double())


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda c: c.use("fast"), "form: expected one of dense, lean, got 'fast'"),
        (lambda c: c.set_smoothing_matrix(torch.eye(4)), r"matrix: expected shape \(5, 5\), got \(4, 4\)"),
    ],
)
def test_a_wrong_form_or_matrix_is_named(call, message):
    with pytest.raises(ValueError, match=message):
        call(smoothed_criterion(get_model(), label_smoothing=0.1))


def test_one_broken_half_is_enough_to_warn_and_each_half_has_right_numbers(monkeypatch, caplog):
    model, batch = get_model("yolo26n"), make_batch(OBJECTS, 5)
    preds = make_preds(model, batch)
    criterion = smoothed_criterion(model, label_smoothing=0.1)
    only_one2one = lambda stock, *args: Verdict(stock.assigner.topk2 != 1, "is broken")  # noqa: E731
    monkeypatch.setattr(losses, "judge", only_one2one)
    wanted = outcome(oracle(model, smoothing_matrix(5, 0.1)), preds, batch)
    for _ in range(2):
        assert_same(outcome(criterion, preds, batch), wanted, 1e-5)
    assert criterion.one2one.form == "dense"
    assert caplog.text.count("is broken") == 1


TWO_PROCESSES = """
import sys, torch
sys.path.insert(0, sys.argv[3])
import loss_scene as t
from det_ls import smoothing_matrix
from det_ls.losses.agreement import Verdict
from det_ls.losses import criterion as losses

rank, rendezvous = int(sys.argv[1]), sys.argv[2]
torch.distributed.init_process_group("gloo", init_method=f"file://{rendezvous}", rank=rank, world_size=2)
model = t.get_model()
batch, empty = t.make_batch(t.OBJECTS, 5, seed=rank), t.make_batch([0, 0], 5)
preds, nothing = t.make_preds(model, batch), t.make_preds(model, empty)

checks, check = [], losses.judge
losses.judge = lambda *args: checks.append(1) or check(*args)

def run(*steps):
    checks.clear()
    criterion = t.smoothed_criterion(model, label_smoothing=0.1)
    forms = [(t.outcome(criterion, *step), criterion.form)[1] for step in steps]
    return criterion, [*forms, len(checks)]

usual, late = (preds, batch), (nothing, empty)
print("healthy", *run(usual)[1])
print("late", *run(late if rank == 0 else usual, late if rank == 0 else usual, usual)[1])
if rank == 1:
    losses.judge = lambda *args: checks.append(1) or Verdict(False, "is broken")
criterion, forms = run(usual, usual)
print("broken", *forms)
wanted = t.outcome(t.oracle(model, smoothing_matrix(5, 0.1)), preds, batch)
t.assert_same(t.outcome(criterion, preds, batch), wanted, 1e-5)
print("broken and late", *run(late if rank == 0 else usual, usual)[1])
torch.distributed.destroy_process_group()
"""


@pytest.mark.skipif(not torch.distributed.is_available(), reason="this PyTorch is built without distributed")
def test_processes_agree_on_the_form(tmp_path):
    folder = Path(__file__).parents[1]
    path = os.pathsep.join(filter(None, [str(folder.parent), os.environ.get("PYTHONPATH", "")]))
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", TWO_PROCESSES, str(rank), str(tmp_path / "rendezvous"), str(folder)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": path, "GLOO_SOCKET_IFNAME": "lo"},
        )
        for rank in range(2)
    ]
    try:
        outputs = [process.communicate(timeout=120) for process in processes]
    finally:
        for process in processes:
            process.kill()
    said = [
        [line for line in out.splitlines() if line.split()[0] in {"healthy", "late", "broken"}] for out, _ in outputs
    ]
    wanted = ["healthy lean 1", "late dense dense lean 1", "broken dense dense 1"]
    assert said[0] == [*wanted, "broken and late dense dense 0"], outputs
    assert said[1] == [*wanted, "broken and late dense dense 1"], outputs


# Building a criterion


@pytest.mark.parametrize(
    "keys", [{}, {"label_smoothing": 0}, {"label_smoothing": {"default": 0.0}}, {"label_smoothing": None}]
)
def test_without_epsilon_the_criterion_is_stocks_own(keys):
    for name, kind in (("yolo11n", v8DetectionLoss), ("yolo26n", E2ELoss)):
        criterion = smoothed_criterion(get_model(name), **keys)
        assert type(criterion) is kind
        assert all(type(half) is v8DetectionLoss for half in halves(criterion))
        assert all(type(half.bce) is torch.nn.BCEWithLogitsLoss for half in halves(criterion))


def test_the_end_to_end_criterion_smooths_both_halves():
    criterion = smoothed_criterion(get_model("yolo26n"), label_smoothing=0.1)
    assert type(criterion) is E2ELoss
    assert [type(half) for half in halves(criterion)] == [LabelSmoothingDetectionLoss] * 2
    stock = get_model("yolo26n").init_criterion()
    for ours, theirs in zip(halves(criterion), halves(stock), strict=True):
        assert (ours.assigner.topk, ours.assigner.topk2) == (theirs.assigner.topk, theirs.assigner.topk2)


def test_a_model_with_another_criterion_is_refused():
    class Semantic(DetectionModel):
        def init_criterion(self):
            return object()

    model = Semantic("yolo11n.yaml", nc=2, verbose=False)
    model.args = get_cfg()
    with pytest.raises(
        TypeError, match="model: expected a model with one of the criteria v8DetectionLoss, .* got Semantic with object"
    ):
        smoothed_criterion(model, label_smoothing=0.1)


@pytest.mark.parametrize(
    ("keys", "kind", "message"),
    [
        ({"label_smoothing": 0.9}, ValueError, "label_smoothing: expected an epsilon below 0.8"),
        ({"label_smoothing": "0.1"}, TypeError, "label_smoothing: expected a number"),
        ({"label_smoothing": {"pink": 0.1}}, ValueError, "expected a class of the data, got 'pink'"),
        ({"epsilon": 0.1}, TypeError, "epsilon: expected one of the keys"),
    ],
)
def test_a_bad_key_is_named(keys, kind, message):
    with pytest.raises(kind, match=message):
        smoothed_criterion(get_model(), **keys)
    if "epsilon" not in keys:
        with pytest.raises(kind, match=message):
            LabelSmoothingDetectionLoss(get_model(), **keys)


MISSING = {
    "loss": (v8DetectionLoss, "loss", "v8DetectionLoss.loss(preds, batch)"),
    "get_targets": (TaskAlignedAssigner, "get_targets", "TaskAlignedAssigner.get_targets(gt_labels, gt_bboxes"),
    "another signature": (TaskAlignedAssigner, "forward", "TaskAlignedAssigner.forward(pd_scores"),
}


@pytest.mark.parametrize(("owner", "method", "words"), MISSING.values(), ids=MISSING)
def test_an_unknown_ultralytics_is_named_before_any_work(owner, method, words, monkeypatch):
    if method == "forward":
        monkeypatch.setattr(owner, method, lambda self, scores: None)
    else:
        monkeypatch.delattr(owner, method)
    with pytest.raises(RuntimeError, match="ultralytics: expected a version whose losses") as caught:
        smoothed_criterion(get_model(), label_smoothing=0.1)
    assert words in str(caught.value)
    assert ultralytics.__version__ in str(caught.value)


def test_the_dense_form_is_torchs_bce_on_smoothed_targets():
    generator = torch.Generator().manual_seed(0)
    matrix = smoothing_matrix(4, 0.2)
    logits = torch.randn(2, 6, 4, generator=generator, dtype=torch.float64) * 3
    targets = torch.rand(2, 6, 4, generator=generator, dtype=torch.float64) / 4
    wanted = binary_cross_entropy_with_logits(logits, targets @ matrix, reduction="none")
    torch.testing.assert_close(
        DenseSmoothedBCE(CurrentMatrix(matrix, torch.device("cpu")))(logits, targets), wanted, rtol=1e-12, atol=1e-14
    )
    half = DenseSmoothedBCE(CurrentMatrix(matrix, torch.device("cpu")))(logits.half(), targets.half())
    assert half.dtype == torch.float32
    assert error(half, wanted) < 1e-3


@pytest.mark.parametrize("how_many", [{}, {"tal_topk": 7}, {"tal_topk": 7, "tal_topk2": 1}])
def test_a_criterion_that_is_made_by_hand_assigns_as_stocks(how_many):
    model = DetectionModel("yolo11n.yaml", nc=3, verbose=False)
    model.args = get_cfg()
    stock, ours = (
        v8DetectionLoss(model, **how_many),
        LabelSmoothingDetectionLoss(model, label_smoothing=0.1, **how_many),
    )
    for key in ("topk", "topk2"):
        assert getattr(ours.assigner, key, None) == getattr(stock.assigner, key, None)
