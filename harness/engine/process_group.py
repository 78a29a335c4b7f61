"""The trainer's interface to a group of training processes, and its implementation for a single process."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

Loss = float | torch.Tensor
"""A step's loss: a number on a CPU; on a GPU a tensor, because reading its value waits for the GPU."""


class SingleProcess:
    """The process group of one process; `harness.engine.distributed.training_member.ProcessGroup` is the one of several."""

    rank, size = 0, 1

    def share(self, items: Sequence[Any]) -> Sequence[Any]:
        """This process's part of the items."""
        return items

    def broadcast(self, model: torch.nn.Module) -> None:
        """Give all processes the same initial weights."""

    def reduce_gradients(self, parameters: Sequence[torch.nn.Parameter], loss: Loss, share: float) -> Loss:
        """Turn gradients of a part of a batch into the whole batch's; `share`: the part's share. Returns the whole's loss."""
        return loss

    def all_reduce(self, values: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        """The sum over all processes."""
        return values
