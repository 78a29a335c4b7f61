"""Datasets: `load_dataset` reads a card and its table of image pairs with labels."""

from __future__ import annotations

import inspect
import os
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from harness.cards.loading import cards_option, find_dataset
from harness.cards.plugins import errors_of, reader_function
from harness.cards.schema import DatasetCard, Protocol
from harness.files.table_paths import require_utf8
from harness.runtime.errors import UsageError, listed, near
from harness.runtime.findings import BrokenTree
from harness.runtime.progress import counted

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class Dataset:
    """A card and its table (columns: `harness.datasets.table`)."""

    card: DatasetCard
    """The card: protocols, polarity of the labels, sources."""
    table: pd.DataFrame
    """One row for each distorted image."""
    images: str | None = None
    """For generated images, a hash of how they are generated, in place of their content: their bytes differ between machines."""

    @property
    def name(self) -> str:
        """The card's."""
        return self.card.name

    @property
    def higher_is_better(self) -> bool:
        """Whether a higher label means a better image."""
        return self.card.higher_is_better

    def protocol(self, name: str | None = None) -> tuple[str, Protocol]:
        """The protocol called `name`, or the card's default; raises UsageError with similar names."""
        name = name or self.card.default_protocol
        if name not in self.card.protocols:
            known = list(self.card.protocols)
            raise UsageError(f"{self.name} has no protocol {name!r}{near(name, known)} (it has {listed(known)})")
        return name, self.card.protocols[name]


def data_root(name: str, root: str | Path | None = None) -> Path | None:
    """The folder of a dataset's files: `root`, else `$HARNESS_DATA/<name>`, else `data/<name>`; None if nowhere."""
    if root is not None:
        require_utf8(root)
        return Path(root)
    place = data_folder() / name
    return place if place.is_dir() else None


def data_folder() -> Path:
    """`$HARNESS_DATA`, else `data` in the current folder."""
    return Path(os.environ.get("HARNESS_DATA") or "data")


def load_dataset(name: str, root: str | Path | None = None, *, cards: Sequence[str | Path] = ()) -> Dataset:
    """A dataset: its card, and its table of pairs of images with labels. Long preparations show their progress.

    Args:
        name: of a card, or the path of a table of pairs (.csv, .tsv, .txt, .xlsx).
        root: the folder of its files; default: `$HARNESS_DATA/<name>`, else `data/<name>`.
        cards: folders of the caller's own cards.

    Returns:
        The card and the table; `harness.datasets.table` names its columns.

    Raises:
        UsageError: the dataset is unknown or absent, or its files do not match its card: all problems at once.
    """
    from harness.datasets.table import complete

    card = dataset_card(name, cards)
    if is_table(name):
        return of_table(name, root)
    read = reader_of(card)
    failed = errors_of(card.path, f"reader = {card.reader!r} failed")
    with failed, counted(f"preparing {card.name}", unit="images") as step:
        progress = {"progress": step} if "progress" in inspect.signature(read).parameters else {}
        try:
            frame = read(card, data_root(card.folder or card.name, root), **card.layout, **progress)
        except BrokenTree as error:
            options = [*(["--root", str(root)] if root is not None else []), *cards_option(card.path)]
            from harness.datasets.file_index import unopened

            lying = unopened(card, data_root(card.folder or card.name, root), options)
            raise BrokenTree(card.name, [*lying, *error.problems], error.frame, options) from None
        return Dataset(card, complete(frame, card.name), frame.attrs.get("images"))


def reader_of(card: DatasetCard) -> Callable[..., pd.DataFrame]:
    """The reader function of a dataset. Raises UsageError where there is none."""
    reader = card.reader if ":" in card.reader else f"harness.datasets.readers:{card.reader}"
    return reader_function(reader, card.path, card.layout)


def is_table(word: str) -> bool:
    """Whether a dataset's name is the path of a table: a file ending in .csv, .tsv, .txt or .xlsx."""
    return word.lower().endswith((".csv", ".tsv", ".txt", ".xlsx", ".xlsm"))


def dataset_card(name: str, cards: Sequence[str | Path] = ()) -> DatasetCard:
    """The card of a dataset's name or .toml file, or a card made for a table's path. Raises UsageError."""
    if is_table(name):
        require_utf8(name)
        return _table_card(Path(name))
    if os.sep in name and not name.endswith(".toml") and Path(name).exists():
        raise UsageError(f"{name}: not a table: --dataset takes a card's name, or a file ending in .csv, .tsv, .txt or .xlsx")
    return find_dataset(name, cards)


def of_table(path: str | Path, root: str | Path | None = None, *, higher_is_better: bool = True) -> Dataset:
    """The dataset of a CSV table (`harness.datasets.table.read_csv`)."""
    from harness.datasets import table

    require_utf8(path)
    card = _table_card(Path(path))
    return Dataset(replace(card, higher_is_better=higher_is_better), table.read_csv(path, root))


def of_frame(frame: pd.DataFrame, root: str | Path | None = None) -> Dataset:
    """The dataset of a DataFrame with a table's columns; relative paths start at `root`, else at the current folder."""
    from harness.datasets import table

    with tempfile.TemporaryDirectory(prefix="harness-table-") as scratch:
        # Written to a file and read again, so that a frame gets the same checks as a table.
        path = Path(scratch) / "table.csv"
        frame.to_csv(path, index=False)
        return Dataset(replace(_table_card(path), path=""), table.read_csv(path, root if root is not None else Path.cwd()))


def read_table(card: DatasetCard, root: Path | None, table: str = "") -> pd.DataFrame:
    """Reader of cards whose pairs are in a table: `layout.table`, relative to the root, else to the card's folder, else to the
    current folder; or `table` itself, for a table without a card."""
    from harness.datasets.table import read_csv

    if not table:
        return read_csv(card.path, root)
    places = [*([root / table] if root else []), Path(card.path).parent / table, Path(table)]
    found = next((place for place in places if place.is_file()), None)
    if found is None:
        raise UsageError(
            f"{card.path}: layout.table = {table!r} does not exist (looked for {listed(list(dict.fromkeys(places)))})"
        )
    return read_csv(found, root)


def _table_card(path: Path) -> DatasetCard:
    return DatasetCard(
        name=path.stem,
        title=path.name,
        reader="harness.datasets:read_table",
        higher_is_better=True,
        default_protocol="full",
        protocols={
            "full": Protocol("full", "every row is tested"),
            "parts": Protocol("parts", "the table's own part column"),
            "by-reference": Protocol(
                "random", "60/20/20 by reference, ten seeded repeats", train=0.6, validation=0.2, test=0.2, repeats=10
            ),
        },
        label="score",
        note="a user's table",
        path=str(path),
    )
