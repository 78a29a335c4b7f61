"""The columns of a leaderboard: names, order, cells, and the columns left out in a narrow terminal.

A new column needs an entry in `COLUMNS` and `cells` (CSV, JSON and the page) and one in `cells_of` (Markdown and the terminal).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

from harness.leaderboard.board_document import FIGURES, Group, Row
from harness.results.tables import number, probability
from harness.runtime import text as plain

COLUMNS = (
    *("dataset", "protocol", "rank", "kind", "model", "settings", "n", "references"),
    *("srcc", "srcc_low", "srcc_high", "plcc", "plcc_low", "plcc_high", "plcc_fitted", "krcc", "krcc_low", "krcc_high"),
    *("rmse", "main", "main_low", "main_high", "srcc_within", "score_2afc", "score_2afc_low", "score_2afc_high"),
    *("srcc_smallest", "srcc_largest", "plcc_smallest", "plcc_largest", "krcc_smallest", "krcc_largest"),
    *("main_smallest", "main_largest", "all_images_srcc", "all_images_srcc_low", "all_images_srcc_high", "all_images_plcc"),
    *("all_images_plcc_low", "all_images_plcc_high", "best", "p_best", "pairs_per_second", "device"),
    *("seeds", "repeats", "marks", "trained_on", "key", "record", "command"),
)
_FIGURES = {"plcc": "PLCC", "plcc_fitted": "PLCC fitted", "krcc": "KRCC", "main": "main", "srcc_within": "SRCC within refs"}
_LEFT_ALIGNED = ("model", "seeds", "marks", "record")
DROPS = (
    *("record", "pairs/s", "seeds", "SRCC within refs", "refs", "n", "PLCC fitted"),
    *("KRCC", "PLCC", "p", "2AFC", "marks", "main"),
)
"""Columns to leave out in a narrow terminal, in this order."""


def cells(row: Row) -> dict[str, object]:
    """The values of one row by column name; None for missing values."""
    values: dict[str, object] = {name: row.figures.get(name) for name in FIGURES}
    for name in ("srcc", "plcc", "krcc", "main", "score_2afc"):
        values[f"{name}_low"], values[f"{name}_high"] = row.ci.get(name) or (None, None)
    for name in ("srcc", "plcc", "krcc", "main"):
        values[f"{name}_smallest"], values[f"{name}_largest"] = row.spread.get(name) or (None, None)
    for name in ("srcc", "plcc"):
        values[f"all_images_{name}"] = row.whole.get(name)
        values[f"all_images_{name}_low"], values[f"all_images_{name}_high"] = row.whole_ci.get(name) or (None, None)
    values |= {name: getattr(row, name) for name in ("dataset", "protocol", "rank", "kind", "n", "references", "device", "key")}
    values |= {"model": row.name, "pairs_per_second": row.pairs_per_second, "repeats": row.repeats or None}
    values |= {name: list(getattr(row, name)) for name in ("settings", "seeds", "marks", "trained_on", "best")}
    values |= {"p_best": row.p_best, "record": f"records/{row.folder}" if row.folder else None, "command": row.command or None}
    return {name: values[name] for name in COLUMNS}


def csv_value(value: object) -> str:
    """A value as a CSV cell: numbers with all digits, empty for None."""
    if isinstance(value, list):
        return plain.csv_cell("; ".join(map(str, value)))
    return "" if value is None else repr(value) if isinstance(value, float) else plain.csv_cell(str(value))


def _srcc(group: Group, best: str) -> list[tuple[str, Callable[[Row], str]]]:
    """The columns about SRCC, with headers and cells; ranges and intervals have separate columns."""
    level = f"{group.confidence:.0%}"
    if not any("srcc" in row.spread for row in group.rows):
        return [(f"SRCC [{level}]", lambda row: _bracketed(_figure(row, "srcc", best), row.ci.get("srcc")))]
    columns: list[tuple[str, Callable[[Row], str]]] = [
        ("SRCC", lambda row: _figure(row, "srcc", best)),
        ("range", lambda row: " to ".join(map(number, row.spread["srcc"])) if "srcc" in row.spread else ""),
    ]
    if any(row.ci.get("srcc") for row in group.rows):
        columns.append((f"{level} interval", lambda row: _bracketed("", row.ci.get("srcc"))))
    if any(row.whole.get("srcc") is not None for row in group.rows):
        columns.append(
            (f"SRCC of all images [{level}]", lambda row: _bracketed(number(row.whole.get("srcc")), row.whole_ci.get("srcc")))
        )
    return columns


def _bracketed(text: str, interval: tuple[float, float] | None) -> str:
    return " ".join(filter(None, (text, f"[{number(interval[0])}, {number(interval[1])}]" if interval else "")))


class Cells(NamedTuple):
    """A table as text."""

    heads: Sequence[str]
    rows: Sequence[Sequence[str]]
    align: Sequence[str]
    """`left` or `right` for each column."""


def cells_of(group: Group, last: Callable[[Row], str], best: str, shown: Callable[[str], str]) -> Cells:
    """The table of a group; `shown` escapes text for the table's format, `last` gives the cells of the column of records."""
    srcc = _srcc(group, best)
    first = ["score_2afc"] if group.headline == "score_2afc" else []
    heads = ["#", "model", *("2AFC" for _ in first), *(head for head, _ in srcc), *_FIGURES.values(), "p", "n", "refs"]
    heads += ["pairs/s", "seeds", "marks", "record"]
    in_means = {key for row in group.rows for key in row.members}
    rows = [
        [
            "" if row.rank is None else str(row.rank),
            ("· " if row.key and row.key in in_means else "") + shown(row_name(row)),
            *(_figure(row, f, best) for f in first),
            *(cell(row) for _, cell in srcc),
            *(_figure(row, f, best) for f in _FIGURES),
            against_best(row, group),
            *("" if count is None else str(count) for count in (row.n, row.references)),
            speed(row.pairs_per_second),
            seeds(row),
            shown(", ".join(row.marks)),
            last(row),
        ]
        for row in group.rows
    ]
    return Cells(heads, rows, ["left" if head in _LEFT_ALIGNED else "right" for head in heads])


def against_best(row: Row, group: Group) -> str:
    """The p-value of "no row is better"; `best` for the best row, empty for rows that are not compared."""
    return "best" if row.p_best is None and group.headline in row.best else probability(row.p_best)


def row_name(row: Row) -> str:
    """The model's name and settings."""
    return f"{row.name} ({', '.join(row.settings)})" if row.settings else row.name


def _figure(row: Row, figure: str, best: str) -> str:
    text = number(row.figures.get(figure))
    return best.format(text) if figure in row.best else text


def speed(value: float | None) -> str:
    """Pairs per second with three digits; an integer from 100 on."""
    return "" if value is None else f"{value:.0f}" if value >= 100 else f"{value:.3g}"


def seeds(row: Row) -> str:
    """`0`, or `3 seeds: 0, 1, 2`, or `0, 10 splits`."""
    listed = ", ".join(map(str, row.seeds))
    named = f"{len(row.seeds)} seeds: {listed}" if row.kind == "seeds" else listed
    return f"{named}, {row.repeats} splits" if row.repeats else named
