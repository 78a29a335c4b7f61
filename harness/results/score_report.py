"""Tables and pages of scores without labels: means, distributions, the worst pairs, and where metrics disagree."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import TYPE_CHECKING, Any

import numpy as np

from harness.files.atomic import write_text
from harness.runtime.terminal_columns import text_table
from harness.runtime.text import latex, markdown
from harness.statistics.comparison import natural

if TYPE_CHECKING:
    import pandas as pd

WORST = 6
DISAGREEMENTS = 6
_MOST_VALUES = 60
FIXED = ("name", "reference", "distorted", "reference_id", "bytes", "pixels")
"""Columns in every table of several models."""


@dataclass(frozen=True)
class Means:
    """Mean scores of a group of pairs."""

    column: str
    """Empty: all pairs."""
    value: str
    n: int
    scores: tuple[float, ...]
    """One for each model."""


def means(rows: pd.DataFrame, models: Sequence[str], columns: Sequence[str]) -> list[Means]:
    """The mean of every model over all pairs, and for every value of each column with 2 to 60 values."""
    found = [Means("", "all pairs", len(rows), tuple(float(rows[m].mean()) for m in models))]
    for column in columns:
        groups = rows.groupby(column, sort=False)
        if 2 <= len(groups) <= _MOST_VALUES and len(groups) < len(rows):
            each = [Means(column, str(v), len(g), tuple(float(g[m].mean()) for m in models)) for v, g in groups]
            found += sorted(each, key=lambda one: natural(one.value))
    return found


def formatted(
    header: Sequence[str],
    rows: Sequence[Sequence[object]],
    form: str,
    width: int | None = None,
    drops: Sequence[str] | None = None,
) -> str:
    """A table as text for a terminal, CSV, Markdown, LaTeX or JSON; special characters in cells are escaped.

    `width`: characters in a line of the terminal; None: all columns. `drops`: the columns to leave out if the table is too wide,
    in this order; default: from the right.
    """
    from tabulate import tabulate

    if form == "json":
        return json.dumps([dict(zip(header, row, strict=True)) for row in rows], indent=2, ensure_ascii=False)
    if form == "csv":
        from harness.results.run_scores import csv_text

        full = [["" if v is None else repr(v) if isinstance(v, float) else str(v) for v in row] for row in rows]
        return csv_text([list(header), *full]).removesuffix("\n")
    shown = [["" if v is None else f"{v:.4f}" if isinstance(v, float) else str(v) for v in row] for row in rows]
    align = ["right" if rows and isinstance(rows[0][i], int | float) else "left" for i in range(len(header))]
    if form in ("markdown", "latex"):
        escape, kind = (latex, "latex_raw") if form == "latex" else (lambda v: markdown(v).replace("|", "\\|"), "pipe")
        heads, *cells = [[escape(v) for v in row] for row in [list(header), *shown]]
        return tabulate(cells, headers=heads, tablefmt=kind, disable_numparse=True, colalign=align if rows else None)
    drops = list(header[:0:-1]) if drops is None else drops
    return text_table(header, shown, align, width=width, drops=drops, shortens=header[:1]).text


def means_rows(found: Sequence[Means], models: Sequence[str]) -> tuple[list[str], list[list[object]]]:
    """Header and rows of a table of means."""
    rows: list[list[object]] = [[one.column, one.value, one.n, *one.scores] for one in found]
    return ["column", "value", "n", *models], rows


@dataclass(frozen=True)
class Disagreement:
    """A pair that two models rank differently; ranks are divided by the number of pairs, 1 is the best."""

    name: str
    row: int
    models: tuple[str, str]
    ranks: tuple[float, float]


def disagreements(rows: pd.DataFrame, better: Mapping[str, bool], top: int = DISAGREEMENTS) -> list[Disagreement]:
    """For every two models, the `top` pairs with the largest differences in rank.

    `better`: whether higher is better, by model.
    """
    ranks = {m: np.asarray((rows[m] if up else -rows[m]).rank()) / len(rows) for m, up in better.items()}
    found: list[Disagreement] = []
    for a, b in combinations(better, 2):
        distance = np.abs(ranks[a] - ranks[b])
        most = [int(i) for i in np.argsort(-distance, kind="stable")[:top] if distance[i] > 0]
        found += [Disagreement(str(rows["name"].iloc[i]), i, (a, b), (float(ranks[a][i]), float(ranks[b][i]))) for i in most]
    return found


def write_page(
    path: str,
    title: str,
    rows: pd.DataFrame,
    better: Mapping[str, bool],
    columns: Sequence[str],
    command: str,
    models: Mapping[str, Any],
) -> None:
    """Write the report of scores without labels, a page without external files.

    Args:
        path: path of the page.
        title: its heading.
        rows: name, reference, distorted, `columns`, and a column of scores per model.
        better: whether higher is better, by model.
        columns: the columns by which pairs are grouped.
        command: the command that computed the scores.
        models: the models by name; `score_maps`, if a model has it, gives its maps of local quality.
    """
    from harness.results import plots
    from harness.results.templates import render
    from harness.results.thumbnails import data_uri, difference_map, show

    def images(pairs: Sequence[tuple[str, str]], model: Any = None) -> list[list[tuple[str, str]]]:
        """(title, data URI) of each pair's images and maps."""
        found = []
        for shown, pair in zip(show(pairs, model), pairs, strict=True):
            each = {"reference": shown.reference, "distorted": shown.distorted, "difference": difference_map(*pair)}
            each |= {"local quality": shown.quality, "weight": shown.weight}
            found.append([(title, uri) for title, uri in each.items() if uri])
        return found

    worst = []
    for name, up in better.items():
        lowest = rows.sort_values(name, ascending=up, kind="stable").head(WORST)
        shown = images(list(zip(lowest["reference"], lowest["distorted"], strict=True)), models.get(name))
        pairs = [
            {"name": n, "score": f"{s:.4f}", "images": own} for n, s, own in zip(lowest["name"], lowest[name], shown, strict=True)
        ]
        worst.append({"model": name, "better": "higher" if up else "lower", "pairs": pairs})
    differing = disagreements(rows, better)
    shown = images([(str(rows["reference"].iloc[d.row]), str(rows["distorted"].iloc[d.row])) for d in differing])
    page = render(
        "scores.html",
        title=title,
        n=len(rows),
        references=int(rows["reference"].nunique()),
        models=list(better),
        means=[(m.column, m.value, m.n, [f"{v:.4f}" for v in m.scores]) for m in means(rows, list(better), columns)],
        histogram=data_uri(plots.histograms({m: rows[m].to_numpy(dtype=float) for m in better}), "image/png"),
        spread=[[m, *(f"{v:.4f}" for v in np.percentile(rows[m], [0, 5, 25, 50, 75, 95, 100]))] for m in better],
        worst=worst,
        apart=[
            {
                "name": d.name, "models": d.models, "ranks": [f"{r:.2f}" for r in d.ranks],
                "scores": [f"{rows[m].iloc[d.row]:.4f}" for m in d.models],
                "images": own,
            }
            for d, own in zip(differing, shown, strict=True)
        ],
        command=command,
    )  # fmt: skip
    write_text(path, page)


def write_codec_page(
    path: str, title: str, tables: Sequence[Mapping[str, Any]], curves: Mapping[str, bytes], command: str
) -> None:
    """Write the report of codecs: `tables` with caption, header, rows (text) and notes, and one PNG of curves per metric."""
    from harness.results.templates import render
    from harness.results.thumbnails import data_uri

    drawn = [(metric, data_uri(png, "image/png")) for metric, png in curves.items()]
    write_text(path, render("codecs.html", title=title, tables=tables, curves=drawn, command=command))
