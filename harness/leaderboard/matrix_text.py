"""A matrix as text: tables for the terminal, Markdown and CSV."""

from __future__ import annotations

from collections.abc import Callable

from harness.leaderboard.board_document import Row
from harness.leaderboard.columns import Cells, csv_value
from harness.leaderboard.formats import GENERATED, MARKDOWN, TERMINAL
from harness.leaderboard.latex import FIGURES, ends, explained, rank_text
from harness.leaderboard.matrix import Matrix
from harness.results.marks import LEGEND, sentences
from harness.results.run_scores import csv_text
from harness.results.tables import number
from harness.runtime import text as plain
from harness.runtime.terminal_columns import markdown_table, text_table


def terminal(shown: Matrix, *, intervals: bool = False, width: int | None = None) -> str:
    """The matrix with its explanations below it.

    `width`: characters in a line of the terminal; None: all columns. Otherwise the blocks of means are left out first, then the
    figures after the first, then datasets from the last.
    """
    heads, rows, align = _cells(shown, TERMINAL, "\n", plain.one_line, intervals=intervals)
    count = len(shown.figures)
    blocks = [heads[i : i + count] for i in range(1, len(heads), count)]
    last = [*blocks[-2:], blocks[-3]] if len(blocks) > 2 else []
    further = [head for block in blocks[:-3] for head in block[1:]]
    drops = [head for block in last for head in block] + further + [block[0] for block in blocks[-4::-1]]
    table = text_table(heads, rows, align, width=width, drops=drops, shortens=("model",)).text
    notes = map(plain.one_line, [*explained(shown, intervals=intervals, bold="*"), *_legend(shown)])
    return "\n".join([plain.one_line(f"{shown.name}: {shown.title}"), "", table, "", *notes])


def markdown(shown: Matrix, *, intervals: bool = False) -> str:
    """The matrix as a document."""
    table = markdown_table(*_cells(shown, MARKDOWN, " ", plain.markdown, intervals=intervals))
    texts = [*explained(shown, intervals=intervals, bold="Bold"), *_legend(shown)]
    notes = [f"- {plain.markdown(sentences(text))}" for text in texts]
    return "\n".join([f"# {plain.markdown(shown.title)}", "", table, "", *notes, "", GENERATED]) + "\n"


def csv(shown: Matrix) -> str:
    """A line for each model, every figure with all its digits; absent ones are blank."""
    parts = ("", "_low", "_high", "_smallest", "_largest", "_best")
    heads = [f"{column.dataset}_{f}{part}" for column in shown.columns for f in shown.figures for part in parts]
    heads += [f"{column.dataset}_marks" for column in shown.columns]
    heads += [f"{what}_{f}" for what in ("mean", "weighted_mean", "mean_rank") for f in shown.figures]
    lines = [["model", "complete", *map(plain.csv_cell, heads)]]
    for row in shown.rows:
        line: list[object] = [row.name, "yes" if row.complete else ""]
        for cell in row.cells:
            for f in shown.figures:
                ends = [*((cell and cell.ci.get(f)) or (None, None)), *((cell and cell.spread.get(f)) or (None, None))]
                line += [cell.figures.get(f) if cell else None, *ends, "yes" if cell and f in cell.best else ""]
        line += [list(cell.marks) if cell else None for cell in row.cells]
        line += [values.get(f) for values in (row.mean, row.weighted, row.mean_rank) for f in shown.figures]
        lines.append([csv_value(value) for value in line])
    return csv_text(lines)


def _cells(shown: Matrix, best: str, between: str, escaped: Callable[[str], str], *, intervals: bool) -> Cells:
    """The table's text; `best` formats a figure in the group of the best, `between` separates the two words of a header."""
    blocks = [*(escaped(column.dataset) for column in shown.columns), "mean", "weighted mean", "mean rank"]
    heads = ["model", *(f"{block}{between}{FIGURES[f]}" for block in blocks for f in shown.figures)]
    rows = []
    for row in shown.rows:
        cells = [_figure(cell, f, best, shown, intervals=intervals) for cell in row.cells for f in shown.figures]
        means = [number(values.get(f)) for values in (row.mean, row.weighted) for f in shown.figures]
        rows.append([escaped(row.name), *cells, *means, *(rank_text(row.mean_rank.get(f)) for f in shown.figures)])
    return Cells(heads, rows, ["left", *["right"] * (len(heads) - 1)])


def _figure(cell: Row | None, figure: str, best: str, shown: Matrix, *, intervals: bool) -> str:
    text = number(cell.figures.get(figure)) if cell else ""
    if cell is None or not text:
        return ""
    text = best.format(text) if figure in cell.best else text
    text += ends(cell, figure) if intervals else ""
    letters = [letter for mark, letter in shown.marks.items() if mark in cell.marks]
    return text + (f" {','.join(letters)}" if letters else "")


def _legend(shown: Matrix) -> list[str]:
    return [f"mark {letter}: {mark} ({LEGEND[mark]})" for mark, letter in shown.marks.items()]
