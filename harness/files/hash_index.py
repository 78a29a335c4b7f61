"""sha256 of many files from an index in the user's cache folder: a file is read again only if it may have changed (as in git).

The index maps a file's path to its metadata (size, times of change, inode) and its sha256. A file with unchanged metadata is
not read again, with two exceptions:

- it was changed within two seconds of being hashed, by the clock of its own file system: a second change within the clock's
  resolution would not change the metadata;
- programs can set every time of change (Windows): there the index is weaker, and `rehash` reads all files.

A size alone proves nothing: many datasets are BMP files of one size. An index that is damaged, read-only or from another
machine costs time and never gives a wrong answer: every row has a checksum over itself and this machine's name. Several
processes may use it at once.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import platform
import sqlite3
import stat
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

from harness.runtime.caches import cache_folder
from harness.runtime.errors import UsageError, listed

WEAK = os.name == "nt"
"""Whether a program on this system can change a file without changing the metadata that the index compares."""
_RACY = 2_000_000_000
"""A file changed within this many nanoseconds before it was hashed is read again next time."""
_TABLE = (
    "CREATE TABLE IF NOT EXISTS files_1 (path TEXT PRIMARY KEY, size INTEGER, mtime INTEGER, ctime INTEGER, inode INTEGER, "
    "device INTEGER, hashed INTEGER, sha256 TEXT, checksum TEXT)"
)
_AT_ONCE = 500


class _Facts(NamedTuple):
    """A file's metadata."""

    size: int
    mtime: int
    ctime: int
    inode: int
    device: int


class _Row(NamedTuple):
    """A file's row of the index."""

    path: str
    facts: _Facts
    hashed: int
    """When, in nanoseconds."""
    sha256: str

    @property
    def checksum(self) -> str:
        text = "|".join(map(str, (platform.node(), self.path, *self.facts, self.hashed, self.sha256)))
        return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()[:16]


def hash_files(
    paths: Iterable[str], *, rehash: bool = False, progress: Callable[[int, int], None] | None = None
) -> dict[str, str]:
    """The sha256 (hexadecimal) of each file by its path; files that the index shows to be unchanged are not read.

    `rehash`: read every file. `progress(done, total)` is called, in this thread, for files that are read. Raises UsageError
    naming every file that cannot be read.
    """
    wanted = list(dict.fromkeys(paths))
    absolute = {path: os.path.abspath(path) for path in wanted}
    facts: dict[str, _Facts] = {}
    problems: list[str] = []
    for path in wanted:
        try:
            status = os.stat(path)
            if stat.S_ISREG(status.st_mode):
                facts[path] = _facts(status)
            else:
                problems.append(f"{path} (not a regular file)")
        except OSError as error:
            problems.append(f"{path} ({error.strerror})")
    _refuse(problems)
    known = {} if rehash else _known([absolute[path] for path in wanted])
    found: dict[str, str] = {}
    for path in wanted:
        row = known.get(absolute[path])
        if row is not None and row.facts == facts[path] and max(row.facts.mtime, row.facts.ctime) <= row.hashed - _RACY:
            found[path] = row.sha256
    unread = [path for path in wanted if path not in found]
    if not unread:
        return found
    clocks = {facts[path].device: _clock(os.path.dirname(absolute[path])) for path in unread}
    rows = []
    for done, (path, result) in enumerate(_read(unread), 1):
        if isinstance(result, OSError):
            problems.append(f"{path} ({result.strerror or result})")
        else:
            before, digest = result
            found[path] = digest
            rows.append(_Row(absolute[path], before, clocks.get(before.device, time.time_ns()), digest))
        if progress is not None:
            progress(done, len(unread))
    _refuse(problems)
    _keep(rows)
    return found


def hash_file(path: str | Path, *, rehash: bool = False) -> str:
    """The sha256 of one file, as `hash_files` gives it."""
    return hash_files([str(path)], rehash=rehash)[str(path)]


def derived(sha256: str, what: str, compute: Callable[[], str]) -> str:
    """A value that depends only on a file's bytes, computed once and kept under their sha256.

    `what` names the kind of value and its version.
    """
    name, nothing = f"{what}:{sha256}", _Facts(0, 0, 0, 0, 0)
    row = _known([name]).get(name)
    if row is not None and row.facts == nothing:
        return row.sha256
    value = compute()
    _keep([_Row(name, nothing, 0, value)])
    return value


def _refuse(problems: Sequence[str]) -> None:
    if problems:
        raise UsageError(f"{len(problems)} files cannot be read: {listed(problems)}")


def _facts(status: os.stat_result) -> _Facts:
    return _Facts(status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino, status.st_dev)


def _clock(folder: str) -> int:
    """The current time by the clock of the file system of `folder` (an unnamed temporary file's), else by this system's."""
    with contextlib.suppress(OSError), tempfile.TemporaryFile(dir=folder) as stream:
        return os.fstat(stream.fileno()).st_mtime_ns
    return time.time_ns()


def _read(paths: Sequence[str]) -> Iterator[tuple[str, tuple[_Facts, str] | OSError]]:
    """Each file with its facts and sha256, read by several threads, in order."""

    def one(path: str) -> tuple[_Facts, str] | OSError:
        try:
            with open(path, "rb") as stream:
                before = _facts(os.fstat(stream.fileno()))
                digest = hashlib.file_digest(stream, "sha256").hexdigest()
                after = _facts(os.fstat(stream.fileno()))
        except OSError as error:
            return error
        # Metadata that changed while the file was read belong to no content: a size of -1 never matches.
        return (before if before == after else before._replace(size=-1)), digest

    with ThreadPoolExecutor(min(16, 2 * (os.cpu_count() or 1))) as pool:
        yield from zip(paths, pool.map(one, paths), strict=True)


def _place() -> Path:
    return cache_folder() / "hashes.sqlite"


def _opened(mode: str) -> contextlib.closing[sqlite3.Connection]:
    address = "file:" + _place().as_posix().replace("%", "%25").replace("?", "%3f").replace("#", "%23") + f"?mode={mode}"
    return contextlib.closing(sqlite3.connect(address, uri=True, timeout=5.0, isolation_level=None))


def _known(paths: Sequence[str]) -> dict[str, _Row]:
    """The index's rows of these files; empty where the index cannot be used."""
    rows: dict[str, _Row] = {}
    with contextlib.suppress(sqlite3.Error, OSError, UnicodeError), _opened("ro") as index:
        for i in range(0, len(paths), _AT_ONCE):
            some = paths[i : i + _AT_ONCE]
            query = f"SELECT * FROM files_1 WHERE path IN ({','.join('?' * len(some))})"
            for path, *numbers, hashed, digest, checksum in index.execute(query, some):
                row = _Row(path, _Facts(*numbers), hashed, digest)
                if checksum == row.checksum:
                    rows[path] = row
    return rows


def _keep(rows: Sequence[_Row]) -> None:
    """Add rows to the index; a file that is not an index is replaced, and an index that cannot be written is not changed."""
    whole = [(row.path, *row.facts, row.hashed, row.sha256, row.checksum) for row in rows]
    for _ in range(2):
        try:
            _place().parent.mkdir(parents=True, exist_ok=True)
            with _opened("rwc") as index:
                index.execute("PRAGMA synchronous=OFF")
                index.execute(_TABLE)
                index.execute("BEGIN IMMEDIATE")
                index.executemany("INSERT OR REPLACE INTO files_1 VALUES (?,?,?,?,?,?,?,?,?)", whole)
                index.execute("COMMIT")
            return
        except (sqlite3.OperationalError, OSError, UnicodeError):
            return  # locked, read-only or full: the files are read again next time
        except sqlite3.DatabaseError:
            with contextlib.suppress(OSError):
                _place().unlink()


def changed(before: Mapping[str, str], *, rehash: bool = False) -> list[str]:
    """The files whose content differs from the given sha256, including deleted files."""
    there = [path for path in before if os.path.isfile(path)]
    present = hash_files(there, rehash=rehash)
    return [path for path, digest in before.items() if present.get(path) != digest]
