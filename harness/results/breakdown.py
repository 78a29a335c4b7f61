"""What a report is about: the scored rows with labels, their fitted curve, and agreement within parts of them."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from harness.results.record import Figures, Record, RepeatsRecord
from harness.results.run_scores import ALL, split_part
from harness.statistics.correlations import Floats, Ints, midranks, numbered, spearman
from harness.statistics.intervals import fisher_interval
from harness.statistics.reference_resampling import ClusteredPairs

if TYPE_CHECKING:
    import pandas as pd

Texts = NDArray[np.object_]
_LARGEST = 700.0
"""exp of it is still finite."""


@dataclass(frozen=True)
class Points:
    """The rows of the scored part that have labels, in the units of scores and labels; all arrays (n,)."""

    name: Texts
    score: Floats
    label: Floats
    distortion: Texts
    level: Floats
    """NaN where a row has none."""
    reference_id: Texts
    score_sign: float
    """-1 where lower scores are better."""
    label_sign: float
    score_name: str
    label_name: str
    fit: str
    curve: Callable[[Floats], Floats] | None
    """From scores to labels; None where no curve could be fitted."""

    @cached_property
    def fitted(self) -> Floats | None:
        """(n,): what the curve makes of the scores."""
        return None if self.curve is None else self.curve(self.score)

    @cached_property
    def kinds(self) -> tuple[Ints, list[Hashable]]:
        """(n,): each row's kind of distortion, numbered, and the kinds' names."""
        return numbered(self.distortion)

    @cached_property
    def references(self) -> tuple[Ints, list[Hashable]]:
        """(n,): each row's reference, numbered, and the references' ids."""
        return numbered(self.reference_id)

    @cached_property
    def misjudgement(self) -> Floats:
        """(n,): how far each row is off: label less fitted score, or, without a curve, the difference of ranks as a share."""
        fitted = self.fitted
        if fitted is not None:
            return np.asarray(self.label - fitted)
        ranks = midranks(self.label_sign * self.label) - midranks(self.score_sign * self.score)
        return np.asarray(ranks / len(self.score))


@dataclass(frozen=True)
class Part:
    """Agreement within some of the rows."""

    name: str
    n: int
    references: int
    srcc: float | None
    interval: tuple[float, float] | None
    residual: float | None = None
    """Mean of label less fitted score, in the labels' units: how far these rows as a whole are misjudged."""


def points(record: Record, rows: pd.DataFrame) -> Points | None:
    """The record's scored rows that have labels; None where there are none.

    Of repeated splits these are all images, where a model that is not trained scored all once; of a trained model, which scores
    each split by itself, there are none.
    """
    part, figures = record.split, record.test or Figures(n=None)
    if isinstance(record, RepeatsRecord):
        part, figures = ALL, record.all_images or Figures(n=None)
    rows = rows[(rows["part"] == part) & rows["label"].notna()]
    if rows.empty:
        return None
    model, dataset = record.cards.model, record.cards.dataset
    signs = [1.0 if card.higher_is_better else -1.0 for card in (model, dataset)]
    # The record's curve was fitted to scores and labels turned to higher-is-better, in their own units.
    b = [float(p) for p in figures.fit_parameters or ()]
    shapes: dict[str, Callable[[Floats], Floats]] = {
        "logistic4": lambda x: b[1] + (b[0] - b[1]) * _sigmoid((x - b[2]) / b[3]),
        "logistic5": lambda x: b[0] * (0.5 - _sigmoid(-b[1] * (x - b[2]))) + b[3] * x + b[4],
        "poly3": lambda x: b[0] + x * (b[1] + x * (b[2] + x * b[3])),
    }
    shape = shapes.get(figures.fit or "") if figures.fit_parameters is not None else None
    return Points(
        name=rows["name"].to_numpy(dtype=object),
        score=rows["score"].to_numpy(dtype=float),
        label=rows["label"].to_numpy(dtype=float),
        distortion=rows["distortion"].fillna("").to_numpy(dtype=object),
        level=rows["level"].to_numpy(dtype=float),
        reference_id=rows["reference_id"].to_numpy(dtype=object),
        score_sign=signs[0],
        label_sign=signs[1],
        score_name=f"score of {record.model}" + ("" if signs[0] > 0 else " (lower is better)"),
        label_name=(dataset.label or "label") + ("" if signs[1] > 0 else " (lower is better)"),
        fit=figures.fit or "",
        curve=None if shape is None else lambda x: signs[1] * shape(signs[0] * x),
    )


def _sigmoid(t: Floats) -> Floats:
    return np.asarray(1 / (1 + np.exp(-np.clip(t, -_LARGEST, _LARGEST))))


def by_kind(p: Points) -> list[Part]:
    """Agreement within each kind of distortion, worst first; none where fewer than two kinds are named."""
    kind, names = p.kinds
    parts = [_part(p, str(name) or "(none named)", rows) for name, rows in zip(names, _rows_of_each(kind), strict=True)]
    return sorted(parts, key=_order) if len(names) > 1 else []


def by_level(p: Points) -> list[Part]:
    """Agreement within each level, mildest first; none where fewer than two levels are known."""
    levels = np.unique(p.level[~np.isnan(p.level)])
    return [_part(p, f"level {level:g}", np.flatnonzero(p.level == level)) for level in levels] if len(levels) > 1 else []


def by_reference(p: Points) -> list[Part]:
    """Agreement among each reference's own images, worst first; no intervals, because one reference is one sample."""
    reference, names = p.references
    parts = [_part(p, str(name), rows) for name, rows in zip(names, _rows_of_each(reference), strict=True)]
    return sorted(parts, key=_order) if len(parts) > 1 else []


def _rows_of_each(number: Ints) -> list[Ints]:
    """The rows, in order, of each number from 0."""
    return np.split(np.argsort(number, kind="stable"), np.cumsum(np.bincount(number))[:-1])


def _order(part: Part) -> tuple[float, str]:
    return (2.0 if part.srcc is None else part.srcc, part.name)


def _part(p: Points, name: str, rows: Ints) -> Part:
    x, y = p.score_sign * p.score[rows], p.label_sign * p.label[rows]
    # In order of first appearance: sums over units depend in their last bits on the units' order.
    _, first, unit = np.unique(p.references[0][rows], return_index=True, return_inverse=True)
    place = np.empty(len(first), np.int64)
    place[np.argsort(first)] = np.arange(len(first))
    srcc, interval = spearman(x, y), None
    defined = bool(np.isfinite(srcc))
    residual = None if p.curve is None else float(p.misjudgement[rows].mean())
    if defined and len(first) > 1:
        interval = fisher_interval(srcc, ClusteredPairs(x, y, place[unit], len(first)).srcc_without_each(), 0.95)
    return Part(name, len(x), len(first), srcc if defined else None, interval, residual)


def by_kind_over_splits(record: RepeatsRecord, rows: pd.DataFrame) -> list[Part]:
    """The median over splits of the SRCC within each kind of distortion, worst first, its `interval` being the range."""
    card, data = record.cards.model, record.cards.dataset
    signs = [1.0 if one.higher_is_better else -1.0 for one in (card, data)]
    rows = rows[rows["label"].notna() & (rows["distortion"].fillna("") != "")]
    found: dict[str, list[float]] = {}
    for repeat in record.repeats:
        for kind, mine in rows[rows["part"] == split_part(repeat.repeat)].groupby("distortion"):
            x, y = (sign * mine[of].to_numpy(dtype=float) for sign, of in zip(signs, ("score", "label"), strict=True))
            found.setdefault(str(kind), []).append(spearman(x, y))
    parts = []
    for kind, values in found.items():
        images = rows[rows["distortion"] == kind].drop_duplicates("name")
        whole = len(values) == len(record.repeats) and bool(np.isfinite(values).all())
        median, ends = (float(np.median(values)), (min(values), max(values))) if whole else (None, None)
        parts.append(Part(kind, len(images), images["reference_id"].nunique(), median, ends))
    return sorted(parts, key=_order) if len(parts) > 1 else []


def worst(p: Points, count: int = 10) -> list[int]:
    """The rows that the scores misjudge most, worst first."""
    return [int(i) for i in np.argsort(-np.abs(p.misjudgement), kind="stable")[:count]]
