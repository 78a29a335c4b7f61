"""A challenge's leaderboard: the published results of all teams next to the user's own submissions, scored locally.

Every zip that is made, or scored with labels, leaves one file `<runs>/submissions/<challenge>/<phase>-<sha256>.json`.
"""

from __future__ import annotations

import datetime
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from harness.cards.loading import find_challenge, load_cards
from harness.files.atomic import write_json
from harness.files.leftovers import without_leftovers
from harness.files.regular import require_regular
from harness.results.tables import number, with_interval
from harness.runtime.errors import UsageError
from harness.runtime.terminal_columns import text_table

if TYPE_CHECKING:
    from harness.challenges.score import Scored
    from harness.challenges.submit import Submission

FOLDER = "submissions"
FORMAT = 1
_NOTE = (
    "Reported: published by the challenge, computed by its server. Measured: scored here, with the given labels. "
    "The two are comparable only where the given labels are the server's."
)


def entry_of(made: Submission) -> dict[str, object]:
    """The entry for a zip that was made."""
    record = made.record
    known = {"challenge": made.card.name, "phase": made.phase, "sha256": made.sha256, "file": made.file.name}
    about = {"model": record.model, "key": record.key, "images": made.images, "size": made.size}
    return {**known, **about, **({"rehearsal": True} if made.rehearsal else {})}


def scored_entry(scored: Scored, name: str | None = None) -> dict[str, object]:
    """The entry for a zip that was scored; `name` is shown for one that was made elsewhere."""
    report = scored.report
    return {
        **({"name": name} if name else {}),
        "challenge": report.card.name,
        "phase": report.phase,
        "sha256": report.sha256,
        "file": Path(report.file).name,
        "images": len(report.scores),
        "size": report.size,
        "labels_sha256": scored.labels_sha256,
        "scored": {**scored.whole.json(), "classes": {kind: f.json() for kind, f in scored.classes.items()}},
    }


def remember(runs: str | Path, entry: Mapping[str, Any]) -> Path:
    """Save an entry, merged with an earlier one of the same zip; returns its file."""
    path = Path(runs) / FOLDER / str(entry["challenge"]) / f"{entry['phase']}-{entry['sha256'][:16]}.json"
    before = _read(path) if path.is_file() else {}
    now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    write_json(path, {"format": FORMAT, "created": now, **before, **entry})
    return path


def entries(runs: str | Path, challenge: str) -> list[Mapping[str, Any]]:
    """All saved entries of a challenge's submissions, in the order of their files' names."""
    return [_read(path) for path in without_leftovers(sorted((Path(runs) / FOLDER / challenge).glob("*.json")))]


def _read(path: Path) -> Mapping[str, Any]:
    try:
        require_regular(path)
        entry = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UsageError(f"{path}: not a readable submission entry ({error}); move it away") from None
    if not isinstance(entry, dict) or entry.get("format") != FORMAT:
        raise UsageError(f"{path}: not a submission entry that this version reads; move it away")
    return entry


def is_challenge(name: str | None, cards: Sequence[str] = ()) -> bool:
    """Whether `name` is a challenge (then `show` shows its board)."""
    return name is not None and name in load_cards("challenges", cards)


class BoardRow(NamedTuple):
    """One line of a challenge's board."""

    challenge: str
    phase: str
    name: str
    reported: Mapping[str, float | None] | None
    """main, srcc, plcc published by the challenge."""
    measured: Mapping[str, Any] | None
    """main, srcc, plcc, n, ci scored here."""
    source: str
    status: str
    note: str


def rows_of(name: str, runs: str | Path, cards: Sequence[str] = ()) -> list[BoardRow]:
    """The board's rows: phases in the card's order, best main score first in each.

    A row without a main score is ordered by SRCC + PLCC, one without these is last.
    """
    card = find_challenge(name, cards)
    rows = []
    for one in card.board:
        reported = {"main": one.main, "srcc": one.srcc, "plcc": one.plcc}
        rows.append(BoardRow(card.name, one.phase, one.team, reported, None, one.source, one.status, one.note))
    for entry in entries(runs, card.name):
        scored = entry.get("scored") or {}
        called = entry.get("name") or entry.get("model") or Path(entry["file"]).stem
        measured = {k: scored[k] for k in ("main", "srcc", "plcc", "n", "ci")} if scored else None
        source = f"sha256 {entry['sha256'][:16]}" + (f", run {entry['key']}" if entry.get("key") else "")
        status = "rehearsal" if entry.get("rehearsal") else "not scored here"
        status = f"labels {entry['labels_sha256'][:8]}" if scored else status
        rows.append(BoardRow(card.name, entry["phase"], called, None, measured, source, status, scored.get("note", "")))
    phases = list(dict.fromkeys([*card.phases, *(row.phase for row in rows)]))

    def place(row: BoardRow) -> tuple[int, bool, float, str]:
        main, srcc, plcc = ((row.reported or row.measured or {}).get(k) for k in ("main", "srcc", "plcc"))
        height = main if main is not None else srcc + plcc if srcc is not None and plcc is not None else None
        return phases.index(row.phase), height is None, -(height or 0.0), row.name

    return sorted(rows, key=place)


def numbers(name: str, runs: str | Path, cards: Sequence[str] = ()) -> list[dict[str, object]]:
    """`rows_of` for JSON: reported and measured figures under separate keys; absent ones are null."""
    return [row._asdict() for row in rows_of(name, runs, cards)]


_DROPS = ("status", "n", "source", "PLCC measured", "SRCC measured", "SRCC reported", "PLCC reported", "main measured")
"""Columns that are left out of a narrow terminal, the first one first."""


def show(name: str, runs: str | Path, cards: Sequence[str] = (), width: int | None = None) -> str:
    """The board for a terminal, a table for each phase that has rows.

    `width`: characters in a line of the terminal; None: all columns.
    """
    card = find_challenge(name, cards)
    rows = rows_of(name, runs, cards)
    parts = [f"{card.name}: {card.title}"]
    figures = [f"{figure} {kind}" for kind in ("reported", "measured") for figure in ("main", "PLCC", "SRCC")]
    headers, align = ("name", *figures, "n", "source", "status"), ("left", *["right"] * 7, "left", "left")
    for phase in dict.fromkeys(row.phase for row in rows):
        table = []
        for row in (row for row in rows if row.phase == phase):
            reported, measured = row.reported or {}, row.measured or {}
            digits = 4 if reported.get("main") is None else 3
            line = [row.name, *(number(reported.get(k), digits) for k in ("main", "plcc", "srcc"))]
            line.append(with_interval(measured.get("main"), (measured.get("ci") or {}).get("main")))
            line += [*(number(measured.get(k)) for k in ("plcc", "srcc")), str(measured.get("n", "")), row.source, row.status]
            table.append(line)
        text = text_table(headers, table, align, width=width, drops=_DROPS, shortens=("name", "source")).text
        parts.append(f"phase {phase}\n\n{text}")
    if not any(row.measured for row in rows):
        parts.append("No submission of yours was scored yet: harness submission score FILE.zip --labels FILE")
    return "\n\n".join([*parts, _NOTE])
