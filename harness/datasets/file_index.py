"""Finding a dataset's files by name, in any folder structure below its root.

Authors' archives, mirrors and users differ in letter case, in folder names and in nesting, but all keep the file names.
So a root is searched once and files are looked up by name.
"""

from __future__ import annotations

import itertools
import os
import re
import shlex
import unicodedata
from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path

from harness.cards.loading import cards_option
from harness.cards.schema import DatasetCard
from harness.datasets.archives import is_archive
from harness.files.leftovers import is_leftover
from harness.runtime.errors import UsageError, listed
from harness.runtime.findings import Finding, Findings, counted

LOSSLESS = ("bmp", "png", "tif", "tiff", "ppm")
"""Lossless formats to which a mirror may have converted images."""
_DEPTH = 12


class Tree:
    """All files below a folder, by relative POSIX path, without hidden files and those of macOS (`._x`)."""

    def __init__(self, root: str | Path) -> None:
        self.root = Path(root)
        self.files: list[str] = []
        self.not_text: list[str] = []
        """Files whose path is not UTF-8 text: a table cannot name them."""
        for file in sorted(_walk(self.root)):
            try:
                file.encode("utf-8")
                self.files.append(file)
            except UnicodeEncodeError:
                self.not_text.append(file)

    def path(self, relative: str) -> str:
        """The file's path for opening it."""
        return os.path.join(self.root, relative)

    @cached_property
    def by_name(self) -> dict[str, list[str]]:
        """Files by their name in lower case and composed form (`name_key`)."""
        index: dict[str, list[str]] = {}
        for file in self.files:
            index.setdefault(name_key(file.rpartition("/")[2]), []).append(file)
        return index

    @property
    def archives(self) -> list[str]:
        """Archives in the folder; whether they were unpacked is not known."""
        return [file for file in self.files if is_archive(file)]

    @cached_property
    def _by_stem(self) -> dict[str, list[str]]:
        index: dict[str, list[str]] = {}
        for name, files in self.by_name.items():
            stem, _, extension = name.rpartition(".")
            if extension in LOSSLESS:
                index.setdefault(stem, []).extend(files)
        return index

    def candidates(self, name: str) -> list[str]:
        """Files called `name` in any letter case and Unicode form; else images of that stem in another lossless format."""
        if found := self.by_name.get(name_key(name)):
            return found
        stem, _, extension = name_key(name).rpartition(".")
        return self._by_stem.get(stem, []) if extension in LOSSLESS else []

    def find(self, name: str, near: str = "") -> str | None:
        """The file called `name`; of several, the one that shares most folders with `near`, then the exact spelling, then the
        one in the fewest folders."""
        found = self.candidates(name)
        if len(found) <= 1:
            return found[0] if found else None

        def order(file: str) -> tuple[int, bool, int, str]:
            folders = zip(file.split("/")[:-1], near.split("/")[:-1], strict=False)
            shared = sum(1 for _ in itertools.takewhile(lambda pair: pair[0] == pair[1], folders))
            return -shared, file.rpartition("/")[2] != name, file.count("/"), file

        return min(found, key=order)

    def doubtful(self, name: str) -> list[str]:
        """Files of one folder whose names differ from `name`, and from each other, in letter case or Unicode form alone."""
        by_folder: dict[str, list[str]] = {}
        for file in self.candidates(name):
            by_folder.setdefault(file.rpartition("/")[0], []).append(file)
        exact = {folder: f"{folder}/{name}".removeprefix("/") for folder in by_folder}
        return next((files for folder, files in by_folder.items() if len(files) > 1 and exact[folder] not in files), [])

    def findings(self) -> Findings:
        """Findings about the folder itself."""
        found = Findings()
        if self.not_text:
            shown = [ascii(file) for file in self.not_text]
            found.warning(counted(shown, "files whose names are not UTF-8 are left out", limit=3), self.root, "rename them")
        return found

    def matching(self, patterns: Sequence[str]) -> list[str]:
        """The files that the first matching pattern matches.

        Patterns are shell wildcards over the end of the path, in any letter case: `mos.txt`, `Train_Label/*.txt`.
        """
        found = (list(filter(wildcard(pattern).search, self.files)) for pattern in patterns)
        return next(filter(None, found), [])

    def full_match(self, pattern: re.Pattern[str], within: re.Pattern[str] | None = None) -> list[str]:
        """Files whose name matches the pattern and whose folders match `within`."""
        files = [file for name, files in self.by_name.items() if pattern.fullmatch(name) for file in files]
        return [file for file in files if within is None or within.search(file.rpartition("/")[0])]


def open_tree(card: DatasetCard, root: Path | None) -> Tree:
    """The tree below a dataset's root; raises UsageError with the folders that were tried and how to get the dataset."""
    if root is None:
        folder = card.folder or card.name
        raise UsageError(
            f"{card.name} was not found: no $HARNESS_DATA/{folder}, no data/{folder} (or give --root). {how_to_get(card)}"
        )
    if not root.is_dir():
        raise UsageError(f"{root}: no such folder ({card.name}'s --root). {how_to_get(card)}")
    return Tree(root)


def how_to_get(card: DatasetCard) -> str:
    """One line: how to get a dataset, and its licence."""
    parts = [" ".join(card.get.replace("{folder}", f"data/{card.folder or card.name}").split())]
    parts += [f"home: {card.home}"] if card.home else []
    parts += [f"licence: {card.licence}"] if card.licence else []
    parts = [part.rstrip(".;") for part in parts if part]
    return "How to get it: " + "; ".join(parts) if parts else ""


def unopened(card: DatasetCard, root: Path | None, options: Sequence[str] | None = None) -> list[Finding]:
    """Findings about archives in the folder of an incomplete dataset: `kadid10k.zip is here, not unpacked`.

    `options` are those of the command that unpacks them; by default `--root` and `--cards`.
    """
    if root is None or not root.is_dir() or not (archives := Tree(root).archives):
        return []
    more = ["--root", str(root), *cards_option(card.path)] if options is None else options
    command = shlex.join(["harness", "data", "unpack", card.name, *more])
    what = f"{listed(archives, 8)} {'is' if len(archives) == 1 else 'are'} here, not unpacked"
    return [Finding("error", "archive", str(root), what, command)]


def wildcard(pattern: str) -> re.Pattern[str]:
    """A shell wildcard (`*`, `?`, `[0-9]`; none matches a slash) as an expression for the end of a path, in any letter case."""
    pieces = re.findall(r"\[[^\]/]+\]|.", pattern)
    body = "".join({"*": "[^/]*", "?": "[^/]"}.get(p, p if len(p) > 1 else re.escape(p)) for p in pieces)
    return re.compile(rf"(?:^|/){body}$", re.IGNORECASE)


def name_key(name: str) -> str:
    """A file's name in lower case with accents composed (macOS writes them decomposed), to compare names."""
    return (name if name.isascii() else unicodedata.normalize("NFC", name)).lower()


def _walk(root: Path) -> Iterator[str]:
    """Relative paths of all files; links to folders are followed, each real folder once."""
    seen: set[tuple[int, int]] = set()
    pending: list[tuple[str, str, int]] = [(str(root), "", 0)]
    while pending:
        folder, prefix, depth = pending.pop()
        try:
            status = os.stat(folder)
            identity = (status.st_dev, status.st_ino)
            if depth > _DEPTH or identity in seen:
                continue
            seen.add(identity)
            with os.scandir(folder) as entries:
                for entry in entries:
                    if entry.name.startswith(".") or is_leftover(entry.name):
                        continue
                    if entry.is_dir():
                        pending.append((entry.path, f"{prefix}{entry.name}/", depth + 1))
                    elif entry.is_file():
                        yield prefix + entry.name
        except OSError as error:
            raise UsageError(f"{folder}: cannot be read: {error.strerror}") from None
