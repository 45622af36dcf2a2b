# SPDX-License-Identifier: AGPL-3.0-or-later
"""Time and memory of the smoothed criterion beside the stock criterion without smoothing, and beside the dense form.

Measures criterion forward + backward to the head's outputs, on outputs of the real model. The three criteria take
turns in one process and on one thread (A B C A B C ...); what is reported is the median and the quartiles of the ratio
of their times (CPU: process time; CUDA: events, under AMP), the ratio of their peak extra memory (CPU: allocation
events of the profiler; CUDA: ``max_memory_allocated``), and what share of a whole training step (forward, criterion,
backward, optimizer) the criterion takes. Run ``python scripts/bench_criterion.py``; it prints a Markdown table, a row
a cell, as it goes.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

for _variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(_variable, "1")

import torch  # noqa: E402 - after the thread settings
import ultralytics  # noqa: E402
from torch.profiler import ProfilerActivity, profile  # noqa: E402
from ultralytics.cfg import get_cfg  # noqa: E402
from ultralytics.nn.tasks import DetectionModel  # noqa: E402

from det_ls.losses.families import halves, smoothed_criterion  # noqa: E402

EPSILON = 0.1
LARGE_CLASSES, LARGE_BATCH, BATCH = 1000, 4, 8
FORMS = ("stock", "ours", "dense")
COLUMNS = (
    "model, K, objects an image, batch | time ours / stock (quartiles) | time dense / stock (quartiles) | stock ms "
    "| memory ours / stock | memory dense / stock | stock MiB | share of a step: stock | ours"
)


def make_model(name: str, num_classes: int, device: torch.device, seed: int = 0) -> Any:
    """Build an untrained model as a trainer would hand it to its criterion."""
    torch.manual_seed(seed)
    model: Any = DetectionModel(f"{name}.yaml", nc=num_classes, verbose=False).to(device)
    model.args = get_cfg()
    return model.train()


def make_batch(
    num_classes: int, objects: int, size: int, imgsz: int, device: torch.device, seed: int = 0
) -> dict[str, Any]:
    """Make a training batch of noise with boxes of all sizes."""
    generator = torch.Generator().manual_seed(seed)
    n = objects * size
    wh = torch.exp(torch.rand(n, 2, generator=generator) * 2.5 - 3.5).clamp(max=0.6)  # 3 % to 37 % of the image
    centre = wh / 2 + torch.rand(n, 2, generator=generator) * (1 - wh)
    return {
        "img": torch.rand(size, 3, imgsz, imgsz, generator=generator).to(device),
        "batch_idx": torch.arange(size).repeat_interleave(objects).float().to(device),
        "cls": torch.randint(num_classes, (n, 1), generator=generator).float().to(device),
        "bboxes": torch.cat((centre, wh), 1).to(device),
    }


def make_criteria(model: Any) -> dict[str, Any]:
    """Build stock, ours and the dense form."""
    criteria = {"stock": model.init_criterion()}
    for form in ("ours", "dense"):
        criteria[form] = smoothed_criterion(model, label_smoothing=EPSILON, label_smoothing_mode=_mode(model))
    return criteria


def detach(preds: Any) -> Any:
    """Cut the head's outputs off the model; scores and boxes become leaves."""
    if "one2many" in preds:
        return {key: detach(value) for key, value in preds.items()}
    leaves = {key: preds[key].detach().clone().requires_grad_() for key in ("scores", "boxes")}
    return {"feats": [f.detach() for f in preds["feats"]], **leaves}


def make_step(criterion: Any, preds: Any, batch: dict[str, Any], device: torch.device) -> Callable[[], None]:
    """Return criterion forward + backward to the head's outputs."""
    parts = [preds] if "scores" in preds else [preds["one2many"], preds["one2one"]]
    leaves = [part[key] for part in parts for key in ("scores", "boxes")]

    def step() -> None:
        with _amp(device):
            loss = criterion(preds, batch)[0].sum()
        loss.backward()
        for leaf in leaves:
            leaf.grad = None

    return step


def decide(criteria: dict[str, Any], steps: dict[str, Callable[[], None]]) -> None:
    """Let the guard of both smoothed criteria decide, then hold the reference at the dense form."""
    for _ in range(2):  # the second time warms the form up that was decided
        for step in steps.values():
            step()
    if any(half.form != "lean" for half in halves(criteria["ours"])):
        print("the guard chose the dense form", file=sys.stderr)
    for half in halves(criteria["dense"]):
        half.use("dense")


def seconds(step: Callable[[], None], device: torch.device) -> float:
    """Time a step: process time on the CPU, events on CUDA."""
    if device.type == "cuda":
        begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        torch.cuda.synchronize(device)
        begin.record()
        step()
        end.record()
        torch.cuda.synchronize(device)
        return float(begin.elapsed_time(end)) / 1e3
    begun = time.process_time()
    step()
    return time.process_time() - begun


def peak_extra_memory(step: Callable[[], None], device: torch.device) -> int:
    """Return the most bytes that a step holds at a time beyond what was there before it."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        step()
        torch.cuda.synchronize(device)
        return torch.cuda.max_memory_allocated(device) - before
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        step()
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "trace.json"
        profiler.export_chrome_trace(str(file))
        events = json.loads(file.read_text())["traceEvents"]
    held = peak = 0
    for event in sorted((e for e in events if e.get("name") == "[memory]"), key=lambda e: e["args"]["Ev Idx"]):
        held += event["args"]["Bytes"]
        peak = max(peak, held)
    return peak


def training_step(
    model: DetectionModel, criterion: Any, batch: dict[str, Any], device: torch.device
) -> Callable[[], None]:
    """Return a whole training step."""
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-6)
    scaler = torch.amp.GradScaler(device.type, enabled=device.type == "cuda")

    def step() -> None:
        with _amp(device):
            loss = criterion(model(batch["img"]), batch)[0].sum()
        scaler.scale(loss).backward()
        scaler.step(optimizer)
        scaler.update()
        optimizer.zero_grad(set_to_none=True)

    return step


def quartiles(ratios: list[float], form: str = "{:.2f} ({:.2f}-{:.2f})") -> str:
    """Write median and quartiles."""
    low, middle, high = statistics.quantiles(ratios, n=4) if len(ratios) > 1 else (ratios[0],) * 3
    return form.format(middle, low, high)


def measure(name: str, num_classes: int, objects: list[int], args: argparse.Namespace) -> None:
    """Print the rows of one model and number of classes."""
    device = torch.device(args.device)
    size = args.batch or (LARGE_BATCH if num_classes >= LARGE_CLASSES else BATCH)
    model = make_model(name, num_classes, device, args.seed)
    preds: Any = None
    for number in objects:
        batch = make_batch(num_classes, number, size, args.imgsz, device, args.seed)
        if preds is None:
            with _amp(device):
                preds = detach(model(batch["img"]))
        criteria = make_criteria(model)
        steps = {form: make_step(criteria[form], preds, batch, device) for form in FORMS}
        decide(criteria, steps)
        memory = {form: peak_extra_memory(steps[form], device) for form in FORMS}
        times: dict[str, list[float]] = {form: [] for form in FORMS}
        for _ in range(args.pairs):
            for form in FORMS:
                times[form].append(seconds(steps[form], device))
        whole: dict[str, float] = {}
        if args.step_repeats:
            runs = {form: training_step(model, criteria[form], batch, device) for form in ("stock", "ours")}
            taken = {form: [seconds(runs[form], device) for _ in range(args.step_repeats)] for form in runs}
            whole = {form: statistics.median(times[form]) / statistics.median(taken[form]) for form in runs}
        ratio = {form: [a / b for a, b in zip(times[form], times["stock"], strict=True)] for form in FORMS}
        cells = [
            f"{name}, {num_classes}, {number}, {size}",
            quartiles(ratio["ours"]),
            quartiles(ratio["dense"]),
            f"{statistics.median(times['stock']) * 1e3:.0f}",
            f"{memory['ours'] / memory['stock']:.2f}",
            f"{memory['dense'] / memory['stock']:.2f}",
            f"{memory['stock'] / 2**20:.0f}",
            *([f"{whole['stock']:.1%}", f"{whole['ours']:.1%}"] if whole else ["-", "-"]),
        ]
        print("| " + " | ".join(cells) + " |", flush=True)


def describe_machine(device: torch.device) -> str:
    """Name the hardware and the versions that the figures belong to."""
    hardware = f"{torch.cuda.get_device_name(device)}, AMP" if device.type == "cuda" else f"{_cpu_name()}, 1 thread"
    versions = f"torch {torch.__version__}, ultralytics {ultralytics.__version__}, Python {platform.python_version()}"
    return f"{hardware}; {versions}"


def _cpu_name() -> str:
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _mode(model: Any) -> str:
    """Return the default mode, or one that works with a single class."""
    return "redistribute" if model.model[-1].nc > 1 else "background"


def _amp(device: torch.device) -> contextlib.AbstractContextManager[Any]:
    return torch.autocast("cuda") if device.type == "cuda" else contextlib.nullcontext()


def main(argv: list[str] | None = None) -> int:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu", help="cpu, cuda or cuda:0 (default: cpu)")
    parser.add_argument("--models", nargs="+", default=["yolo11n", "yolo26n"])
    parser.add_argument("--classes", nargs="+", type=int, default=[2, 80, 365, 1203])
    parser.add_argument("--objects", nargs="+", type=int, default=[8, 100], help="objects an image")
    parser.add_argument(
        "--batch", type=int, help=f"images (default: {BATCH}; {LARGE_BATCH} from {LARGE_CLASSES} classes)"
    )
    parser.add_argument("--imgsz", type=int, default=640)
    parser.add_argument("--pairs", type=int, default=20, help="turns of the criteria (default: 20)")
    parser.add_argument(
        "--step-repeats", type=int, default=3, help="whole training steps each, 0 for none (default: 3)"
    )
    parser.add_argument(
        "--deterministic", action="store_true", help="use deterministic algorithms, as Ultralytics does"
    )
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args(argv)
    torch.set_num_threads(1)
    if args.deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.use_deterministic_algorithms(True, warn_only=True)
    print(describe_machine(torch.device(args.device)) + "\n")
    print(f"| {COLUMNS} |")
    print("|" + " --- |" * (COLUMNS.count("|") + 1), flush=True)
    for name in args.models:
        for num_classes in args.classes:
            measure(name, num_classes, args.objects, args)
    return 0


if __name__ == "__main__":
    sys.exit(main())
