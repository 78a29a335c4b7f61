"""Reading JSON: strictly for records of unknown origin, leniently for the harness's own notes."""

from __future__ import annotations

import contextlib
import json
import math
import re
from pathlib import Path
from typing import Any

import msgspec

from harness.files.regular import require_regular

# Zeros before the digits do not count: 0.00012345678901234567 is an ordinary number.
_LONG_NUMBER = re.compile(rb"[1-9][0-9]{18}")


def strict_json(data: bytes) -> Any:
    """The document in `data`; raises ValueError or RecursionError for one that cannot be written again unchanged.

    That holds for numbers that are not finite or have more than 63 bits, and for lone surrogates, which cannot be hashed.
    """

    # What msgspec reads, it reads as below, but for numbers of so many digits.
    if not _LONG_NUMBER.search(data):
        with contextlib.suppress(msgspec.DecodeError, RecursionError):
            return msgspec.json.decode(data)

    def finite(text: str) -> float:
        value = float(text)
        if not math.isfinite(value):
            raise ValueError(f"{text} is not a finite number")
        return value

    def bounded(text: str) -> int:
        value = int(text)
        if abs(value) >= 1 << 63:
            raise ValueError(f"{text[:20]}... has more than 63 bits")
        return value

    document = json.loads(data.decode("utf-8"), parse_float=finite, parse_constant=finite, parse_int=bounded)
    if b"\\ud" in data.lower():
        json.dumps(document, ensure_ascii=False).encode("utf-8")
    return document


def noted(path: Path) -> dict[str, object] | None:
    """The table in a JSON file; None for an absent, truncated, damaged or not regular file."""
    with contextlib.suppress(OSError, ValueError, RecursionError):
        require_regular(path)
        found = json.loads(path.read_text(encoding="utf-8"))
        return found if isinstance(found, dict) else None
    return None
