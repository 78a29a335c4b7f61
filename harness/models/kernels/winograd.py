"""Winograd 3x3 convolutions: a quarter of the multiplications (A. Lavin, S. Gray, CVPR 2016, F(4x4, 3x3)).

The map is divided into 4x4 tiles; a tile's 6x6 neighbourhood and the kernel are each transformed to a space where the
convolution is a product of 36 pairs of numbers per channel, hence 36 matrix products over the channels. Rounding stays within
a few times that of the direct convolution.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from harness.models.kernels import choice
from harness.models.kernels.onednn import by_onednn
from harness.models.kernels.weight_cache import Prepared, pays, wide

_SMALLEST_MAP = 8
"""The least side of a map; for smaller ones most of the border tiles are wasted."""
_TRIAL_MAP = 28
_INPUT = (
    (4, 0, -5, 0, 1, 0),
    (0, -4, -4, 1, 1, 0),
    (0, 4, -4, -1, 1, 0),
    (0, -2, -1, 2, 1, 0),
    (0, 2, -1, -2, 1, 0),
    (0, 4, 0, -5, 0, 1),
)
_KERNEL = (
    (1 / 4, 0, 0),
    (-1 / 6, -1 / 6, -1 / 6),
    (-1 / 6, 1 / 6, -1 / 6),
    (1 / 24, 1 / 12, 1 / 6),
    (1 / 24, -1 / 12, 1 / 6),
    (0, 0, 1),
)
_OUTPUT = ((1, 1, 1, 1, 1, 0), (0, 1, -1, 2, -2, 0), (0, 1, 1, 4, 4, 0), (0, 1, -1, 8, -8, 1))


class Conv3x3(nn.Conv2d, choice.HasKernels):
    """A 3x3 convolution of stride 1 and padding 1 with the chosen kernel.

    `parts`: the number of equal parts of its inputs, if each is convolved separately (`using`).
    """

    def __init__(self, inputs: int, outputs: int, parts: int = 1) -> None:
        super().__init__(inputs, outputs, 3, padding=1)
        self.parts = parts
        self._prepared = Prepared()

    def forward(self, x: Tensor) -> Tensor:
        """(N, I, H, W) -> (N, O, H, W)."""
        return self.using(x, "whole", lambda weight: weight, self.bias)

    def using(self, x: Tensor, name: str, kernel: Callable[[Tensor], Tensor], bias: Tensor | None) -> Tensor:
        """The convolution with `kernel(weight)`, called `name`, in place of the weight."""
        small = min(x.shape[-2:]) < _SMALLEST_MAP
        if not pays(x, self.weight) or small or way_of(x.shape[1], self.out_channels) == choice.PLAIN:
            return F.conv2d(x, kernel(self.weight), bias, padding=1)
        return conv3x3(x, self._prepared(name, self.weight, lambda weight: transformed(kernel(weight))), bias)

    def kernels(self) -> dict[str, str]:
        """The layer's convolution, where it is wide enough for a choice."""
        sizes = self.in_channels // self.parts, self.out_channels
        return {name_of(*sizes): way_of(*sizes)} if wide(self.weight) else {}


def name_of(inputs: int, outputs: int) -> str:
    """The name of a convolution in the file of choices."""
    return f"winograd {inputs}x{outputs}"


def way_of(inputs: int, outputs: int) -> str:
    """`plain` or `winograd`; tried on a map of 28x28."""
    return choice.way_of(name_of(inputs, outputs), lambda: _ways(inputs, outputs))


def _ways(inputs: int, outputs: int) -> dict[str, Callable[[], Tensor]]:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(1, inputs, _TRIAL_MAP, _TRIAL_MAP, generator=generator).contiguous(memory_format=torch.channels_last)
    weight, bias = torch.randn(outputs, inputs, 3, 3, generator=generator), torch.randn(outputs, generator=generator)
    matrices = transformed(weight)

    def convolved(way: str) -> Tensor:
        with by_onednn(x.device):
            return F.conv2d(x, weight, bias, padding=1) if way == choice.PLAIN else conv3x3(x, matrices, bias)

    return {way: functools.partial(convolved, way) for way in choice.WAYS["winograd"]}


def transformed(weight: Tensor) -> Tensor:
    """A kernel (O, I, 3, 3) as the 36 matrices (36, I, O) that `conv3x3` multiplies by."""
    outputs, inputs = weight.shape[:2]
    both = _both(_KERNEL, weight)
    return (both @ weight.permute(2, 3, 1, 0).reshape(9, -1)).reshape(36, inputs, outputs)


def conv3x3(x: Tensor, matrices: Tensor, bias: Tensor | None = None) -> Tensor:
    """`F.conv2d(x, weight, bias, padding=1)` of x (N, I, H, W) with `transformed(weight)`; (N, O, H, W), channels last."""
    n, channels, height, width = x.shape
    down, across = math.ceil(height / 4), math.ceil(width / 4)
    padded = F.pad(x.permute(0, 2, 3, 1), (0, 0, 1, 4 * across - width + 1, 1, 4 * down - height + 1))
    image, row, column, _ = padded.stride()
    tiles = padded.as_strided((6, 6, n, down, across, channels), (row, column, image, 4 * row, 4 * column, 1))
    spread = (_both(_INPUT, x) @ tiles.reshape(36, -1)).reshape(36, -1, channels)
    products = torch.bmm(spread, matrices)
    out = (_both(_OUTPUT, x) @ products.reshape(36, -1)).reshape(4, 4, n, down, across, -1)
    out = out.permute(2, 3, 0, 4, 1, 5).reshape(n, 4 * down, 4 * across, -1)[:, :height, :width]
    if bias is not None:
        out = out + bias
    return out.permute(0, 3, 1, 2)


def _both(rows: tuple[tuple[float, ...], ...], like: Tensor) -> Tensor:
    """The transform of rows and columns as one matrix over the flattened square."""
    one = torch.tensor(rows, dtype=like.dtype, device=like.device)
    return torch.kron(one, one)
