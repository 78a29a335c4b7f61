"""A matrix of models by the datasets of a suite, with groups of the best, ranks and means.

A mean is over the datasets that have a column, for models that are ranked on every one of them: blanks and figures that their
boards do not rank are never averaged.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from harness.files.atomic import sha256_json
from harness.leaderboard.board_document import Begun, Group, Row
from harness.leaderboard.columns import row_name
from harness.leaderboard.formats import over_splits
from harness.leaderboard.row_groups import too_few_references
from harness.leaderboard.rows import board
from harness.results.marks import LEGEND, NOT_COMPARED
from harness.results.record import Record

FIGURES = ("srcc", "plcc", "plcc_fitted", "krcc", "main", "srcc_within")
"""The figures of a matrix: higher is better, with the same scale for all datasets."""
DEFAULT = ("srcc", "plcc")


@dataclass(frozen=True)
class Column:
    """One dataset of a matrix."""

    dataset: str
    title: str
    protocol: str
    n: float | None
    """The number of images of the ranked rows; the weight in a weighted mean."""
    references: int | None
    confidence: float
    compared: bool
    """Whether groups of the best are marked."""
    too_few: bool
    """Whether there are too few references for a group of the best."""
    over_splits: bool = False
    """Whether the group of the best is over several splits."""


@dataclass(frozen=True)
class MatrixRow:
    """One model. A blank is None everywhere."""

    name: str
    cells: tuple[Row | None, ...]
    """The model's row on each dataset's own board, in the order of the columns."""
    complete: bool
    """Whether every cell is ranked on its board and has all figures of the matrix."""
    mean: Mapping[str, float] = field(default_factory=dict)
    """Mean over the columns; of complete rows only."""
    weighted: Mapping[str, float] = field(default_factory=dict)
    """Mean over the columns, weighted by their images; of complete rows only."""
    mean_rank: Mapping[str, float] = field(default_factory=dict)
    """Mean rank over the columns, among the complete rows; ties share the mean of their ranks."""


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
        return letters_of([[m for m in cell.marks if m != NOT_COMPARED] for row in self.rows for cell in row.cells if cell])


def letters_of(marks: Sequence[Sequence[str]]) -> dict[str, str]:
    """A letter for each mark that occurs, in the legend's order."""
    used = {mark for each in marks for mark in each}
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
    titles = {record.dataset: record.cards.dataset.title for record in reversed(records.values())}
    columns, models, more = list[Column](), dict[str, list[Row | None]](), 0
    for i, group in enumerate(groups.values()):
        ranked = [row for row in group.rows if row.ranked]
        about = next((row for row in ranked or group.rows if row.kind != "control" and row.n is not None), None)
        columns.append(
            Column(
                dataset=group.dataset,
                title=titles.get(group.dataset, group.dataset),
                protocol=group.protocol,
                n=about.n if about else None,
                references=about.references if about else None,
                confidence=group.confidence,
                compared=any(row.best for row in group.rows),
                too_few=too_few_references(group.rows),
                over_splits=over_splits(group.rows),
            )
        )
        for identity, rows in _by_model(group, records).items():
            models.setdefault(identity, [None] * len(groups))[i] = rows[0]
            more += len(rows) - 1
    # Different models with the same name (another version, other weights) get a part of their identity's hash.
    named = [next(row_name(cell) for cell in cells if cell) for cells in models.values()]
    shown = []
    for plain, (identity, cells) in zip(named, models.items(), strict=True):
        complete = all(cell is not None and cell.ranked and None not in map(cell.figures.get, figures) for cell in cells)
        shown.append(MatrixRow(f"{plain} #{identity[:6]}" if named.count(plain) > 1 else plain, tuple(cells), complete))
    shown = _summed(shown, columns, figures)
    shown.sort(key=lambda row: (not row.complete, row.mean_rank.get(figures[0], 0.0), -row.mean.get(figures[0], 0.0), row.name))
    absent = tuple(dataset for dataset, _ in wanted if dataset not in groups)
    note = f"{more} further records of a model and dataset of this table (older ones, other seeds) are not shown"
    return Matrix(name, title, figures, tuple(columns), tuple(shown), absent, (note,) if more else ())


def _shown(row: Row, group: Group, records: Mapping[str, Record]) -> bool:
    """Whether a board's row is a model's main row: not a control, an unfinished run, or one of the seeds of a mean."""
    behind = {key for other in group.rows for key in other.members}
    return row.kind != "control" and row.key not in behind and (row.key in records or row.kind == "seeds")


def _by_model(group: Group, records: Mapping[str, Record]) -> dict[str, list[Row]]:
    """The rows of each model, the shown one first: a mean over seeds, else a ranked one, else the newest."""
    found: dict[str, list[Row]] = {}
    for row in group.rows:
        if _shown(row, group, records):
            found.setdefault(_identity(records[row.members[0] if row.members else row.key]), []).append(row)
    for rows in found.values():
        rows.sort(key=lambda row: (row.kind == "seeds", row.ranked, row.created, row.key), reverse=True)
    return found


def _identity(record: Record) -> str:
    """A model's identity on every dataset: its card, code and weights; for scores from a file, their name."""
    facts = record.first_identity
    if record.request.get("scores"):
        return sha256_json(["scores", record.model, record.higher_is_better])
    return sha256_json([facts.get("card"), facts.get("code"), facts.get("weights")])


def _summed(rows: Sequence[MatrixRow], columns: Sequence[Column], figures: Sequence[str]) -> list[MatrixRow]:
    """The rows with means and mean ranks on the complete ones."""
    complete = [i for i, row in enumerate(rows) if row.complete]
    cells = [[rows[i].cells[c] for i in complete] for c in range(len(columns))]
    # A complete row has no blank.
    values = {f: [[(cell and cell.figures[f]) or 0.0 for cell in column] for column in cells] for f in figures}
    ranks = {f: [midranks(column) for column in values[f]] for f in figures}
    known = [column.n for column in columns if column.n]
    summed = list(rows)
    for place, i in enumerate(complete):
        mine = {f: [column[place] for column in values[f]] for f in figures}
        weighed = mine if len(known) == len(columns) else {}
        summed[i] = replace(
            rows[i],
            mean={f: sum(v) / len(v) for f, v in mine.items()},
            weighted={f: sum(a * w for a, w in zip(v, known, strict=True)) / sum(known) for f, v in weighed.items()},
            mean_rank={f: sum(column[place] for column in ranks[f]) / len(columns) for f in figures},
        )
    return summed


def midranks(values: Sequence[float]) -> list[float]:
    """Ranks from 1 for the largest value; equal values share the mean of their ranks."""
    return [1 + sum(other > value for other in values) + (sum(other == value for other in values) - 1) / 2 for value in values]


def facts(shown: Matrix) -> dict[str, object]:
    """The matrix as plain values with all digits, for JSON; an absent figure is None."""
    rows = []
    for row in shown.rows:
        means = {"mean": row.mean, "weighted_mean": row.weighted, "mean_rank": row.mean_rank}
        cells = {
            column.dataset: cell
            and {
                **{f: cell.figures.get(f) for f in shown.figures},
                "ci": {f: list(ci) for f in shown.figures if (ci := cell.ci.get(f))},
                "range": {f: list(cell.spread[f]) for f in shown.figures if f in cell.spread},
                "best": [f for f in shown.figures if f in cell.best],
                "ranked": cell.ranked,
                "marks": list(cell.marks),
                "n": cell.n,
                "key": cell.key or None,
            }
            for column, cell in zip(shown.columns, row.cells, strict=True)
        }
        known = {name: dict(values) or None for name, values in means.items()}
        rows.append({"model": row.name, "complete": row.complete, **known, "figures": cells})
    datasets = [{"dataset": c.dataset, "protocol": c.protocol, "n": c.n, "references": c.references} for c in shown.columns]
    names = {"suite": shown.name, "title": shown.title}
    return {**names, "datasets": datasets, "absent": list(shown.absent), "notes": list(shown.notes), "rows": rows}
