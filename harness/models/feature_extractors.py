"""The feature extractors of LPIPS, ST-LPIPS and DISTS: AlexNet and VGG16 up to their last used ReLU.

Layers have torchvision's names (`features.0.weight`, ...), so that its state dicts can be loaded; the classifiers, which
no metric uses, are left out. Shift-tolerant trunks have the same convolutions with other strides and blurs between.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Trunk(nn.Module):
    """A chain of layers, some of whose outputs are kept."""

    def __init__(self, layers: Sequence[nn.Module], taps: Sequence[int], channels: Sequence[int], minimum_size: int) -> None:
        super().__init__()
        self.features = nn.Sequential(*layers)
        self.taps = tuple(taps)
        """Which layers' outputs are kept: the last ReLU of every stage."""
        self.channels = tuple(channels)
        self.minimum_size = minimum_size
        """The smallest height and width that reach the last layer."""
        # Convolutions, pools and blurs are all faster on the CPU with channels last: 1.3 times in total.
        self.to(memory_format=torch.channels_last)

    def forward(self, x: Tensor) -> list[Tensor]:
        """The kept maps (N, C, H', W') of images (N, 3, H, W), from fine to coarse."""
        x = x.contiguous(memory_format=torch.channels_last)
        maps = []
        for number, layer in enumerate(self.features):
            x = layer(x)
            if number in self.taps:
                maps.append(x)
        return maps


def alexnet(shift_tolerant: bool = False) -> Trunk:
    """torchvision's AlexNet (A. Krizhevsky, "One weird trick for parallelizing convolutional neural networks", 2014).

    Of ST-LPIPS, `shift_tolerant`: first convolution at stride 1 and blurred before its ReLU, max-pools at stride 1 and blurred.
    """

    def pooled() -> list[nn.Module]:
        return [nn.MaxPool2d(3, 1), Blur()] if shift_tolerant else [nn.MaxPool2d(3, 2)]

    first = [nn.Conv2d(3, 64, 11, 1, 2), Blur()] if shift_tolerant else [nn.Conv2d(3, 64, 11, 4, 2)]
    layers: list[nn.Module] = [*first, nn.ReLU(inplace=True), *pooled()]
    layers += [nn.Conv2d(64, 192, 5, padding=2), nn.ReLU(inplace=True), *pooled()]
    for inputs, outputs in ((192, 384), (384, 256), (256, 256)):
        layers += [nn.Conv2d(inputs, outputs, 3, padding=1), nn.ReLU(inplace=True)]
    taps = [number for number, layer in enumerate(layers) if isinstance(layer, nn.ReLU)]
    return Trunk(layers, taps, (64, 192, 384, 256, 256), minimum_size=21 if shift_tolerant else 31)


def vgg16(pool: Callable[[], nn.Module] | None = None) -> Trunk:
    """torchvision's VGG16 (K. Simonyan, A. Zisserman, ICLR 2015), its 2x2 max-pools replaced by `pool()` where given."""
    layers: list[nn.Module] = []
    taps = []
    channels, inputs = (64, 128, 256, 512, 512), 3
    for outputs, count in zip(channels, (2, 2, 3, 3, 3), strict=True):
        if layers:
            layers.append(nn.MaxPool2d(2) if pool is None else pool())
        for _ in range(count):
            layers += [nn.Conv2d(inputs, outputs, 3, padding=1), nn.ReLU(inplace=True)]
            inputs = outputs
        taps.append(len(layers) - 1)
    return Trunk(layers, taps, channels, minimum_size=16 if pool is None else 1)


def shift_tolerant_vgg16() -> Trunk:
    """VGG16 of ST-LPIPS: max-pools at stride 1, each followed by a blur of stride 2."""
    trunk = vgg16(lambda: nn.Sequential(nn.MaxPool2d(2, 1), Blur()))
    trunk.minimum_size = 18
    return trunk


def blurred(x: Tensor, padding: int) -> Tensor:
    """Every channel of x (N, C, H, W) convolved with [1 2 1] x [1 2 1] / 16, stride 2, zero padding."""
    row = torch.tensor([0.25, 0.5, 0.25], dtype=x.dtype, device=x.device)
    channels = x.shape[1]
    kernel = torch.outer(row, row).expand(channels, 1, 3, 3)
    return F.conv2d(x, kernel, stride=2, padding=padding, groups=channels)


class Blur(nn.Module):
    """`blurred` after two pixels of reflection on every side (R. Zhang, ICML 2019, with ST-LPIPS's wider padding)."""

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, C, (H + 1) // 2 + 1, (W + 1) // 2 + 1); H and W at least 3."""
        return blurred(F.pad(x, (2, 2, 2, 2), mode="reflect"), padding=0)


class L2Pool(nn.Module):
    """The root of the blurred square: DISTS's pooling (O. Henaff, E. Simoncelli, ICLR 2016)."""

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, C, (H + 1) // 2, (W + 1) // 2)."""
        # The small constant keeps the root's gradient finite at zero.
        return torch.sqrt(blurred(x * x, padding=1) + 1e-12)
