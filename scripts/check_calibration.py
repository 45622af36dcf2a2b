# SPDX-License-Identifier: AGPL-3.0-or-later
"""Check maps on simulated detectors whose true map is known: do intervals hold it, does pooling help, is it harmless?

    python scripts/check_calibration.py [checks=shared,pooled,harmless] [data_sets=600] [seed=0]

Without ``data_sets`` each check draws as many sets as docs/calibration.md quotes. Prints Markdown tables.
tests/calibration runs the same checks on few sets.
"""

from __future__ import annotations

import itertools
import os
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

for _variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(_variable, "1")
sys.path.insert(0, str(Path(__file__).parent))

import numpy as np  # noqa: E402 - after the thread settings
from simulated_maps import Simulated, simulate  # noqa: E402

from det_ls.calibration.fit import affine_features, fit_logistic  # noqa: E402
from det_ls.calibration.maps import AffineMap, CalibrationMap, Floats, Ints, sigmoid  # noqa: E402
from det_ls.calibration.methods import Recipe, Sample, fit, weights  # noqa: E402
from det_ls.metrics.calibration import LAECE_BINS, reliability  # noqa: E402

Bar = Callable[[Iterable[int]], Iterable[int]]
WEIGHTINGS = ("score", "above", "all")
TRUE_MAPS = ((1.0, 0.0), (0.6, -0.8))
IMAGES = (100, 400)
MOODS = (0.0, 0.8)
SIZES = (5, 50, 500)
CLASSES = 30
OBJECTS = (1, 2, 4)


def sample_of(data: Simulated, weighting: str, n_classes: int) -> Sample:
    """Make a sample of all detections."""
    weight = weights(sigmoid(data.z), weighting)
    names = tuple(f"class {c}" for c in range(n_classes))
    return Sample(data.z, data.iou, weight, data.cls, data.image, names)


def held(ends: Floats, truth: Floats) -> Any:
    """Say which intervals (..., 2) hold the truth (...)."""
    return (ends[..., 0] <= truth) & (truth <= ends[..., 1])


def shared_coverage(
    data_sets: int, n_images: int, truth: tuple[float, float], mood: float, *, seed: int = 0, bar: Bar = iter
) -> Floats:
    """Find how often the 95% intervals of a shared map hold the true one.

    Args:
        data_sets: Simulated sets.
        n_images: Images of each, of two objects.
        truth: The true a and b'.
        mood: As in :func:`simulated_maps.simulate`.
        seed: Seed.
        bar: Wraps the sets, for example in a progress bar.

    Returns:
        (2,) rates of a and b'.
    """
    rng = np.random.default_rng([seed, n_images, int(truth[0] * 10), int(mood * 10)])
    found = []
    for _ in bar(range(data_sets)):
        sample = sample_of(simulate(rng, n_images, *truth, mood=mood), "score", 1)
        shared = fit(sample, Recipe()).shared
        assert shared is not None
        found.append(held(shared.interval()[0], np.array(truth)))
    return np.asarray(np.mean(found, 0), np.float64)


def map_error(theta: Floats, truth: Floats) -> Floats:
    """Mean squared error (K,) of the calibrated score over the logits that matter."""
    z = np.linspace(-4, 3, 50)
    fitted, true = (sigmoid(t[:, :1] * z + t[:, 1:]) for t in (theta, truth))
    return np.asarray(((fitted - true) ** 2).mean(1), np.float64)


def pooling(data_sets: int, weighting: str, *, seed: int = 0, bar: Bar = iter) -> tuple[Floats, Floats, Floats]:
    """Compare maps by class that are shared, each class's own, and pooled.

    The logarithm of a class's true slope is normal (mean -0.2, deviation 0.25), its offset too (-0.3, 0.4).

    Args:
        data_sets: Simulated sets of 30 classes, 10 each of 5, 50 and 500 boxes.
        weighting: As in :class:`det_ls.calibration.methods.Recipe`.
        seed: Seed.
        bar: Wraps the sets.

    Returns:
        (3, 3) mean error by size (rows) and map (shared, own, pooled as it is shipped); (3, 2) rate at which the pooled
        maps' 95% intervals hold the true a and b', by size; (3,) mean share of the own map in the slope, by size.
    """
    rng = np.random.default_rng([seed, WEIGHTINGS.index(weighting)])
    cls = np.repeat(np.arange(CLASSES), np.repeat(SIZES, CLASSES // len(SIZES)))
    cls = np.concatenate([cls, np.zeros(-len(cls) % 20, np.int64)])
    errors, covered, own = [], [], []
    for _ in bar(range(data_sets)):
        truth = np.stack([rng.lognormal(-0.2, 0.25, CLASSES), rng.normal(-0.3, 0.4, CLASSES)], 1)
        data = simulate(rng, len(cls) // 20, *truth.T, cls=rng.permutation(cls), n_classes=CLASSES)
        sample = sample_of(data, weighting, CLASSES)
        found = fit(sample, Recipe(weighting=weighting, per_class=True))
        assert found.shared is not None
        assert found.pooled is not None
        assert isinstance(found.map, AffineMap)
        # A class of 5 boxes may have no best map of its own: a prior that is next to none gives it one.
        alone = fit_logistic(
            affine_features(sample.z),
            sample.target,
            sample.weight,
            cls=sample.cls,
            n_classes=CLASSES,
            prior_mean=found.shared.theta[0],
            prior_precision=1e-3 * np.eye(2),
            robust=False,
        )
        shipped = np.stack([found.map.a, found.map.b], 1)
        maps = (np.tile(found.shared.theta, (CLASSES, 1)), alone.theta, shipped)
        errors.append([map_error(theta, truth) for theta in maps])
        covered.append(held(found.pooled.interval(), truth))
        own.append(found.pooled.own)
    by_size = (len(SIZES), -1)
    error = np.mean(errors, 0).reshape(3, *by_size).mean(2).T
    coverage = np.mean(covered, 0).reshape(*by_size, 2).mean(1)
    return error, coverage, np.mean(own, 0).reshape(by_size).mean(1)


def kept_laece(data: Simulated, scores: Floats, kept: Ints) -> float:
    """LaECE0 of some boxes: the mean over classes of the error in bins of equal width."""
    of = [kept[data.cls[kept] == c] for c in range(int(data.cls.max()) + 1)]
    return float(np.mean([reliability(scores[rows], data.iou[rows], bins=LAECE_BINS).error for rows in of]))


def harm(data_sets: int, objects: int, recipes: Iterable[Recipe], *, seed: int = 0, bar: Bar = iter) -> Floats:
    """Find by how much calibrating a calibrated detector raises the kept boxes' LaECE0.

    Args:
        data_sets: Simulated sets of 200 images and three classes, each judged on 5,000 fresh images by as many boxes of
            the highest scores as there are objects.
        objects: Objects an image, in the mean.
        recipes: R ways to calibrate.
        seed: Seed.
        bar: Wraps the sets.

    Returns:
        (data_sets, R) differences, after minus before.
    """
    rng, recipes = np.random.default_rng([seed, objects]), list(recipes)
    found = []
    for _ in bar(range(data_sets)):
        data = simulate(rng, 200, n_classes=3, per_image=10 * objects)
        fresh = simulate(rng, 5000, n_classes=3, per_image=10 * objects)
        kept = np.argsort(fresh.z)[-int(fresh.iou.sum()) :]
        before = kept_laece(fresh, sigmoid(fresh.z), kept)
        maps: list[CalibrationMap] = [fit(sample_of(data, r.weighting, 3), r).map for r in recipes]
        found.append([kept_laece(fresh, one(fresh.z, fresh.cls), kept) - before for one in maps])
    return np.array(found)


def check_shared(data_sets: int, seed: int, bar: Bar) -> list[str]:
    """Shared maps: how often 95% intervals hold the true map."""
    lines = ["| images | true a, b' | boxes of an image | a | b' |", "| --- | --- | --- | --- | --- |"]
    for n_images in IMAGES:
        for truth in TRUE_MAPS:
            for mood in MOODS:
                rates = shared_coverage(data_sets, n_images, truth, mood, seed=seed, bar=bar)
                boxes = "dependent" if mood else "independent"
                lines.append(f"| {n_images} | {truth[0]:g}, {truth[1]:g} | {boxes} | {rates[0]:.3f} | {rates[1]:.3f} |")
    return lines


def check_pooled(data_sets: int, seed: int, bar: Bar) -> list[str]:
    """Maps by class: mean squared error of the calibrated score, and how often 95% intervals hold the true map."""
    lines = [
        "| weighting | boxes of the class | shared map | own map | pooled | a | b' |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for weighting in ("score", "all"):
        error, coverage, _ = pooling(data_sets, weighting, seed=seed, bar=bar)
        for size, e, c in zip(SIZES, error, coverage, strict=True):
            row = " | ".join([*(f"{v:.4f}" for v in e), *(f"{v:.3f}" for v in c)])
            lines.append(f"| `{weighting}` | {size} | {row} |")
        lines.append(f"| `{weighting}` | all | | | | " + " | ".join(f"{v:.3f}" for v in coverage.mean(0)) + " |")
    return lines


def check_harmless(data_sets: int, seed: int, bar: Bar) -> list[str]:
    """Calibrated detectors: rise of the kept boxes' LaECE0 (with its standard error) on fresh images."""
    ways = itertools.product(WEIGHTINGS, (False, True), (True, False))
    recipes = [Recipe(weighting=w, per_class=p, shrink=s) for w, p, s in ways]
    lines = ["| weighting | map | as | " + " | ".join(f"{n} an image" for n in OBJECTS) + " |", "| --- " * 6 + "|"]
    columns = [harm(data_sets, n, recipes, seed=seed, bar=bar) for n in OBJECTS]
    for i, recipe in enumerate(recipes):
        cells = [
            f"{column[:, i].mean():+.4f} ({column[:, i].std(ddof=1) / np.sqrt(data_sets):.4f})" for column in columns
        ]
        kind, how = "by class" if recipe.per_class else "shared", "shipped" if recipe.shrink else "plain fit"
        lines.append(f"| `{recipe.weighting}` | {kind} | {how} | " + " | ".join(cells) + " |")
    return lines


CHECKS: dict[str, tuple[Callable[[int, int, Bar], list[str]], int]] = {
    "shared": (check_shared, 600),
    "pooled": (check_pooled, 150),
    "harmless": (check_harmless, 40),
}


def main() -> int:
    from ultralytics.utils import TQDM

    from det_ls.cli.grammar import check_known, key_values

    arguments = key_values(sys.argv[1:])
    check_known(arguments, ("checks", "data_sets", "seed"), (), "the calibration's check")
    wanted = str(arguments.get("checks", ",".join(CHECKS))).split(",")
    if unknown := [name for name in wanted if name not in CHECKS]:
        raise SystemExit(f"checks: expected some of {', '.join(CHECKS)}, got {unknown[0]!r}.")
    for name in wanted:
        check, usual = CHECKS[name]
        data_sets = int(arguments.get("data_sets", usual))

        def bar(sets: Iterable[int], name: str = name) -> Iterable[int]:
            wrapped: Iterable[int] = TQDM(sets, desc=name, file=sys.stderr)
            return wrapped

        lines = check(data_sets, int(arguments.get("seed", 0)), bar)
        print(f"{(check.__doc__ or '').strip()} {data_sets} sets each.\n", *lines, "", sep="\n", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
