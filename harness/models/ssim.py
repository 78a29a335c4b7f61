"""SSIM and MS-SSIM, as defined by Z. Wang's MATLAB programs (ssim_index.m, ssim.m, msssim.m).

Z. Wang, A. C. Bovik, H. R. Sheikh, E. P. Simoncelli, "Image quality assessment: from error visibility to structural
similarity", IEEE Transactions on Image Processing 13(4), 2004; Z. Wang, E. P. Simoncelli, A. C. Bovik, "Multi-scale
structural similarity for image quality assessment", Asilomar Conference on Signals, Systems and Computers, 2003.

The functions take single planes in 0..255. They run in one thread, whatever OpenCV's settings are, and release the
interpreter lock in all their work, so that pairs can be scored side by side.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from functools import partial
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from harness.models.base import Model, check_pair
from harness.models.planes import (
    Colour,
    Part,
    Plane,
    Rows,
    bands,
    check_colour,
    check_pair_uint8,
    rows_of,
    rows_tensor,
    rows_uint8,
    scratch,
)
from harness.runtime.errors import UsageError

if TYPE_CHECKING:
    import torch

WINDOW = 11
SIGMA = 1.5
C1 = (0.01 * 255) ** 2
C2 = (0.03 * 255) ** 2
SCALE_WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)


def gaussian_window() -> NDArray[np.float64]:
    """The (11,) factor of the separable 11x11 Gaussian window, sigma 1.5, summing to 1."""
    offsets = np.arange(WINDOW) - WINDOW // 2
    window = np.exp(-(offsets**2) / (2 * SIGMA**2))
    return np.asarray(window / window.sum())


class _Half(NamedTuple):
    """What a band of the reference adds to every comparison. Planes (H, W), the lower four of valid rows (H - 10, W)."""

    plane: Plane
    centred: Plane
    """The plane less its grey: variances are differences of two large numbers, and about the grey these are small."""
    twice_mean: Plane
    """Of `centred`, times two."""
    contrast: Plane
    """2 variance + C2."""
    twice_luminance: Plane
    """2 mean, of `plane`."""
    luminance: Plane
    """2 mean^2 + C1."""


class Reference:
    """A plane to compare others with; `keep` has its half of the arithmetic done once for all of them."""

    def __init__(self, rows: Rows, keep: bool = False) -> None:
        self.rows = rows
        self.height, self.width = rows.height, rows.width
        self._kept: list[_Half] | None = None
        if keep and rows.height * rows.width <= _KEPT_PIXELS:
            self._kept = [
                self._half(band, lambda _, height, width: np.empty((height, width), np.float32)) for band in self.bands()
            ]

    def bands(self) -> Iterator[slice]:
        """Rows that are worked on together; the window's height but one is shared with the next."""
        return bands(self.height, self.width, overlap=WINDOW - 1)

    def halves(self) -> Iterator[_Half]:
        """Each band's half, good until the next is asked for."""
        return iter(self._kept) if self._kept is not None else (self._half(band, scratch) for band in self.bands())

    def _half(self, band: slice, memory: Callable[[str, int, int], Plane]) -> _Half:
        import cv2

        shape = band.stop - band.start, self.width
        plane = memory("x", *shape)
        self.rows.fill(band, plane)
        grey = np.float32(round(cv2.mean(plane)[0]))
        centred = np.subtract(plane, grey, out=memory("centred", *shape))
        twice_mean = _smooth(centred, memory("twice_mean", *shape), twice=True)
        square = np.multiply(centred, centred, out=scratch("product", *shape))
        contrast = _smooth(square, memory("contrast", *shape), twice=True)
        twice_luminance, luminance = (memory(name, *contrast.shape) for name in ("twice_luminance", "luminance"))
        np.multiply(twice_mean, twice_mean, out=luminance)
        contrast -= np.multiply(luminance, np.float32(0.5), out=luminance)
        contrast += np.float32(C2)
        np.add(twice_mean, 2 * grey, out=twice_luminance)
        np.multiply(twice_luminance, twice_luminance, out=luminance)
        luminance *= np.float32(0.5)
        luminance += np.float32(C1)
        return _Half(plane, centred, twice_mean, contrast, twice_luminance, luminance)


_KEPT_PIXELS = 1 << 21
"""Of larger pictures the reference's half is done anew, band by band, rather than kept: six planes for each thread."""
# Columns at the border are carried along and left out of the sums: whole rows are one run of memory.
_VALID = slice(WINDOW // 2, -(WINDOW // 2))


def _smooth(plane: Plane, out: Plane, twice: bool = False) -> Plane:
    """The windowed means of `plane`, or exactly twice these, at its valid rows; a view of `out`."""
    import cv2

    window = gaussian_window()
    cv2.sepFilter2D(plane, cv2.CV_32F, 2 * window if twice else window, window, dst=out)
    return out[_VALID]


def mean_ssim(reference: Reference, y: Rows, luminance: bool = True) -> float:
    """Mean SSIM of two planes of one size over the window's valid region; without `luminance`, its contrast-structure.

    Both sides must be at least 11. Negative contrast-structure is kept, as in MATLAB. Identical planes, constant
    ones among them, give exactly 1; two different constants give the luminance factor alone. In float32: within 1e-6 of
    exact arithmetic on pictures, within 1e-4 where half an image is black and half is white.
    """
    total = [_sum(half, y, band, luminance) for half, band in zip(reference.halves(), reference.bands(), strict=True)]
    return math.fsum(total) / ((y.height - WINDOW + 1) * (y.width - WINDOW + 1))


def _sum(half: _Half, y: Rows, band: slice, luminance: bool) -> float:
    """The sum of the map over a band.

    With d = y - x, both factors are a / (a + b), where b vanishes with d: a = 2 cov(x, y) + C2 = 2 var(x) + C2 + 2 cov(x, d)
    and b = var(d); a = 2 mean(x) mean(y) + C1 = 2 mean(x)^2 + C1 + 2 mean(x) mean(d) and b = mean(d)^2.
    """
    import cv2

    difference = y.take(band, "y")
    shape = difference.shape
    difference -= half.plane
    # A variance is taken about a grey near the mean, where float32 suffices.
    grey = np.float32(round(cv2.mean(difference)[0]))
    if grey:
        difference -= grey
    product = np.multiply(half.centred, difference, out=scratch("product", *shape))
    mean = _smooth(difference, scratch("mean", *shape))
    contrast = _smooth(product, scratch("covariance", *shape), twice=True)
    difference *= difference
    whole = _smooth(difference, scratch("variance", *shape))

    part = difference[: len(mean)]
    contrast -= np.multiply(half.twice_mean, mean, out=part)
    contrast += half.contrast
    square = np.multiply(mean, mean, out=part)
    whole -= square
    whole += contrast
    if luminance:
        if grey:
            mean += grey
            np.multiply(mean, mean, out=square)
        mean *= half.twice_luminance
        mean += half.luminance
        square += mean
        contrast *= mean
        whole *= square
    contrast /= whole
    return float(cv2.sumElems(contrast[:, _VALID])[0])


def ssim(x: Plane, y: Plane, downsample: bool = False) -> float:
    """SSIM of two planes (H, W), float32 in 0..255; in [-1, 1].

    `downsample`: first shrink both so that the smaller side comes near 256 pixels, as Wang's ssim.m does: a mean over
    f x f pixels at every f-th, f = round(smaller side / 256).
    """
    if downsample:
        factor = _factor(*x.shape)
        x, y = shrink(x, factor), shrink(y, factor)
    return mean_ssim(Reference(rows_of(x)), rows_of(y))


def _factor(height: int, width: int) -> int:
    return max(1, int(min(height, width) / 256 + 0.5))


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
    return _over_scales(_scales(x), y, combine)


def _scales(plane: Plane, keep: bool = False) -> list[Reference]:
    """The five scales of a plane, each half of the one before."""
    references = []
    for _ in SCALE_WEIGHTS:
        references.append(Reference(rows_of(plane), keep))
        plane = shrink(plane, 2)
    return references


def _over_scales(references: list[Reference], y: Plane, combine: Literal["sum", "product"]) -> float:
    means = []
    for reference in references:
        means.append(mean_ssim(reference, rows_of(y), luminance=reference is references[-1]))
        y = shrink(y, 2)
    if combine == "product":
        return math.prod(math.pow(max(0.0, mean), weight) for mean, weight in zip(means, SCALE_WEIGHTS, strict=True))
    # Wang's weights add up to 1.0001.
    return sum(mean * weight for mean, weight in zip(means, SCALE_WEIGHTS, strict=True)) / sum(SCALE_WEIGHTS)


class _Kept(NamedTuple):
    """A reference's half of the work: its shape, and what each colour gave."""

    shape: tuple[int, ...]
    parts: list[Any]


class _OverPlanes(Model):
    """A metric of planes, on luma or Y, or as the mean over R, G and B, without `border` pixels at each side."""

    higher_is_better = True

    def __init__(self, colour: Colour = "luma", border: int = 0) -> None:
        check_colour(type(self).__name__, colour, border)
        self.colours: tuple[Part, ...] = (0, 1, 2) if colour == "rgb" else (colour,)
        self.inside = slice(border, -border or None)
        self.minimum_size = type(self).minimum_size + 2 * border

    def half(self, x: Rows, keep: bool) -> Any:
        """The reference's part of the work, done once where it is to be kept."""
        raise NotImplementedError

    def of_rows(self, x: Any, y: Rows) -> float:
        """The score of a plane against what `half` gave of the reference, of one size."""
        raise NotImplementedError

    def score(self, reference: torch.Tensor, distorted: torch.Tensor) -> torch.Tensor:
        """Scores (N,) of two float32 batches (N, 3, H, W) in [0, 1], each pair by itself on the CPU."""
        import torch

        check_pair(reference, distorted, minimum_size=self.minimum_size)
        scores = [
            self._mean([self.half(rows_tensor(x, colour), False) for colour in self.colours], partial(rows_tensor, y))
            for x, y in zip(self._cut(reference), self._cut(distorted), strict=True)
        ]
        return torch.tensor(scores, dtype=torch.float32, device=distorted.device)

    def score_uint8(self, reference: NDArray[np.uint8], distorted: NDArray[np.uint8]) -> float:
        """The score of two (H, W, 3) uint8 arrays: the same bits as `score` of the same pictures."""
        check_pair_uint8(reference, distorted, self.minimum_size)
        reference, distorted = reference[self.inside, self.inside], distorted[self.inside, self.inside]
        return self._mean(
            [self.half(rows_uint8(reference, colour), False) for colour in self.colours], partial(rows_uint8, distorted)
        )

    def embed_uint8(self, reference: NDArray[np.uint8]) -> _Kept:
        """What every distorted image of a reference (H, W, 3) shares, for `score_embedded_uint8`."""
        check_pair_uint8(reference, reference, self.minimum_size)
        cut = reference[self.inside, self.inside]
        return _Kept(reference.shape, [self.half(rows_uint8(cut, colour), True) for colour in self.colours])

    def score_embedded_uint8(self, embedding: _Kept, distorted: NDArray[np.uint8]) -> float:
        """The bits of `score_uint8` against the reference that was embedded."""
        if distorted.shape != embedding.shape or distorted.dtype != np.uint8:
            raise UsageError(f"distorted: expected {embedding.shape} uint8, got {distorted.shape} {distorted.dtype}")
        return self._mean(embedding.parts, partial(rows_uint8, distorted[self.inside, self.inside]))

    def _cut(self, images: torch.Tensor) -> torch.Tensor:
        return images[..., self.inside, self.inside]

    def _mean(self, halves: list[Any], y: Callable[[Part], Rows]) -> float:
        total = sum(self.of_rows(x, y(colour)) for x, colour in zip(halves, self.colours, strict=True))
        return float(np.float32(total / len(self.colours)))


class SSIM(_OverPlanes):
    """SSIM with the 11x11 Gaussian window, sigma 1.5, valid region, K = (0.01, 0.03), range 255.

    `colour`: `luma` (the rounded grey of MATLAB's rgb2gray), `ycbcr` (the rounded Y, 16..235, of its rgb2ycbcr) or `rgb` (the
    mean of three). `border`: pixels left out at each side. `downsample`: as `ssim`.
    Identical images give exactly 1; constant, grey and (from 11 pixels a side) tiny images are ordinary cases.
    """

    version = 2
    minimum_size = WINDOW

    def __init__(self, colour: Colour = "luma", downsample: bool = False, border: int = 0) -> None:
        super().__init__(colour, border)
        self.downsample = downsample

    def half(self, x: Rows, keep: bool) -> Reference:
        """The reference, downsampled where that is asked for."""
        return Reference(self._shrunk(x), keep)

    def of_rows(self, x: Reference, y: Rows) -> float:
        """SSIM of two planes of one size."""
        return mean_ssim(x, self._shrunk(y))

    def _shrunk(self, rows: Rows) -> Rows:
        factor = _factor(rows.height, rows.width) if self.downsample else 1
        return rows if factor == 1 else rows_of(shrink(rows.whole(), factor))


class MSSSIM(_OverPlanes):
    """MS-SSIM over five scales; `colour` and `border` as for SSIM, `combine` as for `ms_ssim`.

    Identical images give exactly 1; constant and grey images are ordinary cases; at least 161 pixels a side.
    """

    version = 2
    minimum_size = 161

    def __init__(self, colour: Colour = "luma", combine: Literal["sum", "product"] = "sum", border: int = 0) -> None:
        super().__init__(colour, border)
        if combine not in ("sum", "product"):
            raise UsageError(f"MSSSIM: combine = {combine!r} is neither 'sum' nor 'product'")
        self.combine = combine

    def half(self, x: Rows, keep: bool) -> list[Reference]:
        """The reference at five scales."""
        return _scales(x.whole(), keep)

    def of_rows(self, x: list[Reference], y: Rows) -> float:
        """MS-SSIM of two planes of one size."""
        return _over_scales(x, y.whole(), self.combine)
