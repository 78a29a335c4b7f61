"""SSIM and MS-SSIM, as defined by Z. Wang's MATLAB programs (ssim_index.m, ssim.m, msssim.m).

Z. Wang, A. C. Bovik, H. R. Sheikh, E. P. Simoncelli, "Image quality assessment: from error visibility to structural
similarity", IEEE Transactions on Image Processing 13(4), 2004; Z. Wang, E. P. Simoncelli, A. C. Bovik, "Multi-scale
structural similarity for image quality assessment", Asilomar Conference on Signals, Systems and Computers, 2003.

Planes are float32 in 0..255; the arithmetic is in `kernels.ssim_map`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from harness.models.base import Model, check_pair
from harness.models.kernels.ssim_map import WINDOW, Reference, mean_ssims
from harness.models.planes import Colour, Part, Plane, Rows, check_colour, check_pair_uint8, rows_of, rows_tensor, rows_uint8
from harness.runtime.errors import UsageError

if TYPE_CHECKING:
    import torch

SCALE_WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)


def shrink(plane: Plane, factor: int, exact: bool = False) -> Plane:
    """MATLAB's `imfilter(plane, ones(f)/f^2, 'symmetric')` followed by `(1:f:end, 1:f:end)`.

    `exact`: sums of f x f of its values have no rounding, so the order of summation does not matter.
    """
    import cv2

    if factor == 1:
        return plane
    if exact and factor == 2 and not any(side % 2 for side in plane.shape):
        return np.asarray(cv2.resize(plane, (plane.shape[1] // 2, plane.shape[0] // 2), interpolation=cv2.INTER_AREA), np.float32)
    anchor = (factor - 1) // 2
    mean = cv2.blur(plane, (factor, factor), anchor=(anchor, anchor), borderType=cv2.BORDER_REFLECT)
    return np.ascontiguousarray(mean[::factor, ::factor])


def _halved(rows: Rows) -> Rows:
    # After four scales, means of 8-bit values have 16 bits, so sums in float32 are exact.
    return rows_of(shrink(rows.whole(), 2, exact=rows.eight_bit), eight_bit=rows.eight_bit)


class _Kept(NamedTuple):
    """A reference's part of the work: its shape, and the result for each colour."""

    shape: tuple[int, ...]
    parts: list[Any]


class _OverPlanes(Model):
    """Base of metrics on planes: on luma or Y, or as the mean over R, G and B, without `border` pixels at each side."""

    higher_is_better = True

    def __init__(self, colour: Colour = "luma", border: int = 0) -> None:
        check_colour(type(self).__name__, colour, border)
        self.colours: tuple[Part, ...] = (0, 1, 2) if colour == "rgb" else (colour,)
        self.inside = slice(border, -border or None)
        self.minimum_size = type(self).minimum_size + 2 * border

    def half(self, x: Rows, keep: bool) -> Any:
        """The reference's part of the work; `keep`: for several comparisons."""
        raise NotImplementedError

    def of_rows(self, x: Any, ys: Sequence[Rows]) -> list[float]:
        """The scores of planes against the reference's `half`, all of one size."""
        raise NotImplementedError

    def score(self, reference: torch.Tensor, distorted: torch.Tensor) -> torch.Tensor:
        """Scores (N,) of two float32 batches (N, 3, H, W) in [0, 1], each pair by itself on the CPU."""
        import torch

        check_pair(reference, distorted, minimum_size=self.minimum_size)
        scores = [
            self._means([self.half(rows_tensor(x, colour), False) for colour in self.colours], rows_tensor, [y])[0]
            for x, y in zip(*(images[..., self.inside, self.inside] for images in (reference, distorted)), strict=True)
        ]
        return torch.tensor(scores, dtype=torch.float32, device=distorted.device)

    def score_uint8(self, reference: NDArray[np.uint8], distorted: NDArray[np.uint8]) -> float:
        """The score of two (H, W, 3) uint8 arrays: the same bits as `score` of the same images."""
        check_pair_uint8(reference, distorted, self.minimum_size)
        halves = [self.half(rows_uint8(self._inside(reference), colour), False) for colour in self.colours]
        return self._means(halves, rows_uint8, [self._inside(distorted)])[0]

    def embed_uint8(self, reference: NDArray[np.uint8]) -> _Kept:
        """The reference's part of the work for all its distorted images, for `score_embedded_uint8`."""
        check_pair_uint8(reference, reference, self.minimum_size)
        cut = self._inside(reference)
        return _Kept(reference.shape, [self.half(rows_uint8(cut, colour), True) for colour in self.colours])

    def score_embedded_uint8(self, embedding: _Kept, distorted: NDArray[np.uint8]) -> float:
        """The bits of `score_uint8` against the embedded reference."""
        return self.score_several_uint8(embedding, [distorted])[0]

    def score_several_uint8(self, embedding: _Kept, distorted: Sequence[NDArray[np.uint8]]) -> list[float]:
        """The bits of `score_uint8` for each of several images against the embedded reference."""
        for image in distorted:
            if image.shape != embedding.shape or image.dtype != np.uint8:
                raise UsageError(f"distorted: expected {embedding.shape} uint8, got {image.shape} {image.dtype}")
        return self._means(embedding.parts, rows_uint8, [self._inside(image) for image in distorted])

    def _inside(self, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        return image[self.inside, self.inside]

    def _means(self, halves: list[Any], rows: Callable[[Any, Part], Rows], images: Sequence[Any]) -> list[float]:
        parts = zip(halves, self.colours, strict=True)
        each = [self.of_rows(x, [rows(image, colour) for image in images]) for x, colour in parts]
        return [float(np.float32(sum(scores) / len(self.colours))) for scores in zip(*each, strict=True)]


class SSIM(_OverPlanes):
    """SSIM with the 11x11 Gaussian window, sigma 1.5, valid region, K = (0.01, 0.03), range 255; in [-1, 1].

    `colour`: `luma` (the rounded grey of MATLAB's rgb2gray), `ycbcr` (the rounded Y, 16..235, of its rgb2ycbcr) or `rgb` (the
    mean of three). `border`: pixels left out at each side. `downsample`: first shrink both images so that the smaller side comes
    near 256 pixels, as Wang's ssim.m does: a mean over f x f pixels at every f-th, f = round(smaller side / 256).
    Identical images give exactly 1; constant, grey and (from 11 pixels a side) tiny images are supported.
    """

    version = 2
    minimum_size = WINDOW

    def __init__(self, colour: Colour = "luma", downsample: bool = False, border: int = 0) -> None:
        super().__init__(colour, border)
        self.downsample = downsample

    def half(self, x: Rows, keep: bool) -> Reference:
        """The reference, downsampled if `downsample` is set."""
        return Reference(self._shrunk(x), keep)

    def of_rows(self, x: Reference, ys: Sequence[Rows]) -> list[float]:
        """SSIM of planes of one size."""
        return mean_ssims(x, [self._shrunk(y) for y in ys])

    def _shrunk(self, rows: Rows) -> Rows:
        factor = max(1, int(min(rows.height, rows.width) / 256 + 0.5)) if self.downsample else 1
        return rows if factor == 1 else rows_of(shrink(rows.whole(), factor, exact=rows.eight_bit))


class MSSSIM(_OverPlanes):
    """MS-SSIM over five scales with Wang's weights; `colour` and `border` as for SSIM.

    The first four scales give their contrast-structure, the last its SSIM. `combine`: their weighted mean (`sum`, msssim.m's
    `wtd_sum`, from which the published values come; in [-1, 1]) or the paper's weighted product (`product`, in [0, 1]). In the
    product a negative scale counts as 0, where msssim.m would continue with complex numbers.

    Identical images give exactly 1; constant and grey images are supported; at least 161 pixels a side, so that the window
    still fits the fifth scale (msssim.m itself asks for 176).
    """

    version = 2
    minimum_size = 161

    def __init__(self, colour: Colour = "luma", combine: Literal["sum", "product"] = "sum", border: int = 0) -> None:
        super().__init__(colour, border)
        if combine not in ("sum", "product"):
            raise UsageError(f"MSSSIM: combine = {combine!r} is neither 'sum' nor 'product'")
        self.combine = combine

    def half(self, x: Rows, keep: bool) -> list[Reference]:
        """The reference at five scales, each half of the one before; all but the last are compared without luminance."""
        planes = [rows_of(x.whole(), eight_bit=x.eight_bit)]
        while len(planes) < len(SCALE_WEIGHTS):
            planes.append(_halved(planes[-1]))
        return [Reference(one, keep, luminance=one is planes[-1]) for one in planes]

    def of_rows(self, x: list[Reference], ys: Sequence[Rows]) -> list[float]:
        """MS-SSIM of planes of one size."""
        ys = [rows_of(y.whole(), eight_bit=y.eight_bit) for y in ys]
        scales = []
        for reference in x:
            scales.append(mean_ssims(reference, ys))
            ys = [_halved(y) for y in ys] if reference is not x[-1] else ys
        weighted = [list(zip(means, SCALE_WEIGHTS, strict=True)) for means in zip(*scales, strict=True)]
        if self.combine == "product":
            return [math.prod(math.pow(max(0.0, mean), weight) for mean, weight in pairs) for pairs in weighted]
        # Wang's weights add up to 1.0001.
        return [sum(mean * weight for mean, weight in pairs) / sum(SCALE_WEIGHTS) for pairs in weighted]
