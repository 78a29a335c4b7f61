"""Files of `name,score`: reading them, and joining them with labels by name."""

from __future__ import annotations

import functools
import unicodedata
from collections.abc import Callable
from pathlib import Path, PurePosixPath

import pandas as pd

from harness.files.atomic import sha256_file, sha256_json
from harness.files.regular import require_regular
from harness.files.table_paths import file_name
from harness.files.table_rows import rows_of
from harness.files.text_table import convert_numbers, read_text_columns, require_columns
from harness.runtime.errors import UsageError, listed


def read_scores(path: str | Path) -> pd.DataFrame:
    """Read a file with columns name, score (and optionally reference_id), with unique names and finite scores.

    Raises UsageError listing every problem. A file with the same content as in the last call is not parsed again.
    """
    try:
        require_regular(Path(path))
        digest = sha256_file(Path(path))
    except (OSError, UsageError):
        return _read(path)
    # From pandas 3 on, a shallow copy is copied when it is changed.
    return _cached(str(path), digest).copy(deep=int(pd.__version__.split(".")[0]) < 3)


@functools.lru_cache(maxsize=1)
def _cached(path: str, _: str) -> pd.DataFrame:
    return _read(path)


def _read(path: str | Path) -> pd.DataFrame:
    frame = read_text_columns(Path(path), ("name", "score"))
    require_columns(frame, ("name", "score"), path)
    problems = convert_numbers(frame, "score", path)
    twice = list(frame["name"][frame["name"].duplicated()].unique())
    problems += [f"{path}: {len(twice)} names occur more than once: {listed(twice)}"] if twice else []
    blank = [line for line, name in zip(frame.index, frame["name"].tolist(), strict=True) if not name]
    problems += [f"{path}: empty names in {frame.index.name}s {listed(blank)}"] if blank else []
    if problems:
        raise UsageError("\n".join(problems))
    return frame


def join(scores: pd.DataFrame, labels: pd.DataFrame, what: tuple[str, str], *, inner: bool) -> pd.DataFrame:
    """The rows of `labels` with the scores as a column `given`, joined by exact names.

    Raises UsageError listing unmatched names of both files, unless `inner` (then they are left out).
    """
    if not inner:
        refuse_unmatched(scores["name"], labels["name"], labels["name"], what)
    joined = labels.merge(scores[["name", "score"]].rename(columns={"score": "given"}), on="name", how="inner", sort=False)
    if joined.empty:
        raise UsageError(f"{what[0]} and {what[1]} have no name in common")
    return joined


def refuse_unmatched(given: pd.Series, wanted: pd.Series, known: pd.Series, what: tuple[str, str]) -> None:
    """Raise UsageError for names of a score file that are not `known`, and for `wanted` names that it lacks; lists both."""
    names = set(given.tolist())
    extra, absent = sorted(names - set(known.tolist())), sorted(set(wanted.tolist()) - names)
    lines = [f"{what[0]}: {len(extra)} names that {what[1]} does not have: {listed(extra)}"] if extra else []
    lines += [f"{what[1]}: {len(absent)} names that {what[0]} does not have: {listed(absent)}"] if absent else []
    if not lines:
        return
    # How unmatched names of both files differ, if only their spelling differs.
    spellings: dict[str, Callable[[str], str]] = {
        "the encoding of accents (Unicode NFC and NFD), which is not visible": lambda name: name,
        "letter case": str.casefold,
        "folders": lambda name: file_name(name).casefold(),
        "extensions": lambda name: PurePosixPath(file_name(name)).stem.casefold(),
    }
    for differ, spelt in spellings.items():
        forms = [{spelt(unicodedata.normalize("NFC", name)) for name in side} for side in (extra, absent)]
        if same := sorted(forms[0] & forms[1]):
            lines.append(f"{len(same)} names in both differ only in {differ}: {listed(same, 3)}")
            break
    raise UsageError("\n".join([*lines, "names must be equal; --inner uses only the names in both"]))


def scores_hash(frame: pd.DataFrame) -> str:
    """sha256 of names and scores, independent of their order."""
    rows = rows_of(frame[["name", "score"]].astype({"score": float}).sort_values("name"))
    return sha256_json((name, repr(score)) for name, score in rows)
