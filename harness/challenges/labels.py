"""Reading an organiser's label files: labels, their standard deviations, lists of compared pairs."""

from __future__ import annotations

import math
import re
from collections.abc import Collection
from pathlib import Path

from harness.challenges.figures import Truth
from harness.files.atomic import sha256_file, sha256_json
from harness.files.leftovers import without_leftovers
from harness.files.table_numbers import parse_number
from harness.files.text_table import read_text
from harness.runtime.errors import UsageError, listed

_LABEL_FILES = (".txt", ".csv", ".tsv", ".xlsx")
_LARGEST_FOLDER = 10_000
_LARGEST = 64 << 20
_PAIRS = re.compile(r"pairs-([\w-]+)\.csv", re.ASCII)


def read_truth(place: Path, images: Collection[str] = ()) -> tuple[Truth, str]:
    """The labels in a file, or in every label file of a folder, and the sha256 of the file (of several: of their hashes).

    A label file has name,score with or without a header; with one, also the columns std, raters and reference. In a folder,
    `pairs-NAME.csv` is a list of pairs. `images` are names that help to read ambiguous commas. Raises UsageError
    listing all unreadable lines and names labelled twice.
    """
    from harness.datasets import label_files

    files = [place]
    if place.is_dir():
        files = [path for path in without_leftovers(sorted(place.iterdir())) if path.suffix.lower() in _LABEL_FILES]
        if not files or len(files) > _LARGEST_FOLDER:
            raise UsageError(f"{place}: {len(files):,} label files (looked for {', '.join(_LABEL_FILES)})")
    scores: dict[str, float] = {}
    deviations: dict[str, float] = {}
    raters: dict[str, float] = {}
    references: dict[str, str] = {}
    pairs: dict[str, list[tuple[str, str, float]]] = {}
    problems: list[str] = []
    for file in files:
        if place.is_dir() and (match := _PAIRS.fullmatch(file.name)):
            pairs[match[1]] = _read_pairs(file, problems)
            continue
        read = label_files.read_labels(file, ("name", "score"), known=images.__contains__ if images else None)
        problems += [f"{file}: {read.problem}"] if read.bad else []
        twice = [row.name for row in read.rows if row.name in scores]
        problems += [f"{file}: names labelled twice: {listed(twice)}"] if twice else []
        for row in read.rows:
            scores[row.name] = row.score
            deviations |= {row.name: row.std} if math.isfinite(row.std) and row.std >= 0 else {}
            raters |= {row.name: row.raters} if math.isfinite(row.raters) and row.raters >= 1 else {}
            references |= {row.name: row.reference} if row.reference else {}
    if problems:
        raise UsageError("\n".join(problems))
    hashes = [sha256_file(file) for file in files]
    return Truth(scores, deviations, raters, references, pairs), hashes[0] if len(hashes) == 1 else sha256_json(hashes)


def _read_pairs(file: Path, problems: list[str]) -> list[tuple[str, str, float]]:
    """A list of pairs: first,second,choice. 1 or 2: the better image; a number in [0, 1]: the share of raters for the first."""
    rows: list[tuple[int, str, str, float]] = []
    for number, line in enumerate(read_text(file, largest=_LARGEST).splitlines(), 1):
        cells = [cell.strip() for cell in line.split(",")]
        if not line.strip() or (number == 1 and len(cells) == 3 and not math.isfinite(parse_number(cells[2]))):
            continue
        value = parse_number(cells[2]) if len(cells) == 3 else math.nan
        if not math.isfinite(value) or not all(cells[:2]) or cells[0] == cells[1]:
            problems.append(f"{file}: line {number} ({line[:60]!r}) should read first,second,choice")
        else:
            rows.append((number, cells[0], cells[1], value))
    choices = any(value == 2 for *_, value in rows)
    for number, _, _, value in rows:
        if value not in (1, 2) if choices else not 0 <= value <= 1:
            problems.append(f"{file}: line {number}: {value:g} is not 1 or 2, nor, in a list of shares, from 0 to 1")
    if not rows:
        problems.append(f"{file}: holds no pairs")
    return [(first, second, (1.0 if value == 1 else 0.0) if choices else value) for _, first, second, value in rows]
