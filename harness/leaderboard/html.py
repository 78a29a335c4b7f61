"""All boards on one page that works from a file, without a network and, but for sorting and filtering, without scripts."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from harness.leaderboard.board import Board, Group, Reported, Row
from harness.leaderboard.formats import GENERATED, against_best, best_explained, seeds, speed
from harness.results.html import render
from harness.results.marks import LEGEND, sentences
from harness.results.tables import figure, number

_WIDTH = 120
"""Of a drawn interval, in the page's pixels."""
_FIGURES = (
    ("plcc", "PLCC"),
    ("plcc_fitted", "PLCC fitted"),
    ("krcc", "KRCC"),
    ("rmse", "RMSE"),
    ("srcc_within", "Within refs"),
    ("main", "Main"),
)


@dataclass(frozen=True)
class Scale:
    """The range of correlations that a table's drawn intervals share."""

    low: float
    high: float

    def at(self, value: float) -> float:
        """Where `value` is drawn, from 0 to the drawing's width."""
        inside = (min(max(value, self.low), self.high) - self.low) / (self.high - self.low)
        return round(4 + inside * (_WIDTH - 8), 1)


def page(boards: Sequence[Board], records: str) -> str:
    """The page's HTML; `records` is the path from it to the folder of records."""
    used = {mark for b in boards for mark in b.marks}
    return render(
        "leaderboard.html",
        boards=[_board(b, records) for b in boards],
        legend={mark: text for mark, text in LEGEND.items() if mark in used},
        generated=GENERATED.replace("`", ""),
        rows=sum(len(group.rows) for b in boards for group in b.groups),
    )


def _board(b: Board, records: str) -> dict[str, Any]:
    return {
        "dataset": b.dataset,
        "id": _anchor("dataset", b.dataset),
        "title": b.title,
        "note": sentences(b.note),
        "label": b.label,
        "groups": [_group(group, b.reported, records) for group in b.groups],
        "reported": [_reported(entry) for entry in b.reported],
    }


def _anchor(*words: str) -> str:
    """An id that no word of the page's own has, and that lists of ids (separated by spaces) can hold."""
    return "--".join(re.sub(r"[^\w.-]", "_", word) for word in words)


def _group(group: Group, reported: Sequence[Reported], records: str) -> dict[str, Any]:
    scale = scale_of(group.rows)
    mine: dict[str, list[Reported]] = {}
    for entry in reported:
        if entry.protocol in ("", group.protocol):
            mine.setdefault(entry.name, []).append(entry)
    behind = {key for row in group.rows for key in row.members}
    return {
        "protocol": group.protocol,
        "id": _anchor(group.dataset, group.protocol),
        "text": sentences(group.description, group.note),
        "confidence": f"{group.confidence:.0%}",
        "scale": (number(scale.low, 1), number(scale.high, 1)),
        "width": _WIDTH,
        "ends": _ends_head(group),
        "whole": any(row.whole.get("srcc") is not None for row in group.rows),
        "figures": (*((("score_2afc", "2AFC"),) if group.headline == "score_2afc" else ()), *_FIGURES),
        "headline": group.headline,
        "compared": best_explained(group) if any(row.best for row in group.rows) else "",
        "has_reported": bool(mine),
        "rows": [
            _row(row, group, scale, mine.get(row.name, ()) if row.key not in behind else (), behind, records)
            for row in group.rows
        ],
    }


def _ends_head(group: Group) -> str:
    """What the ends next to SRCC are, where all rows have ends of one kind; else each row says it."""
    ranges = any("srcc" in row.spread for row in group.rows)
    intervals = any(row.ci.get("srcc") for row in group.rows if "srcc" not in row.spread)
    return "" if ranges and intervals else "range" if ranges else f"{group.confidence:.0%} interval"


def scale_of(rows: Sequence[Row]) -> Scale:
    """A range in tenths that holds every SRCC and interval of the rows, at least two tenths wide."""
    ends = [
        v
        for row in rows
        for v in (row.figures.get("srcc"), *(row.ci.get("srcc") or ()), *row.spread.get("srcc", ()))
        if v is not None
    ]
    low = math.floor(10 * min(ends, default=0.0)) / 10
    high = math.ceil(10 * max(ends, default=1.0)) / 10
    return Scale(min(low, high - 0.2), high)


def _row(row: Row, group: Group, scale: Scale, reported: Sequence[Reported], behind: set[str], records: str) -> dict[str, Any]:
    srcc = row.figures.get("srcc")
    interval = row.spread.get("srcc") or row.ci.get("srcc")
    in_group = group.headline in row.best
    figures = (*(("score_2afc",) if group.headline == "score_2afc" else ()), *(name for name, _ in _FIGURES))
    words = (
        row.name,
        row.title,
        *row.settings,
        *row.marks,
        *(("best group",) if in_group else ()),
        row.protocol,
        row.dataset,
        row.key,
    )
    return {
        "kind": row.kind,
        "member": bool(row.key) and row.key in behind,
        "ranked": row.ranked,
        "rank": row.rank,
        "name": row.name,
        "title": row.title,
        "settings": ", ".join(row.settings),
        "srcc": srcc,
        "shown": number(srcc),
        "interval": interval and f"{number(interval[0])} to {number(interval[1])}",
        "spread": _ends_word(row, group),
        "whole": number(row.whole.get("srcc")),
        "whole_value": row.whole.get("srcc"),
        "whole_interval": (ends := row.whole_ci.get("srcc")) and f"{number(ends[0])} to {number(ends[1])}",
        "drawn": None
        if srcc is None
        else (scale.at(srcc), *((scale.at(interval[0]), scale.at(interval[1])) if interval else ())),
        "figures": [(row.figures.get(name), figure(name, row.figures.get(name)), name in row.best) for name in figures],
        "srcc_best": "srcc" in row.best,
        "best": in_group,
        "against_best": against_best(row, group),
        "p_best": 1.0 if in_group and row.p_best is None else row.p_best,
        "n": row.n,
        "references": row.references,
        "speed": row.pairs_per_second,
        "speed_shown": speed(row.pairs_per_second),
        "device": row.device,
        "seeds": seeds(row),
        "marks": row.marks,
        "reported": [_reported(entry) for entry in reported],
        "reported_first": [next((v for e in reported if (v := e.figures.get(f)) is not None), "") for f in ("srcc", "plcc")],
        "trained_on": ", ".join(row.trained_on),
        "key": row.key,
        "link": f"{records}/{quote(row.folder)}/record.json" if row.folder else "",
        "command": row.command,
        "words": " ".join(words).lower(),
    }


def _ends_word(row: Row, group: Group) -> str:
    if "srcc" in row.spread:
        return "seeds " if row.kind == "seeds" else "splits "
    return "" if _ends_head(group) else f"{group.confidence:.0%} "


def _reported(entry: Reported) -> dict[str, Any]:
    shown = {name: number(entry.figures.get(name), 4) for name in ("srcc", "plcc", "krcc", "main")}
    return {
        **shown,
        "name": entry.name,
        "variant": entry.variant,
        "protocol": entry.protocol,
        "kind": entry.plcc_kind if shown["plcc"] else "",
        "source": entry.source,
        "status": entry.status,
        "note": entry.note,
    }
