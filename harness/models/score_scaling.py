"""Scalings of members' scores in ensembles (z, ecdf, logistic, sums): fitted once, then fixed numbers in the card.

raw        the unchanged scores
z          less their mean, over their standard deviation
ecdf       the share of the fitting scores below (ties half), straight lines between at most `KNOTS` of them
logistic   the four-parameter logistic that predicts the labels best (`harness.statistics.curve_fitting`)
sum        a weighted sum of the above, for a member with several of them

Only `logistic` uses labels. All are applied to higher-is-better scores.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np

from harness.runtime.errors import UsageError, listed, near
from harness.statistics.correlations import Floats, midranks
from harness.statistics.curve_fitting import fit_curve

KINDS = ("raw", "z", "ecdf", "logistic")
KNOTS = 101
_PARAMETERS = {"raw": (0,), "z": (2,), "logistic": (4,)}


@dataclass(frozen=True)
class Scaling:
    """A frozen scaling. `parameters`: of z, mean and deviation; of logistic, b1..b4 of `fit_curve`; of ecdf, the knots in
    rising order and then their shares; of sum, the weights of its `parts`."""

    kind: str
    parameters: tuple[float, ...] = ()
    parts: tuple[Scaling, ...] = ()

    def __call__(self, scores: Floats) -> Floats:
        """The scaled `scores` (n,); outside the fitted range ecdf is constant and logistic continues to its plateaus."""
        if self.kind == "raw":
            return np.asarray(scores, dtype=np.float64)
        if self.kind == "sum":
            total = np.zeros(np.shape(scores))
            for part, weight in zip(self.parts, self.parameters, strict=True):
                total += weight * part(scores)
            return total
        if self.kind == "z":
            mean, deviation = self.parameters
            return np.asarray((scores - mean) / deviation)
        if self.kind == "ecdf":
            half = len(self.parameters) // 2
            return np.asarray(np.interp(scores, self.parameters[:half], self.parameters[half:]))
        high, low, place, width = self.parameters
        # exp of the negative magnitude never overflows.
        t = (np.asarray(scores, dtype=np.float64) - place) / width
        e = np.exp(-np.abs(t))
        return np.asarray(low + (high - low) * np.where(t >= 0, 1.0, e) / (1 + e))

    def table(self) -> dict[str, object]:
        """The scaling as a table of a card."""
        own: dict[str, object] = {"kind": self.kind, "parameters": list(self.parameters)}
        return own | ({"parts": [part.table() for part in self.parts]} if self.parts else {})


def combined(parts: Sequence[tuple[Scaling, float]]) -> Scaling:
    """The weighted sum of scalings of one member."""
    return Scaling("sum", tuple(weight for _, weight in parts), tuple(scaling for scaling, _ in parts))


def weighted(scaling: Scaling) -> list[tuple[Scaling, float]]:
    """The parts of a sum with their weights; another scaling is the only part, with weight 1."""
    return list(zip(scaling.parts, scaling.parameters, strict=True)) if scaling.kind == "sum" else [(scaling, 1.0)]


def of_table(table: Mapping[str, Any], where: str) -> Scaling:
    """The scaling in a card's table; `where` names its place in errors."""
    kind, parts = table.get("kind"), cast(Any, table.get("parts"))
    if kind == "sum":
        if not isinstance(parts, list) or not parts or not all(isinstance(part, Mapping) for part in parts):
            raise UsageError(f"{where}: a scaling of kind 'sum' needs scaling.parts, a list of scalings")
        if any(part.get("kind") == "sum" for part in parts):
            raise UsageError(f"{where}: scaling.parts: a sum cannot be part of a sum")
    elif kind not in KINDS:
        raise UsageError(f"{where}: scaling.kind = {kind!r} is not one of {listed(KINDS)}{near(str(kind), KINDS)}")
    try:
        values = tuple(float(v) for v in table.get("parameters", ()))
    except (TypeError, ValueError):
        raise UsageError(f"{where}: scaling.parameters should be numbers") from None
    if kind == "sum":
        if len(values) != len(parts) or not all(np.isfinite(v) and v >= 0 for v in values):
            needed = f"one weight of at least 0 for each of its {len(parts)} parts"
            raise UsageError(f"{where}: a scaling of kind 'sum' needs {needed}")
        return Scaling("sum", values, tuple(of_table(part, where) for part in parts))
    fits = len(values) % 2 == 0 and len(values) >= 4 if kind == "ecdf" else len(values) in _PARAMETERS[kind]
    if not fits or not np.isfinite(values).all() or (kind in ("z", "logistic") and values[-1] == 0):
        raise UsageError(f"{where}: a scaling of kind {kind!r} cannot have the parameters {listed(values, 5)}")
    return Scaling(kind, values)


def fit(kind: str, scores: Floats, labels: Floats) -> Scaling | None:
    """The scaling of `kind` fitted to `scores` (n,) and `labels` (n,), both higher-is-better; None where there is none.

    Constant scores have only raw, and there is no logistic where its fit has no minimum.
    """
    if kind == "raw":
        return Scaling("raw")
    if np.ptp(scores) == 0:
        return None
    if kind == "z":
        return Scaling("z", (float(scores.mean()), float(scores.std())))
    if kind == "ecdf":
        known, first = np.unique(scores, return_index=True)
        shares = ((midranks(scores) - 0.5) / len(scores))[first]
        kept = np.unique(np.linspace(0, len(known) - 1, min(len(known), KNOTS)).round().astype(np.int64))
        return Scaling("ecdf", (*map(float, known[kept]), *map(float, shares[kept])))
    curve = fit_curve(scores, labels, "logistic4")
    return None if isinstance(curve, str) else Scaling("logistic", curve.parameters)
