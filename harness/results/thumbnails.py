"""Thumbnails of image pairs as data URIs for reports, with a network's quality and weight maps."""

from __future__ import annotations

import base64
import io
import time
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from harness.imaging import crops, decode
from harness.imaging.decode import Pixels
from harness.runtime.errors import UsageError

SIDE = 320
_QUALITY = 90
_SECONDS_FOR_MAPS = 10.0
Map = NDArray[np.float32]


class Shown(NamedTuple):
    """One pair's images as data URIs; None for an absent one."""

    reference: str | None
    distorted: str | None
    quality: str | None = None
    weight: str | None = None


class Maps(NamedTuple):
    """Local quality and weight of one image, (H, W) each, in the model's own units."""

    quality: Map
    weight: Map


def show(pairs: Sequence[tuple[str, str]], model: Any = None) -> list[Shown]:
    """Images of (reference, distorted) files, maps over them where the model has `score_maps` and time allows.

    Files that are missing or cannot be read are left out: the report is about the scores.
    """
    begun, able = time.monotonic(), callable(getattr(model, "score_maps", None))
    read = [(_read(reference), _read(distorted)) for reference, distorted in pairs]
    mapped: list[Maps | None] = []
    for reference, distorted in read:
        maps, late = None, time.monotonic() - begun > _SECONDS_FOR_MAPS
        if able and not late and reference is not None and distorted is not None and reference.shape == distorted.shape:
            maps = maps_of(model, reference, distorted)
        mapped.append(maps)
    # One scale over all pairs, so that two maps can be compared.
    known = [maps for maps in mapped if maps is not None]
    scales = [(min(float(maps[i].min()) for maps in known), max(float(maps[i].max()) for maps in known)) for i in (0, 1) if known]
    shown = []
    for (reference, distorted), maps in zip(read, mapped, strict=True):
        drawn = () if maps is None or distorted is None else (_uri(_over(distorted, maps[i], scales[i])) for i in (0, 1))
        shown.append(Shown(_uri(reference), _uri(distorted), *drawn))
    return shown


def difference_map(reference: str, distorted: str) -> str | None:
    """A map of two images' difference as a data URI: the mean absolute difference over R, G and B, scaled from 0 to its maximum.

    None where one of the files cannot be read or their sizes differ.
    """
    reference_pixels, distorted_pixels = _read(reference), _read(distorted)
    if reference_pixels is None or distorted_pixels is None or reference_pixels.shape != distorted_pixels.shape:
        return None
    values = np.abs(reference_pixels.astype(np.int16) - distorted_pixels).mean(axis=2).astype(np.float32)
    return _uri(_over(distorted_pixels, values, (0.0, float(values.max()))))


def _read(path: str) -> Pixels | None:
    try:
        return decode.read(path)
    except UsageError:
        return None


def maps_of(model: Any, reference: Pixels, distorted: Pixels) -> Maps | None:
    """Quality and weight of an image (H, W, 3) from crops that cover it, averaged where crops overlap.

    None where the image is smaller than the model's crop.
    """
    import torch

    height, width = distorted.shape[:2]
    size = getattr(model, "crop_size", None)
    if size and min(height, width) < size:
        return None
    places = crops.positions("grid" if size else "whole", height, width, size, seed=0, reference_id="")
    device = next(iter(model.parameters())).device if callable(getattr(model, "parameters", None)) else torch.device("cpu")
    windows = [(slice(p.top, p.top + p.height), slice(p.left, p.left + p.width)) for p in places]
    cut = [torch.from_numpy(np.stack([image[w] for w in windows])).permute(0, 3, 1, 2) for image in (reference, distorted)]
    found = model.score_maps(*(crop.float().div_(255).to(device) for crop in cut))
    total, times = np.zeros((2, height, width), np.float32), np.zeros((height, width), np.float32)
    for number, (window, place) in enumerate(zip(windows, places, strict=True)):
        for i, grids in enumerate((found.quality, found.weight)):
            # The grid's cells as blocks of pixels: a patch has one value, and interpolation would add others.
            grid = grids[number].float().cpu().numpy()
            rows, columns = (np.arange(n) * cells // n for n, cells in zip((place.height, place.width), grid.shape, strict=True))
            total[i][window] += grid[np.ix_(rows, columns)]
        times[window] += 1
    return Maps(*(total / times))


def _over(image: Pixels, values: Map, scale: tuple[float, float]) -> Pixels:
    """The map in colours (dark blue low, yellow high) over the image in grey."""
    from matplotlib import colormaps

    low, high = scale
    colour = colormaps["viridis"]((values - low) / ((high - low) or 1.0))[..., :3] * 255
    grey = image.mean(axis=2, keepdims=True)
    return np.asarray(0.6 * colour + 0.4 * grey).round().astype(np.uint8)


def _uri(pixels: Pixels | None) -> str | None:
    if pixels is None:
        return None
    image = Image.fromarray(pixels)
    image.thumbnail((SIDE, SIDE), Image.Resampling.LANCZOS)
    out = io.BytesIO()
    image.save(out, "WEBP", quality=_QUALITY)
    return data_uri(out.getvalue(), "image/webp")


def data_uri(data: bytes, kind: str) -> str:
    """The bytes as a data URI."""
    return f"data:{kind};base64,{base64.b64encode(data).decode()}"
