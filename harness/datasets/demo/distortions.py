"""The 25 kinds of distortion of KADID-10k at five levels each, rebuilt with numpy, scipy, Pillow and OpenCV.

After Lin, Hosu and Saupe, "KADID-10k: A Large-scale Artificially Distorted IQA Database", QoMEX 2019. The paper
gives no values. Those of `LEVELS` are the ones in circulation from its authors' generator; where sources differ
(the variances of denoise, the order of mean_shift and contrast_change) they are those that agree with metrics'
published distances over KADID-10k's own images (github.com/SmilingWolf/VQMTCrossVal). So these images are of
the same kinds as KADID-10k's and about as strong, but not the same images.

An image is identified by (reference, kind, level) and `VERSION`, never by the hash of its bytes: results of JPEG and
JPEG 2000 depend on the codec's version.
"""

from __future__ import annotations

import hashlib
import io
import math
from collections.abc import Callable
from types import MappingProxyType
from typing import Any, cast

import numpy as np
import numpy.typing as npt

from harness.datasets.demo.color import LUMA, RGB_FROM_YCBCR, Floats, lab_from_rgb, rgb_from_lab
from harness.runtime.errors import UsageError, near

VERSION = 1
"""To be raised whenever an image of any kind changes."""

MINIMUM_SIZE = 16
"""Smallest height and width of an image, in pixels."""

Image = npt.NDArray[np.uint8]
"""(H, W, 3), sRGB."""
# Each kind takes (H, W, 3) sRGB in [0, 1]; what it returns may leave that range, and is clipped.


def gaussian_blur(x: Floats, sigma: float, rng: np.random.Generator) -> Floats:
    """Convolution with a Gaussian; value: its standard deviation in pixels."""
    return _gaussian(x, sigma)


def lens_blur(x: Floats, radius: float, rng: np.random.Generator) -> Floats:
    """Convolution with a uniform disk, as of a lens out of focus; value: its radius in pixels."""
    fine = 8
    reach = math.ceil(radius)
    size = (2 * reach + 1) * fine
    at = (np.arange(size) + 0.5) / fine - size / (2 * fine)
    inside = (at[:, None] ** 2 + at[None, :] ** 2 <= radius**2).astype(np.float64)
    # Each weight is the share of its pixel that the disk covers, counted on a finer grid.
    return _convolve(x, inside.reshape(2 * reach + 1, fine, 2 * reach + 1, fine).sum(axis=(1, 3)))


def motion_blur(x: Floats, length: float, rng: np.random.Generator) -> Floats:
    """Mean along a line in a random direction, as of a moving camera; value: the movement's length in pixels."""
    angle = rng.uniform(0, math.pi)
    reach = math.ceil(length / 2)
    row, column = np.mgrid[-reach : reach + 1, -reach : reach + 1]
    along = np.clip(column * math.cos(angle) + row * math.sin(angle), -length / 2, length / 2)
    # A pixel's weight falls to 0 at one pixel from the line.
    distance = np.hypot(column - along * math.cos(angle), row - along * math.sin(angle))
    return _convolve(x, np.maximum(1 - distance, 0))


def color_diffusion(x: Floats, amount: float, rng: np.random.Generator) -> Floats:
    """CIELAB a and b blurred by a Gaussian of 1.5 v + 2 pixels and multiplied by v; value: v."""
    lab = lab_from_rgb(x)
    lab[..., 1:] = _gaussian(lab[..., 1:], 1.5 * amount + 2) * np.float32(amount)
    return rgb_from_lab(lab)


def color_shift(x: Floats, amount: float, rng: np.random.Generator) -> Floats:
    """The green channel shifted in a random direction, more where the gradient is larger; value: pixels."""
    from scipy import ndimage

    angle = rng.uniform(0, 2 * math.pi)
    offset = (round(amount * math.sin(angle)), round(amount * math.cos(angle)))
    shifted = ndimage.shift(x[..., 1], offset, order=0, mode="nearest")
    down, right = np.gradient(x @ LUMA)
    edges = ndimage.gaussian_filter(np.hypot(down, right), 4, mode="nearest")
    low, high = np.percentile(edges, (1, 99))
    weight = np.clip((edges - low) / max(high - low, 1e-6), 0, 1)
    y = x.copy()
    y[..., 1] += weight * (shifted - x[..., 1])
    return y


def color_quantization(x: Floats, colors: float, rng: np.random.Generator) -> Floats:
    """A palette by median cut, with Floyd-Steinberg dither; value: number of colours."""
    from PIL import Image as pillow

    image = to_uint8(x)
    # A quarter of the pixels gives as good a palette in a quarter of the time.
    palette = pillow.fromarray(image[::2, ::2].copy()).quantize(int(colors), method=pillow.Quantize.MEDIANCUT)
    # Pillow dithers only to a given palette.
    dithered = pillow.fromarray(image).quantize(palette=palette, dither=pillow.Dither.FLOYDSTEINBERG)
    return to_float(np.asarray(dithered.convert("RGB")))


def color_saturation_1(x: Floats, factor: float, rng: np.random.Generator) -> Floats:
    """HSV saturation multiplied (below 0: complementary hues); value: the factor."""
    brightest = x.max(axis=2, keepdims=True)
    # With hue and value fixed, each channel's distance from the brightest is proportional to the saturation.
    return cast(Floats, brightest - (brightest - x) * np.float32(factor))


def color_saturation_2(x: Floats, factor: float, rng: np.random.Generator) -> Floats:
    """CIELAB a and b multiplied; value: the factor."""
    lab = lab_from_rgb(x)
    lab[..., 1:] *= np.float32(factor)
    return rgb_from_lab(lab)


def jpeg2000(x: Floats, ratio: float, rng: np.random.Generator) -> Floats:
    """JPEG 2000, irreversible wavelets; value: compression ratio, raw bytes to coded bytes."""
    # Six resolutions (OpenJPEG's default) need 32 pixels a side; a smaller image gets fewer.
    resolutions = min(6, int(math.log2(min(x.shape[:2]))) + 1)
    return _coded(x, "JPEG2000", quality_mode="rates", quality_layers=[ratio], irreversible=True, num_resolutions=resolutions)


def jpeg(x: Floats, quality: float, rng: np.random.Generator) -> Floats:
    """Baseline JPEG with 4:2:0 chroma; value: quality as libjpeg counts it, 1 to 100."""
    return _coded(x, "JPEG", quality=int(quality), subsampling=2)


def white_noise(x: Floats, variance: float, rng: np.random.Generator) -> Floats:
    """Gaussian noise added to R, G and B; value: its variance on the scale [0, 1]."""
    return x + _normal(rng, x.shape, variance)


def white_noise_cc(x: Floats, variance: float, rng: np.random.Generator) -> Floats:
    """Gaussian noise added to Y, Cb and Cr (BT.601); value: its variance on the scale [0, 1]."""
    # The transform is linear, so the noise alone is turned into RGB.
    return x + _normal(rng, x.shape, variance) @ RGB_FROM_YCBCR.T


def impulse_noise(x: Floats, density: float, rng: np.random.Generator) -> Floats:
    """Samples set to 0 or 1 with equal probability; value: the share of changed samples."""
    chance = rng.random(x.shape, dtype=np.float32)
    y = np.where(chance < density / 2, np.float32(0), x)
    return np.where(chance > 1 - density / 2, np.float32(1), y)


def multiplicative_noise(x: Floats, variance: float, rng: np.random.Generator) -> Floats:
    """Samples multiplied by 1 plus Gaussian noise (speckle); value: the noise's variance."""
    return x * (1 + _normal(rng, x.shape, variance))


def denoise(x: Floats, variance: float, rng: np.random.Generator) -> Floats:
    """White noise, then Wiener's local filter over 5x5 pixels; value: the noise's variance on the scale [0, 1]."""
    from scipy import ndimage

    window = (5, 5, 1)
    noisy = np.clip(white_noise(x, variance, rng), 0, 1)
    mean = ndimage.uniform_filter(noisy, window, mode="nearest")
    power = ndimage.uniform_filter(noisy**2, window, mode="nearest") - mean**2
    gain = np.maximum(power - variance, 0) / np.maximum(power, variance)
    return cast(Floats, mean + gain * (noisy - mean))


def brighten(x: Floats, amount: float, rng: np.random.Generator) -> Floats:
    """Middle tones raised, on RGB (2/3) and on CIELAB L (1/3); value: twice the lift of the tone 0.5."""
    lab = lab_from_rgb(x)
    lab[..., 0] = 100 * np.clip(_bent(lab[..., 0] / 100, amount), 0, 1)
    return (2 * np.clip(_bent(x, amount), 0, 1) + np.clip(rgb_from_lab(lab), 0, 1)) / 3


def darken(x: Floats, amount: float, rng: np.random.Generator) -> Floats:
    """Middle tones lowered on RGB; value: twice the drop of the tone 0.5."""
    return _bent(x, -amount)


def mean_shift(x: Floats, amount: float, rng: np.random.Generator) -> Floats:
    """A constant added to R, G and B; value: the constant on the scale [0, 1]."""
    return x + np.float32(amount)


def jitter(x: Floats, amount: float, rng: np.random.Generator) -> Floats:
    """Pixels scattered at random, five times over; value: each displacement's standard deviation in pixels."""
    import cv2

    height, width = x.shape[:2]
    column, row = np.meshgrid(np.arange(width, dtype=np.float32), np.arange(height, dtype=np.float32))
    y = x
    for _ in range(5):
        right, down = np.float32(amount) * rng.standard_normal((2, height, width), dtype=np.float32)
        # Fifteen times faster than scipy's map_coordinates, which alone took a fifth of the time of all kinds.
        y = np.asarray(cv2.remap(y, column + right, row + down, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE), np.float32)
    return y


def non_eccentricity_patch(x: Floats, patches: float, rng: np.random.Generator) -> Floats:
    """Patches of 16x16 pixels copied up to 8 pixels away; value: number of patches."""
    y = x.copy()
    height, width = x.shape[:2]
    side = min(16, min(height, width) // 2)
    limit = np.array([height - side, width - side])
    for _ in range(int(patches)):
        top, left = rng.integers(0, limit, endpoint=True)
        down, right = np.clip(np.array([top, left]) + rng.integers(-8, 8, 2, endpoint=True), 0, limit)
        y[down : down + side, right : right + side] = y[top : top + side, left : left + side].copy()
    return y


def pixelate(x: Floats, strength: float, rng: np.random.Generator) -> Floats:
    """Made smaller by 0.95 - v^0.6 and larger again, nearest pixel; value: v."""
    scale = 0.95 - strength**0.6
    y = x
    for axis, size in enumerate(x.shape[:2]):
        small = max(1, int(size * scale))
        down = ((np.arange(small) + 0.5) * size / small).astype(int)
        up = ((np.arange(size) + 0.5) * small / size).astype(int)
        y = np.take(y, down[up], axis=axis)
    return y


def quantization(x: Floats, levels: float, rng: np.random.Generator) -> Floats:
    """R, G and B rounded to evenly spaced values; value: number of values."""
    return np.round(x * np.float32(levels - 1)) / np.float32(levels - 1)


def color_block(x: Floats, blocks: float, rng: np.random.Generator) -> Floats:
    """Squares of 32x32 pixels in random plain colours; value: number of squares."""
    y = x.copy()
    height, width = x.shape[:2]
    side = min(32, min(height, width) // 2)
    for _ in range(int(blocks)):
        top, left = rng.integers(0, (height - side, width - side), endpoint=True)
        y[top : top + side, left : left + side] = rng.random(3, dtype=np.float32)
    return y


def high_sharpen(x: Floats, amount: float, rng: np.random.Generator) -> Floats:
    """Unsharp mask of 3 pixels' standard deviation on CIELAB L; value: its gain."""
    lab = lab_from_rgb(x)
    lightness = lab[..., 0]
    lab[..., 0] = np.clip(lightness + np.float32(amount) * (lightness - _gaussian(lightness[..., None], 3)[..., 0]), 0, 100)
    return rgb_from_lab(lab)


def contrast_change(x: Floats, amount: float, rng: np.random.Generator) -> Floats:
    """A tone curve that maps 0.3 to (1 - v)/4 and 0.7 to (3 + v)/4; value: v, below 0 for less contrast."""
    from scipy.interpolate import CubicSpline

    curve = CubicSpline([0, 0.3, 0.5, 0.7, 1], [0, (1 - amount) / 4, 0.5, (3 + amount) / 4, 1])
    return cast(Floats, curve(np.arange(256) / 255).astype(np.float32)[to_uint8(x)])


_Kind = Callable[[Floats, float, np.random.Generator], Floats]

_TABLE: dict[_Kind, tuple[float, float, float, float, float]] = {
    gaussian_blur: (0.1, 0.5, 1, 2, 5),
    lens_blur: (1, 2, 4, 6, 8),
    motion_blur: (1, 2, 4, 6, 10),
    color_diffusion: (1, 3, 6, 8, 12),
    color_shift: (1, 3, 6, 8, 12),
    color_quantization: (64, 48, 32, 16, 8),
    color_saturation_1: (0.4, 0.2, 0.1, 0, -0.4),
    color_saturation_2: (1, 2, 3, 6, 9),
    jpeg2000: (16, 32, 45, 120, 170),
    jpeg: (43, 36, 24, 7, 4),
    white_noise: (0.001, 0.002, 0.003, 0.005, 0.01),
    white_noise_cc: (0.0001, 0.0005, 0.001, 0.002, 0.003),
    impulse_noise: (0.001, 0.005, 0.01, 0.02, 0.03),
    multiplicative_noise: (0.001, 0.005, 0.01, 0.02, 0.05),
    denoise: (0.01, 0.03, 0.05, 0.1, 0.15),
    brighten: (0.1, 0.2, 0.4, 0.7, 1.1),
    darken: (0.05, 0.1, 0.2, 0.4, 0.8),
    mean_shift: (0.15, 0.08, 0, -0.08, -0.15),
    jitter: (0.05, 0.1, 0.2, 0.5, 1),
    non_eccentricity_patch: (20, 40, 60, 80, 100),
    pixelate: (0.01, 0.05, 0.1, 0.2, 0.5),
    quantization: (20, 16, 13, 10, 7),
    color_block: (2, 4, 6, 8, 10),
    high_sharpen: (1, 2, 3, 6, 12),
    contrast_change: (0.3, 0.15, 0, -0.4, -0.6),
}

_KINDS: dict[str, _Kind] = {kind.__name__: kind for kind in _TABLE}
KINDS: tuple[str, ...] = tuple(_KINDS)
"""The kinds in KADID-10k's order."""
LEVELS = MappingProxyType({kind.__name__: values for kind, values in _TABLE.items()})
"""Each kind's value at levels 1 to 5; its function's docstring gives the unit."""


def distort(image: Image, kind: str, level: int, seed_name: str) -> Image:
    """`image` distorted by `kind` (one of `KINDS`) at `level` 1 to 5, in the order of KADID-10k's levels.

    `image` is (H, W, 3) uint8 sRGB of at least 16x16 pixels, and is not changed; so is the result. Random kinds use a
    generator seeded by the sha256 of (seed_name, kind, level): the same arguments give the same image. Raises
    UsageError for any other argument.
    """
    if kind not in _KINDS:
        raise UsageError(f"no distortion called {kind!r}{near(kind, KINDS)}")
    if level not in range(1, 6):
        raise UsageError(f"{kind}: level {level!r} is not one of 1, 2, 3, 4, 5")
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
        raise UsageError(f"{kind}: expected an (H, W, 3) uint8 image, got {image.shape} {image.dtype}")
    if min(image.shape[:2]) < MINIMUM_SIZE:
        height, width = image.shape[:2]
        raise UsageError(f"{kind}: an image of {height}x{width} is too small: each side needs at least {MINIMUM_SIZE} pixels")
    seed = hashlib.sha256(f"{seed_name}|{kind}|{level}".encode()).digest()
    rng = np.random.Generator(np.random.PCG64(int.from_bytes(seed, "big")))
    return to_uint8(_KINDS[kind](to_float(image), LEVELS[kind][level - 1], rng))


def to_float(image: Image) -> Floats:
    """uint8 0..255 as float32 in [0, 1]."""
    return image.astype(np.float32) / np.float32(255)


def to_uint8(x: npt.NDArray[Any]) -> Image:
    """Floats clipped to [0, 1] and rounded to uint8 0..255."""
    return cast(Image, np.round(np.clip(x, 0, 1) * 255).astype(np.uint8))


def _bent(x: Floats, amount: float) -> Floats:
    # The parabola through (0, 0), (1/2, 1/2 + amount/2) and (1, 1).
    return x + np.float32(2 * amount) * x * (1 - x)


def _normal(rng: np.random.Generator, shape: tuple[int, ...], variance: float) -> Floats:
    return rng.standard_normal(shape, dtype=np.float32) * np.float32(math.sqrt(variance))


def _gaussian(x: Floats, sigma: float) -> Floats:
    from scipy import ndimage

    return cast(Floats, ndimage.gaussian_filter(x, (sigma, sigma, 0), mode="nearest"))


def _convolve(x: Floats, kernel: npt.NDArray[np.float64]) -> Floats:
    """Convolution of each channel with an odd square kernel scaled to sum 1, edges repeated."""
    from scipy.signal import fftconvolve

    reach = len(kernel) // 2
    padded = np.pad(x, ((reach, reach), (reach, reach), (0, 0)), mode="edge")
    weights = (kernel / kernel.sum()).astype(np.float32)[..., None]
    return cast(Floats, fftconvolve(padded, weights, mode="valid", axes=(0, 1)))


def _coded(x: Floats, codec: str, **options: Any) -> Floats:
    from PIL import Image as pillow

    stream = io.BytesIO()
    pillow.fromarray(to_uint8(x)).save(stream, codec, **options)
    with pillow.open(stream) as decoded:
        return to_float(np.asarray(decoded.convert("RGB")))
