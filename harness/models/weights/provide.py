"""`harness weights get` and `harness weights check`: download a card's weight files, or check where they are."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path

from harness.cards.schema import ModelCard, Weights
from harness.files.addresses import offline as is_offline
from harness.files.addresses import page
from harness.files.download import Progress, copy
from harness.models.weights.locate import Located, file_name, locate_entry, looked_in, placed_card, record, weights_folder
from harness.models.weights.sources import FetchFailed, fetch, ordered
from harness.runtime.errors import RunError, UsageError, listed, near

_log = logging.getLogger(__package__)


def get(card: ModelCard, use: str | None = None, progress: Progress | None = None, *, offline: bool = False) -> list[Path]:
    """Copy or download a card's files to the weights folder, which can then be copied to a machine without a network.

    Files in other caches are copied from there.

    Args:
        card: The model.
        use: A word of the card, to get its files in addition to the always-needed ones; None: only the latter.
        progress: Called with the progress of a file.
        offline: Whether only this machine is searched; $HF_HUB_OFFLINE counts too.

    Returns:
        The files.

    Raises:
        UsageError: for an unknown word.
        RunError: naming every file that could not be obtained; the others are kept.
    """
    card = placed_card(card)
    words = ["always", *use_words(card)]
    if use is not None and use not in words:
        raise UsageError(f"{card.name}: no weights are for {use!r}{near(use, words)} (it has {listed(words)})")
    entries = [entry for entry in card.weights if entry.use in ("always", use)]
    located = {entry: locate_entry(entry) for entry in entries}
    missing = [e for e, found in located.items() if not found.fault and (found.path is None or found.other)]
    if missing and not is_offline(offline):
        unknown = sum(not entry.bytes for entry in missing)
        size = f"{_size(sum(entry.bytes for entry in missing))}{f' and {unknown} of unknown size' if unknown else ''}"
        amount = size if unknown < len(missing) else "sizes not known"
        names = ", ".join(file_name(entry) for entry in missing)
        _log.info(f"{card.name}: {len(missing)} weight file{'s' * (len(missing) > 1)} to fetch ({amount}): {names}")
    problems: list[str] = []
    paths: list[Path] = []
    failed: list[Weights] = []
    unreachable: set[str] = set()
    for entry, found in located.items():
        try:
            paths.append(_got(entry, found, offline, progress, unreachable))
        except RunError as error:
            problems.append(f"{described(entry)}:\n    " + str(error).replace("\n", "\n    "))
            failed += [] if found.fault else [entry]
    if problems:
        head = f"{card.name}: {len(problems)} of {len(entries)} weight files could not be obtained:"
        raise RunError("\n  ".join([head, *problems, *by_hand(failed)]))
    return paths


def _got(entry: Weights, found: Located, offline: bool, progress: Progress | None, unreachable: set[str]) -> Path:
    target = weights_folder() / file_name(entry)
    if found.fault:
        raise RunError(found.fault)
    if found.path is None and is_offline(offline):
        raise RunError("not on this machine, and the network must not be used (--offline or $HF_HUB_OFFLINE)")
    if (found.path is None or found.other) and not is_offline(offline):
        try:
            fetch(entry, progress=progress, unreachable=unreachable)
        except FetchFailed:
            if found.path is None:
                raise
        else:
            record(entry, locate_entry(entry))
            return target
    if found.path is None:
        raise RuntimeError("a located file has no path")
    if found.other:
        # Under its own name; the entry's name is for the file with the card's sha256.
        target = target.with_name(found.path.name)
    if found.path != target:
        copy(found.path, target)
    record(entry, found)
    return target


@dataclass(frozen=True)
class CheckedFile:
    """One file of a card in the result of `check`."""

    entry: Weights
    path: Path | None
    sha256: str | None
    status: str
    """A text: whether it is present and the right one."""
    wrong: bool
    """Whether a wrong file is in its place."""
    looked: tuple[str, ...]
    """The places that were searched; empty when it was found."""

    @property
    def stops(self) -> bool:
        """Whether `run` would stop at it: it is wrong, or it is always needed and missing."""
        return self.wrong or (self.path is None and self.entry.use == "always")


def check(card: ModelCard) -> list[CheckedFile]:
    """Every file of a card: its path, its sha256, and whether it is the right one. Does not use the network."""
    rows: list[CheckedFile] = []
    for entry in placed_card(card).weights:
        found = locate_entry(entry)
        if found.path is not None:
            status = "ok" if found.known else "found; its sha256 will be recorded at the first use"
            status += "; another file of the same weights, not the one with the card's sha256" if found.other else ""
        else:
            status = found.fault or f"missing{f'; {found.note}' if found.note else ''}"
        looked = () if found.path else tuple(looked_in(entry))
        rows.append(CheckedFile(entry, found.path, found.sha256 or None, status, bool(found.fault), looked))
    return rows


def use_words(card: ModelCard) -> list[str]:
    """The words that `--weights` may ask for."""
    return list(dict.fromkeys(entry.use for entry in card.weights if entry.use != "always"))


def described(entry: Weights) -> str:
    """A file by its part, name, size and tag."""
    size = f", {_size(entry.bytes)}" if entry.bytes else ""
    return f"{entry.name}: {file_name(entry)}{size}{f' ({entry.tag})' if entry.tag else ''}"


def by_hand(missing: list[Weights]) -> list[str]:
    """Advice to download missing files yourself: names, sizes, hashes, and addresses for a browser."""
    lines = [f"put the file{'s' * (len(missing) > 1)} yourself into {weights_folder()}:"] if missing else []
    for entry in missing:
        facts = [_size(entry.bytes) if entry.bytes else "", f"sha256 {entry.sha256}" if entry.sha256 else "", entry.licence]
        lines.append(f"  {file_name(entry)} ({', '.join(filter(None, facts)) or 'size and sha256 not known'}), from")
        lines += [f"    {_page(source)}" for source in ordered(entry.sources) if not source.startswith(("file:", "wheel:"))]
    return lines


def _page(source: str) -> str:
    try:
        return page(source)
    except UsageError as error:
        return str(error)


def _size(count: int) -> str:
    return f"{count / 1e6:.0f} MB" if count >= 1e6 else f"{count / 1e3:.1f} kB"
