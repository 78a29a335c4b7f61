"""Images of more than 8 bits a channel, and others that must be distinguished by their headers."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Iterator

import numpy as np
from PIL import Image

SIDE = 16


def encoded(image: Image.Image, kind: str, **options: object) -> bytes:
    out = io.BytesIO()
    image.save(out, kind, **options)
    return out.getvalue()


def sixteen() -> np.ndarray:
    """(SIDE, SIDE, 3), all 16 bits used."""
    return np.random.default_rng(0).integers(0, 65536, (SIDE, SIDE, 3), np.uint16)


def eight() -> Image.Image:
    return Image.fromarray((sixteen() >> 8).astype(np.uint8))


def png(depth: int = 16, colour: int = 2) -> bytes:
    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in (sixteen() if colour == 2 else sixteen()[..., 0]))
    header = struct.pack(">IIBBBBB", SIDE, SIDE, depth, colour, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def tiff(bits: int = 16, sample_format: int = 1, channels: int = 3) -> bytes:
    """Strips without compression; floating point where sample_format is 3."""
    kind = {(16, 1): "<u2", (16, 2): "<i2", (8, 2): "<i1", (32, 1): "<u4", (32, 3): "<f4"}[bits, sample_format]
    pixels = (sixteen()[..., :channels] % 100).astype(kind).tobytes()
    entries = [
        (256, 3, (SIDE,)),
        (257, 3, (SIDE,)),
        (258, 3, (bits,) * channels),
        (259, 3, (1,)),
        (262, 3, (2 if channels == 3 else 1,)),
        (273, 4, (8,)),
        (277, 3, (channels,)),
        (278, 3, (SIDE,)),
        (279, 4, (len(pixels),)),
        (339, 3, (sample_format,) * channels),
    ]
    after = 8 + len(pixels)
    extra_at, extra, body = after + 2 + 12 * len(entries) + 4, b"", b""
    for tag, type_, values in entries:
        packed = b"".join(struct.pack("<H" if type_ == 3 else "<I", v) for v in values)
        if len(packed) > 4:
            packed, extra = struct.pack("<I", extra_at + len(extra)), extra + packed
        body += struct.pack("<HHI", tag, type_, len(values)) + packed.ljust(4, b"\0")
    return b"II*\0" + struct.pack("<I", after) + pixels + struct.pack("<H", len(entries)) + body + bytes(4) + extra


def patched(data: bytes, changes: Iterator[tuple[int, int]] | list[tuple[int, int]]) -> bytes:
    changed = bytearray(data)
    for place, value in changes:
        changed[place] = value
    return bytes(changed)


def jpeg2000(depth: int, *, codestream: bool = False) -> bytes:
    """An 8-bit image whose SIZ marker names another depth for every component."""
    data = encoded(eight(), "JPEG2000", no_jp2=codestream)
    siz = data.index(b"\xff\x4f\xff\x51")
    return patched(data, [(siz + 42 + 3 * i, depth - 1) for i in range(3)])


def avif(depth: int) -> bytes:
    data = encoded(eight(), "AVIF")
    flags = data.index(b"av1C") + 6
    pixi = data.index(b"pixi") + 9
    deep = {8: 0, 10: 0x40, 12: 0x60}[depth]
    return patched(data, [(flags, data[flags] | deep), *((pixi + i, depth) for i in range(3))])


def jpeg(precision: int) -> bytes:
    data = encoded(eight(), "JPEG")
    return patched(data, [(data.index(b"\xff\xc0") + 4, precision)])


def ppm(largest: int, *, plain: bool = False, comment: bytes = b"") -> bytes:
    values = (sixteen().astype(np.uint32) * largest // 65535).astype(np.uint16)
    head = b"%s\n%s%d %d\n%d\n" % (b"P3" if plain else b"P6", comment, SIDE, SIDE, largest)
    if plain:
        return head + b" ".join(b"%d" % v for v in values.ravel())
    return head + values.astype(">u2" if largest > 255 else "u1").tobytes()


def pgm(largest: int) -> bytes:
    values = (sixteen()[..., 0].astype(np.uint32) * largest // 65535).astype(">u2" if largest > 255 else "u1")
    return b"P5 %d %d %d\n" % (SIDE, SIDE, largest) + values.tobytes()


def sgi(bytes_a_channel: int) -> bytes:
    return encoded(eight(), "SGI", bpc=bytes_a_channel)


def tga_grey_16(attributes: int) -> bytes:
    head = struct.pack("<BBBHHBHHHHBB", 0, 0, 3, 0, 0, 0, 0, 0, SIDE, SIDE, 16, 0x20 | attributes)
    values = sixteen()[..., 0] if attributes != 8 else sixteen()[..., 0] | 0xFF00
    return head + values.astype("<u2").tobytes()


def mpo(second: int = 2) -> bytes:
    """A camera's JPEG with further images in it, each unlike the first."""
    others = [Image.fromarray(np.full((8, 8, 3), 40 * i, np.uint8)) for i in range(1, second)]
    return encoded(eight(), "MPO", save_all=True, append_images=others)
