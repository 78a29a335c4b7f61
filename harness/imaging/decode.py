"""Decoding pictures into the one form that the harness works on: (H, W, 3) uint8 RGB.

Converted, because no pixel's colour changes: grey, palette and one-bit pictures, an alpha channel that is opaque
everywhere, EXIF rotation (applied, as a viewer does). ICC profiles are ignored: numbers are taken as stored.
Refused, because any conversion is a choice that moves scores: 16-bit and float pictures, CMYK and other colour
spaces, real transparency, animations, and pictures above 100 million pixels.
"""

from __future__ import annotations

import functools
import hashlib
import io
import os
import struct
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageFile, ImageOps, UnidentifiedImageError

from harness.files.regular import require_regular
from harness.runtime.errors import UsageError, listed

Pixels = npt.NDArray[np.uint8]

MAX_PIXELS = 100_000_000
# Not all that Pillow opens: its readers of PostScript and metafiles start other programs on a file's content.
_FORMATS = ("BMP", "DIB", "PNG", "JPEG", "MPO", "TIFF", "WEBP", "PPM", "GIF", "JPEG2000", "AVIF", "TGA", "QOI", "PCX", "SGI")
_ORIENTATION = 0x0112


class Decoded(NamedTuple):
    """A picture and the hash of the file it came from."""

    pixels: Pixels
    """(H, W, 3) uint8 RGB."""
    sha256: str


def read(path: str | Path) -> Pixels:
    """The picture at `path` as (H, W, 3) uint8 RGB; raises UsageError saying what is wrong with it."""
    return decode(_bytes(path), path)


def read_hashed(path: str | Path) -> Decoded:
    """Like `read`, with the sha256 of the file's bytes, which are read once."""
    data = _bytes(path)
    return Decoded(decode(data, path), hashlib.sha256(data).hexdigest())


def size(path: str | Path) -> tuple[int, int]:
    """(height, width) from the header alone; raises UsageError when it is no picture."""
    try:
        require_regular(path)
        with Image.open(path, formats=_formats()) as image:
            width, height = image.size
            return height, width
    except Exception as error:
        raise UsageError(f"{path}: {_reason(error)}") from None


@functools.cache
def _formats() -> tuple[str, ...]:
    """Those of _FORMATS that this Pillow was built with."""
    Image.init()
    return tuple(name for name in _FORMATS if name in Image.OPEN)


def _bytes(path: str | Path) -> bytes:
    try:
        require_regular(path)
        return Path(path).read_bytes()
    except OSError as error:
        raise UsageError(f"{path}: cannot be read: {error.strerror}") from None


def decode(data: bytes, path: str | Path) -> Pixels:
    """The picture held by `data`; `path` is only named in errors."""
    if not data:
        raise UsageError(f"{path}: an empty file")
    if _is_plain_bmp(data):
        return _decode_bmp(data)
    try:
        with Image.open(io.BytesIO(data), formats=_formats()) as image:
            _refuse(image, path)
            image.load()
            return _as_rgb(image, path)
    except UsageError:
        raise
    except Exception as error:  # Pillow's plugins raise whatever a broken file drives them into
        raise UsageError(f"{path}: {_reason(error)}") from None


_BMP = struct.Struct("<2sIHHIIiiHHI")


def _is_plain_bmp(data: bytes) -> bool:
    """Whether these are a whole BMP's bytes, 24 bits without compression, of ordinary size: nothing to convert or refuse."""
    if len(data) < 54:
        return False
    kind, _, _, _, start, header, width, height, planes, bits, compression = _BMP.unpack_from(data)
    plain = (kind, header, planes, bits, compression) == (b"BM", 40, 1, 24, 0) and start >= 54
    return (
        plain
        and width > 0
        and height > 0
        and width * height <= MAX_PIXELS
        and start + height * -(-width * 3 // 4) * 4 <= len(data)
    )


def _decode_bmp(data: bytes) -> Pixels:
    """Four times as fast as Pillow, with the same pixels; TID, LIVE and PIPAL are such files."""
    import cv2

    return np.asarray(cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR_RGB), dtype=np.uint8)


def _reason(error: Exception) -> str:
    if isinstance(error, UnidentifiedImageError):
        return "not a picture that Pillow knows (damaged, or another kind of file?)"
    if isinstance(error, Image.DecompressionBombError):
        return f"more than {MAX_PIXELS:,} pixels"
    if isinstance(error, OSError) and error.strerror:
        return f"cannot be read: {error.strerror}"
    return f"a damaged picture: {error or type(error).__name__}"


def _refuse(image: ImageFile.ImageFile, path: str | Path) -> None:
    width, height = image.size
    if not width or not height:
        raise UsageError(f"{path}: a picture of {width}x{height} pixels")
    if width * height > MAX_PIXELS:
        raise UsageError(f"{path}: {width}x{height} is more than {MAX_PIXELS:,} pixels")
    if getattr(image, "n_frames", 1) > 1:
        raise UsageError(f"{path}: an animation of {getattr(image, 'n_frames', 0)} frames; give one still picture")
    # Pillow opens 16-bit colour PNG and TIFF as 8-bit RGB and drops the low bytes without a word; only the tile tells.
    raw_modes = [str(part) for tile in image.tile for part in (tile[3] if isinstance(tile[3], tuple) else (tile[3],))]
    if image.mode.startswith(("I", "F")) or any(";16" in mode for mode in raw_modes):
        raise UsageError(f"{path}: more than 8 bits a channel; convert it to 8-bit RGB first, in the way your protocol asks")
    if image.mode not in ("1", "L", "LA", "P", "PA", "RGB", "RGBA"):
        raise UsageError(f"{path}: a {image.mode} picture; convert it to RGB first, in the way your protocol asks")


def _as_rgb(image: Image.Image, path: str | Path) -> Pixels:
    if image.getexif().get(_ORIENTATION, 1) != 1:
        image = ImageOps.exif_transpose(image)
    if image.mode in ("LA", "PA", "RGBA") or "transparency" in image.info:
        image = image.convert("RGBA")
        lowest = image.getchannel("A").getextrema()[0]
        if lowest != 255:
            raise UsageError(f"{path}: a picture with transparency; flatten it on the background that people saw")
    if image.mode != "RGB":
        image = image.convert("RGB")
    return np.array(image, dtype=np.uint8)


def check_same_size(reference: Pixels, distorted: Pixels, name: str) -> None:
    """Refuse a pair whose pictures differ in size."""
    if reference.shape != distorted.shape:
        (h, w), (dh, dw) = reference.shape[:2], distorted.shape[:2]
        raise UsageError(f"{name}: the reference is {w}x{h} and the distorted image {dw}x{dh}; they must have one size")


def missing(paths: Sequence[str]) -> str | None:
    """One line naming the files among `paths` that do not exist, or None."""
    absent = [p for p in dict.fromkeys(paths) if not os.path.isfile(p)]
    return f"{len(absent)} missing files: {listed(absent)}" if absent else None
