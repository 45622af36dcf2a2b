# SPDX-License-Identifier: AGPL-3.0-or-later
"""The collector is as it was before, whatever happens in between."""

from __future__ import annotations

import gc

import pytest

from det_ls.base.memory import paused_collection


@paused_collection()
def is_on() -> bool:
    return gc.isenabled()


def test_the_collector_is_paused_and_comes_back() -> None:
    assert gc.isenabled()
    with paused_collection():
        assert not gc.isenabled()
        assert not is_on()
        assert not gc.isenabled()
    assert gc.isenabled()
    with pytest.raises(KeyError), paused_collection():
        raise KeyError
    assert gc.isenabled()


def test_who_turned_it_off_keeps_it_off() -> None:
    gc.disable()
    try:
        assert not is_on()
        assert not gc.isenabled()
    finally:
        gc.enable()
