# SPDX-License-Identifier: AGPL-3.0-or-later
"""Time and memory of the evaluation beside pycocotools, on a synthetic set of COCO val2017's size.

Each row runs in a process of its own, on one core, and is timed in CPU seconds; ratios are to pycocotools' evaluate and
accumulate in the same process. Run ``python scripts/bench_evaluation.py``; ``--images 500`` scales the set down.
``--whole`` times the whole of ``det-ls metrics bootstrap=0`` instead, reading, report and pictures included, with each
evaluator.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import io
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

for _variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(_variable, "1")

import numpy as np  # noqa: E402 - after the thread settings

ROWS = ("pycocotools", "derived numbers", "bootstrap", "AP bootstrap", "everything", "faster-coco-eval")
WHOLE = ("metrics, pycocotools", "metrics, hotcoco")
OBJECTS, DETECTIONS, CLASSES, SIZE = 7.2, 80.0, 80, 640.0


def synthesise(n_images: int, seed: int = 0) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Make ground truth and detections with COCO's crowding: few classes an image, many weak false positives."""
    rng = np.random.default_rng(seed)
    frequency = 1 / np.arange(1, CLASSES + 1)
    frequency /= frequency.sum()
    annotations: list[dict[str, Any]] = []
    detections: list[dict[str, Any]] = []
    for image in range(1, n_images + 1):
        present = rng.choice(CLASSES, size=rng.integers(1, 6), p=frequency)
        n = rng.poisson(OBJECTS)
        classes = rng.choice(present, size=n)
        boxes = np.concatenate([rng.uniform(0, 500, (n, 2)), rng.lognormal(4, 0.8, (n, 2)).clip(4, SIZE)], axis=1)
        for box, cls in zip(boxes.round(2).tolist(), classes.tolist(), strict=True):
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": image,
                    "category_id": cls + 1,
                    "bbox": box,
                    "area": box[2] * box[3],
                    "iscrowd": int(rng.random() < 0.012),
                }
            )
        found = rng.random(n) < 0.85
        hits = jitter(boxes[found], 0.06, rng)
        n_false = max(rng.poisson(DETECTIONS) - len(hits), 0)
        copies = rng.integers(max(n, 1), size=n_false) if n else np.zeros(0, int)
        near = jitter(boxes[copies], 0.4, rng)
        near_cls = np.where(
            rng.random(len(copies)) < 0.5, classes[copies], rng.choice(CLASSES, len(copies), p=frequency)
        )
        scores = np.concatenate([rng.beta(4, 2, len(hits)), rng.beta(0.5, 6, len(near))]).round(5)
        everything = np.concatenate([hits, near]).clip(0.5, SIZE).round(2).tolist()
        labels = [*classes[found].tolist(), *near_cls.tolist()]
        for box, cls, score in zip(everything, labels, scores.tolist(), strict=True):
            detections.append({"image_id": image, "category_id": cls + 1, "bbox": box, "score": score})
    gt = {
        "images": [{"id": i} for i in range(1, n_images + 1)],
        "categories": [{"id": c, "name": str(c)} for c in range(1, CLASSES + 1)],
        "annotations": annotations,
    }
    return gt, detections


def jitter(boxes: np.ndarray[Any, Any], spread: float, rng: np.random.Generator) -> np.ndarray[Any, Any]:
    """Move and scale boxes by a fraction of their size."""
    return boxes + np.tile(boxes[:, 2:], 2) * rng.normal(0, spread, boxes.shape)


@contextlib.contextmanager
def clock(times: dict[str, float], name: str) -> Iterator[None]:
    """Add the CPU seconds of a block to ``times``."""
    start = time.process_time()
    yield
    times[name] = time.process_time() - start


def indexed(gt: dict[str, Any], annotations: list[dict[str, Any]], coco_class: Any) -> Any:
    """Build a COCO index over annotations."""
    coco = coco_class()
    coco.dataset = {**gt, "annotations": annotations}
    coco.createIndex()
    return coco


def run_row(row: str, n_images: int, replicates: int, ap_replicates: int) -> dict[str, float]:
    """Run one row in this process and return its CPU seconds, those of pycocotools and the peak memory."""
    gt, detections = synthesise(n_images)
    for i, d in enumerate(detections, start=1):
        d |= {"id": i, "area": d["bbox"][2] * d["bbox"][3], "iscrowd": 0}
    times: dict[str, float] = {"images": n_images, "boxes": len(gt["annotations"]), "detections": len(detections)}
    with contextlib.redirect_stdout(io.StringIO()):
        if row == "faster-coco-eval":
            from faster_coco_eval import COCO, COCOeval_faster

            evaluator = COCOeval_faster(
                indexed(gt, gt["annotations"], COCO),
                indexed(gt, detections, COCO),
                "bbox",
                print_function=lambda *_: None,
            )
        else:
            from pycocotools.coco import COCO
            from pycocotools.cocoeval import COCOeval

            evaluator = COCOeval(indexed(gt, gt["annotations"], COCO), indexed(gt, detections, COCO), "bbox")
        with clock(times, "coco"):
            evaluator.evaluate()
            evaluator.accumulate()
        evaluator.summarize()
    times["AP"] = float(evaluator.stats[0])
    if row in WHOLE:
        del evaluator
        times |= run_metrics(gt, detections, row.split(", ")[1])
    elif row not in ("pycocotools", "faster-coco-eval"):
        from det_ls.evaluation.kept import plan_kept
        from det_ls.evaluation.measure import metrics_from_coco
        from det_ls.evaluation.settings import MeasureSettings
        from det_ls.metrics.average_precision import average_precision_numbers
        from det_ls.metrics.catalogue import BESIDES_AP, estimate
        from det_ls.metrics.matching import table_from_coco
        from det_ls.metrics.protocols import get_protocol
        from det_ls.uncertainty.floor import calibration_floors
        from det_ls.uncertainty.samples import draw, image_weights, sample_numbers

        if row == "derived numbers":
            with clock(times, "table"):
                table = table_from_coco(evaluator)
            with clock(times, "floors"):
                calibration_floors(table)
            del table
            with clock(times, "no floors"):
                metrics_from_coco(evaluator, MeasureSettings(simulations=0))
            with clock(times, "row"):
                metrics_from_coco(evaluator)
        else:
            table = table_from_coco(evaluator)
            del evaluator
            rules = get_protocol("det_ls")
            with clock(times, "row"):
                if row == "everything":
                    plan, _ = plan_kept(table, MeasureSettings(), np.arange(table.n_images))
                    sample_numbers(plan, draw(table.n_images, replicates, seed=0))
                else:
                    families = (average_precision_numbers,) if row == "AP bootstrap" else BESIDES_AP
                    size = ap_replicates if row == "AP bootstrap" else replicates
                    estimate(table, image_weights(table.n_images, size, seed=0), rules, families=families)
    times["peak"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return times


def run_metrics(gt: dict[str, Any], detections: list[dict[str, Any]], evaluator: str) -> dict[str, float]:
    """Run the whole of ``det-ls metrics`` without bootstrap, and return its CPU seconds and its AP."""
    from det_ls.cli.main import main as det_ls_main

    times: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        (place / "gt.json").write_text(json.dumps(gt))
        (place / "dt.json").write_text(json.dumps(detections))
        words = [f"annotations={place / 'gt.json'}", f"predictions={place / 'dt.json'}", f"save_dir={place / 'out'}"]
        with clock(times, "row"), contextlib.redirect_stdout(io.StringIO()):
            status = det_ls_main(["metrics", *words, "bootstrap=0", f"evaluator={evaluator}"])
        if status:
            raise SystemExit(f"det-ls metrics ended with status {status}.")
        times["AP of det-ls"] = json.loads((place / "out" / "metrics.json").read_text())["AP"]
    return times


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=5000, help="images of the set (default 5000)")
    parser.add_argument("--replicates", type=int, default=1000, help="bootstrap replicates of the calibration numbers")
    parser.add_argument("--ap-replicates", type=int, default=200, help="bootstrap replicates of AP")
    parser.add_argument("--whole", action="store_true", help="time det-ls metrics as a whole, with each evaluator")
    parser.add_argument("--row", choices=(*ROWS, *WHOLE), help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.row:
        print(json.dumps(run_row(args.row, args.images, args.replicates, args.ap_replicates)))
        return
    results: dict[str, dict[str, float]] = {}
    for row in ("pycocotools", *WHOLE) if args.whole else ROWS:
        if row == WHOLE[1] and importlib.util.find_spec("hotcoco") is None:
            print("hotcoco is not installed", file=sys.stderr)
            continue
        if row == "faster-coco-eval" and importlib.util.find_spec("faster_coco_eval") is None:
            print("faster-coco-eval is not installed", file=sys.stderr)
            continue
        print(f"running {row} ...", file=sys.stderr)
        passed = [f"--{k.replace('_', '-')}={v}" for k, v in vars(args).items() if k not in ("row", "whole")]
        done = subprocess.run(
            [sys.executable, __file__, *passed, "--row", row], check=True, stdout=subprocess.PIPE, text=True
        )
        results[row] = json.loads(done.stdout.splitlines()[-1])
    base = results["pycocotools"]
    print(f"{base['images']:.0f} images, {base['boxes']:.0f} boxes, {base['detections']:.0f} detections, one core\n")
    labels = {
        "pycocotools": "pycocotools evaluate + accumulate",
        "derived numbers": "everything beyond it, floors included",
        "bootstrap": f"{args.replicates} replicates, all boxes but AP",
        "AP bootstrap": f"{args.ap_replicates} replicates, AP",
        "everything": f"{args.replicates} replicates, every number, thresholds chosen anew",
        "faster-coco-eval": "faster-coco-eval evaluate + accumulate",
        **{row: f"det-ls {row}, no bootstrap" for row in WHOLE},
    }
    line = "{:<42} {:>10} {:>16} {:>12} {:>14}"
    print(line.format("", "CPU s", "of pycocotools", "peak MB", "of its peak"))
    for row, r in results.items():
        own = row in ("pycocotools", "faster-coco-eval")
        seconds, coco = (r["coco"], base["coco"]) if own else (r["row"], r["coco"])
        for name in ("table", "no floors", "floors"):
            if name in r:
                print(line.format(f"  {name}", f"{r[name]:.2f}", f"{r[name] / coco:.3f}", "", ""))
        peak, ratio = f"{r['peak']:.0f}", f"{r['peak'] / base['peak']:.2f}"
        print(line.format(labels[row], f"{seconds:.2f}", f"{seconds / coco:.3f}", peak, ratio))
    for row in WHOLE:
        if row in results:
            print(f"AP: pycocotools {results[row]['AP']:.15f}, {row} {results[row]['AP of det-ls']:.15f}")
    if "faster-coco-eval" in results:
        print(f"\nAP: pycocotools {base['AP']:.15f}, faster-coco-eval {results['faster-coco-eval']['AP']:.15f}")


if __name__ == "__main__":
    main()
