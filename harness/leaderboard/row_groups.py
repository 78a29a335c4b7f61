"""Marks the group of the best in a table's rows: rows not significantly below a better one, by reference or by split."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from harness.results.marks import NOT_COMPARED

if TYPE_CHECKING:
    from harness.leaderboard.board_document import Row
    from harness.statistics.best_group import Standing
    from harness.statistics.correlations import Floats


FEWEST_REFERENCES = 6
"""As `harness.statistics.best_group.FEWEST_REFERENCES`, repeated here to avoid that import for tables without comparisons."""
COMPARED = ("srcc", "plcc", "krcc", "main", "score_2afc")
"""Figures whose best group is marked."""


def with_best(rows: Sequence[Row], headline: str, confidence: float) -> list[Row]:
    """The rows of a table with the group of the best marked, figure by figure.

    All ranked rows on the best row's images are compared with one another: by reference (`standings`), or, where the best row is
    over splits, on the same test parts (`standings_over_splits`). Where the best row, or the row itself, lacks the data for a
    comparison, the row is in no group and is marked as not compared. With too few references for any significant difference, no
    group is marked.
    """
    ranked = {i: row for i, row in enumerate(rows) if row.rank is not None}
    if len(ranked) < 2 or too_few_references(rows):
        return list(rows)
    best: dict[int, list[str]] = {}
    p_best: dict[int, float | None] = {}
    for figure in COMPARED:
        for found in _standings(ranked, figure, confidence):
            i = int(found.name)
            best.setdefault(i, []).extend([figure] if found.best else [])
            if figure == headline:
                p_best[i] = found.p_adjusted
    return [
        replace(
            row,
            best=tuple(best.get(i, ())),
            p_best=p_best.get(i),
            marks=row.marks if i in p_best or i not in ranked else (*row.marks, NOT_COMPARED),
        )
        for i, row in enumerate(rows)
    ]


def too_few_references(rows: Sequence[Row]) -> bool:
    """Whether the best row has too few references for any significant difference."""
    top = next((row for row in rows if row.rank is not None), None)
    if top is not None and top.repeats:
        return top.used_references is not None and top.used_references < FEWEST_REFERENCES
    return top is not None and top.left_out is not None and len(top.left_out.references) < FEWEST_REFERENCES


def _standings(ranked: dict[int, Row], figure: str, confidence: float) -> list[Standing]:
    """The standing of each row that can be compared, by the row's number."""
    values = {i: value for i, row in ranked.items() if (value := row.figures.get(figure)) is not None}
    if not values:
        return []
    top = ranked[max(values, key=lambda i: (values[i], -i))]
    if None in top.images[:2]:
        return []
    # Imported here, so that tables without comparisons do not import scipy.
    if top.repeats:
        if figure not in top.splits or top.test_share is None:
            return []
        from harness.statistics.resampled_t_test import standings_over_splits

        # Rows of the same test parts; scores from a file have no hashes of their images.
        same = [i for i in values if ranked[i].images[:2] == top.images[:2] and ranked[i].repeats == top.repeats]
        same = [i for i in same if len({ranked[i].images[2], top.images[2]} - {None}) <= 1 and figure in ranked[i].splits]
        splits = {str(i): ranked[i].splits[figure] for i in same}
        return standings_over_splits(splits, top.test_share, confidence=confidence)
    if top.without(figure) is None:
        return []
    import numpy as np

    from harness.statistics.best_group import standings

    figures: dict[str, tuple[float, Floats]] = {}
    for i, value in values.items():
        row, without = ranked[i], ranked[i].without(figure)
        same_images = (row.images, row.n) == (top.images, top.n)
        if without is not None and same_images and row.left_out and top.left_out:
            figures |= {str(i): (value, np.array(without))} if row.left_out.references == top.left_out.references else {}
    return standings(figures, figure, confidence=confidence)
