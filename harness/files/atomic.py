"""Atomic writing: a reader sees the old file, the new file, or none, but never a partly written one."""

from __future__ import annotations

import errno
import functools
import hashlib
import itertools
import json
import os
import re
import socket
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

from harness.files.regular import reading, require_regular
from harness.runtime.errors import Unwritable

_ADVICE = {
    errno.ENOSPC: "no space left: free some and run the same command again; finished work is kept",
    errno.EDQUOT: "disk quota used up: free some and run the same command again; finished work is kept",
    errno.EACCES: "no permission to write there: choose another folder (--runs) or change its permissions",
    errno.EPERM: "no permission to write there: choose another folder (--runs) or change its permissions",
    errno.EROFS: "a read-only file system: choose another folder (--runs)",
    errno.ENOENT: "the folder is gone (was it removed or moved during the work?); the same command starts again",
}
_LEFT_OVER = re.compile(r"\..+\.([0-9a-f]{8})-(\d+)-[0-9a-f]{8}\.tmp")
_STALE = 24 * 3600.0


@contextmanager
def writing(path: str | Path) -> Iterator[None]:
    """Turn the operating system's errors while `path` is written into an Unwritable with advice."""
    try:
        yield
    except OSError as error:
        advice = _ADVICE.get(error.errno or 0, error.strerror or str(error))
        raise Unwritable(f"{path}: cannot be written: {advice}") from error


@contextmanager
def atomic(path: str | Path, mode: str = "wb") -> Iterator[IO[Any]]:
    """Open a temporary file next to `path`; on success flush it to disk and rename it to `path`.

    On any failure `path` is unchanged and the temporary file is removed. Temporary files of killed processes are removed when
    another process first writes to the folder. Raises Unwritable with advice.
    """
    target = Path(path)
    with writing(target):
        require_regular(target)  # else a device would be replaced by a file
        target.parent.mkdir(parents=True, exist_ok=True)
        _sweep(str(target.parent.absolute()))
        name = target.parent / f".{target.name}.{_place()}-{os.getpid()}-{uuid.uuid4().hex[:8]}.tmp"
        try:
            text = {} if "b" in mode else {"encoding": "utf-8", "newline": ""}
            with open(name, mode.replace("w", "x"), **text) as stream:  # type: ignore[call-overload]
                yield stream
                stream.flush()
                os.fsync(stream.fileno())
            os.replace(name, target)
            # A rename survives a power cut only when its folder is flushed too; Windows cannot open a folder.
            if os.name == "posix":
                descriptor = os.open(target.parent, os.O_RDONLY)
                try:
                    os.fsync(descriptor)
                finally:
                    os.close(descriptor)
        except BaseException:
            name.unlink(missing_ok=True)
            raise


@functools.lru_cache(maxsize=1024)
def _sweep(folder: str) -> None:
    """Remove, once, temporary files in `folder` whose processes on this machine have ended, and any older than a day."""
    with suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            if match := _LEFT_OVER.fullmatch(entry.name):
                import psutil

                with suppress(OSError):
                    here, old = match[1] == _place(), entry.stat().st_mtime < time.time() - _STALE
                    if old or (here and not psutil.pid_exists(int(match[2]))):
                        os.unlink(entry)


@functools.cache
def _place() -> str:
    """An id (8 hexadecimal digits) of the machine and container inside which a process number is unique."""
    space = ""
    with suppress(OSError):
        space = os.readlink("/proc/self/ns/pid")
    return hashlib.sha256(f"{socket.gethostname()}|{space}".encode()).hexdigest()[:8]


def write_text(path: str | Path, text: str) -> None:
    """Write `text` atomically, UTF-8, newlines as given."""
    with atomic(path, "w") as stream:
        stream.write(text)


def write_json(path: str | Path, document: Any) -> None:
    """Write a JSON document atomically, indented, keys in the order given; NaN and infinity are refused."""
    write_text(path, json.dumps(document, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def append_lines(path: str | Path, lines: str) -> None:
    """Append whole lines to an existing file, in one write; a partial write is removed again. `sync` flushes them to disk.

    A file that was deleted is not created again: it would lack its first lines. Raises Unwritable.
    """
    if not lines.endswith("\n"):
        raise ValueError("only whole lines are appended")
    data = lines.encode("utf-8")
    with writing(path):
        # Windows would otherwise write two bytes for each line end.
        descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | getattr(os, "O_BINARY", 0))
        try:
            before = os.fstat(descriptor).st_size
            try:
                written = os.write(descriptor, data)
                if written != len(data):
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            except OSError:
                with suppress(OSError):
                    os.ftruncate(descriptor, before)
                raise
        finally:
            os.close(descriptor)


def sync(path: str | Path) -> None:
    """Flush the lines appended to `path` to disk."""
    with writing(path), open(path, "rb+") as stream:
        os.fsync(stream.fileno())


def sha256_file(path: str | Path) -> str:
    """The sha256 of a file's bytes, hexadecimal. Raises UsageError where it cannot be read."""
    with reading(path), open(path, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


_ROWS_AT_ONCE = 10_000


def sha256_json(document: Any) -> str:
    """The sha256 of a document's canonical JSON (sorted keys, no spaces).

    An iterator, as the document or inside it, is hashed as a list without being held: the rows of 700,000 images with
    their text take hundreds of megabytes.
    """
    digest = hashlib.sha256()
    for text in _json_parts(document):
        digest.update(text.encode("utf-8"))
    return digest.hexdigest()


def _json_parts(document: Any) -> Iterator[str]:
    if isinstance(document, Iterator) or (isinstance(document, list) and len(document) > _ROWS_AT_ONCE):
        rows, between = iter(document), ""
        yield "["
        while part := list(itertools.islice(rows, _ROWS_AT_ONCE)):
            yield between + _json(part)[1:-1]
            between = ","
        yield "]"
    elif isinstance(document, dict) and _holds_iterator(document):
        for number, key in enumerate(sorted(document)):
            yield f"{',' if number else '{'}{_json(key)}:"
            yield from _json_parts(document[key])
        yield "}"
    elif isinstance(document, list) and _holds_iterator(document):
        for number, value in enumerate(document):
            yield "," if number else "["
            yield from _json_parts(value)
        yield "]"
    else:
        yield _json(document)


def _holds_iterator(document: Any) -> bool:
    values = document.values() if isinstance(document, dict) else document if isinstance(document, list) else ()
    return isinstance(document, Iterator) or any(map(_holds_iterator, values))


def _json(document: Any) -> str:
    return json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
