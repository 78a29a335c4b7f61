"""The manifest of a full check: names, sizes and content hashes of a dataset's files, and one hash over them.

The hash depends on the files' names in the dataset and their content, not on their folder, so two mirrors of one
archive have the same hash. The manifest is in the dataset's folder, or in the cache where that cannot be written, and
is valid only while no file has changed since.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from harness.cards.schema import DatasetCard
from harness.files.atomic import sha256_json, write_json
from harness.files.hash_index import changed
from harness.runtime.caches import cache_folder
from harness.runtime.errors import RunError

FORMAT = 1


def write(card: DatasetCard, root: Path, entries: Mapping[str, tuple[str, int, str]]) -> Path | None:
    """Write the manifest of `entries` (by name in the dataset: path, bytes, sha256); None where nothing can be written."""
    files = []
    for name, (path, size, digest) in sorted(entries.items()):
        status = os.stat(path)
        inside = os.path.relpath(path, root)
        files.append({"name": name, "bytes": size, "sha256": digest, "file": inside, "modified": status.st_mtime_ns})
    document = {"format": FORMAT, "dataset": card.name, "hash": _hash(files), "files": files}
    for place in _places(card, root):
        with suppress(RunError):
            write_json(place, document)
            return place
    return None


class Manifest(NamedTuple):
    """The manifest of an earlier full check."""

    hash: str
    files: Mapping[str, str]
    """sha256 by the file's path below the dataset's folder."""


def read(card: DatasetCard, root: Path | None) -> Manifest | None:
    """The manifest of an earlier full check of this folder; None without one that can be read."""
    for place in _places(card, root) if root is not None else ():
        with suppress(OSError, ValueError, KeyError, TypeError, RecursionError):
            document = json.loads(place.read_text(encoding="utf-8"))
            files = document["files"]
            if document["format"] == FORMAT and document["hash"] == _hash(files):
                return Manifest(str(document["hash"]), {str(f["file"]): str(f["sha256"]) for f in files})
    return None


def changed_files(card: DatasetCard, root: Path | None, known: Manifest | None = None) -> list[str]:
    """The files below the folder whose content differs from the manifest, or that are missing; empty without a manifest."""
    known = known or read(card, root)
    if known is None or root is None:
        return []
    places = {str(root / file): digest for file, digest in known.files.items()}
    return [os.path.relpath(path, root) for path in changed(places)]


def manifest_hash(card: DatasetCard, root: Path | None) -> str | None:
    """The hash of an earlier full check's manifest; None without one, and when any file has changed since."""
    known = read(card, root)
    return known.hash if known is not None and not changed_files(card, root, known) else None


def _hash(files: Iterable[Mapping[str, object]]) -> str:
    return sha256_json([[f["name"], f["bytes"], f["sha256"]] for f in files])


def _places(card: DatasetCard, root: Path) -> list[Path]:
    name = f"manifest-{card.name}.json"
    key = hashlib.sha256(os.fsencode(root.resolve())).hexdigest()[:16]
    return [root / name, cache_folder() / "manifests" / key / name]
