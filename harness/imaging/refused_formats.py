"""Image file formats: the accepted ones and their bit depths; names and advice for the others.

`FORMATS` is the complete list. Pillow opens files of more than 8 bits a channel as 8 bits for several formats, without a
warning, so the bit depth is read from the file's own bytes. A file of unknown depth is refused as too deep.
"""

from __future__ import annotations

import mmap
import re
import struct
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any, NamedTuple

from PIL import ImageFile

from harness.runtime.errors import UsageError

Data = bytes | mmap.mmap
JXL_STARTS = (b"\xff\x0a", b"\x00\x00\x00\x0cJXL \r\n\x87\n")
_JP2 = b"\x00\x00\x00\x0cjP  \r\n\x87\n"
_CODESTREAM = b"\xff\x4f\xff\x51"


class Format(NamedTuple):
    """One accepted file format."""

    depth: Callable[[Data], int | None] | None
    """Returns the bits of the deepest channel from the file's bytes, None if unknown. Without a function: `opened_depth`."""
    depth_source: str
    """Where the depth is read from, for messages and documents."""


_FULL = {b"meta": 4, b"stsd": 8, b"av01": 78}
"""Bytes before the inner boxes of these."""
_CONTAINERS = (b"jp2h", b"meta", b"iprp", b"ipco", b"moov", b"trak", b"mdia", b"minf", b"stbl", b"stsd", b"av01")


def boxes(data: Data, start: int = 0, end: int | None = None) -> Iterator[tuple[bytes, int, int]]:
    """The boxes of a container, also those inside others: type, and where the content starts and ends."""
    end = len(data) if end is None else end
    while start + 8 <= end:
        length, kind = struct.unpack(">I4s", data[start : start + 8])
        head = 8
        if length == 1 and start + 16 <= end:
            length, head = struct.unpack(">Q", data[start + 8 : start + 16])[0], 16
        stop = end if length == 0 else start + length
        if (length != 0 and length < head) or stop > end:
            return
        yield kind, start + head, stop
        if kind in _CONTAINERS:
            yield from boxes(data, start + head + _FULL.get(kind, 0), stop)
        start = stop


def _eight(_: Data) -> int:
    return 8


def _png(data: Data) -> int | None:
    return data[24] if len(data) > 24 and data[12:16] == b"IHDR" else None


NOT_FRAMES = (0xC4, 0xC8, 0xCC)
"""Markers between C0 and CF that are not frame headers."""


def jpeg_segments(data: Data) -> Iterator[tuple[int, int, int]]:
    """The marker segments of a JPEG before its first scan, that scan's header included: marker, start and end of the content."""
    at = 2
    while at + 4 <= len(data) and data[at] == 0xFF:
        marker = data[at + 1]
        if marker == 0xFF:
            at += 1
            continue
        length = struct.unpack(">H", data[at + 2 : at + 4])[0]
        yield marker, at + 4, at + 2 + length
        if marker == 0xDA:
            return
        at += 2 + length


def _jpeg(data: Data) -> int | None:
    for marker, start, end in jpeg_segments(data):
        if (0xC0 <= marker <= 0xCF and marker not in NOT_FRAMES) or marker == 0xF7:
            return data[start] if start < min(end, len(data)) else None
    return None


_TOKEN = re.compile(rb"(?:\s|#[^\r\n]*[\r\n])*([^\s#]+)")


def _ppm(data: Data) -> int | None:
    head = bytes(data[:4096])
    kind, place = head[:2], 2
    numbers: list[int] = []
    wanted = 2 if kind in (b"P1", b"P4") else 3
    while len(numbers) < wanted:
        found = _TOKEN.match(head, place)
        if found is None or not found[1].isdigit():
            return None
        numbers.append(int(found[1]))
        place = found.end()
    return 1 if wanted == 2 else 8 if 0 < numbers[2] < 256 else numbers[2].bit_length() if numbers[2] else None


def _jpeg2000(data: Data) -> int | None:
    """Of all components in the codestream, and of a palette. Below 8 bits Pillow does not scale the values, so it is refused."""
    start, depths = 0, []
    if data[:12] == _JP2:
        start = -1
        for kind, at, end in boxes(data):
            if kind == b"pclr" and at + 3 <= end:
                depths += [(entry & 0x7F) + 1 for entry in data[at + 3 : at + 3 + data[at + 2]]]
            if kind == b"jp2c":
                start = at
                break
    if start < 0 or data[start : start + 4] != _CODESTREAM or len(data) < start + 42:
        return None
    count = struct.unpack(">H", data[start + 40 : start + 42])[0]
    components = data[start + 42 : start + 42 + 3 * count : 3]
    if not count or len(components) < count or any(entry & 0x80 for entry in components):
        return None  # signed samples are not images of 0..255
    depths += [entry + 1 for entry in components]
    return min(depths) if max(depths) <= 8 else max(depths)


def _avif(data: Data) -> int | None:
    depths = []
    for kind, at, end in boxes(data):
        if kind == b"av1C" and at + 3 <= end:
            depths.append(12 if data[at + 2] & 0x60 == 0x60 else 10 if data[at + 2] & 0x40 else 8)
        elif kind == b"pixi" and at + 5 <= end:
            depths += data[at + 5 : min(end, at + 5 + data[at + 4])]
    return max(depths, default=None)


def _tga(data: Data) -> int | None:
    """A grey image of 16 bits a pixel has either an alpha channel, which its header counts, or one channel of 16 bits."""
    grey = len(data) > 17 and data[2] in (3, 11)
    return None if grey and data[16] == 16 and data[17] & 15 != 8 else 8


class JxlHeader(NamedTuple):
    """The fields of a JPEG XL file's header."""

    width: int
    height: int
    depth: int
    """Bits a channel; 32 for floating point."""
    animated: bool


def jxl_header(data: Data) -> JxlHeader | None:
    """The header of a JPEG XL file, as ISO/IEC 18181-1 writes it; None where it cannot be read."""
    stream = bytes(data[:64])
    if data[:12] == JXL_STARTS[1]:
        content = next(((k, a, e) for k, a, e in boxes(data) if k in (b"jxlc", b"jxlp")), None)
        if content is None:
            return None
        at = content[1] + (4 if content[0] == b"jxlp" else 0)
        stream = bytes(data[at : min(content[2], at + 64)])
    if stream[:2] != JXL_STARTS[0]:
        return None
    bits = _Bits(stream[2:])
    with suppress(IndexError):
        width, height = _jxl_size(bits)
        if bits.take(1):  # all fields at their defaults
            return JxlHeader(width, height, 8, False)
        if bits.take(1):
            bits.take(3)  # orientation, which the decoder applies
            if bits.take(1):
                _jxl_size(bits)
            if bits.take(1):  # a preview
                ways = ((16, 0), (32, 0), (1, 5), (33, 9)) if bits.take(1) else ((1, 6), (65, 8), (321, 10), (1345, 12))
                bits.choose(*ways)
                if bits.take(3) == 0:
                    bits.choose(*ways)
            if bits.take(1):
                return JxlHeader(width, height, 8, True)
        floating = bits.take(1)
        return JxlHeader(width, height, 32 if floating else bits.choose((8, 0), (10, 0), (12, 0), (1, 6)), False)
    return None


class _Bits:
    """Bits of a JPEG XL header, lowest first."""

    def __init__(self, data: bytes) -> None:
        self.data, self.at = data, 0

    def take(self, count: int) -> int:
        value = 0
        for i in range(count):
            value |= (self.data[self.at // 8] >> self.at % 8 & 1) << i
            self.at += 1
        return value

    def choose(self, *ways: tuple[int, int]) -> int:
        """A number coded in one of four ways, each an offset and a count of further bits."""
        offset, count = ways[self.take(2)]
        return offset + self.take(count)


_RATIOS = ((1, 1), (12, 10), (4, 3), (3, 2), (16, 9), (5, 4), (2, 1))


def _jxl_size(bits: _Bits) -> tuple[int, int]:
    small = bits.take(1)

    def side() -> int:
        return 8 * (1 + bits.take(5)) if small else bits.choose((1, 9), (1, 13), (1, 18), (1, 30))

    height = side()
    ratio = bits.take(3)
    if ratio == 0:
        return side(), height
    over, under = _RATIOS[ratio - 1]
    return height * over // under, height


FORMATS: dict[str, Format] = {
    "BMP": Format(_eight, "at most 8 in every layout that is opened"),
    "DIB": Format(_eight, "at most 8 in every layout that is opened"),
    "PNG": Format(_png, "bit depth in IHDR"),
    "JPEG": Format(_jpeg, "precision in the frame header"),
    "MPO": Format(_jpeg, "precision in the frame header of the primary image"),
    "TIFF": Format(None, "BitsPerSample and SampleFormat"),
    "WEBP": Format(_eight, "8 by specification"),
    "PPM": Format(_ppm, "largest value in the header (PBM, PGM, PPM)"),
    "GIF": Format(_eight, "8 by specification"),
    "JPEG2000": Format(_jpeg2000, "component sizes in SIZ, and the palette's; fewer than 8 bits are refused too"),
    "AVIF": Format(_avif, "av1C and pixi of every coded item"),
    "QOI": Format(_eight, "8 by specification"),
    "PCX": Format(lambda data: data[3] if len(data) > 3 else None, "bits per plane in the header"),
    "SGI": Format(lambda data: 8 * data[3] if len(data) > 3 else None, "bytes per channel in the header"),
    "JXL": Format(
        lambda data: header.depth if (header := jxl_header(data)) else None,
        "bit depth in the image metadata; opened where the plug-in pillow-jxl-plugin is installed",
    ),
    "TGA": Format(_tga, "at most 8; grey of 16 bits a pixel without a counted alpha channel is refused"),
}
"""Not all formats of Pillow: its readers of PostScript and metafiles start other programs on a file's content. TGA is last,
because it has no signature."""

_BITS, _SAMPLES, _SUBFILE, _DNG = 258, 339, 254, 50706


def opened_depth(image: ImageFile.ImageFile) -> int | None:
    """Bits of the deepest channel of an opened TIFF."""
    tags: Any = getattr(image, "tag_v2", {})
    samples = set(tags.get(_SAMPLES, (1,)))
    bits: int | None = max(tags.get(_BITS, (1,)), default=None)
    # 1: whole numbers without a sign, 3: floating point; signed ones are not images of 0..255.
    return bits if samples == {1} else 32 if 3 in samples else None


def refuse_preview(image: ImageFile.ImageFile) -> None:
    """Refuse a TIFF whose first page is not the image itself: in a camera's raw file it is a small preview."""
    tags: Any = getattr(image, "tag_v2", {})
    if _DNG in tags or int(tags.get(_SUBFILE, 0)) & 1:
        raise UsageError("a camera's raw file, or one that begins with a small preview; convert it to 8-bit RGB first")


def refuse_depth(depth: int | None, kind: str) -> None:
    """Refuse an image of more than 8 bits a channel, or of unknown depth; raises UsageError."""
    if depth is None:
        raise UsageError(f"its number of bits a channel is unknown ({kind}: {FORMATS[kind].depth_source}); {_CONVERT}")
    if depth > 8:
        raise UsageError(f"more than 8 bits a channel ({depth}); {_CONVERT}")
    if kind == "JPEG2000" and depth < 8:
        raise UsageError(f"a JPEG 2000 image of {depth} bits a channel, whose values Pillow does not scale to 0..255; {_CONVERT}")


_CONVERT = "convert it to 8-bit RGB first, in the way your protocol asks"

_OTHER_IMAGES: tuple[tuple[bytes, str], ...] = (
    (rb"....ftyp(heic|heix|hevc|hevx|heim|heis|mif1|msf1)", "a HEIC image"),
    (rb"....ftypcrx |II\*\0....CR\x02", "a camera's raw file"),
    (rb"II\xbc", "a JPEG XR image"),
    (rb"\x76\x2f\x31\x01", "an OpenEXR image"),
    (rb"#\?(RADIANCE|RGBE)", "a Radiance HDR image"),
    (rb"SDPX|XPDS", "a DPX image"),
    (rb"8BPS", "a Photoshop file"),
    (rb"P[Ff]\s", "a portable float map"),
    (rb"P7\s", "a PAM image"),
    (rb"SIMPLE  =", "a FITS file"),
    (rb"DDS ", "a DDS texture"),
    (rb"BPG\xfb", "a BPG image"),
    (rb"FLIF", "a FLIF image"),
    (rb"\s*(<\?xml[^>]*>\s*)?(<!--.*?-->\s*)?<svg", "an SVG drawing"),
)
_NOT_IMAGES: tuple[tuple[bytes, str], ...] = (
    (rb"%PDF", "not an image but a PDF document"),
    (rb"....ftyp(isom|iso2|mp41|mp42|qt  )|YUV4MPEG2", "not an image but a video"),
    (rb"\x93NUMPY", "not an image but a NumPy array"),
    (rb"PK\x03\x04", "not an image but a zip archive"),
    (rb"(?i:\s*<(!doctype html|html|head))", "not an image but a web page (a download that failed?)"),
    (rb"version https://git-lfs", "not an image but a pointer of Git LFS (`git lfs pull` gets it)"),
    (rb"\0{512}", "nothing but zero bytes (a download that did not finish?)"),
)
_SIGNATURES = [
    *((re.compile(pattern, re.DOTALL), f"{name}, which is not read; {_CONVERT}") for pattern, name in _OTHER_IMAGES),
    *((re.compile(pattern, re.DOTALL), text) for pattern, text in _NOT_IMAGES),
]


def named(data: Data) -> str | None:
    """The format of a file that is not accepted, with advice; None where it is unknown."""
    head = bytes(data[:512])
    return next((text for pattern, text in _SIGNATURES if pattern.match(head)), None)
