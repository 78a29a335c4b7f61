"""Check that a path is a regular file: opening a pipe would wait for a writer, and reading a device may never end."""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Iterator
from pathlib import Path

from harness.runtime.errors import UsageError

_KINDS = ((stat.S_ISFIFO, "a pipe"), (stat.S_ISCHR, "a device"), (stat.S_ISBLK, "a device"), (stat.S_ISSOCK, "a socket"))


def require_regular(path: str | Path) -> None:
    """Raise OSError where `path` (or what it links to) is a pipe, a device or a socket; call before it is opened.

    For an absent file and for a folder, opening itself raises the error.
    """
    try:
        mode = os.stat(path).st_mode
    except (OSError, ValueError):
        return
    for kind, name in _KINDS:
        if kind(mode):
            raise OSError(errno.EINVAL, f"it is {name}, not a regular file", str(path))


@contextlib.contextmanager
def reading(path: str | Path) -> Iterator[None]:
    """Open and read `path` inside: the system's refusals, and what is not a regular file, are one clear UsageError."""
    try:
        require_regular(path)
        yield
    except FileNotFoundError:
        raise UsageError(f"{path}: no such file") from None
    except OSError as error:
        raise UsageError(f"{path}: cannot be read: {error.strerror or error}") from None
