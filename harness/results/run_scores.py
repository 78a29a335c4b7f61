"""The scores of a run: `Scored` results, and `ScoreFile` for scores.csv and pictures.csv."""

from __future__ import annotations

import csv
import io
import itertools
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from harness.files.atomic import append_lines, sync, write_text
from harness.files.regular import require_regular
from harness.imaging.crops import Crop
from harness.imaging.remarks import Remark
from harness.runtime.errors import RunError, UsageError

if TYPE_CHECKING:
    import pandas as pd

ALL = "all"
"""The part, in scores.csv of repeated splits, of the rows of a model that scored all images once."""
_ROWS_AT_ONCE = 10_000


def split_part(number: int) -> str:
    """The part of a split's tested images in scores.csv of repeated splits: test@0, test@1, ..."""
    return f"test@{number}"


class ScoreRow(NamedTuple):
    """A row of scores.csv."""

    name: str
    score: float
    part: str


class ScoreFile:
    """scores.csv (name,score,part) and pictures.csv (name and the sha256 of both files), written in whole chunks."""

    HEADER = ("name", "score", "part")
    PICTURES = ("name", "distorted_sha256", "reference_sha256")

    def __init__(self, folder: Path) -> None:
        self.path = folder / "scores.csv"
        self.pictures = folder / "pictures.csv"

    def resume(self, chunks: Sequence[Sequence[str]], known: Mapping[str, tuple[str, str]] | None = None) -> set[int]:
        """The numbers of the chunks (of names) that are complete in the files; all other rows are removed.

        `known`: sha256 of the distorted image and of the reference by name; scores of changed images are removed too.

        Workers finish chunks in any order, so after a kill the complete chunks need not be the first ones.
        """
        rows, hashes = _whole_rows(self.path), _whole_rows(self.pictures)
        places = [{row[0]: at for at, row in enumerate(found)} for found in (rows, hashes)]

        def whole(chunk: Sequence[str]) -> bool:
            starts = [at.get(chunk[0], -1) for at in places]
            ends = zip((rows, hashes), starts, strict=True)
            complete = all(s >= 0 and [r[0] for r in found[s : s + len(chunk)]] == list(chunk) for found, s in ends)
            if not complete or known is None:
                return complete
            return all(tuple(row[1:]) == known[row[0]] for row in hashes[starts[1] : starts[1] + len(chunk)])

        done = {number for number, chunk in enumerate(chunks) if whole(chunk)}
        self._write(rows, hashes, [name for number in sorted(done) for name in chunks[number]])
        return done

    def finish(self, chunks: Sequence[Sequence[str]]) -> None:
        """Sort the rows into the order of the chunks, so that the bytes do not depend on workers, and flush them to disk."""
        rows, hashes = _whole_rows(self.path), _whole_rows(self.pictures)
        order = [name for chunk in chunks for name in chunk]
        if any(sorted(r[0] for r in found) != sorted(order) for found in (rows, hashes)):
            raise RunError(f"{self.path}: another process changed it during this run; run the same command again to repair it")
        if [r[0] for r in rows] != order or [r[0] for r in hashes] != order:
            self._write(rows, hashes, order)
        sync(self.path)

    def _write(self, rows: list[list[str]], hashes: list[list[str]], order: Sequence[str]) -> None:
        for path, header, found in ((self.path, self.HEADER, rows), (self.pictures, self.PICTURES, hashes)):
            by_name = {row[0]: row for row in found}
            write_text(path, csv_text([header, *(by_name[name] for name in order)]))

    def append(self, results: Sequence[Scored], parts: Sequence[str]) -> None:
        """Append one chunk's rows to both files, with one write for each; floats have all digits."""
        append_lines(self.pictures, csv_text([(r.name, r.distorted, r.reference) for r in results]))
        append_lines(self.path, csv_text([(r.name, repr(r.score), part) for r, part in zip(results, parts, strict=True)]))

    def append_given(self, names: Sequence[str], scores: Sequence[float], parts: Sequence[str]) -> None:
        """Append rows of scores from another source, without hashes of images."""
        rows = zip(names, map(repr, scores), parts, strict=True)
        # In pieces: the text of 700,000 rows takes hundreds of megabytes while it is made.
        while piece := list(itertools.islice(rows, _ROWS_AT_ONCE)):
            append_lines(self.pictures, csv_text([(name, "", "") for name, *_ in piece]))
            append_lines(self.path, csv_text(piece))

    def read(self) -> list[ScoreRow]:
        """All rows. Raises RunError for a damaged file."""
        return parse_scores(_bytes(self.path), self.path)

    def table(self) -> pd.DataFrame:
        """All rows of scores.csv as columns, which take a fifth of the memory. Raises RunError for a damaged file."""
        return _columns(_score_rows(_bytes(self.path), self.path), self.HEADER)

    def picture_hashes(self) -> list[tuple[str, str, str]]:
        """All rows of pictures.csv: name, sha256 of the distorted image, sha256 of the reference."""
        return [(name, distorted, reference) for name, distorted, reference in _whole_rows(self.pictures)]

    def picture_table(self) -> pd.DataFrame:
        """All rows of pictures.csv as columns."""
        return _columns(_parsed(_bytes(self.pictures)), self.PICTURES)


def parse_scores(data: bytes, path: Path) -> list[ScoreRow]:
    """The rows in the bytes of a scores.csv; `path` is named in errors. Raises RunError for a damaged file."""
    try:
        return list(_score_rows(data, path))
    except (UnicodeDecodeError, csv.Error):  # as in `_whole_rows`
        return []


def _score_rows(data: bytes, path: Path) -> Iterator[ScoreRow]:
    for name, score, part in _parsed(data):
        try:
            number = float(score)
        except ValueError as error:
            raise RunError(f"{path}: damaged score file: {error}") from None
        yield ScoreRow(name, number, sys.intern(part))


def _columns(rows: Iterator[Sequence[object]], names: Sequence[str]) -> pd.DataFrame:
    """Rows as columns, some thousand at a time; no rows of a damaged file, as in `_whole_rows`."""
    import pandas as pd

    pieces = []
    try:
        while piece := list(itertools.islice(rows, _ROWS_AT_ONCE)):
            pieces.append(pd.DataFrame(piece, columns=list(names)))
    except (UnicodeDecodeError, csv.Error):
        pieces = []
    return pd.concat(pieces, ignore_index=True) if pieces else pd.DataFrame(columns=list(names))


def _bytes(path: Path) -> bytes:
    try:
        require_regular(path)
        return path.read_bytes()
    except FileNotFoundError:
        return b""
    except OSError as error:
        raise UsageError(f"{path}: cannot be read: {error.strerror}") from None


def _whole_rows(path: Path) -> list[list[str]]:
    """The rows below the header, without an incomplete last line, which a kill may leave."""
    try:
        return list(_parsed(_bytes(path)))
    except (UnicodeDecodeError, csv.Error):  # a damaged file: none of its rows are used
        return []


def _parsed(data: bytes) -> Iterator[list[str]]:
    # Not splitlines(): names may contain other characters at which it splits lines.
    whole = io.TextIOWrapper(io.BytesIO(data[: data.rfind(b"\n") + 1]), encoding="utf-8", newline="")
    return (row for row in itertools.islice(csv.reader(whole), 1, None) if len(row) == 3)


def csv_text(rows: Sequence[Sequence[str]]) -> str:
    """Rows as CSV lines ending in a newline."""
    out = io.StringIO()
    csv.writer(out, lineterminator="\n").writerows(rows)
    if "\r" in (text := out.getvalue()):
        # Before Python 3.13 the module does not quote a carriage return in a name, which would end the line.
        out = io.StringIO()
        plain, quoted = (csv.writer(out, lineterminator="\n", quoting=q) for q in (csv.QUOTE_MINIMAL, csv.QUOTE_ALL))
        for row in rows:
            (quoted if any("\r" in cell for cell in row) else plain).writerow(row)
        text = out.getvalue()
    return text


class CropScore(NamedTuple):
    """A crop and its score."""

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
    """Remarks on the two files."""
