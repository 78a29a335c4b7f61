"""`harness data get` and `data unpack`: download datasets that are public, unpack archives, print the steps for the others."""

from __future__ import annotations

import logging
import shlex
import shutil
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import msgspec

from harness.cards.loading import cards_option
from harness.cards.schema import DatasetCard, Download
from harness.datasets import data_folder, data_root
from harness.datasets.archives import NoTool, Password, is_archive, unpack, working_in
from harness.datasets.file_index import Tree
from harness.files import atomic
from harness.files.download import DownloadFailed, Progress, download
from harness.files.download import offline as is_offline
from harness.runtime.errors import RunError, UsageError

_log = logging.getLogger(__package__)

_LEDGER = ".fetched.json"
"""A file in the dataset's folder that lists downloaded and unpacked files, so that nothing is done twice."""
_LARGEST = 64 << 30


class _Fetched(msgspec.Struct, omit_defaults=True):
    """One file of the ledger."""

    url: str = ""
    sha256: str = ""
    bytes: int = 0
    downloaded: bool = False
    """Whether `data get` downloaded it: only then is it removed after unpacking."""
    folders: dict[str, int] = {}
    """How many files each folder got from it; empty: not unpacked."""
    changed: int = 0
    """Modification time (ns) of an archive that the user put there, so that another one of its name is unpacked again."""


class _Ledger:
    """What was downloaded and unpacked in a folder before."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.files: dict[str, _Fetched] = {}
        with suppress(OSError, msgspec.MsgspecError, RecursionError, ValueError):
            self.files = msgspec.json.decode((folder / _LEDGER).read_bytes(), type=dict[str, _Fetched])

    def note(self, name: str, facts: _Fetched) -> None:
        self.files[name] = facts
        atomic.write_json(self.folder / _LEDGER, msgspec.to_builtins(self.files))

    def unpacked(self, name: str) -> bool:
        """Whether an archive was unpacked and its files still exist."""
        folders = self.files.get(name, _Fetched()).folders
        with suppress(OSError):
            here = {place: sum(1 for entry in (self.folder / place).iterdir() if entry.is_file()) for place in folders}
            return bool(folders) and all(here[place] >= count for place, count in folders.items())
        return False


def get(
    card: DatasetCard,
    root: str | Path | None = None,
    *,
    progress: Progress | None = None,
    offline: bool = False,
    password: Password | None = None,
) -> list[str]:
    """Download a dataset to its folder (`root`, else `$HARNESS_DATA/<name>`); returns lines that say what was done.

    Present files are kept, interrupted downloads are continued, and an archive is removed after unpacking only where this
    function downloaded it. Raises RunError with the steps for the user where nothing can be downloaded, and, after the others
    are downloaded, with every file that failed.
    """
    folder = place_of(card, root)
    if not card.downloads:
        if folder.is_dir() and _whole(card, folder):
            return [f"{card.name} is in {folder} already, complete."]
        raise RunError(f"{card.name} has no public address to download from.\n{steps(card, folder)}")
    if is_offline(offline):
        ledger = _Ledger(folder)
        if folder.is_dir() and (all(_done(entry, ledger) for entry in card.downloads) or _whole(card, folder)):
            return [f"{card.name} is in {folder} already; nothing was downloaded."]
        why = "the network must not be used (--offline or $HF_HUB_OFFLINE)"
        raise RunError(f"{card.name}: not downloaded: {why}.\n{steps(card, folder)}")
    problems: list[str] = []
    unreachable: set[str] = set()
    notice: list[str] = []
    with working_in(folder):
        ledger = _Ledger(folder)
        wanted = [entry for entry in card.downloads if not _done(entry, ledger)]
        lines = [f"{entry.file}: fetched before" for entry in card.downloads if entry not in wanted]
        if wanted and _whole(card, folder):
            return [f"{card.name} is in {folder} already, complete; nothing was downloaded."]
        if card.notice:
            # The owners' notice is kept, word for word, next to their files.
            place = Path(card.path).absolute().parent / card.notice
            try:
                text = place.read_text(encoding="utf-8")
            except (OSError, UnicodeDecodeError) as error:
                raise UsageError(f"{card.path}: notice = {card.notice!r} cannot be read ({error})") from None
            atomic.write_text(folder / place.name, text)
            notice = [*text.strip().splitlines(), f"This notice is kept in {folder / place.name}; it stays with every copy."]
        if wanted:
            sizes = [f"{entry.bytes:,} bytes" if entry.bytes else entry.about or "size unknown" for entry in wanted]
            files = ", ".join(f"{entry.file} ({size})" for entry, size in zip(wanted, sizes, strict=True))
            free = shutil.disk_usage(folder).free
            _log.info(f"{card.name}: downloading {files} to {folder}; {free:,} bytes are free")
        for entry in wanted:
            try:
                lines.append(_one(entry, folder, ledger, progress, unreachable, password))
            except NoTool as error:
                problems.append(f"{error}; then: {command(card, root, 'unpack')}")
            except (DownloadFailed, UsageError) as error:
                problems.append(f"{entry.url}: {error}")
            except RunError as error:
                problems.append(str(error))
    if problems:
        done = [f"there: {line}" for line in lines]
        raise RunError(
            "\n".join([*problems, *done, "Run the same command again to continue, or do it yourself:", steps(card, folder)])
        )
    check = command(card, root, "check")
    return [*lines, *notice, f"{card.name} is in {folder}; `{check}` checks it. Licence: {card.licence or 'unknown'}"]


def unpack_archives(
    card: DatasetCard,
    root: str | Path | None = None,
    archives: Sequence[str | Path] = (),
    *,
    progress: Progress | None = None,
    password: Password | None = None,
) -> list[str]:
    """Unpack `archives`, else all archives in the dataset's folder that were not unpacked before; they are kept.

    Archives inside archives are unpacked too. Returns lines that say what was done. Raises UsageError where there is none,
    RunError with every archive that failed after the others are unpacked.
    """
    folder = place_of(card, root)
    if absent := [str(path) for path in archives if not Path(path).is_file() or not is_archive(path)]:
        raise UsageError("\n".join(f"{path}: no such file, or not a .zip, .tar, .tar.gz, .tgz or .rar" for path in absent))
    lines: list[str] = []
    problems: list[str] = []
    tried: set[Path] = set()
    if not archives and not folder.is_dir():
        raise UsageError(f"{folder}: no such folder\n{steps(card, folder)}")
    with working_in(folder):
        ledger = _Ledger(folder)
        pending = [Path(path) for path in archives] or _lying(folder)
        if not pending:
            raise UsageError(f"{folder}: no archive in this folder\n{steps(card, folder)}")
        while pending := [path for path in pending if path.absolute() not in tried]:
            for path in pending:
                tried.add(path.absolute())
                try:
                    lines.append(_opened(path, folder, ledger, progress, password))
                except RunError as error:
                    problems.append(str(error))
            pending = _lying(folder)
    if problems:
        raise RunError("\n".join([*problems, *(f"done: {line}" for line in lines)]))
    return [*lines, f"`{command(card, root, 'check')}` checks {card.name}"]


def place_of(card: DatasetCard, root: str | Path | None) -> Path:
    """The folder for a dataset's files."""
    name = card.folder or card.name
    return data_root(name, root) or data_folder() / name


def command(card: DatasetCard, root: str | Path | None, word: str) -> str:
    """`harness data WORD` for this dataset, as a command line."""
    options = ["--root", str(root)] if root is not None else []
    return shlex.join(["harness", "data", word, card.name, *options, *cards_option(card.path)])


def steps(card: DatasetCard, folder: Path) -> str:
    """How to obtain a dataset: addresses, the folder's real path, sizes, licence; one step a line."""
    lines = [line.strip() for line in card.get.replace("{folder}", str(folder.absolute())).splitlines() if line.strip()]
    lines += [f"home: {card.home}"] if card.home else []
    lines += [f"folder: {folder.absolute()}"]
    lines += [f"licence: {card.licence}"] if card.licence else []
    return "\n".join([f"How to get {card.name}:", *(f"  {line}" for line in lines)])


def _done(entry: Download, ledger: _Ledger) -> bool:
    """Whether a file was downloaded before, and it or its unpacked files exist."""
    known = ledger.files.get(entry.file)
    if known is None or known.url != entry.url:
        return False
    return ledger.unpacked(entry.file) if is_archive(entry.file) else (ledger.folder / entry.file).is_file()


def _one(
    entry: Download,
    folder: Path,
    ledger: _Ledger,
    progress: Progress | None,
    unreachable: set[str],
    password: Password | None,
) -> str:
    if not entry.url.startswith(("https://", "hf://")):
        raise UsageError("only https:// and hf:// addresses are downloaded")
    if not entry.file or Path(entry.file).name != entry.file or entry.file.startswith("."):
        raise UsageError(f"file = {entry.file!r} is not a file name")
    target = folder / entry.file
    before = ledger.files.get(entry.file, _Fetched())
    url, sha256, md5 = entry.url, entry.sha256, entry.md5
    found = download(
        url, target, sha256=sha256, md5=md5, size=entry.bytes, largest=_LARGEST, progress=progress, unreachable=unreachable
    )
    ours = found.fresh or (before.downloaded and before.sha256 == found.sha256)
    facts = _Fetched(url=url, sha256=found.sha256, bytes=found.bytes, downloaded=ours)
    ledger.note(entry.file, facts)
    compared = "as the card says" if sha256 or md5 else "the card has none to compare with; recorded"
    line = f"{entry.file}: {found.bytes:,} bytes, sha256 {found.sha256} ({compared})"
    if not is_archive(entry.file):
        return line
    result = unpack(target, folder, progress, password)
    ledger.note(entry.file, msgspec.structs.replace(facts, folders=result.folders, changed=target.stat().st_mtime_ns))
    line += f", {result.files:,} files unpacked"
    if not ours:
        return f"{line}; the archive was present before and is kept"
    with atomic.writing(target):
        target.unlink()
    return f"{line}; the downloaded archive was removed"


def _opened(path: Path, folder: Path, ledger: _Ledger, progress: Progress | None, password: Password | None) -> str:
    """Unpack one archive of the user's."""
    try:
        name = path.absolute().relative_to(folder.absolute()).as_posix()
    except ValueError:
        name = str(path.absolute())
    status = path.stat()
    known = ledger.files.get(name, _Fetched())
    if (known.bytes, known.changed) == (status.st_size, status.st_mtime_ns) and ledger.unpacked(name):
        return f"{path}: unpacked before; its files exist"
    result = unpack(path, folder, progress, password)
    facts = msgspec.structs.replace(known, bytes=status.st_size, changed=status.st_mtime_ns, folders=result.folders)
    ledger.note(name, facts)
    return f"{path}: {result.files:,} files unpacked into {folder}; the archive is kept, and may be removed"


def _lying(folder: Path) -> list[Path]:
    tree = Tree(folder)
    return [Path(tree.path(file)) for file in tree.archives]


def _whole(card: DatasetCard, folder: Path) -> bool:
    """Whether the folder holds the complete dataset without a download by `get`."""
    from harness.datasets.check import check

    report = check(card, folder)
    return report.ok and bool(card.pairs) and report.counts[0].found == card.pairs
