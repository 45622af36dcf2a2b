# SPDX-License-Identifier: AGPL-3.0-or-later
"""Run the file that Ultralytics writes for its DDP workers in two processes without a GPU.

Ultralytics trains on several CUDA devices or on one CPU. Four places are in the way, and nothing else is changed: the
trainer's count of devices, its choice of backend and device, ``DistributedDataParallel(device_ids=)``, and the device of
the final validation.
"""

from __future__ import annotations

import os
import runpy
import socket
import subprocess
import sys
from pathlib import Path

import torch

TESTS = Path(__file__).parent


def patch() -> None:
    """Let this process take part in a distributed run on the CPU."""
    from ultralytics.engine import trainer, validator

    processes = int(os.environ["WORLD_SIZE"])
    train, backend, parallel = (
        trainer.BaseTrainer._do_train,
        validator.AutoBackend,
        torch.nn.parallel.DistributedDataParallel,
    )

    def do_train(self):
        self.world_size = processes
        train(self)

    def setup_ddp(self):
        torch.distributed.init_process_group("gloo", rank=trainer.RANK, world_size=processes)

    class OnCPU(parallel):
        def __init__(self, module, device_ids=None, **kwargs):
            super().__init__(module, **kwargs)

    class Accelerator:
        @staticmethod
        def current_device() -> int:
            return 0

    trainer.BaseTrainer._do_train = do_train
    trainer.BaseTrainer._setup_ddp = setup_ddp
    trainer.nn.parallel.DistributedDataParallel = OnCPU
    validator.AutoBackend = lambda *args, device, **kwargs: backend(*args, device=torch.device("cpu"), **kwargs)
    if hasattr(validator, "get_torch_device_backend"):
        validator.get_torch_device_backend = lambda device: Accelerator


def remember_steps(file: Path) -> None:
    """Save the weights after every training step to a file."""
    from ultralytics.engine.trainer import BaseTrainer
    from ultralytics.utils.torch_utils import unwrap_model

    steps: list[dict[str, torch.Tensor]] = []
    stock = BaseTrainer.run_callbacks

    def run_callbacks(self, event: str) -> None:
        if event == "on_train_batch_end":
            steps.append({k: v.detach().clone() for k, v in unwrap_model(self.model).named_parameters()})
            torch.save(steps, file)
        stock(self, event)

    BaseTrainer.run_callbacks = run_callbacks


def run_in_processes(trainer, folder: Path, processes: int) -> None:
    """Run the worker file of a trainer; each process leaves targets-<rank>.json and steps-<rank>.pt in a folder."""
    from ultralytics.utils.dist import ddp_cleanup, generate_ddp_file

    file = generate_ddp_file(trainer)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    path = os.pathsep.join([str(TESTS), str(TESTS.parent), *sys.path])
    common = {**os.environ, "PYTHONPATH": path, "GLOO_SOCKET_IFNAME": "lo", "MASTER_ADDR": "127.0.0.1"}
    common.update(MASTER_PORT=str(port), WORLD_SIZE=str(processes))
    workers = [
        subprocess.Popen(
            [sys.executable, __file__, file, str(folder)],
            env={**common, "RANK": str(rank), "LOCAL_RANK": str(rank)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for rank in range(processes)
    ]
    try:
        said = [worker.communicate(timeout=240)[0] for worker in workers]
    finally:
        for worker in workers:
            worker.kill()
        ddp_cleanup(trainer, file)
    for worker, text in zip(workers, said, strict=True):
        assert worker.returncode == 0, text[-3000:]


if __name__ == "__main__":
    from probe import watch_training

    script, out, rank = sys.argv[1], Path(sys.argv[2]), os.environ["RANK"]
    patch()
    remember_steps(out / f"steps-{rank}.pt")
    with watch_training(out / f"targets-{rank}.json"):
        runpy.run_path(script, run_name="__main__")
