"""SSIM and MS-SSIM, as defined by Z. Wang's MATLAB programs (ssim_index.m, ssim.m, msssim.m).

Z. Wang, A. C. Bovik, H. R. Sheikh, E. P. Simoncelli, "Image quality assessment: from error visibility to structural
similarity", IEEE Transactions on Image Processing 13(4), 2004; Z. Wang, E. P. Simoncelli, A. C. Bovik, "Multi-scale
structural similarity for image quality assessment", Asilomar Conference on Signals, Systems and Computers, 2003.

The functions take single planes in 0..255. They run in one thread, whatever OpenCV's settings are, and release the
interpreter lock in all their work, so that pairs can be scored side by side.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from harness.errors import BadRequest
from harness.models.base import Model, check_pair
from harness.models.luma import Plane, Rows, bands, check_pair_uint8, rows_of, rows_tensor, rows_uint8, scratch

if TYPE_CHECKING:
    import torch

WINDOW = 11
SIGMA = 1.5
C1 = (0.01 * 255) ** 2
C2 = (0.03 * 255) ** 2
SCALE_WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)


class Similarity(NamedTuple):
    """Means over the map: of SSIM, and of its contrast-structure factor alone."""

    ssim: float
    contrast_structure: float


def gaussian_window() -> NDArray[np.float64]:
    """The (11,) factor of the separable 11x11 Gaussian window, sigma 1.5, summing to 1."""
    offsets = np.arange(WINDOW) - WINDOW // 2
    window = np.exp(-(offsets**2) / (2 * SIGMA**2))
    return np.asarray(window / window.sum())


def similarity(x: Rows, y: Rows) -> Similarity:
    """Mean SSIM and contrast-structure of two planes of one size over the window's valid region.

    Both sides must be at least 11. Negative contrast-structure is kept, as in MATLAB. Identical planes, constant
    ones among them, give exactly 1; two different constants give the luminance factor alone. In float32: within 1e-6 of
    exact arithmetic on pictures, within 1e-4 where half an image is black and half is white.
    """
    total = [_sums(x.take(band, "x"), y.take(band, "y")) for band in bands(x.height, x.width, overlap=WINDOW - 1)]
    count = (x.height - WINDOW + 1) * (x.width - WINDOW + 1)
    return Similarity(*(math.fsum(column) / count for column in zip(*total, strict=True)))


def _sums(x: Plane, y: Plane) -> tuple[float, float]:
    """Sums of the map of SSIM, and of its contrast-structure factor; x and y are overwritten."""
    import cv2

    window = gaussian_window()
    # Columns at the border are carried along and left out of the sums: whole rows are one run of memory.
    valid = slice(WINDOW // 2, -(WINDOW // 2))

    def smooth(plane: Plane, name: str) -> Plane:
        out = scratch(name, *plane.shape)
        cv2.sepFilter2D(plane, cv2.CV_32F, window, window, dst=out)
        return out[valid]

    # Variances are differences of two large numbers; about an image's own grey these are small, and float32 suffices.
    grey_x, grey_y = (np.float32(round(cv2.mean(plane)[0])) for plane in (x, y))
    x -= grey_x
    y -= grey_y
    mean_x, mean_y = smooth(x, "mean_x"), smooth(y, "mean_y")
    product = np.multiply(x, y, out=scratch("product", *x.shape))
    x *= x
    y *= y
    x += y
    covariance, variances = smooth(product, "covariance"), smooth(x, "variances")

    means, squares, part = product[valid], x[valid], y[valid]
    np.multiply(mean_x, mean_y, out=means)
    np.multiply(mean_x, mean_x, out=squares)
    squares += np.multiply(mean_y, mean_y, out=part)
    covariance -= means
    variances -= squares
    contrast_structure = _ratio(covariance, variances, C2)

    mean_x += grey_x
    mean_y += grey_y
    np.multiply(mean_x, mean_y, out=means)
    np.multiply(mean_x, mean_x, out=squares)
    squares += np.multiply(mean_y, mean_y, out=part)
    ssim_map = _ratio(means, squares, C1)
    ssim_map *= contrast_structure
    return cv2.sumElems(ssim_map[:, valid])[0], cv2.sumElems(contrast_structure[:, valid])[0]


def _ratio(half: Plane, whole: Plane, constant: float) -> Plane:
    """(2 half + constant) / (whole + constant), reusing both planes' memory."""
    half *= np.float32(2)
    half += np.float32(constant)
    whole += np.float32(constant)
    half /= whole
    return half


def ssim(x: Plane, y: Plane, downsample: bool = False) -> float:
    """SSIM of two planes (H, W), float32 in 0..255; in [-1, 1].

    `downsample`: first shrink both so that the smaller side comes near 256 pixels, as Wang's ssim.m does: a mean over
    f x f pixels at every f-th, f = round(smaller side / 256).
    """
    if downsample:
        factor = max(1, int(min(x.shape) / 256 + 0.5))
        x, y = shrink(x, factor), shrink(y, factor)
    return similarity(rows_of(x), rows_of(y)).ssim


def shrink(plane: Plane, factor: int) -> Plane:
    """MATLAB's `imfilter(plane, ones(f)/f^2, 'symmetric')` followed by `(1:f:end, 1:f:end)`."""
    import cv2

    if factor == 1:
        return plane
    anchor = (factor - 1) // 2
    mean = cv2.blur(plane, (factor, factor), anchor=(anchor, anchor), borderType=cv2.BORDER_REFLECT)
    return np.ascontiguousarray(mean[::factor, ::factor])


def ms_ssim(x: Plane, y: Plane, combine: Literal["sum", "product"] = "sum") -> float:
    """MS-SSIM of two planes (H, W), float32 in 0..255, over five scales with Wang's weights.

    The first four scales give their contrast-structure, the last its SSIM. `combine`: their weighted mean (msssim.m's
    `wtd_sum`, from which the published values come; in [-1, 1]) or the paper's weighted product (in [0, 1]). In the
    product a negative scale counts as 0, where msssim.m would go on with complex numbers.

    Both sides must be at least 161, so that the window still fits the fifth scale (msssim.m itself asks for 176).
    """
    means = []
    for scale in range(len(SCALE_WEIGHTS)):
        last = scale == len(SCALE_WEIGHTS) - 1
        found = similarity(rows_of(x), rows_of(y))
        means.append(found.ssim if last else found.contrast_structure)
        if not last:
            x, y = shrink(x, 2), shrink(y, 2)
    if combine == "product":
        return math.prod(math.pow(max(0.0, mean), weight) for mean, weight in zip(means, SCALE_WEIGHTS, strict=True))
    # Wang's weights add up to 1.0001.
    return sum(mean * weight for mean, weight in zip(means, SCALE_WEIGHTS, strict=True)) / sum(SCALE_WEIGHTS)


class _OverPlanes(Model):
    """A metric of planes, on luma or as the mean over R, G and B."""

    higher_is_better = True

    def __init__(self, colour: Literal["luma", "rgb"] = "luma") -> None:
        if colour not in ("luma", "rgb"):
            raise BadRequest(f"{type(self).__name__}: colour = {colour!r} is neither 'luma' nor 'rgb'")
        self.colour = colour

    def of_rows(self, x: Rows, y: Rows) -> float:
        """The score of two planes of one size."""
        raise NotImplementedError

    def score(self, reference: torch.Tensor, distorted: torch.Tensor) -> torch.Tensor:
        """Scores (N,) of two float32 batches (N, 3, H, W) in [0, 1], each pair by itself on the CPU."""
        import torch

        check_pair(reference, distorted, minimum_size=self.minimum_size)
        scores = [self._mean(partial(rows_tensor, x), partial(rows_tensor, y)) for x, y in zip(reference, distorted, strict=True)]
        return torch.tensor(scores, dtype=torch.float32, device=distorted.device)

    def score_uint8(self, reference: NDArray[np.uint8], distorted: NDArray[np.uint8]) -> float:
        """The score of two (H, W, 3) uint8 arrays: the same bits as `score` of the same pictures."""
        check_pair_uint8(reference, distorted, self.minimum_size)
        return self._mean(partial(rows_uint8, reference), partial(rows_uint8, distorted))

    def _mean(self, x: Callable[[int | None], Rows], y: Callable[[int | None], Rows]) -> float:
        colours = (None,) if self.colour == "luma" else (0, 1, 2)
        return float(np.float32(sum(self.of_rows(x(colour), y(colour)) for colour in colours) / len(colours)))


class SSIM(_OverPlanes):
    """SSIM with the 11x11 Gaussian window, sigma 1.5, valid region, K = (0.01, 0.03), range 255.

    `colour`: `luma` (the rounded grey of MATLAB's rgb2gray) or `rgb` (the mean of three). `downsample`: as `ssim`.
    Identical images give exactly 1; constant, grey and (from 11 pixels a side) tiny images are ordinary cases.
    """

    minimum_size = WINDOW

    def __init__(self, colour: Literal["luma", "rgb"] = "luma", downsample: bool = False) -> None:
        super().__init__(colour)
        self.downsample = downsample

    def of_rows(self, x: Rows, y: Rows) -> float:
        """SSIM of two planes of one size."""
        if self.downsample:
            return ssim(x.whole(), y.whole(), downsample=True)
        return similarity(x, y).ssim


class MSSSIM(_OverPlanes):
    """MS-SSIM over five scales; `colour` as for SSIM, `combine` as for `ms_ssim`.

    Identical images give exactly 1; constant and grey images are ordinary cases; at least 161 pixels a side.
    """

    minimum_size = 161

    def __init__(self, colour: Literal["luma", "rgb"] = "luma", combine: Literal["sum", "product"] = "sum") -> None:
        super().__init__(colour)
        if combine not in ("sum", "product"):
            raise BadRequest(f"MSSSIM: combine = {combine!r} is neither 'sum' nor 'product'")
        self.combine = combine

    def of_rows(self, x: Rows, y: Rows) -> float:
        """MS-SSIM of two planes of one size."""
        return ms_ssim(x.whole(), y.whole(), self.combine)
