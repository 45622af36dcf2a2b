# SPDX-License-Identifier: AGPL-3.0-or-later
"""Everything about det-ls that only a GPU can show, in one go, written to a Markdown file as it comes.

    python scripts/check_gpu.py [--out gpu.md] [--device 0] [--only tests criterion coco]

1. ``tests``: tests/gpu, which read the targets in use from the gradients of real training steps: in float32, under AMP
   in fp16 and bf16, compiled, of every task, on two GPUs where there are two; and compare a checkpoint on GPU and CPU.
2. ``criterion``: time and memory beside stock's for 80 and 1,203 classes (scripts/bench_criterion.py).
3. ``coco``: the hours of a full COCO training (scripts/estimate_coco.py).

Takes some minutes. Exits with 1 where a part failed; the others go on.
"""

from __future__ import annotations

import argparse
import platform
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def commands(device: str) -> dict[str, list[str]]:
    """List the parts.

    Args:
        device: Index of the GPU.

    Returns:
        Words by name, without the interpreter.
    """
    bench = ["scripts/bench_criterion.py", "--device", f"cuda:{device}", "--classes", "80", "1203", "--objects", "8"]
    return {
        "tests": ["-m", "pytest", "tests/gpu", "-p", "no:cacheprovider", "-rA", "--tb=short", "--show-capture=no"],
        "criterion": [*bench, "--batch", "16"],
        "coco": ["scripts/estimate_coco.py", "cfg=cfg/coco.yaml", f"device={device}", "workers=8"],
    }


def machine(device: str) -> str:
    """Name what the figures belong to.

    Args:
        device: Index of the GPU.

    Returns:
        GPU, processor threads and versions, in a line.
    """
    import os

    import torch
    import ultralytics

    found = torch.cuda.get_device_properties(int(device))
    return (
        f"{found.name} ({found.total_memory / 2**30:.0f} GiB, {torch.cuda.device_count()} of them), {os.cpu_count()} "
        f"threads; torch {torch.__version__}, CUDA {torch.version.cuda}, ultralytics {ultralytics.__version__}, "
        f"Python {platform.python_version()}"
    )


def run(name: str, words: Sequence[str], out: Path) -> bool:
    """Run a part, print what it says, and add it to the file.

    Args:
        name: What it is called.
        words: Its command, without the interpreter.
        out: The file.

    Returns:
        Whether it ended well.
    """
    began = time.monotonic()
    print(f"{name}: python {' '.join(words)}", flush=True)
    done = subprocess.run(
        [sys.executable, *words], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
    )
    print(done.stdout, flush=True)
    lines = done.stdout.splitlines()
    if name == "tests":  # of a test suite what passed and what did not
        lines = [line for line in lines if line.startswith(("PASSED", "FAILED", "ERROR", "SKIPPED", "E  "))]
    elif done.returncode == 0:  # of a training the lines at its end
        lines = lines[-2:] if name == "coco" else lines
    fence = "" if name == "criterion" and done.returncode == 0 else "```\n"
    with out.open("a", encoding="utf-8") as file:
        state = "ended well" if done.returncode == 0 else f"**failed** (status {done.returncode})"
        file.write(f"\n## {name}\n\n`python {' '.join(words)}` {state}, {time.monotonic() - began:.0f} s.\n\n")
        file.write(f"{fence}{chr(10).join(lines)}\n{fence}")
    return done.returncode == 0


def main(argv: Sequence[str] | None = None) -> int:
    import torch

    parts = commands("0")
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("gpu.md"), help="where to write (default: gpu.md)")
    parser.add_argument("--device", default="0", help="index of the GPU (default: 0)")
    parser.add_argument("--only", nargs="+", choices=list(parts), default=list(parts), help="which parts")
    given = parser.parse_args(argv)
    if not given.device.isdecimal() or int(given.device) >= torch.cuda.device_count():
        parser.error(f"--device: expected one of {torch.cuda.device_count()} CUDA devices, got {given.device!r}.")
    given.out.write_text(f"# det-ls on a GPU\n\n{machine(given.device)}\n", encoding="utf-8")
    parts = {name: words for name, words in commands(given.device).items() if name in given.only}
    ended = [run(name, words, given.out) for name, words in parts.items()]
    return int(not all(ended))


if __name__ == "__main__":
    sys.exit(main())
