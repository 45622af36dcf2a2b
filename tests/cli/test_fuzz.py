# SPDX-License-Identifier: AGPL-3.0-or-later
"""Random input: every outcome is a run, or one sentence of ours and status 2; no traceback, nothing half-written.

1,450 cases in all, the same in every run: 300 sets of keys, 200 data YAMLs, 300 files of labels and predictions,
250 COCO files, 400 command lines. To search further, set ``HYPOTHESIS_CASES`` to a factor.
"""

from __future__ import annotations

import contextlib
import copy
import io
import json
import os
import tempfile
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from det_ls.base.errors import DetLsError
from det_ls.cli import main as cli

FACTOR = int(os.environ.get("HYPOTHESIS_CASES", "1"))


def cases(number: int) -> Any:
    """Run a number of cases, the same ones each time unless more are asked for."""
    return settings(
        max_examples=number * FACTOR,
        deadline=None,
        derandomize=FACTOR == 1,
        database=None,
        suppress_health_check=list(HealthCheck),
    )


def outcome(function: Callable[[], Any]) -> Any:
    """Return what a function returns, or None after one sentence of ours."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return function()
        except DetLsError as error:
            text = str(error)
            assert "expected" in text, text
            assert text.isprintable(), text
            assert text[-1] in ".?", text
            return None


@contextlib.contextmanager
def folder() -> Iterator[Path]:
    """Stand in a new folder, in which nothing may be left half-written."""
    before = Path.cwd()
    with tempfile.TemporaryDirectory() as name:
        os.chdir(name)
        try:
            yield Path(name)
            left = [path.name for path in Path(name).rglob(".*") if not path.name.endswith(".cache")]
            assert left == []
        finally:
            os.chdir(before)


TEXT = st.text(max_size=8) | st.sampled_from(
    ["default", "cat", "dog", "", " ", "nan", "1e400", "-0", "x" * 300, "a/b", "\0", "\ud800"]
)
NUMBERS = (
    st.integers(-3, 3)
    | st.integers()
    | st.floats()
    | st.sampled_from([2**53 + 1, 2**63, 2**64, 10**400, -(10**400), 1e308, 5e-324])
)
SCALARS = st.none() | st.booleans() | NUMBERS | TEXT
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT | st.integers(-1, 3), inner, max_size=4),
    max_leaves=8,
)


@cases(300)
@given(
    st.fixed_dictionaries(
        {},
        optional={
            "label_smoothing": VALUES
            | st.floats(0, 1)
            | st.dictionaries(st.sampled_from(["cat", "dog", "default", 0, 1]), st.floats(0, 1)),
            "label_smoothing_mode": st.sampled_from(["redistribute", "uniform", "binary", "background"]) | VALUES,
            "label_smoothing_schedule": st.sampled_from(["constant", "linear", "cosine"]) | VALUES,
            "label_smoothing_similarity": TEXT | VALUES,
            "label_smoothing_x": VALUES,
            "labelsmoothing": VALUES,
        },
    ),
    st.lists(TEXT, min_size=1, max_size=4, unique=True),
)
def test_keys(keys: dict[str, Any], names: list[str]) -> None:
    from det_ls.smoothing.request import Request

    def matrix() -> Any:
        request = Request.parse(keys)
        request.check(names)
        policy = request.policy(names)
        return None if policy is None else policy.matrix(0, 3)

    found = outcome(matrix)
    if found is not None:
        assert found.shape == (len(names), len(names))
        assert (found >= 0).all()
        assert (found.diagonal() >= found.max(1).values).all()  # the true class keeps the largest target


YAMLS = st.fixed_dictionaries(
    {},
    optional={
        "path": TEXT | VALUES,
        "train": st.sampled_from(["images", "list.txt", "nowhere"]) | VALUES,
        "val": st.sampled_from(["images", "list.txt", "nowhere"]) | VALUES,
        "nc": st.integers(1, 3) | VALUES,
        "names": st.lists(TEXT, max_size=3) | st.dictionaries(st.integers(0, 2), TEXT, max_size=3) | VALUES,
        "annotations": VALUES,
        "channels": VALUES,
    },
)


@cases(200)
@given(
    YAMLS.map(lambda content: yaml.safe_dump(content, allow_unicode=True)) | st.text(max_size=40),
    st.sampled_from(["val", "train", "test"]),
)
def test_data_yamls(text: str, split: str) -> None:
    from det_ls.data.ground_truth import ground_truth_for
    from det_ls.data.locate import check_dataset, class_names

    with folder() as place:
        (place / "images").mkdir()
        (place / "list.txt").write_text("./images/a.png\n")
        (place / "data.yaml").write_bytes(text.encode("utf-8", "surrogatepass"))
        names = outcome(lambda: class_names(place / "data.yaml"))
        assert names is None or list(names) == list(range(len(names)))
        data = outcome(lambda: check_dataset(place / "data.yaml", split))
        if data is not None:
            outcome(lambda: ground_truth_for(data, split))


LINES = st.lists(
    st.lists(st.integers(-1, 3).map(str) | st.floats(-0.1, 1.1).map(str) | TEXT, max_size=9).map(" ".join), max_size=5
).map("\n".join)


@cases(300)
@given(
    LINES.map(lambda text: text.encode("utf-8", "surrogatepass")) | st.binary(max_size=40),
    st.integers(1, 3),
    st.sampled_from([0, 3]),
)
def test_files_of_labels_and_predictions(content: bytes, classes: int, keypoints: int) -> None:
    from det_ls.data.ground_truth import read_labels
    from det_ls.data.yolo_predictions import read_prediction_file

    with folder() as place:
        (place / "a.txt").write_bytes(content)
        for index, box in outcome(lambda: read_labels(place / "a.txt", classes, keypoints)) or []:
            assert 0 <= index < classes
            assert all(-0.01 <= value <= 1.01 for value in box)
        for index, _, score in outcome(lambda: read_prediction_file(place / "a.txt", classes)) or []:
            assert 0 <= index < classes
            assert 0 <= score <= 1


INSTANCES: dict[str, Any] = {
    "images": [{"id": 1, "file_name": "a.png", "width": 9, "height": 9}, {"id": 2, "file_name": "b.png"}],
    "annotations": [
        {"id": 1, "image_id": 1, "category_id": 1, "bbox": [1, 1, 5, 5], "area": 25, "iscrowd": 0},
        {"id": 2, "image_id": 2, "category_id": 2, "bbox": [0, 0, 3, 4]},
    ],
    "categories": [{"id": 1, "name": "cat"}, {"id": 2, "name": "dog"}],
}
DETECTIONS: list[Any] = [
    {"image_id": 1, "category_id": 1, "bbox": [1, 1, 5, 5], "score": 0.9},
    {"image_id": 2, "category_id": 2, "bbox": [0, 1, 3, 4], "score": 0.4},
]


def places(content: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """List every place in a JSON value, by the keys that lead there."""
    steps = content.items() if isinstance(content, dict) else enumerate(content) if isinstance(content, list) else ()
    return [path, *(place for key, value in steps for place in places(value, (*path, key)))]


def changed(content: Any, path: tuple[Any, ...], value: Any) -> Any:
    """Return a copy with another value in a place; without it where the value is ``...``."""
    if not path:
        return value
    content = copy.deepcopy(content)
    inner = content
    for key in path[:-1]:
        inner = inner[key]
    if value is ...:
        del inner[path[-1]]
    else:
        inner[path[-1]] = value
    return content


CHANGES = VALUES | st.just(...) | st.sampled_from([1, 2, "1", "a", 0.5])


@cases(250)
@given(
    st.tuples(st.sampled_from(places(INSTANCES)), CHANGES),
    st.tuples(st.sampled_from(places(DETECTIONS)), CHANGES),
    st.sampled_from(["gt", "detections", "both"]),
    st.integers(0, 1500),
)
def test_coco_files(gt_change: Any, detections_change: Any, which: str, cut: int) -> None:
    from det_ls.evaluation.evaluate import evaluate_detections

    gt = changed(INSTANCES, *gt_change) if which != "detections" else INSTANCES
    detections = changed(DETECTIONS, *detections_change) if which != "gt" else DETECTIONS
    with folder() as place:
        for name, content in (("gt.json", gt), ("dt.json", detections)):
            text = json.dumps(None if content is ... else content)
            (place / name).write_text(text[:cut] if cut < 150 else text)
        result = outcome(lambda: evaluate_detections("gt.json", "dt.json", simulations=0))
        if result is not None:
            result.save("out")
            assert {path.name for path in Path("out").iterdir()} == {"metrics.json", "predictions.json"}
            json.loads(Path("out", "metrics.json").read_text())


WORDS = st.sampled_from(
    [
        *("train", "val", "metrics", "compare", "predict", "detect", "segment", "resume", "help", "checks", "cfg", "="),
        *("mode=val", "task=detect", "model=none.pt", "model", "data=none.yaml", "data=", "a=none.json", "b=none.json"),
        *("annotations=gt.json", "predictions=dt.json", "annotations=none.json", "save_dir=out", "save_dir=gt.json/x"),
        *("exist_ok=maybe", "bootstrap=0", "bootstrap=-1", "simulations=0", "seed=x", "split", "imgsz=[32,", "32]"),
        *(
            "label_smoothing=0.1",
            "label_smoothing={cat:",
            "0.1}",
            "label_smoothing",
            "label_smoothing_mode=x",
            "cfg=my.yaml",
        ),
        *("cfg=none.yaml", "--imgsz=32", "epochs=2,", "--", "-x", "save_dir=" + "y" * 300, "groups=(", "threshold=2"),
    ]
) | st.text(max_size=6).filter(lambda word: word not in {"logout", "login"})


@cases(400)
@given(st.lists(WORDS, max_size=8), VALUES)
def test_command_lines(words: list[str], config: Any) -> None:
    printed = io.StringIO()
    with folder() as place:
        (place / "gt.json").write_text(json.dumps(INSTANCES))
        (place / "dt.json").write_text(json.dumps(DETECTIONS))
        (place / "my.yaml").write_text(yaml.safe_dump(config))
        before = sorted(place.rglob("*"))
        with (
            mock.patch("ultralytics.cfg.entrypoint", return_value=None),  # what stock makes of its words is not ours
            mock.patch("det_ls.cli.evaluate._report", return_value=None),  # pictures take seconds
            mock.patch("det_ls.cli.other._form_on", return_value=""),
            contextlib.redirect_stderr(printed),
            contextlib.redirect_stdout(io.StringIO()),
            warnings.catch_warnings(),
        ):
            warnings.simplefilter("ignore")
            status = cli.main(words)
        if status:
            assert status == 2
            [line] = [line for line in printed.getvalue().splitlines() if line.startswith("det-ls: error: ")]
            assert line.isprintable(), line
            assert line[-1] in ".?", line
            assert sorted(place.rglob("*")) == before
