# SPDX-License-Identifier: AGPL-3.0-or-later
from __future__ import annotations

import pytest
import yaml

from det_ls.cli import main as cli


@pytest.fixture
def entry(monkeypatch):
    """Record the words that reach Ultralytics' entry point, and the YAML they name while it is there."""
    seen = {}

    def entrypoint() -> None:
        from ultralytics import cfg
        from ultralytics.utils import YAML

        seen["words"] = list(cfg.ARGV[1:])
        for word in cfg.ARGV:
            if word.startswith("cfg="):
                seen["cfg"] = YAML.load(word.removeprefix("cfg="))

    monkeypatch.setattr("ultralytics.cfg.entrypoint", entrypoint)
    return seen


def test_help_names_every_key(capsys):
    assert cli.main([]) == 0
    text = capsys.readouterr().out
    for key in (
        "label_smoothing=",
        "label_smoothing_mode=",
        "label_smoothing_similarity=",
        "label_smoothing_schedule=",
    ):
        assert key in text


@pytest.mark.parametrize(
    "words",
    [
        ["predict", "model=a.pt", "source=my image.jpg"],
        ["export", "model=a.pt", "cfg=x.yaml"],
        ["settings"],
        ["detect", "track", "model=a.pt"],
    ],
)
def test_other_modes_reach_ultralytics_word_for_word(words, entry, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "x.yaml").write_text("imgsz: 64\n")
    assert cli.main(words) == 0
    assert entry["words"] == words


def test_train_keeps_stock_words_and_takes_ours_out(entry):
    words = ["detect", "train", "model=a b.yaml", "imgsz=[64,", "32]", "--label_smoothing=0", "epochs", "=", "3"]
    assert cli.main(words) == 0
    assert entry["words"] == ["detect", "train", "model=a b.yaml", "imgsz=[64,32]", "epochs=3"]


def test_train_takes_our_keys_out_of_the_cfg_file_and_leaves_the_file_alone(entry, tmp_path):
    file = tmp_path / "my cfg.yaml"
    file.write_text(yaml.safe_dump({"epochs": 3, "label_smoothing": 0, "label_smoothing_mode": "uniform"}))
    before = file.read_text()
    assert cli.main(["train", f"cfg={file}"]) == 0
    assert entry["cfg"] == {"epochs": 3}
    assert file.read_text() == before


def test_words_win_over_the_cfg_file_on_every_version(tmp_path, monkeypatch):
    """In older versions ``cfg=`` replaces what stands before it."""
    seen = {}

    class Model:
        task = "detect"

        def train(self, **arguments) -> None:
            seen.update(arguments)

    monkeypatch.setattr("det_ls.training.model.YOLO", lambda *a, **k: Model())
    file = tmp_path / "cfg.yaml"
    file.write_text(yaml.safe_dump({"epochs": 3, "imgsz": 64, "label_smoothing": 0.1}))
    words = ["train", "epochs=2", "device=cpu", f"cfg={file}", "model=yolo11n.yaml", "data=x.yaml"]
    assert cli.main(words) == 0
    assert (seen["epochs"], seen["imgsz"], seen["device"]) == (2, 64, "cpu")
    assert seen["label_smoothing"].smoothing.label_smoothing == 0.1


def test_val_is_ours_however_it_is_asked_for(capsys):
    for words in (["val"], ["detect", "val"], ["mode=val"], ["detect", "mode=val"]):
        assert cli.main([*words, "model=a.pt", "imgz=3"]) == 2
        assert "imgz: expected one of the keys of det-ls val" in capsys.readouterr().err


def test_a_missing_cfg_file_is_one_sentence(capsys):
    assert cli.main(["train", "cfg=nowhere.yaml", "label_smoothing=0.1"]) == 2
    assert "cfg: expected a YAML file, got 'nowhere.yaml', which was not found" in capsys.readouterr().err


def test_the_mode_may_stand_in_the_cfg_file(entry, tmp_path, capsys):
    file = tmp_path / "cfg.yaml"
    file.write_text(yaml.safe_dump({"mode": "predict", "label_smoothing": 0.1}))
    assert cli.main([f"cfg={file}"]) == 2
    assert "expected in train mode only, got mode 'predict'" in capsys.readouterr().err


def test_a_key_that_never_reached_a_trainer_is_an_error(entry, capsys):
    assert cli.main(["train", "model=yolo11n.yaml", "label_smoothing=0.1"]) == 2  # this entry point trains nothing
    assert "expected a YOLO detection model, got one that det-ls does not train" in capsys.readouterr().err


BAD_WORDS = [
    (["train", "label_smoothing"], "'label_smoothing': expected label_smoothing=value"),
    (["train", "label_smoothing="], "'label_smoothing=': expected label_smoothing=value"),
    (["train", "label_smoothing=0.1x"], "label_smoothing: expected a number of at least 0, got str '0.1x'"),
    (["train", "label_smoothing_shedule=linear"], "label_smoothing_shedule: expected one of the keys"),
    (["train", "labelsmoothing=0.1"], "labelsmoothing: expected a known key, did you mean 'label_smoothing'"),
    (["val", "model=a.pt"], "data: expected data=... for det-ls val, got none"),
    (["val", "model=a.pt", "data=b.yaml", "imgz=3"], "imgz: expected one of the keys of det-ls val"),
    (["val", "model"], "'model': expected key=value"),
]


@pytest.mark.parametrize(("words", "message"), BAD_WORDS)
def test_bad_words_are_one_sentence(words, message, capsys):
    assert cli.main(words) == 2
    assert f"det-ls: error: {message}" in capsys.readouterr().err


def test_an_error_of_someone_else_keeps_its_traceback(monkeypatch):
    exec("def entrypoint():\n    raise ValueError('deep')", scope := {"__name__": "elsewhere"})
    monkeypatch.setattr("ultralytics.cfg.entrypoint", scope["entrypoint"])
    with pytest.raises(ValueError, match="deep"):
        cli.main(["train", "model=yolo11n.yaml"])
