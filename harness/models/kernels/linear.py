"""Linear layers with a weight in oneDNN's packed layout, converted once instead of at each call.

These two operators of torch are meant for its compiler. They are used only where a trial product agrees with the public function
and is faster (`choice`); elsewhere the public function is used.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from harness.models.kernels import choice
from harness.models.kernels.onednn import by_onednn
from harness.models.kernels.weight_cache import Prepared, pays, wide

_TRIAL_ROWS = 785


class Linear(nn.Linear, choice.HasKernels):
    """A linear layer with the chosen kernel; `gelu` applies the exact GELU to its output."""

    def __init__(self, inputs: int, outputs: int, gelu: bool = False) -> None:
        super().__init__(inputs, outputs)
        self.gelu = gelu
        self._prepared = Prepared()

    def forward(self, x: Tensor) -> Tensor:
        """(..., inputs) -> (..., outputs)."""
        way = way_of(self.in_features, self.out_features, self.gelu) if pays(x, self.weight) else choice.PLAIN
        if way == choice.PLAIN:
            out = F.linear(x, self.weight, self.bias)
        else:
            out = multiply(x, self._prepared("whole", self.weight, packed), self.bias, way == "fused")
        return F.gelu(out) if self.gelu and way != "fused" else out

    def kernels(self) -> dict[str, str]:
        """The layer's product, where it is wide enough for a choice."""
        sizes = self.in_features, self.out_features, self.gelu
        return {name_of(*sizes): way_of(*sizes)} if wide(self.weight) else {}


def name_of(inputs: int, outputs: int, gelu: bool = False) -> str:
    """The name of a product in the file of choices."""
    return f"{'linear-gelu' if gelu else 'linear'} {inputs}x{outputs}"


def way_of(inputs: int, outputs: int, gelu: bool = False) -> str:
    """`plain`; `packed`: with a packed weight; or `fused`: with GELU in the product too."""
    way = choice.way_of(name_of(inputs, outputs, gelu), lambda: _ways(inputs, outputs, gelu))
    return way if way == choice.PLAIN or available() else choice.PLAIN


def _ways(inputs: int, outputs: int, gelu: bool) -> dict[str, Callable[[], Tensor]]:
    generator = torch.Generator().manual_seed(0)
    x, weight = (torch.randn(rows, inputs, generator=generator) for rows in (_TRIAL_ROWS, outputs))
    bias = weight[:, 0].contiguous()
    matrix = packed(weight) if available() else weight

    def product(way: str) -> Tensor:
        # A shape as in networks.
        with by_onednn(x.device):
            out = F.linear(x, weight, bias) if way == choice.PLAIN else multiply(x, matrix, bias, way == "fused")
            return F.gelu(out) if gelu and way != "fused" else out

    ways = choice.WAYS["linear-gelu" if gelu else "linear"]
    return {way: functools.partial(product, way) for way in ways if way == choice.PLAIN or available()}


@functools.cache
def available() -> bool:
    """Whether this torch has the operators, and they agree with the public function."""
    generator = torch.Generator().manual_seed(0)
    x, weight = torch.randn(2, 160, 256, generator=generator)
    try:
        ours = [multiply(x, packed(weight), weight[:, 0].contiguous(), gelu) for gelu in (False, True)]
    except (AttributeError, NotImplementedError, RuntimeError, TypeError):
        return False
    truth = F.linear(x.double(), weight.double(), weight[:, 0].double())
    return all(bool((a - b).abs().max() < 1e-4) for a, b in zip(ours, (truth, F.gelu(truth)), strict=True))


def packed(weight: Tensor) -> Tensor:
    """A weight (outputs, inputs) in the layout for `multiply`."""
    operators: Any = torch.ops.mkldnn
    out: Tensor = operators._reorder_linear_weight(weight.detach(), None)
    return out


def multiply(x: Tensor, matrix: Tensor, bias: Tensor | None, gelu: bool = False) -> Tensor:
    """`F.linear(x, weight, bias)` with `packed(weight)`, and GELU if asked for."""
    operators: Any = torch.ops.mkldnn
    bias = None if bias is None else bias.detach()
    out: Tensor = operators._linear_pointwise(x, matrix, bias, *(("gelu", [], "none") if gelu else ("none", [], "")))
    return out
