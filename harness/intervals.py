"""Intervals and tests that respect what was sampled: references, whose distorted images are not independent."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np

from harness.correlations import Floats, Ints

PERFECT = 1e-12
"""A correlation this close to 1 or -1 is taken to be exactly that."""


def t_quantile(confidence: float, degrees: float) -> float:
    """The two-sided quantile of Student's t, such as 2.262 for 0.95 and 9 degrees of freedom."""
    from scipy.special import stdtrit

    return float(stdtrit(degrees, (1 + confidence) / 2))


def jackknife_error(deleted: Floats) -> float:
    """The jackknife's standard error from the k values with one of k units left out."""
    k = len(deleted)
    return float(np.sqrt((k - 1) / k * np.sum((deleted - deleted.mean()) ** 2)))


def fisher_interval(estimate: float, deleted: Floats, confidence: float, reach: float = 1.0) -> tuple[float, float] | None:
    """Interval of a correlation-like figure in [-reach, reach] by the jackknife on the scale z = atanh(figure / reach).

    `deleted` are the figures with each unit left out. t quantiles with one degree less than units. None when there are fewer
    than two units or a figure is undefined. A perfect figure (|estimate| = reach) has the interval [estimate, estimate].
    """
    if len(deleted) < 2 or not np.isfinite(estimate) or not np.isfinite(deleted).all():
        return None
    if reach - abs(estimate) <= PERFECT * reach:
        return (estimate, estimate)
    half = t_quantile(confidence, len(deleted) - 1) * z_error(estimate, deleted, reach)
    z = np.arctanh(estimate / reach)
    return float(reach * np.tanh(z - half)), float(reach * np.tanh(z + half))


def z_error(estimate: float, deleted: Floats, reach: float = 1.0) -> float:
    """Jackknife standard error of atanh(estimate / reach); `estimate` is not perfect."""
    r = deleted / reach
    if np.abs(r).max() < 1 - PERFECT:
        return jackknife_error(np.arctanh(r))
    # All disagreement sits in one reference: without it z is infinite. The error on the figure's own scale carries over.
    return jackknife_error(r) / (1 - (estimate / reach) ** 2)


def pooled_units(unit: Ints, units: int, limit: int, name: str = "") -> tuple[Ints, int]:
    """At most `limit` units, each original unit thrown whole into one of them at random (fixed by `name`).

    The delete-a-group jackknife (Kott 2001): the error of a figure over very many references needs no more than some hundreds
    of groups.
    """
    if units <= limit:
        return unit, units
    seed = int.from_bytes(hashlib.sha256(f"0|pooled units|{name}".encode()).digest()[:8], "big")
    group = np.random.default_rng(seed).permutation(units) % limit
    return group[unit], limit


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's (1979) step-down adjusted p-values, in the order given; compare them with the level as they are."""
    p = np.asarray(p_values, dtype=np.float64)
    order = np.argsort(p, kind="stable")
    stepped = np.maximum.accumulate(p[order] * (len(p) - np.arange(len(p))))
    adjusted = np.empty(len(p))
    adjusted[order] = np.minimum(stepped, 1.0)
    return [float(v) for v in adjusted]
