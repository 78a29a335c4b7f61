"""Cache of prepared weights (a layout or transform for a faster kernel), valid while the weights do not change."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

_SMALLEST = 128
"""The least number of channels for which a layer's product dominates its cost."""


def pays(x: Tensor, weight: Tensor) -> bool:
    """Whether prepared weights are exact and faster: a wide layer in inference, in fp32, on a CPU."""
    return (
        x.device.type == "cpu"
        and x.dtype == weight.dtype == torch.float32
        and not torch.is_autocast_enabled("cpu")
        and not (torch.is_grad_enabled() and (x.requires_grad or weight.requires_grad))
        and wide(weight)
        # Its changes do not change a version counter.
        and not weight.is_inference()
    )


def wide(weight: Tensor) -> bool:
    """Whether a layer's product dominates its cost."""
    return min(weight.shape[:2]) >= _SMALLEST


class Prepared:
    """Tensors computed from a weight, by name; a copy starts empty."""

    def __init__(self) -> None:
        self._made: dict[str, tuple[list[tuple[int, int]], list[Tensor], Tensor]] = {}

    def __call__(self, name: str, weight: Tensor, make: Callable[..., Tensor], *others: Tensor) -> Tensor:
        """`make(weight, *others)`, made again when one of these weights has changed."""
        weights = [weight, *others]
        # In-place changes raise the version; a new storage has another pointer.
        state = [(w.data_ptr(), w._version) for w in weights]
        if name not in self._made or self._made[name][0] != state:
            # The weights are kept alive with the result, so that no other tensor can get their address.
            self._made[name] = state, [w.detach() for w in weights], make(*(w.detach() for w in weights))
        return self._made[name][2]

    def __reduce__(self) -> tuple[type[Prepared], tuple[()]]:
        return Prepared, ()
