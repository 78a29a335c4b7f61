"""Files fetched over https: bounded waiting, resumed where that is safe, and named only when whole and right.

A fetch is bounded when nothing answers (seconds for a source, and a host that did not answer is asked once), goes on
with a download that was cut, and gives a file its name only when it is whole and has been accepted.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import queue
import re
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Protocol

from harness.files import atomic
from harness.runtime.errors import UsageError

ANSWER_WITHIN = 10.0
"""Seconds in which a host has to begin its answer, name look-up and redirections included; also for each later read."""
_TRIES = 3
_SLOWEST = 1024
_SLOW_FOR = 30.0
LARGEST = 16 << 30
_PAUSE = 0.5
_BLOCK = 1 << 18

Progress = Callable[[str, int, int], None]
"""Called with the file's name, the bytes there, and the bytes in all (0: unknown)."""


class Response(Protocol):
    """An answer, as http.client and urllib give it."""

    headers: Any

    @property
    def status(self) -> int | None: ...

    def read(self, amount: int, /) -> bytes: ...

    def close(self) -> None: ...


Transport = Callable[[urllib.request.Request, float], Response]
"""Opens a request with a time limit in seconds; raises OSError or http.client.HTTPException."""


class SourceFailed(Exception):
    """One source did not give the file; `again` when the download moved on and another try may finish it."""

    def __init__(self, why: str, again: bool = False) -> None:
        super().__init__(why)
        self.again = again


class _NotHttps(urllib.error.URLError):
    pass


class _HttpsOnly(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, req: Any, fp: Any, code: int, msg: str, headers: Any, newurl: str) -> Any:
        if urllib.parse.urlsplit(newurl).scheme != "https":
            raise _NotHttps(f"it redirects to {newurl.split('?')[0]}, which is not https")
        request = super().redirect_request(req, fp, code, msg, headers, newurl)
        # A token is for the host that it was meant for, and for no other.
        if request is not None and urllib.parse.urlsplit(newurl).netloc != urllib.parse.urlsplit(req.full_url).netloc:
            request.remove_header("Authorization")
        return request


def open_https(request: urllib.request.Request, timeout: float) -> Response:
    """The default transport: urllib with the system's proxies and certificates; every redirection must stay on https."""
    if request.type != "https":
        raise _NotHttps(f"{request.full_url}: only https is used")
    try:
        answer: Response = urllib.request.build_opener(_HttpsOnly).open(request, timeout=timeout)
    except urllib.error.HTTPError as error:
        return error  # an answer like any other; its status is judged by the caller
    return answer


@contextlib.contextmanager
def _alone(folder: Path) -> Iterator[bool]:
    """Hold the folder's download lock, which dies with its holder; False where the system has no such lock."""
    with atomic.writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        stream = open(folder / ".lock", "ab")  # noqa: SIM115
    with stream:
        try:
            import fcntl

            fcntl.flock(stream, fcntl.LOCK_EX)
        except (ImportError, OSError):
            yield False
        else:
            yield True


def download(
    url: str,
    target: Path,
    accept: Callable[[Path], None],
    *,
    headers: Mapping[str, str] | None = None,
    checked: bool = False,
    largest: int = LARGEST,
    progress: Progress | None = None,
    transport: Transport | None = None,
    unreachable: set[str] | None = None,
) -> Path:
    """Bring one address's file to `target`, unless it is there.

    `accept` looks at the whole file before it gets its name and raises SourceFailed or UsageError for a wrong one, which
    is removed. `checked`: it would notice bytes of two versions, so a cut download may be continued without an entity
    tag. `unreachable` collects the hosts that did not answer, so that several files of one host wait for it once.
    Raises SourceFailed saying what went wrong, RunError when the folder cannot be written.
    """
    unreachable = set() if unreachable is None else unreachable
    host = urllib.parse.urlsplit(url).netloc
    if host in unreachable:
        raise SourceFailed(f"{host} did not answer before")
    with _alone(target.parent) as alone:
        if target.is_file():  # another process brought it while this one waited
            return target
        # Without a lock two processes could write one file, so each has its own, which then cannot be resumed.
        part = target.with_name(f"{target.name}.part" if alone else f".{target.name}.{os.getpid()}.part")
        wanted = _Wanted(url, headers or {}, part, target.name, checked, largest, progress, transport or open_https, unreachable)
        try:
            for trial in range(_TRIES):
                try:
                    _receive(wanted)
                    break
                except SourceFailed as error:
                    if not error.again or trial == _TRIES - 1:
                        raise
                    time.sleep(_PAUSE)
            put(part, target, accept)
            return target
        finally:
            if not alone:
                part.unlink(missing_ok=True)
            if not part.exists():
                _origin_path(part).unlink(missing_ok=True)


def put(part: Path, target: Path, accept: Callable[[Path], None]) -> None:
    """Give the whole file `part` its name if `accept` finds it right, else remove it and raise what `accept` raises."""
    try:
        accept(part)
    except (SourceFailed, UsageError):
        part.unlink(missing_ok=True)
        raise
    with atomic.writing(target):
        os.replace(part, target)


@dataclass(frozen=True)
class _Wanted:
    """One download."""

    url: str
    headers: Mapping[str, str]
    part: Path
    name: str
    checked: bool
    largest: int
    progress: Progress | None
    transport: Transport
    unreachable: set[str]


def _origin_path(part: Path) -> Path:
    return part.with_name(part.name + ".json")


def _receive(wanted: _Wanted) -> None:
    """Bring the part to its full length, going on from what is there where that is safe; raises SourceFailed."""
    have, tag = _begun(wanted.part, wanted.url, wanted.checked)
    ranged = {"Range": f"bytes={have}-", **({"If-Range": tag} if tag else {})} if have else {}
    request = urllib.request.Request(wanted.url, headers={**wanted.headers, "Accept-Encoding": "identity", **ranged})
    answer = _open(wanted.transport, request, wanted.unreachable)
    try:
        have, total = _judged(answer, have, wanted)
        tag = answer.headers.get("ETag") or ""
        atomic.write_json(_origin_path(wanted.part), {"url": wanted.url, "tag": "" if tag.startswith("W/") else tag})
        with atomic.writing(wanted.part):
            stream = open(wanted.part, "ab" if have else "wb")  # noqa: SIM115
        with stream:
            _copy(answer, stream, wanted, have, total)
    finally:
        answer.close()


def _begun(part: Path, url: str, checked: bool) -> tuple[int, str]:
    """The bytes of an earlier download that can be continued, and the entity tag they had."""
    # Bytes of two versions of a file must not be joined: either the tag or the final sha256 has to notice.
    try:
        origin = json.loads(_origin_path(part).read_text(encoding="utf-8"))
        tag = str(origin["tag"]) if origin["url"] == url else ""
        return (part.stat().st_size, tag) if tag or checked else (0, "")
    except (OSError, ValueError, KeyError, TypeError):
        return 0, ""


def _open(transport: Transport, request: urllib.request.Request, unreachable: set[str]) -> Response:
    """Open within ANSWER_WITHIN seconds in all: a socket's own limit holds for each address and leaves out the look-up."""
    answers: queue.SimpleQueue[Response | Exception] = queue.SimpleQueue()

    def ask() -> None:
        try:
            answers.put(transport(request, ANSWER_WITHIN))
        except Exception as error:
            answers.put(error)

    threading.Thread(target=ask, daemon=True).start()
    try:
        answer = answers.get(timeout=ANSWER_WITHIN)
    except queue.Empty:
        answer = TimeoutError(f"no answer within {ANSWER_WITHIN:g} s")
    if isinstance(answer, _NotHttps):
        raise SourceFailed(str(answer.reason))
    if isinstance(answer, OSError | http.client.HTTPException | ValueError):
        unreachable.add(urllib.parse.urlsplit(request.full_url).netloc)
        raise SourceFailed(_told(answer)) from answer
    if isinstance(answer, Exception):
        raise answer
    return answer


def _told(error: Exception) -> str:
    reason = getattr(error, "reason", error)
    return " ".join(str(getattr(reason, "strerror", None) or reason or type(error).__name__).split())[:200]


def _judged(answer: Response, have: int, wanted: _Wanted) -> tuple[int, int]:
    """Where the answer's bytes belong, and how many there will be in all (0: unknown)."""
    if answer.status == 416 and have:
        wanted.part.unlink(missing_ok=True)
        raise SourceFailed("the earlier part no longer fits", again=True)
    if answer.status not in (200, 206):
        known = {401: " (not without an account)", 403: " (forbidden)", 404: " (not there)", 429: " (too many requests)"}
        raise SourceFailed(f"HTTP status {answer.status}{known.get(answer.status or 0, '')}", again=(answer.status or 0) >= 500)
    if str(answer.headers.get("Content-Type", "")).startswith("text/html"):
        raise SourceFailed("a web page came, not a file (a quota, a login or a moved file)")
    if answer.status == 206:
        match = re.match(r"bytes (\d+)-", str(answer.headers.get("Content-Range", "")))
        if not match or int(match[1]) != have:
            raise SourceFailed("it answered with another part than the one asked for")
    else:
        have = 0
    length = str(answer.headers.get("Content-Length") or "")
    total = have + int(length) if length.isdecimal() else 0
    if total > wanted.largest:
        raise SourceFailed(f"{total} bytes are more than such a file has")
    return have, total


def _copy(answer: Response, stream: IO[bytes], wanted: _Wanted, have: int, total: int) -> None:
    start = mark = have
    since = time.monotonic()
    # read1 gives what has come so far; read would wait for a full block of a trickling answer.
    read = getattr(answer, "read1", answer.read)
    while True:
        try:
            block = read(_BLOCK)
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise SourceFailed(f"cut after {have} bytes: {_told(error)}", again=have > start) from error
        if not block:
            break
        with atomic.writing(wanted.part):
            stream.write(block)
            stream.flush()
        have += len(block)
        if wanted.progress is not None:
            wanted.progress(wanted.name, have, total)
        if have > (total or wanted.largest):
            raise SourceFailed("more bytes came than were announced")
        if (passed := time.monotonic() - since) > _SLOW_FOR:
            if have - mark < _SLOWEST * passed:
                raise SourceFailed(f"too slow: {have - mark} bytes in {passed:.0f} s; what came is kept for the next try")
            mark, since = have, time.monotonic()
    if have < total:
        raise SourceFailed(f"cut after {have} of {total} bytes", again=have > start)
    with atomic.writing(wanted.part):
        os.fsync(stream.fileno())
