"""What a trainer asks of the processes that train together, and the answers of one that trains alone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

Loss = float | torch.Tensor
"""A step's loss: a number on a CPU; on a GPU a tensor that is looked at later, because looking waits for the GPU."""


class SingleProcess:
    """The process group of a trainer that works by itself; `harness.engine.distributed.group_member.ProcessGroup` has several."""

    rank, size = 0, 1

    def share(self, items: Sequence[Any]) -> Sequence[Any]:
        """This member's part of what all have."""
        return items

    def broadcast(self, model: torch.nn.Module) -> None:
        """Begin from the same bits."""

    def reduce_gradients(self, parameters: Sequence[torch.nn.Parameter], loss: Loss, share: float) -> Loss:
        """Turn gradients of a part of the batch into the whole batch's; `share`: of its images. Returns the whole's loss."""
        return loss

    def all_reduce(self, values: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        """The sum over all members."""
        return values
