# SPDX-License-Identifier: AGPL-3.0-or-later
"""The words of the command line: their order, their spelling, help, and how an interruption ends."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from det_ls.cli import main as cli
from det_ls.cli.grammar import arguments_of

ROOT = Path(__file__).parents[2]


@pytest.fixture
def called(monkeypatch):
    """Record what reaches our modes, and what reaches Ultralytics."""
    seen = []
    for mode in ("val", "metrics", "compare"):
        monkeypatch.setitem(cli.COMMANDS, mode, lambda words, mode=mode: seen.append((mode, list(words))))
    monkeypatch.setattr(cli, "passthrough", lambda words: seen.append(("yolo", list(words))))
    return seen


@pytest.mark.parametrize(
    "words",
    [
        "val model=a.pt data=b.yaml split=val",
        "model=a.pt data=b.yaml split=val val",
        "model=a.pt val data=b.yaml split=val",
        "task=detect val model=a.pt data=b.yaml split=val",
        "model=a.pt detect data=b.yaml mode=val split=val",
        "val model=a.pt data=b.yaml split = val",
        "model = a.pt data= b.yaml split =val val",
        "--model=a.pt data=b.yaml, split=val mode = val",
    ],
)
def test_words_in_any_order_run_our_evaluator(words, called):
    assert cli.main(words.split()) == 0
    [(mode, rest)] = called
    assert mode == "val"
    given = arguments_of(rest)
    assert given.pop("task", None) == ("detect" if "detect" in words else None)
    assert given == {"model": "a.pt", "data": "b.yaml", "split": "val"}


@pytest.mark.parametrize(
    "words", ["segment predict model=a-seg.pt", "predict split=val", "settings val", "track name=val"]
)
def test_a_value_called_val_and_another_task_stay_with_ultralytics(words, called):
    assert cli.main(words.split()) == 0
    assert called == [("yolo", words.split())]


MAPPINGS = {
    "{default: 0.05, person: 0.2}": {"default": 0.05, "person": 0.2},
    "{'default': 0.05, 'person': 0.2}": {"default": 0.05, "person": 0.2},
    "{default:0.05,person:0.2}": {"default": 0.05, "person": 0.2},
    "{traffic light: 0.1, no: 0.3, 0: 0.5}": {"traffic light": 0.1, "no": 0.3, 0: 0.5},
}


@pytest.mark.parametrize(("text", "mapping"), MAPPINGS.items())
def test_a_mapping_is_read_as_the_readme_writes_it(text, mapping):
    assert arguments_of(["train", f"label_smoothing={text}"])["label_smoothing"] == mapping
    assert arguments_of(["train", *f"label_smoothing = {text}".split(" ")])["label_smoothing"] == mapping  # unquoted


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("vall model=a.pt", "'vall': expected a mode, a task or key=value, got an unknown word; did you mean 'val'?"),
        ("mode=vall", "got 'vall'; did you mean 'val'?"),
        ("task=detct train", "got 'detct'; did you mean 'detect'"),
        ("compair a=1 b=2", "did you mean 'compare'?"),
        ("train label_smoothing_mod=uniform", "label_smoothing_mod: expected one of the keys"),
        ("train imgz=64", "imgz: expected a key of det-ls or yolo, got an unknown one; did you mean 'imgsz'?"),
        ("train imgsz", "'imgsz': expected imgsz=value, got no value."),
        ("val modl=a.pt", "did you mean 'model'"),
        ("train val model=a.pt", "mode: expected one mode, got train and val."),
        ("train imgsz=[64", "words: expected closed brackets"),
        ("= val", "words: expected"),
        (
            "train model=a.yaml batch=foo",
            "batch: expected a value that Ultralytics takes, got 'foo' (Valid 'batch' types",
        ),
        ("train model=a.yaml fraction=7.5", "fraction: expected a value that Ultralytics takes, got 7.5 ("),
        ("checks now", "checks: expected no words, got 'now'."),
        ("completion fish", "completion: expected bash or zsh, got 'fish'."),
    ],
)
def test_a_mistyped_word_is_one_sentence_that_suggests_ours(words, message, capsys):
    assert cli.main(words.split()) == 2
    error = capsys.readouterr().err
    assert error.startswith("det-ls: error: ")
    assert message in error
    assert error.count("\n") == 1


def test_what_stock_takes_is_not_refused(called):
    for words in (
        "train resume model=a.pt",
        "train model=a.pt half show_boxes=True end2end=True crop_fraction=1 plots",
    ):
        assert cli.main(words.split()) == 0
    assert [mode for mode, _ in called] == ["yolo", "yolo"]


@pytest.mark.parametrize(
    ("mode", "keys"),
    [
        ("train", ["label_smoothing", "label_smoothing_schedule"]),
        ("val", ["model", "data", "bootstrap", "exist_ok", "train_images"]),
        ("metrics", ["annotations", "predictions", "save_dir", "groups"]),
        ("compare", ["a", "b", "data", "save_dir", "imgsz"]),
    ],
)
def test_each_mode_has_a_help_with_its_keys(mode, keys, capsys, called):
    assert cli.main([mode, "--help"]) == 0
    printed = capsys.readouterr().out
    words = [line.split()[0] for line in printed.splitlines() if line.startswith("  ") and line.strip()]
    for key in keys:
        assert f"{key}=" in words
    assert "gt=" not in words
    assert max(map(len, printed.splitlines())) <= 120
    assert not called


def test_the_version_is_printed(capsys):
    import det_ls

    assert cli.main(["--version"]) == 0
    assert capsys.readouterr().out.startswith(f"det-ls {det_ls.__version__} (ultralytics ")


def test_errors_name_the_keys_of_the_command_line(tmp_path, capsys):
    (tmp_path / "gt.json").write_text('{"images": []}')
    words = [f"annotations={tmp_path / 'gt.json'}", "predictions=none.json", f"save_dir={tmp_path / 'out'}"]
    assert cli.main(["metrics", *words]) == 2
    assert "error: annotations: expected COCO instances" in capsys.readouterr().err


def test_cfg_prints_what_a_command_would_set_as_a_file_that_it_reads(tmp_path, capsys):
    words = ["train", "imgsz=32", "label_smoothing={default: 0.1}", "label_smoothing_schedule=linear"]
    assert cli.main(["cfg", *words]) == 0
    printed = yaml.safe_load(capsys.readouterr().out)
    assert printed["imgsz"] == 32
    assert printed["label_smoothing"] == {"default": 0.1}
    assert printed["label_smoothing_schedule"] == "linear"
    assert printed["epochs"] == 100  # stock's own default
    (tmp_path / "all.yaml").write_text(yaml.safe_dump(printed))
    assert arguments_of(["train", f"cfg={tmp_path / 'all.yaml'}"])["label_smoothing"] == {"default": 0.1}


def test_checks_says_what_is_installed_and_which_form_a_run_takes(capsys):
    import torch
    import ultralytics

    assert cli.main(["checks"]) == 0
    printed = capsys.readouterr().out
    for part in (ultralytics.__version__, torch.__version__.split("+")[0], "devices", "cpu: the lean form"):
        assert part in printed
    for seam in ("trainer", "losses", "validator", "folding"):
        assert re.search(rf"^{seam} +as det-ls knows it", printed, re.MULTILINE), seam


def test_the_completion_script_completes(tmp_path, capsys):
    assert cli.main(["completion", "bash"]) == 0
    (tmp_path / "det-ls.sh").write_text(capsys.readouterr().out)
    ask = 'source det-ls.sh; COMP_WORDS=({}); COMP_CWORD={}; _det_ls; echo "${{COMPREPLY[@]}}"'
    for words, position, expected in (
        ("det-ls tr", 1, "train track"),
        ("det-ls train label_smoothing_m", 2, "label_smoothing_mode="),
    ):
        done = subprocess.run(
            ["bash", "-c", ask.format(words, position)], cwd=tmp_path, capture_output=True, text=True, check=True
        )
        assert done.stdout.split() == expected.split()


def test_ctrl_c_ends_with_the_command_to_repeat(monkeypatch, capsys):
    def interrupt(words):
        raise KeyboardInterrupt

    monkeypatch.setitem(cli.COMMANDS, "val", interrupt)
    assert cli.main(["val", "model=my model.pt", "data=b.yaml"]) == 130
    error = capsys.readouterr().err
    assert error == "det-ls: interrupted; repeat with: det-ls val 'model=my model.pt' data=b.yaml\n"


@pytest.mark.parametrize("epochs", [0, 1])
def test_ctrl_c_in_training_ends_with_the_command_to_resume(epochs, tmp_path, monkeypatch, capsys):
    last = tmp_path / "my run" / "last.pt"

    class Model:
        task = "detect"
        trainer = type("Trainer", (), {"last": last})

        def train(self, **arguments) -> None:
            if epochs:
                last.parent.mkdir()
                last.touch()
            raise KeyboardInterrupt

    monkeypatch.setattr("det_ls.training.model.YOLO", lambda *a, **k: Model())
    words = ["train", "model=yolo11n.yaml", "data=x.yaml", "label_smoothing=0.1"]
    assert cli.main(words) == 130
    line = f"go on with: det-ls train resume 'model={last}'" if epochs else f"repeat with: det-ls {' '.join(words)}"
    assert capsys.readouterr().err.splitlines()[-1].endswith(line)


def test_an_interrupted_process_exits_130_with_one_line(tmp_path):
    code = (
        "import sys, signal\nfrom det_ls.cli import main\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"  # a background job of a shell ignores it
        "main.COMMANDS['val'] = lambda words: signal.raise_signal(signal.SIGINT)\nsys.exit(main.main(['val', 'a=b']))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 128 + signal.SIGINT
    assert done.stderr.splitlines()[-1] == "det-ls: interrupted; repeat with: det-ls val a=b"
    assert "Traceback" not in done.stderr


def test_the_training_script_answers_help():
    done = subprocess.run(
        [sys.executable, "scripts/train_coco.py", "--help"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert "annotations=" in done.stdout
    assert "label_smoothing=" in done.stdout


def test_the_words_of_the_grammar_are_stocks():
    from ultralytics import cfg

    from det_ls.cli import grammar

    assert set(cfg.MODES) <= set(grammar.MODES)
    assert set(cfg.TASKS) <= set(grammar.TASKS)


@pytest.mark.parametrize(
    ("words", "status"),
    [("--help", 0), ("", 0), ("--version", 0), ("vall model=a.pt", 2), ("train label_smoothing", 2)],
)
def test_help_and_a_mistyped_word_import_no_torch(words, status):
    """They answer at once; importing torch and Ultralytics takes seconds."""
    code = (
        "import sys; from det_ls.cli.main import main; status = main(sys.argv[1:])\n"
        "print(status, sorted({'torch', 'ultralytics', 'cv2', 'matplotlib'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *words.split()], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines()[-1] == f"{status} []"


@pytest.mark.parametrize(
    ("asked", "names"),
    [
        (("runs/stock*/weights/best.pt", "runs/smooth_s*/weights/best.pt"), ("stock", "smooth")),
        (("runs/eps 0.1 seed[0-9]/weights/best.pt", "runs/eps 0.2 seed?/weights/best.pt"), ("eps 0.1", "eps 0.2")),
        (("a_*.json", "classes*.json"), ("a", "classes")),
        (("runs/eps_0.1*/weights/best.pt", "runs/eps_0.2-*/weights/best.pt"), ("eps_0.1", "eps_0.2")),
        (("runs/*/weights/best.pt", "runs/b*/weights/best.pt"), None),
        (("runs/a/weights/best.pt", "runs/b*/weights/best.pt"), None),
    ],
)
def test_arms_are_named_after_their_patterns(asked, names):
    from det_ls.cli.evaluate import _pattern_names

    assert _pattern_names(*asked) == names
