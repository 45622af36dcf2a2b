# SPDX-License-Identifier: AGPL-3.0-or-later
"""A classifier's numbers are those of torchmetrics, torch and scikit-learn, and their replicates those of resampled images."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.metrics import log_loss, top_k_accuracy_score
from torchmetrics.functional.classification import multiclass_accuracy, multiclass_calibration_error

from det_ls.evaluation.classification import measure_classes
from det_ls.evaluation.settings import MeasureSettings
from det_ls.metrics.calibration import equal_mass_reliability
from det_ls.metrics.classification import (
    CLASSIFICATION,
    ClassificationTable,
    class_rows,
    classification_numbers,
    classification_table,
    joined,
)
from det_ls.report.classification_page import classification_text
from det_ls.uncertainty.floor import top_label_floors


def drawn(n: int = 600, k: int = 8, seed: int = 0, sharp: float = 2.0) -> tuple[np.ndarray, np.ndarray]:
    """Logits, and labels that they predict when divided by 1.5."""
    rng = np.random.default_rng(seed)
    z = rng.normal(0, sharp, (n, k))
    p = np.exp(z / 1.5)
    p /= p.sum(1, keepdims=True)
    return z, np.array([rng.choice(k, p=row) for row in p])


def table_of(n: int = 600, k: int = 8, seed: int = 0) -> ClassificationTable:
    z, y = drawn(n, k, seed)
    return classification_table(z, y, [f"c{i}" for i in range(k)])


def values_of(table: ClassificationTable) -> dict[str, float]:
    return {key: float(v[0]) for key, v in classification_numbers(table).items()}


def test_numbers_are_those_of_independent_tools():
    z, y = drawn()
    p = torch.from_numpy(z).softmax(1)
    target = torch.from_numpy(y)
    found = values_of(classification_table(z, y, [f"c{i}" for i in range(8)]))
    assert set(found) == set(CLASSIFICATION)
    assert found["accuracy"] == pytest.approx(multiclass_accuracy(p, target, 8, average="micro").item(), abs=1e-7)
    assert found["accuracy_top5"] == pytest.approx(top_k_accuracy_score(y, p.numpy(), k=5), abs=1e-12)
    assert found["ECE"] == pytest.approx(multiclass_calibration_error(p, target, 8, n_bins=15).item(), abs=1e-6)
    assert found["nll"] == pytest.approx(
        torch.nn.functional.cross_entropy(torch.from_numpy(z), target).item(), abs=1e-9
    )
    assert found["nll"] == pytest.approx(log_loss(y, p.numpy()), abs=1e-9)
    one_hot = torch.nn.functional.one_hot(target, 8)
    assert found["brier"] == pytest.approx(((p - one_hot) ** 2).sum(1).mean().item(), abs=1e-12)
    confidence, guess = p.max(1)
    assert found["signed_gap"] == pytest.approx(float(confidence.mean() - (guess == target).double().mean()), abs=1e-12)
    mass = equal_mass_reliability(confidence.numpy(), (guess == target).numpy(), bins=15)
    assert found["ECE_equal_mass"] == pytest.approx(mass.error, abs=1e-12)


def test_five_guesses_need_more_than_five_classes():
    assert "accuracy_top5" not in values_of(table_of(k=5))


def test_a_replicate_is_the_number_of_the_images_repeated():
    z, y = drawn(80, 7)
    z = z.round(1)  # some probabilities are equal
    z[:20] = z[20:40]
    names = [str(i) for i in range(7)]
    weights = np.random.default_rng(1).integers(0, 4, (80, 3)).astype(np.uint16)
    found = classification_numbers(classification_table(z, y, names), weights)
    for r in range(3):
        rows = np.repeat(np.arange(80), weights[:, r])
        again = values_of(classification_table(z[rows], y[rows], names))
        assert {key: v[r] for key, v in found.items()} == pytest.approx(again, abs=1e-9)


def test_extreme_logits_keep_their_likelihood():
    found = classification_table([[0.0, 1000.0], [1000.0, 0.0]], [0, 0], "ab")
    assert found.nll.tolist() == [1000.0, 0.0]
    assert found.rank.tolist() == [1, 0]


@pytest.mark.parametrize(
    ("z", "y", "match"),
    [
        ([[0.1, 0.2]], [0, 1], "log_probability: expected shape"),
        ([[0.1, 0.2]], [2], "label: expected classes from 0 to 1"),
        ([[np.nan, 0.2]], [0], "log_probability: expected finite numbers"),
    ],
)
def test_what_does_not_fit_is_refused(z, y, match):
    with pytest.raises(ValueError, match=match):
        classification_table(z, y, "ab")


def test_joined_batches_are_the_whole():
    z, y = drawn(50, 6)
    names = [str(i) for i in range(6)]
    parts = joined([classification_table(z[:20], y[:20], names), classification_table(z[20:], y[20:], names)])
    assert values_of(parts) == values_of(classification_table(z, y, names))


def test_floor_is_what_calibrated_labels_read():
    table = table_of(400, 6)
    rng = np.random.default_rng(5)
    confidence = torch.from_numpy(np.c_[1 - table.confidence, table.confidence])
    sharp = table.confidence >= 0.5  # the first guess of two classes
    floors = top_label_floors(table.confidence[sharp], table.correct[sharp], 15, simulations=400, seed=1)
    two = confidence[torch.from_numpy(sharp)]
    drawn_errors = [
        multiclass_calibration_error(
            two, torch.from_numpy((rng.random(len(two)) < table.confidence[sharp]).astype(np.int64)), 2, n_bins=15
        ).item()
        for _ in range(200)
    ]
    assert floors["ECE"].median == pytest.approx(np.median(drawn_errors), rel=0.1)
    assert floors["ECE"].p95 == pytest.approx(np.quantile(drawn_errors, 0.95), rel=0.12)
    assert floors["ECE_equal_mass"].median > 0


def test_over_confidence_is_seen_and_a_calibrated_classifier_is_not_accused():
    how = MeasureSettings(bootstrap=200, simulations=200)
    z, y = drawn(1500, 6)
    names = [str(i) for i in range(6)]
    files = [f"{i}.png" for i in range(1500)]
    over = measure_classes(classification_table(z, y, names), files, {}, how)
    right = measure_classes(classification_table(z / 1.5, y, names), files, {}, how)
    assert over.intervals["signed_gap"].low > 0
    assert over.floors["ECE"].exceeded_by(over.values["ECE"])
    assert right.intervals["signed_gap"].low < 0 < right.intervals["signed_gap"].high
    assert not right.floors["ECE"].exceeded_by(right.values["ECE"])
    for key, interval in over.intervals.items():
        assert interval.low <= over.values[key] <= interval.high
        assert interval.low >= 0 or CLASSIFICATION[key].signed
    assert over.definitions["accuracy"]["higher_is_better"] is True
    assert over.definitions["nll"]["higher_is_better"] is False


def test_fifteen_of_fifteen_right_are_no_certainty():
    names, files = list("abcdefg"), [f"p{i // 3}_{i}.png" for i in range(15)]
    y = np.arange(15) % 7
    how = MeasureSettings(bootstrap=100, simulations=100)
    table = classification_table(np.eye(7)[y] * 800, y, names)  # every confidence is 1
    found = measure_classes(table, files, {}, how)
    assert found.values["accuracy"] == found.values["accuracy_top5"] == 1
    for key in ("accuracy", "accuracy_top5"):  # Wilson: n / (n + z^2)
        assert (found.intervals[key].low, found.intervals[key].high) == (pytest.approx(15 / (15 + 1.959964**2)), 1)
    assert set(found.intervals) == {"accuracy", "accuracy_top5"}
    assert found.floors == {}
    grouped = measure_classes(table, files, {}, how, groups=r"^p\d+")
    assert grouped.intervals["accuracy"].low == pytest.approx(5 / (5 + 1.959964**2))
    wrong = measure_classes(classification_table(np.eye(7)[y] * 800, (y + 1) % 7, names), files, {}, how)
    assert (wrong.intervals["accuracy"].low, wrong.intervals["accuracy"].high) == (
        0,
        pytest.approx(1 - 0.7961, abs=1e-4),
    )
    text = classification_text(found)
    assert "1.0000, 1.0000" not in text
    assert "floor" not in text


def test_groups_widen_intervals_and_raise_the_floor():
    z, y = drawn(120, 6)
    z, y = np.repeat(z, 5, axis=0), np.repeat(y, 5)
    files = [f"p{i // 5}_{i}.png" for i in range(600)]
    table = classification_table(z, y, [str(i) for i in range(6)])
    how = MeasureSettings(bootstrap=200, simulations=200)
    alone, grouped = (measure_classes(table, files, {}, how, groups=g) for g in (None, r"^p\d+"))
    assert (alone.groups, grouped.groups) == (600, 120)
    width = [r.intervals["accuracy"].high - r.intervals["accuracy"].low for r in (alone, grouped)]
    assert width[1] > 1.5 * width[0]
    assert grouped.floors["ECE"].p95 > alone.floors["ECE"].p95


def test_each_class_is_counted():
    rows = class_rows(
        classification_table(np.log([[0.9, 0.05, 0.05], [0.8, 0.1, 0.1], [0.2, 0.6, 0.2]]), [0, 1, 1], "abc")
    )
    assert rows[0] == {
        "id": 0, "name": "a", "n": 1, "n_predicted": 2, "recall": 1.0, "precision": 0.5,
        "mean_confidence": pytest.approx(0.85), "signed_gap": pytest.approx(0.35),
    }  # fmt: skip
    assert rows[2]["recall"] is None
    assert rows[2]["precision"] is None
