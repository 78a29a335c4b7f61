"""Leaderboards: tables that say what is known and how well, a pure function of records.

`leaderboards/records/<dataset>/<model>/<key>/` keeps record.json and scores.csv; `<dataset>.md`, `<dataset>.csv` and
`index.html` next to it are built from them and from nothing else. Nothing here imports torch, ray, mlflow or pandas.
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
"""In the order of copying: where there is a record, there are its scores."""
FoundRecord = tuple[Path, Record | Begun]


@dataclass(frozen=True)
class Latex:
    """How LaTeX tables are written."""

    columns: tuple[str, ...] = ()
    """Empty: the usual ones."""
    intervals: bool = False
    standalone: bool = False
    """Whether the whole is a document that compiles alone."""


def collect(places: Iterable[str | Path], *, unfinished: bool = False, unreadable: list[str] | None = None) -> list[FoundRecord]:
    """Every record under folders of `<dataset>/<model>/<key>`, each (dataset, model, key) once, from the first place that has it.

    `unfinished`: also runs that have begun and left no record, as records without figures. Records that cannot be read are
    left out, and a line on each is appended to `unreadable`; without it, raises UsageError listing them.
    """
    found: dict[tuple[str, str, str], FoundRecord] = {}
    begun: dict[tuple[str, str, str], FoundRecord] = {}
    problems: list[str] = []
    for place in places:
        # MLflow's copies of records lie three folders below the runs too, and outlive a run that is removed.
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
    """What an unfinished run is, from the state that it keeps; None for any other folder."""
    try:
        identity = json.loads((folder / "state.json").read_text(encoding="utf-8"))["identity"]
        model, protocol, seed = identity["card"]["name"], identity["protocol"], identity["seed"]
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None
    if not (isinstance(model, str) and isinstance(protocol, str) and isinstance(seed, int)):
        return None
    return Begun(model, folder.parent.parent.name, protocol, seed, folder.name)


def boards_of(found: Sequence[FoundRecord], records_folder: Path | None = None) -> list[Board]:
    """A board for each dataset that the records name, in the order of names."""
    return [board(found, dataset, records_folder) for dataset in sorted({record.dataset for _, record in found})]


def show(
    name: str | None,
    runs_folder: str | Path,
    boards: str | Path = "leaderboards",
    *,
    latex: Latex | None = None,
    width: int | None = None,
) -> str:
    """The tables of dataset `name` (None: of all) for a terminal, or as LaTeX: committed records and one's own runs together.

    `width`: characters in a line of the terminal; None: all columns.
    """
    unreadable: list[str] = []
    chosen = _chosen(name, runs_folder, boards, unreadable)
    if latex is None:
        shown, sign = "\n\n\n".join(terminal(one, width) for one in chosen), ""
    else:
        tables = [table for b in chosen for table in board_tables(b, latex.columns, intervals=latex.intervals)]
        shown, sign = document(tables) if latex.standalone else "\n\n".join(tables) + "\n", "% "
    # Records that cannot be read, below. A line of an error is a line of the output, so each gets the sign.
    lines = [f"{len(unreadable)} records cannot be read and are left out:", *unreadable] if unreadable else []
    told = [f"{sign}{part}" for line in lines for part in line.splitlines()]
    return "\n\n\n".join([shown, *(["\n".join(told)] if told else [])])


def suite_matrix(
    suite: Suite, runs_folder: str | Path, boards: str | Path = "leaderboards", figures: Sequence[str] = ()
) -> tuple[Matrix, list[str]]:
    """Models by the datasets of a suite, from committed records and one's own runs; and a line on each unreadable record.

    Raises UsageError where no dataset of the suite has a record of its protocol.
    """
    unreadable: list[str] = []
    found = collect([Path(boards) / RECORDS, runs_folder], unfinished=True, unreadable=unreadable)
    wanted = [(entry.name, entry.protocol) for entry in suite.datasets]
    shown = build_matrix(suite.card.name, suite.card.title, wanted, found, figures or DEFAULT)
    if not shown.columns:
        protocols = sorted({f"{record.dataset} ({record.protocol})" for _, record in found})
        there = f"there are records of {listed(protocols)}" if protocols else "there are no records at all"
        named = listed([f"{dataset} ({protocol})" for dataset, protocol in wanted])
        hint = f"no records of {named} under {runs_folder} or {Path(boards) / RECORDS}; {there}"
        raise UsageError("\n".join([*unreadable, f"{hint}; make some: harness run psnr ssim --suite {suite.card.name}"]))
    return shown, unreadable


def numbers(name: str | None, runs_folder: str | Path, boards: str | Path = "leaderboards") -> list[dict[str, object]]:
    """The rows that `show` shows as plain values with all digits, for JSON."""
    return [cells(row) for b in _chosen(name, runs_folder, boards) for group in b.groups for row in group.rows]


def _chosen(name: str | None, runs_folder: str | Path, boards: str | Path, unreadable: list[str] | None = None) -> list[Board]:
    """The boards of dataset `name`, or all; records that cannot be read are left out, a line on each in `unreadable`."""
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
    """Copy finished records (record.json and scores.csv) under `boards`; returns their folders there. `write` then builds.

    A committed record that differs from an added one in the version of the model's class alone, an older one, gives way to it.
    Links are not followed, and what is copied is what was parsed. Raises UsageError, before anything is copied, for folders
    without a finished record and for records that contradict themselves or their scores.
    """
    found: list[tuple[Record, dict[str, bytes]]] = []
    problems = []
    for folder in map(Path, folders):
        if not (folder / "record.json").exists():
            problems.append(f"{folder}: no finished record there (it needs a record.json)")
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
            raise UsageError(f"{outside[0]}: a link; records are kept in folders under {records}")
        for name in KEPT:
            with atomic(place / name) as stream:
                stream.write(files[name])
        for older in sorted(path for path in place.parent.iterdir() if path.is_dir() and not path.is_symlink()):
            if older != place and _is_older(older, record):
                shutil.rmtree(older)
        places.append(place)
    return places


def _is_older(folder: Path, record: Record) -> bool:
    """Whether the record in `folder` is what an older version of the same class gave to the same request."""
    other = read_record(folder)
    now, before = record.identity, other.identity if other is not None else {}
    newer, older = ((entry.get("code") or {}).get("version") for entry in (now, before))
    same = all(before.get(name) == value for name, value in now.items() if name != "code")
    return isinstance(newer, int) and isinstance(older, int) and older < newer and same


def write(boards: str | Path = "leaderboards") -> list[Path]:
    """Build every table and the page under `boards` from the records there; returns what was written."""
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
    """The page over committed records and one's own runs (of dataset `name`), in a folder of one's choice; returns the file.

    Without a folder: the page of the committed records, all of them, next to them, as `write` makes it; where there are none
    (of `name`), one's own runs' page in their folder.
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
    """What is wrong under `boards`, a line each: tables that differ from what the records give, records that contradict
    themselves, their scores or their place. Empty when all is well."""
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
            problems.append(f"{path}: differs from what the records give; `harness leaderboard write` writes it again")
    return problems + [f"{path}: no record is behind it any more" for path in _left_over(root, wanted)]


def contradictions(folder: Path, record: Record) -> list[str]:
    """Where a record disagrees with itself, its scores.csv or its place; what needs the labels is `harness verify`'s."""
    place = folder_of("", record.dataset, record.model, record.key)
    problems = [] if folder.parts[-3:] == place.parts else [f"belongs under {place.as_posix()}"]
    return problems + _own_contradictions(record, ScoreFile(folder).read())


def _own_contradictions(record: Record, rows: Sequence[tuple[str, float, str]]) -> list[str]:
    """Where a record disagrees with itself or with its scores."""
    problems = []
    if (key := key_of(record.identity)) != record.key:
        problems.append(f"its key is {record.key}, its identity gives {key}")
    if record.hashes.scores != sha256_json([[n, repr(s), p] for n, s, p in rows]):
        problems.append("scores.csv is not the one that was measured")
    measured: list[tuple[str, Figures | None]] = list(record.metrics.items())
    if isinstance(record, RepeatsRecord):
        measured = [(f"test@{repeat.repeat}", repeat) for repeat in record.repeats]
    counts = Counter(part for _, _, part in rows)
    for part, figures in measured:
        if not figures:
            continue
        if figures.n is not None and figures.n > counts[part]:
            problems.append(f"measured on {figures.n} {part} pairs, scores.csv has {counts[part]}")
        srcc, plcc, main = figures.srcc, figures.plcc, figures.main
        if srcc is not None and plcc is not None and main is not None and abs(main - srcc - plcc) > 1e-12:
            problems.append(f"{part}: main {main!r} is not plcc + srcc = {plcc + srcc!r}")
    return problems


def _files(root: Path) -> dict[Path, str]:
    """Every generated file under `root` with its content."""
    boards = boards_of(collect([root / RECORDS]), root / RECORDS)
    files: dict[Path, str] = {}
    for b in boards:
        stem = folder_of("", b.dataset, "", "").parts[0]
        files |= {root / f"{stem}.md": markdown(b), root / f"{stem}.csv": csv(b)}
    return files | ({root / PAGE: page(boards, RECORDS)} if boards else {})


def _left_over(root: Path, wanted: Iterable[Path]) -> list[Path]:
    """Tables of our own making that no record is behind any more."""
    tables = [path for path in without_leftovers(sorted(root.glob("*.md"))) if GENERATED in path.read_text(encoding="utf-8")]
    return [path for table in tables for path in (table, table.with_suffix(".csv")) if path not in wanted and path.is_file()]
