"""Checks of a downloaded file's content: a web page, an error document or a truncated file in place of the file.

It reads a file's first bytes and, where the format states its length, its end. Nothing is unpacked to disk.
"""

from __future__ import annotations

import contextlib
import gzip
import html
import json
import os
import re
import tarfile
import zipfile
from pathlib import Path, PurePath
from typing import IO

_START = 1 << 16
_JSON_LIMIT = 64 << 20
_GZIP_LIMIT = 1 << 30
"""Larger gzip files are not read to their end: unpacking checks that."""

_MAGIC = {
    ".zip": (b"PK\x03\x04", b"PK\x05\x06"),
    ".xlsx": (b"PK\x03\x04",),
    ".npz": (b"PK\x03\x04",),
    ".gz": (b"\x1f\x8b",),
    ".tgz": (b"\x1f\x8b",),
    ".bz2": (b"BZh",),
    ".xz": (b"\xfd7zXZ\x00",),
    ".rar": (b"Rar!\x1a\x07",),
    ".7z": (b"7z\xbc\xaf\x27\x1c",),
    ".xls": (b"\xd0\xcf\x11\xe0",),
    ".png": (b"\x89PNG\r\n\x1a\n",),
    ".bmp": (b"BM",),
    ".jpg": (b"\xff\xd8\xff",),
    ".jpeg": (b"\xff\xd8\xff",),
    ".pdf": (b"%PDF",),
}
_TEXTS = (".csv", ".txt", ".tsv", ".m", ".md", ".json", ".toml")
_PAGES = (".html", ".htm", ".xhtml")
_UTF16 = (b"\xff\xfe", b"\xfe\xff")


def page_problem(start: bytes, name: str) -> str:
    """Why the first bytes are a web page and not the file `name`; empty where they are not."""
    text = start.removeprefix(b"\xef\xbb\xbf").lstrip()[:4096].lower()
    looks = text.startswith((b"<!doctype html", b"<html", b"<head", b"<script", b"<body"))
    looks = looks or (text.startswith((b"<?xml", b"<!--")) and b"<html" in text)
    if not looks or name.lower().endswith(_PAGES):
        return ""
    found = re.search(rb"<title[^>]*>([^<]{1,200})", start, re.IGNORECASE)
    title = " ".join(html.unescape(found[1].decode("utf-8", "replace")).split())[:80] if found else ""
    called = f" called {title!r}" if title else ""
    return f"the server sent a web page{called}, not the file (a login, a quota or a moved file)"


def content_problem(path: Path, name: str) -> str:
    """Why the complete file at `path` cannot be the file `name`; empty where no problem was found.

    Args:
        path: The file.
        name: Its future name, whose extension gives the format. For an unknown extension only web pages, git-lfs pointers
            and error documents are detected.

    Raises:
        OSError: when the file cannot be read.
    """
    kind = PurePath(name.lower()).suffix
    size = os.stat(path).st_size
    with open(path, "rb") as stream:
        start = stream.read(_START)
        if not start:
            return "it is empty"
        if problem := page_problem(start, name):
            return problem
        if start.startswith(b"version https://git-lfs"):
            return "the server sent a git-lfs pointer, not the file"
        if kind != ".json" and start.lstrip()[:1] == b"{" and size <= len(start):
            with contextlib.suppress(ValueError, RecursionError):  # the server's error document; its own words are quoted
                document = json.loads(start)
                words = [document[key] for key in ("error", "message", "detail") if isinstance(document.get(key), str)]
                return f"the server sent a JSON document, not the file{f': {words[0][:100]!r}' if words else ''}"
        if kind in _MAGIC and not start.startswith(_MAGIC[kind]):
            packed = " (it is compressed with gzip)" if start.startswith(b"\x1f\x8b") else ""
            return f"it does not begin like a {kind} file{packed}"
        if kind in _TEXTS:
            return _text_problem(path, start, kind, size)
        if kind in (".zip", ".xlsx", ".npz"):
            try:
                with zipfile.ZipFile(path) as archive:
                    sheets = any(name.startswith("xl/") for name in archive.namelist())
            except Exception:  # zipfile may raise any error for a malformed archive
                return "it is damaged or cut short: the table at the end of a zip file is missing"
            return "a zip archive, but not a spreadsheet" if kind == ".xlsx" and not sheets else ""
        if kind in (".gz", ".tgz"):
            return _gzip_problem(path, size)
        if kind == ".tar":
            return _tar_problem(stream, size)
        if kind == ".7z":
            end = 32 + int.from_bytes(start[12:20], "little") + int.from_bytes(start[20:28], "little")
            return f"it is cut short: {size:,} bytes of {end:,}" if end > size else ""
        if kind == ".mat" and start.startswith(b"\x1f\x8b"):
            return "it is compressed with gzip, which a .mat file is not"
    return ""


def _text_problem(path: Path, start: bytes, kind: str, size: int) -> str:
    if start.startswith(b"\x1f\x8b"):
        return "it is compressed with gzip, not a text"
    if b"\x00" in start and not start.startswith(_UTF16):
        return "it holds bytes that a text does not"
    if kind == ".json" and size <= _JSON_LIMIT:
        try:
            json.loads(path.read_bytes())
        except (ValueError, RecursionError):
            return "it is damaged or cut short: not JSON"
    return ""


def _gzip_problem(path: Path, size: int) -> str:
    if size > _GZIP_LIMIT:
        return ""
    try:
        with gzip.open(path) as stream:
            while stream.read(1 << 20):
                pass
    except (OSError, EOFError, ValueError) as error:
        return f"it is damaged or cut short: {' '.join(str(error).split())[:100]}"
    except Exception:  # zlib.error, which has no public base
        return "it is damaged"
    return ""


def _tar_problem(stream: IO[bytes], size: int) -> str:
    """Follow the headers to the end of the archive; tarfile takes a damaged one for the end."""
    place = 0
    while place < size:
        stream.seek(place)
        header = stream.read(tarfile.BLOCKSIZE)
        if len(header) < tarfile.BLOCKSIZE:
            break
        if not header.strip(b"\x00"):
            return ""
        try:
            length = tarfile.TarInfo.frombuf(header, tarfile.ENCODING, "surrogateescape").size
        except tarfile.HeaderError:
            length = -1
        if length < 0:
            return "it is not a tar archive" if not place else f"it is damaged at byte {place:,}"
        place += tarfile.BLOCKSIZE * (1 + -(-length // tarfile.BLOCKSIZE))
    return "" if place == size else f"it is cut short: {size:,} bytes of at least {place:,}"
