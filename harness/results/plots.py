"""Plots of scores, labels, training and rate curves, as PNG bytes. matplotlib without pyplot, to change no global state."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from harness.statistics.correlations import Floats

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from harness.results.breakdown import Points

_DPI = 110
_DOTS, _CURVE, _FAINT = "#0b5cad", "#c2410c", "#c9d1d9"
_LOG_FROM = 30.0
"""The ratio of largest to smallest loss from which the axis is logarithmic."""


def scatter(points: Points, title: str) -> bytes:
    """Scores against labels with the fitted curve, and the residuals below it."""
    figure, (above, below) = _figure(5.6, 6.2, 2, height_ratios=(3, 1), sharex=True)
    size = _dot(len(points.score))
    above.scatter(points.score, points.label, s=size, color=_DOTS, alpha=0.45, linewidths=0)
    above.set_ylabel(points.label_name)
    above.set_title(title, fontsize=10, loc="left")
    if points.curve is not None and points.fitted is not None:
        x = np.linspace(points.score.min(), points.score.max(), 400)
        above.plot(x, points.curve(x), color=_CURVE, linewidth=1.8, label=f"{points.fit} fit")
        above.legend(loc="best", fontsize=8, frameon=False)
        below.scatter(points.score, points.label - points.fitted, s=size, color=_DOTS, alpha=0.45, linewidths=0)
        below.axhline(0, color=_CURVE, linewidth=1)
        below.set_ylabel("residual")
    else:
        below.set_axis_off()
        above.set_xlabel(points.score_name)
        above.tick_params(labelbottom=True)
    below.set_xlabel(points.score_name)
    return _png(figure)


def by_kind(points: Points, kinds: Sequence[str]) -> bytes:
    """The scatter plot for each kind of distortion, with the other kinds faint in the background.

    All panels are drawn in one pair of axes, because matplotlib takes seconds for 25 axes.
    """
    columns = min(5, len(kinds))
    lines = -(-len(kinds) // columns)
    figure, (axes,) = _figure(1.7 * columns, 2 * lines, 1)
    x, y = _unit(points.score), _unit(points.label)
    faint = np.arange(0, len(x), -(-len(x) // 2000))
    kind_of_row, names = points.kinds
    for number, kind in enumerate(kinds):
        left, top = 1.15 * (number % columns), -1.35 * (number // columns)
        mine = np.flatnonzero(kind_of_row == names.index(kind))
        axes.plot([left, left + 1, left + 1, left, left], [top, top, top + 1, top + 1, top], color=_FAINT, linewidth=0.8)
        axes.scatter(left + x[faint], top + y[faint], s=1.5, color=_FAINT, linewidths=0)
        axes.scatter(left + x[mine], top + y[mine], s=_dot(len(mine)) / 2, color=_DOTS, alpha=0.6, linewidths=0)
        axes.text(left, top + 1.04, kind or "(none named)", fontsize=8)
    axes.set_axis_off()
    axes.set_position((0, 0, 1, 1))
    axes.set(xlim=(-0.1, 1.15 * columns - 0.05), ylim=(1.3 - 1.35 * lines, 1.3))
    return _png(figure)


def splits(values: Mapping[str, Sequence[float]]) -> bytes:
    """A row of dots for each figure, a dot for each split, and a line at the median."""
    figure, (axes,) = _figure(5.6, 0.9 + 0.45 * len(values), 1)
    for place, found in enumerate(values.values()):
        axes.plot([min(found), max(found)], [place, place], color=_FAINT, linewidth=3, solid_capstyle="butt")
        axes.scatter(found, np.full(len(found), place), s=18, color=_DOTS, alpha=0.6, linewidths=0, zorder=3)
        median = float(np.median(found))
        axes.plot([median, median], [place - 0.25, place + 0.25], color=_CURVE, linewidth=2, zorder=4)
    axes.set_yticks(range(len(values)), list(values))
    axes.set_ylim(len(values) - 0.5, -0.5)
    axes.set_title("each split's test part, and the median", fontsize=9, loc="left")
    return _png(figure)


def training(history: Sequence[Mapping[str, Any]]) -> bytes:
    """The loss and, where it was validated, the correlations, epoch by epoch."""
    validated = [e for e in history if e.get("srcc") is not None]
    figure, panels = _figure(5.6, 4.4 if validated else 2.6, 2 if validated else 1, sharex=True)
    loss = [(e["epoch"], e["loss"]) for e in history]
    panels[0].plot(*zip(*loss, strict=True), color=_DOTS, marker="." if len(loss) < 60 else "")
    panels[0].set_ylabel("training loss")
    lowest, highest = min(value for _, value in loss), max(value for _, value in loss)
    if lowest > 0 and highest > _LOG_FROM * lowest:
        panels[0].set_yscale("log")
    if validated:
        for name, colour, style in (("srcc", _DOTS, "-"), ("plcc", _CURVE, "--")):
            values = [(e["epoch"], e[name]) for e in validated]
            panels[1].plot(
                *zip(*values, strict=True), style, color=colour, label=name.upper(), marker="." if len(values) < 60 else ""
            )
        panels[1].set_ylabel("validation")
        panels[1].legend(loc="best", fontsize=8, frameon=False)
    panels[-1].set_xlabel("epoch")
    return _png(figure)


def histograms(scores: Mapping[str, Floats]) -> bytes:
    """The distribution of each model's scores, a panel for each."""
    figure, panels = _figure(5.6, 1.5 * len(scores) + 0.6, len(scores))
    figure.subplots_adjust(hspace=0.75)
    for panel, (name, values) in zip(panels, scores.items(), strict=True):
        panel.hist(values, bins=min(60, max(5, round(2 * np.sqrt(len(values))))), color=_DOTS)
        panel.set_title(name, fontsize=9, loc="left")
    return _png(figure)


def rate_curves(curves: Mapping[str, Sequence[tuple[Sequence[float], Sequence[float]]]], rate: str, metric: str) -> bytes:
    """Rate (logarithmic) against quality: a thin line for every image, a thick one for each codec's means over images.

    `curves`: by codec, (rates, scores) of every image, sorted by rate. Means are drawn where all images of a codec have the
    same number of points.
    """
    from matplotlib import colormaps

    figure, (axes,) = _figure(5.6, 4.2, 1)
    colours = colormaps["tab10"].colors  # type: ignore[attr-defined]
    for number, (codec, images) in enumerate(curves.items()):
        colour = colours[number % len(colours)]
        for x, y in images:
            axes.plot(x, y, color=colour, linewidth=0.7, alpha=0.35)
        if len({len(x) for x, _ in images}) == 1:
            x, y = np.mean([x for x, _ in images], axis=0), np.mean([y for _, y in images], axis=0)
            axes.plot(x, y, color=colour, linewidth=2, marker="o", markersize=4, label=codec)
        else:
            axes.plot([], [], color=colour, linewidth=2, label=codec)
    axes.set_xscale("log")
    axes.set_xlabel(rate)
    axes.set_ylabel(metric)
    axes.legend(loc="best", fontsize=8, frameon=False)
    return _png(figure)


def _figure(width: float, height: float, rows: int, **options: Any) -> tuple[Figure, list[Axes]]:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    # Fixed margins in inches for labels: matplotlib's automatic layout takes as long as drawing.
    edges = {"left": 0.62 / width, "right": 1 - 0.12 / width, "bottom": 0.48 / height, "top": 1 - 0.3 / height}
    figure = Figure(figsize=(width, height), dpi=_DPI, facecolor="white")
    FigureCanvasAgg(figure)
    grid = {"hspace": 0.08, **edges}
    if (ratios := options.pop("height_ratios", None)) is not None:
        grid["height_ratios"] = ratios
    axes = list(np.atleast_1d(figure.subplots(rows, gridspec_kw=grid, **options)))
    for panel in axes:
        panel.spines[["top", "right"]].set_visible(False)
        panel.grid(color="#e5e9ed", linewidth=0.6)
        panel.set_axisbelow(True)
    return figure, axes


def _png(figure: Figure) -> bytes:
    out = io.BytesIO()
    # Without metadata, the same figure gives the same bytes.
    figure.savefig(out, format="png", metadata={"Software": None})
    return out.getvalue()


def _dot(count: int) -> float:
    return float(np.clip(6000 / max(count, 1), 2, 18))


def _unit(x: Floats) -> Floats:
    width = float(x.max() - x.min())
    return np.asarray((x - x.min()) / width if width else np.full_like(x, 0.5))
