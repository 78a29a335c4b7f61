"""A challenge's board: what teams reported, and next to it one's own submissions as scored here.

Every zip that is made, or scored with labels, leaves one file `<runs>/submissions/<challenge>/<phase>-<sha256>.json`.
"""

from __future__ import annotations

import datetime
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.cards.loading import find_challenge, load_cards
from harness.files.atomic import write_json
from harness.files.leftovers import without_leftovers
from harness.files.regular import require_regular
from harness.results.tables import number, with_interval
from harness.runtime.columns import text_table
from harness.runtime.errors import UsageError

if TYPE_CHECKING:
    from harness.challenges.score import Scored
    from harness.challenges.submit import Submission

FOLDER = "submissions"
FORMAT = 1
_NOTE = (
    "Reported: what the challenge published, computed by its server. Measured: scored here, with the labels that were given. "
    "The two are comparable only where those labels are the server's."
)


def entry_of(made: Submission) -> dict[str, Any]:
    """What is kept of a zip that was made."""
    return {
        "challenge": made.card.name,
        "phase": made.phase,
        "sha256": made.sha256,
        "file": made.file.name,
        "model": made.record.model,
        "key": made.record.key,
        "images": made.images,
        "size": made.size,
        **({"rehearsal": True} if made.rehearsal else {}),
    }


def scored_entry(scored: Scored, name: str | None = None) -> dict[str, Any]:
    """What is kept of a zip that was scored; `name` is what to call one that was made elsewhere."""
    report = scored.report
    known = {"name": name} if name else {}
    figures = {**scored.whole.json(), "classes": {kind: f.json() for kind, f in scored.classes.items()}}
    return known | {
        "challenge": report.card.name,
        "phase": report.phase,
        "sha256": report.sha256,
        "file": Path(report.file).name,
        "images": len(report.scores),
        "size": report.size,
        "labels_sha256": scored.labels_sha256,
        "scored": figures,
    }


def remember(runs: str | Path, entry: Mapping[str, Any]) -> Path:
    """Keep an entry, joined with what is known of the same zip; returns its file."""
    path = Path(runs) / FOLDER / str(entry["challenge"]) / f"{entry['phase']}-{entry['sha256'][:16]}.json"
    before: dict[str, Any] = {}
    if path.is_file():
        before = _read(path)
    now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    write_json(path, {"format": FORMAT, "created": now, **before, **entry})
    return path


def entries(runs: str | Path, challenge: str) -> list[dict[str, Any]]:
    """Everything that is kept of a challenge's submissions, in the order of their files' names."""
    return [_read(path) for path in without_leftovers(sorted((Path(runs) / FOLDER / challenge).glob("*.json")))]


def _read(path: Path) -> dict[str, Any]:
    try:
        require_regular(path)
        entry = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UsageError(f"{path}: not a readable submission entry ({error}); move it away") from None
    if not isinstance(entry, dict) or entry.get("format") != FORMAT:
        raise UsageError(f"{path}: not a submission entry that this version reads; move it away")
    return entry


def is_challenge(name: str | None, cards: Sequence[str] = ()) -> bool:
    """Whether `name` is a challenge, whose board `show` shows."""
    return name is not None and name in load_cards("challenges", cards)


def numbers(name: str, runs: str | Path, cards: Sequence[str] = ()) -> list[dict[str, Any]]:
    """The board's rows, for JSON: reported and measured figures under separate keys; what does not exist is null.

    Phases in the card's order, best main score first in each; a row without one is placed by SRCC + PLCC, then last.
    """
    card = find_challenge(name, cards)
    rows = [
        {
            "challenge": card.name,
            "phase": entry.phase,
            "name": entry.team,
            "reported": {"main": entry.main, "srcc": entry.srcc, "plcc": entry.plcc},
            "measured": None,
            "source": entry.source,
            "status": entry.status,
            "note": entry.note,
        }
        for entry in card.board
    ]
    for entry in entries(runs, card.name):
        scored = entry.get("scored")
        rows.append(
            {
                "challenge": card.name,
                "phase": entry["phase"],
                "name": entry.get("name") or entry.get("model") or Path(entry["file"]).stem,
                "reported": None,
                "measured": {k: scored[k] for k in ("main", "srcc", "plcc", "n", "ci")} if scored else None,
                "source": f"sha256 {entry['sha256'][:16]}" + (f", run {entry['key']}" if entry.get("key") else ""),
                "status": f"labels {entry['labels_sha256'][:8]}"
                if scored
                else "rehearsal"
                if entry.get("rehearsal")
                else "not scored here",
                "note": (scored or {}).get("note", ""),
            }
        )
    phases = list(dict.fromkeys([*card.phases, *(row["phase"] for row in rows)]))
    return sorted(rows, key=lambda row: (phases.index(row["phase"]), *_height(row)))


def _unscored(entry: Mapping[str, Any]) -> str:
    return "rehearsal" if entry.get("rehearsal") else "not scored here"


def _height(row: Mapping[str, Any]) -> tuple[bool, float, str]:
    figures = row["reported"] or row["measured"] or {}
    main, srcc, plcc = (figures.get(k) for k in ("main", "srcc", "plcc"))
    height = main if main is not None else srcc + plcc if srcc is not None and plcc is not None else None
    return height is None, -(height or 0.0), row["name"]


_DROPS = ("status", "n", "source", "PLCC measured", "SRCC measured", "SRCC reported", "PLCC reported", "main measured")
"""Columns that are left out of a narrow terminal, the first one first."""


def show(name: str, runs: str | Path, cards: Sequence[str] = (), width: int | None = None) -> str:
    """The board for a terminal, a table for each phase that has rows.

    `width`: characters in a line of the terminal; None: all columns.
    """
    card = find_challenge(name, cards)
    rows = numbers(name, runs, cards)
    parts = [f"{card.name}: {card.title}"]
    figures = [f"{figure} {kind}" for kind in ("reported", "measured") for figure in ("main", "PLCC", "SRCC")]
    headers, align = ("name", *figures, "n", "source", "status"), ("left", *["right"] * 7, "left", "left")
    for phase in dict.fromkeys(row["phase"] for row in rows):
        table = [_line(row) for row in rows if row["phase"] == phase]
        text = text_table(headers, table, align, width=width, drops=_DROPS, shortens=("name", "source")).text
        parts.append(f"phase {phase}\n\n{text}")
    if not any(row["measured"] for row in rows):
        parts.append("Nothing of your own was scored yet: harness submission score FILE.zip --labels FILE")
    return "\n\n".join([*parts, _NOTE])


def _line(row: Mapping[str, Any]) -> list[str]:
    reported, measured = row["reported"] or {}, row["measured"] or {}
    ci = measured.get("ci") or {}
    return [
        row["name"],
        *(number(reported.get(k), 4 if reported.get("main") is None else 3) for k in ("main", "plcc", "srcc")),
        with_interval(measured.get("main"), ci.get("main")),
        *(number(measured.get(k)) for k in ("plcc", "srcc")),
        str(measured.get("n", "")),
        row["source"],
        row["status"],
    ]
