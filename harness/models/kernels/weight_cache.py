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
        self._made: dict[str, tuple[list[tuple[int, int]], list[Tensor], Tensor]] = {}

    def __call__(self, name: str, weight: Tensor, make: Callable[..., Tensor], *others: Tensor) -> Tensor:
        """`make(weight, *others)`, made again when one of these weights has changed."""
        weights = [weight, *others]
        # In-place changes raise the version; a new storage moves the pointer.
        state = [(w.data_ptr(), w._version) for w in weights]
        if name not in self._made or self._made[name][0] != state:
            # The weights are held with what was made of them, so that no other can come to lie where they lay.
            self._made[name] = state, [w.detach() for w in weights], make(*(w.detach() for w in weights))
        return self._made[name][2]

    def __reduce__(self) -> tuple[type[Prepared], tuple[()]]:
        return Prepared, ()
