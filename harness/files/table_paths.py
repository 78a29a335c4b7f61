"""Paths in tables written on other systems: backslashes of Windows, accents composed (NFC) or decomposed (NFD)."""

from __future__ import annotations

import os
import re
import unicodedata
from pathlib import Path, PurePosixPath

from harness.runtime.errors import UsageError

_DRIVE = re.compile(r"[A-Za-z]:[\\/]")


def file_name(value: str) -> str:
    """The last component of a path, with slashes or backslashes."""
    return PurePosixPath(value.replace("\\", "/")).name


def short_names(paths: list[str]) -> list[str]:
    """File names where they are unique, else the paths, with slashes."""
    short = [file_name(path) for path in paths]
    return short if len(set(short)) == len(short) else [path.replace("\\", "/") for path in paths]


def require_utf8(path: str | Path | None) -> None:
    """Refuse a path that is not text: records and tables hold paths as UTF-8. Raises UsageError."""
    try:
        str(path or "").encode("utf-8")
    except UnicodeEncodeError:
        raise UsageError(f"{path}: the name is not UTF-8 text (of an older system?); rename it, or link to it: ln -s") from None


class TablePaths:
    """Files below the folder of a table. A path is used unchanged where that is a file, else in its other spellings."""

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        self._listings: dict[str, dict[str, list[str]]] = {}

    def find(self, value: str) -> str:
        """The path of the file that `value` names; without one, `value` below the folder, for the message."""
        plain = str(self.folder / value)
        if "\\" not in value and value.isascii():
            return plain
        for path in dict.fromkeys((plain, str(self.folder / value.replace("\\", "/")))):
            if os.path.isfile(path):
                return path
        return self._in_another_form(self.folder / value.replace("\\", "/")) or plain

    def _in_another_form(self, path: Path) -> str | None:
        """The one file whose path differs in Unicode composition alone."""
        place = path.anchor or "."
        for part in path.parts[1:] if path.anchor else path.parts:
            found = [os.path.join(place, part)]
            if not os.path.exists(found[0]):
                if place not in self._listings:
                    entries = self._listings.setdefault(place, {})
                    for name in _entries(place):
                        entries.setdefault(unicodedata.normalize("NFC", name), []).append(os.path.join(place, name))
                found = self._listings[place].get(unicodedata.normalize("NFC", part), [])
            if len(found) != 1:
                return None
            place = found[0]
        return place if os.path.isfile(place) else None


def explained(path: str) -> str:
    """A path without a file, with the probable reason where it is known."""
    if match := _DRIVE.search(path):
        return f"{path} (a path of a Windows machine, {path[match.start() : match.end()]}: write paths relative to the table)"
    plain = Path(path.replace("\\", "/"))
    said = " (its backslashes were taken as slashes too)" if "\\" in path else ""
    form, same = unicodedata.normalize("NFC", plain.name).casefold(), []
    for name in _entries(str(plain.parent)):
        raw = os.fsencode(name)
        readings = {name, *(raw.decode(encoding, errors="replace") for encoding in ("cp1252", "latin-1") if not raw.isascii())}
        if any(unicodedata.normalize("NFC", reading).casefold() == form for reading in readings):
            same.append(name)
    if not same:
        return path + said
    if len(same) > 1:
        return f"{path} (there are {' and '.join(map(ascii, sorted(same)))}, of which none is spelt so)"
    entry = same[0]
    try:
        entry.encode("utf-8")
    except UnicodeEncodeError:
        return f"{path} (there is {entry!a}, a name that is not UTF-8: rename the file)"
    if entry == plain.name:
        return f"{path} (not a file)"
    if unicodedata.normalize("NFC", entry) == unicodedata.normalize("NFC", plain.name):
        return f"{path} (there is the same name in another Unicode form, {entry!a})"
    return f"{path} (there is {entry}: the letter case differs)"


def _entries(folder: str) -> list[str]:
    try:
        return os.listdir(folder)
    except OSError:
        return []
