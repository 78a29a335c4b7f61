"""Bjontegaard's rate difference (BD rate) of two rate-quality curves, and means over images with intervals.

G. Bjontegaard, "Calculation of average PSNR differences between RD-curves", VCEG-M33, 2001; interpolated by Akima's splines or
PCHIP as in C. Herglotz et al., "Beyond Bjontegaard: limits of video compression performance comparisons", ICIP 2022. The
library `bjontegaard` (of those authors) interpolates and integrates; this module checks the curves before.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike

from harness.statistics.best_group import FEWEST_REFERENCES, p_of_being_best
from harness.statistics.correlations import Floats
from harness.statistics.intervals import Interval, t_quantile

Interpolation = Literal["akima", "pchip"]
FEWEST_POINTS = 4


@dataclass(frozen=True)
class RateDifference:
    """The rate difference of a codec from the anchor at equal quality, on one image."""

    percent: float | None
    """Mean over the qualities that both curves reach, in percent; negative: the codec needs less rate. None: undefined."""
    reason: str = ""
    """Why it is undefined."""
    overlap: float = 0.0
    """Share of the union of both curves' quality ranges that both reach, in [0, 1]."""


def rate_difference(
    anchor_rate: ArrayLike,
    anchor_quality: ArrayLike,
    rate: ArrayLike,
    quality: ArrayLike,
    method: Interpolation = "akima",
) -> RateDifference:
    """Bjontegaard's rate difference of a curve against an anchor's.

    Args:
        anchor_rate: (n,) rates of the anchor, positive, in any order and unit.
        anchor_quality: (n,) its qualities, higher is better.
        rate: (m,) rates of the codec, in the same unit.
        quality: (m,) its qualities.
        method: interpolation of log rate over quality: `akima` or `pchip`.

    Returns:
        The difference, averaged over the qualities that both curves reach; nothing is extrapolated. Undefined, with a reason:
        fewer than four points, qualities that do not rise with the rate, curves that do not overlap.
    """
    curves = []
    for name, r, q in (("the anchor", anchor_rate, anchor_quality), ("the codec", rate, quality)):
        x, y = np.asarray(r, dtype=np.float64), np.asarray(q, dtype=np.float64)
        if not (np.isfinite(x).all() and np.isfinite(y).all() and (x > 0).all()):
            return RateDifference(None, f"{name} has rates or scores that are not finite, or a rate that is not above 0")
        if len(x) < FEWEST_POINTS:
            return RateDifference(None, f"{name} has {len(x)} points, and {FEWEST_POINTS} are needed")
        order = np.lexsort((y, x))
        x, y = x[order], y[order]
        falls = np.flatnonzero((np.diff(y) <= 0) | (np.diff(x) <= 0))
        if len(falls):
            i = int(falls[0])
            what = "stays the same" if y[i + 1] == y[i] else "falls" if x[i + 1] > x[i] else "has two values at one rate"
            return RateDifference(
                None, f"{name} is not monotone: the quality {what} between the rates {x[i]:.4g} and {x[i + 1]:.4g}"
            )
        curves.append((x, y))
    (ax, ay), (bx, by) = curves
    low, high = max(ay[0], by[0]), min(ay[-1], by[-1])
    if high <= low:
        return RateDifference(None, "the curves do not overlap: no quality is reached by both")
    from bjontegaard import bd_rate

    percent = float(bd_rate(ax, ay, bx, by, method=method, require_matching_points=False, min_overlap=0))
    overlap = float((high - low) / (max(ay[-1], by[-1]) - min(ay[0], by[0])))
    return RateDifference(percent, "", overlap) if np.isfinite(percent) else RateDifference(None, "its integral is not finite")


@dataclass(frozen=True)
class MeanOver:
    """A mean over images."""

    mean: float | None
    ci: Interval | None
    """95 % interval by Student's t over the images; None for fewer than two."""
    p_value: float | None
    """Two-sided p-value of a true mean of 0."""
    n: int


def mean_over(values: ArrayLike, confidence: float = 0.95) -> MeanOver:
    """The mean of one value per image (n,), with its interval over images."""
    v = np.asarray(values, dtype=np.float64)
    if not len(v):
        return MeanOver(None, None, None, 0)
    mean = float(v.mean())
    if len(v) < 2:
        return MeanOver(mean, None, None, len(v))
    from scipy.special import stdtr

    error = float(v.std(ddof=1) / np.sqrt(len(v)))
    half = t_quantile(confidence, len(v) - 1) * error
    p_value = (1.0 if mean == 0 else 0.0) if error == 0 else float(2 * stdtr(len(v) - 1, -abs(mean) / error))
    return MeanOver(mean, (mean - half, mean + half), p_value, len(v))


@dataclass(frozen=True)
class Place:
    """One of several alternatives measured on the same images."""

    name: str
    mean: float
    """The mean over images, in the metric's own unit."""
    difference: MeanOver | None
    """The difference from the best one, paired by image; None for the best itself."""
    p_adjusted: float | None
    """P-value of being among the truly best, adjusted for all alternatives (`harness.statistics.best_group`); None for the best
    and below six images."""
    best: bool
    """Whether it is in the group of the best: not significantly below a better one."""


def places(names: Sequence[str], values: Floats, *, higher_is_better: bool = True, level: float = 0.05) -> list[Place]:
    """Rank alternatives on the same images, like models on a leaderboard: the unit of resampling is the image.

    Args:
        names: names of the k alternatives.
        values: (k, n) one value per alternative and image.
        higher_is_better: the metric's polarity.
        level: the largest probability that a truly best alternative is left out of the group.

    Returns:
        The alternatives, best first. Below six images no difference can be significant, and all are in the group.
    """
    turned = values if higher_is_better else -values
    order = [int(i) for i in np.argsort(-turned.mean(axis=1), kind="stable")]
    p_values = p_of_being_best(turned.T) if values.shape[1] >= FEWEST_REFERENCES and len(names) > 1 else None
    found = []
    for i in order:
        first = i == order[0]
        p = None if first or p_values is None else float(p_values[i])
        difference = None if first else mean_over(values[i] - values[order[0]])
        found.append(Place(names[i], float(values[i].mean()), difference, p, p is None or p > level))
    return found
