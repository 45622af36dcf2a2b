# SPDX-License-Identifier: AGPL-3.0-or-later
"""Whether Ultralytics takes a device, known before any work."""

from __future__ import annotations

from det_ls.base.arguments import shown
from det_ls.base.errors import ArgumentError
from det_ls.stock.logs import quiet


def check_device(device: object) -> None:
    """Raise unless Ultralytics can select a device. Nothing is logged.

    Args:
        device: As in Ultralytics, for example ``cpu`` or ``0``; None, which lets it choose, always fits.

    Raises:
        ValueError: If there is no such device.
    """
    if device is None:
        return
    import torch
    from ultralytics.utils.torch_utils import select_device

    try:
        with quiet():
            select_device(device, verbose=False)  # type: ignore[arg-type]
    except (ValueError, TypeError, RuntimeError) as error:
        cards = [str(i) for i in range(torch.cuda.device_count())]
        known = f"'cpu' or of the CUDA devices {', '.join(cards)}" if cards else "'cpu', as there is no CUDA device"
        raise ArgumentError(f"device: expected {known}, got {shown(device)}.") from error
