"""Pair accuracy: the share of image pairs that scores order as labels do, also with references left out or resampled.

Scores and labels are higher-is-better. Counts of pairs are kept by the references (units) of their two images, so that every
weighting of the references costs one product. numpy alone; this module runs on Python 3.7 too (`harness.runtime.python37`).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from harness.runtime.python37 import Literal
from harness.statistics.correlations import Floats, Ints

Ties = Literal["half", "wrong", "first"]
SIGNIFICANCE = 1.6448536269514722
"""The normal quantile of 0.95: a pair is different where its label difference is this many standard errors (ITU-T J.149)."""


@dataclass(frozen=True)
class PairCounts:
    """Counts of image pairs by the units of both, (units, units) each: correct ones (ties by the rule), and all."""

    right: Floats
    total: Floats

    @property
    def accuracy(self) -> float:
        """The share of correct pairs in [0, 1]; NaN without pairs."""
        total = float(self.total.sum())
        return float(self.right.sum()) / total if total else float("nan")

    def under(self, weights: Floats) -> Floats:
        """(k,): the share under each row of `weights` (k, units), how often each unit is drawn; NaN without pairs."""
        right, total = (np.einsum("ki,ij,kj->k", weights, counts, weights, optimize=True) for counts in (self.right, self.total))
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.asarray(np.where(total > 0, right / total, np.nan))


def ordered_pairs(
    x: Floats, y: Floats, cluster: Ints, clusters: int, squared_error: Floats | None = None, ties: Ties = "half"
) -> PairCounts:
    """All pairs of images whose labels differ, or with `squared_error` (n,) those whose labels differ significantly.

    Args:
        x: (n,) scores.
        y: (n,) labels.
        cluster: (n,) each image's cluster (reference), from 0.
        clusters: how many there are.
        squared_error: (n,) of each label: the squared deviation of its ratings over their number.
        ties: how equal scores count; "first": as if the earlier image had the higher score.

    Returns:
        Correct pairs and all pairs, by the clusters of their two images.
    """
    right, total = np.zeros((clusters, clusters)), np.zeros((clusters, clusters))
    for i in range(len(x) - 1):
        dx, dy, others = x[i] - x[i + 1 :], y[i] - y[i + 1 :], cluster[i + 1 :]
        taken = dy != 0
        if squared_error is not None:
            taken &= np.abs(dy) >= SIGNIFICANCE * np.sqrt(squared_error[i] + squared_error[i + 1 :])
        correct = np.where(dx == 0, _tie(ties, (dy > 0).astype(np.float64)), (dx > 0) == (dy > 0))
        right[cluster[i]] += np.bincount(others, correct * taken, clusters)
        total[cluster[i]] += np.bincount(others, taken, clusters)
    return PairCounts(right, total)


def listed_pairs(
    x: Floats, first: Ints, second: Ints, share: Floats, cluster: Ints, clusters: int, ties: Ties = "half"
) -> PairCounts:
    """The pairs of a list; a pair counts with the share of raters who agree with the scores (2AFC; a single choice is 0 or 1).

    Args:
        x: (n,) scores.
        first: (p,) the index in `x` of each pair's first image.
        second: (p,) the index of its second image.
        share: (p,) in [0, 1], of raters who preferred the first.
        cluster: (n,) each image's cluster (reference), from 0.
        clusters: how many there are.
        ties: how equal scores count.

    Returns:
        Correct pairs and all pairs, by the clusters of their two images.
    """
    difference = x[first] - x[second]
    agreeing = np.where(difference > 0, share, np.where(difference < 0, 1 - share, _tie(ties, share)))
    cell = cluster[first] * clusters + cluster[second]
    right, total = (np.bincount(cell, w, clusters * clusters) for w in (agreeing, np.ones_like(share)))
    return PairCounts(*(np.asarray(c, dtype=np.float64).reshape(clusters, clusters) for c in (right, total)))


def _tie(ties: Ties, share: Floats) -> Floats:
    """(p,): how pairs with equal scores count, if a `share` of raters prefers the first."""
    if ties == "first":
        return share
    return np.full(len(share), 0.5 if ties == "half" else 0.0)
