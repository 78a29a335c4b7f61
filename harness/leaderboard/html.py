"""All boards as one HTML page that needs no network; scripts only sort and filter."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from urllib.parse import quote

from harness.leaderboard.board_document import Board, Group, Reported, Row
from harness.leaderboard.columns import against_best, seeds, speed
from harness.leaderboard.formats import GENERATED, best_explained
from harness.results.marks import LEGEND, sentences
from harness.results.tables import figure, number
from harness.results.templates import render

_WIDTH = 120
"""Width of a drawn interval, in the page's pixels."""
_FIGURES = {"plcc": "PLCC", "plcc_fitted": "PLCC fitted", "krcc": "KRCC", "rmse": "RMSE", "srcc_within": "Within refs"}
_FIGURES |= {"main": "Main"}


def page(boards: Sequence[Board], records: str) -> str:
    """The page's HTML; `records` is the path from it to the folder of records."""
    used = {mark for b in boards for mark in b.marks}
    return render(
        "leaderboard.html",
        boards=boards,
        table_of=lambda group, board: _Table(group, board.reported),
        legend={mark: text for mark, text in LEGEND.items() if mark in used},
        generated=GENERATED.replace("`", ""),
        rows=sum(len(group.rows) for b in boards for group in b.groups),
        width=_WIDTH,
        link=lambda row: f"{records}/{quote(row.folder)}/record.json",
        # An id that does not collide with the page's own ids and has no spaces.
        anchor=lambda *words: "--".join(re.sub(r"[^\w.-]", "_", word) for word in words),
        **{each.__name__: each for each in (against_best, best_explained, figure, number, seeds, sentences, speed)},
    )


class _Table:
    """A group's table: facts common to its rows, and values of a row computed for the page."""

    def __init__(self, group: Group, reported: Sequence[Reported]) -> None:
        rows = group.rows
        self.group = group
        self.figures = {**({"score_2afc": "2AFC"} if group.headline == "score_2afc" else {}), **_FIGURES}
        self.level = f"{group.confidence:.0%}"
        self.behind = {key for row in rows for key in row.members}
        self.whole = any(row.whole.get("srcc") is not None for row in rows)
        # Whether SRCC has intervals or ranges, where all rows have one kind; else each row names its kind.
        ranges = any("srcc" in row.spread for row in rows)
        intervals = any(row.ci.get("srcc") for row in rows if "srcc" not in row.spread)
        self.ends = "" if ranges and intervals else "range" if ranges else f"{self.level} interval"
        # The scale of drawn intervals: in tenths, it holds every SRCC and its ends, and is at least two tenths wide.
        known = [v for row in rows for v in (row.figures.get("srcc"), *(row.ci.get("srcc") or ()), *row.spread.get("srcc", ()))]
        drawn = [v for v in known if v is not None]
        self.high = math.ceil(10 * max(drawn, default=1.0)) / 10
        self.low = min(math.floor(10 * min(drawn, default=0.0)) / 10, self.high - 0.2)
        self.reported = [entry for entry in reported if entry.protocol in ("", group.protocol)]

    def reported_of(self, row: Row) -> list[Reported]:
        """The published figures of a row's model; empty for the records of a mean."""
        return [entry for entry in self.reported if entry.name == row.name and row.key not in self.behind]

    def ends_of(self, row: Row) -> str:
        """The interval or range of a row's SRCC, as text."""
        ends = row.spread.get("srcc") or row.ci.get("srcc")
        word = "" if self.ends else f"{self.level} "
        if "srcc" in row.spread:
            word = "seeds " if row.kind == "seeds" else "splits "
        return f"{word}{number(ends[0])} to {number(ends[1])}" if ends else ""

    def drawn(self, row: Row) -> list[float]:
        """The positions of a row's SRCC and its ends in the drawing, from 0 to its width; empty without an SRCC."""
        values = [row.figures.get("srcc"), *(row.spread.get("srcc") or row.ci.get("srcc") or ())]
        shares = [(min(max(v, self.low), self.high) - self.low) / (self.high - self.low) for v in values if v is not None]
        return [round(4 + share * (_WIDTH - 8), 1) for share in shares] if values[0] is not None else []

    def words(self, row: Row) -> str:
        """The text that the page's filter searches."""
        best = ["best group"] if self.group.headline in row.best else []
        return " ".join([row.name, row.title, *row.settings, *row.marks, *best, row.protocol, row.dataset, row.key]).lower()
