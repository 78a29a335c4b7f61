"""Which files this user has named on a command line before.

A record says which table or weights a run used. A record may be a stranger's, so the path alone is no reason to open the
file; that the same user has named the same path before is one. For each path an empty file is kept, named by its hash.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
from pathlib import Path


def remember(*paths: str | Path | None) -> None:
    """Note that the caller named these files. A folder that cannot be written costs nothing but a question later."""
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
    # Not in the cache: a cache may be shared or come with an image of a machine, and what a user named is the user's.
    state = os.environ.get("XDG_STATE_HOME") or os.environ.get("LOCALAPPDATA") or os.path.join("~", ".local", "state")
    digest = hashlib.sha256(os.path.abspath(path).encode("utf-8", "surrogatepass")).hexdigest()
    return Path(os.path.expanduser(state)) / "harness" / "named-files" / digest
