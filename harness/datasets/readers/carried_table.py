"""Images from elsewhere under a table of pairs: in the dataset's folder, else carried beside the card.

The table is the one of `harness.datasets.table`; its images lie in the dataset's folder.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from harness.cards.schema import DatasetCard, parse_table
from harness.datasets.file_index import open_tree
from harness.datasets.table import read_csv
from harness.runtime.errors import UsageError


@dataclass(frozen=True)
class Layout:
    """The reader's arguments."""

    table: str
    """The table's path, relative to the dataset's folder or, if it is not there, to the card's."""


def read(card: DatasetCard, root: Path | None, layout: Mapping[str, Any]) -> pd.DataFrame:
    """The pairs of the table, their images in `root`.

    Args:
        card: the dataset's card.
        root: the dataset's folder; None: it is nowhere.
        layout: the fields of `Layout`.

    Returns:
        A table of pairs (columns: `harness.datasets.table`).

    Raises:
        UsageError: no folder, no table, or a table with faults.
    """
    asked = parse_table(Layout, layout, card.path, "layout.")
    if Path(asked.table).is_absolute() or ".." in Path(asked.table).parts:
        raise UsageError(f"{card.path}: layout.table = {asked.table!r} leads out of the folder")
    tree = open_tree(card, root)
    places = [tree.root / Path(asked.table).name, Path(card.path).absolute().parent / asked.table]
    for place in places:
        if place.is_file():
            return read_csv(place, tree.root)
    raise UsageError(f"{card.name}: the table of pairs and labels is neither {places[0]} nor {places[1]}; put it at one of them")
