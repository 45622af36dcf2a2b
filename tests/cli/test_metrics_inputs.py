# SPDX-License-Identifier: AGPL-3.0-or-later
"""``det-ls metrics`` takes what detectors write: COCO results or YOLO text files, with images beside them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from det_ls.cli import main as cli


@pytest.fixture
def predictions(tiny: Path, tmp_path: Path) -> Path:
    """A text file an image: its labels, the first with a low score, and a box too many."""
    folder = tmp_path / "labels"
    folder.mkdir()
    for file in sorted((tiny.parent / "labels" / "val").glob("*.txt")):
        first, *others = file.read_text().splitlines()
        lines = [f"{first} 0.3", *(f"{line} 0.8" for line in others), "1 0.5 0.5 0.9 0.9 0.2"]
        (folder / file.name).write_text("\n".join(lines) + "\n")
    return folder


@pytest.mark.usefixtures("without_pictures")
def test_text_files_are_measured_with_crops_of_the_images(tiny, predictions, tmp_path, capsys) -> None:
    out = tmp_path / "out"
    words = ["metrics", f"predictions={predictions}", f"data={tiny}", f"save_dir={out}", "bootstrap=0"]
    assert cli.main(words) == 0
    result = json.loads((out / "metrics.json").read_text())
    assert (result["n_images"], result["n_gt"], result["n_detections"]) == (4, 8, 12)
    assert result["protocol"]["detections"] == str(predictions)
    assert result["protocol"]["ground_truth"] == "labels"
    assert "labels on data" in (out / "report.html").read_text()
    assert "data:image/jpeg" in (out / "report.html").read_text()
    assert (out / "ground_truth.json").is_file()

    # The files that were written say the same, and take the images from their folder.
    images = tiny.parent / "images" / "val"
    again = ["metrics", f"annotations={out / 'ground_truth.json'}", f"predictions={out / 'predictions.json'}"]
    assert cli.main([*again, f"images={images}", f"save_dir={tmp_path / 'again'}", "bootstrap=0"]) == 0
    repeated = json.loads((tmp_path / "again" / "metrics.json").read_text())
    assert {k: repeated[k] for k in ("AP", "LaECE0", "DECE")} == {k: result[k] for k in ("AP", "LaECE0", "DECE")}
    page, first = ((tmp_path / name / "report.html").read_text() for name in ("again", "out"))
    assert page.count("data:image/jpeg") == first.count("data:image/jpeg")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["predictions=x.json"], "annotations: expected annotations=... or data=... for det-ls metrics, got none."),
        (["predictions=.", "annotations=x.json"], "data: expected a data YAML with a folder of YOLO predictions"),
        (["predictions=x", "annotations=y", "evaluator=fast"], "evaluator: expected one of pycocotools, hotcoco"),
    ],
)
def test_missing_words_are_one_sentence(words, message, tmp_path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    assert cli.main(["metrics", *words]) == 2
    assert f"det-ls: error: {message}" in capsys.readouterr().err


def test_an_evaluator_that_is_not_installed_is_one_sentence(tiny, predictions, tmp_path, monkeypatch, capsys) -> None:
    monkeypatch.setattr("det_ls.metrics.evaluators.find_spec", lambda _: None)
    words = ["metrics", f"predictions={predictions}", f"data={tiny}", f"save_dir={tmp_path / 'out'}"]
    assert cli.main([*words, "evaluator=hotcoco"]) == 2
    assert "det-ls: error: evaluator: expected 'hotcoco' to be installed" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
