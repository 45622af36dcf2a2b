# SPDX-License-Identifier: AGPL-3.0-or-later
"""scripts/check_gpu.py: a part that fails is told and the others go on."""

from __future__ import annotations

import types

import check_gpu
import pytest
import torch


@pytest.fixture
def two_parts(monkeypatch):
    """A machine with a GPU by its looks, and two quick parts of which the first fails."""
    found = types.SimpleNamespace(name="A GPU", total_memory=80 * 2**30)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda index: found)
    parts = {"tests": ["-c", "print('PASSED a'); print('noise'); print('FAILED b'); raise SystemExit(1)"]}
    parts |= {"coco": ["-c", "print('a bar'); print('10 images/s'); print('100 hours')"]}
    monkeypatch.setattr(check_gpu, "commands", lambda device: parts)


def test_a_part_that_fails_is_told_and_the_others_go_on(two_parts, tmp_path):
    out = tmp_path / "gpu.md"
    assert check_gpu.main(["--out", str(out)]) == 1
    text = out.read_text()
    assert "A GPU (80 GiB, 1 of them)" in text
    assert "**failed** (status 1)" in text
    assert "PASSED a\nFAILED b\n" in text
    assert "10 images/s\n100 hours\n" in text
    assert not {"noise", "a bar"} & set(text.splitlines())


def test_one_part_alone_can_end_well(two_parts, tmp_path):
    assert check_gpu.main(["--out", str(tmp_path / "gpu.md"), "--only", "coco"]) == 0


def test_a_device_that_is_not_there_is_named_before_anything_is_written(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    with pytest.raises(SystemExit):
        check_gpu.main(["--out", str(tmp_path / "gpu.md")])
    assert "--device: expected one of 0 CUDA devices, got '0'." in capsys.readouterr().err
    assert not (tmp_path / "gpu.md").exists()
