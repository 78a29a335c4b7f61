"""The backbones of AHIQ: the first blocks of a vision transformer, and a ResNet's stem and first stage, or Inception.

Parameter names are timm's, so that the used part is filled from a state dict of the complete backbone. Maps are
(N, C, H, W) in channels-last memory, tokens (N, L, C).
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from harness.models.kernels.linear import Linear


class ViT(nn.Module):
    """The first `depth` blocks of a ViT (A. Dosovitskiy et al., ICLR 2021), class token included, no final norm."""

    def __init__(self, crop_size: int, patch_size: int, width: int, depth: int, heads: int) -> None:
        super().__init__()
        self.cls_token = nn.Parameter(torch.empty(1, 1, width))
        self.pos_embed = nn.Parameter(torch.empty(1, (crop_size // patch_size) ** 2 + 1, width))
        self.patch_embed = nn.ModuleDict({"proj": nn.Conv2d(3, width, patch_size, patch_size)})
        self.blocks = nn.ModuleList(_Block(width, heads) for _ in range(depth))
        nn.init.normal_(self.cls_token, std=1e-6)
        nn.init.normal_(self.pos_embed, std=0.02)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.normal_(module.weight, std=0.02)
                nn.init.zeros_(module.bias)

    def forward(self, x: Tensor) -> Tensor:
        """(N, 3, S, S) normalised to [-1, 1] -> the patch tokens of all blocks, concatenated: (N, L, depth * width)."""
        proj = self.patch_embed["proj"]
        assert isinstance(proj, nn.Conv2d)
        # Patches do not overlap, so a reshape and one matrix product equal the convolution.
        size = proj.kernel_size[0]
        n, c, h, w = x.shape
        patches = x.reshape(n, c, h // size, size, w // size, size).permute(0, 2, 4, 1, 3, 5)
        embedded = F.linear(patches.reshape(n, -1, c * size * size), proj.weight.flatten(1), proj.bias)
        tokens = torch.cat([self.cls_token.expand(n, -1, -1), embedded], 1) + self.pos_embed
        outputs = []
        for block in self.blocks:
            tokens = block(tokens)
            outputs.append(tokens[:, 1:])
        return torch.cat(outputs, 2)


class _Block(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width, eps=1e-6)
        self.attn = _Attention(width, heads)
        self.norm2 = nn.LayerNorm(width, eps=1e-6)
        layers = {"fc1": Linear(width, 4 * width, gelu=True), "fc2": Linear(4 * width, width)}
        self.mlp = nn.Sequential(OrderedDict(layers))

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attn(self.norm1(x))
        out: Tensor = x + self.mlp(self.norm2(x))
        return out


class _Attention(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = Linear(width, 3 * width)
        self.proj = Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        n, length, width = x.shape
        q, k, v = self.qkv(x).reshape(n, length, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        x = F.scaled_dot_product_attention(q, k, v)
        out: Tensor = self.proj(x.transpose(1, 2).reshape(n, length, width))
        return out


class ResNet(nn.Module):
    """A ResNet's stem and `layer1` (K. He et al., CVPR 2016): the outputs of its blocks, at a quarter of the resolution."""

    def __init__(self, block: str, planes: int, depth: int, norm: str) -> None:
        super().__init__()
        # Kernel sizes of a block's convolutions, and their output widths in units of `planes`.
        layers = ((1, 1), (3, 1), (1, 4)) if block == "bottleneck" else ((3, 1), (3, 1))
        self.conv1 = nn.Conv2d(3, planes, 7, 2, 3, bias=False)
        self.bn1 = _norm(norm, planes)
        self.channels = planes * layers[-1][1]
        widths = [planes, *[self.channels] * depth]
        self.layer1 = nn.ModuleList(_Residual(width, planes, layers, norm) for width in widths[:depth])
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, x: Tensor) -> Tensor:
        """(N, 3, S, S) normalised to [-1, 1] -> (N, depth * channels, S/4, S/4)."""
        # oneDNN's convolutions are faster with channels last, torch's GroupNorm is slower.
        layout = torch.channels_last if isinstance(self.bn1, BatchNorm) else torch.contiguous_format
        x = _conv_norm(self.conv1, self.bn1, x.contiguous(memory_format=layout)).relu_()
        # Contiguous channels make torch's pooling ten times slower; the maximum is the same in any layout.
        x = F.max_pool2d(x.contiguous(memory_format=torch.channels_last), 3, 2, 1).contiguous(memory_format=layout)
        outputs = []
        for block in self.layer1:
            x = block(x)
            outputs.append(x)
        return torch.cat(outputs, 1)


INCEPTION_DEPTH = 11
"""mixed_5b and ten block35."""


class Inception(nn.Module):
    """Inception-ResNet-v2 (C. Szegedy et al., AAAI 2017) up to its block35s, by timm's own parts.

    `depth` outputs of 320 channels each (mixed_5b, then block35 by block35), resized bilinearly to `side` pixels, because the
    stem's unpadded convolutions leave 25x25 of 224x224. Parameter names are timm's.
    """

    channels = 320

    def __init__(self, depth: int, side: int) -> None:
        super().__init__()
        from timm.models.inception_resnet_v2 import InceptionResnetV2

        whole, self.side = InceptionResnetV2(num_classes=0), side
        self.stem = ("conv2d_1a", "conv2d_2a", "conv2d_2b", "maxpool_3a", "conv2d_3b", "conv2d_4a", "maxpool_5a", "mixed_5b")
        for name in self.stem:
            setattr(self, name, getattr(whole, name))
        self.repeat = whole.repeat[: depth - 1]

    def train(self, mode: bool = True) -> Inception:
        """Always in evaluation mode: batch normalisation keeps its running statistics, as in the other trunks."""
        return super().train(False)

    def forward(self, x: Tensor) -> Tensor:
        """(N, 3, S, S) normalised to [-1, 1] -> (N, depth * 320, side, side)."""
        for name in self.stem:
            x = getattr(self, name)(x)
        outputs = [x]
        for block in self.repeat:
            outputs.append(block(outputs[-1]))
        return F.interpolate(torch.cat(outputs, 1), (self.side, self.side), mode="bilinear", align_corners=False)


class _Residual(nn.Module):
    def __init__(self, width: int, planes: int, layers: Sequence[tuple[int, int]], norm: str) -> None:
        super().__init__()
        self.names = [(f"conv{i}", f"bn{i}") for i in range(1, len(layers) + 1)]
        inputs = width
        for (conv, bn), (size, times) in zip(self.names, layers, strict=True):
            setattr(self, conv, nn.Conv2d(inputs, times * planes, size, padding=size // 2, bias=False))
            inputs = times * planes
            setattr(self, bn, _norm(norm, inputs))
        # The shortcut is projected where the block changes the width.
        self.downsample: nn.ModuleList | None = None
        if width != inputs:
            self.downsample = nn.ModuleList([nn.Conv2d(width, inputs, 1, bias=False), _norm(norm, inputs)])

    def forward(self, x: Tensor) -> Tensor:
        y = x
        for conv, bn in self.names:
            y = _conv_norm(getattr(self, conv), getattr(self, bn), y)
            y = y if (conv, bn) == self.names[-1] else y.relu_()
        shortcut = x if self.downsample is None else _conv_norm(self.downsample[0], self.downsample[1], x)
        return (y + shortcut).relu_()


class BatchNorm(nn.Module):
    """Batch normalisation by its running statistics, also in training, as when the released heads were trained."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))
        self.register_buffer("running_mean", torch.zeros(channels))
        self.register_buffer("running_var", torch.ones(channels))
        self.running_mean: Tensor
        self.running_var: Tensor

    def folded(self, weight: Tensor) -> tuple[Tensor, Tensor]:
        """The weight and bias of one convolution that equals `weight` followed by this norm."""
        scale = self.weight * (self.running_var + 1e-5).rsqrt()
        return weight * scale[:, None, None, None], self.bias - self.running_mean * scale


def _norm(kind: str, channels: int) -> nn.Module:
    return BatchNorm(channels) if kind == "batch" else nn.GroupNorm(min(8, channels), channels)


def _conv_norm(conv: nn.Module, norm: nn.Module, x: Tensor) -> Tensor:
    assert isinstance(conv, nn.Conv2d)
    if isinstance(norm, BatchNorm):
        weight, bias = norm.folded(conv.weight)
        return F.conv2d(x, weight, bias, conv.stride, conv.padding)
    normed: Tensor = norm(conv(x))
    return normed
