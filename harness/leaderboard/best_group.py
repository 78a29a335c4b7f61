"""The group of the best: which ranked rows are not significantly below the best one, paired by reference."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from harness.results.marks import NOT_COMPARED

if TYPE_CHECKING:
    from harness.leaderboard.board import Row


COMPARED = ("srcc", "plcc", "krcc", "main", "score_2afc")
"""Figures whose best group is marked."""


def with_best(rows: Sequence[Row], headline: str, confidence: float) -> list[Row]:
    """The rows of a table with the group of the best marked, figure by figure.

    Every ranked row is compared with the best one on the same images (`standings`). Where the best row, or the row itself, has
    nothing to be compared by, it belongs to no group and is marked as not compared.
    """
    ranked = {i: row for i, row in enumerate(rows) if row.rank is not None}
    if len(ranked) < 2:
        return list(rows)
    best: dict[int, list[str]] = {}
    p_best: dict[int, float | None] = {}
    for figure in COMPARED:
        for i, p_value, in_group in _standings(ranked, figure, confidence):
            best.setdefault(i, []).extend([figure] if in_group else [])
            if figure == headline:
                p_best[i] = p_value
    return [
        replace(
            row,
            best=tuple(best.get(i, ())),
            p_best=p_best.get(i),
            marks=row.marks if i in p_best or i not in ranked else (*row.marks, NOT_COMPARED),
        )
        for i, row in enumerate(rows)
    ]


def _standings(ranked: dict[int, Row], figure: str, confidence: float) -> list[tuple[int, float | None, bool]]:
    """Row, p-value against the best, and whether it is in the group, for all that can be compared."""
    values = {i: value for i, row in ranked.items() if (value := row.figures.get(figure)) is not None}
    if not values:
        return []
    top = ranked[max(values, key=lambda i: (values[i], -i))]
    if top.without(figure) is None:
        return []
    # scipy stays out of tables that have nothing to compare.
    import numpy as np

    from harness.statistics.comparison import standings

    known = {i: without for i in values if _same_images(ranked[i], top) and (without := ranked[i].without(figure)) is not None}
    figures = {str(i): (values[i], np.array(without)) for i, without in known.items()}
    return [(int(s.name), s.p_holm, s.best) for s in standings(figures, figure, confidence=confidence)]


def _same_images(row: Row, other: Row) -> bool:
    references = [found.left_out.references if found.left_out else None for found in (row, other)]
    return None not in row.images[:2] and row.images == other.images and row.n == other.n and references[0] == references[1]
