# SPDX-License-Identifier: AGPL-3.0-or-later
"""What is assumed of Ultralytics is checked with one error, and every patch is undone."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest
import ultralytics
from ultralytics.engine import trainer as engine

from det_ls.stock import patches
from det_ls.stock.devices import check_device
from det_ls.stock.expect import SUPPORTED, Attribute, Method, Source, expect
from det_ls.stock.logs import quiet, without_lines


class Stock:
    def step(self, batch, scale=1.0):
        return batch * scale


HOLD = [
    Method(Stock, "step", ("batch",)),
    Method(Stock, "step", ("batch",), only=True),
    Attribute(ultralytics, "YOLO"),
    Source(Stock, "batch * scale"),
]
FAIL = [
    (Method(Stock, "walk"), r"Stock.walk\(\)"),
    (Method(Stock, "step", ("image",)), r"Stock.step\(image\)"),
    (Method(Stock, "step", ("scale",), only=True), r"Stock.step\(scale\)"),
    (Attribute(ultralytics, "nothing"), "ultralytics.nothing"),
    (Source(Stock, "batch / scale"), "'batch / scale' in Stock"),
]


def test_what_holds_is_silent():
    expect("stock", *HOLD)


@pytest.mark.parametrize(("assumption", "words"), FAIL)
def test_what_does_not_hold_is_named_with_version_and_supported_range(assumption, words):
    wanted = f"ultralytics: expected a version whose stock has {words} .supported: {SUPPORTED}., "
    with pytest.raises(RuntimeError, match=f"^{wanted}got {ultralytics.__version__}.$"):
        expect("stock", *HOLD, assumption)


def test_the_supported_range_is_the_projects():
    assert f'"ultralytics{SUPPORTED}"' in (Path(__file__).parents[2] / "pyproject.toml").read_text()


def test_an_attribute_is_put_back_or_removed_also_after_an_error():
    owner = SimpleNamespace(a=1)
    with pytest.raises(KeyError), patches.replaced(owner, "a", 2), patches.replaced(owner, "b", 3):
        assert vars(owner) == {"a": 2, "b": 3}
        raise KeyError
    assert vars(owner) == {"a": 1}
    with patches.without(owner, ["a"]):
        assert vars(owner) == {}
    assert vars(owner) == {"a": 1}


def test_every_patch_is_undone(tmp_path):
    from ultralytics import cfg
    from ultralytics.data import utils

    def state():
        return cfg.ARGV, ultralytics.YOLO, ultralytics.SAM, engine.generate_ddp_command, utils.DATASETS_DIR

    before = state()
    with (
        patches.command_line(["train"]),
        patches.model_classes({"YOLO": print, "SAM": print}),
        patches.before_ddp_launch(print),
        patches.datasets_folder(tmp_path),
    ):
        assert cfg.ARGV == ["det-ls", "train"]
        assert ultralytics.YOLO is ultralytics.SAM is print
        assert tmp_path == utils.DATASETS_DIR
        with patches.datasets_folder(None):
            assert before[-1] == utils.DATASETS_DIR
        assert engine.generate_ddp_command is not before[3]
    assert all(a is b for a, b in zip(state(), before, strict=True))


def test_log_lines_are_dropped_within_the_context_only(log):
    with quiet():
        ultralytics.utils.LOGGER.info("progress")
        ultralytics.utils.LOGGER.warning("trouble")
    with without_lines("smooth"):
        ultralytics.utils.LOGGER.warning("smoothing is gone")
    ultralytics.utils.LOGGER.info("smoothing is here")
    assert [line.split()[-1] for line in log] == ["trouble", "here"]


def test_the_default_config_is_read_as_ultralytics_reads_it():
    from ultralytics.utils import DEFAULT_CFG_DICT

    from det_ls.stock.config import default_config

    assert default_config() == DEFAULT_CFG_DICT


@pytest.mark.parametrize("device", [99, "banana", "cuda:99", [98, 99]])
def test_a_device_that_is_not_there_is_one_sentence_and_logs_nothing(device, log):
    with pytest.raises(ValueError, match=r"^device: expected 'cpu'[^\n]*, got [^\n]*\.$"):
        check_device(device)
    check_device("cpu")
    check_device(None)
    assert not log


def test_a_cache_of_labels_is_never_gone_or_half_written_for_another_process(tmp_path, monkeypatch):
    """Stock removes it and writes it anew: of two processes that do so at the same time one fails."""
    from ultralytics.data import dataset, utils

    file, seen, save = tmp_path / "train.cache", [], utils.np.save

    def while_another_looks(*args, **kwargs):
        seen.append(utils.load_dataset_cache_file(file)["labels"])  # whole, and as it was
        save(*args, **kwargs)

    stock = dataset.save_dataset_cache_file
    with patches.label_caches_replaced():
        dataset.save_dataset_cache_file("", file, {"labels": ["before"]}, "1")
        monkeypatch.setattr(utils.np, "save", while_another_looks)
        dataset.save_dataset_cache_file("", file, {"labels": ["after"]}, "1")
    assert seen == [["before"]]
    assert utils.load_dataset_cache_file(file)["labels"] == ["after"]
    assert [f.name for f in tmp_path.iterdir()] == ["train.cache"]
    assert dataset.save_dataset_cache_file is stock
