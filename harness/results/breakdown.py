"""Data of a run's report: the scored rows with labels, their fitted curve, and agreement within parts of the rows."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from harness.results.record import Figures, Record, RepeatsRecord
from harness.results.run_scores import ALL, split_part
from harness.statistics.correlations import Floats, Ints, midranks, spearman
from harness.statistics.intervals import fisher_interval
from harness.statistics.reference_resampling import ClusteredPairs

if TYPE_CHECKING:
    import pandas as pd

_LARGEST_EXPONENT = 700.0
"""exp of it is finite."""


@dataclass(frozen=True)
class Points:
    """The rows with labels of the scored part, in the units of scores and labels; all arrays are (n,)."""

    name: Sequence[str]
    score: Floats
    label: Floats
    kinds: tuple[Ints, list[str]]
    """(n,): the number of each row's kind of distortion, and the names of the kinds, in order of first appearance."""
    level: Floats
    """NaN if unknown."""
    references: tuple[Ints, list[str]]
    """(n,): the number of each row's reference, and the ids of the references, in order of first appearance."""
    score_sign: float
    """-1 if lower scores are better."""
    label_sign: float
    score_name: str
    label_name: str
    fit: str
    curve: Callable[[Floats], Floats] | None
    """From scores to labels; None if no curve could be fitted."""

    @cached_property
    def fitted(self) -> Floats | None:
        """(n,): the labels that the curve predicts from the scores."""
        return None if self.curve is None else self.curve(self.score)

    @cached_property
    def misjudgement(self) -> Floats:
        """(n,): the error of each row: label minus fitted score, or, without a curve, the difference of ranks divided by n."""
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
    """Mean of label minus fitted score, in the labels' units: the bias of the scores on these rows."""


def points(record: Record, rows: pd.DataFrame) -> Points | None:
    """The record's scored rows with labels; None if there are none.

    For repeated splits of a model without training these are all images, which it scored once. For a trained model, which
    scores each split separately, there are none.
    """
    part, figures = record.split, record.test or Figures(n=None)
    if isinstance(record, RepeatsRecord):
        part, figures = ALL, record.all_images or Figures(n=None)
    rows = rows[(rows["part"] == part) & rows["label"].notna()]
    if rows.empty:
        return None
    model, dataset = record.cards.model, record.cards.dataset
    signs = [1.0 if card.higher_is_better else -1.0 for card in (model, dataset)]
    # The record's curve was fitted after the signs of lower-is-better scores and labels were changed.
    b = [float(p) for p in figures.fit_parameters or ()]
    shapes: dict[str, Callable[[Floats], Floats]] = {
        "logistic4": lambda x: b[1] + (b[0] - b[1]) * _sigmoid((x - b[2]) / b[3]),
        "logistic5": lambda x: b[0] * (0.5 - _sigmoid(-b[1] * (x - b[2]))) + b[3] * x + b[4],
        "poly3": lambda x: b[0] + x * (b[1] + x * (b[2] + x * b[3])),
    }
    shape = shapes.get(figures.fit or "") if figures.fit_parameters is not None else None
    return Points(
        name=rows["name"].array,
        score=rows["score"].to_numpy(dtype=float),
        label=rows["label"].to_numpy(dtype=float),
        kinds=_numbered(rows["distortion"].fillna("")),
        level=rows["level"].to_numpy(dtype=float),
        references=_numbered(rows["reference_id"]),
        score_sign=signs[0],
        label_sign=signs[1],
        score_name=f"score of {record.model}" + ("" if signs[0] > 0 else " (lower is better)"),
        label_name=(dataset.label or "label") + ("" if signs[1] > 0 else " (lower is better)"),
        fit=figures.fit or "",
        curve=None if shape is None else lambda x: signs[1] * shape(signs[0] * x),
    )


def _numbered(column: pd.Series) -> tuple[Ints, list[str]]:
    numbers, names = column.factorize()
    return numbers.astype(np.int64), list(names)


def _sigmoid(t: Floats) -> Floats:
    return np.asarray(1 / (1 + np.exp(-np.clip(t, -_LARGEST_EXPONENT, _LARGEST_EXPONENT))))


def by_kind(p: Points) -> list[Part]:
    """Agreement within each kind of distortion, worst first; empty for fewer than two kinds."""
    kind, names = p.kinds
    parts = [_part(p, str(name) or "(none named)", rows) for name, rows in zip(names, _rows_of_each(kind), strict=True)]
    return sorted(parts, key=_order) if len(names) > 1 else []


def by_level(p: Points) -> list[Part]:
    """Agreement within each level, mildest first; empty for fewer than two levels."""
    levels = np.unique(p.level[~np.isnan(p.level)])
    return [_part(p, f"level {level:g}", np.flatnonzero(p.level == level)) for level in levels] if len(levels) > 1 else []


def by_reference(p: Points) -> list[Part]:
    """Agreement within the images of each reference, worst first; no intervals, because one reference is one sample."""
    reference, names = p.references
    parts = [_part(p, str(name), rows) for name, rows in zip(names, _rows_of_each(reference), strict=True)]
    return sorted(parts, key=_order) if len(parts) > 1 else []


def _rows_of_each(number: Ints) -> list[Ints]:
    """The rows of each number from 0, in order."""
    return np.split(np.argsort(number, kind="stable"), np.cumsum(np.bincount(number))[:-1])


def _order(part: Part) -> tuple[float, str]:
    return (2.0 if part.srcc is None else part.srcc, part.name)


def _part(p: Points, name: str, rows: Ints) -> Part:
    x, y = p.score_sign * p.score[rows], p.label_sign * p.label[rows]
    # In order of first appearance: the last bits of sums over clusters depend on the order of the clusters.
    _, first, cluster = np.unique(p.references[0][rows], return_index=True, return_inverse=True)
    place = np.empty(len(first), np.int64)
    place[np.argsort(first)] = np.arange(len(first))
    srcc, interval = spearman(x, y), None
    defined = bool(np.isfinite(srcc))
    residual = None if p.curve is None else float(p.misjudgement[rows].mean())
    if defined and len(first) > 1:
        interval = fisher_interval(srcc, ClusteredPairs(x, y, place[cluster], len(first)).srcc_without_each(), 0.95)
    return Part(name, len(x), len(first), srcc if defined else None, interval, residual)


def by_kind_over_splits(record: RepeatsRecord, rows: pd.DataFrame) -> list[Part]:
    """The median over splits of the SRCC within each kind of distortion, worst first; `interval` is the range."""
    card, data = record.cards.model, record.cards.dataset
    signs = [1.0 if one.higher_is_better else -1.0 for one in (card, data)]
    rows = rows[rows["label"].notna() & (rows["distortion"].fillna("") != "")]
    found: dict[str, list[float]] = {}
    for repeat in record.repeats:
        for kind, group in rows[rows["part"] == split_part(repeat.repeat)].groupby("distortion"):
            x, y = (sign * group[of].to_numpy(dtype=float) for sign, of in zip(signs, ("score", "label"), strict=True))
            found.setdefault(str(kind), []).append(spearman(x, y))
    parts = []
    for kind, values in found.items():
        images = rows[rows["distortion"] == kind].drop_duplicates("name")
        whole = len(values) == len(record.repeats) and bool(np.isfinite(values).all())
        median, ends = (float(np.median(values)), (min(values), max(values))) if whole else (None, None)
        parts.append(Part(kind, len(images), images["reference_id"].nunique(), median, ends))
    return sorted(parts, key=_order) if len(parts) > 1 else []


def worst(p: Points, count: int = 10) -> list[int]:
    """The rows with the largest errors, largest first."""
    return [int(i) for i in np.argsort(-np.abs(p.misjudgement), kind="stable")[:count]]
