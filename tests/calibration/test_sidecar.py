# SPDX-License-Identifier: AGPL-3.0-or-later
"""A map beside a model: attached once, last of all callbacks, and gone without a trace."""

from __future__ import annotations

import copy
import json
from pathlib import Path

import numpy as np
import pytest
from test_fold_models import model, scenes
from ultralytics import YOLO

from det_ls.calibration.maps import FORMAT, AffineMap, map_from_dict
from det_ls.calibration.sidecar import Calibrator, load_calibrator

HALF = Calibrator(AffineMap((0.5,), (0.0,)))
IMAGE = (scenes(1, seed=2)[0] * 255).byte().permute(1, 2, 0).numpy()


@pytest.fixture
def yolo():
    made = YOLO("yolo11n.yaml")
    made.model = copy.deepcopy(model("yolo11n"))  # predicting fuses it
    return made


def scores(yolo: YOLO) -> np.ndarray:
    return yolo.predict(IMAGE, imgsz=64, conf=0.1, device="cpu", verbose=False)[0].boxes.conf.numpy()


def test_attached_twice_calibrates_once(yolo):
    plain = scores(yolo)
    HALF.attach(HALF.attach(yolo))
    once = scores(yolo)
    assert len(plain) > 3
    assert np.allclose(once, 1 / (1 + np.sqrt((1 - plain) / plain)), atol=1e-5)  # half the logit
    HALF.detach()
    assert np.array_equal(scores(yolo), plain)
    assert HALF not in [getattr(c, "calibrator", None) for listed in yolo.callbacks.values() for c in listed]


def test_a_second_calibrator_is_refused_in_one_sentence(yolo):
    HALF.attach(yolo)
    try:
        with pytest.raises(ValueError, match=r"^model: expected one without a calibrator, got one with another"):
            Calibrator(AffineMap((2.0,), (0.0,))).attach(yolo)
    finally:
        HALF.detach()


@pytest.mark.parametrize("first", ["tracker", "calibrator"])
def test_a_tracker_sees_the_scores_as_they_were(yolo, first):
    """Tracking works in a callback of the same event, which is registered when ``track`` is called."""
    plain, seen = scores(yolo), []

    def track(predictor) -> None:
        seen.append(predictor.results[0].boxes.conf.numpy().copy())

    if first == "tracker":
        yolo.add_callback("on_predict_postprocess_end", track)
        HALF.attach(yolo)
    else:
        HALF.attach(yolo)
        yolo.add_callback("on_predict_postprocess_end", track)
    try:
        moved = scores(yolo)
    finally:
        HALF.detach()
    assert np.array_equal(seen[0], plain)
    assert not np.allclose(moved, plain, atol=1e-3)


GOOD = {"format": FORMAT, "kind": "platt", "a": [1.0], "b": [0.0], "classes": []}
ODD = [
    None,
    [],
    {},
    "x",
    True,
    3,
    [[1.0]],
    [[1], [2, 3]],
    ["x"],
    [None],
    [True],
    [10**400],
    float("nan"),
    [1e999],
    {"a": 1},
]


@pytest.mark.parametrize("key", ["format", "kind", "a", "b", "classes"])
def test_any_odd_value_of_a_map_is_one_sentence(key, tmp_path):
    for odd in ODD:
        content = {**GOOD, key: odd}
        if odd == GOOD[key] or (key, odd) == ("classes", ["x"]):  # a map
            continue
        with pytest.raises((ValueError, TypeError), match=r"^(map|a|b|a, b): expected [^\n]*\.$") as caught:
            map_from_dict(content)
        assert type(caught.value).__module__ == "det_ls.base.errors", (odd, caught.value)
    file = tmp_path / "map.json"
    file.write_text(json.dumps({**GOOD, "kind": ["platt"]}))
    with pytest.raises(ValueError, match=r"^map: expected a calibration map that det-ls wrote"):
        load_calibrator(file)


@pytest.mark.parametrize(
    "other",
    [
        {"kind": "beta", "a": [1.0], "b": 1.0, "c": 0.0},
        {"kind": "beta", "a": 1.0, "b": 1.0},
        {"kind": "isotonic", "score": 0.5, "value": [1.0]},
        {"kind": "isotonic", "score": [], "value": []},
        {"kind": "isotonic", "score": [0.1, "x"], "value": [0.1, 0.2]},
        {"kind": "desmooth", "kept": {}},
        {"kind": "desmooth", "kept": [0.5], "classes": "a"},
        {"kind": "platt", "a": [1.0, 2.0], "b": [0.0, 0.0], "classes": ["a", "a"]},
    ],
)
def test_maps_of_other_kinds_too(other):
    with pytest.raises(ValueError, match=r"^[a-z, ]+: expected [^\n]*\.$"):
        map_from_dict({"format": FORMAT, **other})


@pytest.mark.parametrize("text", ["", "[", "null", '"x"', "[1, 2]", "{}", '{"kind": NaN}', "\x00"])
def test_a_file_that_holds_no_map_is_one_sentence(text, tmp_path: Path):
    (tmp_path / "map.json").write_text(text)
    with pytest.raises(ValueError, match=r"map[^\n]*: expected [^\n]*\.$"):
        load_calibrator(tmp_path / "map.json")
