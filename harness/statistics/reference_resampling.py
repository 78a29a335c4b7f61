"""SRCC, PLCC and KRCC under resampling of references: each left out (jackknife), or drawn several times (bootstrap).

Everything here is numpy on float64 arrays of one length; a figure that is not defined (constant values, fewer than two
images) is NaN, as in `harness.statistics.correlations`.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from harness.runtime.python37 import cached_property
from harness.statistics.correlations import pair_counts, pearson, spearman, standardised, tau_b, tau_b_of
from harness.statistics.ranks_by_reference import ClusteredValues, batches, rank_products

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from harness.statistics.correlations import Floats, Ints

_MOST_CLUSTERS = 256
"""Up to this number of units, sums over units are computed once for many rows of weights: units^3 / 2 numbers."""
_FEW_IMAGES = 4096
"""Up to this number of images, leaving out each unit is faster by rows of weights than unit by unit."""
_LARGEST_EXACT = 1_500_000
"""Up to this number of images, the sum of the ranks' products fits 63 bits."""
_AT_ONCE = 65_536
"""Ranks under several rows of weights that are computed together, for the processor's cache."""
_FROM_THREADS = 50_000
"""From this number of images on, models are measured in threads: numpy then works without Python's lock most of the time."""
LARGEST_CLUSTER = 1500
"""Largest number of images per reference for a bootstrap of tau-b; its tables grow with the square."""


class ClusteredPairs:
    """Scores `x` and labels `y` (n,) whose images belong to units 0..units-1 (references), under any weighting of the units.

    A weight is how often a unit is drawn: 0 leaves it out, 2 uses it twice. Results are those of the correlation on the
    repeated images, NaN where that is undefined. `labels`: those of `y`, to share their sums among models.
    """

    def __init__(self, x: Floats, y: Floats, cluster: Ints, clusters: int, labels: ClusteredValues | None = None):
        self.x, self.y, self.cluster, self.clusters = x, y, cluster, clusters
        self.size = np.bincount(cluster, minlength=clusters)
        self._scores = ClusteredValues(x, cluster, clusters)
        self._labels = ClusteredValues(y, cluster, clusters) if labels is None else labels
        self._y_in_x_order = self._labels.place[self._scores.order]

    def srcc(self, weights: Floats) -> Floats:
        """Spearman under each row of `weights` (k, units), in O(n) a row: mid-ranks are cumulative weights.

        For many rows, as in a bootstrap, from sums over units that are computed once (`rank_products`).
        """
        # The cost of unit^3 operations is compared with that of sorting the images.
        few = self.clusters <= _MOST_CLUSTERS and self.clusters**3 < 250 * len(self.x) and self.clusters * self.size.max() < 2e6
        if "_products" in vars(self) or (few and len(weights) > 2 * self.clusters):
            return self._srcc_from_products(weights)
        result = np.empty(len(weights))
        for rows in batches(len(weights), max(1, _AT_ONCE // len(self.x))):
            # Whole numbers, because their cumulative sums are faster than those of floats.
            w = weights[rows].astype(np.int32)
            weight_x, rank_x = self._scores.weighted_ranks(w)
            rank_y = np.take(self._labels.weighted_ranks(w)[1], self._y_in_x_order, axis=1, mode="clip")
            weighted = weight_x * rank_x
            xy, xx = (np.einsum("ij,ij->i", weighted, rank) for rank in (rank_y, rank_x))
            yy = np.einsum("ij,ij->i", weight_x * rank_y, rank_y)
            with np.errstate(invalid="ignore", divide="ignore"):
                result[rows] = np.where(xx * yy > 0, xy / np.sqrt(xx * yy), np.nan)
        return np.clip(result, -1.0, 1.0)

    @cached_property
    def _products(self) -> Floats:
        return rank_products(self._scores, self._labels)

    def _srcc_from_products(self, weights: Floats) -> Floats:
        """As `srcc`. A centred mid-rank is linear in the weights, so the sums of products of ranks are cubic forms in them."""
        result = np.empty(len(weights))
        squares_of_labels = self._labels.squares(weights)
        for rows in batches(len(weights), max(1, 5_000_000 // self.clusters**2)):
            w = weights[rows]
            forms, xy, start = w @ self._products, np.zeros(len(w)), 0
            for unit in range(self.clusters):
                later = w[:, unit:]
                xy += w[:, unit] * np.einsum("ij,ij->i", forms[:, start : start + later.shape[1]], later)
                start += later.shape[1]
            xx, yy = self._scores.squares(w), squares_of_labels[rows]
            with np.errstate(invalid="ignore", divide="ignore"):
                result[rows] = np.where((xx > 0) & (yy > 0), xy / np.sqrt(xx * yy), np.nan)
        return np.clip(result, -1.0, 1.0)

    def plcc(self, weights: Floats) -> Floats:
        """Pearson under each row of `weights` (k, units), from sums per unit."""
        if self.x.min() == self.x.max() or self.y.min() == self.y.max():
            return np.full(len(weights), np.nan)
        x, y = standardised(self.x), standardised(self.y)
        parts = np.stack([np.bincount(self.cluster, v, self.clusters) for v in (np.ones_like(x), x, y, x * x, y * y, x * y)])
        n, sx, sy, sxx, syy, sxy = parts @ weights.T
        with np.errstate(invalid="ignore", divide="ignore"):
            vx, vy, cxy = sxx - sx * sx / n, syy - sy * sy / n, sxy - sx * sy / n
            result = cxy / np.sqrt(vx) / np.sqrt(vy)
            # Where little variance is left the sums lose precision; those few rows are computed from the images.
            lost = ~((vx > 1e-7 * sxx) & (vy > 1e-7 * syy) & (sxx > 1e-7 * len(x)) & (syy > 1e-7 * len(x)))
        for row in np.flatnonzero(lost):
            times = weights[row][self.cluster].astype(np.int64)
            result[row] = pearson(np.repeat(self.x, times), np.repeat(self.y, times))
        return np.asarray(np.clip(result, -1.0, 1.0))

    def srcc_without_each(self) -> Floats:
        """(units,): Spearman without each unit in turn."""
        if "_products" in vars(self) or not _FEW_IMAGES < len(self.x) <= _LARGEST_EXACT:
            return np.concatenate([self.srcc(1.0 - np.eye(self.clusters)[rows]) for rows in batches(self.clusters)])
        # Whole numbers throughout, so that the sums do not depend on their order.
        taken = np.ones(len(self.x), np.int64)
        x, y, y_in_x_order = (np.empty_like(taken) for _ in range(3))
        products = np.empty(self.clusters)
        for unit, members in enumerate(np.split(np.argsort(self.cluster, kind="stable"), np.cumsum(self.size)[:-1])):
            middle = len(taken) - len(members)
            for values, ranks in ((self._scores, x), (self._labels, y)):
                places = values.place[members]
                taken[places] = 0
                middle *= values.ranks_among(taken, ranks)
                ranks[places] = 0
                taken[places] = 1
            np.take(y, self._y_in_x_order, out=y_in_x_order, mode="clip")
            products[unit] = (int(x @ y_in_x_order) - middle) / 4
        xx, yy = self._scores.squares_without_each(), self._labels.squares_without_each()
        with np.errstate(invalid="ignore", divide="ignore"):
            result = np.where((xx > 0) & (yy > 0), products / np.sqrt(xx * yy), np.nan)
        return np.asarray(np.clip(result, -1.0, 1.0))

    def plcc_without_each(self) -> Floats:
        """(units,): Pearson without each unit in turn."""
        return np.concatenate([self.plcc(1.0 - np.eye(self.clusters)[rows]) for rows in batches(self.clusters)])

    @cached_property
    def _pairs(self) -> list[Ints]:
        return pair_counts(self._scores.codes, self._labels.codes)

    def krcc(self) -> float:
        """tau-b of all images."""
        return tau_b_of(len(self.x), self._pairs)

    def krcc_resampled(self, weights: Floats) -> Floats:
        """tau-b under each row of `weights` (k, units), from counts of pairs between units; copies of an image are ties."""
        balance, tied_x, tied_y = self._between
        taken = weights @ self.size
        # Each form counts ordered pairs, and an image's copies with themselves, which are not pairs.
        forms = [
            (np.einsum("ki,ij,kj->k", weights, m, weights, optimize=True) - own) / 2
            for m, own in ((balance, 0.0), (tied_x, taken), (tied_y, taken))
        ]
        pairs = taken * (taken - 1) / 2
        untied_x, untied_y = pairs - forms[1], pairs - forms[2]
        with np.errstate(invalid="ignore", divide="ignore"):
            scale = np.where(untied_x == untied_y, untied_x, np.sqrt(untied_x) * np.sqrt(untied_y))
            return np.asarray(np.clip(forms[0] / scale, -1.0, 1.0))

    @cached_property
    def _between(self) -> tuple[Floats, Floats, Floats]:
        """(units, units) each: concordant less discordant ordered pairs of images, pairs tied in x, pairs tied in y."""
        # In the order of x, neighbouring images read the same row of the grid over x and y, from the processor's cache.
        order = self._scores.order
        # 32 bits are enough for every index, and halve the time.
        x, y, cluster = (v[order].astype(np.int32) for v in (self._scores.codes, self._labels.codes, self.cluster))
        tables = balance, tied_x, tied_y = [np.zeros((self.clusters, self.clusters)) for _ in range(3)]
        for g in range(self.clusters):
            members = np.flatnonzero(cluster == g)
            place_x, place_y = _places(x, members), _places(y, members)
            balance[g] = np.bincount(cluster, _balances(place_x, place_y, members), self.clusters)
            for place, tied in ((place_x, tied_x), (place_y, tied_y)):
                rows = np.flatnonzero(place & 1)
                tied[g] = np.bincount(cluster[rows], np.bincount(place[members])[place[rows]], self.clusters)
            # The tables are symmetric: the pairs of this unit with later ones are counted.
            x, y, cluster = (np.delete(v, members) for v in (x, y, cluster))
        for table in tables:
            table += np.triu(table, 1).T
        return balance, tied_x, tied_y

    def krcc_without_each(self) -> Floats:
        """(units,): tau-b without each unit in turn, exactly, in O(n log n) for all of them.

        Pairs without unit g = all pairs - those that touch g, and those that touch g are the sum of its points' counts less
        the pairs inside g, which that sum counts twice.
        """
        # Coded unit after unit, points of different units are neither tied nor discordant.
        inside = pair_counts(_codes_by_cluster(self.x, self.cluster), _codes_by_cluster(self.y, self.cluster))
        remaining = np.empty((4, self.clusters))
        for row, (everywhere, within) in enumerate(zip(self._pairs, inside)):
            touching = np.bincount(self.cluster, everywhere, self.clusters) - np.bincount(self.cluster, within, self.clusters) / 2
            remaining[row] = everywhere.sum() / 2 - touching
        return tau_b(len(self.x) - self.size.astype(np.float64), remaining)


def _places(code: NDArray[np.int32], members: Ints) -> NDArray[np.int32]:
    """(n,): each image's position among the distinct values of `members`: 2 i + 1 on the i-th of them, 2 i just below it."""
    present = np.zeros(int(code.max()) + 1, np.int32)
    present[code[members]] = 1
    return (2 * np.cumsum(present, dtype=np.int32) - present)[code]


def _balances(place_x: NDArray[np.int32], place_y: NDArray[np.int32], members: Ints) -> Ints:
    """(n,): for each image the members that it is concordant with less those that it is discordant with.

    `place_x`, `place_y` (n,) are places among the members' values, and images and members are in the order of x. Members are
    counted below and to the left of every corner of a grid of their distinct values, so that four look-ups serve an image.
    """
    own_x, own_y, taken = place_x[members] // 2, place_y[members] // 2, len(members)
    across, stride = int(own_x[-1]) + 1, int(own_y.max()) + 2
    # The members are in the order of x: a row for each, and of those with equal x the last.
    below = np.zeros((taken + 1, stride), np.int32)
    below[1:] = own_y[:, None] < np.arange(stride, dtype=np.int32)
    for row in range(1, len(below)):  # a third of the time of a cumulative sum down the columns
        below[row] += below[row - 1]
    if across < taken:
        below = below[np.searchsorted(own_x, np.arange(across + 1))]
    grid, in_x, in_y = below.ravel(), np.ascontiguousarray(below[:, -1]), below[-1]
    low_x, low_y = place_x // 2, place_y // 2
    # Concordant less discordant, where the image is tied with no member.
    balance = 4 * grid[low_x * stride + low_y] - 2 * in_x[low_x] - 2 * in_y[low_y] + taken
    # Values below the image's, and values not above it: between the two lie those that it is tied with.
    tied = np.flatnonzero((place_x | place_y) & 1)
    low_x, low_y = low_x[tied], low_y[tied]
    high_x, high_y = (place_x[tied] + 1) // 2, (place_y[tied] + 1) // 2
    corners = sum(grid[row * stride + column] for row in (low_x, high_x) for column in (low_y, high_y))
    balance[tied] = corners - in_x[low_x] - in_x[high_x] - in_y[low_y] - in_y[high_y] + taken
    return np.asarray(balance)


def _codes_by_cluster(x: Floats, cluster: Ints) -> Ints:
    """Codes by (unit, value): equal within a unit only, and growing from unit to unit."""
    order = np.lexsort((x, cluster))
    new = (np.diff(x[order]) != 0) | (np.diff(cluster[order]) != 0)
    result = np.zeros(len(x), np.int64)
    result[order[1:]] = np.cumsum(new)
    return result


@dataclass(frozen=True)
class Figures:
    """A model's figures: on all images, with each unit left out, and under resampling (empty when not drawn)."""

    estimate: dict[str, float]
    deleted: dict[str, Floats]
    drawn: dict[str, Floats]


def figures_of(
    scores: Sequence[Floats],
    labels: Floats,
    cluster: Ints,
    clusters: int,
    statistics: Sequence[str],
    weights: Floats | None = None,
    orders: Sequence[Floats] | None = None,
) -> list[Figures]:
    """Each model's figures on all images, with each cluster left out, and under bootstrap resampling of clusters.

    Args:
        scores: (n,) of each model.
        labels: (n,).
        cluster: (n,) each image's cluster (reference), from 0.
        clusters: how many there are.
        statistics: which of srcc, plcc, krcc and main.
        weights: (draws, clusters) how often each cluster is drawn; None: no bootstrap.
        orders: (n,) of each model, the scores for SRCC and KRCC; None: `scores`.

    Returns:
        For each model the figures by name; NaN where one is undefined.
    """
    needed = {"srcc", "plcc"} if "main" in statistics else set()
    needed |= set(statistics) - {"main"}
    shared = ClusteredValues(labels, cluster, clusters)

    def of_model(x: Floats, order: Floats) -> Figures:
        whole = ClusteredPairs(x, labels, cluster, clusters, shared)
        ranked = whole if order is x else ClusteredPairs(order, labels, cluster, clusters, shared)
        estimate: dict[str, float] = {}
        deleted: dict[str, Floats] = {}
        drawn: dict[str, Floats] = {}
        # The sums for many draws are used for leaving out each unit, too.
        if weights is not None:
            drawn = {s: getattr(w, s)(weights) for s, w in (("srcc", ranked), ("plcc", whole)) if s in needed}
            if "krcc" in needed and whole.size.max() <= LARGEST_CLUSTER:
                drawn["krcc"] = ranked.krcc_resampled(weights)
        if "srcc" in needed:
            estimate["srcc"], deleted["srcc"] = spearman(order, labels), ranked.srcc_without_each()
        if "plcc" in needed:
            estimate["plcc"], deleted["plcc"] = pearson(x, labels), whole.plcc_without_each()
        if "krcc" in needed:
            estimate["krcc"], deleted["krcc"] = ranked.krcc(), ranked.krcc_without_each()
        if "main" in statistics:
            estimate["main"] = estimate["srcc"] + estimate["plcc"]
            deleted["main"] = deleted["srcc"] + deleted["plcc"]
            if drawn:
                drawn["main"] = drawn["srcc"] + drawn["plcc"]
        return Figures(estimate, deleted, drawn)

    each = scores, scores if orders is None else orders
    if len(labels) < _FROM_THREADS:
        return list(map(of_model, *each))
    with ThreadPoolExecutor(min(len(scores), os.cpu_count() or 1)) as pool:
        return list(pool.map(of_model, *each))
