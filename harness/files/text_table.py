"""Text tables (CSV) as columns of text, and those columns as numbers."""

from __future__ import annotations

import csv
from pathlib import Path

import pandas as pd

from harness.files.regular import require_regular
from harness.runtime.errors import UsageError, listed


def read_text_columns(path: Path) -> pd.DataFrame:
    """A CSV's columns as text, stripped; comma, semicolon or tab; any line ends; a byte order mark is ignored."""
    try:
        require_regular(path)
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise UsageError(f"{path}: no such file") from None
    except UnicodeDecodeError as error:
        raise UsageError(f"{path}: not UTF-8 text (byte {error.start})") from None
    except OSError as error:
        raise UsageError(f"{path}: cannot be read: {error.strerror}") from None
    head = text.split("\n", 1)[0]
    delimiter = max(",;\t", key=head.count)
    try:
        rows = [row for row in csv.reader(text.splitlines(), delimiter=delimiter) if any(cell.strip() for cell in row)]
    except csv.Error as error:
        raise UsageError(f"{path}: not a readable CSV: {error}") from None
    if not rows:
        raise UsageError(f"{path}: an empty file")
    header = [cell.strip() for cell in rows[0]]
    twice = sorted({c for c in header if header.count(c) > 1})
    if twice:
        raise UsageError(f"{path}: columns named twice: {', '.join(map(repr, twice))}")
    ragged = [i + 2 for i, row in enumerate(rows[1:]) if len(row) != len(header)]
    if ragged:
        raise UsageError(f"{path}: {len(header)} columns in the first line, another number in rows {listed(ragged)}")
    cells = [[cell.strip() for cell in row] for row in rows[1:]]
    return pd.DataFrame(cells, columns=header, dtype=object)


def numbers(column: pd.Series) -> tuple[pd.Series, list[str]]:
    """The column as floats, and its cells that are not finite numbers, each with its row."""
    values = pd.to_numeric(column, errors="coerce").astype(float)
    bad = ~values.map(lambda v: v - v == 0)
    return values, [f"row {i + 2} ({column[i]!r})" for i in column.index[bad]]
