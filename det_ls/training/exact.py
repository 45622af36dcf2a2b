# SPDX-License-Identifier: AGPL-3.0-or-later
"""A trainer whose run, killed and resumed, ends with the weights of a run that nothing disturbed.

Stock's last.pt holds the EMA and the optimizer in half precision, and neither the live model nor the random numbers: a
run that goes on from it becomes another run. Beside last.pt this trainer keeps ``state-EPOCH.pt`` with all of it in
full precision, written before last.pt, so that the state of whichever last.pt a kill leaves is there. last.pt stays
stock's own, and the states are removed when the run ends.

Exact on a CPU, where the process itself loads the images. With processes that load them (a GPU and ``workers`` above 0)
the weights and the optimizer go on in full precision, and the order of the images starts again, as stock's does.
"""

from __future__ import annotations

import io
import random
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ultralytics.data.base import BaseDataset
from ultralytics.data.build import InfiniteDataLoader
from ultralytics.engine import trainer as engine
from ultralytics.utils import LOGGER, RANK
from ultralytics.utils.patches import torch_load
from ultralytics.utils.torch_utils import unwrap_model

from det_ls.base.files import remove_partial
from det_ls.stock.expect import Method, Source, expect
from det_ls.stock.patches import replaced
from det_ls.training.checkpoints import write_checkpoint
from det_ls.training.tasks import DetectionTrainer

ASSUMPTIONS = (
    Method(DetectionTrainer, "optimizer_step"),
    Method(InfiniteDataLoader, "_get_iterator"),
    Source(engine.BaseTrainer, "last_opt_step = -1"),
    Source(engine.BaseTrainer, "if ni - last_opt_step >= self.accumulate:"),
    Source(BaseDataset, "self.buffer.append(i)"),
)


class ExactDetectionTrainer(DetectionTrainer):
    """The detection trainer, for runs that are to be resumed exactly; not for distributed runs.

    It assumes of Ultralytics, beyond ``det_ls.training.assumptions``: that an epoch iterates over ``train_loader``
    once, after ``on_train_epoch_start``; that ``optimizer_step()`` is called where ``ni - last_opt_step`` is at least
    ``self.accumulate``, with a ``last_opt_step`` that a resumed run begins at -1; and that the data set's ``buffer``
    lists the images that mosaics are made of, in the order in which they were loaded.
    """

    _accumulate: int = 1
    _offset: int = 0  # what a resumed run adds to `accumulate` until its first step, so that the rhythm goes on
    _since_step: int = 0  # batches since the optimizer's last step
    _saved: dict[str, Any] | None = None  # of the run's order and random numbers, until the first epoch begins
    _iterator: Any = None  # that of the loader, which closing the mosaic makes anew
    _begun: Any = None  # the loader's generator before anything was drawn from that iterator
    _drawn: int = 0  # batches drawn from that iterator

    @property
    def accumulate(self) -> int:
        """Batches a step of the optimizer, as stock's training loop sees it."""
        return self._accumulate + self._offset

    @accumulate.setter
    def accumulate(self, value: int) -> None:
        self._accumulate = value

    def train(self) -> None:
        """Train as stock does, with the order of the images watched.

        Raises:
            RuntimeError: If this version of Ultralytics is not as assumed.
        """
        expect("training loop", *ASSUMPTIONS)
        stock: Any = InfiniteDataLoader.__iter__

        def watched(loader: Any) -> Iterator[Any]:
            return self._epoch_of(loader, stock) if loader is self.train_loader else stock(loader)

        with replaced(InfiniteDataLoader, "__iter__", watched):
            super().train()

    def optimizer_step(self) -> None:
        """Step as stock does, and count the batches from here."""
        super().optimizer_step()
        self._offset = 0
        self._since_step = -1  # this batch is counted when it ends

    def run_callbacks(self, event: str) -> None:
        """Count batches, and run the callbacks.

        Args:
            event: As in Ultralytics.
        """
        if event == "on_train_batch_end":
            self._since_step += 1
        super().run_callbacks(event)

    def save_model(self) -> Any:
        """Save the state that last.pt does not hold, then the checkpoints as stock does.

        Returns:
            What stock returns.

        Raises:
            UnwritableError: If there is no room; the checkpoints and the state before are kept.
        """
        if RANK != -1:
            return super().save_model()
        buffer = io.BytesIO()
        torch.save(self._state(), buffer)
        file = state_file(Path(self.last), self.epoch)
        file.parent.mkdir(parents=True, exist_ok=True)
        write_checkpoint(file, buffer.getvalue())
        result = super().save_model()
        remove_states(Path(self.last), self.epoch)
        return result

    def resume_training(self, ckpt: Mapping[str, Any] | None) -> None:
        """Resume as stock does, then in full precision if the state of last.pt's epoch is there.

        Args:
            ckpt: As in Ultralytics.
        """
        super().resume_training(ckpt)
        if ckpt is None or not self.resume:
            return
        file = state_file(Path(self.args.resume), int(ckpt["epoch"]))
        remove_partial(file.parent)
        if not file.is_file():
            LOGGER.warning(f"{file}: not there; the run goes on in half precision, as Ultralytics resumes.")
            return
        state = torch_load(file, map_location=self.device)
        model: Any = unwrap_model(self.model)  # type: ignore[arg-type]
        ema: Any = vars(self)["ema"]
        model.load_state_dict(state["model"])
        ema.ema.load_state_dict(state["ema"])
        vars(self)["optimizer"].load_state_dict(state["optimizer"])
        self._saved = state

    def final_eval(self) -> None:
        """Strip and validate as stock does; a finished run keeps no state."""
        super().final_eval()
        if RANK == -1:
            remove_states(Path(self.last))

    def _state(self) -> dict[str, Any]:
        """Collect what last.pt does not hold, or not in full precision."""
        model: Any = unwrap_model(self.model)  # type: ignore[arg-type]
        ema: Any = vars(self)["ema"]
        dataset = self.train_loader.dataset
        return {
            "model": model.state_dict(),
            "ema": ema.ema.state_dict(),
            "optimizer": vars(self)["optimizer"].state_dict(),
            "gradients": {n: p.grad for n, p in model.named_parameters() if p.grad is not None},
            "since_step": self._since_step,
            "begun": self._begun,
            "drawn": self._drawn,
            "buffer": list(getattr(dataset, "buffer", ())),
            "random": random.getstate(),
            "numpy": _plain_numpy_state(),
            "torch": torch.get_rng_state(),
            "cuda": torch.cuda.get_rng_state_all() if self.device.type == "cuda" else [],
        }

    def _epoch_of(self, loader: Any, stock: Any) -> Iterator[Any]:
        """Yield an epoch's batches, the first of a resumed run after all is as it was when the one before ended."""
        if self._saved is not None:
            state, self._saved = self._saved, None
            self._restore(loader, state)
        if loader.num_workers == 0:
            if loader.iterator is None:  # as stock is about to, in newer versions
                loader.iterator = loader._get_iterator()
            if loader.iterator is not self._iterator:
                self._iterator, self._begun, self._drawn = loader.iterator, _state_of(loader.generator), 0
        for batch in stock(loader):
            self._drawn += 1
            yield batch

    def _restore(self, loader: Any, state: Mapping[str, Any]) -> None:
        """Put order, gradients and random numbers where they were."""
        model: Any = unwrap_model(self.model)  # type: ignore[arg-type]
        for name, parameter in model.named_parameters():
            gradient = state["gradients"].get(name)
            parameter.grad = None if gradient is None else gradient.to(parameter.device)
        self._since_step = state["since_step"]
        self._offset = len(loader) * self.start_epoch - self._since_step
        if loader.num_workers == 0:
            self._restore_order(loader, state)
        random.setstate(state["random"])
        np.random.set_state(tuple(state["numpy"]))
        torch.set_rng_state(state["torch"].cpu())
        if state["cuda"]:
            torch.cuda.set_rng_state_all([s.cpu() for s in state["cuda"]])

    def _restore_order(self, loader: Any, state: Mapping[str, Any]) -> None:
        """Draw the indices that were drawn, without loading their images, and load those that mosaics are made of."""
        loader.iterator = self._iterator = loader._get_iterator()
        if state["begun"] is not None:
            loader.generator.set_state(state["begun"].cpu())
        self._begun, self._drawn = state["begun"], state["drawn"]
        for _ in range(self._drawn):
            loader.iterator._next_index()
        if self.args.close_mosaic and self.start_epoch == self.epochs - self.args.close_mosaic:
            loader.iterator = loader._get_iterator()  # this is the epoch in which stock closes the mosaic
        for index in state["buffer"]:
            if loader.dataset.ims[index] is None:
                loader.dataset.load_image(index)


def state_file(last: Path, epoch: int) -> Path:
    """Say where the state of an epoch is kept.

    Args:
        last: The run's last.pt.
        epoch: The epoch, from 0.

    Returns:
        The file, beside last.pt.
    """
    return last.with_name(f"state-{epoch}.pt")


def remove_states(last: Path, but: int | None = None) -> None:
    """Remove the states of a run.

    Args:
        last: The run's last.pt.
        but: The epoch whose state is kept; None for none.
    """
    for file in last.parent.glob("state-*.pt"):
        if but is None or file != state_file(last, but):
            file.unlink(missing_ok=True)


def _state_of(generator: Any) -> Any:
    """Return the state of a generator, None without one."""
    return None if generator is None else generator.get_state()


def _plain_numpy_state() -> list[Any]:
    """Return the state of NumPy's random numbers as torch can load it without trusting the file."""
    name, keys, *rest = np.random.get_state()
    return [name, [int(key) for key in keys], *rest]
