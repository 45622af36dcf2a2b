# SPDX-License-Identifier: AGPL-3.0-or-later
"""The digits script: its folders, and its measures against torchmetrics and scikit-learn."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import pytest
import torch

SCRIPT = Path(__file__).parents[2] / "scripts" / "classify_digits.py"
specification = importlib.util.spec_from_file_location("classify_digits", SCRIPT)
digits = importlib.util.module_from_spec(specification)
specification.loader.exec_module(digits)


def test_measures_are_those_of_torchmetrics_and_scikit_learn():
    sklearn = pytest.importorskip("sklearn.metrics")
    from torchmetrics.functional import classification

    rng = np.random.default_rng(0)
    probability, true = rng.dirichlet(np.full(10, 0.3), 400), rng.integers(0, 10, 400)
    found = digits.measures(probability, true)
    ece = classification.multiclass_calibration_error(
        torch.tensor(probability), torch.tensor(true), 10, n_bins=digits.BINS
    )
    assert found["accuracy"] == sklearn.accuracy_score(true, probability.argmax(1))
    assert found["ECE"] == pytest.approx(ece.item(), abs=1e-4)
    gap = probability.max(1).mean() - sklearn.accuracy_score(true, probability.argmax(1))
    assert found["signed gap"] == pytest.approx(gap, abs=1e-4)
    assert found["NLL"] == pytest.approx(sklearn.log_loss(true, probability.clip(1e-12), labels=range(10)), abs=1e-4)


def test_every_digit_is_written_once_half_of_each_class_to_train(tmp_path):
    pytest.importorskip("sklearn")
    folder = digits.write_folders(tmp_path)
    counts = {split: [len(list((folder / split / str(c)).iterdir())) for c in range(10)] for split in ("train", "val")}
    assert sum(counts["train"]) + sum(counts["val"]) == 1797
    assert max(abs(a - b) for a, b in zip(counts["train"], counts["val"], strict=True)) <= 1
    assert digits.write_folders(tmp_path) == folder


def test_flipped_labels_are_the_share_that_was_asked_for_in_training_images_only(tmp_path):
    pytest.importorskip("sklearn")
    true, noisy = digits.write_folders(tmp_path), digits.write_folders(tmp_path, flip=0.2, seed=3)
    labels = [
        {file.name: (file.parts[-3], file.parts[-2]) for file in folder.rglob("*.png")} for folder in (true, noisy)
    ]
    changed = [name for name, place in labels[0].items() if labels[1][name] != place]
    assert {labels[1][name][0] for name in changed} == {"train"}
    assert len(changed) == round(0.2 * sum(split == "train" for split, _ in labels[0].values()))
