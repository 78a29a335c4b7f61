"""Files that this user has named on a command line before, so that a record may refer to them.

A record names the table or weights that a run used. A record may come from anyone, so its path alone is not a reason to open
the file; a path that the same user has named before is. For each such path an empty file is kept, named by the path's hash.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
from pathlib import Path


def remember(*paths: str | Path | None) -> None:
    """Note that the caller named these files. If the folder cannot be written, the user must name them again later."""
    for path in paths:
        if not path:
            continue
        with contextlib.suppress(OSError):
            mark = _mark(path)
            mark.parent.mkdir(parents=True, exist_ok=True)
            mark.touch()


def remembered(path: str | Path) -> bool:
    """Whether the caller named this file before, on this machine."""
    return os.path.isfile(_mark(path))


def _mark(path: str | Path) -> Path:
    # Not in the cache: a cache may be shared, or come with an image of a machine.
    state = os.environ.get("XDG_STATE_HOME") or os.environ.get("LOCALAPPDATA") or os.path.join("~", ".local", "state")
    digest = hashlib.sha256(os.path.abspath(path).encode("utf-8", "surrogatepass")).hexdigest()
    return Path(os.path.expanduser(state)) / "harness" / "named-files" / digest
