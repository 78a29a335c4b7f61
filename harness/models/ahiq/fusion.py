"""AHIQ's fusion: the CNN's maps after a deformable convolution, reduced to the ViT's grid.

The convolution of stride 2 uses pixels of the deformed map in even rows and columns only by its centre tap. There the two
successive products, 9C -> C -> O, become one, 9C -> O, with the product of their matrices; the other eight taps are one product
over the other pixels. That is exact, and saves 3 % of AHIQ's operations.
"""

from __future__ import annotations

import functools
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from harness.models.ahiq.deform_conv import DeformConv, Places, matrix_of, places, sampled
from harness.models.kernels import choice, linear
from harness.models.kernels.onednn import by_onednn
from harness.models.kernels.weight_cache import Prepared, pays, wide
from harness.models.kernels.winograd import Conv3x3

_TAPS = [(row, column) for row in range(3) for column in range(3) if (row, column) != (1, 1)]
_TRIAL_MAP = 28


class DeformFusion(nn.Module, choice.HasKernels):
    """`tokens` of 0: no deformable convolution, the maps are only reduced."""

    def __init__(self, tokens: int, channels: int, width: int, patch_size: int) -> None:
        super().__init__()
        if tokens:
            self.conv_offset = nn.Conv2d(tokens, 18, 3, 1, 1)
            self.deform = DeformConv(channels, channels)
        # Created in this order, so that a seed always gives the same initial network.
        first = nn.Conv2d(channels, width, 3, 2, 1)
        last = Conv3x3(width, channels) if patch_size == 8 else nn.Conv2d(width, channels, 3, 2, 1)
        self.conv1 = nn.Sequential(first, nn.ReLU(), last)
        self._prepared = Prepared()

    def forward(self, maps: Tensor, where: Places | None) -> Tensor:
        """(N, C, H, W) at one row of places for each map, None: undeformed -> (N, H / 2 * W / 2, C) for patches of 8."""
        first, relu, last = self.conv1
        assert isinstance(first, nn.Conv2d)
        if where is None:
            shrunk = first(maps)
        elif pays(maps, self.deform.weight) and pays(maps, first.weight) and way_of(*first.weight.shape[:2]) != choice.PLAIN:
            shrunk = composed(maps, where, self.deform, first, self._prepared)
        else:
            shrunk = first(self.deform(maps, where))
        fused: Tensor = last(relu(shrunk))
        return fused.flatten(2).transpose(1, 2)

    def kernels(self) -> dict[str, str]:
        """The two successive convolutions, where they are wide enough for a choice."""
        weight = self.conv1[0].weight
        assert isinstance(weight, Tensor)
        sizes = weight.shape[:2]
        return {name_of(*sizes): way_of(*sizes)} if hasattr(self, "deform") and wide(weight) else {}


def composed(x: Tensor, where: Places, deform: DeformConv, conv: nn.Conv2d, prepared: Prepared) -> Tensor:
    """`conv(deform(x, where))`, of stride 2, over maps of even sides: (N, C, H, W) -> (N, O, H / 2, W / 2)."""
    n, channels, height, width = x.shape
    packs = linear.way_of(9 * channels, channels) != choice.PLAIN

    def product(name: str, make: Callable[[Tensor, Tensor], Tensor], bias: Tensor | None) -> Callable[[Tensor], Tensor]:
        def made(weight: Tensor, after: Tensor) -> Tensor:
            return linear.packed(make(weight, after)) if packs else make(weight, after)

        matrix = prepared(f"{name}, packed" if packs else name, deform.weight, made, conv.weight)
        if packs:
            return functools.partial(linear.multiply, matrix=matrix, bias=bias)
        return functools.partial(F.linear, weight=matrix, bias=bias)

    bias = None if deform.bias is None else conv.weight[:, :, 1, 1] @ deform.bias
    bias = bias if conv.bias is None else conv.bias if bias is None else bias + conv.bias
    # In float64, so that the product of the two matrices loses no precision.
    alone = product("centre", lambda weight, after: (after[:, :, 1, 1].double() @ matrix_of(weight).double()).float(), bias)
    before = product("deformed", lambda weight, after: matrix_of(weight), deform.bias)
    after = product("taps", lambda weight, after: torch.cat([after[:, :, i, j] for i, j in _TAPS], 1), None)
    # Pixels in even rows and columns, counted row by row, and all others.
    even = torch.zeros(height, width, dtype=torch.bool)
    even[::2, ::2] = True
    seen, others = even.flatten().nonzero().flatten(), (~even).flatten().nonzero().flatten()
    # No tap uses a pixel below or to the right of the map, and none of the eight uses one of `seen`.
    around = x.new_empty(height + 1, width + 1, channels)
    around[0], around[:, 0] = 0, 0
    inside = others + others // width + width + 2
    out = []
    # One map after the other: the memory for two would be returned to the system at each call.
    for number in range(n):
        table = x[number].permute(1, 2, 0).reshape(-1, channels)
        pixels, shares = (part[number].reshape(height * width, 9, 4) for part in where)
        middle, deformed = (
            sampled(table, pixels[rows].reshape(-1, 4), shares[rows].reshape(-1, 4).to(x.dtype), way, even=True)
            for rows, way in ((seen, alone), (others, before))
        )
        around.view(-1, channels).index_copy_(0, inside, deformed)
        rows = torch.cat([around[i : i + height : 2, j : j + width : 2] for i, j in _TAPS], 2)
        out.append(after(rows.reshape(-1, 8 * channels)).add_(middle))
    return torch.stack(out).reshape(n, height // 2, width // 2, -1).permute(0, 3, 1, 2)


def name_of(outputs: int, channels: int) -> str:
    """The name of the two convolutions in the file of choices."""
    return f"composed {channels}x{outputs}"


def way_of(outputs: int, channels: int) -> str:
    """`plain` or `composed`; tried on a map of 28x28."""
    return choice.way_of(name_of(outputs, channels), lambda: _ways(outputs, channels))


def _ways(outputs: int, channels: int) -> dict[str, Callable[[], Tensor]]:
    generator = torch.Generator().manual_seed(0)
    # Weights created in inference mode are never prepared.
    with torch.random.fork_rng(devices=[]), torch.inference_mode(False):
        torch.manual_seed(0)
        deform, conv, prepared = DeformConv(channels, channels), nn.Conv2d(channels, outputs, 3, 2, 1), Prepared()
    x = torch.randn(1, channels, _TRIAL_MAP, _TRIAL_MAP, generator=generator).contiguous(memory_format=torch.channels_last)
    where = places(torch.randn(1, 18, _TRIAL_MAP, _TRIAL_MAP, generator=generator))

    def computed(way: str) -> Tensor:
        with by_onednn(x.device):
            out: Tensor = conv(deform(x, where)) if way == choice.PLAIN else composed(x, where, deform, conv, prepared)
            return out

    return {way: functools.partial(computed, way) for way in choice.WAYS["composed"]}
