"""Unpacking archives from elsewhere: never outside the folder, no links, and no more than was announced.

Everything is unpacked beside its place first and moved there when the archive was read to its end.
"""

from __future__ import annotations

import os
import re
import shutil
import stat
import tarfile
import uuid
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath
from typing import IO, Any

from harness.files.atomic import writing
from harness.files.leftovers import is_leftover
from harness.files.regular import require_regular
from harness.runtime.errors import RunError

MOST_ENTRIES = 2_000_000
"""BAPPS's training set has 600,000 files."""
MOST_SWELLING = 200
"""Bytes out of one byte of archive; pictures give 1 to 3, label files up to 20."""
_SMALL = 64 << 20
_SPARE = 256 << 20
_BLOCK = 1 << 20
_LARGEST_HEADER = 1 << 20
_ZIP, _TAR = (".zip",), (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz")

Progress = Callable[[str, int, int], None]
"""Called with the archive's name, the bytes unpacked, and the bytes in all (0: unknown)."""


def is_archive(path: str | Path) -> bool:
    """Whether a file's name says that it is an archive which `unpack` reads."""
    return str(path).lower().endswith((*_ZIP, *_TAR))


def unpack(archive: Path, folder: Path, progress: Progress | None = None) -> int:
    """Unpack an archive into `folder`; returns the number of files. Files already there are replaced.

    Raises RunError naming the archive: damaged, encrypted, with links or names that lead outside, or swelling beyond
    reason or the free space. Nothing of it is left then.
    """
    staging = folder / f".unpacking-{uuid.uuid4().hex[:8]}"
    try:
        with writing(staging):
            staging.mkdir(parents=True)
        count = _unpack_into(archive, staging, progress)
        with writing(folder):
            _move(staging, folder)
        return count
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def _unpack_into(archive: Path, staging: Path, progress: Progress | None) -> int:
    free = shutil.disk_usage(staging).free - _SPARE
    swelling = max(_SMALL, MOST_SWELLING * archive.stat().st_size)
    entries = _zipped(archive) if archive.name.lower().endswith(_ZIP) else _tarred(archive)
    count = done = 0
    made: set[Path] = set()
    seen: set[Path] = set()
    try:
        for name, size, announced, stream in entries:
            count += 1
            if count > MOST_ENTRIES:
                raise RunError(f"{archive}: more than {MOST_ENTRIES:,} files; not unpacked")
            target = staging / _safe(name, archive)
            if target in seen:
                raise RunError(f"{archive}: holds {name!r} twice; not unpacked")
            seen.add(target)
            if target.parent not in made:
                target.parent.mkdir(parents=True, exist_ok=True)
                made.add(target.parent)
            with writing(target), open(target, "xb") as out:
                written = 0
                while block := stream.read(_BLOCK):
                    written += len(block)
                    done += len(block)
                    if written > size or done > swelling:
                        raise RunError(f"{archive}: {name} swells beyond what was announced; not unpacked")
                    if done > free:
                        raise RunError(f"{archive}: not enough free space in {staging.parent} to unpack it")
                    out.write(block)
            if progress is not None:
                progress(archive.name, done, announced)
    except RunError:
        raise
    except (OSError, EOFError) as error:
        raise RunError(f"{archive}: cannot be unpacked: {getattr(error, 'strerror', None) or error}; is it whole?") from error
    except Exception as error:  # zipfile, tarfile and zlib raise whatever a broken file drives them into
        raise RunError(f"{archive}: a damaged archive: {error or type(error).__name__}; remove it and get it anew") from error
    return count


def _zipped(path: Path) -> Iterator[tuple[str, int, int, IO[bytes]]]:
    require_regular(path)
    with zipfile.ZipFile(path) as archive:
        infos = archive.infolist()
        announced = sum(info.file_size for info in infos)
        for info in infos:
            if info.is_dir() or _shadow(info.filename):
                continue
            if info.flag_bits & 1:
                raise RunError(f"{path}: encrypted; unpack it by hand with the password that its makers sent")
            if stat.S_ISLNK(info.external_attr >> 16):
                raise RunError(f"{path}: {info.filename} is a link; not unpacked")
            with archive.open(info) as stream:
                yield info.filename, info.file_size, announced, stream


class _Member(tarfile.TarInfo):
    """An entry whose headers are bounded: tarfile reads a header of any announced size into memory."""

    def _proc_member(self, archive: Any) -> Any:
        # The entry point that tarfile's source names for subclasses.
        headers = (tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.SOLARIS_XHDTYPE, tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK)
        if self.type in headers and self.size > _LARGEST_HEADER:
            raise ValueError(f"a header of {self.size:,} bytes")
        return super()._proc_member(archive)  # type: ignore[misc]


def _tarred(path: Path) -> Iterator[tuple[str, int, int, IO[bytes]]]:
    require_regular(path)
    with tarfile.open(path, "r|*", tarinfo=_Member) as archive:
        skipped = passed = 0
        for member in archive:
            if member.isdir() or _shadow(member.name):
                skipped, passed = skipped + 1, passed + member.size
                if skipped > MOST_ENTRIES or passed > _SMALL:
                    raise RunError(f"{path}: more folders or macOS leftovers than any dataset has; not unpacked")
                continue
            if not member.isreg() or member.issparse():
                raise RunError(f"{path}: {member.name} is a link or no ordinary file; not unpacked")
            stream = archive.extractfile(member)
            assert stream is not None
            yield member.name, member.size, 0, stream


def _shadow(name: str) -> bool:
    """Entries of operating systems, which no dataset needs."""
    return any(is_leftover(part) for part in PurePosixPath(name).parts)


def _safe(name: str, archive: Path) -> Path:
    parts = [part for part in name.replace("\\", "/").split("/") if part not in ("", ".")]
    outside = name.startswith(("/", "\\")) or ".." in parts or not parts
    if outside or any(re.search(r'[:*?"<>|\x00-\x1f]', part) for part in parts):
        raise RunError(f"{archive}: holds the name {name!r}, which leads outside or is no file name; not unpacked")
    return Path(*parts)


def _move(source: Path, target: Path) -> None:
    for folder, folders, names in os.walk(source):
        place = target / Path(folder).relative_to(source)
        for name in folders:
            (place / name).mkdir(exist_ok=True)
        for name in names:
            os.replace(Path(folder, name), place / name)
