"""Loading a suite: the card, folder and protocol of each of its datasets, before any of them is read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from harness.cards.loading import find_suite
from harness.cards.schema import DatasetCard
from harness.cards.suite import SuiteCard
from harness.datasets import dataset_card, is_table
from harness.runtime.errors import UsageError, listed, near


@dataclass(frozen=True)
class SuiteDataset:
    """One dataset of a suite."""

    word: str
    """The argument for commands: the card's name, or the table's path."""
    card: DatasetCard
    protocol: str
    root: str | None = None
    """The folder of its files; None: `$HARNESS_DATA/<name>` or `data/<name>`; for a table, the paths in it."""

    @property
    def name(self) -> str:
        """The dataset's name."""
        return self.card.name


@dataclass(frozen=True)
class Suite:
    """A suite's card with its datasets, in the order of the card."""

    card: SuiteCard
    datasets: tuple[SuiteDataset, ...]


def load_suite(
    name: str, *, cards: Sequence[str | Path] = (), protocol: str | None = None, root: str | Path | None = None
) -> Suite:
    """The suite of a card's name or path.

    Args:
        name: the card's name, or its file (ending in .toml).
        cards: folders of the caller's own cards.
        protocol: of every dataset, in place of the card's.
        root: a folder that holds each dataset's folder; None: the usual folders of datasets.

    Raises:
        UsageError: for an unknown suite, and, all at once, for datasets without a card or without the protocol.
    """
    card = find_suite(name, cards)
    found: list[SuiteDataset] = []
    problems: list[str] = []
    for word in card.datasets:
        # A table's path is relative to the card, so that a suite and its tables can be moved together.
        place = str(Path(card.path).parent / word) if is_table(word) else word
        try:
            dataset = dataset_card(place, cards)
        except UsageError as error:
            problems.append(f"{card.path}: {error}")
            continue
        chosen = protocol or card.protocols.get(word) or card.protocol or dataset.default_protocol
        if chosen not in dataset.protocols:
            known = list(dataset.protocols)
            problems.append(f"{dataset.name} has no protocol {chosen!r}{near(chosen, known)} (it has {listed(known)})")
            continue
        here = None if root is None or is_table(word) else str(Path(root) / (dataset.folder or dataset.name))
        found.append(SuiteDataset(place, dataset, chosen, here))
    names = [entry.name for entry in found]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        problems.append(f"{card.path}: two of its datasets are called {listed(twice)}")
    if problems:
        raise UsageError("\n".join(problems))
    return Suite(card, tuple(found))
