# SPDX-License-Identifier: AGPL-3.0-or-later
"""Check, on detectors of which everything is known, that intervals and verdicts hold what they promise.

    python scripts/check_statistics.py [checks=coverage,junk] [data_sets=300] [replicates=300] [out=statistics.json]

Each check draws data sets, evaluates them as `det-ls` does, and counts how often it says something false (or fails to
say something true). Finished checks are kept in `out` and not repeated. tests/uncertainty/test_statistics.py runs the
same checks on few data sets; docs/statistics.md quotes the table that this prints.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

for _variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(_variable, "1")
sys.path.insert(0, str(Path(__file__).parent))

import numpy as np  # noqa: E402 - after the thread settings
from simulated_detectors import Detector, Scene, detect, frames, scene  # noqa: E402

from det_ls.metrics.average_precision import average_precision_numbers  # noqa: E402
from det_ls.metrics.catalogue import DECLARED, FAMILIES, HEADLINE, KEPT, table_numbers  # noqa: E402
from det_ls.metrics.grid import Grid  # noqa: E402
from det_ls.metrics.kept import KeptPlan, kept_numbers  # noqa: E402
from det_ls.metrics.lrp import optimal_lrp_numbers  # noqa: E402
from det_ls.metrics.number import Family, Population  # noqa: E402
from det_ls.metrics.protocols import get_protocol  # noqa: E402
from det_ls.metrics.table import DetectionTable  # noqa: E402
from det_ls.metrics.thresholds import ThresholdRule, image_folds, recommend  # noqa: E402
from det_ls.metrics.weighted import once  # noqa: E402
from det_ls.uncertainty.bootstrap import interval_of, number_of, size_interval  # noqa: E402
from det_ls.uncertainty.clusters import intragroup_correlation  # noqa: E402
from det_ls.uncertainty.paired import Comparison, Verdict, compare_samples  # noqa: E402
from det_ls.uncertainty.samples import Draws, Sample, draw  # noqa: E402

RULES = get_protocol("det_ls")
Which = tuple[Population, str]
Result = dict[str, float]
AP_AND_OLRP: tuple[Family, ...] = (average_precision_numbers, optimal_lrp_numbers)
ERROR = ", standard error"
SHOWN = (Verdict.BETTER, Verdict.WORSE, Verdict.DIFFERS)


def plan(table: DetectionTable, group: Any, seed: int = 0) -> KeptPlan:
    """Plan which boxes are kept, as an evaluation does."""
    grid = Grid(table, RULES, image_folds(group, seed))
    return KeptPlan(grid, recommend(grid)[0], group)


def samples(how: KeptPlan, draws: Draws, families: tuple[Family, ...] = ()) -> dict[Which, Sample]:
    """Estimate some numbers of all boxes, and all of the kept ones."""
    found: dict[Which, Sample] = {}
    for family in families:
        overall = family(how.grid.table, draws.weights, RULES).overall
        found |= {("all", key): draws.split(values) for key, values in overall.items()}
    kept = kept_numbers(how, draws.weights).overall
    return found | {("kept", key): draws.split(values) for key, values in kept.items()}


def compared(
    where: Scene, a: DetectionTable, b: DetectionTable, replicates: int, seed: int, families: tuple[Family, ...] = ()
) -> dict[Which, Comparison]:
    """Compare two detectors as `det-ls compare` does."""
    draws = draw(where.n_images, replicates, seed, where.group)
    return compare_samples(
        samples(plan(a, where.group), draws, families), samples(plan(b, where.group), draws, families), 0.95
    )


def share(counts: list[bool]) -> float:
    """Compute the share of data sets in which something held."""
    return float(np.mean(counts))


def junk(data_sets: int, replicates: int) -> Result:
    """Add 60 junk boxes an image: no headline verdict may change."""
    changed = []
    for seed in range(data_sets):
        rng = np.random.default_rng([1, seed])
        where = scene(rng, 80)
        state = rng.bit_generator.state
        clean = detect(rng, where, Detector())
        rng.bit_generator.state = state
        littered = detect(rng, where, Detector(junk=60))
        found = compared(where, clean, littered, replicates, seed, FAMILIES)
        headline = [c for (population, key), c in found.items() if key in HEADLINE or population == "kept"]
        changed.append(any(c.verdict in SHOWN for c in headline))
    return {"headline verdict changed": share(changed)}


def sharpness(data_sets: int, replicates: int) -> Result:
    """Compare a sharp and a flat detector, both calibrated: neither is better calibrated."""
    return _calibrated_pairs(2, Detector(a=0.3, b=0.3), Detector(a=4, b=4), data_sets, replicates)


def kept_counts(data_sets: int, replicates: int) -> Result:
    """Compare a detector with many boxes and one with few, both calibrated."""
    return _calibrated_pairs(8, Detector(), Detector(boxes=1.2), data_sets, replicates)


def _calibrated_pairs(check: int, one: Detector, other: Detector, data_sets: int, replicates: int) -> Result:
    declared, squared, smaller = [], [], []
    for seed in range(data_sets):
        rng = np.random.default_rng([check, seed])
        where = scene(rng, 80)
        a, b = (detect(rng, where, how) for how in (one, other))
        found = compared(where, a, b, replicates, seed)
        declared.append(found["kept", "absolute_gap"].p <= 0.05)
        squared.append(found["kept", "squared_error"].p <= 0.05)
        raw = [table_numbers(t, RULES)["DECE"] for t in (a, b)]
        smaller.append(raw[0] < raw[1])
    return {
        "absolute_gap": share(declared),
        "squared_error": share(squared),
        "raw D-ECE reads lower for the first, for contrast": share(smaller),
    }


def overconfident(data_sets: int, replicates: int) -> Result:
    """Find a detector whose kept boxes score 0.1 too high: alone, and against a calibrated one."""
    alone, against, squared, recoverable = [], [], [], []
    for seed in range(data_sets):
        rng = np.random.default_rng([3, seed])
        where = scene(rng, 200)
        good, over = (detect(rng, where, how) for how in (Detector(), Detector(shift=0.11)))
        draws = draw(where.n_images, replicates, seed, where.group)
        of_good, of_over = (samples(plan(t, where.group), draws) for t in (good, over))
        interval = interval_of(of_over["kept", "signed_gap"], KEPT["signed_gap"], 0.95)
        alone.append(interval is not None and interval.low > 0)
        found = compare_samples(of_good, of_over, 0.95)
        against.append(found["kept", "absolute_gap"].verdict is Verdict.WORSE)
        squared.append(found["kept", "squared_error"].p <= 0.05)
        recoverable.append(found["kept", "recoverable"].p <= 0.05)
    return {
        "signed gap above 0": share(alone),
        "absolute_gap worse": share(against),
        "squared_error worse": share(squared),
        "recoverable worse": share(recoverable),
    }


def exchangeable(data_sets: int, replicates: int) -> Result:
    """Compare two detectors of one kind: no difference may be claimed."""
    declared: dict[Which, list[bool]] = {which: [] for which in DECLARED}
    adjusted = []
    for seed in range(data_sets):
        rng = np.random.default_rng([4, seed])
        where = scene(rng, 80)
        first, second = (detect(rng, where, Detector()) for _ in range(2))
        found = compared(where, first, second, replicates, seed, FAMILIES)
        for which in DECLARED:
            declared[which].append(found[which].verdict in SHOWN)
        adjusted.append(any(c.verdict in SHOWN for which, c in found.items() if which not in DECLARED))
    return {**{key: share(counts) for (_, key), counts in declared.items()}, "any Holm-adjusted claim": share(adjusted)}


COVERED: tuple[Which, ...] = (
    ("all", "AP"),
    ("all", "AP50"),
    ("all", "oLRP"),
    ("kept", "signed_gap"),
    ("kept", "signed_gap_iou"),
    ("kept", "absolute_gap"),
    ("kept", "precision"),
    ("kept", "recall"),
)


def coverage(data_sets: int, replicates: int) -> Result:
    """Count how often intervals hold the value of a population of 20,000 images, and their own estimate."""
    how = Detector(shift=0.05)
    rng = np.random.default_rng(99)
    where = scene(rng, 20_000)
    table = detect(rng, where, how)
    truth = samples(plan(table, where.group), Draws(once(table), where.n_images), AP_AND_OLRP)
    covered: dict[Which, list[bool]] = {which: [] for which in COVERED}
    without = 0
    for seed in range(data_sets):
        rng = np.random.default_rng([5, seed])
        where = scene(rng, 150)
        found = samples(
            plan(detect(rng, where, how), where.group), draw(150, replicates, seed, where.group), AP_AND_OLRP
        )
        for which in COVERED:
            signed = number_of(*which).size_of
            interval = interval_of(found[which] if signed is None else found["kept", signed], number_of(*which), 0.95)
            assert interval is not None
            interval = interval if signed is None else size_interval(interval)
            covered[which].append(interval.low <= truth[which].value <= interval.high)
            without += not interval.low <= found[which].value <= interval.high
    rates = {f"{key} ({population})": share(counts) for (population, key), counts in covered.items()}
    return {**rates, "intervals without their own estimate": float(without)}


def groups(data_sets: int, replicates: int) -> Result:
    """Draw frames that repeat each other (correlation 0.5 in groups of 5), and resample groups or, wrongly, images."""
    covered: dict[str, list[bool]] = {"groups": [], "images": []}
    claimed: dict[str, list[bool]] = {"groups": [], "images": []}
    correlations = []
    for seed in range(data_sets):
        rng = np.random.default_rng([6, seed])
        where, source = frames(rng, scene(rng, 200, spread=0.0), size=5, correlation=0.5)
        pair = [detect(rng, where, Detector(), source=source) for _ in range(2)]
        correlations.append(_correlation(plan(pair[0], where.group), where))
        for name, group in (("groups", where.group), ("images", np.arange(where.n_images))):
            draws = draw(where.n_images, replicates, seed, group)
            a, b = (samples(plan(t, group), draws) for t in pair)
            interval = interval_of(a["kept", "signed_gap"], KEPT["signed_gap"], 0.95)
            assert interval is not None
            covered[name].append(interval.low <= 0 <= interval.high)
            change = b["kept", "precision"] - a["kept", "precision"]
            differs = interval_of(change, KEPT["precision"], 0.95)
            assert differs is not None
            claimed[name].append(not differs.low <= 0 <= differs.high)
    return {
        "intra-group correlation of the gap": float(np.nanmean(correlations)),
        **{f"coverage of the signed gap, {name} drawn": share(counts) for name, counts in covered.items()},
        **{f"false claim about precision, {name} drawn": share(counts) for name, counts in claimed.items()},
    }


def _correlation(how: KeptPlan, where: Scene) -> float:
    table, keep = how.grid.table, how.kept()
    gap = (table.score - table.matches(0.5).tp)[keep]
    count = np.bincount(table.image[keep], minlength=where.n_images)
    total = np.bincount(table.image[keep], weights=gap, minlength=where.n_images)
    of_image = np.divide(total, count, out=np.full(where.n_images, np.nan), where=count > 0)
    return intragroup_correlation(of_image, where.group)


def thresholds(data_sets: int, replicates: int) -> Result:
    """Compare what is said of the recommended threshold with 5,000 new images (40 images, 8 classes)."""
    said: dict[str, list[float]] = {}
    for seed in range(data_sets):
        rng = np.random.default_rng([7, seed])
        where = scene(rng, 40, n_classes=8)
        table = detect(rng, where, Detector())
        fresh_scene = scene(rng, 5000, n_classes=8)
        fresh = detect(rng, fresh_scene, Detector())
        grid = Grid(table, RULES, image_folds(where.group))
        for kind in ("common", "by_class"):
            rule, chosen = recommend(grid, kind=kind)  # type: ignore[arg-type]
            fixed = ThresholdRule(grid.fold, kind="fixed", fixed=chosen.used)
            new = Grid(fresh, RULES, image_folds(fresh_scene.group))
            on_new = kept_numbers(KeptPlan(new, replace(fixed, fold=new.fold), fresh_scene.group), once(fresh)).overall
            for name, r in (("cross-fitted", rule), ("in-sample", fixed)):
                here = kept_numbers(KeptPlan(grid, r, where.group), once(table)).overall
                for key in ("precision", "recall", "LRP"):
                    difference = float(here[key][0] - on_new[key][0])
                    said.setdefault(f"{kind}: {key}, {name} minus new images", []).append(difference)
    rows = {}
    for key, values in said.items():
        rows[key] = float(np.mean(values))
        rows[key + ERROR] = float(np.std(values) / np.sqrt(len(values)))
    return rows


CHECKS: dict[str, tuple[Callable[[int, int], Result], int]] = {
    "coverage": (coverage, 500),
    "exchangeable": (exchangeable, 300),
    "sharpness": (sharpness, 300),
    "kept_counts": (kept_counts, 300),
    "overconfident": (overconfident, 200),
    "groups": (groups, 200),
    "thresholds": (thresholds, 200),
    "junk": (junk, 20),
}


def table_of(results: Mapping[str, Mapping[str, Any]]) -> str:
    """Format results as the Markdown table that docs/statistics.md quotes."""
    lines = ["| check | data sets | number | found |", "| --- | --- | --- | --- |"]
    for name, result in results.items():
        found, about = result["found"], (CHECKS[name][0].__doc__ or "").strip().rstrip(".")
        for number, value in found.items():
            if number.endswith(ERROR):
                continue
            error = found.get(number + ERROR)
            text = f"{value:.3f}" if error is None else f"{value:+.3f} (standard error {error:.3f})"
            lines.append(f"| {about} | {result['data_sets']} | {number} | {text} |")
    return "\n".join(lines)


def main() -> int:
    from det_ls.base.files import write_json
    from det_ls.cli.grammar import check_known, key_values

    arguments = key_values(sys.argv[1:])
    check_known(arguments, ("checks", "data_sets", "replicates", "out"), (), "the statistics' check")
    wanted = str(arguments.get("checks", ",".join(CHECKS))).split(",")
    if unknown := [name for name in wanted if name not in CHECKS]:
        raise SystemExit(f"checks: expected some of {', '.join(CHECKS)}, got {unknown[0]!r}.")
    file = Path(str(arguments.get("out", "statistics.json")))
    replicates = int(arguments.get("replicates", 300))
    results: dict[str, Any] = json.loads(file.read_text()) if file.is_file() else {}
    for name in wanted:
        if name not in results:
            check, usual = CHECKS[name]
            data_sets = int(arguments.get("data_sets", usual))
            print(f"{name}: {data_sets} data sets ...", file=sys.stderr, flush=True)
            results[name] = {
                "data_sets": data_sets,
                "replicates": replicates,
                "found": check(data_sets, replicates),
            }
            write_json(file, results, indent=2)
    print(table_of({name: results[name] for name in wanted}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
