"""Leaderboards: tables of records with figures and intervals, computed from the records only.

`leaderboards/records/<dataset>/<model>/<key>/` has record.json and scores.csv; `<dataset>.md`, `<dataset>.csv` and
`index.html` in `leaderboards` are built from these files only. This package does not import torch, ray, mlflow or pandas.
"""

from __future__ import annotations

import json
import os
import shutil
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from harness.datasets.suites import Suite
from harness.files.atomic import atomic, sha256_json, write_text, writing
from harness.files.leftovers import without_leftovers
from harness.files.names import read_own
from harness.leaderboard.board_document import Begun, Board
from harness.leaderboard.columns import cells
from harness.leaderboard.formats import GENERATED, csv, markdown, terminal
from harness.leaderboard.html import page
from harness.leaderboard.latex import board_tables, document
from harness.leaderboard.matrix import DEFAULT, Matrix, build_matrix
from harness.leaderboard.rows import board
from harness.results.key import key_of
from harness.results.record import Figures, Record, RepeatsRecord, parse_record, read_record
from harness.results.run_folder import MLFLOW_FILES, folder_of
from harness.results.run_scores import ScoreFile, parse_scores
from harness.runtime.errors import RunError, UsageError, listed, near

RECORDS = "records"
PAGE = "index.html"
KEPT = ("scores.csv", "record.json")
"""In the order of copying: a folder with a record then always has its scores."""
FoundRecord = tuple[Path, Record | Begun]


@dataclass(frozen=True)
class Latex:
    """Options for LaTeX tables."""

    columns: tuple[str, ...] = ()
    """Empty: the default columns."""
    intervals: bool = False
    standalone: bool = False
    """Whether to write a complete document that compiles."""


def collect(places: Iterable[str | Path], *, unfinished: bool = False, unreadable: list[str] | None = None) -> list[FoundRecord]:
    """All records in `<dataset>/<model>/<key>` under `places`; each (dataset, model, key) once, from the first place with it.

    `unfinished`: include runs without a record, as records without figures. Records that cannot be read are left out, and a
    message about each is appended to `unreadable`; without `unreadable`, raises UsageError listing them.
    """
    found: dict[tuple[str, str, str], FoundRecord] = {}
    begun: dict[tuple[str, str, str], FoundRecord] = {}
    problems: list[str] = []
    for place in places:
        # MLflow's copies of records have the same depth of folders, and remain when a run is removed.
        folders = (path for path in Path(place).glob("*/*/*") if path.is_dir() and path.parent.parent.name != MLFLOW_FILES)
        for folder in sorted(folders):
            try:
                record = read_record(folder)
            except UsageError as error:
                problems.append(str(error))
                continue
            if record is not None:
                found.setdefault((record.dataset, record.model, record.key), (folder, record))
            elif unfinished and (stub := _begun(folder)) is not None:
                begun.setdefault((stub.dataset, stub.model, stub.key), (folder, stub))
    if unreadable is not None:
        unreadable += problems
    elif problems:
        raise UsageError("\n".join(problems))
    return [*found.values(), *(entry for name, entry in begun.items() if name not in found)]


def _begun(folder: Path) -> Begun | None:
    """An unfinished run, from its state.json; None for other folders."""
    try:
        identity = json.loads((folder / "state.json").read_text(encoding="utf-8"))["identity"]
        model, protocol, seed = identity["card"]["name"], identity["protocol"], identity["seed"]
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None
    if not (isinstance(model, str) and isinstance(protocol, str) and isinstance(seed, int)):
        return None
    return Begun(model, folder.parent.parent.name, protocol, seed, folder.name)


def boards_of(found: Sequence[FoundRecord], records_folder: Path | None = None) -> list[Board]:
    """A board for each dataset in the records, in alphabetical order."""
    return [board(found, dataset, records_folder) for dataset in sorted({record.dataset for _, record in found})]


def show(
    name: str | None,
    runs_folder: str | Path,
    boards: str | Path = "leaderboards",
    *,
    latex: Latex | None = None,
    width: int | None = None,
) -> str:
    """The tables of dataset `name` (None: of all) for a terminal or as LaTeX, with committed records and the user's runs.

    `width`: characters in a line of the terminal; None: all columns.
    """
    unreadable: list[str] = []
    chosen = _chosen(name, runs_folder, boards, unreadable)
    if latex is None:
        shown, prefix = "\n\n\n".join(terminal(one, width) for one in chosen), ""
    else:
        tables = [table for b in chosen for table in board_tables(b, latex.columns, intervals=latex.intervals)]
        shown, prefix = document(tables) if latex.standalone else "\n\n".join(tables) + "\n", "% "
    # Records that cannot be read follow the tables; in LaTeX, every line of their messages is a comment.
    lines = [f"{len(unreadable)} records cannot be read and are left out:", *unreadable] if unreadable else []
    messages = [f"{prefix}{part}" for line in lines for part in line.splitlines()]
    return "\n\n\n".join([shown, *(["\n".join(messages)] if messages else [])])


def suite_matrix(
    suite: Suite, runs_folder: str | Path, boards: str | Path = "leaderboards", figures: Sequence[str] = ()
) -> tuple[Matrix, list[str]]:
    """Models by the datasets of a suite, from committed records and the user's runs, and a message about each unreadable record.

    Raises UsageError if no dataset of the suite has a record with its protocol.
    """
    unreadable: list[str] = []
    found = collect([Path(boards) / RECORDS, runs_folder], unfinished=True, unreadable=unreadable)
    wanted = [(entry.name, entry.protocol) for entry in suite.datasets]
    shown = build_matrix(suite.card.name, suite.card.title, wanted, found, figures or DEFAULT)
    if not shown.columns:
        protocols = sorted({f"{record.dataset} ({record.protocol})" for _, record in found})
        existing = f"there are records of {listed(protocols)}" if protocols else "there are no other records"
        named = listed([f"{dataset} ({protocol})" for dataset, protocol in wanted])
        hint = f"no records of {named} under {runs_folder} or {Path(boards) / RECORDS}; {existing}"
        raise UsageError("\n".join([*unreadable, f"{hint}; make some: harness run psnr ssim --suite {suite.card.name}"]))
    return shown, unreadable


def numbers(name: str | None, runs_folder: str | Path, boards: str | Path = "leaderboards") -> list[dict[str, object]]:
    """The rows of `show` as values with all digits, for JSON."""
    return [cells(row) for b in _chosen(name, runs_folder, boards) for group in b.groups for row in group.rows]


def _chosen(name: str | None, runs_folder: str | Path, boards: str | Path, unreadable: list[str] | None = None) -> list[Board]:
    """The boards of dataset `name`, or all; unreadable records are left out, with a message about each in `unreadable`."""
    kept = Path(boards) / RECORDS
    unreadable = [] if unreadable is None else unreadable
    found = collect([kept, runs_folder], unfinished=True, unreadable=unreadable)
    if not found:
        hint = f"no records under {runs_folder} or {kept}; make one: harness run psnr --dataset demo"
        raise UsageError("\n".join([*unreadable, hint]))
    known = sorted({record.dataset for _, record in found})
    if name is not None and name not in known:
        raise UsageError(f"no records of dataset {name!r}{near(name, known)} (there are records of {listed(known)})")
    return [b for b in boards_of(found, kept) if name in (None, b.dataset)]


def add(folders: Iterable[str | Path], boards: str | Path = "leaderboards") -> list[Path]:
    """Copy finished records (record.json and scores.csv) under `boards`; returns their new folders. `write` builds the tables.

    An added record replaces a committed one that differs from it only in an older version of the model's class. Links are not
    followed, and the copied bytes are the parsed ones. Raises UsageError, before any copy, for folders without a finished
    record and for records that are inconsistent or do not match their scores.
    """
    found: list[tuple[Record, dict[str, bytes]]] = []
    problems = []
    for folder in map(Path, folders):
        if not (folder / "record.json").exists():
            problems.append(f"{folder}: no finished record in it (record.json is missing)")
            continue
        try:
            files = {name: read_own(folder / name) for name in KEPT}
            record = parse_record(files["record.json"], folder / "record.json")
            rows = parse_scores(files["scores.csv"], folder / "scores.csv")
        except (UsageError, RunError) as error:
            problems.append(str(error))
            continue
        problems += [f"{folder}: {problem}" for problem in _own_contradictions(record, rows)]
        found.append((record, files))
    if problems:
        raise UsageError("\n".join(problems))
    records, places = Path(boards) / RECORDS, []
    for record, files in found:
        place = folder_of(records, record.dataset, record.model, record.key)
        if outside := [part for part in (place, place.parent, place.parent.parent) if part.is_symlink()]:
            raise UsageError(f"{outside[0]} is a link; replace it by a folder: records must be in folders under {records}")
        for name in KEPT:
            with atomic(place / name) as stream:
                stream.write(files[name])
        for older in sorted(path for path in place.parent.iterdir() if path.is_dir() and not path.is_symlink()):
            if older != place and _is_older(older, record):
                shutil.rmtree(older)
        places.append(place)
    return places


def _is_older(folder: Path, record: Record) -> bool:
    """Whether the record in `folder` is of the same request with an older version of the model's class."""
    other = read_record(folder)
    now, before = record.identity, other.identity if other is not None else {}
    newer, older = ((entry.get("code") or {}).get("version") for entry in (now, before))
    same = all(before.get(name) == value for name, value in now.items() if name != "code")
    return isinstance(newer, int) and isinstance(older, int) and older < newer and same


def write(boards: str | Path = "leaderboards") -> list[Path]:
    """Build all tables and the page under `boards` from its records; returns the written paths."""
    wanted = _files(Path(boards))
    for path, content in wanted.items():
        write_text(path, content)
    for path in _left_over(Path(boards), wanted):
        with writing(path):
            path.unlink()
    return list(wanted)


def write_page(
    folder: str | Path | None, runs_folder: str | Path, boards: str | Path = "leaderboards", name: str | None = None
) -> Path:
    """Write the page of committed records and the user's runs (of dataset `name`) into `folder`; returns its path.

    Without a folder: write the page of all committed records into `boards`, as `write` does; if there are none (of `name`),
    write the page of the user's runs into `runs_folder`.
    """
    kept = Path(boards) / RECORDS
    if folder is None and committed(name, boards):
        write_text(Path(boards) / PAGE, _files(Path(boards))[Path(boards) / PAGE])
        return Path(boards) / PAGE
    folder = Path(runs_folder if folder is None else folder)
    chosen = _chosen(name, runs_folder, boards)
    write_text(folder / PAGE, page(chosen, Path(os.path.relpath(kept.absolute(), folder.absolute())).as_posix()))
    return folder / PAGE


def committed(name: str | None, boards: str | Path = "leaderboards") -> list[Path]:
    """The folders of the committed records (of dataset `name`)."""
    return [folder for folder, record in collect([Path(boards) / RECORDS]) if name in (None, record.dataset)]


def check(boards: str | Path = "leaderboards") -> list[str]:
    """Problems under `boards`: tables that differ from their records, and records that are inconsistent, do not match their
    scores or are in the wrong folder. Empty if there are none."""
    root = Path(boards)
    found = collect([root / RECORDS])
    problems: list[str] = []
    for folder, record in found:
        problems += [f"{folder}: {problem}" for problem in contradictions(folder, record)] if isinstance(record, Record) else []
    wanted = _files(root)
    for path, content in wanted.items():
        try:
            differs = path.read_text(encoding="utf-8") != content
        except FileNotFoundError:
            problems.append(f"{path}: missing; `harness leaderboard write` writes it")
            continue
        if differs:
            problems.append(f"{path}: differs from the records; `harness leaderboard write` writes it again")
    return problems + [
        f"{path}: has no records any more; delete it or run `harness leaderboard write`" for path in _left_over(root, wanted)
    ]


def contradictions(folder: Path, record: Record) -> list[str]:
    """Inconsistencies of a record, also with its scores.csv and its folder; `harness verify` checks it against the labels."""
    place = folder_of("", record.dataset, record.model, record.key)
    problems = [] if folder.parts[-3:] == place.parts else [f"belongs under {place.as_posix()}"]
    return problems + _own_contradictions(record, ScoreFile(folder).read())


def _own_contradictions(record: Record, rows: Sequence[tuple[str, float, str]]) -> list[str]:
    """Inconsistencies of a record, also with its scores."""
    problems = []
    if (key := key_of(record.identity)) != record.key:
        problems.append(f"its key is {record.key}, but its identity gives {key}")
    if record.hashes.scores != sha256_json([[n, repr(s), p] for n, s, p in rows]):
        problems.append("scores.csv was changed: its hash differs from the record")
    measured: list[tuple[str, Figures | None]] = list(record.metrics.items())
    if isinstance(record, RepeatsRecord):
        measured = [(f"test@{repeat.repeat}", repeat) for repeat in record.repeats]
    counts = Counter(part for _, _, part in rows)
    for part, figures in measured:
        if not figures:
            continue
        if figures.n is not None and figures.n > counts[part]:
            problems.append(f"measured on {figures.n} {part} pairs, but scores.csv has {counts[part]}")
        srcc, plcc, main = figures.srcc, figures.plcc, figures.main
        if srcc is not None and plcc is not None and main is not None and abs(main - srcc - plcc) > 1e-12:
            problems.append(f"{part}: main {main!r} is not plcc + srcc = {plcc + srcc!r}")
    return problems


def _files(root: Path) -> dict[Path, str]:
    """The paths and contents of all generated files under `root`."""
    boards = boards_of(collect([root / RECORDS]), root / RECORDS)
    files: dict[Path, str] = {}
    for b in boards:
        stem = folder_of("", b.dataset, "", "").parts[0]
        files |= {root / f"{stem}.md": markdown(b), root / f"{stem}.csv": csv(b)}
    return files | ({root / PAGE: page(boards, RECORDS)} if boards else {})


def _left_over(root: Path, wanted: Iterable[Path]) -> list[Path]:
    """Generated tables that have no records any more."""
    tables = [path for path in without_leftovers(sorted(root.glob("*.md"))) if GENERATED in path.read_text(encoding="utf-8")]
    return [path for table in tables for path in (table, table.with_suffix(".csv")) if path not in wanted and path.is_file()]
