"""The file of scores in a submission: writing it, and reading it with all defects.

A0000_10_00.bmp,1260.823608
A0000_10_01.bmp,1255.010742
"""

from __future__ import annotations

import bisect
import csv
import io
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

from harness.cards.challenge import Lines
from harness.challenges.image_names import Names
from harness.challenges.text import Kind, Tally
from harness.runtime.findings import Finding

_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", re.ASCII)
_WORDS = {",": "a comma", ";": "a semicolon", "\t": "a tab", " ": "one space", None: "blanks"}
_LARGEST = 1e9
"""Scores are scaled to stay below this, so that the written digits are within the precision of a float."""
_KINDS = {
    "blank": Kind("error", "a blank line", "remove it"),
    "header": Kind("error", "a header ({}); the first line must be an image's", "remove it"),
    "header-missing": Kind("error", "no header: the first line must be {}", "add it"),
    "header-spelling": Kind("error", "{}", "write the header exactly as required"),
    "separator": Kind("error", "separated by {}", "put exactly the required separator between name and score"),
    "spaces": Kind("error", "blanks around name or score ({})", "remove them"),
    "quotes": Kind("error", "quotes around a value ({})", "remove them"),
    "columns": Kind("error", "{} columns instead of 2, name and score", "leave name and score", mechanical=False),
    "index-column": Kind("error", "a column of row numbers before the name ({})", "leave it out (pandas: index=False)"),
    "name-folder": Kind("error", "a folder before the name ({})", "give the file's name only"),
    "extension": Kind("error", "{}", "write the images' exact names"),
    "letter-case": Kind("error", "{}: the letter case differs from the image's name", "write the images' exact names"),
    "other-phase": Kind("error", "{}", "submit that phase, or score the images of this one", mechanical=False),
    "unknown-name": Kind("error", "{} is not an image of this phase", "score the images of this phase", mechanical=False),
    "duplicate": Kind("error", "{} again, with the same score", "keep one of the lines"),
    "contradiction": Kind("error", "{} again, with another score", "keep the right one", mechanical=False),
    "no-number": Kind("error", "{} is not a number", "every image needs a finite score", mechanical=False),
    "not-finite": Kind("error", "the score is {}", "every image needs a finite score", mechanical=False),
    "decimal-comma": Kind("error", "a decimal comma ({})", "write a decimal point"),
    "exponent": Kind("warning", "{}: a number with an exponent, which some programs cannot read", "write it without an exponent"),
    "decimals": Kind("warning", "{}", "write all scores with the required number of decimals"),
    "order": Kind("error", "{} is after a name that sorts later", "sort the lines by name"),
    "missing": Kind("error", "{} has no line", "score every image of the phase", mechanical=False),
    "count": Kind("error", "{}", "score every image of the phase, and no other", mechanical=False),
}


@dataclass(frozen=True)
class Reading:
    """The result of reading a file of scores: readable scores by image, their lines, and all findings."""

    scores: Mapping[str, float]
    line_of: Mapping[str, int]
    findings: tuple[Finding, ...]
    rest: tuple[str, ...]
    """Lines that cannot be fixed, unchanged."""

    def fixed(self, form: Lines) -> str:
        """The file with all mechanical defects fixed; lines that cannot be fixed are at its end."""
        return written(self.scores, form) + "".join(f"{line}\n" for line in self.rest)


def written(scores: Mapping[str, float], form: Lines) -> str:
    """The file of finite higher-is-better scores by name.

    A server accepts any scale: where rounding to the decimals would make more than one in a hundred of the different scores
    equal, all are multiplied by one power of ten (`scale_of`).
    """
    factor = 10.0 ** scale_of(list(scores.values()), form.decimals)
    names = sorted(scores) if form.sorted else list(scores)
    head = f"{form.header}\n" if form.header else ""
    return head + "".join(f"{_shown(name, form)}{form.separator}{_number(scores[name] * factor, form)}\n" for name in names)


def scale_of(values: Sequence[float], decimals: int) -> int:
    """The exponent of ten, nearest to 0, with which 99 % of the different values stay different after rounding, all below 1e9."""
    largest = max(map(abs, values), default=0.0)
    power = 0
    while largest * 10.0**power >= _LARGEST:
        power -= 1
    if largest == 0 or power < 0:
        return power
    enough, best, most = 0.99 * len(set(values)), 0, 0
    for power in range(300):
        factor = 10.0**power
        if power and largest * factor >= _LARGEST:
            break
        distinct = len({float(f"{value * factor:.{decimals}f}") for value in values})
        if distinct > most:
            best, most = power, distinct
        if most >= enough:
            break
    return best


def _shown(name: str, form: Lines) -> str:
    return name if form.extension else str(PurePosixPath(name).with_suffix(""))


def _number(value: float, form: Lines) -> str:
    text = f"{value:.{form.decimals}f}"
    return text.lstrip("-") if not float(text) else text


def read(lines: Sequence[str], form: Lines, names: Names) -> Reading:
    """The scores in the lines, and all defects. Lines are counted from 1."""
    tally = Tally(form.file)
    scores: dict[str, float] = {}
    line_of: dict[str, int] = {}
    order: list[tuple[int, str]] = []
    rest: list[str] = []
    # A correct line: nearly all lines are, and need no further checks.
    decimals = r"(?:\.\d+)?" if form.any_decimals else rf"\.\d{{{form.decimals}}}" if form.decimals else ""
    exact = re.compile(rf"([^\s\"',;]+){re.escape(form.separator)}(-?\d{{1,300}}{decimals})", re.ASCII)
    for number, line in enumerate(lines, 1):
        if number == 1 and form.header and _is_asked_header(line, form, names, tally):
            continue
        match = exact.fullmatch(line)
        name = names.intended(match[1]) if match else None
        if match and name and match[1] == _shown(name, form):
            score: float | None = float(match[2])
        else:
            name, score = _line(line, number, form, names, tally)
        if name is not None:
            order.append((number, name))
        if name is None or score is None:
            if line.strip() and not (number == 1 and "header" in tally.found):
                rest.append(line)
        elif name in scores:
            same = scores[name] == score
            detail = name if same else f"{name} (first in line {line_of[name]})"
            tally.add("duplicate" if same else "contradiction", number, detail)
            rest += [] if same else [line]
        else:
            scores[name], line_of[name] = score, number
    if form.header and not lines:
        tally.add("header-missing", 1, repr(form.header))
    for (_, before), (number, name) in zip(order, order[1:]) if form.sorted else ():
        if name < before:
            tally.add("order", number, name)
    # The number of images, and missing images.
    present = {name for _, name in order}
    if (names.known is None or len(names.known) != names.count) and len(present) != names.count:
        tally.add("count", max(len(lines), 1), f"{len(present):,} images, phase {names.phase} has {names.count:,}")
    kept = sorted(line_of)
    for name in sorted(set(names.known or ()) - present):
        place = bisect.bisect(kept, name)
        tally.add("missing", line_of[kept[place]] if place < len(kept) else len(lines) + 1, name)
    return Reading(scores, line_of, tuple(tally.findings(_KINDS)), tuple(rest))


def _is_asked_header(line: str, form: Lines, names: Names, tally: Tally) -> bool:
    """Whether the first line is the required header, in any spelling; its defects go to the tally."""
    if line == form.header:
        return True
    cells = [cell.strip() for cell in re.split(r"[,;\t ]+", line.strip()) if cell.strip()]
    if cells and not names.holds(cells[0]) and not any(_NUMBER.fullmatch(cell) or _finite_words(cell) for cell in cells):
        tally.add("header-spelling", 1, f"the header is {_short(line)!r} instead of {form.header!r}")
        return True
    tally.add("header-missing", 1, repr(form.header))
    return False


def _line(line: str, number: int, form: Lines, names: Names, tally: Tally) -> tuple[str | None, float | None]:
    """The image and the score of one line, each None where it cannot be read."""
    if not line.strip():
        tally.add("blank", number)
        return None, None
    cells = _cells(line, number, form, names, tally)
    if len(cells) != 2:
        tally.add("columns", number, f"{len(cells)} ({_short(line)})")
        named = next(filter(None, map(names.intended, cells)), None)
        return named, None
    name = names.intended(cells[0])
    if number == 1 and name is None and not _NUMBER.fullmatch(cells[1]) and not _finite_words(cells[1]):
        tally.add("header", number, _short(line))
        return None, None
    if name is None:
        other = names.phase_of(cells[0])
        if other:
            tally.add("other-phase", number, f"{_short(cells[0])} is an image of phase {other}")
        else:
            tally.add("unknown-name", number, _short(cells[0]))
    else:
        _check_spelling(cells[0], name, number, form, tally)
    return name, _score(cells[1], number, form, tally)


def _cells(line: str, number: int, form: Lines, names: Names, tally: Tally) -> list[str]:
    """The cells of a line, without quotes and blanks around them."""
    separator = form.separator
    text = line
    if '"' in text or text.startswith("'"):
        tally.add("quotes", number, _short(line))
        # A separator within quotes does not separate: `csv` handles that, with double quotes only.
        text = text.replace("'", '"') if text.startswith("'") else text
        delimiter = separator if separator in text else next((s for s in ";\t," if s in text), separator)
        try:
            # A cell with a quote inside is kept unchanged: its name is unknown.
            text = delimiter.join(next(csv.reader(io.StringIO(text), delimiter=delimiter, skipinitialspace=True)))
        except (csv.Error, StopIteration):
            return [line]
    used = _separator(text, separator, names)
    cells = text.split(used)
    if used != separator and len(cells) >= 2:
        tally.add("separator", number, f"{_WORDS[used]} instead of {_WORDS[separator]} ({_short(line)})")
    stripped = [cell.strip() for cell in cells]
    if stripped != cells:
        tally.add("spaces", number, repr(line[:60]))
    if len(stripped) == 3 and stripped[0].isascii() and stripped[0].isdigit() and not _NUMBER.fullmatch(stripped[1]):
        tally.add("index-column", number, _short(line))
        return stripped[1:]
    return stripped


def _separator(text: str, asked: str, names: Names) -> str | None:
    """The separator of the cells: the first that gives an image's name as first cell (or after a row number); None: blanks."""
    candidates = (asked, ",", ";", "\t", None)
    for candidate in candidates:
        cells = [cell.strip() for cell in text.split(candidate)]
        if len(cells) >= 2 and any(names.intended(cell) for cell in cells[: len(cells) - 1][:2]):
            return candidate
    return next((c for c in candidates if len(text.split(c)) >= 2), asked)


def _check_spelling(text: str, name: str, number: int, form: Lines, tally: Tally) -> None:
    last = text.replace("\\", "/").rpartition("/")[2]
    if last != text:
        tally.add("name-folder", number, _short(text))
    wanted = _shown(name, form)
    if last == wanted:
        return
    if last.lower() == wanted.lower():
        tally.add("letter-case", number, _short(last))
    else:
        tally.add("extension", number, f"{_short(last)} instead of {wanted}")


def _score(text: str, number: int, form: Lines, tally: Tally) -> float | None:
    if _finite_words(text):
        tally.add("not-finite", number, text)
        return None
    plain = text
    if re.fullmatch(r"[+-]?\d+,\d+", text, re.ASCII):
        tally.add("decimal-comma", number, text)
        plain = text.replace(",", ".")
    if not _NUMBER.fullmatch(plain):
        tally.add("no-number", number, repr(text[:60]))
        return None
    value = float(plain)
    if not math.isfinite(value):
        tally.add("not-finite", number, f"{text[:60]}, outside the range of a float")
        return None
    if "e" in plain.lower():
        tally.add("exponent", number, text[:60])
    elif not form.any_decimals and len(plain.partition(".")[2]) != form.decimals:
        tally.add("decimals", number, f"{text[:60]}: {len(plain.partition('.')[2])} decimals, {form.decimals} are required")
    return value


def _finite_words(text: str) -> bool:
    return re.fullmatch(r"[+-]?(nan|inf|infinity|-?1\.#(ind|inf|qnan))", text.strip(), re.IGNORECASE) is not None


def _short(text: str) -> str:
    shown = text.strip()
    shown = shown if shown.isprintable() else repr(shown)
    return shown if len(shown) <= 60 else shown[:57] + "..."
