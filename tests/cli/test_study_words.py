# SPDX-License-Identifier: AGPL-3.0-or-later
"""``det-ls study`` on the command line: its words, its errors, and what Ctrl-C prints."""

from __future__ import annotations

import pytest

from det_ls.cli.main import main
from det_ls.study import run as runs


@pytest.fixture
def given(monkeypatch):
    """What the command hands to the study, which is not run."""
    found = {}

    def study(**arguments):
        found.update(arguments)
        if "save_dir" in arguments:
            arguments["save_dir"].mkdir(parents=True)
            (arguments["save_dir"] / "study.json").touch()
        raise KeyboardInterrupt

    monkeypatch.setattr(runs, "study", study)
    return found


def test_words_reach_the_study_and_ctrl_c_says_how_to_go_on(given, monkeypatch, tmp_path, capsys):
    monkeypatch.chdir(tmp_path)
    words = "study data=sets/brain-tumor.yaml model=yolo26n.yaml epochs=3 label_smoothing=0,0.1 label_noise=0,0.3 device=0,1"
    assert main([*words.split(), "label_smoothing_mode=redistribute,background", "budget=3h"]) == 130
    assert "go on with: det-ls study resume=runs/study/brain-tumor" in capsys.readouterr().err
    assert given["label_smoothing"] == (0, 0.1)
    assert given["label_smoothing_mode"] == "redistribute,background"
    assert given["epochs"] == 3
    assert str(given["save_dir"]) == "runs/study/brain-tumor"


def test_a_cfg_file_gives_training_keys(given, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "cfg.yaml").write_text("epochs: 7\nimgsz: 32\n")
    main(["study", f"cfg={tmp_path / 'cfg.yaml'}", "data=a.yaml", "model=b.yaml", "imgsz=64"])
    assert (given["epochs"], given["imgsz"], "cfg" in given) == (7, 64, False)


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (
            "study lable_smoothing=0",
            "lable_smoothing: expected a key of det-ls study or of det-ls train, got an unknown",
        ),
        ("study seed", "expected key=value"),
        ("study model=yolo11n.yaml", "data: expected data=... for a study, got none."),
        ("study resume=nowhere", "resume: expected the folder of a study, got 'nowhere'"),
        ("study report=nowhere seeds=3", "report: expected the folder of a study, got 'nowhere'"),
    ],
)
def test_errors_are_one_sentence(words, sentence, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(words.split()) == 2
    error = capsys.readouterr().err
    assert sentence in error
    assert error.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_help_and_completion_know_the_keys(capsys):
    main(["study", "--help"])
    text = capsys.readouterr().out
    for key in ("label_noise=", "seeds=", "budget=", "resume=", "executor="):
        assert key in text
    main(["completion", "bash"])
    assert "label_noise=" in capsys.readouterr().out
