"""Datasets: a card, and the table of pairs that its reader lists."""

from __future__ import annotations

import inspect
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from harness.cards.loading import find_dataset
from harness.cards.plugins import errors_of, reader_function
from harness.cards.schema import DatasetCard, Protocol
from harness.runtime.errors import UsageError, listed, near
from harness.runtime.progress import counted

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class Dataset:
    """A card and its table (columns: `harness.datasets.table`)."""

    card: DatasetCard
    table: pd.DataFrame
    images: str | None = None
    """What stands for the images' content where a recipe makes them: their bytes vary from machine to machine."""

    @property
    def name(self) -> str:
        return self.card.name

    @property
    def higher_is_better(self) -> bool:
        return self.card.higher_is_better

    def protocol(self, name: str | None = None) -> tuple[str, Protocol]:
        """The protocol called `name`, or the card's default; raises UsageError naming near ones."""
        name = name or self.card.default_protocol
        if name not in self.card.protocols:
            known = list(self.card.protocols)
            raise UsageError(f"{self.name} has no protocol {name!r}{near(name, known)} (it has {listed(known)})")
        return name, self.card.protocols[name]


def data_root(name: str, root: str | Path | None = None) -> Path | None:
    """Where a dataset's files lie: `root`, else `$HARNESS_DATA/<name>`, else `data/<name>`; None if nowhere."""
    if root is not None:
        return Path(root)
    place = data_folder() / name
    return place if place.is_dir() else None


def data_folder() -> Path:
    """`$HARNESS_DATA`, else `data` below where one stands."""
    return Path(os.environ.get("HARNESS_DATA") or "data")


def load_dataset(name: str, root: str | Path | None = None, *, cards: Sequence[str | Path] = (), quiet: bool = True) -> Dataset:
    """The dataset of a card's name, or the table in a file ending in .csv.

    `root` is the folder of its files; unless `quiet`, long preparations show their progress. Raises UsageError when it is
    unknown, absent or broken.
    """
    from harness.datasets.table import complete

    if name.lower().endswith((".csv", ".tsv")):
        return of_table(name, root)
    if os.sep in name and not name.endswith(".toml") and Path(name).exists():
        raise UsageError(f"{name}: not a table: --dataset takes a card's name, or a file ending in .csv or .tsv")
    card = find_dataset(name, cards)
    reader = card.reader if ":" in card.reader else f"harness.datasets.readers:{card.reader}"
    read = reader_function(reader, card.path, card.layout)
    failed = errors_of(card.path, f"reader = {card.reader!r} failed")
    with failed, counted(f"preparing {card.name}", unit="pictures", quiet=quiet) as step:
        progress = {"progress": step} if "progress" in inspect.signature(read).parameters else {}
        frame = read(card, data_root(card.folder or card.name, root), **card.layout, **progress)
        return Dataset(card, complete(frame, card.name), frame.attrs.get("images"))


def of_table(path: str | Path, root: str | Path | None = None, *, higher_is_better: bool = True) -> Dataset:
    """The dataset that a CSV table is (`harness.datasets.table.read_csv`)."""
    from harness.datasets import table

    card = _table_card(Path(path))
    return Dataset(replace(card, higher_is_better=higher_is_better), table.read_csv(path, root))


def read_table(card: DatasetCard, root: Path | None, table: str) -> pd.DataFrame:
    """Reader of a user's card over a CSV table: `layout.table`, relative to the root, else to the card's folder."""
    from harness.datasets.table import read_csv

    return read_csv((root or Path(card.path).parent) / table, root)


def _table_card(path: Path) -> DatasetCard:
    return DatasetCard(
        name=path.stem,
        title=path.name,
        reader="harness.datasets:read_table",
        higher_is_better=True,
        default_protocol="full",
        protocols={
            "full": Protocol(split="full", description="every row is tested"),
            "parts": Protocol(split="parts", description="the table's own part column"),
            "by-reference": Protocol(
                split="random",
                train=0.6,
                validation=0.2,
                test=0.2,
                repeats=10,
                description="60/20/20 by reference, ten seeded repeats",
            ),
        },
        label="score",
        note="a user's table",
        path=str(path),
    )
