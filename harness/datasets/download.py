"""`harness data get`: download and unpack what has a public direct address, and tell the steps for the rest."""

from __future__ import annotations

import json
import shlex
from contextlib import suppress
from pathlib import Path
from typing import Any

from harness.cards.loading import cards_option
from harness.cards.schema import DatasetCard, Download
from harness.datasets import data_folder, data_root
from harness.datasets.archives import is_archive, unpack
from harness.datasets.file_index import how_to_get
from harness.files import atomic
from harness.files.download import DownloadFailed, Progress, Say, download
from harness.files.download import offline as is_offline
from harness.runtime.errors import RunError, UsageError

_LEDGER = ".fetched.json"
"""In the dataset's folder: what was fetched, so that it is not fetched twice; hidden, so no reader meets it."""
_LARGEST = 64 << 30


def get(
    card: DatasetCard,
    root: str | Path | None = None,
    *,
    progress: Progress | None = None,
    say: Say | None = None,
    offline: bool = False,
) -> list[str]:
    """Bring a dataset into its folder (`root`, else `$HARNESS_DATA/<name>`); returns lines that say what was done.

    What is there already is kept, what was cut is continued. Without a public address, or offline, the lines are the
    steps for a person. Raises RunError with every file that could not be had, after the others are there.
    """
    if not card.downloads:
        return [f"{card.name} has no public address to download from.", how_to_get(card)]
    if is_offline(offline):
        return ["offline: nothing was downloaded.", how_to_get(card)]
    name = card.folder or card.name
    folder = data_root(name, root) or data_folder() / name
    if folder.is_dir() and not (folder / _LEDGER).exists() and _whole(card, folder):
        return [f"{card.name} is in {folder} already, whole; nothing was downloaded."]
    notice = _notice(card, folder)
    lines: list[str] = []
    problems: list[str] = []
    unreachable: set[str] = set()
    for entry in card.downloads:
        try:
            lines.append(_one(entry, folder, progress, say, unreachable))
        except (DownloadFailed, UsageError) as error:
            problems.append(f"{entry.url}: {error}")
        except RunError as error:
            problems.append(str(error))
    if problems:
        done = [f"there: {line}" for line in lines]
        raise RunError("\n".join([*problems, *done, f"the rest can be had by hand. {how_to_get(card)}"]))
    lines += notice
    options = ["--root", str(root)] if root is not None else []
    told = shlex.join(["harness", "data", "check", card.name, *options, *cards_option(card.path)])
    return [
        *lines,
        f"{card.name} is in {folder}; `{told}` looks at it. Licence: {card.licence or 'unknown'}",
    ]


def _notice(card: DatasetCard, folder: Path) -> list[str]:
    """Keep the owners' notice, word for word, beside their files; returns it as lines to show."""
    if not card.notice:
        return []
    place = Path(card.path).absolute().parent / card.notice
    try:
        text = place.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{card.path}: notice = {card.notice!r} cannot be read ({error})") from None
    with atomic.writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
    atomic.write_text(folder / place.name, text)
    return [*text.strip().splitlines(), f"This notice is kept in {folder / place.name}; it stays with every copy."]


def _one(entry: Download, folder: Path, progress: Progress | None, say: Say | None, unreachable: set[str]) -> str:
    if not entry.url.startswith("https://"):
        raise UsageError("only https:// addresses are downloaded")
    if not entry.file or Path(entry.file).name != entry.file or entry.file.startswith("."):
        raise UsageError(f"file = {entry.file!r} is no file name")
    ledger = _read_ledger(folder)
    known = ledger.get(entry.file)
    target = folder / entry.file
    archive = is_archive(entry.file)
    if known is not None and known.get("url") == entry.url and (archive or target.is_file()):
        return f"{entry.file}: fetched before (sha256 {known.get('sha256')}); remove {folder / _LEDGER} to fetch it again"
    found = download(
        entry.url,
        target,
        sha256=entry.sha256,
        size=entry.bytes,
        largest=_LARGEST,
        progress=progress,
        say=say,
        unreachable=unreachable,
    )
    told = "as the card says" if entry.sha256 else "the card gives none to compare; recorded"
    facts: dict[str, Any] = {"url": entry.url, "sha256": found.sha256, "bytes": found.bytes}
    line = f"{entry.file}: {facts['bytes']:,} bytes, sha256 {found.sha256} ({told})"
    if archive:
        facts["files"] = unpack(target, folder, progress)
        line += f", {facts['files']:,} files unpacked"
    atomic.write_json(folder / _LEDGER, {**_read_ledger(folder), entry.file: facts})
    if archive:
        target.unlink()
    elif target.suffix.lower() in (".rar", ".7z"):
        line += f"; unpack it in {folder} (unrar x, unar or 7z x {entry.file})"
    return line


def _whole(card: DatasetCard, folder: Path) -> bool:
    """Whether somebody put the dataset there by hand."""
    from harness.datasets.check import check

    report = check(card, folder)
    return report.ok and bool(card.pairs) and report.counts[0].found == card.pairs


def _read_ledger(folder: Path) -> dict[str, Any]:
    with suppress(OSError, ValueError, RecursionError):
        document = json.loads((folder / _LEDGER).read_text(encoding="utf-8"))
        if isinstance(document, dict) and all(isinstance(value, dict) for value in document.values()):
            return document
    return {}
