"""Downloads over https: time limits, retries, resuming, and checks before the file gets its name.

requests opens the connections, filelock lets one process at a time fetch a file, huggingface_hub gives the hub's addresses
(`harness.files.addresses`). This module adds: https only, on every redirect; a download is resumed only where bytes of two
versions cannot be mixed; the content is checked (`harness.files.content`) before the file gets its name.
"""

from __future__ import annotations

import contextlib
import errno
import gzip
import hashlib
import logging
import os
import shutil
import time
import urllib.parse
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from harness.files import atomic, responses
from harness.files.addresses import address, offline
from harness.files.content import content_problem, page_problem
from harness.files.lock import alone
from harness.files.partial_download import Origin, forget, read_origin, write_origin
from harness.files.responses import Refused, TryAgain, reason
from harness.runtime.errors import RunError, Unwritable, UsageError

if TYPE_CHECKING:
    import requests

_log = logging.getLogger(__package__)

__all__ = ["LARGEST", "DownloadFailed", "Fetched", "Progress", "copy", "download", "offline"]

LARGEST = 16 << 30
CONNECT_WITHIN = 10.0
"""Seconds to connect to each address of a host."""
ANSWER_WITHIN = 60.0
"""Seconds to wait for the first and for each further part of an answer; $HARNESS_DOWNLOAD_TIMEOUT changes it."""
LONGEST_WAIT = 120.0
"""The longest Retry-After, in seconds, that is waited for; for a longer one the command ends with a message."""
_TRIES = 5
"""Requests in a row without a new byte."""
_PAUSE = 1.0
"""Seconds before the second try; doubled with each further one."""
_SLOWEST = 1024
_SLOW_FOR = 60.0
_BLOCK = 1 << 18
_REDIRECTS = 10
_wait = time.sleep

Progress = Callable[[str, int, int], None]
"""Called with the file's name, the bytes received, and the total bytes (0: unknown)."""


class DownloadFailed(RunError):
    """One source did not give the file; the message is one line, without the address."""


@dataclass(frozen=True)
class Fetched:
    """A file that is present and checked."""

    path: Path
    bytes: int
    sha256: str
    revision: str = ""
    """The hub's commit, where the hub's headers give it."""
    fresh: bool = True
    """False: it was present before, or another process fetched it meanwhile."""


@dataclass(frozen=True)
class _Wanted:
    """One download: its target, and what is known of the file."""

    source: str
    target: Path
    part: Path
    sha256: str
    md5: str
    size: int
    largest: int
    headers: Mapping[str, str]
    accept: Callable[[Path], None] | None
    progress: Progress | None


def download(
    source: str,
    target: Path,
    *,
    sha256: str = "",
    md5: str = "",
    size: int = 0,
    accept: Callable[[Path], None] | None = None,
    largest: int = LARGEST,
    progress: Progress | None = None,
    unreachable: set[str] | None = None,
    headers: Mapping[str, str] | None = None,
) -> Fetched:
    """Download one source's file to `target`, unless it is there; the same call resumes an interrupted download.

    Args:
        source: `https://...`, `hf://[datasets/]owner/repository[@revision]/file` or `gdrive:ID`.
        target: The file to write; its extension gives the format that is checked. `NAME.part` and `NAME.part.json` next to it
            hold an unfinished download.
        sha256, md5, size: What is known of the file; empty or 0: not known. The hub's own sha256 and size are used too.
        accept: A further check of the complete file before it gets its name; raises DownloadFailed or UsageError.
        largest: A file with more bytes is refused.
        progress: Called with the progress.
        unreachable: Hosts that did not accept a connection, shared by several calls, so that each is waited for once.
        headers: Further headers, sent to the source's host only.

    Returns:
        The file, its size and its sha256.

    Raises:
        DownloadFailed: the download failed, or a file already present is the wrong one.
        Unwritable: the folder cannot be written or the disk is full; received bytes are kept.
    """
    try:
        place = address(source)
    except UsageError as error:
        raise DownloadFailed(str(error).removeprefix(f"{source}: ")) from None
    host = urllib.parse.urlsplit(place.url).netloc
    if unreachable is not None and host in unreachable:
        raise DownloadFailed(f"{host} did not answer before")
    part, sent = target.with_name(f"{target.name}.part"), {**place.headers, **(headers or {})}
    wanted = _Wanted(source, target, part, sha256.lower(), md5.lower(), size, largest, sent, accept, progress)
    # A second process waits, and finds the file.
    waiting = f"{target.name}: another process is fetching it; waiting for it"
    with alone(target.with_name(f".{target.name}.lock"), waiting, patience=0.2, removed=True):
        if target.is_file():
            return replace(_checked(target, wanted, Origin(source)), fresh=False)
        for last in (False, True):
            origin = _received(wanted, place.url, place.hub, host, unreachable)
            try:
                found = _checked(_decoded(wanted, origin), wanted, origin)
                break
            except (DownloadFailed, UsageError) as error:
                forget(part)
                # Bytes of two versions may have been mixed; only the hash can show that.
                if last or not origin.resumed or not isinstance(error, DownloadFailed):
                    raise
        with atomic.writing(target):
            os.replace(found.path, target)
        forget(part)
    return replace(found, path=target)


def copy(path: Path, target: Path) -> None:
    """Copy a local file to `target`, atomically. Raises RunError when it cannot be read or written."""
    try:
        original = open(path, "rb")  # noqa: SIM115
    except OSError as error:
        raise RunError(f"{path}: cannot be read: {error.strerror}") from error
    with original, atomic.atomic(target) as stream:
        shutil.copyfileobj(original, stream, _BLOCK)


def _received(wanted: _Wanted, url: str, hub: bool, host: str, unreachable: set[str] | None) -> Origin:
    """Download the part to its full length: any number of tries that add bytes, and a few that do not."""
    best = failures = 0
    while True:
        try:
            return _receive(wanted, url, hub)
        except (TryAgain, Refused) as error:
            have = wanted.part.stat().st_size if wanted.part.exists() else 0
            failures = 0 if have > best else failures + 1
            best = max(best, have)
            if isinstance(error, Refused) and error.unreachable:
                if unreachable is not None:
                    unreachable.add(host)
                raise DownloadFailed(f"no connection to {host}: {error}") from error
            wait = max(error.wait if isinstance(error, TryAgain) else 0.0, _PAUSE * 2 ** max(failures - 1, 0))
            if isinstance(error, Refused) or failures >= _TRIES:
                raise DownloadFailed(str(error)) from error
            if wait > LONGEST_WAIT:
                raise DownloadFailed(f"{error}; it asks to wait {wait:.0f} s: run the same command again after that") from error
            if wait > 2:
                _log.info(f"{wanted.target.name}: {error}; trying again in {wait:.0f} s")
            _wait(wait)


def _receive(wanted: _Wanted, url: str, hub: bool) -> Origin:
    """One try. Returns what is known of the complete part; raises TryAgain or Refused."""
    before = read_origin(wanted.part, wanted.source)
    have = wanted.part.stat().st_size if before is not None and wanted.part.exists() else 0
    pinned = bool(wanted.sha256 or wanted.md5)
    if before is None or not (pinned or before.sha256 or before.validator):
        before, have = None, 0  # bytes of two versions could be mixed without notice
    if before is not None and have and have == before.total:
        return replace(before, resumed=True)  # the part was complete when it was stopped
    ask = {"Accept-Encoding": "identity", "User-Agent": "iqa-harness"}
    if before is not None and have:
        ask["Range"] = f"bytes={have}-"
        if before.validator:
            ask["If-Range"] = before.validator
    with _answer(url, {**wanted.headers, **ask}, wanted, hub) as (answer, origin):
        if answer.status_code == 416 and before is not None and have:
            if have == responses.expected_length(answer):
                return replace(before, total=have, resumed=True)
            forget(wanted.part)
            raise TryAgain("the earlier part no longer fits")
        responses.raise_passing(answer)
        if answer.status_code not in (200, 206):
            raise Refused(responses.status_text(answer.status_code))
        origin = _judged(answer, origin, before, have, wanted)
        have = have if origin.resumed else 0
        if not wanted.size and origin.total and not have:
            _log.info(f"{wanted.target.name}: {origin.total:,} bytes to fetch")
        write_origin(wanted.part, origin)
        _copy(answer, wanted, have, origin.total)
    size = wanted.part.stat().st_size
    if origin.total and size < origin.total:
        raise TryAgain(f"cut after {size:,} of {origin.total:,} bytes")
    origin = replace(origin, total=size)
    write_origin(wanted.part, origin)
    return origin


@contextlib.contextmanager
def _answer(url: str, headers: Mapping[str, str], wanted: _Wanted, hub: bool) -> Iterator[tuple[requests.Response, Origin]]:
    """The answer at the end of the redirects, and what the hub's headers said before."""
    origin, within = Origin(wanted.source), ANSWER_WITHIN
    with contextlib.suppress(ValueError):
        within = max(1.0, float(os.environ.get("HARNESS_DOWNLOAD_TIMEOUT", "")))
    with contextlib.ExitStack() as stack:
        for _ in range(_REDIRECTS):
            answer = stack.enter_context(responses.open_response(url, headers, (CONNECT_WITHIN, within)))
            if hub:
                origin = origin.with_hub(answer.headers)
                hub = False  # later hosts only store the file
            onward = responses.next_address(answer, url)
            if not onward:
                yield answer, origin
                return
            if urllib.parse.urlsplit(onward).netloc != urllib.parse.urlsplit(url).netloc:
                # Headers for one host (a token) are not sent to another.
                headers = {name: value for name, value in headers.items() if name not in wanted.headers}
            url = onward
    raise Refused(f"more than {_REDIRECTS} redirects")


def _judged(answer: requests.Response, origin: Origin, before: Origin | None, have: int, wanted: _Wanted) -> Origin:
    """Check that the answer's bytes belong to the file and continue the received part; raises Refused or TryAgain."""
    origin = origin.with_answer(answer.headers)
    resumed = answer.status_code == 206
    if resumed:
        begin = str(answer.headers.get("Content-Range", "")).partition("-")[0].removeprefix("bytes ").strip()
        if before is None or not have or begin != str(have):
            raise Refused("the server sent another part of the file than the requested one")
        if not origin.continues(before):
            forget(wanted.part)
            raise TryAgain("the file changed on the server")
    length, begun = responses.expected_length(answer), have if resumed else 0
    if origin.encoding not in ("", "identity", "gzip", "x-gzip"):
        raise Refused(f"the server sent it compressed ({origin.encoding}), which was not requested")
    if wanted.size and length and length != wanted.size and not origin.encoding:
        raise Refused(f"it has {length:,} bytes on the server, but should have {wanted.size:,}")
    if wanted.sha256 and origin.sha256 and origin.sha256 != wanted.sha256:
        raise Refused(f"the hub's file has the sha256 {origin.sha256}, but should have {wanted.sha256}")
    if length > wanted.largest:
        raise Refused(f"{length:,} bytes are more than such a file can have")
    with contextlib.suppress(OSError):
        freed = 0 if resumed or not wanted.part.exists() else wanted.part.stat().st_size
        free = shutil.disk_usage(wanted.part.parent).free + freed
        if free < length - begun:
            raise Unwritable(
                f"{wanted.target}: cannot be written: {length - begun:,} more bytes are needed and {free:,} are free: "
                "free some and run the same command again; received bytes are kept"
            )
    return replace(origin, total=length, resumed=resumed)


def _copy(answer: requests.Response, wanted: _Wanted, have: int, total: int) -> None:
    """Append the answer's bytes to the part; raises TryAgain when they end early."""
    mark, since = have, time.monotonic()
    largest = total or min(wanted.size or wanted.largest, wanted.largest)
    # Unbuffered: an error of the disk is raised here, and every counted byte is written.
    with atomic.writing(wanted.part):
        stream = open(wanted.part, "ab" if have else "wb", buffering=0)  # noqa: SIM115
    with stream:
        while True:
            try:
                # read1 returns the bytes received so far; read would wait for a full block of a slow answer.
                block = answer.raw.read1(_BLOCK, decode_content=False)
            except Exception as error:  # of urllib3, http.client, ssl and socket, without a common base
                raise TryAgain(f"cut after {have:,} bytes ({reason(error)})") from error
            if not block:
                break
            if not have and (problem := page_problem(block, wanted.target.name)):
                forget(wanted.part)
                raise Refused(problem)
            have += len(block)
            if have > largest:
                forget(wanted.part)
                raise Refused(f"the server sent more than the {largest:,} bytes that it should have")
            with atomic.writing(wanted.part):
                _write(stream.fileno(), block)
            if wanted.progress is not None:
                wanted.progress(wanted.target.name, have, total)
            if (passed := time.monotonic() - since) > _SLOW_FOR:
                if have - mark < _SLOWEST * passed:
                    raise Refused(f"too slow: {have - mark:,} bytes in {passed:.0f} s; received bytes are kept for the next try")
                mark, since = have, time.monotonic()
        with atomic.writing(wanted.part):
            os.fsync(stream.fileno())


def _write(descriptor: int, block: bytes) -> None:
    view = memoryview(block)
    while view:
        count = os.write(descriptor, view)
        if not count:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        view = view[count:]


def _decoded(wanted: _Wanted, origin: Origin) -> Path:
    """The complete part without a gzip compression that the server added; a .gz file keeps its own."""
    if origin.encoding not in ("gzip", "x-gzip"):
        return wanted.part
    known = wanted.sha256 or wanted.md5 or origin.sha256
    if not _hash_problem(wanted.part, wanted, origin)[0] and (known or not content_problem(wanted.part, wanted.target.name)):
        return wanted.part
    plain = wanted.target.with_name(f"{wanted.target.name}.part.plain")
    try:
        with atomic.writing(plain), open(plain, "wb", buffering=0) as stream, gzip.open(wanted.part) as packed:
            size = 0
            while True:
                try:
                    block = packed.read(_BLOCK)
                except Exception as error:  # EOFError, zlib.error, and gzip's own, an OSError without a number
                    if isinstance(error, OSError) and error.errno is not None:
                        raise
                    raise DownloadFailed(f"the server sent it compressed, and it is damaged ({reason(error)})") from error
                if not block:
                    break
                size += len(block)
                if size > wanted.largest:
                    raise DownloadFailed("it unpacks to more bytes than such a file can have")
                _write(stream.fileno(), block)
    except BaseException:
        plain.unlink(missing_ok=True)
        raise
    with atomic.writing(wanted.part):
        os.replace(plain, wanted.part)
    write_origin(wanted.part, replace(origin, encoding="", total=size))
    return wanted.part


def _hash_problem(path: Path, wanted: _Wanted, origin: Origin) -> tuple[str, str]:
    """Why the file's size or hash is wrong (empty: it is not), and its sha256."""
    size = os.stat(path).st_size
    if wanted.size and size != wanted.size:
        return f"it has {size:,} bytes, but should have {wanted.size:,}", ""
    sha256, md5 = hashlib.sha256(), hashlib.md5(usedforsecurity=False)
    with open(path, "rb") as stream:
        while block := stream.read(1 << 20):
            sha256.update(block)
            if wanted.md5:
                md5.update(block)
    expected = wanted.sha256 or origin.sha256
    if expected and sha256.hexdigest() != expected:
        return f"the received file has the sha256 {sha256.hexdigest()}, but should have {expected}", sha256.hexdigest()
    if wanted.md5 and md5.hexdigest() != wanted.md5:
        return f"the received file has the md5 {md5.hexdigest()}, but should have {wanted.md5}", sha256.hexdigest()
    return "", sha256.hexdigest()


def _checked(path: Path, wanted: _Wanted, origin: Origin) -> Fetched:
    """The file if it is the right one; raises DownloadFailed, or what `accept` raises."""
    try:
        problem, sha256 = _hash_problem(path, wanted, origin)
        problem = problem or content_problem(path, wanted.target.name)
    except OSError as error:
        raise DownloadFailed(f"{path}: cannot be read: {error.strerror}") from error
    if problem:
        here = f"{path} is there but is not the file: " if path == wanted.target else ""
        advice = "; remove or rename it" if here else ""
        raise DownloadFailed(f"{here}{problem}{advice}")
    if wanted.accept is not None:
        wanted.accept(path)
    return Fetched(path, os.stat(path).st_size, sha256, origin.revision)
