"""The SSIM map of planes, fast on a CPU: the reference's part is computed once, in strips that fit the caches.

Planes are float32 in 0..255. Everything runs in one thread, independent of OpenCV's settings, and releases the GIL, so that
pairs can be scored in parallel.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from harness.models.planes import Plane, Rows, bands, scratch

WINDOW = 11
SIGMA = 1.5
C1 = (0.01 * 255) ** 2
C2 = (0.03 * 255) ** 2


def gaussian_window() -> NDArray[np.float64]:
    """The (11,) factor of the separable 11x11 Gaussian window, sigma 1.5, summing to 1."""
    offsets = np.arange(WINDOW) - WINDOW // 2
    window = np.exp(-(offsets**2) / (2 * SIGMA**2))
    return np.asarray(window / window.sum())


class _Half(NamedTuple):
    """The reference's part of a strip, for all comparisons. Planes of its valid rows (H - 10, W), `centred` of all (H, W)."""

    strip: slice
    """Its rows, counted from the top of its band."""
    centred: Plane
    """The plane minus its band's mean grey: variances are differences of large numbers, and about the mean these are small."""
    twice_mean: Plane
    """Of `centred`, times two."""
    contrast: Plane
    """2 variance + C2."""
    twice_luminance: Plane | None
    """2 mean, of the plane itself; None where luminance is left out."""
    luminance: Plane | None
    """2 mean^2 + C1."""


class _Band(NamedTuple):
    """Rows of the reference with a common mean grey."""

    rows: slice
    plane: Plane
    halves: Iterable[_Half]
    """Each is valid until the next one is computed, unless the band is kept."""


class Reference:
    """A plane to compare others with; with `keep` its part of the arithmetic is computed once for all of them.

    Without `luminance` only contrast and structure are compared.
    """

    def __init__(self, rows: Rows, keep: bool = False, luminance: bool = True) -> None:
        self.rows, self.luminance = rows, luminance
        self.height, self.width = rows.height, rows.width
        self._kept: list[_Band] | None = None
        if keep and rows.height * rows.width <= _KEPT_PIXELS:
            made = self._bands(lambda _, *shape: np.empty(shape, np.float32))
            self._kept = [band._replace(halves=list(band.halves)) for band in made]

    def bands(self) -> Iterable[_Band]:
        """Bands of rows that are processed together; neighbours share the window's height less one."""
        return self._kept if self._kept is not None else self._bands(scratch)

    def _bands(self, memory: Callable[[str, int, int], Plane]) -> Iterator[_Band]:
        import cv2

        for rows in bands(self.height, self.width, overlap=WINDOW - 1):
            if self.rows.plane is not None:
                plane = self.rows.plane[rows]
            else:
                plane = memory("x", rows.stop - rows.start, self.width)
                self.rows.fill(rows, plane)
            grey = np.float32(round(cv2.mean(plane)[0]))
            strips = bands(len(plane), self.width, WINDOW - 1, _STRIP_PIXELS)
            yield _Band(rows, plane, (self._half(plane, grey, strip, memory) for strip in strips))

    def _half(self, plane: Plane, grey: np.float32, strip: slice, memory: Callable[[str, int, int], Plane]) -> _Half:
        shape = strip.stop - strip.start, self.width
        centred = np.subtract(plane[strip], grey, out=memory("centred", *shape))
        twice_mean = _smooth(centred, memory("twice_mean", *shape), twice=True)
        square = np.multiply(centred, centred, out=scratch("product", *shape))
        contrast = _smooth(square, memory("contrast", *shape), twice=True)
        part = square[: len(contrast)]
        half_square = memory("luminance", *contrast.shape) if self.luminance else part
        np.multiply(twice_mean, twice_mean, out=half_square)
        contrast -= np.multiply(half_square, np.float32(0.5), out=part)
        contrast += np.float32(C2)
        if not self.luminance:
            return _Half(strip, centred, twice_mean, contrast, None, None)
        luminance = half_square
        if grey:
            twice_luminance = np.add(twice_mean, 2 * grey, out=memory("twice_luminance", *contrast.shape))
            np.multiply(twice_luminance, twice_luminance, out=luminance)
        else:
            twice_luminance = twice_mean
        luminance *= np.float32(0.5)
        luminance += np.float32(C1)
        return _Half(strip, centred, twice_mean, contrast, twice_luminance, luminance)


_KEPT_PIXELS = 1 << 21
"""For larger images the reference's part is computed again, band by band, and not kept: six planes for each thread."""
_STRIP_PIXELS = 1 << 17
"""Pixels processed at once: strips of a large plane stay in a core's cache; small planes of one size are stacked, to share
the cost of calls, in which threads wait for each other."""
# Columns at the border are computed too and left out of the sums, because complete rows are contiguous in memory.
_VALID = slice(WINDOW // 2, -(WINDOW // 2))


_WINDOW = gaussian_window().astype(np.float32)


def _smooth(plane: Plane, out: Plane, twice: bool = False) -> Plane:
    """The windowed means of `plane`, or exactly twice these, at its valid rows; a view of `out`.

    Both (H, W), or (N, H, W) for N planes.
    """
    import cv2

    window = 2 * _WINDOW if twice else _WINDOW
    # In a stack the filter also runs over the borders between images: those rows are not among the valid ones.
    flat = (plane, out) if plane.ndim == 2 else (plane.reshape(-1, plane.shape[-1]), out.reshape(-1, out.shape[-1]))
    cv2.sepFilter2D(flat[0], cv2.CV_32F, window, _WINDOW, dst=flat[1])
    return out[..., _VALID, :]


def mean_ssims(reference: Reference, ys: Sequence[Rows]) -> list[float]:
    """Mean SSIM, over the window's valid region, of each of several planes with the reference, all of one size, at least 11
    pixels a side; for a reference without `luminance`, the contrast-structure.

    Negative contrast-structure is kept, as in MATLAB. Identical planes, constant ones among them, give exactly 1; two different
    constants give the luminance factor. In float32: within 1e-6 of exact arithmetic on images, within 1e-4 where half an image
    is black and half is white. Small planes are processed together, with the same bits as each by itself.
    """
    together = max(1, _STRIP_PIXELS // (reference.height * reference.width))
    if len(ys) > together:
        return [mean for i in range(0, len(ys), together) for mean in mean_ssims(reference, ys[i : i + together])]
    sums = zip(*(_sums(band, ys) for band in reference.bands()), strict=True)
    count = (reference.height - WINDOW + 1) * (reference.width - WINDOW + 1)
    return [math.fsum(of_bands) / count for of_bands in sums]


def _sums(band: _Band, ys: Sequence[Rows]) -> list[float]:
    """Each plane's sum of the map over a band.

    With d = y - x, both factors are a / (a + b), where b vanishes with d: a = 2 cov(x, y) + C2 = 2 var(x) + C2 + 2 cov(x, d)
    and b = var(d); a = 2 mean(x) mean(y) + C1 = 2 mean(x)^2 + C1 + 2 mean(x) mean(d) and b = mean(d)^2.
    """
    import cv2

    height, width = band.plane.shape
    difference = scratch("y", len(ys), height, width)
    for y, out in zip(ys, difference, strict=True):
        if y.plane is not None:
            np.subtract(y.plane[band.rows], band.plane, out=out)
        else:
            y.fill(band.rows, out)
            out -= band.plane
    # The variance about a grey near the mean, for which float32 is enough.
    greys = np.array([round(cv2.mean(d)[0]) for d in difference], np.float32)[:, None, None]
    moved = greys.any()
    if moved:
        difference -= greys
    ratios = scratch("ratios", len(ys), height - WINDOW + 1, width)
    for half in band.halves:
        # A band of several images is one strip.
        part = difference[:, half.strip]
        shape = part.shape
        product = np.multiply(half.centred, part, out=scratch("product", *shape))
        mean = _smooth(part, scratch("mean", *shape))
        contrast = _smooth(product, scratch("covariance", *shape), twice=True)
        np.multiply(part, part, out=product)
        whole = _smooth(product, scratch("variance", *shape))

        square = product[:, : shape[1] - WINDOW + 1]
        contrast -= np.multiply(half.twice_mean, mean, out=square)
        contrast += half.contrast
        np.multiply(mean, mean, out=square)
        whole -= square
        whole += contrast
        if half.twice_luminance is not None and half.luminance is not None:
            if moved:
                mean += greys
                np.multiply(mean, mean, out=square)
            mean *= half.twice_luminance
            mean += half.luminance
            square += mean
            contrast *= mean
            whole *= square
        np.divide(contrast, whole, out=ratios[:, half.strip.start : half.strip.stop - WINDOW + 1])
    return [float(cv2.sumElems(ratio[:, _VALID])[0]) for ratio in ratios]
