"""Writing and reading a submission's zip: reproducible bytes when written, bounded time and memory when read.

Nothing is unpacked to disk. Of an untrusted zip, the table of contents is read up to a megabyte, and the required files up to
their largest allowed size; the rest of the archive is never decompressed.
"""

from __future__ import annotations

import io
import re
import stat
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path, PurePosixPath

from harness.files.leftovers import in_leftovers
from harness.files.regular import reading
from harness.runtime.errors import UsageError
from harness.runtime.findings import Finding

_LARGEST_CONTENTS = 1 << 20
_MOST_ENTRIES = 1000
_REHEARSAL = b"rehearsal"
"""The beginning of the comment in a zip made by `harness submit --limit`."""
_OTHERS = {
    b"Rar!": "a RAR archive",
    b"7z\xbc\xaf": "a 7-Zip archive",
    b"\x1f\x8b": "a gzip file (.gz, .tar.gz)",
    b"BZh": "a bzip2 file",
    b"\xfd7zX": "an xz file",
    b"<": "an HTML or XML page",
}


def zipped(files: Mapping[str, bytes], mark: str = "") -> bytes:
    """A zip of `files` in the given order: a pure function of them. `mark` is its comment, which `read` reports as a defect.

    Stored, not deflated: other versions of zlib give other bytes, and a submission is small.
    """
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_STORED) as archive:
        for name, data in files.items():
            entry = zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0))
            entry.create_system = 3
            entry.external_attr = (stat.S_IFREG | 0o644) << 16
            archive.writestr(entry, data)
        archive.comment = mark.encode()
    return out.getvalue()


def read(path: str | Path, limits: Mapping[str, int]) -> tuple[dict[str, bytes], list[Finding]]:
    """The required files (`limits`: the largest size of each in bytes, by name) of the zip at `path`, and the zip's defects.

    A required file in another letter case, in a folder or with another extension is read and reported. Raises UsageError for a
    file that cannot be read or is not a zip.
    """
    path = Path(path)
    with reading(path), open(path, "rb", buffering=0) as stream:
        return _read(path, stream, limits)


class _TooLarge(Exception):
    pass


class _Capped(io.BufferedReader):
    """A file with a limit on each single read: the largest table of contents that is accepted."""

    def read(self, size: int | None = -1, /) -> bytes:
        if size is None or size < 0:
            here = self.tell()
            size = self.seek(0, io.SEEK_END) - here
            self.seek(here)
        if size > _LARGEST_CONTENTS:
            raise _TooLarge
        return super().read(size)


def _read(path: Path, stream: io.FileIO, limits: Mapping[str, int]) -> tuple[dict[str, bytes], list[Finding]]:
    head = stream.read(8)
    stream.seek(0)
    try:
        archive = zipfile.ZipFile(_Capped(stream))
    except _TooLarge:
        what = f"its table of contents is larger than {_LARGEST_CONTENTS >> 20} MB; the zip was not read"
        return {}, [Finding("error", "entries", "the zip", what, f"zip {' and '.join(limits)} and nothing else")]
    except (zipfile.BadZipFile, ValueError, NotImplementedError, OverflowError) as error:
        kind = next((words for magic, words in _OTHERS.items() if head.startswith(magic)), None)
        if not head:
            kind = "an empty file"
        elif head.startswith(b"PK"):
            kind = "the beginning of a zip that was cut short or damaged"
        raise UsageError(f"{path}: not a zip that can be read: {kind or error}; zip the files again") from None
    with archive:
        return _entries(archive, limits)


def _entries(archive: zipfile.ZipFile, limits: Mapping[str, int]) -> tuple[dict[str, bytes], list[Finding]]:
    found: list[Finding] = []
    # For each required file: entries, with the distance of their names from the right one.
    candidates: dict[str, list[tuple[int, zipfile.ZipInfo]]] = {name: [] for name in limits}
    infos, alone = archive.infolist(), f"zip {' and '.join(limits)} and nothing else"
    if archive.comment.startswith(_REHEARSAL):
        what = f"incomplete: a {_shown(archive.comment.decode('ascii', 'replace'))}"
        found.append(Finding("error", "rehearsal", "the zip", what, "submit without --limit"))
    if len(infos) > _MOST_ENTRIES:
        what = f"{len(infos):,} entries; only the first {_MOST_ENTRIES:,} were checked"
        found.append(Finding("error", "entries", "the zip", what, alone, mechanical=True))
    for info in infos[:_MOST_ENTRIES]:
        name = info.orig_filename
        shown, wanted, distance = _shown(name), _wanted(name, limits), None
        if in_leftovers(name.replace("\\", "/")):
            what = "a file that the operating system or an office program added"
            found.append(Finding("error", "leftover", shown, what, "leave it out (on macOS: zip -X)", mechanical=True))
        elif problem := _trick(name):
            found.append(Finding("error", "path", shown, problem, "zip the files from inside their folder", mechanical=True))
            distance = 3
        elif stat.S_ISLNK(info.external_attr >> 16):
            what = "a symbolic link instead of a file"
            found.append(Finding("error", "link", shown, what, "zip the file that it points to", mechanical=wanted is None))
        elif name.endswith("/"):
            what = "a folder; the files must be at the zip's root"
            found.append(Finding("error", "folder", shown, what, "zip the files from inside the folder", mechanical=True))
        elif wanted is None:
            hint = ": a zip within the zip?" if name.lower().endswith(".zip") else ""
            what = f"a file that does not belong here{hint}"
            found.append(Finding("error", "stray", shown, what, alone, mechanical=True))
        elif "/" in name:
            what = f"in a folder; {wanted} must be at the zip's root"
            found.append(Finding("error", "folder", shown, what, "zip the files from inside the folder", mechanical=True))
            distance = 2
        elif name != wanted:
            what = f"the file's name must be exactly {wanted}"
            found.append(Finding("error", "file-name", shown, what, "rename it", mechanical=True))
            distance = 1
        else:
            distance = 0
        if wanted is not None and distance is not None:
            candidates[wanted].append((distance, info))
    files = {}
    for wanted, entries in candidates.items():
        data = _chosen(archive, wanted, entries, limits[wanted], found)
        if data is not None:
            files[wanted] = data
    return files, found


def _shown(name: str) -> str:
    """A name from a zip, escaped for a terminal."""
    text = name if name.isprintable() else repr(name)
    return text if len(text) <= 80 else f"{text[:77]}..."


def _wanted(name: str, limits: Mapping[str, int]) -> str | None:
    """The required file that an entry is probably meant to be."""
    last = PurePosixPath(name.replace("\\", "/").split("\0")[0]).name.lower()
    for wanted in limits:
        stem, _, extension = wanted.lower().rpartition(".")
        if last in {wanted.lower(), stem, *(f"{stem}.{other}" for other in (extension, "txt", "csv", "md"))}:
            return wanted
    return None


def _trick(name: str) -> str | None:
    """The problem of an unsafe path; None where there is none."""
    if "\0" in name:
        return "its name holds a NUL character"
    if "\\" in name:
        return "its name holds a backslash, which does not separate folders in a zip"
    if name.startswith("/") or re.match(r"[A-Za-z]:", name):
        return "an absolute path"
    if ".." in name.split("/"):
        return "a path that leads out of the zip's folder"
    return None


def _chosen(
    archive: zipfile.ZipFile, wanted: str, entries: list[tuple[int, zipfile.ZipInfo]], limit: int, found: list[Finding]
) -> bytes | None:
    """The content of the entry closest to the required name; several are refused unless they are equal."""
    if not entries:
        found.append(Finding("error", "no-file", wanted, "the zip holds no such file", f"add {wanted} at the zip's root"))
        return None
    entries = sorted(entries, key=lambda entry: entry[0])
    contents = [_content(archive, info, limit, found) for _, info in entries[:5]]
    if len(entries) > 1:
        same = len(entries) <= 5 and len({data for data in contents if data is not None}) <= 1
        shown = ", ".join(_shown(info.orig_filename) for _, info in entries[:5])
        what = f"{len(entries)} files for one ({shown})" + ("" if same else ", with different content")
        found.append(Finding("error", "twice", wanted, what, "keep one", mechanical=same))
    return contents[0]


def _content(archive: zipfile.ZipFile, info: zipfile.ZipInfo, limit: int, found: list[Finding]) -> bytes | None:
    name = _shown(info.orig_filename)
    if info.flag_bits & 1:
        found.append(Finding("error", "encrypted", name, "encrypted", "zip it without a password"))
        return None
    if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        what = f"compressed by method {info.compress_type}, which many servers cannot unpack"
        found.append(Finding("error", "compression", name, what, "zip it with Deflate or Store, the usual methods"))
        return None
    largest = f"larger than {limit:,} bytes, the limit for this file"
    if info.file_size > limit:
        found.append(Finding("error", "too-large", name, f"{info.file_size:,} bytes, {largest}; it was not unpacked"))
        return None
    try:
        with archive.open(info) as stream:
            data = stream.read(limit + 1)
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError, OSError, ValueError) as error:
        found.append(Finding("error", "damaged", name, f"damaged: {error}", "zip the files again"))
        return None
    if len(data) > limit:
        found.append(Finding("error", "too-large", name, largest))
        return None
    return data
