"""Sizes of images from their headers, and whether a file is truncated, without decoding.

BMP and PNG headers, the formats of nearly all datasets, are parsed here: a few thousand bytes a file. Pillow reads the others,
and PNG files that hold a colour profile or may hold a rotation.
"""

from __future__ import annotations

import hashlib
import os
import struct
from collections.abc import Callable
from typing import BinaryIO, NamedTuple, TypeVar

from harness.files.regular import require_regular
from harness.imaging import colour, decode, refused_formats
from harness.imaging.colour import Colour
from harness.imaging.decode import Facts
from harness.imaging.remarks import Remark
from harness.runtime.errors import UsageError

Read = TypeVar("Read")
_PNG = b"\x89PNG\r\n\x1a\n"
_PROBES, _PROBE = 3, 256
_START, _END = 1 << 12, 1 << 14
_FROM_PILLOW = (b"iCCP", b"cICP", b"eXIf", b"Raw profile type", b"XML:com.adobe.xmp")
"""Chunks, and keywords of text chunks, of a PNG that change how its values or its size are read."""


class Header(NamedTuple):
    """The size and further facts in an image file's header."""

    height: int
    width: int
    size: int
    probe: bytes
    """Digest of the size and some ranges of bytes: equal files have equal digests, different files nearly never."""
    colour: Colour = colour.NONE
    remarks: tuple[Remark, ...] = ()


def look(path: str) -> Header:
    """The header of the image at `path`, its size as `decode.read` gives it.

    Raises UsageError with the problem, without the path; what `decode.read` refuses because of the header is refused here.
    """
    try:
        require_regular(path)
        with open(path, "rb", buffering=0) as stream:
            size = os.fstat(stream.fileno()).st_size
            head = stream.read(64)
            if not head:
                raise UsageError("an empty file")
            facts = _facts(path, stream, head, size)
            digest = hashlib.blake2b(head + size.to_bytes(8, "little"), digest_size=16)
            for i in range(1, _PROBES + 1):
                stream.seek(max(0, size * i // _PROBES - _PROBE))
                digest.update(stream.read(_PROBE))
            return Header(facts.height, facts.width, size, digest.digest(), facts.colour, facts.remarks)
    except OSError as error:
        raise UsageError(f"cannot be read: {error.strerror}") from None


def _facts(path: str, stream: BinaryIO, head: bytes, size: int) -> Facts:
    if head.startswith(_PNG) and head[12:16] == b"IHDR" and len(head) >= 26:
        width, height = struct.unpack(">II", head[16:24])
        decode.refuse_size(width, height)
        refused_formats.refuse_depth(head[24], "PNG")
        stream.seek(0)
        ends = stream.read(_START).partition(b"IDAT")[0]
        stream.seek(max(0, size - _END))
        tail = stream.read(_END)
        if b"IEND" not in tail[-64:]:
            _by(decode.read, path)  # only decoding shows whether the extra bytes are harmless
        # An animation is marked before the pixels. A small file's pixels may look like a chunk: then Pillow is asked needlessly.
        if any(mark in ends or mark in tail for mark in (*_FROM_PILLOW, b"acTL")):
            return _by(decode.look, path)
        return Facts(height, width, colour.NONE, ())
    if head.startswith(b"BM") and len(head) >= 34 and struct.unpack("<I", head[14:18])[0] >= 40:
        offset, width, height = (struct.unpack("<I", head[10:14])[0], *struct.unpack("<ii", head[18:26]))
        bits, compression = struct.unpack("<H", head[28:30])[0], struct.unpack("<I", head[30:34])[0]
        row = (width * bits + 7) // 8
        needed = offset + (row + 3) // 4 * 4 * (abs(height) - 1) + row
        if width <= 0 or not height:
            raise UsageError(f"an image of {width}x{height} pixels")
        decode.refuse_size(width, abs(height))
        if compression == 0 and size < needed:
            raise UsageError(f"cut off: {size:,} bytes of at least {needed:,}")
        return Facts(abs(height), width, colour.NONE, ())
    return _by(decode.look, path)


def _by(read: Callable[[str], Read], path: str) -> Read:
    """The result of `read`; its error without the path."""
    try:
        return read(path)
    except UsageError as error:
        raise UsageError(str(error).removeprefix(f"{path}: ")) from None
