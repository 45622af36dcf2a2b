# SPDX-License-Identifier: AGPL-3.0-or-later
"""The state of a policy in last.pt, and in every process of a distributed run.

Stock saves ``vars(trainer.args)`` as the checkpoint's ``train_args``, whatever is in it, and drops what it does not
know from the final checkpoints: a run that is finished has no state.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch

from det_ls.base.errors import ArgumentError, ArgumentTypeError
from det_ls.smoothing.policy import Policy
from det_ls.stock.patches import replaced

STATE_KEY = "label_smoothing_state"


def saved_with(args: Any, policy: Policy | None) -> AbstractContextManager[None]:
    """Let a checkpoint that is saved within the context hold the policy's state.

    Args:
        args: The trainer's ``args``.
        policy: The run's policy, or None.

    Returns:
        The context.

    Raises:
        TypeError: If the state is not of plain values.
    """
    state = {} if policy is None else policy.state_dict()
    if not state:
        return nullcontext()
    _check_plain(state, STATE_KEY)
    return replaced(args, STATE_KEY, state)


def restore(policy: Policy | None, checkpoint: Mapping[str, Any]) -> None:
    """Give a policy the state that a checkpoint holds.

    Args:
        policy: The run's policy, or None.
        checkpoint: The content of last.pt.

    Raises:
        ValueError: If a policy with state finds none.
    """
    if policy is None:
        return
    state = (checkpoint.get("train_args") or {}).get(STATE_KEY)
    if state:
        policy.load_state_dict(state)
    elif policy.state_dict():
        raise ArgumentError(f"{STATE_KEY}: expected the state of {type(policy).__name__} in the checkpoint, got none.")


def share(policy: Policy) -> None:
    """Hand the state of the first process, the only one that observes, to the others.

    Args:
        policy: The run's policy.
    """
    distributed = torch.distributed
    if distributed.is_available() and distributed.is_initialized() and distributed.get_world_size() > 1:
        state = policy.state_dict()
        if state:
            box = [state]
            distributed.broadcast_object_list(box, 0)
            policy.load_state_dict(box[0])


def _check_plain(value: object, where: str) -> None:
    """Raise unless a value is made of plain values, which any unpickler can read."""
    if isinstance(value, dict):
        for key, item in value.items():
            _check_plain(key, where)
            _check_plain(item, f"{where}[{key!r}]")
    elif type(value) in {list, tuple}:
        for item in value:  # type: ignore[attr-defined]
            _check_plain(item, where)
    elif value is not None and type(value) not in {bool, int, float, str}:
        raise ArgumentTypeError(
            f"{where}: expected numbers, strings, None, lists and dicts, got {type(value).__name__}."
        )
