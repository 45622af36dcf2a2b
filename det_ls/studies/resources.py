# SPDX-License-Identifier: AGPL-3.0-or-later
"""What this machine has to give: cores, memory, devices, as far as this process may use them."""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from det_ls.base.errors import ArgumentError

GIB = 2**30
_CGROUP = Path("/sys/fs/cgroup")


def cores() -> int:
    """Count the cores that this process may use.

    Returns:
        At least 1; the affinity and a container's limit are respected.
    """
    with suppress(AttributeError):  # not on every system
        count = len(os.sched_getaffinity(0))
        with suppress(OSError, ValueError):
            quota, period = (_CGROUP / "cpu.max").read_text().split()
            count = min(count, max(1, int(quota) // int(period)))  # "max" is no number: no limit
        return count
    return os.cpu_count() or 1


def check_devices(devices: Sequence[str]) -> None:
    """Raise unless this machine has the GPUs that are named by number.

    Args:
        devices: Names as Ultralytics takes them; what is no number, such as ``cpu`` or ``mps``, is left to it.

    Raises:
        ValueError: If there is no such GPU.
    """
    numbers = [int(name) for name in (device.removeprefix("cuda:") for device in devices) if name.isdigit()]
    if not numbers:
        return
    import torch

    have = torch.cuda.device_count()
    if max(numbers) >= have:
        there = "which has none" if have == 0 else "which has only 0" if have == 1 else f"which has 0 to {have - 1}"
        raise ArgumentError(f"device: expected GPUs of this machine, {there}, got {','.join(devices)}.")


def total_memory() -> int:
    """Return the memory of this machine, or of its container, in bytes."""
    import psutil

    return min(int(psutil.virtual_memory().total), _limit())


def available_memory() -> int:
    """Return the memory that can be had without swapping, in bytes."""
    import psutil

    free = int(psutil.virtual_memory().available)
    with suppress(OSError, ValueError):
        free = min(free, _limit() - int((_CGROUP / "memory.current").read_text()))
    return free


def memory_of(process: int) -> int:
    """Return the memory that a process and its children hold, in bytes.

    Args:
        process: Its id.

    Returns:
        0 for a process that is no more.
    """
    import psutil

    total = 0
    with suppress(psutil.Error):
        parent = psutil.Process(process)
        for one in [parent, *parent.children(recursive=True)]:
            with suppress(psutil.Error):
                total += int(one.memory_info().rss)
    return total


def _limit() -> int:
    """Return the memory limit of the container, or a number that no machine reaches."""
    with suppress(OSError, ValueError):
        return int((_CGROUP / "memory.max").read_text())
    return 2**62
