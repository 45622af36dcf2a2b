# SPDX-License-Identifier: AGPL-3.0-or-later
"""Noise is of the rate and kind that was asked for, the same for equal seeds, and leaves its source alone."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
import yaml
from conftest import make_dataset

from det_ls.base.errors import DetLsError
from det_ls.data.ground_truth import ground_truth_from_yolo
from det_ls.data.locate import check_dataset
from det_ls.studies.noise import noisy_data
from det_ls.studies.records import Condition


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    return make_dataset(tmp_path_factory.mktemp("source"), train=60, val=4)


def content(folder: Path) -> dict[str, str]:
    """Return a digest of each file of a data set, caches apart."""
    files = [f for f in sorted(folder.rglob("*")) if f.is_file() and f.suffix != ".cache"]
    return {str(f.relative_to(folder)): hashlib.sha256(f.read_bytes()).hexdigest() for f in files}


def labels(data: Path, split: str = "train") -> dict[str, list[list[float]]]:
    files = sorted((data.parent / "labels" / split).glob("*.txt"))
    return {f.name: [[float(v) for v in line.split()] for line in f.read_text().splitlines()] for f in files}


def test_flips_are_as_many_as_asked_and_change_nothing_else(source, tmp_path):
    before = content(source.parent)
    data = noisy_data(source, tmp_path / "noisy", Condition(flip=0.3), seed=1)
    assert content(source.parent) == before
    old, new = labels(source), labels(data)
    assert old.keys() == new.keys()
    pairs = [(a, b) for name in old for a, b in zip(old[name], new[name], strict=True)]
    flipped = sum(a[0] != b[0] for a, b in pairs)
    assert 0.3 * 120 - 3 * 5.02 < flipped < 0.3 * 120 + 3 * 5.02  # three standard deviations of a binomial
    assert all(a[1:] == pytest.approx(b[1:], abs=1e-6) for a, b in pairs)
    assert {b[0] for a, b in pairs if a[0] == 0 != b[0]} == {1, 2}
    manifest = json.loads((data.parent / "manifest.json").read_text())
    assert manifest["counts"]["flip"] == flipped == len(manifest["changed"])


def test_the_validation_split_is_the_source_s_own(source, tmp_path):
    data = noisy_data(source, tmp_path / "noisy", Condition(flip=0.5, drop=0.5, jitter=0.3), seed=0)
    assert labels(data, "val") == labels(source, "val")
    truth = [ground_truth_from_yolo(check_dataset(file, "val")).coco["annotations"] for file in (source, data)]
    assert truth[0] == truth[1]


def test_equal_seeds_give_equal_noise_and_others_another(source, tmp_path):
    a, b, c = (
        noisy_data(source, tmp_path / name, Condition(flip=0.3), s) for name, s in (("a", 4), ("b", 4), ("c", 5))
    )
    assert labels(a) == labels(b) != labels(c)


def test_more_noise_holds_the_less(source, tmp_path):
    changed = []
    for flip in (0.1, 0.4):
        data = noisy_data(source, tmp_path / f"{flip}", Condition(flip=flip), 0)
        manifest = json.loads((data.parent / "manifest.json").read_text())
        changed.append({(c["image"], c["object"]) for c in manifest["changed"]})
    assert changed[0] < changed[1]


def test_drops_and_jitter(source, tmp_path):
    dropped = labels(noisy_data(source, tmp_path / "drop", Condition(drop=0.25), 0))
    assert 15 < 120 - sum(map(len, dropped.values())) < 45
    moved, old = labels(noisy_data(source, tmp_path / "jitter", Condition(jitter=0.1), 0)), labels(source)
    pairs = np.array([(a, b) for name in old for a, b in zip(old[name], moved[name], strict=True)])
    assert (pairs[:, 0, 0] == pairs[:, 1, 0]).all()
    left = [pairs[:, i, 1] - pairs[:, i, 3] / 2 for i in (0, 1)]
    shift = (left[1] - left[0]) / pairs[:, 0, 3]
    inside = left[1] > 1e-5
    assert 0.07 < shift[inside].std() < 0.13
    corners = [pairs[:, 1, 1 + i] + sign * pairs[:, 1, 3 + i] / 2 for i in (0, 1) for sign in (-1, 1)]
    assert np.min(corners) > -1e-6
    assert np.max(corners) < 1 + 1e-6


def test_a_fraction_takes_whole_groups_and_grows(source, tmp_path):
    names = [set(labels(noisy_data(source, tmp_path / str(f), Condition(fraction=f), 0))) for f in (0.2, 0.5)]
    assert [len(n) for n in names] == [12, 30]
    assert names[0] < names[1]
    grouped = labels(noisy_data(source, tmp_path / "g", Condition(fraction=0.3), 0, groups=r"^\d\d"))
    tens = {name[:2] for name in grouped}
    assert len(grouped) == 10 * len(tens)


def test_what_is_there_is_used_again_and_nothing_else_replaced(source, tmp_path):
    data = noisy_data(source, tmp_path / "noisy", Condition(flip=0.3), 1)
    stamp = (data.parent / "manifest.json").stat().st_mtime_ns
    assert noisy_data(source, tmp_path / "noisy", Condition(flip=0.3), 1) == data
    assert (data.parent / "manifest.json").stat().st_mtime_ns == stamp
    with pytest.raises(DetLsError, match="something else"):
        noisy_data(source, tmp_path / "noisy", Condition(flip=0.2), 1)
    assert (data.parent / "manifest.json").stat().st_mtime_ns == stamp
    assert [p.name for p in tmp_path.iterdir()] == ["noisy"]


def test_labels_that_are_no_boxes_are_refused(tmp_path):
    data = make_dataset(tmp_path / "source")
    (tmp_path / "source" / "labels" / "train" / "000.txt").write_text("0 0.1 0.1 0.2 0.2 0.3 0.3\n")
    with pytest.raises(DetLsError, match="labels of boxes"):
        noisy_data(data, tmp_path / "noisy", Condition(flip=0.1), 0)
    assert not (tmp_path / "noisy").exists()


def test_one_class_cannot_be_flipped(tmp_path):
    data = make_dataset(tmp_path / "source", names=("one",))
    with pytest.raises(DetLsError, match="at least 2 classes"):
        noisy_data(data, tmp_path / "noisy", Condition(flip=0.1), 0)


def test_an_official_annotation_file_is_still_found(source, tmp_path):
    own = yaml.safe_load(source.read_text())
    file = tmp_path / "with.yaml"
    file.write_text(yaml.safe_dump({**own, "annotations": {"val": "gt.json", "train": "train.json"}}))
    data = noisy_data(file, tmp_path / "noisy", Condition(flip=0.1), 0)
    assert yaml.safe_load(data.read_text())["annotations"] == {"val": str(source.parent / "gt.json")}


def test_a_data_set_moves_with_its_source(tmp_path, monkeypatch):
    old, new = tmp_path / "old", tmp_path / "new"
    file = make_dataset(old / "source", train=6, val=2)
    content = yaml.safe_load(file.read_text())
    file.write_text(yaml.safe_dump({key: value for key, value in content.items() if key != "path"}))
    monkeypatch.chdir(old)
    noisy_data("source/data.yaml", "runs/data/noisy", Condition(flip=0.3), seed=0)
    monkeypatch.chdir(tmp_path)
    old.rename(new)
    monkeypatch.chdir(new)
    before = (new / "runs/data/noisy/manifest.json").stat().st_mtime_ns
    data = noisy_data("source/data.yaml", "runs/data/noisy", Condition(flip=0.3), seed=0)
    assert (new / "runs/data/noisy/manifest.json").stat().st_mtime_ns == before
    images = [f for f in data.parent.joinpath("images").rglob("*") if f.is_symlink()]
    assert len(images) == 8
    assert all(f.is_file() and f.resolve().is_relative_to(new) for f in images)


def test_links_that_lead_nowhere_are_made_anew(tmp_path, monkeypatch):
    make_dataset(tmp_path / "source", train=6, val=2)
    monkeypatch.chdir(tmp_path)
    noisy_data("source/data.yaml", "runs/noisy", Condition(flip=0.3), seed=0)
    before = labels(tmp_path / "runs/noisy/data.yaml")
    (tmp_path / "far/away").mkdir(parents=True)
    (tmp_path / "runs/noisy").rename(tmp_path / "far/away/noisy")
    assert not any(f.exists() for f in (tmp_path / "far/away/noisy/images").glob("*/*"))
    data = noisy_data("source/data.yaml", "far/away/noisy", Condition(flip=0.3), seed=0)
    assert all(f.exists() for f in (data.parent / "images").glob("*/*"))
    assert labels(data) == before


def test_labels_that_changed_since_are_not_taken_for_the_old(tmp_path):
    source = make_dataset(tmp_path / "source", train=6, val=2)
    noisy_data(source, tmp_path / "noisy", Condition(flip=0.3), seed=0)
    label = next((source.parent / "labels" / "train").glob("*.txt"))
    label.write_text(label.read_text() + "0 0.5 0.5 0.1 0.1\n")
    with pytest.raises(DetLsError, match="labels that have changed since; remove it"):
        noisy_data(source, tmp_path / "noisy", Condition(flip=0.3), seed=0)
