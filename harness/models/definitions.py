"""PSNR, SSIM and MS-SSIM by their papers' formulas, in differentiable torch: as losses, and as a reference for tests.

float32 or float64, any device, differentiable. The cards score 8-bit images through `harness.models.psnr` and
`harness.models.ssim`; with `rounded=True`, which has no useful gradient in luma, these functions give the same numbers.

Z. Wang, A. C. Bovik, H. R. Sheikh, E. P. Simoncelli, "Image quality assessment: from error visibility to structural
similarity", IEEE Transactions on Image Processing 13(4), 2004; Z. Wang, E. P. Simoncelli, A. C. Bovik, "Multi-scale
structural similarity for image quality assessment", Asilomar Conference on Signals, Systems and Computers, 2003.
"""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from harness.models.kernels.ssim_map import C1, C2, WINDOW, gaussian_window
from harness.models.planes import WEIGHTS, YCBCR_OFFSET, YCBCR_SCALE, YCBCR_WEIGHTS, Colour
from harness.models.ssim import SCALE_WEIGHTS
from harness.runtime.errors import UsageError


def planes(images: Tensor, colour: Colour = "rgb", border: int = 0, rounded: bool = False) -> Tensor:
    """The compared planes, in 0..255.

    Args:
        images: RGB (N, 3, H, W) in [0, 1], float32 or float64.
        colour: `rgb`; `luma`, the grey of MATLAB's rgb2gray; `ycbcr`, the Y (16..235) of BT.601 as MATLAB's rgb2ycbcr.
        border: pixels left out at each side.
        rounded: round luma and Y to whole numbers, as MATLAB does for 8-bit images. The gradient is then 0.

    Returns:
        (N, 3, H - 2 border, W - 2 border) for `rgb`, else (N, 1, ...).

    Raises:
        UsageError: images of another shape or type, or no pixel inside the border.
    """
    if images.ndim != 4 or images.shape[1] != 3 or images.dtype not in (torch.float32, torch.float64):
        raise UsageError(f"expected float32 or float64 (N, 3, H, W), got {images.dtype} {tuple(images.shape)}")
    height, width = images.shape[-2:]
    if border < 0 or min(height, width) <= 2 * border:
        raise UsageError(f"border = {border} leaves no pixel of images of {height}x{width}")
    inside = 255 * images[..., border : height - border, border : width - border]
    if colour == "rgb":
        return inside
    if colour == "luma":
        weights = torch.tensor(WEIGHTS.tolist(), dtype=images.dtype, device=images.device).view(1, 3, 1, 1)
        grey = (inside * weights).sum(1, keepdim=True)
        return torch.round(grey) if rounded else grey
    if colour != "ycbcr":
        raise UsageError(f"colour = {colour!r} is not one of 'rgb', 'luma', 'ycbcr'")
    whole = torch.tensor(YCBCR_WEIGHTS, dtype=images.dtype, device=images.device).view(1, 3, 1, 1)
    y = YCBCR_OFFSET + (inside * whole).sum(1, keepdim=True) / YCBCR_SCALE
    return torch.floor(y + 0.5) if rounded else y


def psnr(reference: Tensor, distorted: Tensor, colour: Colour = "rgb", border: int = 0, rounded: bool = False) -> Tensor:
    """PSNR in dB, peak 255: 10 log10(255^2 / mean squared error).

    Args:
        reference: RGB (N, 3, H, W) in [0, 1]; of the type and shape of `distorted`.
        distorted: the same.
        colour: as for `planes`.
        border: as for `planes`.
        rounded: as for `planes`.

    Returns:
        (N,), higher is better; infinite for identical images.

    Raises:
        UsageError: as `planes`.
    """
    x, y = (planes(images, colour, border, rounded) for images in (reference, distorted))
    return 10 * torch.log10(255**2 / torch.square(x - y).mean((1, 2, 3)))


def ssim(
    reference: Tensor,
    distorted: Tensor,
    colour: Colour = "luma",
    border: int = 0,
    rounded: bool = False,
    downsample: bool = False,
) -> Tensor:
    """Mean SSIM over the valid region of the 11x11 Gaussian window (sigma 1.5), K = (0.01, 0.03), range 255.

    Args:
        reference: RGB (N, 3, H, W) in [0, 1]; of the type and shape of `distorted`; at least 11 pixels a side inside the border.
        distorted: the same.
        colour: as for `planes`; of `rgb`, the mean of the three.
        border: as for `planes`.
        rounded: as for `planes`.
        downsample: first a mean over f x f pixels at every f-th, f = round(smaller side / 256), as Wang's ssim.m.

    Returns:
        (N,) in [-1, 1], higher is better.

    Raises:
        UsageError: as `planes`, or images smaller than the window.
    """
    x, y = (planes(images, colour, border, rounded) for images in (reference, distorted))
    if downsample:
        factor = max(1, int(min(x.shape[-2:]) / 256 + 0.5))
        x, y = _shrunk(x, factor), _shrunk(y, factor)
    luminance, contrast = _maps(x, y)
    return (luminance * contrast).mean((1, 2, 3))


def ms_ssim(
    reference: Tensor,
    distorted: Tensor,
    colour: Colour = "luma",
    border: int = 0,
    rounded: bool = False,
    combine: Literal["sum", "product"] = "sum",
) -> Tensor:
    """MS-SSIM over five scales: contrast-structure of the first four and SSIM of the last, combined with Wang's weights.

    Args:
        reference: RGB (N, 3, H, W) in [0, 1]; of the type and shape of `distorted`; at least 161 pixels a side inside the border.
        distorted: the same.
        colour: as for `ssim`.
        border: as for `planes`.
        rounded: as for `planes`.
        combine: `sum`, the weighted mean; `product`, the paper's weighted product, in which a negative scale counts as 0.

    Returns:
        (N,), higher is better.

    Raises:
        UsageError: as `ssim`.
    """
    if combine not in ("sum", "product"):
        raise UsageError(f"combine = {combine!r} is neither 'sum' nor 'product'")
    x, y = (planes(images, colour, border, rounded) for images in (reference, distorted))
    scales = []
    for scale in range(len(SCALE_WEIGHTS)):
        luminance, contrast = _maps(x, y)
        last = scale == len(SCALE_WEIGHTS) - 1
        scales.append((luminance * contrast if last else contrast).mean((2, 3)))
        x, y = _shrunk(x, 2), _shrunk(y, 2)
    means = torch.stack(scales)
    weights = torch.tensor(SCALE_WEIGHTS, dtype=means.dtype, device=means.device).view(-1, 1, 1)
    if combine == "product":
        return means.clamp(min=0).pow(weights).prod(0).mean(1)
    return ((means * weights).sum(0) / weights.sum()).mean(1)


def _maps(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """The luminance and the contrast-structure maps of SSIM over the valid region."""
    if min(x.shape[-2:]) < WINDOW or x.shape != y.shape:
        raise UsageError(
            f"planes {tuple(x.shape)} and {tuple(y.shape)}: SSIM needs equal shapes, with at least {WINDOW} pixels a side"
        )
    window = torch.tensor(gaussian_window(), dtype=x.dtype, device=x.device)
    channels = x.shape[1]
    rows = window.view(1, 1, -1, 1).expand(channels, 1, -1, 1)
    columns = window.view(1, 1, 1, -1).expand(channels, 1, 1, -1)

    def smooth(plane: Tensor) -> Tensor:
        return F.conv2d(F.conv2d(plane, rows, groups=channels), columns, groups=channels)

    mean_x, mean_y = smooth(x), smooth(y)
    variance_x = smooth(x * x) - mean_x**2
    variance_y = smooth(y * y) - mean_y**2
    covariance = smooth(x * y) - mean_x * mean_y
    luminance = (2 * mean_x * mean_y + C1) / (mean_x**2 + mean_y**2 + C1)
    return luminance, (2 * covariance + C2) / (variance_x + variance_y + C2)


def _shrunk(planes: Tensor, factor: int) -> Tensor:
    """MATLAB's `imfilter(plane, ones(f)/f^2, 'symmetric')` followed by `(1:f:end, 1:f:end)`."""
    if factor == 1:
        return planes
    before = (factor - 1) // 2
    height, width = planes.shape[-2:]

    def reflected(size: int) -> Tensor:
        places = torch.arange(-before, size + factor - 1 - before, device=planes.device)
        places = torch.where(places < 0, -1 - places, places)
        return torch.where(places >= size, 2 * size - 1 - places, places)

    padded = planes.index_select(-2, reflected(height)).index_select(-1, reflected(width))
    return F.avg_pool2d(padded, factor, stride=factor, ceil_mode=False)[..., : -(-height // factor), : -(-width // factor)]
