"""Deformable 3x3 convolution (J. Dai et al., ICCV 2017) as a weighted gather and one matrix product.

Equal to `torchvision.ops.deform_conv2d` with padding 1. The sampling places are computed once for all maps that use
them, such as the distorted images of one reference. Everything here is differentiable.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from harness.models.kernels import choice, linear
from harness.models.kernels.onednn import by_onednn
from harness.models.kernels.weight_cache import Prepared, pays, wide

_SAMPLES_ON_CPU, _SAMPLES_ON_GPU = 1 << 22, 1 << 25
"""The most sampled values in memory without gradients: 16 and 128 MiB."""


class Places(NamedTuple):
    """The sampling places of a deformable convolution: for each output pixel and tap, four pixels and bilinear weights.

    `pixels` (N, H*W*9, 4) int32 counts within one map; `weights` (N, H*W*9, 4) are 0 for pixels outside of it.
    """

    pixels: Tensor
    weights: Tensor


def places(offsets: Tensor) -> Places:
    """The places of (N, 18, H, W) offsets: channels 2k, 2k+1 move tap k down and right."""
    n, _, height, width = offsets.shape
    moved = offsets.float().reshape(n, 9, 2, height, width)
    rows = torch.arange(height, device=offsets.device)[:, None]
    columns = torch.arange(width, device=offsets.device)
    taps = torch.arange(9, device=offsets.device)[:, None, None]
    y = (moved[:, :, 0] + (rows + taps // 3 - 1)).permute(0, 2, 3, 1)
    x = (moved[:, :, 1] + (columns + taps % 3 - 1)).permute(0, 2, 3, 1)
    top, left = y.detach().floor(), x.detach().floor()
    below, right = y - top, x - left
    pixels, weights = [], []
    for down, share in ((0, 1 - below), (1, below)):
        for across, part in ((0, 1 - right), (1, right)):
            row, column = top + down, left + across
            inside = (row >= 0) & (row < height) & (column >= 0) & (column < width)
            # The offsets of a broken network may be NaN or exceed any integer: the scores become NaN, without an index error.
            pixel = row.clamp(0, height - 1) * width + column.clamp(0, width - 1)
            pixels.append(pixel.nan_to_num(0).int())
            weights.append(share * part * inside)
    return Places(torch.stack(pixels, -1).reshape(n, -1, 4), torch.stack(weights, -1).reshape(n, -1, 4))


class DeformConv(nn.Conv2d, choice.HasKernels):
    """The same parameters as torchvision's DeformConv2d, with the defaults of a convolution."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__(inputs, outputs, 3, padding=1)
        self._prepared = Prepared()

    def forward(self, x: Tensor, where: Places) -> Tensor:  # type: ignore[override]
        """(N, I, H, W) at one row of places for each map -> (N, O, H, W)."""
        return deform_conv(x, where, self.weight, self.bias, self._prepared)

    def kernels(self) -> dict[str, str]:
        """The product over all samples, where it is wide enough for a choice."""
        sizes = 9 * self.in_channels, self.out_channels
        return {linear.name_of(*sizes): linear.way_of(*sizes)} if wide(self.weight) else {}


def deform_conv(x: Tensor, where: Places, weight: Tensor, bias: Tensor | None, prepared: Prepared | None = None) -> Tensor:
    """`weight` (O, I, 3, 3) at the places of each map of `x` (N, I, H, W), one row of `where` per map: (N, O, H, W).

    `prepared`, where given, caches the weight in the product's layout.
    """
    n, channels, height, width = x.shape
    first = torch.arange(n, device=x.device, dtype=torch.int32)[:, None, None] * (height * width)
    table = x.permute(0, 2, 3, 1).reshape(-1, channels)
    pixels, shares = (where.pixels + first).reshape(-1, 4), where.weights.reshape(-1, 4).to(x.dtype)
    if torch.is_grad_enabled() and any(t.requires_grad for t in (x, shares, weight)):
        out = _Deformed.apply(table, pixels, shares, matrix_of(weight).to(x.dtype), bias)
    else:
        if prepared is not None and pays(x, weight) and linear.way_of(9 * channels, len(weight)) != choice.PLAIN:
            packed = prepared("matrix", weight, lambda weight: linear.packed(matrix_of(weight)))
            product = functools.partial(linear.multiply, matrix=packed, bias=bias)
        else:
            product = functools.partial(F.linear, weight=matrix_of(weight), bias=bias)
        out = sampled(table, pixels, shares, product)
    return as_map(out.reshape(n, height * width, -1), height, width)


def _parts(table: Tensor, pixels: Tensor, even: bool = False) -> list[slice]:
    """Slices of the output pixels, so that on a CPU the samples stay in the cache between the gather and the product.

    `even`: parts of equal size, so that none is small.
    """
    most = _SAMPLES_ON_CPU if table.device.type == "cpu" else _SAMPLES_ON_GPU
    step = max(1, most // (9 * table.shape[1]))
    if even:
        count = len(pixels) // 9
        step = -(-count // -(-count // step))
    step *= 9
    return [slice(i, i + step) for i in range(0, len(pixels), step)]


def _gathered(table: Tensor, pixels: Tensor, shares: Tensor) -> Tensor:
    # The nine samples of each output pixel, concatenated.
    return F.embedding_bag(pixels, table, per_sample_weights=shares, mode="sum").reshape(-1, 9 * table.shape[1])


def sampled(table: Tensor, pixels: Tensor, shares: Tensor, product: Callable[[Tensor], Tensor], *, even: bool = False) -> Tensor:
    """`product` of all samples, one row for each output pixel."""
    out = None
    for part in _parts(table, pixels, even):
        some = product(_gathered(table, pixels[part], shares[part]))
        if out is None:
            out = some.new_empty(len(pixels) // 9, some.shape[1])
        out[part.start // 9 : part.stop // 9] = some
    assert out is not None
    return out


def matrix_of(weight: Tensor) -> Tensor:
    """A kernel (O, I, 3, 3) as the matrix (O, 9 I) over the samples of an output pixel."""
    return weight.permute(0, 2, 3, 1).reshape(len(weight), -1)


def as_map(tokens: Tensor, height: int, width: int) -> Tensor:
    """(N, H*W, C) as (N, C, H, W): channels last, or where gradients will pass, channels first.

    oneDNN's convolutions are faster on the former, and the gradients of their weights several times slower.
    """
    out = tokens.transpose(1, 2).reshape(len(tokens), -1, height, width)
    return out.contiguous() if out.requires_grad else out


def upsampled_conv(tokens: Tensor, conv: nn.Conv2d, grid: int, size: int) -> Tensor:
    """`conv` (3x3, padding 1) on the nearest-neighbour enlargement of a (N, grid*grid, C) map to size x size.

    Pixels of one token share its products with the nine taps, so the products are computed before the enlargement, and only
    their sums after it.
    """
    taps = conv.weight.flip(2, 3).permute(0, 2, 3, 1).reshape(-1, conv.in_channels)
    products = (taps @ tokens.transpose(1, 2)).reshape(len(tokens), -1, grid, grid)
    enlarged = F.interpolate(products, size=(size, size), mode="nearest")
    out = F.fold(enlarged.flatten(2), (size, size), 3, padding=1)
    return out if conv.bias is None else out + conv.bias[:, None, None]


class _Deformed(torch.autograd.Function):
    """The product over gathered samples. The backward pass gathers them again and also uses oneDNN for its products.

    For eight maps of the released network the samples are 0.7 GB, and their gradient as much: neither is kept, except the
    gradient where the maps are trained as well.
    """

    @staticmethod
    def forward(ctx: Any, table: Tensor, pixels: Tensor, shares: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(table, pixels, shares, weight)
        out = sampled(table, pixels, shares, functools.partial(F.linear, weight=weight))
        return out if bias is None else out.add_(bias)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        table, pixels, shares, weight = ctx.saved_tensors
        for_table, _, for_shares, for_weight, for_bias = ctx.needs_input_grad
        of_samples: list[Tensor] = []
        of_shares: list[Tensor] = []
        of_weight: Tensor | None = None
        for part in _parts(table, pixels):
            rows = gradient[part.start // 9 : part.stop // 9]
            with torch.enable_grad():
                own = shares[part].detach().requires_grad_(for_shares)
                samples = _gathered(table.detach(), pixels[part], own)
            with by_onednn(table.device):
                if for_weight:
                    kept = samples.detach()
                    of_weight = rows.T @ kept if of_weight is None else of_weight.addmm_(rows.T, kept)
                if for_shares or for_table:
                    change = rows @ weight
                    if for_shares:
                        of_shares += torch.autograd.grad(samples, own, change)
                    if for_table:
                        of_samples.append(change)
        return (
            _of_table(torch.cat(of_samples).reshape(-1, table.shape[1]), len(table), pixels, shares) if for_table else None,
            None,
            torch.cat(of_shares) if for_shares else None,
            of_weight,
            gradient.sum(0) if for_bias else None,
        )


def _of_table(gradient: Tensor, rows: int, pixels: Tensor, shares: Tensor) -> Tensor:
    """The gradient of embedding_bag for its table, computed in a fraction of the time.

    A row's gradient is the sum over the samples that used it: an embedding_bag with exchanged roles.
    """
    looked_at, order = pixels.flatten().sort(stable=True)
    first = torch.searchsorted(looked_at, torch.arange(rows, device=pixels.device, dtype=torch.int32))
    return F.embedding_bag(order // 4, gradient, first, per_sample_weights=shares.flatten()[order], mode="sum")
