"""The tables, the trace and its plot: what a person sees of an ensemble, and the document for programs."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate
from pathlib import Path

import numpy as np

from harness.ensembles.assess import METHODS, Row
from harness.ensembles.blends import Blend
from harness.ensembles.objective import Objective
from harness.files.atomic import atomic, write_text
from harness.models.score_scaling import Scaling, weighted
from harness.results.run_scores import csv_text
from harness.results.tables import number, with_interval
from harness.statistics.correlations import Floats

_HEADERS = ("member", "SRCC [95 %]", "PLCC [95 %]", "PLCC fitted", "KRCC", "main")
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
        what = "blends out of fold: fitted without the references that they score" if fitted else "nothing was fitted on these"
        few = "; few references: intervals are wide and rough" if figures.few_references else ""
        blocks.append(f"{dataset} · {part} · {figures.n} images of {figures.references} references · {what}{few}")
        blocks.append(_table(_HEADERS, [_figures(row) for row in chosen]))
        gains = [line for row in chosen if row.versus for line in _gains(row)]
        blocks += [_table((f"gain over {best}", "in", "which is", "difference", "95 %", "p (Holm)", ""), gains)] if gains else []
    legend = [f"{method}: {_METHODS[method]}" for method in METHODS]
    legend.append(
        "gains: over the best member as it is or rescaled alone, the better one on the fitting images, paired by reference; "
        "p-values after Holm's correction over the four blends"
    )
    return "\n\n".join([*blocks, "\n".join([*legend, *notes])])


def _table(headers: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    from tabulate import tabulate

    align = ("left",) + ("right",) * (len(headers) - 1)
    return tabulate(rows, headers=headers, tablefmt="simple", disable_numparse=True, colalign=align)


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
            over = "rescaled" if figure in row.rescaled else "as it is"
            lines.append(["" if lines else row.member, name, over, signed, interval, shown, row.verdict(figure)])
    return lines


def blend_text(blend: Blend, names: Sequence[str], scores: Floats) -> str:
    """`.412 psnr (logistic) + ...`: each member's share of the blend's variance over `scores` (sources, n), which sum to 1.

    The share is the covariance of the member's term with the blend over the blend's variance: weights themselves depend on the
    units that scalings leave. A share below 0 is of a member that the others outweigh.
    """
    terms = [w * scale(scores[s]) for s, scale, w in zip(blend.sources, blend.scalings, blend.weights, strict=True)]
    total = np.sum(terms, axis=0)
    centred = total - total.mean()
    variance = float(centred @ centred)
    shares = [float((term - term.mean()) @ centred) / variance if variance > 0 else 0.0 for term in terms]
    parts = zip(blend.sources, blend.scalings, shares, strict=True)
    return " + ".join(f"{share:.3f} {names[source]} ({_kind(scaling)})" for source, scaling, share in parts)


def _kind(scaling: Scaling) -> str:
    return "+".join(part.kind for part, _ in weighted(scaling))


def write_trace(folder: Path, trace: Sequence[Sequence[Sequence[float]]], aim: Objective) -> list[Path]:
    """trace.csv (a row per candidate, in the order of chains and steps) and trace.png in `folder`."""
    rows: list[tuple[str, ...]] = [("chain", "step", "candidate", aim, "best")]
    for chain, steps in enumerate(trace):
        best = float("-inf")
        for step, figures in enumerate(steps):
            for place, figure in enumerate(figures):
                best = max(best, figure)
                rows.append((str(chain), str(step), str(place), repr(figure), repr(best)))
    write_text(folder / "trace.csv", csv_text(rows))
    return [folder / "trace.csv", _plot(folder / "trace.png", trace, aim)]


def _plot(path: Path, trace: Sequence[Sequence[Sequence[float]]], aim: Objective) -> Path:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    for chain, steps in enumerate(trace):
        values = [f for step in steps for f in step]
        best = list(accumulate(values, max))
        colour = f"C{chain % 10}"
        axes.plot(range(len(values)), values, ".", markersize=2, alpha=0.3, color=colour)
        axes.plot(range(len(values)), best, color=colour, label=f"chain {chain}")
    axes.set_xlabel("candidate of the chain")
    axes.set_ylabel(f"{_NAMES[aim]} on the fitting images")
    axes.legend(loc="lower right")
    with atomic(path) as stream:
        figure.savefig(stream, format="png", dpi=120, metadata={"Software": None})
    return path
