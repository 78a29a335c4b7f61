"""Sizes of pictures from their headers, and whether their bytes are all there, without decoding.

BMP and PNG, the formats of nearly all datasets, are read by hand: a few hundred bytes a file. Others go to Pillow.
"""

from __future__ import annotations

import hashlib
import os
import struct
from typing import BinaryIO, NamedTuple

from harness.files.regular import require_regular
from harness.imaging import decode
from harness.runtime.errors import UsageError

_PNG = b"\x89PNG\r\n\x1a\n"
_PROBES, _PROBE = 3, 256


class Header(NamedTuple):
    """What a look at a file tells."""

    height: int
    width: int
    size: int
    probe: bytes
    """Digest of the size and a few stretches of bytes: equal files have equal ones, different files nearly never."""


def look(path: str) -> Header:
    """The header of the picture at `path`; raises UsageError saying what is wrong with it, without the path."""
    try:
        require_regular(path)
        with open(path, "rb", buffering=0) as stream:
            size = os.fstat(stream.fileno()).st_size
            head = stream.read(64)
            if not head:
                raise UsageError("an empty file")
            height, width = _size(path, stream, head, size)
            return Header(height, width, size, _probe(stream, head, size))
    except OSError as error:
        raise UsageError(f"cannot be read: {error.strerror}") from None


def _size(path: str, stream: BinaryIO, head: bytes, size: int) -> tuple[int, int]:
    if head.startswith(_PNG) and head[12:16] == b"IHDR" and len(head) >= 24:
        width, height = struct.unpack(">II", head[16:24])
        stream.seek(max(0, size - 64))
        if b"IEND" not in stream.read(64):
            _decode(path)  # bytes after the end are harmless; only a decoder can tell
        return height, width
    if head.startswith(b"BM") and len(head) >= 34 and struct.unpack("<I", head[14:18])[0] >= 40:
        offset, width, height = (struct.unpack("<I", head[10:14])[0], *struct.unpack("<ii", head[18:26]))
        bits, compression = struct.unpack("<H", head[28:30])[0], struct.unpack("<I", head[30:34])[0]
        row = (width * bits + 7) // 8
        needed = offset + (row + 3) // 4 * 4 * (abs(height) - 1) + row
        if width <= 0 or not height:
            raise UsageError(f"a picture of {width}x{height} pixels")
        if compression == 0 and size < needed:
            raise UsageError(f"cut off: {size:,} bytes of at least {needed:,}")
        return abs(height), width
    try:
        return decode.size(path)
    except UsageError as error:
        raise UsageError(str(error).removeprefix(f"{path}: ")) from None


def _decode(path: str) -> None:
    try:
        decode.read(path)
    except UsageError as error:
        raise UsageError(str(error).removeprefix(f"{path}: ")) from None


def _probe(stream: BinaryIO, head: bytes, size: int) -> bytes:
    digest = hashlib.blake2b(head + size.to_bytes(8, "little"), digest_size=16)
    for i in range(1, _PROBES + 1):
        stream.seek(max(0, size * i // _PROBES - _PROBE))
        digest.update(stream.read(_PROBE))
    return digest.digest()
