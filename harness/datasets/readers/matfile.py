"""Reading vectors of numbers or texts from MATLAB 5 .mat files.

scipy is not used, because its parser crashes the process (segmentation fault) on some damaged files. Format: "MAT-File
Format", The MathWorks, R2019b, chapter 1.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator

import numpy as np

_LARGEST = 64 << 20
_NUMBERS = {1: "i1", 2: "u1", 3: "i2", 4: "u2", 5: "i4", 6: "u4", 7: "f4", 9: "f8", 12: "i8", 13: "u8"}
_TEXTS = {1: "latin-1", 2: "latin-1", 4: "utf-16", 16: "utf-8", 17: "utf-16", 18: "utf-32"}
_MATRIX, _COMPRESSED = 14, 15
_CELL, _CHARACTERS, _NUMERIC = 1, 4, range(6, 16)


def read_vector(data: bytes, variable: str) -> list[float] | list[str]:
    """The elements of `variable`, in the file's order: numbers, or texts (a cell's, or the one text of a character row).

    Raises ValueError for any other variable or file.
    """
    if len(data) < 128 or data[126:128] not in (b"IM", b"MI"):
        raise ValueError("not a MATLAB 5 file")
    order = "<" if data[126:128] == b"IM" else ">"
    for kind, content in _elements(data[128:], order):
        if kind == _COMPRESSED:
            unpacker = zlib.decompressobj()
            try:
                unpacked = unpacker.decompress(content, _LARGEST)
            except zlib.error as error:
                raise ValueError(str(error)) from None
            if unpacker.unconsumed_tail:
                raise ValueError(f"unpacks to more than {_LARGEST >> 20} MB")
            for inner, matrix in _elements(unpacked, order):
                if inner == _MATRIX and (found := _matrix(matrix, order, variable)) is not None:
                    return found
        elif kind == _MATRIX and (found := _matrix(content, order, variable)) is not None:
            return found
    raise ValueError(f"no variable {variable!r}")


def _elements(data: bytes, order: str) -> Iterator[tuple[int, bytes]]:
    """(type, content) of the data elements in `data`, one after another; raises ValueError where one is truncated."""
    place = 0
    while place + 8 <= len(data):
        kind, size = struct.unpack_from(order + "II", data, place)
        if kind >> 16:  # a small element: its size is in the word of its type, its content in the next word
            kind, size, start, end = kind & 0xFFFF, kind >> 16, place + 4, place + 8
        else:
            start, end = place + 8, place + 8 + size
            end += 0 if kind == _COMPRESSED else -size % 8
        if size > len(data) - start:
            raise ValueError("cut short")
        yield kind, data[start : start + size]
        place = end


def _matrix(content: bytes, order: str, wanted: str | None) -> list[float] | list[str] | None:
    """A matrix's elements; None when its name is not `wanted` (None: any name)."""
    parts = list(_elements(content, order))
    if len(parts) < 3 or len(parts[0][1]) < 8:
        raise ValueError("a matrix without its flags, dimensions or name")
    if wanted is not None and parts[2][1] != wanted.encode("latin-1", "replace"):
        return None
    flags = struct.unpack_from(order + "I", parts[0][1])[0]
    kind, values = flags & 0xFF, parts[3:]
    if flags & 0x800:
        raise ValueError("complex numbers")
    shape = struct.unpack(f"{order}{len(parts[1][1]) // 4}i", parts[1][1][: len(parts[1][1]) // 4 * 4])
    count = int(np.prod(np.array(shape, dtype=object))) if shape and min(shape) >= 0 else -1
    if kind == _CELL:
        cells = [_matrix(inner, order, None) for _, inner in values]
        if len(cells) != count:
            raise ValueError(f"{len(cells)} cells of {count}")
        return [str(cell[0]) if cell else "" for cell in cells]
    if len(values) != 1:
        raise ValueError("not a vector")
    stored, raw = values[0]
    if kind == _CHARACTERS and stored in _TEXTS:
        encoding = _TEXTS[stored]
        if encoding in ("utf-16", "utf-32"):
            encoding += "-le" if order == "<" else "-be"
        return [raw.decode(encoding, "replace")] if raw else []
    if kind in _NUMERIC and stored in _NUMBERS:
        size = int(_NUMBERS[stored][1])
        numbers = np.frombuffer(raw[: len(raw) // size * size], np.dtype(order + _NUMBERS[stored]))
        if len(numbers) != count:
            raise ValueError(f"{len(numbers)} numbers of {count}")
        return [float(number) for number in numbers]
    raise ValueError(f"neither numbers nor text (class {kind})")
