# SPDX-License-Identifier: AGPL-3.0-or-later
"""Each epoch is measured on its own, also one that is trained again."""

from __future__ import annotations

import math
from types import SimpleNamespace

import pytest

from det_ls.smoothing.adaptive import AdaptivePolicy
from det_ls.training import observed
from det_ls.training.observed import GAP_COLUMN, GapObserver, Observer, observer_for


def test_a_gap_is_of_the_epoch_in_which_it_was_measured(monkeypatch):
    monkeypatch.setattr(observed, "gap_validator", lambda trainer, images: SimpleNamespace(images=images))
    monkeypatch.setattr(observed, "measured_gap", lambda validator, trainer: 0.1 * trainer.epoch)
    trainer = SimpleNamespace(save_dir="run", epoch=0, epochs=4)
    observer = observer_for(AdaptivePolicy("background", ["a"]), trainer)
    assert isinstance(observer, GapObserver)
    gaps = []
    for trainer.epoch in (0, 2, 3, 0):
        observer.begin()
        observer.end(trainer)
        gaps.append(observer.logged()[GAP_COLUMN])
        assert observer.facts(trainer.epoch, 4, {}).gap == (None if math.isnan(gaps[-1]) else gaps[-1])
    assert gaps == pytest.approx([math.nan, 0.2, 0.3, math.nan], nan_ok=True)
    observer.close()


def test_a_policy_that_asks_for_nothing_has_nothing_measured():
    observer = observer_for(None, None)
    assert type(observer) is Observer
    observer.begin()
    observer.end(None)
    assert observer.logged() == {}
    assert observer.facts(1, 2, {"loss": 1.0}).metrics == {"loss": 1.0}
    observer.close()
