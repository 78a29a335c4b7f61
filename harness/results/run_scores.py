"""The scores of a run: results as they come, and the files scores.csv and pictures.csv."""

from __future__ import annotations

import csv
import io
import itertools
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from harness.files.atomic import append_lines, sync, write_text
from harness.files.regular import require_regular
from harness.imaging.crops import Crop
from harness.imaging.remarks import Remark
from harness.runtime.errors import RunError, UsageError

ALL = "all"
"""The part of every image's row in scores.csv of repeated splits, where a model scored all images once."""


def split_part(number: int) -> str:
    """The part of a split's tested images in scores.csv of repeated splits: test@0, test@1, ..."""
    return f"test@{number}"


class ScoreRow(NamedTuple):
    """A row of scores.csv."""

    name: str
    score: float
    part: str


class ScoreFile:
    """scores.csv (name,score,part) and pictures.csv (name and the sha256 of both files), grown by whole chunks."""

    HEADER = ("name", "score", "part")
    PICTURES = ("name", "distorted_sha256", "reference_sha256")

    def __init__(self, folder: Path) -> None:
        self.path = folder / "scores.csv"
        self.pictures = folder / "pictures.csv"

    def resume(self, chunks: Sequence[Sequence[str]], known: Mapping[str, tuple[str, str]] | None = None) -> set[int]:
        """Which chunks (of names) are already there whole; anything else in the files is dropped.

        `known`: sha256 of the distorted image and of the reference by name; scores of other images are dropped too.

        Workers finish chunks in any order, so what a kill left need not be the first ones.
        """
        rows, pictures = _whole_rows(self.path), _whole_rows(self.pictures)
        places = [{row[0]: at for at, row in enumerate(found)} for found in (rows, pictures)]

        def whole(chunk: Sequence[str]) -> bool:
            starts = [at.get(chunk[0], -1) for at in places]
            ends = zip((rows, pictures), starts, strict=True)
            there = all(s >= 0 and [r[0] for r in found[s : s + len(chunk)]] == list(chunk) for found, s in ends)
            if not there or known is None:
                return there
            return all(tuple(row[1:]) == known[row[0]] for row in pictures[starts[1] : starts[1] + len(chunk)])

        done = {number for number, chunk in enumerate(chunks) if whole(chunk)}
        self._write(rows, pictures, [name for number in sorted(done) for name in chunks[number]])
        return done

    def finish(self, chunks: Sequence[Sequence[str]]) -> None:
        """Put the rows into the chunks' order, and everything on disk: the same bytes whoever finished first."""
        rows, pictures = _whole_rows(self.path), _whole_rows(self.pictures)
        order = [name for chunk in chunks for name in chunk]
        if any(sorted(r[0] for r in found) != sorted(order) for found in (rows, pictures)):
            raise RunError(f"{self.path}: changed by something else while this run wrote to it; the same command puts it right")
        if [r[0] for r in rows] != order or [r[0] for r in pictures] != order:
            self._write(rows, pictures, order)
        sync(self.path)

    def _write(self, rows: list[list[str]], pictures: list[list[str]], order: Sequence[str]) -> None:
        for path, header, found in ((self.path, self.HEADER, rows), (self.pictures, self.PICTURES, pictures)):
            by_name = {row[0]: row for row in found}
            write_text(path, csv_text([header, *(by_name[name] for name in order)]))

    def append(self, results: Sequence[Scored], parts: Sequence[str]) -> None:
        """One chunk's rows, in one write each; floats with all their digits."""
        append_lines(self.pictures, csv_text([(r.name, r.distorted, r.reference) for r in results]))
        append_lines(self.path, csv_text([(r.name, repr(r.score), part) for r, part in zip(results, parts, strict=True)]))

    def append_given(self, names: Sequence[str], scores: Sequence[float], parts: Sequence[str]) -> None:
        """Rows of scores that come from elsewhere, without images."""
        append_lines(self.pictures, csv_text([(name, "", "") for name in names]))
        append_lines(self.path, csv_text(list(zip(names, map(repr, scores), parts, strict=True))))

    def read(self) -> list[ScoreRow]:
        """All rows. Raises RunError for a damaged file."""
        return parse_scores(_bytes(self.path), self.path)

    def picture_hashes(self) -> list[tuple[str, str, str]]:
        """All rows of pictures.csv: name, sha256 of the distorted image, sha256 of the reference."""
        return [(name, distorted, reference) for name, distorted, reference in _whole_rows(self.pictures)]


def parse_scores(data: bytes, path: Path) -> list[ScoreRow]:
    """The rows in the bytes of a scores.csv; `path` is named in errors. Raises RunError for a damaged file."""
    try:
        return [ScoreRow(name, float(score), sys.intern(part)) for name, score, part in _parsed(data)]
    except (UnicodeDecodeError, csv.Error):  # as of `_whole_rows`
        return []
    except ValueError as error:
        raise RunError(f"{path}: a damaged score file: {error}") from None


def _bytes(path: Path) -> bytes:
    try:
        require_regular(path)
        return path.read_bytes()
    except FileNotFoundError:
        return b""
    except OSError as error:
        raise UsageError(f"{path}: cannot be read: {error.strerror}") from None


def _whole_rows(path: Path) -> list[list[str]]:
    """The rows below the header, without a last line that a kill cut short."""
    try:
        return list(_parsed(_bytes(path)))
    except (UnicodeDecodeError, csv.Error):  # damaged: nothing in it can be trusted
        return []


def _parsed(data: bytes) -> Iterator[list[str]]:
    # Not splitlines(): names may hold the other characters that it breaks lines at.
    whole = io.TextIOWrapper(io.BytesIO(data[: data.rfind(b"\n") + 1]), encoding="utf-8", newline="")
    return (row for row in itertools.islice(csv.reader(whole), 1, None) if len(row) == 3)


def csv_text(rows: Sequence[Sequence[str]]) -> str:
    """Rows as CSV lines ending in a newline."""
    out = io.StringIO()
    csv.writer(out, lineterminator="\n").writerows(rows)
    if "\r" in (text := out.getvalue()):
        # Unquoted, a name's carriage return (which the module leaves bare before Python 3.13) would end the line.
        out = io.StringIO()
        plain, quoted = (csv.writer(out, lineterminator="\n", quoting=q) for q in (csv.QUOTE_MINIMAL, csv.QUOTE_ALL))
        for row in rows:
            (quoted if any("\r" in cell for cell in row) else plain).writerow(row)
        text = out.getvalue()
    return text


class CropScore(NamedTuple):
    """A crop's place and its score."""

    crop: Crop
    score: float


class Scored(NamedTuple):
    """One image's result; `distorted` and `reference` are the sha256 of the two files."""

    name: str
    score: float
    identical: bool
    distorted: str
    reference: str
    crops: tuple[CropScore, ...]
    remarks: tuple[Remark, ...] = ()
    """What is worth knowing about the two files."""
