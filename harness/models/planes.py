"""Colour, luma and Y planes of images, computed in bands of rows; grey as in MATLAB's `rgb2gray`.

`rgb2gray` weighs R, G and B by the first row of the inverse of the NTSC RGB-to-YIQ matrix and, for 8-bit images,
returns 8-bit grey. The published SSIM and MS-SSIM values come from that rounded grey; so do ours.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import torch

Plane = NDArray[np.float32]
"""One colour or grey, (H, W), in 0..255."""

Colour = Literal["rgb", "luma", "ycbcr"]
"""The planes that a metric compares: R, G and B; the grey of MATLAB's rgb2gray; the Y (16..235) of its rgb2ycbcr (BT.601)."""
COLOURS = ("rgb", "luma", "ycbcr")
Part = int | Literal["luma", "ycbcr"]
"""One plane of an image: red, green, blue (0, 1, 2), or one made of the three."""
YCBCR_OFFSET = 16
YCBCR_WEIGHTS = (65481, 128553, 24966)
YCBCR_SCALE = 255_000
"""Y = 16 + (65481 R + 128553 G + 24966 B) / 255000 of R, G, B in 0..255."""

WEIGHTS = np.array([0.298936021293775, 0.587043074451121, 0.114020904255103], np.float32)


class Rows(NamedTuple):
    """A plane that is computed some rows at a time, so that large images need little memory."""

    height: int
    width: int
    fill: Callable[[slice, Plane], None]
    """Writes the rows of the slice into the plane given."""
    plane: Plane | None = None
    """The plane, where it exists already."""
    eight_bit: bool = False
    """Whether its values are always whole numbers in 0..255."""

    def take(self, rows: slice, name: str) -> Plane:
        """The rows in this thread's scratch memory of that name."""
        plane = scratch(name, rows.stop - rows.start, self.width)
        self.fill(rows, plane)
        return plane

    def whole(self) -> Plane:
        """The plane, not to be written to."""
        if self.plane is not None:
            return self.plane
        plane = np.empty((self.height, self.width), np.float32)
        for band in bands(self.height, self.width):
            self.fill(band, plane[band])
        return plane


_BAND_PIXELS = 1 << 18
"""Pixels of a band. A filter computes the overlap of bands twice, so images of usual size are one band."""
_BAND_ROWS = 32
_LUMA_PIXELS = 1 << 15
_kept = threading.local()


def bands(height: int, width: int, overlap: int = 0, pixels: int | None = None) -> Iterator[slice]:
    """Divides rows into bands of about `pixels` pixels; each shares its last `overlap` rows with the next."""
    step = max(_BAND_ROWS, (pixels or _BAND_PIXELS) // width)
    for top in range(0, height - overlap, step):
        yield slice(top, min(top + step + overlap, height))


def scratch(name: str, *shape: int) -> Plane:
    """Scratch memory of this thread for a band, kept between calls under a name and not initialised.

    Memory of this size, when freed, is returned to the system, and allocating it again costs more than the arithmetic in it.
    """
    memory: dict[str, Plane] = _kept.__dict__
    size = math.prod(shape)
    if name not in memory or memory[name].size < size:
        memory[name] = np.empty(size, np.float32)
    return memory[name][:size].reshape(shape)


def rows_of(plane: Plane, *, eight_bit: bool = False) -> Rows:
    """The rows of a plane that exists already."""
    return Rows(plane.shape[0], plane.shape[1], lambda rows, out: np.copyto(out, plane[rows]), plane, eight_bit)


def rows_uint8(image: NDArray[np.uint8], colour: Part) -> Rows:
    """One colour (0, 1, 2), the luma or the Y, of an (H, W, 3) uint8 image."""

    def fill(rows: slice, out: Plane) -> None:
        import cv2

        part = image[rows]
        # Three planes of bytes fit into three quarters of the scratch memory for floats.
        planes = scratch("channels", *part.shape[:2]).reshape(-1).view(np.uint8)[: part.size].reshape(3, *part.shape[:2])
        if isinstance(colour, int):
            np.copyto(out, cv2.extractChannel(part, colour, dst=planes[0]))
            return
        # A strip of all three planes stays in the processor's L1 and L2 caches.
        step = max(1, _LUMA_PIXELS // part.shape[1])
        for top in range(0, len(part), step):
            strip = slice(top, top + step)
            cv2.split(part[strip], [plane[strip] for plane in planes])
            (ycbcr if colour == "ycbcr" else luma)(planes[:, strip], out[strip])

    return Rows(image.shape[0], image.shape[1], fill, eight_bit=True)


def rows_tensor(image: torch.Tensor, colour: Part) -> Rows:
    """One colour (0, 1, 2), the luma or the Y, of a (3, H, W) tensor in [0, 1].

    For k/255 in float32 the product with 255 is exactly k, so 8-bit images give what `rows_uint8` gives.
    """
    planes = (image.detach() * 255).cpu().numpy()

    def fill(rows: slice, out: Plane) -> None:
        if isinstance(colour, int):
            np.copyto(out, planes[colour, rows])
        else:
            (ycbcr if colour == "ycbcr" else luma)(planes[:, rows], out)

    return Rows(image.shape[1], image.shape[2], fill)


def luma(colours: Iterable[NDArray[Any]], out: Plane) -> None:
    """Writes grey, whole numbers in 0..255, of red, green and blue planes (H, W) in 0..255, uint8 or float32.

    Each plane is used completely before the next one is requested.
    """
    part = scratch("luma", *out.shape)
    for i, (colour, weight) in enumerate(zip(colours, WEIGHTS, strict=True)):
        if i == 0:
            np.multiply(colour, weight, out=out)
        else:
            out += np.multiply(colour, weight, out=part)
    np.rint(out, out=out)


def ycbcr(colours: Iterable[NDArray[Any]], out: Plane) -> None:
    """Writes Y, whole numbers in 16..235, of red, green and blue planes (H, W) in 0..255, uint8 or float32.

    In float64, where sums of whole numbers are exact; halves are rounded up, as MATLAB does. Each plane is used completely before
    the next one is requested.
    """
    total = np.full(out.shape, float(YCBCR_SCALE // 2))
    for colour, weight in zip(colours, YCBCR_WEIGHTS, strict=True):
        total += np.multiply(colour, float(weight), dtype=np.float64)
    total /= YCBCR_SCALE
    np.floor(total, out=total)
    np.add(total, YCBCR_OFFSET, out=out, casting="unsafe")


def check_colour(model: str, colour: str, border: int) -> None:
    """Raise UsageError for an unknown colour, and for a border that is not a number of pixels."""
    from harness.runtime.errors import UsageError, near

    if colour not in COLOURS:
        raise UsageError(f"{model}: colour = {colour!r} is not one of 'rgb', 'luma', 'ycbcr'{near(colour, COLOURS)}")
    if not isinstance(border, int) or isinstance(border, bool) or border < 0:
        raise UsageError(f"{model}: border = {border!r} is not a number of pixels")


def check_pair_uint8(reference: NDArray[Any], distorted: NDArray[Any], minimum_size: int = 1) -> None:
    """Raise UsageError for anything but two (H, W, 3) uint8 arrays of the same shape."""
    from harness.runtime.errors import UsageError

    for what, x in (("reference", reference), ("distorted", distorted)):
        if x.ndim != 3 or x.shape[2] != 3 or x.dtype != np.uint8:
            raise UsageError(f"{what}: expected (H, W, 3) uint8, got {x.shape} {x.dtype}")
    if reference.shape != distorted.shape:
        raise UsageError(f"reference {reference.shape} and distorted {distorted.shape} differ in shape")
    height, width = reference.shape[:2]
    if min(height, width) < minimum_size:
        raise UsageError(f"images of {height}x{width} are too small: this model needs at least {minimum_size} pixels a side")
