"""The reader of text tables (CSV and similar) for pairs, scores and labels.

    name,score            name;score;;          sep=;                 5,98900 I01_01_1.bmp
    a.png,0.5             a.png;0,5;;           "name";"score"        4,98900 I01_01_2.bmp

Encodings are UTF-8 and UTF-16; cells are separated by comma, semicolon, tab or blanks; all line ends are accepted. Lines are
numbered as in an editor. For ambiguous text the error shows both readings.
"""

from __future__ import annotations

import codecs
import csv
import io
import re
from collections.abc import Collection
from pathlib import Path
from typing import NamedTuple

import pandas as pd

from harness.files.regular import reading
from harness.files.spreadsheet import is_spreadsheet, read_sheet
from harness.files.table_numbers import parse_numbers
from harness.runtime.errors import UsageError, listed, near

LARGEST = 1 << 30
"""Bytes of a text table."""
DELIMITERS = (";", "\t", ",", None)
"""Separators of cells; None: blanks."""
_DELIMITER_NAMES = {";": "semicolon", "\t": "tab", ",": "comma", None: "blanks"}
_BYTE_ORDER_MARKS = (
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
    (codecs.BOM_UTF8, "utf-8-sig"),
)
_SEP = re.compile(r'"?sep=([^\w\s".-]|\t)"?[,;\t ]*', re.IGNORECASE)
_LINE = re.compile(r"[^\r\n]*(\r\n|\r|\n|$)")


class Row(NamedTuple):
    """A row of cells, and the line of the file on which it begins."""

    line: int
    cells: list[str]


def read_text(path: str | Path, *, largest: int = LARGEST, replace: bool = False) -> str:
    """A file's text without its byte order mark; UTF-8, or UTF-16 and UTF-32, which are detected by their marks or NUL bytes.

    `replace`: invalid bytes become replacement characters, so that an error can give their line. Raises UsageError.
    """
    path = Path(path)
    with reading(path):
        if path.stat().st_size > largest:
            raise UsageError(f"{path}: larger than {largest >> 20} MB, which a text table must not be; check the file")
        data = path.read_bytes()
    encoding = next((name for mark, name in _BYTE_ORDER_MARKS if data.startswith(mark)), "")
    start = data[:4096]
    # UTF-16 without a mark is detected by NUL in every second byte of Latin letters and digits.
    for other, zeros, letters in (("utf-16-le", start[1::2], start[::2]), ("utf-16-be", start[::2], start[1::2])):
        if not encoding and len(start) >= 4 and zeros.count(0) > 0.7 * len(zeros) and letters.count(0) < 0.1 * len(letters):
            encoding = other
    encoding = encoding or "utf-8"
    try:
        text = data.decode(encoding, errors="replace" if replace else "strict")
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        what = "UTF-8" if encoding.startswith("utf-8") else encoding.upper()
        raise UsageError(f"{path}: not {what} text (line {line}, byte {error.start}); save it as UTF-8") from None
    if "\0" in text:
        raise UsageError(f"{path}: not a text file (it contains NUL bytes)")
    return text


def text_lines(text: str) -> list[str]:
    """The lines as in an editor: they end at CR, LF or both, but not at form feeds or Unicode separators."""
    return text.replace("\r\n", "\n").replace("\r", "\n").split("\n")


def without_sep_line(text: str) -> tuple[str, str | None]:
    """The text, with an empty first line if that is Excel's `sep=;`, and the separator in it."""
    first = text_lines(text[:64])[0]
    if match := _SEP.fullmatch(first.strip(" ")):
        return text[len(first) :], match[1]
    return text, None


def split_rows(text: str, delimiter: str | None) -> tuple[list[Row], list[str]]:
    """All rows that are not empty, split at `delimiter` (None: at blanks), and the errors in quotes with their lines.

    A quoted cell keeps its whole content with line breaks; blanks around other cells are removed.
    """
    if '"' not in text:
        split = [(number, line.split(delimiter) if delimiter else re.split(r"[ \t]+", line.strip(" \t"))) for number, line in
                 enumerate(text_lines(text), 1)]  # fmt: skip
        rows = [Row(number, [cell.strip(" \t") for cell in cells]) for number, cells in split]
        return [row for row in rows if any(map(str.strip, row.cells))], []
    between = re.escape(delimiter) if delimiter else "[ \\t]"
    blanks = " *" if delimiter == "\t" else "[ \\t]*"
    quoted = re.compile(
        rf'{blanks}"((?:[^"]|"")*)"{blanks}(?={between}|[\r\n]|$)' if delimiter else r'"((?:[^"]|"")*)"(?=[ \t\r\n]|$)'
    )
    opened = re.compile(rf'{blanks}"')
    plain = re.compile(rf"(?:(?!{between})[^\r\n])*")
    gap = re.compile(between if delimiter else r"[ \t]+(?=[^ \t\r\n])")
    start = re.compile("" if delimiter else r"[ \t]*")
    rows = []
    problems: list[str] = []
    place, line = 0, 1
    while place < len(text):
        cells: list[str] = []
        begun, holds, after = line, False, start.match(text, place)
        while after:
            place = after.end()
            if match := quoted.match(text, place):
                cells.append(match[1].replace('""', '"'))
                line += len(text_lines(match[1])) - 1
                holds = True
            elif match := opened.match(text, place):
                problems.append(f"line {begun}: a quote is not closed, or there is text next to a quoted cell")
                break
            elif match := plain.match(text, place):
                cells.append(match[0].strip(" \t"))
            place = match.end() if match else place
            after = gap.match(text, place)
        if ending := _LINE.match(text, place):
            place = ending.end()
        line += 1
        if holds or any(map(str.strip, cells)):
            rows.append(Row(begun, cells))
    return rows, problems


def read_text_columns(path: Path, wanted: Collection[str] = ()) -> pd.DataFrame:
    """A table's columns as text, named in lower case, indexed by the first line (in a spreadsheet: the row) of each row.

    If the header can be split in two ways, the one with the `wanted` columns is used. Raises UsageError listing every line
    that does not match the header.
    """
    if is_spreadsheet(path):
        readings = [_Reading(path, "row", "", [Row(*row) for row in read_sheet(path)], [])]
    else:
        text, named = without_sep_line(read_text(path))
        # Semicolons, tabs and commas outside quotes in the header are possible separators; without any, blanks are.
        header = next((line[0].rstrip("\r\n") for line in _LINE.finditer(text) if line[0].strip(" \t;,\r\n")), "")
        bare = re.sub(r'"[^"]*"', "", header)
        possible: list[str | None] = [d for d in DELIMITERS if d and d in bare]
        if len(possible) == 1 and possible[0] and named is None and (frame := _uniform_table(text, possible[0])) is not None:
            return frame
        readings = [_Reading(path, "line", d, *split_rows(text, d)) for d in ([named] if named else possible or [None])]
    if len(readings) > 1:
        readings = [r for r in readings if set(wanted) <= set(r.header)] or readings
        readings = [r for r in readings if not r.problems()] or readings[:1]
    if len(readings) > 1:
        shown = "; or ".join(f"by {_DELIMITER_NAMES[r.delimiter]}: {', '.join(map(repr, r.header))}" for r in readings)
        raise UsageError(
            f"{path}: the separator of its columns is ambiguous: {shown}. Add a first line with the separator, such as sep=;"
        )
    reading = readings[0]
    if not reading.rows:
        raise UsageError(f"{path}: the file is empty")
    if problems := reading.problems():
        raise UsageError("\n".join(problems))
    columns = [(i, name) for i, name in enumerate(reading.header) if name]
    cells = [[row.cells[i] if i < len(row.cells) else "" for i, _ in columns] for row in reading.rows[1:]]
    index = pd.Index([row.line for row in reading.rows[1:]], name=reading.unit)
    return pd.DataFrame(cells, columns=[name for _, name in columns], index=index, dtype=object)


def _uniform_table(text: str, delimiter: str) -> pd.DataFrame | None:
    """The columns of a text without quotes, outer blanks or empty lines, in which all lines have as many cells as the header.

    None for other texts. For such a text pandas gives the same result as `split_rows`, with a tenth of the time and memory.
    """
    text = text.replace("\r\n", "\n").removesuffix("\n")
    header, _, body = text.partition("\n")
    names = [cell.strip().lower() for cell in header.split(delimiter)]
    ends = re.escape(delimiter) + "\n"
    blank = " " if delimiter == "\t" else " \t"
    if (
        not body
        or not all(names)
        or len(set(names)) < len(names)
        or text.count(delimiter) != (len(names) - 1) * (text.count("\n") + 1)
        or re.search(rf'["\r]|\n\n|[{ends}][{blank}]|[{blank}][{ends}]', body)
        or body[0] in blank + "\n"
        or body[-1] in blank
    ):
        return None
    try:
        frame = pd.read_csv(
            io.BytesIO(body.encode("utf-8")),
            sep=delimiter,
            header=None,
            dtype=str,
            na_filter=False,
            quoting=csv.QUOTE_NONE,
            skip_blank_lines=False,
            low_memory=False,
        )
    except pd.errors.ParserError:  # a line with more cells, another with fewer
        return None
    if frame.shape[1] != len(names) or not all(map(str.strip, frame[0].tolist())):
        return None
    return frame.set_axis(names, axis=1).set_axis(pd.RangeIndex(2, len(frame) + 2, name="line"))


class _Reading(NamedTuple):
    """A file split at one delimiter, its first row the header."""

    path: Path
    unit: str
    delimiter: str | None
    rows: list[Row]
    broken: list[str]

    @property
    def header(self) -> list[str]:
        return [cell.strip().lower() for cell in self.rows[0].cells] if self.rows else []

    def problems(self) -> list[str]:
        """The mismatches between rows and header, one message each."""
        header, path, unit = self.header, self.path, self.unit
        found = [f"{path}: {problem}" for problem in self.broken]
        if twice := sorted({name for name in header if name and header.count(name) > 1}):
            found.append(f"{path}: repeated column names (letter case is ignored): {', '.join(map(repr, twice))}")
        named = [i for i, name in enumerate(header) if name]
        if not named:
            return [*found, f"{path}: no header: the first {unit} has no column name"]
        short = [row.line for row in self.rows[1:] if len(row.cells) <= named[-1] and unit == "line"]
        if short:
            found.append(f"{path}: {len(named)} columns in the header, but fewer cells in {unit}s {listed(short)}")
        # A first column without a name is pandas' index; a value under any other empty name is an error, or part of a number.
        unnamed = [
            (row, i)
            for row in self.rows[1:]
            if (i := next((i for i, cell in enumerate(row.cells) if i and cell and not (header[i : i + 1] or [""])[0]), 0))
        ]
        if unnamed:
            row, i = unnamed[0]
            before = row.cells[i - 1]
            both = f"{before!r} and a value {row.cells[i]!r} without a column name"
            if self.delimiter == "," and before.lstrip("+-").isdecimal() and row.cells[i][:1].isdecimal():
                both += f", or the number {before}.{row.cells[i]} with a decimal comma: separate columns by semicolons, or write "
                both += "decimal points"
            else:
                both += ": name the column, or quote the cell"
            found.append(f"{path}: more cells than columns in {unit}s {listed([r.line for r, _ in unnamed])}; "
                         f"{unit} {row.line} has {both}")  # fmt: skip
        return found


def require_columns(frame: pd.DataFrame, names: Collection[str], path: object) -> None:
    """Raise UsageError if the table of `path` lacks one of these columns, or has no rows."""
    if absent := [c for c in names if c not in frame]:
        hints = "".join(near(c, frame.columns) for c in absent)
        raise UsageError(f"{path}: missing columns {', '.join(absent)}{hints} (it has {', '.join(frame.columns)})")
    if frame.empty:
        raise UsageError(f"{path}: no rows")


def convert_numbers(frame: pd.DataFrame, column: str, path: object) -> list[str]:
    """Convert a column of text to floats, in place; returns a message about cells without a finite number, if any."""
    values, reasons = parse_numbers(frame[column].tolist())
    unit = frame.index.name or "row"
    bad = [
        f"{unit} {frame.index[row]} ({frame[column].iat[row]!r})" + ("" if why == "not a finite number" else f": {why}")
        for row, why in enumerate(reasons)
        if why
    ]
    frame[column] = values
    return [f"{path}: {column} is not a finite number in {len(bad)} rows: {listed(bad)}"] if bad else []
