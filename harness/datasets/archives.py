"""Safe unpacking of zip, tar and rar archives: nothing outside the folder, no links, no more bytes than the listing states.

Everything is unpacked to a temporary folder first and moved when the archive was read to its end. Temporary folders of killed
processes are removed when a process next works in the folder (`working_in`).
"""

from __future__ import annotations

import contextlib
import logging
import os
import re
import shutil
import stat
import tarfile
import uuid
import zipfile
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Protocol, Self

from harness.datasets import rar
from harness.files.atomic import writing
from harness.files.leftovers import in_leftovers
from harness.files.lock import alone
from harness.files.regular import require_regular
from harness.runtime.errors import RunError

_log = logging.getLogger(__package__)

MOST_ENTRIES = 2_000_000
"""BAPPS's training set has 600,000 files."""
MOST_SWELLING = 200
"""Largest expansion: unpacked bytes for one byte of archive. Images expand 1 to 3 times, label files up to 20."""
_SMALL = 64 << 20
_SPARE = 256 << 20
_BLOCK = 1 << 20
_LARGEST_HEADER = 1 << 20
_ZIP, _TAR, _RAR = (".zip",), (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz"), (".rar",)
_STAGING = ".unpacking-"
_TRIALS = 3
_AES = 99

Password = Callable[[str, int], bytes | None]
"""Called with an archive's name and the number of wrong passwords so far; returns None for no (further) password."""
Progress = Callable[[str, int, int], None]
"""Called with the archive's name, the bytes unpacked, and the total bytes (0: unknown)."""


class Stream(Protocol):
    """The source of a member's bytes."""

    def read(self, amount: int, /) -> bytes:
        """At most `amount` bytes; none at the end."""
        ...


@dataclass(frozen=True)
class Unpacked:
    """The result of unpacking an archive."""

    files: int
    folders: dict[str, int]
    """How many files each folder got, by its relative path (`.`: the top)."""


class NoTool(RunError):
    """No installed program reads rar archives."""


def is_archive(path: str | Path) -> bool:
    """Whether a file's name has the extension of an archive that `unpack` reads."""
    return str(path).lower().endswith((*_ZIP, *_TAR, *_RAR))


@contextlib.contextmanager
def working_in(folder: Path) -> Iterator[None]:
    """Lock a dataset's folder for downloads and unpacking: a second process waits, and logs it.

    Temporary files of killed processes are removed. Raises Unwritable.
    """
    with alone(folder / ".unpacking.lock", f"another process works in {folder}: waiting for it"):
        for left in sorted(folder.glob(f"{_STAGING}*")):
            if left.is_dir() and not left.is_symlink():
                size = sum(file.lstat().st_size for file in left.rglob("*"))
                shutil.rmtree(left, ignore_errors=True)
                _log.info(f"{folder}: removed {size:,} bytes of an earlier, interrupted unpacking")
        yield


def unpack(archive: Path, folder: Path, progress: Progress | None = None, password: Password | None = None) -> Unpacked:
    """Unpack an archive into `folder`, where files of the same names are replaced; call it inside `working_in`.

    Raises RunError naming the archive: damaged, encrypted without the right password, with links or names that lead outside
    the folder, or unpacking to too many bytes; NoTool for a rar archive without an installed program. No file of it remains
    then.
    """
    if not archive.name.lower().endswith(_RAR):
        members = _zipped(archive, password) if archive.name.lower().endswith(_ZIP) else _tarred(archive)
        return _unpack_from(members, archive, folder, progress)
    tools = rar.tools()
    if not tools:
        raise NoTool(f"{archive}: no program that unpacks rar archives is installed: {rar.INSTALL}")
    problems = []
    for tool in tools:
        try:
            return _unpack_from(_rarred(archive, tool), archive, folder, progress)
        except rar.ToolFailed as error:
            problems.append(str(error))
    raise RunError(f"{archive}: cannot be unpacked: {'; '.join(problems)}; is it complete? If so, {rar.INSTALL}")


class _Entry(NamedTuple):
    """A file of an archive."""

    name: str
    size: int
    announced: int
    """Bytes of all files of the archive; 0: unknown."""
    content: Stream


def _unpack_from(entries: Iterator[_Entry], archive: Path, folder: Path, progress: Progress | None) -> Unpacked:
    staging = folder / f"{_STAGING}{uuid.uuid4().hex[:8]}"
    try:
        with writing(staging):
            staging.mkdir(parents=True)
        folders = _unpack_into(entries, archive, staging, progress)
        with writing(folder):
            _move(staging, folder)
        return Unpacked(sum(folders.values()), dict(folders))
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def _unpack_into(entries: Iterator[_Entry], archive: Path, staging: Path, progress: Progress | None) -> Counter[str]:
    free = shutil.disk_usage(staging).free - _SPARE
    count = done = 0
    folders: Counter[str] = Counter()
    seen: set[Path] = set()
    try:
        swelling = max(_SMALL, MOST_SWELLING * archive.stat().st_size)
        with contextlib.closing(entries):  # type: ignore[type-var]
            for name, size, announced, stream in entries:
                count += 1
                if count > MOST_ENTRIES:
                    raise RunError(f"{archive}: more than {MOST_ENTRIES:,} files; not unpacked")
                if free < announced <= swelling:
                    needed = f"{announced:,} bytes are needed, {max(free, 0):,} are free"
                    raise RunError(f"{archive}: not enough free space in {staging.parent} to unpack it: {needed}")
                target = staging / _safe(name, archive)
                if target in seen:
                    raise RunError(f"{archive}: holds {name!r} twice; not unpacked")
                seen.add(target)
                place = target.parent.relative_to(staging).as_posix()
                if place not in folders:
                    target.parent.mkdir(parents=True, exist_ok=True)
                folders[place] += 1
                with writing(target), open(target, "xb") as out:
                    written = 0
                    while block := stream.read(_BLOCK):
                        written += len(block)
                        done += len(block)
                        if written > size or done > swelling:
                            raise RunError(f"{archive}: {name} unpacks to more bytes than the archive lists; not unpacked")
                        if done > free:
                            raise RunError(f"{archive}: not enough free space in {staging.parent} to unpack it")
                        out.write(block)
                if progress is not None:
                    progress(archive.name, done, announced)
    except (RunError, rar.ToolFailed):
        raise
    except (OSError, EOFError) as error:
        raise RunError(f"{archive}: cannot be unpacked: {getattr(error, 'strerror', None) or error}; is it complete?") from error
    except Exception as error:  # zipfile, tarfile, rarfile and zlib may raise any error for a damaged file
        raise RunError(f"{archive}: a damaged archive: {error or type(error).__name__}; get it again") from error
    return folders


def _zipped(path: Path, ask: Password | None) -> Iterator[_Entry]:
    require_regular(path)
    with zipfile.ZipFile(path) as archive:
        infos = archive.infolist()
        announced = sum(info.file_size for info in infos)
        encrypted = [info for info in infos if info.flag_bits & 1 and not info.is_dir()]
        password = _password(archive, encrypted, path, ask) if encrypted else None
        for info in infos:
            if info.is_dir() or in_leftovers(info.filename):
                continue
            if stat.S_ISLNK(info.external_attr >> 16):
                raise RunError(f"{path}: {info.filename} is a link; not unpacked")
            with archive.open(info, pwd=password) as stream:
                yield _Entry(info.filename, info.file_size, announced, stream)


def _password(archive: zipfile.ZipFile, encrypted: list[zipfile.ZipInfo], path: Path, ask: Password | None) -> bytes:
    """The password that opens the smallest encrypted member, read to its end: the header alone detects 255 of 256 wrong ones."""
    if any(info.compress_type == _AES for info in encrypted):
        how = f"unpack it in {path.parent} by hand (7z x {path.name})"
        raise RunError(f"{path}: encrypted with AES, which is not read here; {how}")
    smallest = min(encrypted, key=lambda info: (info.file_size == 0, info.file_size))
    tried = 0
    while tried < _TRIALS and ask is not None and (word := ask(path.name, tried)) is not None:
        tried += 1
        with contextlib.suppress(RuntimeError, zipfile.BadZipFile, zlib.error), archive.open(smallest, pwd=word) as stream:
            left = smallest.file_size
            while left >= 0 and (block := stream.read(_BLOCK)):
                left -= len(block)
            if left >= 0:
                return word
    if tried:
        raise RunError(f"{path}: the password does not open it; nothing was unpacked")
    how = "`harness data unpack` asks for its password on a terminal, and reads it from --password-file FILE"
    raise RunError(f"{path}: encrypted; {how}")


def _rarred(path: Path, tool: rar.Tool) -> Iterator[_Entry]:
    require_regular(path)
    listed = rar.members(path)
    for member in listed:
        _safe(member.name, path)
    announced = sum(member.size for member in listed)
    for member, content in rar.contents(path, listed, tool):
        if in_leftovers(member.name):
            while content.read():
                pass
        else:
            yield _Entry(member.name, member.size, announced, content)


class _Member(tarfile.TarInfo):
    """An entry with a limit on its headers, which tarfile reads into memory whatever their size, and no tolerance of damage."""

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> Self:
        """As in tarfile, which takes a damaged or cut header behind the first file for the archive's end, without a word."""
        try:
            return super().frombuf(buf, encoding, errors)
        except (tarfile.InvalidHeaderError, tarfile.TruncatedHeaderError) as error:  # type: ignore[attr-defined]
            raise ValueError(f"not a tar header where one is expected ({error})") from None

    def _proc_member(self, archive: Any) -> Any:
        # The method that tarfile's source documents for subclasses.
        headers = (tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.SOLARIS_XHDTYPE, tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK)
        if self.type in headers and self.size > _LARGEST_HEADER:
            raise ValueError(f"a header of {self.size:,} bytes")
        return super()._proc_member(archive)  # type: ignore[misc]


def _tarred(path: Path) -> Iterator[_Entry]:
    require_regular(path)
    with tarfile.open(path, "r|*", tarinfo=_Member) as archive:
        skipped = passed = 0
        for member in archive:
            if member.isdir() or in_leftovers(member.name):
                skipped, passed = skipped + 1, passed + member.size
                if skipped > MOST_ENTRIES or passed > _SMALL:
                    raise RunError(f"{path}: more folders or macOS leftovers than any dataset has; not unpacked")
                continue
            if not member.isreg() or member.issparse():
                raise RunError(f"{path}: {member.name} is a link or not an ordinary file; not unpacked")
            stream = archive.extractfile(member)
            assert stream is not None
            yield _Entry(member.name, member.size, 0, stream)


def _safe(name: str, archive: Path) -> Path:
    parts = [part for part in name.replace("\\", "/").split("/") if part not in ("", ".")]
    outside = name.startswith(("/", "\\")) or ".." in parts or not parts
    if outside or any(re.search(r'[:*?"<>|\x00-\x1f]', part) for part in parts):
        raise RunError(f"{archive}: holds the name {name!r}, which leads outside the folder or is not a file name; not unpacked")
    return Path(*parts)


def _move(source: Path, target: Path) -> None:
    for folder, folders, names in os.walk(source):
        place = target / Path(folder).relative_to(source)
        for name in folders:
            (place / name).mkdir(exist_ok=True)
        for name in names:
            os.replace(Path(folder, name), place / name)
