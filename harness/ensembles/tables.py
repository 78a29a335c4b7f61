"""Tables of an ensemble's figures and gains, and the trace of its search as CSV and plot."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy as np

from harness.ensembles.assess import METHODS, Row
from harness.ensembles.blends import Blend
from harness.ensembles.objective import Objective
from harness.files.atomic import atomic, write_text
from harness.models.score_scaling import Scaling, weighted
from harness.results.run_scores import csv_text
from harness.results.tables import number, with_interval
from harness.statistics.correlations import Floats

WIDTH = 80
"""The width of tables, in characters."""
_NARROWEST = 8
_HEADERS = ("member", "SRCC [95 %]", "PLCC [95 %]", "fitted", "KRCC", "main")
_NAMES = {"main": "main", "srcc": "SRCC", "plcc": "PLCC"}
_METHODS = {
    "mean": "equal weights on z-scores",
    "greedy": "forward selection with replacement, on fitted logistics",
    "least-squares": "non-negative weights by least squares, on all scalings at once",
    "searched": "members, scalings, weights (and croppings) as searched",
}


def text(rows: Sequence[Row], best: str, notes: Sequence[str]) -> str:
    """Two tables for each dataset and part: every row's figures, and each blend's gain over `best`."""
    blocks = []
    for dataset, part in dict.fromkeys((row.dataset, row.part) for row in rows):
        chosen = [row for row in rows if (row.dataset, row.part) == (dataset, part)]
        figures = chosen[0].figures
        fitted = part in ("validation", "fitting")
        what = "blends out of fold: fitted without the references that they score" if fitted else "no fitting on these images"
        few = "; few references: intervals are wide and rough" if figures.few_references else ""
        blocks.append(wrapped(f"{dataset} · {part} · {figures.n} images of {figures.references} references · {what}{few}"))
        blocks.append(table(_HEADERS, [_figures(row) for row in chosen]))
        gains = [line for row in chosen if row.versus for line in _gains(row)]
        if gains:
            gained = table(("blend", "in", "over it", "gain [95 %]", "p (Holm)", ""), gains, align=("left",) * 3 + ("right",) * 2)
            blocks.append(f"gain over {best}\n\n{gained}")
    legend = [f"{method}: {_METHODS[method]}" for method in METHODS]
    legend.append("fitted: PLCC after the usual logistic")
    legend.append(
        "gains: over the best member unchanged or rescaled, the better one on the fitting images, paired by reference; "
        "p-values after Holm's correction over the four blends"
    )
    return "\n\n".join([*blocks, "\n".join(map(wrapped, [*legend, *notes]))])


def table(headers: Sequence[str], rows: Sequence[Sequence[str]], *, align: Sequence[str] = ("left",), narrowed: int = 0) -> str:
    """A table of at most `WIDTH` characters a line: long cells of the column `narrowed` continue on further lines.

    `align`: of the first columns; the others are right.
    """
    from tabulate import tabulate

    widths = [max(len(line[c]) for line in (headers, *rows)) for c in range(len(headers))]
    room = max(_NARROWEST, WIDTH - 2 * (len(headers) - 1) - sum(widths) + widths[narrowed])

    def cut(text: str) -> str:
        return "\n".join(textwrap.wrap(text, room)) or text

    lines = [[cut(cell) if c == narrowed else cell for c, cell in enumerate(row)] for row in (headers, *rows)]
    aligned = (*align, *("right",) * (len(headers) - len(align)))
    return str(tabulate(lines[1:], headers=lines[0], tablefmt="simple", disable_numparse=True, colalign=aligned))


def wrapped(text: str) -> str:
    """A sentence in lines of at most `WIDTH` characters; names and paths in it are not broken."""
    return textwrap.fill(text, WIDTH, break_long_words=False, break_on_hyphens=False)


def _figures(row: Row) -> list[str]:
    figures = row.figures
    first = [with_interval(getattr(figures, f), figures.ci.get(f)) for f in ("srcc", "plcc")]
    return [row.member, *first, *(number(getattr(figures, f)) for f in ("plcc_fitted", "krcc", "main"))]


def _gains(row: Row) -> list[list[str]]:
    lines: list[list[str]] = []
    for figure, name in _NAMES.items():
        gain, p = row.versus[figure], row.p_holm.get(figure)
        if gain.difference is not None:
            signed = f"{'+' if gain.difference >= 0 else ''}{number(gain.difference)}"
            interval = f"[{number(gain.ci[0])}, {number(gain.ci[1])}]" if gain.ci else ""
            shown = "" if p is None else "< .001" if p < 0.001 else number(p)
            over = "rescaled" if figure in row.rescaled else "unchanged"
            lines.append(["" if lines else row.member, name, over, f"{signed} {interval}".strip(), shown, row.verdict(figure)])
    return lines


def blend_text(blend: Blend, names: Sequence[str], scores: Floats) -> str:
    """`.412 psnr (logistic) + ...`: each member's share of the blend's variance over `scores` (sources, n), which sum to 1.

    The share is the covariance of the member's term with the blend over the blend's variance, because weights depend on the
    units of the scalings. A share may be below 0.
    """
    terms = [w * scale(scores[s]) for s, scale, w in zip(blend.sources, blend.scalings, blend.weights, strict=True)]
    total = np.sum(terms, axis=0)
    centred = total - total.mean()
    variance = float(centred @ centred)
    shares = [float((term - term.mean()) @ centred) / variance if variance > 0 else 0.0 for term in terms]
    parts = zip(blend.sources, blend.scalings, shares, strict=True)
    return " + ".join(f"{share:.3f} {names[source]} ({kind(scaling)})" for source, scaling, share in parts)


def kind(scaling: Scaling) -> str:
    """The scaling's name: `logistic`, or `z+ecdf` for a sum."""
    return "+".join(part.kind for part, _ in weighted(scaling))


def write_trace(folder: Path, trace: Sequence[Sequence[Sequence[float]]], objective: Objective) -> list[Path]:
    """trace.csv (a row per candidate, in the order of chains and steps) and trace.png in `folder`."""
    rows: list[tuple[str, ...]] = [("chain", "step", "candidate", objective, "best")]
    for chain, steps in enumerate(trace):
        best = float("-inf")
        for step, figures in enumerate(steps):
            for place, figure in enumerate(figures):
                best = max(best, figure)
                rows.append((str(chain), str(step), str(place), repr(figure), repr(best)))
    table, plot = folder / "trace.csv", folder / "trace.png"
    write_text(table, csv_text(rows))
    with plotted(plot, "candidate of the chain", f"{_NAMES[objective]} on the fitting images") as axes:
        for chain, steps in enumerate(trace):
            values = [f for step in steps for f in step]
            colour = f"C{chain % 10}"
            axes.plot(range(len(values)), values, ".", markersize=2, alpha=0.3, color=colour)
            axes.plot(range(len(values)), list(accumulate(values, max)), color=colour, label=f"chain {chain}: best so far")
    return [table, plot]


@contextmanager
def plotted(path: Path, x: str, y: str) -> Iterator[Any]:
    """Matplotlib axes with these labels and a legend; after the block the PNG is written to `path`."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    yield axes
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    axes.legend(loc="lower right")
    with atomic(path) as stream:
        figure.savefig(stream, format="png", dpi=120, metadata={"Software": None})
