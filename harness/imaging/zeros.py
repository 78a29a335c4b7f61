"""Runs of zero bytes in the coded pixels of a lossy file: an interrupted download that left a file of full length.

Formats without checksums decode them without an error. A flat area can be coded as zero bits too, so a run is reported only
where the file's Huffman tables exclude that.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator

from harness.imaging.refused_formats import NOT_FRAMES, Data, jpeg_segments

_RUN = 512
_TAIL = 16
_END = b"\xff\xd9"
_AC = 0x10
_PROGRESSIVE = (0xC2, 0xCA)
_LENGTHS = 16
_ZEROS = re.compile(rb"\0+")


def run_of_zeros(kind: str, data: Data) -> tuple[int, int] | None:
    """Start and length of a run of zero bytes among the coded pixels that no encoder writes, or None."""
    if kind == "JPEG2000" or (kind == "WEBP" and data[12:16] == b"VP8 "):
        length = _zeros_at_end(data)
        return (len(data) - length, length) if length >= _RUN else None
    if kind not in ("JPEG", "MPO"):
        return None
    segments = list(jpeg_segments(data))
    if not segments or segments[-1][0] != 0xDA:
        return None
    start = segments[-1][2]
    # In coded data FF is followed by 00 or a restart marker: the first FF D9 is the end, even if a second image follows.
    end = data.find(_END, start)
    if end < 0:
        length = min(_zeros_at_end(data), len(data) - start)
        if length >= _TAIL:
            return len(data) - length, length
        end = len(data)
    longest = _longest_flat(data, segments)
    at = data.find(bytes(_RUN), start, end)
    while at >= 0:
        found = _ZEROS.match(data, at, end)
        stop = found.end() if found else at + _RUN
        if stop - at > longest:
            return at, stop - at
        at = data.find(bytes(_RUN), stop, end)
    return None


def _longest_flat(data: Data, segments: list[tuple[int, int, int]]) -> int:
    """The longest run of zero bytes that flat blocks can be coded as; 0 where zero bits code something else.

    That needs tables whose shortest code, all zero bits, is `no difference` (DC) and `end of block` (AC): two codes a block.
    A progressive file may refine each block's mean by one bit.
    """
    tables = [table for marker, start, end in segments if marker == 0xC4 for table in _tables(data[start:end])]
    frames = [part for part in segments if 0xC0 <= part[0] <= 0xCF and part[0] not in NOT_FRAMES]
    if not frames or frames[0][2] - frames[0][1] < 6:
        return 0
    marker, start, _ = frames[0]
    height, width, components = struct.unpack(">HHB", data[start + 1 : start + 6])
    # At most as many blocks as a component without subsampling has, each rounded up to the largest sampling.
    blocks: int = components * (height // 8 + 4) * (width // 8 + 4)
    if any(first != 0 for _, _, first in tables):
        bits = 0
    else:
        bits = sum(max((length for kind, length, _ in tables if kind == which), default=0) for which in (0, _AC))
    return blocks * max(bits, int(marker in _PROGRESSIVE)) // 8


def _tables(content: bytes) -> Iterator[tuple[int, int, int]]:
    """Huffman tables: class, length of the shortest code, and its symbol."""
    at = 0
    while at + 1 + _LENGTHS <= len(content):
        counts = content[at + 1 : at + 1 + _LENGTHS]
        shortest = next((i + 1 for i, count in enumerate(counts) if count), 0)
        values = at + 1 + _LENGTHS
        if shortest and values < len(content):
            yield content[at] & _AC, shortest, content[values]
        at = values + sum(counts)


def _zeros_at_end(data: Data) -> int:
    return len(data) - len(bytes(data).rstrip(b"\0"))
