"""Blends: weighted sums of scaled members; mean, greedy selection and non-negative least squares.

Sources are rows of a matrix of scores (sources, n), turned to higher-is-better. A member may have several sources, one for
each way of cropping; a blend takes at most one of them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import numpy as np

from harness.ensembles.objective import Objective, objective_values
from harness.models import score_scaling
from harness.models.score_scaling import Scaling
from harness.runtime.errors import UsageError
from harness.statistics.correlations import Floats, Ints, midranks

_ROUNDS = 50
"""Rounds of greedy selection: weights are multiples of 1/50."""


@dataclass(frozen=True)
class Blend:
    """`intercept` + sum of weight * scaling(source)."""

    sources: tuple[int, ...]
    scalings: tuple[Scaling, ...]
    weights: tuple[float, ...]
    intercept: float = 0.0

    def __call__(self, scores: Floats) -> Floats:
        """Blended scores (n,) of `scores` (sources, n)."""
        total = np.full(scores.shape[1], self.intercept)
        for source, scale, weight in zip(self.sources, self.scalings, self.weights, strict=True):
            total += weight * scale(scores[source])
        return total

    def calibrated(self, scores: Floats, labels: Floats) -> Blend:
        """The same blend in the labels' units: the least-squares line through its scores, where that increases.

        Correlations do not change by it, but blends that were fitted on different images become comparable.
        """
        blended = self(scores)
        centred = blended - blended.mean()
        squares = float(centred @ centred)
        slope = float(centred @ labels) / squares if squares > 0 else 0.0
        if slope <= 0:
            return self
        intercept = float(labels.mean()) + slope * (self.intercept - float(blended.mean()))
        return replace(self, weights=tuple(slope * w for w in self.weights), intercept=intercept)


@dataclass
class Fits:
    """Scores (sources, n) and labels (n,) for fitting, and each source's scalings, fitted once."""

    scores: Floats
    labels: Floats
    _known: dict[tuple[int, str], Scaling | None] = field(default_factory=dict, repr=False)

    def scaling(self, source: int, kind: str) -> Scaling | None:
        """The source's scaling of that kind; None where there is none, or where it makes all scores equal."""
        if (source, kind) not in self._known:
            row = self.scores[source]
            fitted = score_scaling.fit(kind, row, self.labels)
            self._known[source, kind] = fitted if fitted is not None and np.ptp(fitted(row)) > 0 else None
        return self._known[source, kind]


class Columns(NamedTuple):
    """All scaled sources that blends may use, fitted on some images."""

    values: Floats
    """(columns, n)"""
    source: Ints
    """(columns,)"""
    scalings: tuple[Scaling, ...]
    by_member: tuple[tuple[int, ...], ...]
    """The columns of each usable member."""
    spread: Floats
    """(columns,): the divisor that turns a share into a weight; 1 for raw."""


def columns(fits: Fits, member_of: Sequence[int], kinds: Sequence[str]) -> Columns:
    """Every source under every scaling of `kinds` that could be fitted."""
    known = [(s, fits.scaling(s, kind)) for s in range(len(fits.scores)) for kind in kinds]
    kept = [(s, fitted) for s, fitted in known if fitted is not None]
    source, scalings = [s for s, _ in kept], tuple(fitted for _, fitted in kept)
    values = [fitted(fits.scores[s]) for s, fitted in kept]
    members = max(member_of) + 1
    by_member = tuple(tuple(c for c, s in enumerate(source) if member_of[s] == m) for m in range(members))
    spread = [1.0 if s.kind == "raw" else float(v.std()) for v, s in zip(values, scalings, strict=True)]
    return Columns(np.stack(values), np.array(source), scalings, by_member, np.array(spread))


def mean(fits: Fits, own: Sequence[int]) -> Blend:
    """Equal weights on the members' z-scores. `own`: each member's first source."""
    scaled = _scaled(fits, own, "z")
    return _kept(scaled, np.full(len(scaled), 1 / len(scaled))).calibrated(fits.scores, fits.labels)


def greedy(fits: Fits, own: Sequence[int], objective: Objective) -> Blend:
    """Forward selection with replacement (Caruana et al. 2004): the most helpful member is added, repeatedly.

    The blend of the best round is chosen; of two equal ones the earlier.
    """
    scaled = _scaled(fits, own, "logistic")
    values = np.stack([scale(fits.scores[source]) for source, scale in scaled.items()])
    counts, total = np.zeros(len(values)), np.zeros(values.shape[1])
    best, best_counts = -np.inf, counts
    ranked = midranks(fits.labels)
    for _ in range(_ROUNDS):
        figures = objective_values(objective, total + values, fits.labels, ranked)
        chosen = int(figures.argmax())
        counts, total = counts + (np.arange(len(values)) == chosen), total + values[chosen]
        if figures[chosen] > best:
            best, best_counts = float(figures[chosen]), counts
    weights = best_counts / best_counts.sum()
    return _kept(scaled, weights).calibrated(fits.scores, fits.labels)


def least_squares(fits: Fits, own: Sequence[int], kinds: Sequence[str] = ("logistic",)) -> Blend:
    """The non-negative weights and the intercept that predict the labels best (Lawson & Hanson 1974).

    Args:
        fits: Scores, labels and scalings.
        own: Each member's first source.
        kinds: The scalings of each member that may be used, several at once.
    """
    pairs = [(s, scale) for s in own for kind in kinds if (scale := fits.scaling(s, kind)) is not None]
    if len(kinds) == 1 or not pairs:
        pairs = list(_scaled(fits, own, kinds[0]).items())
    weights = nonnegative(np.stack([scale(fits.scores[source]) for source, scale in pairs]), fits.labels)
    if not weights.any():
        # No member is useful: the least-squares blend would be a constant, which ranks nothing.
        return mean(fits, own)
    parts: dict[int, list[tuple[Scaling, float]]] = {}
    for (source, scale), weight in zip(pairs, weights, strict=True):
        if weight > 0:
            parts.setdefault(source, []).append((scale, float(weight)))
    return of_parts(parts).calibrated(fits.scores, fits.labels)


def nonnegative(values: Floats, labels: Floats) -> Floats:
    """Weights (columns,) >= 0 of `values` (columns, n) that predict `labels` (n,) best with an intercept."""
    from scipy.optimize import nnls

    spread = values.std(axis=1)
    scaled = (values - values.mean(axis=1)[:, None]) / spread[:, None]
    return np.asarray(nnls(scaled.T, labels - labels.mean())[0] / spread)


def of_parts(parts: Mapping[int, Sequence[tuple[Scaling, float]]]) -> Blend:
    """The blend of each source's (scaling, weight) pairs; several of one source become one weighted sum."""
    sources, scalings, weights = [], [], []
    for source, pairs in parts.items():
        total = sum(weight for _, weight in pairs)
        sources.append(source)
        weights.append(total)
        scalings.append(pairs[0][0] if len(pairs) == 1 else score_scaling.combined([(s, w / total) for s, w in pairs]))
    return Blend(tuple(sources), tuple(scalings), tuple(weights))


def _scaled(fits: Fits, own: Sequence[int], kind: str) -> dict[int, Scaling]:
    """Each member's own source that varies, scaled by `kind`, or by z where there is no such fit."""
    fitted = {s: fits.scaling(s, kind) or fits.scaling(s, "z") for s in own}
    known = {s: scale for s, scale in fitted.items() if scale is not None}
    if not known:
        raise UsageError("every member gives all fitting images the same score, so there is no blend")
    return known


def _kept(scaled: Mapping[int, Scaling], weights: Floats) -> Blend:
    kept = [(s, scale, float(w)) for (s, scale), w in zip(scaled.items(), weights, strict=True) if w > 0]
    return Blend(tuple(s for s, _, _ in kept), tuple(scale for _, scale, _ in kept), tuple(w for _, _, w in kept))
