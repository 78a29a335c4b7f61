"""Readers of datasets: each lists the pairs from the authors' own files.

A card names one by a word (`reader = "lists"`) and gives it arguments in `[layout]`. A reader is a function
`(card, root, **layout) -> table` (columns: `harness.datasets.table`); it raises UsageError when the dataset is absent and
`findings.BrokenTree` when it cannot be used. Further findings are in the table's `attrs`.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd

    from harness.cards.schema import DatasetCard

__all__ = ["lists", "live", "triplets"]


def lists(card: DatasetCard, root: Path | None, **layout: Any) -> pd.DataFrame:
    """Images named in label files: most datasets (`harness.datasets.readers.filenames`)."""
    from harness.datasets.readers.filenames import read

    return read(card, root, layout)


def live(card: DatasetCard, root: Path | None, **layout: Any) -> pd.DataFrame:
    """LIVE release 2: MATLAB vectors over numbered images (`harness.datasets.readers.live_release2`)."""
    from harness.datasets.readers.live_release2 import read

    return read(card, root, layout)


def triplets(card: DatasetCard, root: Path | None, **layout: Any) -> pd.DataFrame:
    """BAPPS 2AFC: folders of references, two distorted versions and votes (`harness.datasets.readers.bapps`)."""
    from harness.datasets.readers.bapps import read

    return read(card, root, layout)
