# SPDX-License-Identifier: AGPL-3.0-or-later
"""Measure how far the weights of a run that was killed and resumed are from those of the undisturbed run.

    python scripts/check_resume.py [out=runs/resume]

Each run has three epochs and gets SIGKILL after the first batch of the second one. Stock Ultralytics and det-ls without
smoothing must agree to the bit, undisturbed and resumed; what a resume changes is printed as the norm of the difference
of all weights, divided by the norm of what training changed. It forks its runs, and so wants Linux or macOS.
"""

from __future__ import annotations

import os
import shutil
import signal
import sys
from pathlib import Path
from typing import Any

import torch
import ultralytics
from check_kills import FORK, draw_data
from ultralytics.utils.patches import torch_load

import det_ls

START = "start.pt"
SMOOTHED: dict[str, Any] = {"label_smoothing": 0.1, "label_smoothing_schedule": "linear"}
RUNS: dict[str, tuple[Any, dict[str, Any]]] = {
    "Ultralytics": (ultralytics.YOLO, {}),
    "det-ls, epsilon 0": (det_ls.YOLO, {"label_smoothing": 0}),
    "det-ls, epsilon 0.1, linear": (det_ls.YOLO, SMOOTHED),
}
QUICK: dict[str, Any] = {
    "imgsz": 64, "batch": 2, "nbs": 2, "warmup_epochs": 0, "epochs": 3, "device": "cpu", "workers": 0, "plots": False,
    "amp": False, "optimizer": "SGD", "lr0": 0.01, "seed": 3, "exist_ok": True, "verbose": False,
}  # fmt: skip


def kill_in_the_second_epoch(trainer: Any) -> None:
    """End the process as nothing can prevent."""
    if trainer.epoch == 1:
        os.kill(os.getpid(), signal.SIGKILL)


def keep_start(trainer: Any) -> None:
    """Keep the weights that training starts from, which its seed decides."""
    torch.save(in_a_row(trainer.model), trainer.save_dir / START)


def train(make: Any, data: Path, folder: Path, keys: dict[str, Any], kill: bool) -> None:
    """Train a model from its YAML."""
    model = make("yolo11n.yaml")
    model.add_callback("on_train_start", keep_start)
    if kill:
        model.add_callback("on_train_batch_end", kill_in_the_second_epoch)
    model.train(data=str(data), project=str(folder.parent), name=folder.name, **QUICK, **keys)


def resume(make: Any, last: Path) -> None:
    """Go on with a run."""
    make(last).train(resume=True)


def in_a_process(function: Any, *args: Any) -> int | None:
    """Run a function in a process of its own, and return its exit status."""
    process = FORK.Process(target=function, args=args)
    process.start()
    process.join()
    return process.exitcode


def in_a_row(model: Any) -> torch.Tensor:
    """Return the weights of a model in one row."""
    return torch.cat([value.detach().float().flatten() for value in model.parameters()])


def weights(file: Path) -> torch.Tensor:
    """Return the weights of a checkpoint in one row."""
    content = torch_load(file, map_location="cpu")
    return in_a_row(content.get("ema") or content["model"])


def measure(name: str, data: Path, out: Path) -> tuple[torch.Tensor, torch.Tensor, float]:
    """Train undisturbed, and with a kill and a resume.

    Args:
        name: One of RUNS.
        data: The data YAML.
        out: Where the runs go.

    Returns:
        The weights of the undisturbed run, those of the resumed one, and their relative difference.
    """
    make, keys = RUNS[name]
    folder = out / name.replace(" ", "_").replace(",", "")
    last = Path("weights", "last.pt")
    assert in_a_process(train, make, data, folder / "undisturbed", keys, False) == 0
    assert in_a_process(train, make, data, folder / "killed", keys, True) == -signal.SIGKILL
    assert in_a_process(resume, make, folder / "killed" / last) == 0
    undisturbed, resumed = weights(folder / "undisturbed" / last), weights(folder / "killed" / last)
    changed = (undisturbed - torch.load(folder / "undisturbed" / START)).norm()
    return undisturbed, resumed, float((resumed - undisturbed).norm() / changed)


def main() -> int:
    """Measure and print.

    Returns:
        1 if det-ls without smoothing differs from Ultralytics, else 0.
    """
    given = dict(word.split("=", 1) for word in sys.argv[1:])
    out = Path(given.get("out", "runs/resume")).resolve()
    shutil.rmtree(out, ignore_errors=True)
    data = draw_data(out / "data")
    found = {name: measure(name, data, out) for name in RUNS}
    for name, (_, _, difference) in found.items():
        print(f"{name:<28} resumed from undisturbed: {difference:.4f} of what training changed")
    (stock, stock_resumed, _), (ours, ours_resumed, _) = list(found.values())[:2]
    same = torch.equal(stock, ours) and torch.equal(stock_resumed, ours_resumed)
    print(f"without smoothing the weights are {'' if same else 'NOT '}Ultralytics' own, to the bit")
    return int(not same)


if __name__ == "__main__":
    sys.exit(main())
