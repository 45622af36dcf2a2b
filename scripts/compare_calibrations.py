# SPDX-License-Identifier: AGPL-3.0-or-later
"""Cross-fitted numbers of every method, target and weighting on COCO files, as a Markdown table.

``python scripts/compare_calibrations.py GT.json DETECTIONS.json`` takes halves of the images, each calibrated by the
map of the other; ``--deals`` averages over that many ways to deal the images into folds.
"""

from __future__ import annotations

import argparse
import itertools

import numpy as np

from det_ls.calibration.judge import POPULATIONS
from det_ls.calibration.maps import logit
from det_ls.calibration.methods import FOLDING, METHODS, TARGETS, WEIGHTINGS, Recipe
from det_ls.calibration.table import calibrate_table
from det_ls.metrics.matching import build_table

KEYS = ("LaECE0", "DECE", "brier")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("annotations", help="COCO instances")
    parser.add_argument("predictions", help="COCO results")
    parser.add_argument("--folds", type=int, default=2, help="folds by image (default 2: halves)")
    parser.add_argument("--deals", type=int, default=10, help="random deals to average over (default 10)")
    parser.add_argument("--weightings", nargs="+", default=["score"], choices=WEIGHTINGS, help="default: score")
    parser.add_argument("--plain", action="store_true", help="maps as they were fitted, not drawn towards no change")
    parser.add_argument("--methods", nargs="+", default=list(METHODS), choices=METHODS, help="default: all")
    parser.add_argument("--targets", nargs="+", default=list(TARGETS), choices=TARGETS, help="default: all")
    args = parser.parse_args()
    table = build_table(args.annotations, args.predictions)
    z = logit(table.score)
    print("| target | method | weighting | " + " | ".join(f"{k}, {p}" for p in POPULATIONS for k in KEYS) + " |")
    print("| " + " | ".join(["---"] * (3 + len(POPULATIONS) * len(KEYS))) + " |")
    columns = list(itertools.product(POPULATIONS, KEYS))
    for i, (target, weighting, method, per_class) in enumerate(
        itertools.product(args.targets, args.weightings, args.methods, (False, True))
    ):
        if per_class and method not in FOLDING:
            continue
        recipe = Recipe(method, target, weighting, per_class, shrink=not args.plain)
        found = [calibrate_table(table, z, recipe, folds=args.folds, seed=seed) for seed in range(args.deals)]
        if i == 0:
            before = [float(np.mean([one.numbers[p][k].before for one in found])) for p, k in columns]
            print("| | before | | " + " | ".join(f"{v:.4f}" for v in before) + " |")
        after = [float(np.mean([one.numbers[p][k].after for one in found])) for p, k in columns]
        name = f"{method}, per class" if per_class else method
        print(f"| {target} | {name} | {weighting} | " + " | ".join(f"{v:.4f}" for v in after) + " |")


if __name__ == "__main__":
    main()
