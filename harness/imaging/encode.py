"""Encoding 8-bit RGB images as files for external programs: PNG, PPM, and YUV4MPEG2 (y4m) of one frame."""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import NDArray

from harness.imaging.decode import Pixels

_LUMA = {"bt601": (0.299, 0.114), "bt709": (0.2126, 0.0722)}
"""Weights of red and blue in Y (ITU-R BT.601-7, BT.709-6); green has the rest."""


def png(pixels: Pixels) -> bytes:
    """A PNG of (H, W, 3) uint8 RGB, without metadata; compressed little, since it is read once."""
    import cv2

    done, encoded = cv2.imencode(".png", pixels[..., ::-1], [cv2.IMWRITE_PNG_COMPRESSION, 1])
    assert done
    return bytes(encoded)


def ppm(pixels: Pixels) -> bytes:
    """A binary PPM (P6) of (H, W, 3) uint8 RGB."""
    height, width = pixels.shape[:2]
    return f"P6\n{width} {height}\n255\n".encode() + np.ascontiguousarray(pixels).tobytes()


def y4m(
    pixels: Pixels,
    matrix: Literal["bt601", "bt709"],
    levels: Literal["limited", "full"],
    subsampling: Literal["444", "420"],
) -> bytes:
    """One frame of 8-bit YCbCr as YUV4MPEG2, from (H, W, 3) uint8 RGB.

    Computed in float64 and rounded once, to the nearest. 420: the mean of 2x2 pixels, sited in their middle (`C420jpeg`); of an
    odd height or width the last row or column counts twice.
    """
    height, width = pixels.shape[:2]
    kind = {"444": "444", "420": "420jpeg"}[subsampling]
    header = f"YUV4MPEG2 W{width} H{height} F1:1 Ip A1:1 C{kind} XCOLORRANGE={levels.upper()}\nFRAME\n"
    return header.encode() + b"".join(plane.tobytes() for plane in ycbcr(pixels, matrix, levels, subsampling))


def ycbcr(pixels: Pixels, matrix: str, levels: str, subsampling: str) -> tuple[NDArray[np.uint8], ...]:
    """The planes Y, Cb and Cr of `y4m`, uint8."""
    red, green, blue = (pixels[..., c].astype(np.float64) / 255 for c in range(3))
    of_red, of_blue = _LUMA[matrix]
    luma = of_red * red + (1 - of_red - of_blue) * green + of_blue * blue
    chroma = [(blue - luma) / (2 * (1 - of_blue)), (red - luma) / (2 * (1 - of_red))]
    if subsampling == "420":
        height, width = luma.shape
        even = (np.pad(plane, ((0, height % 2), (0, width % 2)), mode="edge") for plane in chroma)
        chroma = [plane.reshape((height + 1) // 2, 2, (width + 1) // 2, 2).mean(axis=(1, 3)) for plane in even]
    low, high, span = (16, 219, 224) if levels == "limited" else (0, 255, 255)
    planes = [low + high * luma, *(128 + span * plane for plane in chroma)]
    return tuple(np.clip(np.rint(plane), 0, 255).astype(np.uint8) for plane in planes)
