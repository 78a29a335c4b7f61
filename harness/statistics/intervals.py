"""Jackknife and bootstrap intervals and tests over references, because distorted images of a reference are dependent.

The plain jackknife on Fisher's z with t quantiles of (references - 1) degrees covers the true value in 90-95 % of cases at 25
references instead of 95 % (`benchmarks/coverage.py --plain`). Two causes, both visible in the pseudo-values: z is biased upwards
when references are few, and a few references with low agreement contribute much of the variance, so that the variance itself is
poorly known. Hence the centre is the jackknife's bias-corrected one, and the degrees of freedom are estimated from the spread of
the pseudo-values.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Tuple

import numpy as np

from harness.statistics.correlations import Floats, Ints

Interval = Tuple[float, float]  # at run time too, where Python 3.7 has no tuple[...]
PERFECT = 1e-12
"""A correlation this close to 1 or -1 counts as exactly that."""


@dataclass(frozen=True)
class Jackknife:
    """The jackknife of a figure over k units."""

    centre: float
    """The figure less its bias (Quenouille 1956), at most half an error away from it."""
    error: float
    """Standard error (Tukey 1958)."""
    degrees: float
    """Degrees of freedom of the error, at most k - 1."""

    def interval(self, confidence: float) -> Interval:
        """`centre` -+ t * `error`."""
        half = t_quantile(confidence, self.degrees) * self.error
        return self.centre - half, self.centre + half

    def p_value(self) -> float:
        """Two-sided, of the hypothesis that the true figure is 0."""
        from scipy.special import stdtr

        if self.error == 0:
            return 1.0 if self.centre == 0 else 0.0
        return float(2 * stdtr(self.degrees, -abs(self.centre) / self.error))


def jackknife(estimate: float, deleted: Floats) -> Jackknife:
    """From a figure and its values `deleted` (k,), k >= 2, with each of k units left out.

    Degrees of freedom by Satterthwaite's matching of moments: the variance of k pseudo-values with kurtosis c has a relative
    variance of (c - (k - 3) / (k - 1)) / k, that of a chi-square with f degrees 2 / f. c is estimated without bias under
    normality (Fisher's G2 + 3).
    """
    k = len(deleted)
    pseudo = k * estimate - (k - 1) * deleted
    mean, spread = float(pseudo.mean()), float(pseudo.std())
    error = spread / np.sqrt(k - 1)
    bias = float(np.clip(mean - estimate, -error / 2, error / 2))
    degrees = k - 1.0
    if k >= 4 and spread > 0:
        excess = float(np.mean(((pseudo - mean) / spread) ** 4)) - 3
        kurtosis = 3 + (k - 1) / ((k - 2) * (k - 3)) * ((k + 1) * excess + 6)
        relative_variance = (kurtosis - (k - 3) / (k - 1)) / k
        degrees = min(degrees, max(2.0, 2 / relative_variance)) if relative_variance > 0 else degrees
    return Jackknife(estimate + bias, float(error), float(degrees))


def t_quantile(confidence: float, degrees: float) -> float:
    """The two-sided quantile of Student's t, such as 2.262 for 0.95 and 9 degrees of freedom."""
    from scipy.special import stdtrit

    return float(stdtrit(degrees, (1 + confidence) / 2))


def is_perfect(figure: float, reach: float = 1.0) -> bool:
    """Whether a figure in [-reach, reach] is at one of the ends."""
    return reach - abs(figure) <= PERFECT * reach


def fisher(estimate: float, deleted: Floats, reach: float = 1.0) -> tuple[float, Floats]:
    """A figure on the scale z = atanh(figure / reach) (R. A. Fisher, 1921).

    Args:
        estimate: The figure on all units, in [-reach, reach] and at neither end.
        deleted: (k,), the figure with each unit left out.
        reach: The largest absolute value of the figure: 1 for a correlation, 2 for main.

    Returns:
        Both on that scale; `deleted` on its tangent where one of them is at an end.
    """
    r, without = estimate / reach, deleted / reach
    z = float(np.arctanh(r))
    if np.abs(without).max() < 1 - PERFECT:
        return z, np.arctanh(without)
    # If all disagreement is in one reference, z without it is infinite: there the scale is replaced by its tangent.
    return z, z + (without - r) / (1 - r * r)


def fisher_interval(estimate: float, deleted: Floats, confidence: float, reach: float = 1.0) -> Interval | None:
    """Interval of a correlation-like figure in [-reach, reach] by the jackknife on the scale z = atanh(figure / reach).

    Args:
        estimate: The figure on all units.
        deleted: (k,), the figure with each unit left out.
        confidence: The interval's level, between 0 and 1.
        reach: The largest absolute value of the figure: 1 for a correlation, 2 for main.

    Returns:
        The two ends, within [-reach, reach]. None when there are fewer than two units, when a figure is undefined, and when the
        estimate or all of `deleted` are perfect (|figure| = reach), as those of two images each always are: that leaving out
        units changes nothing does not mean that other units would not.
    """
    if len(deleted) < 2 or not np.isfinite(estimate) or not np.isfinite(deleted).all():
        return None
    if is_perfect(estimate, reach) or all(is_perfect(d, reach) for d in deleted):
        return None
    low, high = jackknife(*fisher(estimate, deleted, reach)).interval(confidence)
    return float(reach * np.tanh(low)), float(reach * np.tanh(high))


def cluster_limit(n: int) -> int:
    """Most units that the jackknife of `n` images leaves out one by one: all up to 250, more while n x units stays cheap."""
    return max(250, 50_000_000 // n)


def pooled_clusters(cluster: Ints, clusters: int, limit: int) -> tuple[Ints, int]:
    """At most `limit` groups of units; each unit is assigned to a group at random (always in the same way).

    The delete-a-group jackknife (Kott 2001): the error of a figure over very many references needs no more than some hundreds
    of groups.

    Args:
        cluster: (n,) each image's unit, from 0.
        clusters: How many there are.
        limit: The largest number of groups.

    Returns:
        (n,) each image's new unit, and how many there are.
    """
    if clusters <= limit:
        return cluster, clusters
    group = generator(0, "pooled units").permutation(clusters) % limit
    return group[cluster], limit


def generator(seed: int, name: str) -> np.random.Generator:
    """A separate random generator for each seed and name."""
    return np.random.default_rng(int.from_bytes(hashlib.sha256(f"{seed}|{name}".encode()).digest()[:8], "big"))


def cluster_draws(clusters: int, draws: int, seed: int) -> Floats:
    """Bootstrap counts: how often each unit is drawn when `clusters` units are drawn with replacement.

    Args:
        clusters: How many units there are.
        draws: Number of bootstrap samples.
        seed: Seed of the draws.

    Returns:
        (draws, clusters) whole numbers; each row sums to `clusters`.
    """
    taken = generator(seed, f"cluster bootstrap|{clusters}").integers(0, clusters, (draws, clusters))
    return np.stack([np.bincount(row, minlength=clusters) for row in taken]).astype(np.float64)


def bootstrap_interval(estimate: float, drawn: Floats, deleted: Floats, confidence: float) -> tuple[Interval, float]:
    """BCa interval (Efron 1987) of a figure, and its two-sided p-value against 0.

    Args:
        estimate: The figure on all units; finite, as are all values here.
        drawn: (draws,), the figure under resampling of units.
        deleted: (k,), the figure with each unit left out, from which the acceleration comes.
        confidence: The interval's level, between 0 and 1.

    Returns:
        The two ends, and the level at which the interval's end is 0, no smaller than 2 / (draws + 1).
    """
    from scipy.special import ndtr, ndtri

    if np.ptp(drawn) == 0:
        return (estimate, estimate), 1.0 if estimate == 0 else 2 / (len(drawn) + 1)
    count = len(drawn)
    inward = deleted.mean() - deleted
    squares = float(inward @ inward)
    acceleration = float(np.sum(inward**3)) / (6 * squares**1.5) if squares > 0 else 0.0
    shift = ndtri(_share_below(drawn, estimate))

    def percentile(level: float) -> float:
        a = shift + ndtri(level)
        # Beyond its pole the correction is undefined: the level is beyond every draw.
        return float(ndtr(shift + a / (1 - acceleration * a))) if acceleration * a < 1 else float(a > 0)

    ends = np.quantile(drawn, [percentile((1 - confidence) / 2), percentile((1 + confidence) / 2)])
    sign = float(np.sign(estimate))
    z = _normal_quantile_of_zero(np.sort(sign * drawn)) - sign * shift
    one_sided = float(z > 0)
    bend = 1 + sign * acceleration * z
    if np.isfinite(z) and bend > 0:
        one_sided = float(ndtr(z / bend - sign * shift))
    p_value = 1.0 if sign == 0 else min(1.0, max(2 * one_sided, 2 / (count + 1)))
    return (float(min(ends[0], estimate)), float(max(ends[1], estimate))), p_value


def _normal_quantile_of_zero(values: Floats) -> float:
    """Where 0 lies among sorted `values` as `np.quantile` interpolates between them, on the scale of the normal distribution."""
    from scipy.special import ndtri

    below = int(np.searchsorted(values, 0.0, side="right"))
    if below in (0, len(values)):
        return -np.inf if below == 0 else np.inf
    left, right = values[below - 1], values[below]
    return float(ndtri((below - 1 - left / (right - left)) / (len(values) - 1)))


def _share_below(drawn: Floats, value: float) -> float:
    """Share of `drawn` below `value`, ties half, never quite 0 or 1."""
    below = np.count_nonzero(drawn < value) + np.count_nonzero(drawn == value) / 2
    return float(np.clip(below, 0.5, len(drawn) - 0.5) / len(drawn))


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's (1979) step-down adjusted p-values, in the order given; compare them with the level directly."""
    p = np.asarray(p_values, dtype=np.float64)
    order = np.argsort(p, kind="stable")
    stepped = np.maximum.accumulate(p[order] * (len(p) - np.arange(len(p))))
    adjusted = np.empty(len(p))
    adjusted[order] = np.minimum(stepped, 1.0)
    return [float(v) for v in adjusted]
