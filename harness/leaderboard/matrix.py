"""Many datasets in one table: models by the datasets of a suite, with groups of the best, ranks and means.

A mean is taken over the datasets that have a column, for a model that can be compared with the others on every one of them: a
blank is never averaged, and neither is a figure that its own board does not rank.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from harness.files.atomic import sha256_json
from harness.leaderboard.best_group import too_few_references
from harness.leaderboard.board import Begun, Group, Row
from harness.leaderboard.formats import over_splits, row_name
from harness.leaderboard.rows import board
from harness.results.marks import LEGEND, NOT_COMPARED
from harness.results.record import Record

FIGURES = ("srcc", "plcc", "plcc_fitted", "krcc", "main", "srcc_within")
"""What a matrix can show: figures of which more is better, on one scale for all datasets."""
DEFAULT = ("srcc", "plcc")


@dataclass(frozen=True)
class Column:
    """One dataset of a matrix."""

    dataset: str
    title: str
    protocol: str
    n: float | None
    """Images behind the figures of the rows that are ranked; what a weighted mean weighs by."""
    references: int | None
    confidence: float
    compared: bool
    """Whether groups of the best are marked."""
    too_few: bool
    """Whether there are too few references for a group of the best."""
    over_splits: bool = False
    """Whether the group of the best is found over several splits."""


@dataclass(frozen=True)
class MatrixRow:
    """One model. A blank is None everywhere."""

    name: str
    cells: tuple[Row | None, ...]
    """The model's row on each dataset's own board, in the order of the columns."""
    complete: bool
    """Whether every cell is ranked on its board and has all figures of the matrix."""
    mean: Mapping[str, float] = field(default_factory=dict)
    """Over the columns, each counted once; of complete rows only."""
    weighted: Mapping[str, float] = field(default_factory=dict)
    """Over the columns, weighted by their images; of complete rows only."""
    mean_rank: Mapping[str, float] = field(default_factory=dict)
    """Over the columns, among the complete rows; equal figures share the mean of their ranks."""


@dataclass(frozen=True)
class Matrix:
    """Models by datasets."""

    name: str
    title: str
    figures: tuple[str, ...]
    columns: tuple[Column, ...]
    rows: tuple[MatrixRow, ...]
    absent: tuple[str, ...]
    """Datasets of the suite without a record."""
    notes: tuple[str, ...] = ()

    @property
    def marks(self) -> dict[str, str]:
        """The marks that occur, each with its letter."""
        used = {mark for row in self.rows for cell in row.cells if cell for mark in cell.marks if mark != NOT_COMPARED}
        return {mark: chr(ord("a") + i) for i, mark in enumerate(mark for mark in LEGEND if mark in used)}


def build_matrix(
    name: str,
    title: str,
    wanted: Sequence[tuple[str, str]],
    found: Sequence[tuple[Path | None, Record | Begun]],
    figures: Sequence[str] = DEFAULT,
) -> Matrix:
    """The matrix of a suite from records.

    Args:
        name: the suite's name.
        title: its title.
        wanted: (dataset, protocol) of each column, in order.
        found: records with their folders, in any order and of any dataset.
        figures: some of `FIGURES`.

    Returns:
        A column for each dataset that has a measured row; complete rows first, by mean rank in the first figure.
    """
    figures = tuple(figures)
    records = {record.key: record for _, record in found if isinstance(record, Record)}
    groups: dict[str, Group] = {}
    for dataset, protocol in wanted:
        mine = [entry for entry in found if entry[1].dataset == dataset and entry[1].protocol == protocol]
        group = next(iter(board(mine, dataset).groups), None) if mine else None
        if group is not None and any(_shown(row, group, records) for row in group.rows):
            groups[dataset] = group
    columns = tuple(_column(group, _title(records, dataset)) for dataset, group in groups.items())
    models: dict[str, list[Row | None]] = {}
    more = 0
    for i, group in enumerate(groups.values()):
        for identity, rows in _by_model(group, records).items():
            models.setdefault(identity, [None] * len(columns))[i] = rows[0]
            more += len(rows) - 1
    shown = [_row(tuple(cells), figures) for cells in models.values()]
    shown = _summed(_told_apart(shown, list(models)), columns, figures)
    notes = (
        [f"{more} further records of a model and dataset of this table (older ones, other seeds) are not shown"] if more else []
    )
    return Matrix(
        name=name,
        title=title,
        figures=figures,
        columns=columns,
        rows=tuple(sorted(shown, key=lambda row: _place(row, figures[0]))),
        absent=tuple(dataset for dataset, _ in wanted if dataset not in groups),
        notes=tuple(notes),
    )


def _title(records: Mapping[str, Record], dataset: str) -> str:
    return next((record.cards.dataset.title for record in records.values() if record.dataset == dataset), dataset)


def _shown(row: Row, group: Group, records: Mapping[str, Record]) -> bool:
    """Whether a board's row is a model's own: no control, no unfinished run, none of several seeds behind a mean."""
    behind = {key for other in group.rows for key in other.members}
    return row.kind != "control" and row.key not in behind and (row.key in records or row.kind == "seeds")


def _by_model(group: Group, records: Mapping[str, Record]) -> dict[str, list[Row]]:
    """The rows of each model, the one to show first: a mean over seeds, else a ranked one, else the newest."""
    found: dict[str, list[Row]] = {}
    for row in group.rows:
        if _shown(row, group, records):
            found.setdefault(_identity(records[row.members[0] if row.members else row.key]), []).append(row)
    for rows in found.values():
        rows.sort(key=lambda row: (row.kind == "seeds", row.ranked, row.created, row.key), reverse=True)
    return found


def _identity(record: Record) -> str:
    """What a model is on every dataset: its card, code and weights; of scores from a file, the name that they were given."""
    facts = record.first_identity
    if record.request.get("scores"):
        return sha256_json(["scores", record.model, record.higher_is_better])
    return sha256_json([facts.get("card"), facts.get("code"), facts.get("weights")])


def _column(group: Group, title: str) -> Column:
    ranked = [row for row in group.rows if row.ranked]
    about = next((row for row in ranked or group.rows if row.kind != "control" and row.n is not None), None)
    return Column(
        dataset=group.dataset,
        title=title,
        protocol=group.protocol,
        n=about.n if about else None,
        references=about.references if about else None,
        confidence=group.confidence,
        compared=any(row.best for row in group.rows),
        too_few=too_few_references(group.rows),
        over_splits=over_splits(group.rows),
    )


def _row(cells: tuple[Row | None, ...], figures: Sequence[str]) -> MatrixRow:
    name = next(row_name(cell) for cell in cells if cell)
    complete = all(cell is not None and cell.ranked and None not in map(cell.figures.get, figures) for cell in cells)
    return MatrixRow(name, cells, complete)


def _told_apart(rows: Sequence[MatrixRow], identities: Sequence[str]) -> list[MatrixRow]:
    """Rows of one name that are not one model (another version, other weights) with a part of what tells them apart."""
    names = [row.name for row in rows]
    return [
        replace(row, name=f"{row.name} #{identity[:6]}") if names.count(row.name) > 1 else row
        for row, identity in zip(rows, identities, strict=True)
    ]


def _summed(rows: Sequence[MatrixRow], columns: Sequence[Column], figures: Sequence[str]) -> list[MatrixRow]:
    """The rows with means and mean ranks on the complete ones."""
    complete = [i for i, row in enumerate(rows) if row.complete]
    values = {f: [[_value(rows[i], c, f) for i in complete] for c in range(len(columns))] for f in figures}
    ranks = {f: [midranks(column) for column in values[f]] for f in figures}
    weights = [column.n for column in columns]
    summed = list(rows)
    for place, i in enumerate(complete):
        mine = {f: [column[place] for column in values[f]] for f in figures}
        known = [w for w in weights if w]
        whole = len(known) == len(columns)
        summed[i] = replace(
            rows[i],
            mean={f: sum(v) / len(v) for f, v in mine.items()},
            weighted={f: sum(a * w for a, w in zip(v, known, strict=True)) / sum(known) for f, v in mine.items()}
            if whole
            else {},
            mean_rank={f: sum(column[place] for column in ranks[f]) / len(columns) for f in figures},
        )
    return summed


def _value(row: MatrixRow, column: int, figure: str) -> float:
    cell = row.cells[column]
    value = cell.figures[figure] if cell else None
    assert value is not None, "a complete row has no blank"
    return value


def midranks(values: Sequence[float]) -> list[float]:
    """Ranks from 1 for the largest value; equal values share the mean of their ranks."""
    return [1 + sum(other > value for other in values) + (sum(other == value for other in values) - 1) / 2 for value in values]


def _place(row: MatrixRow, figure: str) -> tuple[bool, float, float, str]:
    return (not row.complete, row.mean_rank.get(figure, 0.0), -row.mean.get(figure, 0.0), row.name)


def facts(shown: Matrix) -> dict[str, Any]:
    """The matrix as plain values with all digits, for JSON; a figure that does not exist is None."""
    return {
        "suite": shown.name,
        "title": shown.title,
        "datasets": [{"dataset": c.dataset, "protocol": c.protocol, "n": c.n, "references": c.references} for c in shown.columns],
        "absent": list(shown.absent),
        "notes": list(shown.notes),
        "rows": [
            {
                "model": row.name,
                "complete": row.complete,
                "mean": dict(row.mean) or None,
                "weighted_mean": dict(row.weighted) or None,
                "mean_rank": dict(row.mean_rank) or None,
                "figures": {c.dataset: _cell(cell, shown) for c, cell in zip(shown.columns, row.cells, strict=True)},
            }
            for row in shown.rows
        ],
    }


def _cell(cell: Row | None, shown: Matrix) -> dict[str, Any] | None:
    if cell is None:
        return None
    return {
        **{f: cell.figures.get(f) for f in shown.figures},
        "ci": {f: list(ci) for f in shown.figures if (ci := cell.ci.get(f))},
        "range": {f: list(cell.spread[f]) for f in shown.figures if f in cell.spread},
        "best": [f for f in shown.figures if f in cell.best],
        "ranked": cell.ranked,
        "marks": list(cell.marks),
        "n": cell.n,
        "key": cell.key or None,
    }
