# SPDX-License-Identifier: AGPL-3.0-or-later
"""Time of fitting beside pycocotools' matching of the same detections, on a synthetic set of COCO val2017's size.

Pairs of runs, one after the other in one process on one core, in CPU seconds: matching (``COCOeval.evaluate``), then
each fit. Run ``python scripts/bench_calibrate.py``; ``--images 500`` scales the set down.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import os
import time
from collections.abc import Callable

for _variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(_variable, "1")

import numpy as np  # noqa: E402 - after the thread settings
from bench_evaluation import synthesise  # noqa: E402

from det_ls.calibration.maps import logit  # noqa: E402
from det_ls.calibration.methods import Recipe, fit, sample_of  # noqa: E402
from det_ls.data.coco import coco_evaluate, read_detections, read_ground_truth  # noqa: E402
from det_ls.metrics.matching import table_from_coco  # noqa: E402

RECIPES = {
    "platt, shared": Recipe(),
    "platt, per class": Recipe(per_class=True),
    "temperature, shared": Recipe("temperature"),
    "beta": Recipe("beta"),
    "isotonic": Recipe("isotonic"),
}


def seconds(work: Callable[[], object]) -> float:
    """Return the CPU seconds of a call."""
    start = time.process_time()
    work()
    return time.process_time() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=5000, help="images of the set (default 5000)")
    parser.add_argument("--pairs", type=int, default=3, help="pairs of runs (default 3)")
    args = parser.parse_args()
    content, found = synthesise(args.images)
    gt = read_ground_truth(content)
    results = read_detections(found, gt)
    evaluator = coco_evaluate(gt, results)
    table = table_from_coco(evaluator)
    z, group = logit(table.score), np.arange(table.n_images)
    print(f"{table.n_images} images, {table.n_detections} detections, {table.n_classes} classes\n")
    ratios: dict[str, list[float]] = {name: [] for name in RECIPES}
    times: dict[str, list[float]] = {name: [] for name in ("matching", *RECIPES)}
    for _ in range(args.pairs):
        with contextlib.redirect_stdout(io.StringIO()):
            matching = seconds(evaluator.evaluate)
        times["matching"].append(matching)
        for name, recipe in RECIPES.items():

            def work(recipe: Recipe = recipe) -> object:
                return fit(sample_of(table, z, group, recipe)[0], recipe)

            times[name].append(seconds(work))
            ratios[name].append(times[name][-1] / matching)
    print(f"{'':<22} {'CPU s':>8} {'of matching':>22}")
    for name, values in times.items():
        pairs = ", ".join(f"{r:.3f}" for r in ratios.get(name, []))
        print(f"{name:<22} {np.median(values):>8.2f} {pairs:>22}")


if __name__ == "__main__":
    main()
