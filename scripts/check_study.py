# SPDX-License-Identifier: AGPL-3.0-or-later
"""Check that a study of six cells ends with the same table whatever happens to it.

    python scripts/check_study.py [kills=4] [seed=0] [epochs=3] [out=runs/check_study] [parts=killed,ray,failing]

``killed``: the study's process is killed with SIGKILL at seeded random moments and the study resumed, until it is
done. ``ray``: its cells run on a Ray cluster of two nodes on this machine. Both tables, the training curves included,
must be those of an undisturbed study, to the last digit; only times differ. ``failing``: a study in which the cells of
one seed cannot be measured must finish the others, record the error and exit with 0. Wants Linux or macOS.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

os.environ.setdefault("YOLO_OFFLINE", "True")
ROOT = Path(__file__).parents[1]
BROKEN = 9  # the seed whose validation labels name a class that is not there


def draw_data(out: Path) -> str:
    """Draw a phantom for each seed, and break one; return the name of their data YAMLs."""
    from det_ls.data.phantom import write_phantom

    for seed in (0, 1, 2, BROKEN):
        if not (out / f"phantom_{seed}").is_dir():
            write_phantom(out / f"phantom_{seed}", train=18, val=6, seed=seed)
    for label in (out / f"phantom_{BROKEN}" / "labels" / "val").glob("*.txt"):
        label.write_text("7 0.5 0.5 0.2 0.2\n", encoding="utf-8")
    return str(out / "phantom_{seed}" / "data.yaml")


def arguments(out: Path, name: str, epochs: int, seeds: str = "0,1,2") -> dict[str, Any]:
    """List what all studies share, and the folder of one."""
    return {
        "data": draw_data(out),
        "model": "yolo11n.yaml",
        "epochs": epochs,
        "imgsz": 32,
        "batch": 4,
        "nbs": 12,
        "close_mosaic": 1,
        "device": "cpu",
        "jobs": 1,
        "cores": 1,
        "label_smoothing": "0,0.1",
        "label_noise": "0.3",
        "seeds": seeds,
        "save_dir": str(out / name),
    }


def start(words: list[str], log: Path) -> subprocess.Popen[bytes]:
    """Start ``det-ls study``."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])}
    with log.open("ab") as file:
        command = [sys.executable, "-m", "det_ls", "study", *words]
        return subprocess.Popen(command, stdout=file, stderr=file, env=environment)


def words_of(arguments: dict[str, Any]) -> list[str]:
    """Write arguments as words."""
    return [f"{key}={value}" for key, value in arguments.items()]


def table_of(folder: Path) -> dict[str, Any]:
    """Read what a study found: everything but times, by cell."""
    cells = json.loads((folder / "cells.json").read_text(encoding="utf-8"))
    return {
        cell["name"]: {
            "state": cell["state"],
            "measured": cell["measured"],
            "curves": {key: values for key, values in cell["curves"].items() if key != "time"},
        }
        for cell in cells
    }


def undisturbed(out: Path, epochs: int) -> tuple[dict[str, Any], float]:
    """Run the study without disturbing it; return its table and its time."""
    began = time.monotonic()
    if start(words_of(arguments(out, "undisturbed", epochs)), out / "undisturbed.log").wait() != 0:
        raise SystemExit(f"undisturbed: expected a finished study, see {out / 'undisturbed.log'}.")
    return table_of(out / "undisturbed"), time.monotonic() - began


def epochs_done(folder: Path) -> int:
    """Count the epochs of all cells."""
    return sum(len(f.read_text().splitlines()) - 1 for f in folder.glob("seed*/*/train/results.csv"))


def killed(out: Path, epochs: int, kills: int, seed: int) -> dict[str, Any]:
    """Kill the study again and again, each time a while after a random epoch of a random cell, and resume it."""
    draw = random.Random(seed)
    moments = sorted(draw.sample([n for n in range(1, 6 * epochs) if n % epochs], kills))
    folder, log = out / "killed", out / "killed.log"
    words = words_of(arguments(out, "killed", epochs))
    for number, moment in enumerate(moments, 1):
        process = start(words, log)
        while process.poll() is None and epochs_done(folder) < moment:
            time.sleep(0.01)
        delay = draw.uniform(0, 0.5)
        time.sleep(delay)
        if process.poll() is not None:
            raise SystemExit(f"killed: expected a study to kill, got one that ended, see {log}.")
        process.send_signal(signal.SIGKILL)
        process.wait()
        print(f"killed: kill {number}, {delay:.2f} s after epoch {moment} of {6 * epochs}", flush=True)
        if (folder / "study.json").is_file():
            words = [f"resume={folder}", "device=cpu", "jobs=1", "cores=1"]
    if start([f"resume={folder}", "device=cpu", "jobs=1", "cores=1"], log).wait() != 0:
        raise SystemExit(f"killed: expected a finished study, see {log}.")
    logs = [file.read_text(encoding="utf-8", errors="replace") for file in folder.glob("seed*/*/log.txt")]
    print(f"killed: {sum(log.count('Resuming training') for log in logs)} cells went on from an epoch")
    return table_of(folder)


def on_ray(out: Path, epochs: int) -> dict[str, Any]:
    """Run the study on a cluster of two nodes."""
    import ray
    from ray.cluster_utils import Cluster

    from det_ls.studies import study

    os.environ["PYTHONPATH"] = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
    try:
        cluster.add_node(num_cpus=1)
        ray.init(address=cluster.address)
        print(f"ray: {len(ray.nodes())} nodes")
        study(**{**arguments(out, "ray", epochs), "executor": "ray", "jobs": None, "device": None})
    finally:
        ray.shutdown()
        cluster.shutdown()
    return table_of(out / "ray")


def failing(out: Path) -> bool:
    """Run a study of which one seed fails; tell whether the others finished and the error was recorded."""
    status = start(words_of(arguments(out, "failing", 1, f"0,{BROKEN}")), out / "failing.log").wait()
    table = table_of(out / "failing")
    states = {name: cell["state"] for name, cell in table.items()}
    print(f"failing: exit status {status}, {states}")
    wanted = {name: "failed" if f"seed{BROKEN}/" in name else "done" for name in table}
    return status == 0 and states == wanted and len(table) == 4


def main() -> int:
    words = dict(word.split("=", 1) for word in sys.argv[1:])
    unknown = set(words) - {"kills", "seed", "epochs", "out", "parts"}
    if unknown:
        raise SystemExit(f"{', '.join(sorted(unknown))}: expected kills=, seed=, epochs=, out= or parts=.")
    out, epochs = Path(words.get("out", "runs/check_study")).absolute(), int(words.get("epochs", 3))
    parts = words.get("parts", "killed,ray,failing").split(",")
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    right = True
    if {"killed", "ray"} & set(parts):
        wanted, lasts = undisturbed(out, epochs)
        print(f"undisturbed: {len(wanted)} cells in {lasts:.0f} s", flush=True)
        kills, seed = int(words.get("kills", 4)), int(words.get("seed", 0))
        runs = {"killed": lambda: killed(out, epochs, kills, seed), "ray": lambda: on_ray(out, epochs)}
        for name, run in runs.items():
            if name in parts:
                same = run() == wanted
                right = right and same
                print(f"{name}: the table is {'the same' if same else 'ANOTHER'}", flush=True)
    if "failing" in parts:
        right = failing(out) and right
    print("all as it should be" if right else "NOT as it should be")
    return 0 if right else 1


if __name__ == "__main__":
    sys.exit(main())
