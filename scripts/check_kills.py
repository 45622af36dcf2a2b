# SPDX-License-Identifier: AGPL-3.0-or-later
"""Kill training runs with SIGKILL at seeded random moments, resume them, and check that nothing was lost.

    python scripts/check_kills.py [kills=30] [seed=0] [out=runs/kills] [phases=train,checkpoint-1,final]

A run has three epochs with a linear schedule. A moment is a phase of the run (an epoch's training and validation, the
writing of an epoch's checkpoint, the last validation, which also strips the checkpoints) and how far into it. After
the kill each checkpoint that is there must load. If last.pt is there, `det-ls train resume` must go on with it, smooth
each epoch as scheduled and leave each epoch once in results.csv; or refuse because the run is finished, and then
best.pt must be there. Finished kills are kept in OUT/kills.jsonl and not repeated; the table is printed in the end, and
the exit status is 1 if anything was lost. It forks its runs, and so wants Linux or macOS.
"""

from __future__ import annotations

import csv
import json
import multiprocessing
import os
import random
import shutil
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("YOLO_OFFLINE", "True")
sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

import cv2
import numpy as np
from probe import Records, watch_training
from ultralytics.utils.patches import torch_load

import det_ls
from det_ls.cli.main import main as command

EPOCHS, EPSILON = 3, 0.3
TRAIN, FINAL = "train", "final"
PHASES = [f"{part}-{epoch}" for epoch in range(1, EPOCHS + 1) for part in (TRAIN, "checkpoint")] + [FINAL]
FORK = multiprocessing.get_context("fork")  # a run starts without importing torch again


def draw_data(folder: Path) -> Path:
    """Write bright squares on noise as a data set of three classes."""
    noise = np.random.default_rng(0)
    for number in range(12):
        part = "train" if number < 8 else "val"
        image = noise.integers(0, 60, (64, 64, 3), dtype=np.uint8)
        image[16:48, 16:48, number % 3] = 230
        for kind in ("images", "labels"):
            (folder / kind / part).mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(folder / "images" / part / f"{number}.png"), image)
        (folder / "labels" / part / f"{number}.txt").write_text(f"{number % 3} 0.5 0.5 0.5 0.5\n")
    file = folder / "data.yaml"
    content = {"path": str(folder), "train": "images/train", "val": "images/val", "names": ["blue", "green", "red"]}
    file.write_text(json.dumps(content))  # JSON is YAML
    return file


class Trainer(det_ls.DetectionTrainer):  # type: ignore[misc]
    """The trainer, which tells when it begins and ends to write a checkpoint."""

    pipe: Any = None

    def save_model(self) -> Any:
        """Save the checkpoints, and tell when."""
        self.pipe.send(time.monotonic())
        result = super().save_model()
        self.pipe.send(time.monotonic())
        return result


def train(data: str, folder: str, pipe: Any) -> None:
    """Train a run in this process, and tell at the end of each phase that it is over."""
    Trainer.pipe = pipe
    model = det_ls.YOLO("yolo11n.yaml")
    model.add_callback("on_train_start", lambda trainer: pipe.send(time.monotonic()))
    model.train(
        trainer=Trainer, data=data, epochs=EPOCHS, label_smoothing=EPSILON, label_smoothing_schedule="linear", imgsz=64,
        batch=4, nbs=4, warmup_epochs=0, device="cpu", workers=0, plots=False, amp=False, optimizer="SGD", lr0=1e-4,
        mosaic=0.0, project=str(Path(folder).parent), name=Path(folder).name, exist_ok=True,
    )  # fmt: skip
    pipe.send(time.monotonic())


def resume(last: str, records: str) -> None:
    """Resume as a user does, and exit with the command's status."""
    with watch_training(Path(records)):
        sys.exit(command(["train", "resume", f"model={last}"]))


def started(log: Path, target: Callable[..., None], *arguments: Any) -> Any:
    """Start a process whose output goes to a file."""

    def run() -> None:
        with log.open("w") as file, redirect_stdout(file), redirect_stderr(file):
            from ultralytics.utils import LOGGER

            for handler in LOGGER.handlers:
                handler.setStream(file)  # type: ignore[attr-defined]
            target(*arguments)

    process = FORK.Process(target=run)
    process.start()
    return process


def durations(data: Path, out: Path) -> dict[str, float]:
    """Measure how long each phase of an undisturbed run takes, in seconds."""
    receiver, sender = FORK.Pipe(duplex=False)
    process = started(out / "undisturbed.log", train, str(data), str(out / "undisturbed"), sender)
    sender.close()
    moments = []
    try:
        while True:
            moments.append(receiver.recv())
    except EOFError:
        process.join()
    if process.exitcode != 0 or len(moments) != len(PHASES) + 1:
        raise RuntimeError(f"undisturbed: expected a finished run, see {out / 'undisturbed.log'}.")
    return {phase: b - a for phase, a, b in zip(PHASES, moments, moments[1:], strict=False)}


def kill(data: Path, run: Path, phase: str, delay: float) -> None:
    """Start a run and kill it a while after a phase began."""
    receiver, sender = FORK.Pipe(duplex=False)
    process = started(run.with_suffix(".log"), train, str(data), str(run), sender)
    sender.close()
    try:
        for _ in range(PHASES.index(phase) + 1):
            receiver.recv()
    except EOFError:
        raise RuntimeError(f"{run.name}: expected a run to kill, got one that failed, see {run}.log.") from None
    time.sleep(delay)
    os.kill(process.pid, signal.SIGKILL)
    process.join()


def faults_after(run: Path, phase: str) -> tuple[str, list[str]]:
    """Resume a killed run; return what became of it, and what was lost."""
    weights = run / "weights"
    faults = []
    for file in weights.glob("*.pt"):
        try:
            torch_load(file, map_location="cpu")
        except Exception as error:  # whatever a torn file makes it raise
            faults.append(f"{file.name} does not load: {error}")
    if not (weights / "last.pt").is_file():
        early = PHASES.index(phase) <= PHASES.index("checkpoint-1")
        return "no checkpoint yet", faults if early else [*faults, "last.pt is gone"]
    if faults:
        return "not resumed", faults
    log, records = run.with_suffix(".resume.log"), run.with_suffix(".json")
    process = started(log, resume, str(weights / "last.pt"), str(records))
    process.join()
    with (run / "results.csv").open(newline="") as table:
        epochs = [int(row["epoch"]) for row in csv.DictReader(table)]
    if epochs != list(range(1, EPOCHS + 1)):
        faults.append(f"results.csv has the epochs {epochs}")
    if not (weights / "best.pt").is_file():
        faults.append("there is no best.pt")
    if process.exitcode == 2 and "expected the last.pt of an unfinished run" in log.read_text():
        return "finished, resume refused", faults
    if process.exitcode != 0:
        return "not resumed", [*faults, f"resume ended with status {process.exitcode}, see {log}"]
    steps = Records(json.loads(records.read_text()))
    first = min(step["epoch"] for step in steps)
    for epoch in range(first, EPOCHS):
        wanted = EPSILON * (1 - epoch / (EPOCHS - 1))
        found = steps.epsilons(epoch)
        if not found or any(abs(epsilon - wanted) > 5e-3 for epsilon in found):
            faults.append(f"epoch {epoch + 1} was smoothed with {found}, not {wanted}")
    return f"resumed at epoch {first + 1}", faults


def check(out: Path, kills: int, seed: int, phases: list[str]) -> list[dict[str, Any]]:
    """Kill and resume runs.

    Args:
        out: A folder for the runs, and for what is known of those before.
        kills: How many.
        seed: Of the moments.
        phases: The phases to kill in, in turns; each stands for all those that its name begins.

    Returns:
        One record a kill.
    """
    out.mkdir(parents=True, exist_ok=True)
    ledger = out / "kills.jsonl"
    known = [json.loads(line) for line in ledger.read_text().splitlines()] if ledger.is_file() else []
    records = {record["kill"]: record for record in known if record["seed"] == seed and record["phases"] == phases}
    left = [number for number in range(kills) if number not in records]
    if left:
        data = draw_data(out / "data")
        lasts = durations(data, out)
    for number in left:
        draw = random.Random(f"{seed} {number}")
        phase = draw.choice([name for name in PHASES if name.startswith(phases[number % len(phases)])])
        share = draw.uniform(0.0, 1.1)
        run = out / f"kill-{number}"
        shutil.rmtree(run, ignore_errors=True)
        kill(data, run, phase, share * lasts[phase])
        outcome, faults = faults_after(run, phase)
        record = {"kill": number, "seed": seed, "phases": phases, "phase": phase, "share": round(share, 3)}
        records[number] = {**record, "outcome": outcome, "faults": faults}
        with ledger.open("a") as file:
            file.write(json.dumps(records[number]) + "\n")
        print(f"{number + 1}/{kills}: {phase} at {share:.2f}: {outcome}{''.join(f'; {fault}' for fault in faults)}")
        if not faults:
            shutil.rmtree(run)
    return [records[number] for number in range(kills)]


def main() -> int:
    words = dict(word.split("=", 1) for word in sys.argv[1:])
    unknown = set(words) - {"kills", "seed", "out", "phases"}
    if unknown:
        raise SystemExit(f"{', '.join(sorted(unknown))}: expected kills=, seed=, out= or phases=.")
    phases = words.get("phases", "train,checkpoint,checkpoint-1,final").split(",")
    out = Path(words.get("out", "runs/kills")).absolute()
    records = check(out, int(words.get("kills", 30)), int(words.get("seed", 0)), phases)
    print("\n| killed in | what became of the run | runs |\n| --- | --- | --- |")
    for (phase, outcome), count in sorted(Counter((r["phase"], r["outcome"]) for r in records).items()):
        print(f"| {phase} | {outcome} | {count} |")
    lost = sum(bool(record["faults"]) for record in records)
    print(f"\n{len(records)} kills, {lost} with a loss")
    return 1 if lost else 0


if __name__ == "__main__":
    sys.exit(main())
