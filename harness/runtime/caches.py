"""The cache folder: files that may be deleted, because the harness can make them again."""

from __future__ import annotations

import os
import sys
from pathlib import Path


def cache_folder() -> Path:
    """`harness` in $HARNESS_CACHE, else in the user's cache folder ($XDG_CACHE_HOME, or the platform's)."""
    for variable in ("HARNESS_CACHE", "XDG_CACHE_HOME"):
        if place := os.environ.get(variable):
            return Path(place).expanduser() / "harness"
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches" / "harness"
    if sys.platform == "win32" and (place := os.environ.get("LOCALAPPDATA")):
        return Path(place) / "harness"
    return Path.home() / ".cache" / "harness"
