"""Weights in the form that a faster way of multiplying wants them: made once, kept while they stay as they are."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

_SMALLEST = 128
"""Channels from which a layer's products outweigh what surrounds them."""


def pays(x: Tensor, weight: Tensor) -> bool:
    """Whether a wide layer is used, not trained, in fp32 on a CPU: where prepared weights are exact and faster."""
    return (
        x.device.type == "cpu"
        and x.dtype == weight.dtype == torch.float32
        and not torch.is_autocast_enabled("cpu")
        and not (torch.is_grad_enabled() and (x.requires_grad or weight.requires_grad))
        and wide(weight)
        # Its changes leave no trace in a version.
        and not weight.is_inference()
    )


def wide(weight: Tensor) -> bool:
    """Whether a layer's products outweigh what surrounds them."""
    return min(weight.shape[:2]) >= _SMALLEST


class Prepared:
    """Tensors that follow from a weight alone, by name; a copy starts empty."""

    def __init__(self) -> None:
        self._made: dict[str, tuple[tuple[int, int], Tensor, Tensor]] = {}

    def __call__(self, name: str, weight: Tensor, make: Callable[[Tensor], Tensor]) -> Tensor:
        """`make(weight)`, made anew when the weight has changed."""
        # In-place changes raise the version; a new storage moves the pointer.
        state = weight.data_ptr(), weight._version
        if name not in self._made or self._made[name][0] != state:
            # The weight is held with what was made of it, so that no other can come to lie where it lay.
            self._made[name] = state, weight.detach(), make(weight)
        return self._made[name][2]

    def __reduce__(self) -> tuple[type[Prepared], tuple[()]]:
        return Prepared, ()
