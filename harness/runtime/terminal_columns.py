"""Tables as text: all columns, or the columns that fit the width of a terminal, so that no line wraps; as Markdown."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass

_SHORTEST = 24
"""Columns whose text may be cut keep this many characters before a column is left out."""
_GAP = 2


@dataclass(frozen=True)
class TextTable:
    """A table as text, and the columns that were left out."""

    text: str
    """The lines of the table; where columns were left out, a last line says which."""
    dropped: tuple[str, ...] = ()


def text_table(
    headers: Sequence[str],
    rows: Sequence[Sequence[str]],
    align: Sequence[str] | None = None,
    *,
    width: int | None = None,
    drops: Sequence[str] = (),
    shortens: Sequence[str] = (),
) -> TextTable:
    """A table in at most `width` characters a line.

    Args:
        headers: Names of the columns; a name may have several lines.
        rows: Cells, one line each.
        align: `left` or `right` for each column; default: all left.
        width: Characters in a line; None: as wide as the table is.
        drops: Columns that are left out where there is no room, in this order; those without any text go before the others.
        shortens: Columns whose text is cut, down to 24 characters, before any column is left out.

    Returns:
        The text, and the names of the columns with text that were left out.
    """
    from tabulate import tabulate

    align = align or ["left"] * len(headers)
    full = tabulate(rows, headers=headers, tablefmt="simple", disable_numparse=True, colalign=list(align) if rows else None)
    if width is None or max(map(_cells, full.split("\n"))) <= width:
        return TextTable(full)
    columns = [[header, *(row[i] for row in rows)] for i, header in enumerate(headers)]
    widths = [max(_cells(line) for text in column for line in text.split("\n")) for column in columns]
    kept = list(range(len(headers)))
    order = [i for name in drops for i, header in enumerate(headers) if header == name]
    blank = [i for i in order if rows and not any(row[i] for row in rows)]
    order = blank + [i for i in order if i not in blank]
    least = [min(w, _SHORTEST) if header in shortens else w for w, header in zip(widths, headers, strict=True)]
    dropped: list[int] = []
    while order and _total(least, kept) > width:
        dropped.append(order.pop(0))
        kept.remove(dropped[-1])
    _narrow(widths, [i for i in kept if headers[i] in shortens], kept, width, _SHORTEST)
    _narrow(widths, [i for i in kept if headers[i] in shortens or widths[i] > _SHORTEST], kept, width, _SHORTEST // 3)
    lines = [_lines([headers[i] for i in kept], kept, widths, align), ["  ".join("-" * widths[i] for i in kept)]]
    lines += [_lines([row[i] for i in kept], kept, widths, align) for row in rows]
    text = "\n".join(shortened(line, width) for each in lines for line in each)
    names = tuple(" ".join(headers[i].split()) for i in dropped if i not in blank)
    note = f"(no room for: {', '.join(dict.fromkeys(names))}; --wide shows all columns)"
    return TextTable(f"{text}\n{textwrap.fill(note, width)}" if names else text, names)


def markdown_table(headers: Sequence[str], rows: Sequence[Sequence[str]], align: Sequence[str]) -> str:
    """A table of Markdown; the bars in its cells are text."""
    from tabulate import tabulate

    # A backslash of the text's own before a bar would take back the bar's.
    heads, *cells = [[re.sub(r"\\(?=\|)", "&#92;", cell).replace("|", r"\|") for cell in row] for row in (headers, *rows)]
    return str(tabulate(cells, headers=heads, tablefmt="github", disable_numparse=True, colalign=align if rows else None))


def shortened(line: str, width: int) -> str:
    """`line` in at most `width` columns of the terminal, ended by an ellipsis where it is cut."""
    if _cells(line) <= width:
        return line
    while _cells(line) > width - 1:
        line = line[: min(len(line) - 1, width - 1)]
    return line.rstrip() + "…"


def _total(widths: Sequence[int], kept: Sequence[int]) -> int:
    return sum(widths[i] for i in kept) + _GAP * (len(kept) - 1)


def _narrow(widths: list[int], chosen: Sequence[int], kept: Sequence[int], width: int, least: int) -> None:
    """Make the widest of the `chosen` columns narrower, one character at a time, until the table fits or all are at `least`."""
    while chosen and _total(widths, kept) > width:
        widest = max(chosen, key=lambda i: widths[i])
        if widths[widest] <= least:
            return
        widths[widest] -= 1


def _lines(cells: Sequence[str], kept: Sequence[int], widths: Sequence[int], align: Sequence[str]) -> list[str]:
    """The lines of one row; a cell of fewer lines than the others is at the bottom."""
    split = [[shortened(line, widths[i]) for line in cell.split("\n")] for cell, i in zip(cells, kept, strict=True)]
    height = max(map(len, split))
    columns = [[""] * (height - len(lines)) + lines for lines in split]
    for column, i in zip(columns, kept, strict=True):
        spaces = [" " * (widths[i] - _cells(text)) for text in column]
        right = align[i] == "right"
        column[:] = [space + text if right else text + space for space, text in zip(spaces, column, strict=True)]
    return [(" " * _GAP).join(row).rstrip() for row in zip(*columns, strict=True)]


def _cells(text: str) -> int:
    """How many columns of a terminal a line takes; most characters take one, those of East Asian scripts two."""
    if text.isascii():
        return len(text)
    from rich.cells import cell_len

    return cell_len(text)
