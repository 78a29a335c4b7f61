"""Decoding image files to (H, W, 3) uint8 RGB arrays, the only form of images in the harness.

Converted, because no pixel's colour changes: grey, palette and one-bit images, an alpha channel that is opaque
everywhere, EXIF rotation (applied, as a viewer does). Colour profiles are not applied: values are used as stored
(`colour`). Refused, because any conversion is a choice that changes scores: more than 8 bits a channel (`refused_formats`),
floating point, CMYK and other colour spaces, real transparency, animations, several pages, and images above 100 million
pixels. docs/pictures.md has the details.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import io
import mmap
import os
import struct
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageFile, ImageOps

from harness.files.regular import reading, require_regular
from harness.imaging import colour, refused_formats
from harness.imaging.colour import Colour
from harness.imaging.refused_formats import Data
from harness.imaging.remarks import PRIMARY, ZEROS, Remark
from harness.imaging.zeros import run_of_zeros
from harness.runtime.errors import UsageError, listed

Pixels = npt.NDArray[np.uint8]

MAX_PIXELS = 100_000_000
_ORIENTATION = 0x0112
_ON_THE_SIDE = (5, 6, 7, 8)


class Decoded(NamedTuple):
    """A decoded image, its file's hash, and remarks on the file."""

    pixels: Pixels
    """(H, W, 3) uint8 RGB."""
    sha256: str = ""
    """The sha256 of the file's bytes."""
    colour: Colour = colour.NONE
    remarks: tuple[Remark, ...] = ()


class Facts(NamedTuple):
    """The facts in a file's header."""

    height: int
    width: int
    """After EXIF rotation, as in `read`."""
    colour: Colour
    remarks: tuple[Remark, ...]


def read(path: str | Path) -> Pixels:
    """The image at `path` as (H, W, 3) uint8 RGB; raises UsageError with the problem where it cannot be used."""
    return decode(_bytes(path), path)


def _bytes(path: str | Path) -> bytes:
    with reading(path):
        return Path(path).read_bytes()


def read_hashed(path: str | Path) -> Decoded:
    """Like `read`, with the sha256 of the file's bytes (read once) and remarks on the file."""
    data = _bytes(path)
    return _decode(data, path)._replace(sha256=hashlib.sha256(data).hexdigest())


def look(path: str | Path) -> Facts:
    """The facts in the header; raises UsageError for what `read` refuses because of it."""
    try:
        require_regular(path)
        with open(path, "rb") as stream:
            if not os.fstat(stream.fileno()).st_size:
                raise UsageError(f"{path}: an empty file")
            with mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as data, _opened(data, stream, path) as (image, kind):
                width, height = image.size
                # Pillow gives the size of a TIFF as it is after rotation.
                if kind != "TIFF" and _orientation(image, kind) in _ON_THE_SIDE:
                    width, height = height, width
                return Facts(height, width, colour.embedded(kind, data, image.info), _compound(kind, path))
    except OSError as error:
        raise UsageError(f"{path}: {_reason(error)}") from None


def decode(data: bytes, path: str | Path) -> Pixels:
    """The image held by `data`; `path` is only named in errors."""
    return _decode(data, path).pixels


def _decode(data: bytes, path: str | Path) -> Decoded:
    if not data:
        raise UsageError(f"{path}: an empty file")
    if _is_plain_bmp(data):
        import cv2

        # Four times as fast as Pillow, with the same pixels; TID, LIVE and PIPAL have such files.
        return Decoded(np.asarray(cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR_RGB), dtype=np.uint8))
    with _opened(data, io.BytesIO(data), path) as (image, kind):
        profile, remarks = colour.embedded(kind, data, image.info), _compound(kind, path)
        if (zeros := run_of_zeros(kind, data)) is not None:
            remarks += (Remark(ZEROS, f"{path} ({zeros[1]:,} zero bytes from byte {zeros[0]:,} on)"),)
        try:
            image.load()
        except Exception as error:
            if zeros is None:
                raise
            raise UsageError(
                f"{_reason(error)}; {zeros[1]:,} zero bytes from byte {zeros[0]:,} on: an unfinished download?"
            ) from None
        rgb: Image.Image = image
        if _orientation(image, kind) != 1:
            rgb = ImageOps.exif_transpose(image)
        if rgb.mode in ("LA", "PA", "RGBA") or "transparency" in rgb.info:
            rgb = rgb.convert("RGBA")
            lowest = rgb.getchannel("A").getextrema()[0]
            if lowest != 255:
                raise UsageError(f"{path}: an image with transparency; flatten it on the background that the raters saw")
        pixels = np.array(rgb if rgb.mode == "RGB" else rgb.convert("RGB"), dtype=np.uint8)
        return Decoded(pixels, colour=profile, remarks=remarks)


def _compound(kind: str, path: str | Path) -> tuple[Remark, ...]:
    return (Remark(PRIMARY, str(path)),) if kind == "MPO" else ()


@contextlib.contextmanager
def _opened(data: Data, stream: IO[bytes], path: str | Path) -> Iterator[tuple[ImageFile.ImageFile, str]]:
    """The opened and accepted image, with its format; any error in the block becomes a UsageError naming `path`."""
    try:
        image, kind = _open(data, stream)
        _refuse(image, kind)
        with image:
            yield image, kind
    except UsageError as error:
        # Some errors come from functions that do not know the path.
        text = str(error)
        raise UsageError(text if text.startswith(f"{path}: ") else f"{path}: {text}") from None
    except Exception as error:  # Pillow's plugins may raise any error for a damaged file
        raise UsageError(f"{path}: {_reason(error)}") from None


def _open(data: Data, stream: IO[bytes]) -> tuple[ImageFile.ImageFile, str]:
    """Open with the plugins of `refused_formats.FORMATS` and no other.

    Not with `Image.open`: it warns of large images within our limit, and that warning can only be switched off for the whole
    process.
    """
    prefix = bytes(data[:16])
    if not prefix.startswith((b"\x89PNG", b"BM", b"\xff\xd8")) and (other := refused_formats.named(data)):
        raise UsageError(other)
    if prefix.startswith(refused_formats.JXL_STARTS):
        _check_jxl(data)
    wrong = ""
    for name in _plugins():
        factory, accept = Image.OPEN[name]
        accepted = accept(prefix) if accept else True
        if not accepted or isinstance(accepted, str):
            continue
        read_depth = refused_formats.FORMATS[name].depth
        depth = read_depth(data) if read_depth else None
        if depth is not None and accept:  # TGA has no signature: only its plugin tells whether it is one
            refused_formats.refuse_depth(depth, name)
        stream.seek(0)
        try:
            image = factory(stream, "")
        except (SyntaxError, IndexError, TypeError, struct.error) as error:
            wrong = wrong or (f" ({name}: {error})" if accept else "")
            continue
        refused_formats.refuse_depth(depth if read_depth else refused_formats.opened_depth(image), name)
        return image, image.format or name
    raise UsageError(f"not an image that Pillow can read (damaged, or another kind of file?){wrong}")


@functools.cache
def _plugins() -> tuple[str, ...]:
    """Those of `refused_formats.FORMATS` that this Pillow was built with."""
    Image.init()
    return tuple(name for name in refused_formats.FORMATS if name in Image.OPEN)


def _check_jxl(data: Data) -> None:
    """Let Pillow read JPEG XL, where its plug-in is installed.

    The plug-in decodes when it opens a file, and only the first image of an animation: size and animation are checked before.
    """
    if "JXL" not in _plugins():
        try:
            import pillow_jxl  # noqa: F401 -- registers itself
        except ImportError:
            raise UsageError(
                "a JPEG XL image, which needs a plug-in of Pillow: pip install pillow-jxl-plugin; "
                "or convert it to 8-bit PNG first"
            ) from None
        _plugins.cache_clear()
    header = refused_formats.jxl_header(data)
    if header is not None:
        refuse_size(header.width, header.height)
        if header.animated:
            raise UsageError("an animation; give one still image")


_BMP = struct.Struct("<2sIHHIIiiHHI")


def _is_plain_bmp(data: bytes) -> bool:
    """Whether these bytes are a complete BMP file, 24 bits, uncompressed, of accepted size: nothing to convert or refuse."""
    if len(data) < 54:
        return False
    kind, _, _, _, start, header, width, height, planes, bits, compression = _BMP.unpack_from(data)
    plain = (kind, header, planes, bits, compression) == (b"BM", 40, 1, 24, 0) and start >= 54
    ordinary = width > 0 and height > 0 and width * height <= MAX_PIXELS
    return plain and ordinary and start + height * -(-width * 3 // 4) * 4 <= len(data)


def _reason(error: Exception) -> str:
    if isinstance(error, Image.DecompressionBombError):
        return f"more than {MAX_PIXELS:,} pixels"
    if isinstance(error, OSError) and error.strerror:
        return f"cannot be read: {error.strerror}"
    return f"a damaged image: {error or type(error).__name__}"


def refuse_size(width: int, height: int) -> None:
    """Refuse an image without pixels and one with too many; raises UsageError."""
    if not width or not height:
        raise UsageError(f"an image of {width}x{height} pixels")
    if width * height > MAX_PIXELS:
        raise UsageError(f"{width}x{height} is more than {MAX_PIXELS:,} pixels")


def _refuse(image: ImageFile.ImageFile, kind: str) -> None:
    refuse_size(*image.size)
    frames = getattr(image, "n_frames", 1)
    if kind == "TIFF":
        refused_formats.refuse_preview(image)
        if frames > 1:
            raise UsageError(f"a file of {frames} pages; give one image a file")
    elif frames > 1 and kind != "MPO":
        raise UsageError(f"an animation of {frames} frames; give one still image")
    # Independent of the header: where Pillow unpacks 16 bits, the image is too deep.
    raw_modes = [str(part) for tile in image.tile for part in (tile[3] if isinstance(tile[3], tuple) else (tile[3],))]
    if image.mode.startswith(("I", "F")) or any(";16" in mode for mode in raw_modes if mode != "BGR;16"):
        raise UsageError("more than 8 bits a channel; convert it to 8-bit RGB first, in the way your protocol asks")
    if image.mode not in ("1", "L", "LA", "P", "PA", "RGB", "RGBA"):
        raise UsageError(f"a {image.mode} image; convert it to RGB first, in the way your protocol asks")


def _orientation(image: Any, kind: str) -> int:
    """The EXIF orientation that is still to be applied."""
    if kind == "JXL" and not getattr(image, "jpeg", False):
        return 1  # the decoder has applied the file's own orientation, which has priority over EXIF
    return int(image.getexif().get(_ORIENTATION, 1) or 1)


def check_same_size(reference: Pixels, distorted: Pixels, name: str) -> None:
    """Refuse a pair whose images differ in size."""
    if reference.shape != distorted.shape:
        (h, w), (dh, dw) = reference.shape[:2], distorted.shape[:2]
        raise UsageError(f"{name}: the reference is {w}x{h} and the distorted image {dw}x{dh}; they must have the same size")


def missing(paths: Sequence[str]) -> str | None:
    """One line naming the files among `paths` that do not exist, or None."""
    absent = [p for p in dict.fromkeys(paths) if not os.path.isfile(p)]
    return f"{len(absent)} missing files: {listed(absent)}" if absent else None
