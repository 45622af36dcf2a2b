# SPDX-License-Identifier: AGPL-3.0-or-later
"""Two classifiers on the same images are compared image by image, and two ways to train one over seeds."""

from __future__ import annotations

import json

import numpy as np
import pytest
from scipy import stats

from det_ls.evaluation.class_comparison import compare_classes
from det_ls.evaluation.classification import Classification, measure_classes
from det_ls.evaluation.settings import MeasureSettings
from det_ls.metrics.classification import classification_table
from det_ls.report.class_comparison_page import class_comparison_text, write_class_pair
from det_ls.report.outputs import COMPARISON_FILES
from det_ls.uncertainty.paired import Verdict

NAMES, KEYS = ("before", "after"), {"bootstrap": 400, "seed": 0, "level": 0.95}
rng = np.random.default_rng(0)
LABEL = rng.integers(0, 3, 400)
BASE = rng.normal(size=(400, 3)) + 1.5 * np.eye(3)[LABEL]


def measured(logits, label=LABEL, names="abc", files=None) -> Classification:
    table = classification_table(logits, label, names)
    files = [f"{i}.png" for i in range(len(label))] if files is None else files
    settings = MeasureSettings(bootstrap=0, simulations=0)
    return measure_classes(table, files, {"weights": "a.pt", "training": None}, settings)


def compared(a, b, **keys):
    arms = [one if isinstance(one, list) else [one] for one in (a, b)]
    return compare_classes(arms, NAMES, **{**KEYS, **keys})


@pytest.fixture(scope="module")
def pair():
    """The second classifier makes the logits of the first four times as sharp: the same guesses, over-confident ones."""
    return compared(measured(BASE), measured(4 * BASE))


def test_a_difference_is_that_of_the_two_measurements(pair):
    for key, found in pair.differences.items():
        assert found.difference == pytest.approx(pair.b.values[key] - pair.a.values[key], abs=1e-12)


def test_intervals_are_those_of_scipys_paired_bootstrap(pair):
    table_a, table_b = pair.a.table, pair.b.table
    for key, change in {"nll": table_b.nll - table_a.nll, "brier": table_b.brier - table_a.brier}.items():
        oracle = stats.bootstrap((change,), np.mean, n_resamples=4000, method="percentile", random_state=1)
        low, high = oracle.confidence_interval
        width = high - low
        assert pair.differences[key].interval.low == pytest.approx(low, abs=0.12 * width)
        assert pair.differences[key].interval.high == pytest.approx(high, abs=0.12 * width)


def test_guesses_that_stay_are_no_difference_and_probabilities_that_get_worse_are_one(pair):
    assert pair.differences["accuracy"].verdict is Verdict.NONE
    assert pair.differences["nll"].verdict is Verdict.WORSE
    assert pair.differences["signed_gap"].verdict is Verdict.DIFFERS
    back = compared(measured(4 * BASE), measured(BASE))
    assert back.differences["nll"].verdict is Verdict.BETTER


def test_a_binned_error_gets_no_verdict(pair):
    assert {pair.differences[key].verdict for key in ("ECE", "ECE_equal_mass")} == {Verdict.UNJUDGED}


def test_accuracy_and_nll_are_declared_and_only_the_others_adjusted(pair):
    found = pair.differences
    assert {key for key, one in found.items() if one.declared} == {"accuracy", "nll"}
    assert found["nll"].adjusted == found["nll"].p
    assert found["brier"].adjusted >= found["brier"].p


def test_no_more_false_claims_about_accuracy_than_promised():
    """Two classifiers of the same quality, 400 times: at most 5% and what chance adds to it."""
    draws, claims = np.random.default_rng(1), 0
    for _ in range(400):
        label = draws.integers(0, 2, 120)
        a, b = (draws.normal(size=(120, 2)) + np.eye(2)[label] for _ in range(2))
        found = compared(measured(a, label, "ab"), measured(b, label, "ab"), bootstrap=200)
        claims += found.differences["accuracy"].differs
    assert claims / 400 <= stats.binom.ppf(0.999, 400, 0.05) / 400


def test_arms_of_several_runs_are_compared_over_seeds_as_scipy_does():
    noise = np.random.default_rng(2)
    a, b = ([measured(k * BASE + noise.normal(size=BASE.shape) * 0.3) for _ in range(4)] for k in (1.0, 1.3))
    found = compared(a, b)
    oracle = stats.ttest_rel([run.values["nll"] for run in b], [run.values["nll"] for run in a])
    assert found.seeds["nll"].p == pytest.approx(oracle.pvalue)
    assert found.seeds["nll"].paired
    text = class_comparison_text(found)
    assert text.startswith("Training seeds were measured: 4 runs an arm, paired by seed")
    assert len(found.to_dict()["runs_a"]) == 4


@pytest.mark.parametrize(
    ("other", "what"),
    [
        (lambda: measured(BASE, names="abd"), "classes"),
        (lambda: measured(BASE, files=[f"{i}.jpg" for i in range(400)]), "images"),
        (lambda: measured(BASE, label=(LABEL + 1) % 3), "classes of the images"),
    ],
)
def test_other_images_or_classes_are_refused(other, what):
    with pytest.raises(ValueError, match=rf"^a, b: expected the same {what} for both, got different ones\.$"):
        compared(measured(BASE), other())


def test_the_page_and_the_tables_hold_what_was_found(pair, tmp_path):
    write_class_pair(tmp_path, pair, title="before and after on digits")
    assert {str(f.relative_to(tmp_path)) for f in tmp_path.rglob("*") if f.is_file()} == set(COMPARISON_FILES)
    page = (tmp_path / "report.html").read_text()
    assert "after worse" in page
    assert "no difference shown" in page.lower()
    assert f"{pair.differences['nll'].difference:+.3f}"[:5] in page
    assert "kept" not in page
    assert "detector" not in page
    row = next(line for line in (tmp_path / "tables/differences.csv").read_text().splitlines() if ",nll," in line)
    assert float(row.split(",")[4]) == pytest.approx(pair.differences["nll"].difference, rel=1e-5)


def test_a_comparison_is_saved_whole_and_never_replaced_unasked(pair, tmp_path):
    pair.save(tmp_path / "pair")
    content = json.loads((tmp_path / "pair" / "comparison.json").read_text())
    assert content["declared"] == ["accuracy", "nll"]
    assert content["differences"]["nll"]["difference"] == pair.differences["nll"].difference
    assert (tmp_path / "pair" / "b" / "predictions.json").is_file()
    with pytest.raises(FileExistsError):
        pair.save(tmp_path / "pair")
