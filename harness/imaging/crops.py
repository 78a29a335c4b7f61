"""Crop positions: whole image, five, nine, grid or random crops.

The score of an image is the mean over its crops; equal positions are computed once and weighted by how often
they occur. Random positions depend on the run's seed, the reference and the size alone, so every distorted image
of a reference has the same crops, in any batch and order.
"""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from typing import NamedTuple

import numpy as np

from harness.runtime.errors import UsageError, near

NAMED = ("whole", "five", "nine", "grid", "random20")


class Crop(NamedTuple):
    """A crop of the image, and how often the protocol uses it."""

    top: int
    left: int
    height: int
    width: int
    weight: int
    mirrored: bool = False
    """Flipped left to right."""


def check(protocol: str) -> None:
    """Raise UsageError for a protocol other than whole, five, nine, grid, randomK."""
    if protocol not in NAMED and not re.fullmatch(r"random[1-9]\d{0,3}", protocol):
        raise UsageError(
            f"no crop protocol {protocol!r}{near(protocol, NAMED)} (known: {', '.join(NAMED)} and randomK, such as random20)"
        )


def positions(protocol: str, height: int, width: int, size: int | None, *, seed: int, reference_id: str) -> list[Crop]:
    """The crops of a (height, width) image; `size` is the crop's side, None for `whole`.

    Raises UsageError when the image is smaller than the crop.
    """
    check(protocol)
    if protocol == "whole":
        return [Crop(0, 0, height, width, 1)]
    if not size:
        raise UsageError(f"crops = {protocol!r} needs a crop size (--set protocol.crop_size=224)")
    if height < size or width < size:
        raise UsageError(f"an image of {width}x{height} is smaller than the {size}x{size} crop of protocol {protocol!r}")
    bottom, right = height - size, width - size
    middle, centre = height // 2 - size // 2, width // 2 - size // 2
    corners = [(0, 0), (0, right), (bottom, 0), (bottom, right)]
    places: list[tuple[int, int]]
    if protocol == "five":
        places = [*corners, (middle, centre)]
    elif protocol == "nine":
        places = [*corners, (0, centre), (middle, 0), (middle, centre), (middle, right), (bottom, centre)]
    elif protocol == "grid":
        places = [(top, left) for top in _spread(height, size) for left in _spread(width, size)]
    else:
        count = int(protocol.removeprefix("random"))
        digest = hashlib.sha256(f"{seed}|{reference_id}|{height}x{width}".encode()).digest()
        generator = np.random.Generator(np.random.PCG64(int.from_bytes(digest, "big")))
        drawn = generator.integers(0, [bottom + 1, right + 1], size=(count, 2))
        places = [(int(top), int(left)) for top, left in drawn]
    return [Crop(top, left, size, size, weight) for (top, left), weight in Counter(places).items()]


def _spread(length: int, size: int) -> list[int]:
    """The fewest evenly spaced starts whose windows cover 0..length."""
    count = -(-length // size)
    last = length - size
    return [round(i * last / (count - 1)) for i in range(count)] if count > 1 else [0]
