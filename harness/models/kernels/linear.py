"""Linear layers whose weight is laid out once as oneDNN multiplies by it, instead of at each call.

torch keeps these two operators for its own compiler. They are used here alone, and only where a trial product agrees
with the public function; elsewhere that one does the same.
"""

from __future__ import annotations

import functools
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from harness.models.kernels.weight_cache import Prepared, pays


class Linear(nn.Linear):
    """A linear layer that takes the faster way where there is one; `gelu` applies the exact GELU to its output."""

    def __init__(self, inputs: int, outputs: int, gelu: bool = False) -> None:
        super().__init__(inputs, outputs)
        self.gelu = gelu
        self._prepared = Prepared()

    def forward(self, x: Tensor) -> Tensor:
        """(..., inputs) -> (..., outputs)."""
        if pays(x, self.weight) and available():
            return multiply(x, self._prepared("whole", self.weight, packed), self.bias, self.gelu)
        out = F.linear(x, self.weight, self.bias)
        return F.gelu(out) if self.gelu else out


@functools.cache
def available() -> bool:
    """Whether this torch has the operators, and they multiply as the public function does."""
    generator = torch.Generator().manual_seed(0)
    x, weight = torch.randn(2, 160, 256, generator=generator)
    try:
        ours = [multiply(x, packed(weight), weight[:, 0].contiguous(), gelu) for gelu in (False, True)]
    except (AttributeError, NotImplementedError, RuntimeError, TypeError):
        return False
    truth = F.linear(x.double(), weight.double(), weight[:, 0].double())
    return all(bool((a - b).abs().max() < 1e-4) for a, b in zip(ours, (truth, F.gelu(truth)), strict=True))


def packed(weight: Tensor) -> Tensor:
    """A weight (outputs, inputs) as `multiply` takes it."""
    operators: Any = torch.ops.mkldnn
    out: Tensor = operators._reorder_linear_weight(weight.detach(), None)
    return out


def multiply(x: Tensor, matrix: Tensor, bias: Tensor | None, gelu: bool = False) -> Tensor:
    """`F.linear(x, weight, bias)` with `packed(weight)`, and GELU if asked for."""
    operators: Any = torch.ops.mkldnn
    bias = None if bias is None else bias.detach()
    out: Tensor = operators._linear_pointwise(x, matrix, bias, *(("gelu", [], "none") if gelu else ("none", [], "")))
    return out
