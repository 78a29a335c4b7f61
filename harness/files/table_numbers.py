"""Parsing of numbers in a text table, with decimal points or decimal commas; ambiguous numbers are errors."""

from __future__ import annotations

import contextlib
import math
import re
from collections.abc import Sequence

_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", re.ASCII)
_COMMA = re.compile(r"([+-]?)(\d*),(\d+)([eE][+-]?\d+)?", re.ASCII)
_OTHER = re.compile(r"[^0-9.eE+-]")
_GROUPED = {mark: re.compile(rf"[+-]?[1-9]\d{{0,2}}\{mark}\d{{3}}", re.ASCII) for mark in ".,"}
"""One group of three digits after the point or comma: 1,234 is 1.234 or 1234."""


def parse_number(text: str) -> float:
    """A number with a decimal point or a decimal comma; NaN for other text and for infinities."""
    text = text.strip().strip('"').replace("\N{MINUS SIGN}", "-")
    if match := _COMMA.fullmatch(text):
        text = f"{match[1]}{match[2]}.{match[3]}{match[4] or ''}"
    if not _NUMBER.fullmatch(text):
        return math.nan
    value = float(text)
    return value if math.isfinite(value) else math.nan


def parse_numbers(cells: Sequence[str]) -> tuple[list[float], list[str]]:
    """The numbers of one column (NaN for a cell without one), and for each cell the reason, or an empty text.

    The meaning of a comma follows from the whole column: 1,234 is 1.234 if another cell can only have a decimal comma (0,5).
    Otherwise it is ambiguous, and the reason gives both readings. So is 1.234 in a column with certain decimal commas.
    """
    if not _OTHER.search("".join(cells)):
        # For these characters float() gives the same numbers, and fails for the same cells.
        with contextlib.suppress(ValueError):
            values = [float(cell) for cell in cells]
            if all(map(math.isfinite, values)):
                return values, [""] * len(values)
    values = [parse_number(cell) for cell in cells]
    reasons = ["" if value == value else _not_a_number(cell) for value, cell in zip(values, cells, strict=True)]
    plain = [cell.strip().strip('"') for cell in cells]
    with_comma = [text for text, value in zip(plain, values, strict=True) if "," in text and value == value]
    if not with_comma:
        return values, reasons
    decided = any(not _GROUPED[","].fullmatch(text) for text in with_comma)
    with_point = any("." in text for text, value in zip(plain, values, strict=True) if value == value)
    unclear = "." if decided else ","
    for row, text in enumerate(plain):
        if (not decided or with_point) and _GROUPED[unclear].fullmatch(text):
            point, whole = text.replace(",", "."), text.replace(unclear, "")
            values[row], reasons[row] = math.nan, f"{text} can be {point} or {whole}: write numbers with a decimal point"
    return values, reasons


def _not_a_number(cell: str) -> str:
    if not cell.strip():
        return "empty"
    if re.fullmatch(r"[+-]?\d{1,3}([ ., '\u00a0\u202f]\d{3})+([.,]\d+)?", cell.strip(), re.ASCII):
        return "it has a thousands separator: write the digits without it"
    return "not a finite number"
