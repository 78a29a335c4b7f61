"""The built-in demonstration dataset: thirteen free images, 25 kinds of distortion, and mean scores as labels.

It runs the whole pipeline on real image content with nothing to download, and it is not a benchmark: the label
of a pair is the mean score that KADID-10k's raters gave to its kind of distortion at its level, whatever the
image, so a model that recognises the 125 cells scores perfectly.

The references travel with the package (`data/`, with their licences in NOTICE.md). The distorted images are
made on first use and kept in a cache, as BMP: an image of 288x288 decodes in a tenth of the time of a PNG, and
takes about half as much space again.
"""

from __future__ import annotations

import contextlib
import csv
import hashlib
import itertools
import json
import os
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from PIL import Image

from harness.datasets.demo import distortions
from harness.files.atomic import atomic, sha256_json, write_json, writing
from harness.files.hash_index import hash_files
from harness.runtime.caches import cache_folder
from harness.runtime.errors import RunError, UsageError, listed, near

if TYPE_CHECKING:
    import pandas as pd

    from harness.cards.schema import DatasetCard

SIDE = 288
"""Height and width of every image, in pixels."""

VISIBLE = 2
"""The least maximum difference, in grey levels, of a distorted image from its reference; other pairs are dropped."""

_BYTES = 54 + 3 * SIDE * SIDE
"""Bytes of a 24-bit BMP of this size (its rows need no padding)."""
_STALE = 3600
"""Seconds after which another process's temporary file counts as a killed process's."""

Progress = Callable[[int, int], None]


class _Pair(NamedTuple):
    reference: str
    kind: str
    level: int

    @property
    def name(self) -> str:
        return f"{self.reference}_{self.kind}_{self.level}.bmp"


def read(
    card: DatasetCard,
    root: Path | None,
    progress: Progress | None = None,
    *,
    references: Sequence[str] = (),
    kinds: Sequence[str] = (),
) -> pd.DataFrame:
    """The pairs of the demonstration; images that are not in the cache are made first.

    Columns: name, distorted, reference (absolute paths), reference_id, distortion, level (1..5), score (the prior,
    1..5, higher is better). Images that equal their reference, or differ from it by at most one grey level
    everywhere, are left out.

    `root` replaces the cache folder (`cache_folder()`). `progress(done, total)` is called in this thread as images are
    made. `references` and `kinds` restrict the set (empty: all); a card names them under `[layout]`. After a kill the
    next call continues; several at once share the work. Raises UsageError for unknown references and kinds, RunError
    when the cache cannot be written.
    """
    import pandas as pd

    ids = _chosen(references, reference_ids(), "reference", card.path)
    pairs = [_Pair(*cell) for cell in itertools.product(ids, _chosen(kinds, distortions.KINDS, "kind", card.path), range(1, 6))]
    folder = Path(root if root is not None else cache_folder()).absolute() / f"demo-{_key()}"
    dropped = _make(folder, ids, pairs, progress)
    scores = priors()
    kept = [pair for pair in pairs if pair.name not in dropped]
    table = pd.DataFrame({"name": [pair.name for pair in kept]})
    table["distorted"] = [str(folder / "distorted" / pair.name) for pair in kept]
    table["reference"] = [str(folder / "references" / f"{pair.reference}.bmp") for pair in kept]
    table["reference_id"] = [pair.reference for pair in kept]
    table["distortion"] = [pair.kind for pair in kept]
    table["level"] = [pair.level for pair in kept]
    table["score"] = [scores[pair.kind][pair.level - 1] for pair in kept]
    # Codecs and processors round differently, so the bytes differ between machines: a hash of the generation identifies them.
    table.attrs["images"] = f"demo {_key()}"
    return table


def reference_ids() -> tuple[str, ...]:
    """The names of the packaged references, in alphabetical order."""
    return tuple(sorted(entry.name.removesuffix(".webp") for entry in _DATA.iterdir() if entry.name.endswith(".webp")))


def reference_image(reference: str) -> distortions.Image:
    """A packaged reference as (288, 288, 3) uint8 sRGB."""
    with (_DATA / f"{reference}.webp").open("rb") as stream, Image.open(stream) as image:
        return np.array(image.convert("RGB"))


def priors() -> dict[str, tuple[float, ...]]:
    """The mean score of KADID-10k's raters by kind at levels 1 to 5; 1 (bad) to 5 (excellent)."""
    text = (_DATA / "kadid_cell_means.csv").read_text(encoding="utf-8")
    rows = csv.reader(line for line in text.splitlines() if not line.startswith("#"))
    next(rows)
    return {kind: tuple(map(float, means)) for kind, *means in rows}


_DATA = resources.files("harness.datasets") / "demo" / "data"


def _chosen(asked: Sequence[str], known: Sequence[str], what: str, where: str) -> Sequence[str]:
    unknown = [f"{word!r}{near(word, known)}" for word in asked if word not in known]
    if unknown:
        raise UsageError(f"{where}: the demonstration has no {what} called {listed(unknown)} (it has {listed(known, 25)})")
    return [word for word in known if word in asked] if asked else known


def _key() -> str:
    """A hash of everything that determines the images; the labels are not part of it."""
    sources = {i: hashlib.sha256((_DATA / f"{i}.webp").read_bytes()).hexdigest() for i in reference_ids()}
    levels = {kind: list(values) for kind, values in distortions.LEVELS.items()}
    return sha256_json([distortions.VERSION, VISIBLE, levels, sources])[:12]


def _make(folder: Path, ids: Iterable[str], pairs: Sequence[_Pair], progress: Progress | None) -> Mapping[str, int]:
    """Complete the cache; returns the pairs that were dropped, with their largest difference."""
    manifest = folder / "manifest.json"
    dropped, content = _read_manifest(manifest)
    wanted = [f"distorted/{pair.name}" for pair in pairs if pair.name not in dropped] + [f"references/{i}.bmp" for i in ids]
    # Images that differ from the manifest are removed, so that they are made again.
    known = {name: str(folder / name) for name in wanted if name in content and (folder / name).is_file()}
    hashes = hash_files(known.values())
    for name, path in known.items():
        if hashes[path] != content[name]:
            with writing(path):
                os.unlink(path)
    there, references = _sizes(folder / "distorted"), _sizes(folder / "references")
    missing = [pair for pair in pairs if pair.name not in dropped and there.get(pair.name) != _BYTES]
    bare = [i for i in ids if references.get(f"{i}.bmp") != _BYTES]
    if not missing and not bare:
        if any(name not in content for name in wanted):
            with contextlib.suppress(RunError, UsageError):
                _write_manifest(folder, dropped, content, wanted)
        return dropped
    try:
        folder.mkdir(parents=True, exist_ok=True)
        reason = "" if os.access(folder, os.W_OK | os.X_OK) else "no permission to write there"
    except OSError as error:
        reason = error.strerror or str(error)
    if reason:
        raise RunError(f"{folder}: cannot be written: {reason}; name another folder for the images (--root, $HARNESS_CACHE)")
    images = {i: reference_image(i) for i in {*bare, *(pair.reference for pair in missing)}}
    for i in bare:
        _write(folder / "references" / f"{i}.bmp", images[i])
    # Processes that start together begin at different pairs, so that they share the work.
    start = os.getpid() * 7919 % max(1, len(missing))
    missing = missing[start:] + missing[:start]
    # Threads and not processes: the arithmetic releases the GIL, and a caller's script needs no main guard.
    processors = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    pool = ThreadPoolExecutor(min(8, processors))
    try:
        differences = pool.map(lambda pair: _make_one(folder, pair, images[pair.reference]), missing)
        for done, (pair, difference) in enumerate(zip(missing, differences, strict=True), 1):
            if difference < VISIBLE:
                dropped[pair.name] = difference
            if progress is not None:
                progress(done, len(missing))
    finally:
        pool.shutdown(cancel_futures=True)
    # Read again: meanwhile another process may have finished other references or kinds.
    others, content = _read_manifest(manifest)
    dropped = {**others, **dropped}
    _write_manifest(folder, dropped, content, [name for name in wanted if name.removeprefix("distorted/") not in dropped])
    return dropped


def _write_manifest(folder: Path, dropped: Mapping[str, int], content: Mapping[str, str], names: Sequence[str]) -> None:
    """Write the dropped pairs, and the content hashes of these images."""
    fresh = {name: str(folder / name) for name in names}
    hashes = hash_files(fresh.values())
    write_json(
        folder / "manifest.json",
        {
            "what": "images of the harness's demonstration dataset; this folder may be deleted, they are made again",
            "version": distortions.VERSION,
            "levels": {kind: list(values) for kind, values in distortions.LEVELS.items()},
            "dropped": dict(sorted(dropped.items())),
            "files": dict(sorted({**content, **{name: hashes[path] for name, path in fresh.items()}}.items())),
        },
    )


def _make_one(folder: Path, pair: _Pair, reference: distortions.Image) -> int:
    """Make one image; returns its largest difference from the reference, or `VISIBLE` if another process made it."""
    path = folder / "distorted" / pair.name
    with contextlib.suppress(OSError):
        if path.stat().st_size == _BYTES:
            return VISIBLE
    image = distortions.distort(reference, pair.kind, pair.level, pair.reference)
    difference = int(np.abs(image.astype(np.int16) - reference).max())
    if difference >= VISIBLE:
        _write(path, image)
    return difference


def _write(path: Path, image: distortions.Image) -> None:
    with atomic(path) as stream:
        Image.fromarray(image).save(stream, "BMP")


def _sizes(folder: Path) -> dict[str, int]:
    """Bytes of each file in `folder`; temporary files of killed processes are removed."""
    sizes = {}
    if folder.is_dir():
        with os.scandir(folder) as entries:
            for entry in entries:
                # Other processes rename and remove their temporary files meanwhile.
                with contextlib.suppress(OSError):
                    status = entry.stat()
                    sizes[entry.name] = status.st_size
                    if entry.name.endswith(".tmp") and status.st_mtime < time.time() - _STALE:
                        os.unlink(entry)
    return sizes


def _read_manifest(path: Path) -> tuple[dict[str, int], dict[str, str]]:
    """The dropped pairs, and the sha256 of each image; empty where no manifest can be read, so that they are computed again."""
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
        dropped = {str(name): int(difference) for name, difference in document["dropped"].items()}
        return dropped, {str(name): str(digest) for name, digest in document.get("files", {}).items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return {}, {}
