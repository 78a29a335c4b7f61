"""The table of image pairs with labels: its columns, reading a user's CSV, and its checks.

One row per pair: `name` (unique text), `distorted` and `reference` (paths), `reference_id` (the group that splits
keep together), `distortion` (kind), `level`, `score` (the label: MOS or DMOS; NaN where withheld), `part` (the official part,
where there is one). Where known: `std` (the standard deviation of an image's ratings), `raters` (their number) and `pair` (for
2AFC: the two distorted images of a pair have the same text, and `score` is the share of votes for each). A table without
images (name, score) works with score files only.
"""

from __future__ import annotations

import os
import unicodedata
from pathlib import Path, PurePosixPath

import pandas as pd

from harness.files.atomic import sha256_json
from harness.files.table_paths import TablePaths, explained, file_name, short_names
from harness.files.table_rows import rows_of
from harness.files.text_table import convert_numbers, read_text_columns, require_columns
from harness.runtime.errors import UsageError, listed

COLUMNS = ("name", "distorted", "reference", "reference_id", "distortion", "level", "score", "part", "std", "raters", "pair")


def read_csv(path: str | Path, root: str | Path | None = None) -> pd.DataFrame:
    """A user's table with columns distorted, reference, score and optional name, reference_id, distortion, level, part, std,
    raters.

    Or, without images: name, score, and the same optional ones. Relative paths start at `root`, else at the table's
    folder. Raises UsageError listing every problem of the table.
    """
    path = Path(path)
    frame = read_text_columns(path, ("score",))
    problems: list[str] = []
    with_images = "distorted" in frame or "reference" in frame
    require_columns(frame, ("distorted", "reference", "score") if with_images else ("name", "score"), path)
    if with_images:
        for column in ("distorted", "reference"):
            blank = frame.index[frame[column] == ""]
            if len(blank):
                problems.append(f"{path}: empty {column} in {frame.index.name}s {listed(list(blank))}")
        if "name" not in frame:
            frame["name"] = short_names(list(frame["distorted"]))
        if "reference_id" not in frame:
            frame["reference_id"] = [PurePosixPath(file_name(r)).stem for r in frame["reference"]]
            by_id = frame.groupby("reference_id")["reference"].unique()
            if clashes := [f"{i} ({listed(list(v), 3)})" for i, v in by_id.items() if len(v) > 1]:
                problems.append(f"{path}: references with the same stem; add a reference_id column: {listed(clashes)}")
        paths = TablePaths(root if root is not None else path.parent)
        for column in ("distorted", "reference"):
            place_of = {value: paths.find(value) for value in dict.fromkeys(frame[column])}
            frame[column] = [place_of[value] for value in frame[column]]
    for column in (c for c in ("score", "level", "std", "raters") if c in frame):
        problems += convert_numbers(frame, column, path)
    if problems:
        raise UsageError("\n".join(problems))
    return complete(frame, str(path))


def complete(frame: pd.DataFrame, what: str) -> pd.DataFrame:
    """The table with all columns, checked: unique text names, constant labels refused. `what` is named in errors."""
    if frame.empty:
        raise UsageError(f"{what}: no rows")
    frame = frame.reset_index(drop=True)
    for column, default in (("distortion", ""), ("level", float("nan")), ("part", ""), ("reference_id", "")):
        if column not in frame:
            frame[column] = default
    problems = []
    frame["name"] = frame["name"].astype(str)
    frame["score"] = frame["score"].astype(float)
    twice = frame["name"][frame["name"].duplicated()].unique()
    if len(twice):
        problems.append(f"{what}: {len(twice)} names occur more than once: {listed(list(twice))}")
    by_form: dict[str, set[str]] = {}
    names = frame["name"].tolist()
    # Different ASCII names never print the same.
    for name in names if not all(map(str.isascii, names)) else ():
        by_form.setdefault(unicodedata.normalize("NFC", name), set()).add(name)
    if forms := [form for form, spellings in by_form.items() if len(spellings) > 1]:
        problems.append(f"{what}: {len(forms)} names occur in two Unicode forms that print the same: {listed(forms)}")
    blank = int((frame["name"] == "").sum())
    if blank:
        problems.append(f"{what}: {blank} rows without a name")
    known = frame["score"].dropna()
    if len(known) > 1 and known.nunique() == 1:
        problems.append(f"{what}: all {len(known)} scores are {known.iloc[0]:g}; agreement with a constant is not defined")
    if problems:
        raise UsageError("\n".join(problems))
    for column in ("reference_id", "distortion", "part"):
        frame[column] = frame[column].astype(str)
    return frame[[c for c in COLUMNS if c in frame]]


def has_images(frame: pd.DataFrame) -> bool:
    """Whether the table names images; otherwise it has labels only."""
    return "distorted" in frame


def require_files(frame: pd.DataFrame, what: str) -> None:
    """Raise UsageError if images of the table are missing, with their count and up to 20 of them."""
    paths: list[str] = [*dict.fromkeys(frame["reference"]), *frame["distorted"]]
    absent = [p for p in paths if not os.path.isfile(p)]
    if absent:
        shown = [explained(path) for path in absent[:20]] + absent[20:]
        raise UsageError(f"{what}: {len(absent)} of {len(paths)} images are missing: {listed(shown)}")


def table_hash(frame: pd.DataFrame) -> str:
    """sha256 of names, pairing and labels; independent of the rows' order and of the files' folders."""
    rows = frame[["name", "reference_id", "score"]].astype({"score": float})
    # Mirrors of a dataset write file names in other letter cases; the table is the same.
    paths = frame["reference"].tolist() if has_images(frame) else []
    rows.insert(1, "reference", [unicodedata.normalize("NFC", Path(path).name).casefold() for path in paths] or "")
    hashed = rows_of(rows.sort_values("name"))
    return sha256_json((*texts, None if label != label else label) for *texts, label in hashed)
