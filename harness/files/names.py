"""Checks of names and keys that become parts of paths; reading of files without following links."""

from __future__ import annotations

import os
import re
import stat
from pathlib import Path

from harness.runtime.errors import UsageError
from harness.runtime.text import visible

KEY = re.compile("[0-9a-f]{16}")
"""A run's key."""
_LONGEST = 200
"""Bytes of a name: file systems take 255, and a suffix has to fit."""
_LARGEST = 1 << 30


def name_problem(name: object) -> str:
    """Why `name` (of a model, dataset, challenge) cannot be part of a path; empty where it can."""
    if not isinstance(name, str):
        return "is not text"
    if not name.strip(". \t"):
        return "is empty" if not name.strip() else "consists of dots only"
    if len(name.encode("utf-8", "replace")) > _LONGEST:
        return f"is longer than {_LONGEST} bytes"
    if name != name.strip():
        return "begins or ends with a space"
    if any(c in "/\\" for c in name):
        return "holds a path separator"
    return "holds characters that cannot be shown" if visible(name) != name or "\n" in name or "\t" in name else ""


def key_problem(key: object) -> str:
    """Why `key` cannot be a run's key; empty where it can."""
    return "" if isinstance(key, str) and KEY.fullmatch(key) else "is not 16 hexadecimal digits"


def read_own(path: Path, largest: int = _LARGEST) -> bytes:
    """The bytes of a regular file. A link is not followed; a folder, pipe or device is refused without waiting.

    Raises UsageError.
    """
    flags = os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
    try:
        if path.is_symlink():
            raise UsageError(f"{path}: a link, not a file; links are not followed here")
        descriptor = os.open(path, flags)
    except OSError as error:
        raise UsageError(f"{path}: cannot be read: {error.strerror}") from None
    found = os.fstat(descriptor)
    if not stat.S_ISREG(found.st_mode) or found.st_size > largest:
        os.close(descriptor)
        what = f"{found.st_size:,} bytes are more than any such file has" if stat.S_ISREG(found.st_mode) else "not a regular file"
        raise UsageError(f"{path}: {what}")
    with open(descriptor, "rb") as stream:
        return stream.read()
