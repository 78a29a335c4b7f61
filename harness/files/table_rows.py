"""The rows of a large frame as plain values, without a second copy of the whole table."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd

_AT_ONCE = 10_000


def rows_of(frame: pd.DataFrame) -> Iterator[tuple[Any, ...]]:
    """Each row's values in the order of the columns, as Python's numbers and texts.

    Some thousand rows are converted at a time: as Python objects, a table takes several times its memory in columns.
    """
    for at in range(0, len(frame), _AT_ONCE):
        part = frame.iloc[at : at + _AT_ONCE]
        yield from zip(*(part[column].tolist() for column in part), strict=True)
