"""Names of files that operating systems and office programs leave in folders (`.DS_Store`, `Thumbs.db`); they are never read."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path, PurePosixPath
from typing import TypeVar

P = TypeVar("P", bound=Path)

_NAMES = {".ds_store", "thumbs.db", "ehthumbs.db", "desktop.ini", "icon\r", "__macosx", ".directory", ".localized"}


def is_leftover(name: str) -> bool:
    """Whether a file or folder of this name is a leftover of macOS (`._x`, `.DS_Store`, `__MACOSX`), Windows (`Thumbs.db`,
    `desktop.ini`) or an office program (`~$x.xlsx`, `.~lock.x#`)."""
    return name.startswith(("._", "~$", ".~lock.")) or name.lower() in _NAMES


def in_leftovers(path: str) -> bool:
    """Whether a path inside an archive is a leftover's, or lies in one."""
    return any(is_leftover(part) for part in PurePosixPath(path).parts)


def without_leftovers(paths: Iterable[P]) -> list[P]:
    """The paths in their order without those whose own name is a leftover's."""
    return [path for path in paths if not is_leftover(path.name)]
